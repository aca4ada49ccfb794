"""Leakage-safe K-fold: questions that share a group or nearly a prompt stay together, letters balanced, and a
question keeps its fold when rows are added or reordered."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import EnsembleConfig
from solution.errors import UserError
from solution.files import content_hash, read_json, write_json
from solution.progress import say
from solution.questions import Questions
from solution.tables import cell_text
from solution.workdir import Workdir


def group_questions(questions: Questions, group_column: str | None, near_duplicate: float) -> np.ndarray:
    """Group labels int [n]: equal where questions must share a fold.

    Two questions are joined when their values in `group_column` are equal (an empty value joins
    nothing) or the TF-IDF cosine of their prompts' words and word pairs is at least
    `near_duplicate`; joins chain.

    Raises:
        UserError: the question file has no such column.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(questions)
    left: list[int] = []
    right: list[int] = []
    if group_column is not None:
        if group_column not in questions.extra:
            there = ", ".join(questions.extra) or "none"
            raise UserError(
                f"ensemble.group_column is {group_column!r}, and the question file has no such column "
                f"(its extra columns: {there}). Set ensemble.group_column=null or to one of them."
            )
        first: dict[str, int] = {}
        for row, value in enumerate(questions.extra[group_column]):
            text = cell_text(value)
            if text:
                left.append(first.setdefault(text, row))
                right.append(row)
    pairs_left, pairs_right = _near_duplicates(questions.prompts, near_duplicate)
    graph = coo_matrix((np.ones(len(left) + len(pairs_left)), (left + pairs_left, right + pairs_right)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def _near_duplicates(prompts: Sequence[str], threshold: float) -> tuple[list[int], list[int]]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    left: list[int] = []
    right: list[int] = []
    # Identical up to case and punctuation, also where no word is left to compare.
    first: dict[str, int] = {}
    for row, prompt in enumerate(prompts):
        key = _words(prompt) or prompt
        if first.setdefault(key, row) != row:
            left.append(first[key])
            right.append(row)
    if threshold >= 1 or len(first) < 2:
        return left, right
    # One-character words count: "What is 3 + 4?" and "What is 5 + 6?" are two questions.
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32, lowercase=False, token_pattern=r"\S+"
    )
    rows = np.array(list(first.values()))
    vectors = vectorizer.fit_transform(first)
    # Blocks of the sparse product, which common words make nearly dense: about 16 million entries at a time.
    block = int(np.clip(2**24 // len(rows), 16, 1024))
    for start in range(0, len(rows), block):
        product = vectors[start:] @ vectors[start : start + block].T.tocsr()
        at = np.flatnonzero(product.data >= threshold)
        one = np.searchsorted(product.indptr, at, side="right") - 1
        other = product.indices[at]
        pair = one > other
        left += rows[start + one[pair]].tolist()
        right += rows[start + other[pair]].tolist()
    return left, right


def _words(prompt: str) -> str:
    """The prompt's letters and digits in lower case, one space for all else."""
    return " ".join("".join(c if c.isalnum() else " " for c in prompt.casefold()).split())


def assign_folds(
    questions: Questions, folds: int, groups: np.ndarray, seed: int = 0, previous: dict[str, int] | None = None
) -> np.ndarray:
    """The fold of each question, int [n].

    Groups go, the largest first (ties by a hash of their ids), to the fold where they disturb the
    balance of answer letters and sizes least. Questions in `previous` keep their fold, and a new
    question that joins one of their groups follows it. The result does not depend on row order.

    Args:
        groups: int [n] from `group_questions`.
        previous: id -> fold, from an earlier call.

    Raises:
        UserError: fewer groups than folds.
    """
    previous = previous or {}
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[int(group)].append(row)
    if len(members) < folds:
        raise UserError(
            f"{folds} folds asked for, and the questions form only {len(members)} groups that may be parted "
            "(equal group values and near-duplicate prompts stay together). Use fewer folds, another "
            "ensemble.group_column, or a higher ensemble.near_duplicate."
        )

    def key(group: int) -> str:
        ids = sorted(questions.ids[row] for row in members[group])
        return hashlib.sha256(f"{seed}\n{ids[0]}".encode()).hexdigest()

    width = questions.max_options + 1  # the last column counts questions without an answer
    letters = np.zeros((len(questions), width))
    letters[np.arange(len(questions)), questions.answers] = 1
    target = letters.sum(axis=0) / folds
    counts = np.zeros((folds, width))
    fold_of = np.full(len(questions), -1, dtype=np.int64)

    def place(rows: list[int], fold: int) -> None:
        new = [row for row in rows if fold_of[row] < 0]
        fold_of[new] = fold
        counts[fold] += letters[new].sum(axis=0)

    open_groups: list[int] = []
    for group in sorted(members, key=lambda g: (-len(members[g]), key(g))):
        kept: Counter[int] = Counter()
        for row in members[group]:
            if questions.ids[row] in previous:
                kept[previous[questions.ids[row]]] += 1
        if not kept:
            open_groups.append(group)
            continue
        for row in members[group]:
            if questions.ids[row] in previous:
                place([row], previous[questions.ids[row]])
        place(members[group], max(kept, key=lambda fold: (kept[fold], -fold)))
    for group in open_groups:
        add = letters[members[group]].sum(axis=0)
        after = counts + add
        # Change of the squared distance to balance, of letters and of sizes, if the group went there.
        cost = ((after - target) ** 2 - (counts - target) ** 2).sum(axis=1)
        size, new_size = counts.sum(axis=1), after.sum(axis=1)
        cost += (new_size - target.sum()) ** 2 - (size - target.sum()) ** 2
        place(members[group], int(np.argmin(cost)))
    return fold_of


def folds_settings(folds: int, group_column: str | None, near_duplicate: float, seed: int) -> dict[str, Any]:
    return {"folds": folds, "group_column": group_column, "near_duplicate": near_duplicate, "seed": seed}


def exam_folds(questions: Questions, ensemble: EnsembleConfig, path: Path) -> np.ndarray:
    """The folds of an exam by the ensemble's settings; see `load_or_make_folds`."""
    settings = folds_settings(ensemble.folds, ensemble.group_column, ensemble.near_duplicate, ensemble.seed)
    return load_or_make_folds(questions, path, settings)


def load_or_make_folds(questions: Questions, path: Path, settings: dict[str, Any]) -> np.ndarray:
    """The folds of an exam, int [n], kept in one file so that every step and every machine uses the same.

    A question whose prompt or group is no longer what the file was made from counts as new: an id
    alone says little (many exams number theirs from 0), and an old fold might part a group.

    Args:
        path: the folds file; made when missing, added to when there are new questions.
        settings: from `folds_settings`.

    Raises:
        UserError: the file is corrupt, was made with other settings, or parts another exam.
    """
    remedy = f"Delete {path} (and the OOF files beside it) to make new folds."
    previous: dict[str, int] = {}
    known: dict[str, str] = {}
    prints = question_prints(questions, settings["group_column"])
    if path.exists():
        stored = read_json(path, "the folds file", remedy)
        parts = ("settings", "fold", "print")
        if not isinstance(stored, dict) or not all(isinstance(stored.get(part), dict) for part in parts):
            raise UserError(f"the folds file is corrupt: {path}. {remedy}")
        if stored["settings"] != settings:
            told = ", ".join(
                f"{name} {stored['settings'].get(name)!r} there and {value!r} now"
                for name, value in settings.items()
                if stored["settings"].get(name) != value
            )
            raise UserError(
                f"{path} was made with other settings: {told}. Give the --configs and settings that it was made with. "
                f"Or begin anew: {remedy}"
            )
        previous, known = stored["fold"], stored["print"]
        bad = [v for v in previous.values() if not isinstance(v, int) or not 0 <= v < settings["folds"]]
        if bad or stored.get("hash") != content_hash(previous, known):
            raise UserError(f"the folds file is corrupt: {path}. {remedy}")
        if known and not any(known.get(id_) == print_ for id_, print_ in prints.items()):
            raise UserError(
                f"{path} parts another exam: none of its {len(known)} questions is in this question file. "
                f"Use another --workdir for each exam. {remedy}"
            )
        new = [id_ for id_ in questions.ids if id_ not in known]
        if new:
            say(f"note: {len(new)} questions are not in {path} yet and are added to it (first: id {new[0]})")
        changed = [id_ for id_, print_ in prints.items() if known.get(id_, print_) != print_]
        if changed:
            say(f"note: {len(changed)} questions have changed since {path} was made (first: id {changed[0]})")
        for id_ in changed:
            previous.pop(id_, None)
    if previous and all(id_ in previous for id_ in questions.ids):
        return np.array([previous[id_] for id_ in questions.ids], dtype=np.int64)
    groups = group_questions(questions, settings["group_column"], settings["near_duplicate"])
    fold_of = assign_folds(questions, settings["folds"], groups, settings["seed"], previous)
    largest = np.bincount(groups).max()
    if largest > len(questions) / settings["folds"]:
        say(f"note: one group holds {largest} of {len(questions)} questions, more than one fold's share")
    split = sum(len(set(fold_of[groups == g])) > 1 for g in np.flatnonzero(np.bincount(groups) > 1))
    if split:
        say(f"note: {split} groups lie in more than one fold, since new questions joined what was parted before")
    merged = {**previous, **{id_: int(fold) for id_, fold in zip(questions.ids, fold_of, strict=True)}}
    known = {**known, **prints}
    write_json(path, {"settings": settings, "fold": merged, "print": known, "hash": content_hash(merged, known)})
    return fold_of


@contextlib.contextmanager
def taken_back_when_refused(workdir: Workdir) -> Iterator[None]:
    """A folds file that is new goes again when the block ends in a `UserError` before anything was made by it.

    It would bind the next attempt to the settings of the one that was refused.
    """
    there = workdir.folds.exists()
    try:
        yield
    except UserError:
        if not there and not any(workdir.oof.glob("*/fold_*")) and not any(workdir.weights.glob("*/fold_*")):
            workdir.folds.unlink(missing_ok=True)
        raise


def already_parted(questions: Questions, path: Path) -> int:
    """How many of the questions a folds file holds with the same prompt and group; 0 where there is no whole file."""
    return int((known_folds(questions, path) >= 0).sum())


def known_folds(questions: Questions, path: Path) -> np.ndarray:
    """The folds int [n] of the questions that a folds file holds with the same prompt and group.

    -1 for the others, and for all where there is no whole file.
    """
    try:
        stored = read_json(path, "the folds file", "")
        known, prints = stored["print"], question_prints(questions, stored["settings"]["group_column"])
        found = [stored["fold"][id_] if known.get(id_) == print_ else -1 for id_, print_ in prints.items()]
        return np.array(found, dtype=np.int64)
    except (UserError, AttributeError, KeyError, TypeError, ValueError):
        return np.full(len(questions), -1, dtype=np.int64)


def question_prints(questions: Questions, group_column: str | None) -> dict[str, str]:
    """Of each question, by its id, a short hash of what decides its group."""
    values = questions.extra.get(group_column, [None] * len(questions)) if group_column else [None] * len(questions)
    return {
        id_: content_hash(prompt, cell_text(value))[:8]
        for id_, prompt, value in zip(questions.ids, questions.prompts, values, strict=True)
    }


def exam_with_folds_hash(questions: Questions, folds: np.ndarray) -> str:
    """A hash of an exam and of which question is in which fold: OOF files of other folds do not belong together.

    Args:
        folds: int [n].
    """
    return content_hash(questions.content_hash(), content_hash(sorted(zip(questions.ids, folds.tolist(), strict=True))))
