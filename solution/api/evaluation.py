"""Scores of answers: MAP@3 with its interval, accuracy, log loss, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from solution import metrics
from solution.answers_file import read_answer_rows
from solution.api.inputs import ExamLike, read_exam
from solution.api.results import Scores
from solution.api.wording import worded
from solution.errors import UserError
from solution.formats.forms import read_table
from solution.formats.items import Reading
from solution.frames import ShownAsTable
from solution.questions import LETTERS, Questions
from solution.tables import Row, cell_text, shown
from solution.workdir import Workdir

if TYPE_CHECKING:
    import pandas as pd


@worded
def evaluate(
    answers: str | Path | pd.DataFrame | ShownAsTable, exam: ExamLike, reading: Reading | None = None
) -> Scores:
    """The scores of answers to an exam.

    Args:
        answers: one row a question: `id` and `p_A`, `p_B`, ... (then log loss and calibration are known too), or `id`
            and `prediction` ("B A D", as Kaggle has it). A DataFrame, as `predict` returns it, what `submit`
            returns, or a file.
        exam: questions with their answers.
        reading: how a file or table of them is to be read.

    Raises:
        UserError: a question is missing, unknown, repeated or without its answer, or a row is no answer.
    """
    questions = read_exam(exam, Workdir(Path(".")), reading=reading)
    questions.require_answers("evaluating")
    names, rows, name = _answer_rows(answers)
    if "prediction" in names and "p_A" not in names:
        return _scores_of_rankings(_rankings(rows, questions, name), questions)
    table = read_answer_rows(name, names, rows, questions)
    return scores_of(table, questions.answers, questions.exists())


def scores_of(probabilities: np.ndarray, answers: np.ndarray, exists: np.ndarray) -> Scores:
    """The scores of probabilities, float [n, width], of questions with the right options `answers`, int [n]."""
    credits = metrics.credit_at_k(probabilities, answers)
    low, high = metrics.bootstrap_interval(credits)
    return Scores(
        questions=len(answers),
        map3=float(credits.mean()),
        low=low,
        high=high,
        accuracy=metrics.precision_at_k(probabilities, answers, k=1),
        log_loss=metrics.log_loss(probabilities, answers),
        calibration_error=metrics.calibration_error(probabilities, answers),
        random=metrics.expected_random_map(exists.sum(axis=1)),
    )


def _scores_of_rankings(places: np.ndarray, questions: Questions) -> Scores:
    """The scores where the right option stands at these places, float [n], from 1; inf: at none of the first three."""
    credits = metrics.credit_at_places(places)
    low, high = metrics.bootstrap_interval(credits)
    random = metrics.expected_random_map(questions.exists().sum(axis=1))
    accuracy = float((places == 1).mean())
    return Scores(len(places), float(credits.mean()), low, high, accuracy, None, None, random)


def _answer_rows(answers: str | Path | pd.DataFrame | ShownAsTable) -> tuple[Sequence[str], Sequence[Row], str]:
    """The columns and rows of answers, and what messages call them."""
    if isinstance(answers, (str, Path)):
        table = read_table(Path(answers), "the file of answers")
        return table.names, table.rows, str(answers)
    if isinstance(answers, ShownAsTable):
        answers = answers.to_frame()
    if not hasattr(answers, "columns"):
        raise UserError(f"a {type(answers).__name__} is no answers: give a DataFrame or a file's name")
    rows: list[dict[str, Any]] = answers.to_dict("records")
    return [str(name) for name in answers.columns], rows, "the answers"


def _rankings(rows: Sequence[Row], questions: Questions, name: str) -> np.ndarray:
    """The place of each question's right option in its prediction, float [n]; inf where it is not in it.

    Raises:
        UserError: ids that are missing, unknown or repeated, or letters that are no options.
    """
    found: dict[str, float] = {}
    row_of = {id_: row for row, id_ in enumerate(questions.ids)}
    problems = []
    for record in rows:
        id_, letters = cell_text(record.get("id")), cell_text(record.get("prediction")).split()
        row = row_of.get(id_)
        if row is None or id_ in found:
            problems.append(f"id {shown(id_)} {'is not in the exam' if row is None else 'stands more than once'}")
            continue
        there = [LETTERS[place] for place, option in enumerate(questions.options[row]) if option]
        strange = [letter for letter in letters if letter not in there]
        if strange or len(set(letters)) < len(letters):
            problems.append(f"id {shown(id_)}: {shown(' '.join(letters))!r} are no options of the question, each once")
        right = LETTERS[int(questions.answers[row])]
        found[id_] = letters.index(right) + 1.0 if right in letters else np.inf
    missing = [id_ for id_ in questions.ids if id_ not in found]
    if missing and not problems:
        problems.append(f"{len(missing)} of {len(questions)} questions are missing (first: id {shown(missing[0])})")
    if problems:
        raise UserError.join([f"{name}: {problem}" for problem in problems], "the answers are not usable", 8)
    return np.array([found[id_] for id_ in questions.ids])
