"""Leakage-safe K-fold: questions that share a group or a context or are nearly the same stay together, letters are
balanced, and a question keeps its fold when rows are added or reordered."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from solution.config import EnsembleConfig
from solution.errors import UserError
from solution.files import content_hash, read_json, write_json
from solution.formats.names import CONTEXTS, key_of
from solution.near_questions import near_questions, question_key
from solution.progress import say
from solution.questions import Questions
from solution.tables import cell_text
from solution.workdir import Workdir

_PARTS = ("settings", "fold", "print")
"""Mappings that every folds file holds."""
NO_GROUPS = "none"
"""The group column that stands for none, also not for those of contexts."""
_HALF = 8  # characters of a print


def group_questions(
    questions: Questions,
    group_column: str | None,
    near_duplicate: float,
    folds: int | None = None,
    contexts_too: bool = False,
) -> np.ndarray:
    """Group labels int [n]: equal where questions must share a fold.

    Two questions are joined when they are nearly the same (see `near_questions`), or when their values in a column
    are: that of `group_column`, or the columns of their contexts (see `shared_contexts`). An empty value joins nothing.
    Joins chain.

    Args:
        group_column: null: the columns of contexts; `none`: no column.
        folds: their number, for `shared_contexts`.
        contexts_too: those of the same context are joined also where `group_column` names a column.

    Raises:
        UserError: the question file has no such column.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(questions)
    pairs = [near_questions(questions, near_duplicate)]
    if group_column is None or (contexts_too and group_column != NO_GROUPS):
        pairs += [
            _joined(questions.extra[column], values) for column, values in shared_contexts(questions, folds).items()
        ]
    if group_column is None:
        pass
    elif group_column in questions.extra:
        pairs.append(_joined(questions.extra[group_column], None))
    elif group_column != NO_GROUPS:
        there = ", ".join(questions.extra) or "none"
        raise UserError(
            f"ensemble.group_column is {group_column!r}, and the question file has no such column "
            f"(its extra columns: {there}). Set ensemble.group_column=null or to one of them."
        )
    left, right = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
    graph = coo_matrix((np.ones(len(left)), (left, right)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def shared_contexts(questions: Questions, folds: int | None) -> dict[str, Counter[str]]:
    """Columns of contexts or source passages -> the values that several questions have, and how many have each.

    Args:
        folds: their number. A value of more than a fold's share of the questions ("n/a") is no context of their own,
            and is left out; None: all are taken.
    """
    most = len(questions) / (folds or 1)
    found = {}
    for column, values in questions.extra.items():
        if key_of(column) in ("context", *CONTEXTS):
            counts = Counter(filter(None, map(_plain, values)))
            found[column] = Counter({value: count for value, count in counts.items() if 1 < count <= most})
    return {column: counts for column, counts in found.items() if counts}


def _plain(value: Any) -> str:
    return " ".join(cell_text(value).split())


def _joined(values: Sequence[Any], wanted: Collection[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Each row with the first one of the same value, where there is a value (and it is a wanted one)."""
    first: dict[str, int] = {}
    left, right = [], []
    for row, value in enumerate(map(_plain, values)):
        if value and (wanted is None or value in wanted) and first.setdefault(value, row) != row:
            left.append(first[value])
            right.append(row)
    return np.array(left, dtype=np.int64), np.array(right, dtype=np.int64)


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
            "(equal group values, shared contexts and near-duplicate questions stay together). Use fewer folds, "
            "another ensemble.group_column (none: no column), or a higher ensemble.near_duplicate."
        )

    def order(group: int) -> tuple[int, str]:
        first_id = min(questions.ids[row] for row in members[group])
        return -len(members[group]), hashlib.sha256(f"{seed}\n{first_id}".encode()).hexdigest()

    groups_in_order = [members[group] for group in sorted(members, key=order)]
    balance = _Balance(questions, folds)
    # First the groups of which questions have a fold already: the others then fill what is lacking.
    new_groups = []
    for rows in groups_in_order:
        placed = {row: previous[questions.ids[row]] for row in rows if questions.ids[row] in previous}
        if not placed:
            new_groups.append(rows)
            continue
        for row, fold in placed.items():
            balance.place([row], fold)
        counts = Counter(placed.values())
        balance.place(rows, max(counts, key=lambda fold: (counts[fold], -fold)))
    for rows in new_groups:
        balance.place(rows, balance.best_fold(rows))
    return balance.fold_of


class _Balance:
    """Folds while they are filled: what is in each, and what it should hold.

    Attributes:
        fold_of: int [n], the fold of each question; -1: none yet.
    """

    def __init__(self, questions: Questions, folds: int):
        self.fold_of = np.full(len(questions), -1, dtype=np.int64)
        # [n, letters + 1], a 1 in the column of each question's answer. The last column counts questions without one:
        # their answer is -1.
        self._letters = np.zeros((len(questions), questions.max_options + 1))
        self._letters[np.arange(len(questions)), questions.answers] = 1
        self._target = self._letters.sum(axis=0) / folds  # [letters + 1]
        self._counts = np.zeros((folds, self._letters.shape[1]))  # [folds, letters + 1]

    def place(self, rows: list[int], fold: int) -> None:
        """Put those questions into the fold that are in none."""
        new = [row for row in rows if self.fold_of[row] < 0]
        self.fold_of[new] = fold
        self._counts[fold] += self._letters[new].sum(axis=0)

    def best_fold(self, rows: list[int]) -> int:
        """The fold in which the questions raise the squared distance to balance least, of letters and of sizes."""
        before, after = self._counts, self._counts + self._letters[rows].sum(axis=0)
        cost = ((after - self._target) ** 2 - (before - self._target) ** 2).sum(axis=1)  # [folds]
        size, new_size = before.sum(axis=1), after.sum(axis=1)
        cost += (new_size - self._target.sum()) ** 2 - (size - self._target.sum()) ** 2
        return int(np.argmin(cost))


class FoldsSettings(TypedDict):
    """The settings that folds depend on, as the folds file holds them; see `EnsembleConfig`."""

    folds: int
    group_column: str | None
    near_duplicate: float
    seed: int


def folds_settings(folds: int, group_column: str | None, near_duplicate: float, seed: int) -> FoldsSettings:
    return {"folds": folds, "group_column": group_column, "near_duplicate": near_duplicate, "seed": seed}


def exam_folds(questions: Questions, ensemble: EnsembleConfig, path: Path) -> np.ndarray:
    """The folds of an exam by the ensemble's settings; see `load_or_make_folds`."""
    settings = folds_settings(ensemble.folds, ensemble.group_column, ensemble.near_duplicate, ensemble.seed)
    return load_or_make_folds(questions, path, settings)


def load_or_make_folds(questions: Questions, path: Path, settings: FoldsSettings) -> np.ndarray:
    """The folds of an exam, int [n], kept in one file so that every step and every machine uses the same.

    A question whose prompt, options or group are no longer what the file was made from counts as new: an id
    alone says little (many exams number theirs from 0), and an old fold might part a group.

    Args:
        path: the folds file; made when missing, added to when there are new questions.
        settings: from `folds_settings`.

    Raises:
        UserError: the file is corrupt, was made with other settings, or parts another exam.
    """
    fold_by_id: dict[str, int] = {}
    print_by_id: dict[str, str] = {}
    prints = question_prints(questions, settings["group_column"])
    # What the file says of these questions.
    if path.exists():
        fold_by_id, print_by_id = _read_folds(path, settings)
        for id_ in _changed_questions(prints, print_by_id, path):
            fold_by_id.pop(id_, None)
    if fold_by_id and all(id_ in fold_by_id for id_ in questions.ids):
        return np.array([fold_by_id[id_] for id_ in questions.ids], dtype=np.int64)
    # New questions: groups are formed of all, so that a new one follows the old ones that it is like.
    folds = settings["folds"]
    groups = group_questions(questions, settings["group_column"], settings["near_duplicate"], folds)
    if settings["group_column"] is None:
        _tell_shared_contexts(questions, folds)
    fold_of = assign_folds(questions, folds, groups, settings["seed"], fold_by_id)
    _tell_odd_groups(groups, fold_of, folds)
    # Questions of the file that are not in this exam stay in it.
    fold_by_id = {**fold_by_id, **{id_: int(fold) for id_, fold in zip(questions.ids, fold_of, strict=True)}}
    print_by_id = {**print_by_id, **prints}
    hash_ = content_hash(fold_by_id, print_by_id)
    write_json(path, {"settings": settings, "fold": fold_by_id, "print": print_by_id, "hash": hash_})
    return fold_of


def _remedy(path: Path) -> str:
    return f"Delete {path} (and the OOF files beside it) to make new folds."


def _read_folds(path: Path, settings: FoldsSettings) -> tuple[dict[str, int], dict[str, str]]:
    """The fold and the print (see `question_prints`) of each question of a folds file, by its id.

    Raises:
        UserError: the file is corrupt or was made with other settings.
    """
    stored = whole_folds_file(path)
    if stored["settings"] != settings:
        differences = ", ".join(
            f"{name} {stored['settings'].get(name)!r} there and {value!r} now"
            for name, value in settings.items()
            if stored["settings"].get(name) != value
        )
        raise UserError(
            f"{path} was made with other settings: {differences}. Give the --configs and settings that it was made "
            f"with. Or begin anew: {_remedy(path)}"
        )
    return stored["fold"], stored["print"]


def whole_folds_file(path: Path) -> dict[str, Any]:
    """The content of a folds file: `settings`, and the `fold` and `print` (see `question_prints`) of each id.

    Raises:
        UserError: it is missing or corrupt.
    """
    stored = read_json(path, "the folds file", _remedy(path))
    whole = isinstance(stored, dict) and all(isinstance(stored.get(part), dict) for part in _PARTS)
    if whole:
        folds = stored["settings"].get("folds")
        whole = isinstance(folds, int) and all(
            isinstance(fold, int) and 0 <= fold < folds for fold in stored["fold"].values()
        )
    if not whole or stored.get("hash") != content_hash(stored["fold"], stored["print"]):
        raise UserError(f"the folds file is corrupt: {path}. {_remedy(path)}")
    return dict(stored)


def _changed_questions(prints: dict[str, str], print_by_id: dict[str, str], path: Path) -> list[str]:
    """The ids of the questions that are not what the folds file was made from; a note tells them and the new ones.

    Args:
        prints: of this exam's questions.
        print_by_id: of those in the file at `path`.

    Raises:
        UserError: the file has none of the questions.
    """
    if print_by_id and not any(same_print(print_, print_by_id.get(id_)) for id_, print_ in prints.items()):
        raise UserError(
            f"{path} parts another exam: none of its {len(print_by_id)} questions is in this question file. "
            f"Use another --workdir for each exam. {_remedy(path)}"
        )
    new = [id_ for id_ in prints if id_ not in print_by_id]
    if new:
        say(f"note: {len(new)} questions are not in {path} yet and are added to it (first: id {new[0]})")
    changed = [id_ for id_, print_ in prints.items() if not same_print(print_, print_by_id.get(id_, print_))]
    if changed:
        say(f"note: {len(changed)} questions have changed since {path} was made (first: id {changed[0]})")
    return changed


def _tell_shared_contexts(questions: Questions, folds: int) -> None:
    for column, counts in shared_contexts(questions, folds).items():
        say(
            f"note: {sum(counts.values())} of {len(questions)} questions share their {column} with others and stay in "
            "one fold with them (ensemble.group_column=none parts them)"
        )
    kept = shared_contexts(questions, folds)
    for column, counts in shared_contexts(questions, None).items():
        common = counts.keys() - kept.get(column, {}).keys()
        if common:
            say(
                f"note: {sum(counts[value] for value in common)} questions have a {column} that more than a fold's "
                "share of the questions has, and are parted all the same "
                f"(ensemble.group_column={column} keeps them together)"
            )


def _tell_odd_groups(groups: np.ndarray, fold_of: np.ndarray, folds: int) -> None:
    """Notes on a group that is larger than a fold should be, and on groups that lie in several.

    Args:
        groups, fold_of: int [n].
    """
    sizes = np.bincount(groups)
    if sizes.max() > len(groups) / folds:
        say(f"note: one group holds {sizes.max()} of {len(groups)} questions, more than one fold's share")
    split = sum(len(set(fold_of[groups == group])) > 1 for group in np.flatnonzero(sizes > 1))
    if split:
        say(f"note: {split} groups lie in more than one fold, since new questions joined what was parted before")


@contextlib.contextmanager
def taken_back_when_refused(workdir: Workdir) -> Iterator[None]:
    """Remove the files beside the folds that the block made when it ends in a `UserError` and nothing was trained.

    A folds file would bind the next attempt to the settings of the one that was refused.
    """
    made = [path for path in (workdir.folds, workdir.exam_arguments) if not path.exists()]
    try:
        yield
    except UserError:
        if not any(workdir.oof.glob("*/fold_*")) and not any(workdir.weights.glob("*/fold_*")):
            for path in made:
                path.unlink(missing_ok=True)
        raise


def already_parted(questions: Questions, path: Path) -> int:
    """The number of questions that a folds file holds with the same texts and group; 0 without a whole file."""
    return int((known_folds(questions, path) >= 0).sum())


def known_folds(questions: Questions, path: Path) -> np.ndarray:
    """The folds int [n] of the questions that a folds file holds with the same texts and group.

    -1 for the others, and for all where there is no whole file.
    """
    try:
        stored = read_json(path, "the folds file", "")
        known, prints = stored["print"], question_prints(questions, stored["settings"]["group_column"])
        folds = [stored["fold"][id_] if same_print(print_, known.get(id_)) else -1 for id_, print_ in prints.items()]
        return np.array(folds, dtype=np.int64)
    except (UserError, AttributeError, KeyError, TypeError, ValueError):
        return np.full(len(questions), -1, dtype=np.int64)


def known_options(path: Path) -> frozenset[str]:
    """The `options_print` of every question in a folds file; none without a whole file."""
    try:
        return frozenset(str(print_)[_HALF:] for print_ in read_json(path, "the folds file", "")["print"].values())
    except (UserError, AttributeError, KeyError, TypeError):
        return frozenset()


def options_print(options: Sequence[str]) -> str:
    """A short hash of a question's options in any order."""
    return content_hash(sorted(filter(None, options)))[:_HALF]


def question_prints(questions: Questions, group_column: str | None) -> dict[str, str]:
    """A short hash of each question, by its id: first of prompt and group value, then of the options in any order.

    The files of earlier versions hold the first half alone; see `same_print`.
    """
    values = questions.extra.get(group_column, [None] * len(questions)) if group_column else [None] * len(questions)
    return {
        id_: content_hash(prompt, cell_text(value))[:_HALF] + options_print(options)
        for id_, prompt, options, value in zip(questions.ids, questions.prompts, questions.options, values, strict=True)
    }


def repeated_questions(questions: Questions, exam: Questions) -> list[str]:
    """The ids of the questions that are the same as one of the exam, see `question_key`.

    `question_prints` tell another thing: whether a row of an exam is still what it was.
    """
    known = set(map(question_key, exam.prompts, exam.options))
    keys = map(question_key, questions.prompts, questions.options)
    return [id_ for id_, key in zip(questions.ids, keys, strict=True) if key in known]


def same_print(print_: str, known: str | Collection[str] | None) -> bool:
    """Whether a question's print is the known one, or one of those; None is equal to no print."""
    several = () if known is None else (known,) if isinstance(known, str) else known
    return print_ in several or print_[:_HALF] in several


def exam_with_folds_hash(questions: Questions, folds: np.ndarray) -> str:
    """A hash of an exam and of which question is in which fold: OOF files of other folds do not belong together.

    Args:
        folds: int [n].
    """
    return content_hash(questions.content_hash(), content_hash(sorted(zip(questions.ids, folds.tolist(), strict=True))))
