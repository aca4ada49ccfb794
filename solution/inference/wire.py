"""Questions and exams as JSON, for the processes that answer them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from solution.exam import ContextPassage, Exam, is_question
from solution.questions import Questions


def exam_record(exams: Sequence[Any]) -> dict[str, Any]:
    """The questions and their contexts (`rankers.base.Exam`, one for each context) as JSON holds them.

    Of the other columns only `is_question` matters to a ranker.
    """
    first = exams[0]
    return {
        "questions": questions_record(first.questions, [is_question(first, row) for row in range(len(first))]),
        "views": [
            {
                "passages": [[vars(passage) for passage in found] for found in exam.passages],
                "option_scores": {kind: table.tolist() for kind, table in exam.option_scores.items()},
            }
            for exam in exams
        ],
    }


def questions_record(
    questions: Questions, is_question: Sequence[bool] | None = None, contexts: Sequence[Any] | None = None
) -> dict[str, Any]:
    extra = {"is_question": is_question, "context": contexts}
    return {
        "ids": questions.ids,
        "prompts": questions.prompts,
        "options": questions.options,
        "extra": {name: list(values) for name, values in extra.items() if values is not None},
    }


def read_questions_record(record: dict[str, Any]) -> Questions:
    unknown = np.full(len(record["ids"]), -1, dtype=np.int64)
    return Questions(record["ids"], record["prompts"], record["options"], unknown, record["extra"])


def read_exam_record(record: dict[str, Any]) -> list[Any]:
    """The exams of `exam_record`, the same to the bit."""
    questions = read_questions_record(record["questions"])
    return [
        Exam(
            questions,
            [[ContextPassage(**values) for values in found] for found in view["passages"]],
            {kind: np.array(table, dtype=np.float32) for kind, table in view["option_scores"].items()},
        )
        for view in record["views"]
    ]
