"""Files of answers that another program made: one probability an option, read and checked against an exam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from solution.errors import UserError
from solution.formats.columns import make_whole
from solution.formats.forms import read_table
from solution.questions import LETTERS, Questions
from solution.tables import Row, cell_text, shown

_SHOWN = 8
"""The most problems, or ids of one problem, that a message names."""


def read_answers(
    path: Path,
    questions: Questions,
    normalize: bool = False,
    folds: np.ndarray | None = None,
    is_part: bool = False,
) -> np.ndarray:
    """A file of one probability an option: `id` and `p_A,p_B,...` or `A,B,...`; CSV, JSONL or parquet (or .gz).

    Args:
        questions: n of them; the file must answer each of them and no other, in any order.
        normalize: divide each row by its sum, where it is positive.
        folds: int [n]; the file's column `fold`, when it has one, must agree (and `answer` with the exam's).
        is_part: the file may answer some of the questions alone, and others beside them.

    Returns:
        float32 [n, max_options], rows sum to 1, 0 where an option does not exist; NaN in rows that are not answered.

    Raises:
        UserError: not such a file; ids missing, unknown or repeated; another fold or answer; a value that is no number
            (NaN), negative or for an option that the question does not have; a row that does not sum to 1.
    """
    answers = read_table(path, "the file of answers")
    return read_answer_rows(str(path), answers.names, answers.rows, questions, normalize, folds, is_part)


def read_answer_rows(
    path: str,
    names: Sequence[str],
    rows: Sequence[Row],
    questions: Questions,
    normalize: bool = False,
    folds: np.ndarray | None = None,
    is_part: bool = False,
) -> np.ndarray:
    """`read_answers` of a table that is read already.

    Args:
        path: its name, for messages.
        names: of its columns.
    """
    make_whole(rows, ["id"])  # as the exam's ids are read
    columns = _option_columns(path, names, 1 if is_part else questions.max_options)

    # Each row into its question's place, in float64 and as wide as the letters go; what is wrong is collected.
    table = np.zeros((len(questions), len(LETTERS)))
    exists = questions.exists(len(LETTERS))
    row_of = {id_: row for row, id_ in enumerate(questions.ids)}
    comparison = _Comparison()
    for record in rows:
        id_ = cell_text(record.get("id"))
        row = row_of.get(id_)
        if row is None:
            comparison.strangers.append(id_)
            continue
        if id_ in comparison.seen:
            comparison.problems.append(f"id {shown(id_)} stands more than once")
            continue
        comparison.seen.add(id_)
        if folds is not None and cell_text(record.get("fold")) not in ("", str(folds[row]), f"{folds[row]}.0"):
            comparison.problems.append(
                f"id {shown(id_)} is of fold {shown(cell_text(record['fold']))} there and of fold {folds[row]} here: "
                "its models may have seen near-duplicates (remove the column to import it all the same)"
            )
        if not _same_answer(record, questions, row):
            comparison.contradicted.append(id_)
        problem = _row_problem(record, columns, exists[row], normalize, table[row])
        if problem:
            comparison.problems.append(f"id {shown(id_)}: {problem}")

    # One error that names every problem.
    problems = comparison.all_problems(path, questions, is_part)
    if problems:
        raise UserError.join([f"{path}: {problem}" for problem in problems], "the answers are not usable", _SHOWN)
    table[[id_ not in comparison.seen for id_ in questions.ids]] = np.nan
    return table[:, : questions.max_options].astype(np.float32)


def _option_columns(path: str, names: Sequence[str], width: int) -> list[str]:
    """The columns of probabilities, one for each letter; those of the exam's `width` options are there.

    Raises:
        UserError: they are not, or there is no `id`.
    """
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
    return columns


@dataclass
class _Comparison:
    """A file of answers beside the exam.

    Attributes:
        problems: of single rows, in words.
        seen: ids of the exam.
        strangers: ids that are not the exam's.
        contradicted: ids of the exam with another answer.
    """

    problems: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    strangers: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)

    def all_problems(self, path: str, questions: Questions, is_part: bool) -> list[str]:
        """Those of the file as a whole and of its rows, the weightiest first.

        Args:
            is_part: questions that are missing or not the exam's are no problems.

        Raises:
            UserError: it is of another exam altogether.
        """
        if self.strangers and not self.seen:
            raise UserError(
                f"{path} is of other questions: none of its ids is in the exam (first: id {shown(self.strangers[0])})"
            )
        problems = []
        if self.contradicted:
            ids = ", ".join(map(shown, self.contradicted[:_SHOWN])) + (
                ", ..." if len(self.contradicted) > _SHOWN else ""
            )
            problems.append(
                f"the column answer contradicts the exam for {len(self.contradicted)} of {len(questions)} questions "
                f"(id {ids}); is it of another version of the exam? Remove the column to import it all the same"
            )
        problems += self.problems
        if is_part:
            return problems
        if self.strangers:
            problems.append(f"{len(self.strangers)} ids are not in the exam (first: id {shown(self.strangers[0])})")
        missing = [id_ for id_ in questions.ids if id_ not in self.seen]
        if missing:
            problems.append(f"{len(missing)} of {len(questions)} questions are missing (first: id {shown(missing[0])})")
        return problems


def _same_answer(record: dict[str, Any], questions: Questions, row: int) -> bool:
    """Compare a row's `answer`, a letter, an option's index from 0 or its text, with the exam's; none, on either side,
    contradicts nothing."""
    answer, right = cell_text(record.get("answer")), int(questions.answers[row])
    if not answer or right < 0:
        return True
    return answer.upper() == LETTERS[right] or answer in (str(right), f"{right}.0", questions.options[row][right])


def _row_problem(
    record: dict[str, Any], columns: Sequence[str], exists: np.ndarray, normalize: bool, out: np.ndarray
) -> str | None:
    """Fill one row of probabilities, or say what is wrong with it.

    Args:
        columns: of the options, as many as there are letters.
        exists: bool [letters].
        out: float64 [letters], zeros; takes the probabilities.
    """
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
            cell = shown(text) if math.isinf(value) else "NaN" if nan else "empty"
            return f"{name} is {cell}, and the question has an option {LETTERS[option]}"
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
