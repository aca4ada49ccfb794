"""Answers that another program made: read, checked against the exam, and put into the OOF store."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution import oof
from solution.errors import UserError
from solution.files import file_hash
from solution.folds import exam_with_folds_hash
from solution.questions import LETTERS, Questions
from solution.tables import cell_text, read_rows, shown
from solution.workdir import Workdir

FAMILY = "imported"
_NAME = re.compile(r"[a-z0-9][a-z0-9_\-]{0,63}")
_SHOWN = 8


def read_answers(
    path: Path, questions: Questions, normalize: bool = False, folds: np.ndarray | None = None
) -> np.ndarray:
    """A file of one probability an option: `id` and `p_A,p_B,...` or `A,B,...`; CSV, JSONL or parquet (or .gz).

    Args:
        questions: n of them; the file must answer each of them and no other, in any order.
        normalize: divide each row by its sum, where it is positive.
        folds: int [n]; the file's column `fold`, when it has one, must agree (and `answer` with the exam's).

    Returns:
        float32 [n, max_options], rows sum to 1, 0 where an option does not exist.

    Raises:
        UserError: not such a file; ids missing, unknown or repeated; another fold or answer; a value that is no number
            (NaN), negative or for an option that the question does not have; a row that does not sum to 1.
    """
    names, rows = read_rows(path, "the file of answers")
    width = questions.max_options
    forms = [prefix for prefix in ("p_", "") if prefix + "A" in names]
    if "id" not in names or not forms:
        raise UserError(
            f"{path} has the columns {', '.join(map(shown, names[:12])) or '(none)'}; a file of answers has id and one "
            "column an option: p_A, p_B, ... or A, B, ..."
        )
    columns = [f"{forms[0]}{letter}" for letter in LETTERS]
    lacking = [name for name in columns[:width] if name not in names]
    if lacking:
        raise UserError(f"{path}: column {lacking[0]} missing; the exam has questions with {width} options")
    row_of = {id_: row for row, id_ in enumerate(questions.ids)}
    exists = questions.exists(len(LETTERS))
    result = np.zeros((len(questions), len(LETTERS)))
    problems: list[str] = []
    seen: set[str] = set()
    strangers: list[str] = []
    contradicted: list[str] = []
    for record in rows:
        id_ = cell_text(record.get("id"))
        row = row_of.get(id_)
        if row is None:
            strangers.append(id_)
            continue
        if id_ in seen:
            problems.append(f"id {shown(id_)} stands more than once")
            continue
        seen.add(id_)
        if folds is not None and cell_text(record.get("fold")) not in ("", str(folds[row]), f"{folds[row]}.0"):
            problems.append(
                f"id {shown(id_)} is of fold {shown(cell_text(record['fold']))} there and of fold {folds[row]} here: "
                "its models may have seen near-duplicates (remove the column to import it all the same)"
            )
        if not _same_answer(record, questions, row):
            contradicted.append(id_)
        problem = _row_problem(record, columns, exists[row], normalize, result[row])
        if problem:
            problems.append(f"id {shown(id_)}: {problem}")
    if strangers and not seen:
        raise UserError(
            f"{path} is of other questions: none of its ids is in the exam (first: id {shown(strangers[0])})"
        )
    if strangers:
        problems.append(f"{len(strangers)} ids are not in the exam (first: id {shown(strangers[0])})")
    if contradicted:
        first = ", ".join(map(shown, contradicted[:_SHOWN])) + (", ..." if len(contradicted) > _SHOWN else "")
        problems.insert(
            0,
            f"the column answer contradicts the exam for {len(contradicted)} of {len(questions)} questions "
            f"(id {first}); is it of another version of the exam? Remove the column to import it all the same",
        )
    missing = [id_ for id_ in questions.ids if id_ not in seen]
    if missing:
        problems.append(f"{len(missing)} of {len(questions)} questions are missing (first: id {shown(missing[0])})")
    if problems:
        raise UserError.join([f"{path}: {each}" for each in problems], "the answers are not usable", _SHOWN)
    return result[:, :width].astype(np.float32)


def _same_answer(record: dict[str, Any], questions: Questions, row: int) -> bool:
    """Whether a row's `answer`, a letter, an option's index from 0 or its text, is the exam's; so is none, on either
    side."""
    told, right = cell_text(record.get("answer")), int(questions.answers[row])
    if not told or right < 0:
        return True
    return told.upper() == LETTERS[right] or told in (str(right), f"{right}.0", questions.options[row][right])


def _row_problem(
    record: dict[str, Any], columns: Sequence[str], exists: np.ndarray, normalize: bool, out: np.ndarray
) -> str | None:
    """Fill one row of probabilities, or say what is wrong with it."""
    for option, name in enumerate(columns):
        text = cell_text(record.get(name))
        try:
            value = float(text) if text else math.nan
        except ValueError:
            return f"{name} is {shown(text)!r}, not a number"
        if not exists[option]:
            if value and not math.isnan(value):
                return f"one option too many: {name} is {shown(text)}, and the question has no option {LETTERS[option]}"
            continue
        if not math.isfinite(value):
            nan = text or isinstance(record.get(name), float)
            told = shown(text) if math.isinf(value) else "NaN" if nan else "empty"
            return f"{name} is {told}, and the question has an option {LETTERS[option]}"
        if value < 0:
            return f"{name} is {shown(text)}: a probability is not negative (of scores take the softmax first)"
        out[option] = value
    with np.errstate(over="ignore"):
        total = out.sum()
    if abs(total - 1) > 1e-3 and not (normalize and 0 < total < math.inf):
        hint = "" if normalize else "; --normalize divides each row by its sum"
        return f"the probabilities sum to {total:.4g}, not to 1{hint}"
    out /= total
    return None


def import_oof(
    name: str, path: Path, questions: Questions, folds: np.ndarray, count: int, workdir: Workdir, normalize: bool
) -> np.ndarray:
    """Put another program's out-of-fold answers into the OOF store as those of the ranker `name`.

    Args:
        folds: int [n], the exam's folds.
        count: how many folds.

    Returns:
        What was read, float32 [n, max_options].

    Raises:
        UserError: see `read_answers`; or the name is not usable or taken by a ranker that was trained here.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"--name {name!r}: use small letters, digits, _ and - (at most 64)")
    questions.require_answers("import-oof")
    there = sorted((workdir.oof / name).glob("fold_*.parquet"))
    if there and oof.read_about(there[0]).get("family") != FAMILY:
        raise UserError(f"{workdir.oof / name} holds the OOF files of a ranker trained here; give another --name")
    table = read_answers(path, questions, normalize, folds)
    about = {
        "ranker": name,
        "family": FAMILY,
        "role": "ranker",
        "folds": count,
        "questions": exam_with_folds_hash(questions, folds),
        "contexts": "none",
        "config": file_hash(path),
    }
    for stale in there:
        stale.unlink()
    for fold in range(count):
        rows = np.flatnonzero(folds == fold)
        oof.write_oof(workdir.oof_part(name, fold), questions.subset(rows), table[rows], about | {"fold": fold})
    return table


def is_imported(workdir: Workdir, name: str) -> bool:
    """Whether a ranker's OOF files were imported."""
    parts = sorted((workdir.oof / name).glob("fold_*.parquet"))
    return bool(parts) and oof.read_about(parts[0]).get("family") == FAMILY
