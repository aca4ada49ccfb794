"""The right passages of a question, and how high a search ranks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from solution.errors import UserError
from solution.exam import Titled, passage_text
from solution.metrics import bootstrap_interval
from solution.questions import Questions
from solution.tables import cell_text
from solution.words import in_word, words

DEPTHS = (1, 3, 5, 10)


class _Passage(Titled, Protocol):
    @property
    def id(self) -> str: ...


class Gold:
    """The right passages of each question.

    With a column: a passage whose id or title is the column's value or begins with it (up to a character that is
    no letter and no digit), so a module "m45983" has the passages "m45983-1" and "m45983-1#0".
    Without one: a passage that contains the text of the right option. That is a weak label: long answers stand in
    no passage word for word, and short ones stand in many.

    Attributes:
        name: which of the two it is, for messages.
        rows: the questions that can be judged: those with a value, or with an answer.

    Raises:
        UserError: the column is not there, or no question can be judged.
    """

    def __init__(self, questions: Questions, column: str | None):
        if column is None:
            self.name = "passages that contain the answer's text (weak labels)"
            values = [
                options[answer] if answer >= 0 else ""
                for options, answer in zip(questions.options, questions.answers.tolist(), strict=True)
            ]
            self._values = [_with_blanks(value) for value in values]
            self._fits: Callable[[str, _Passage], bool] = lambda value, passage: (
                value in _with_blanks(passage_text(passage))
            )
        else:
            if column not in questions.extra:
                there = ", ".join(questions.extra) or "none"
                raise UserError(f"the question file has no column {column!r} (its further columns: {there})")
            self.name = f"passages of the question's {column}"
            self._values = [cell_text(value).lower() for value in questions.extra[column]]
            self._fits = lambda value, passage: _begins(passage.id, value) or _begins(passage.title, value)
        self.rows = [row for row, value in enumerate(self._values) if value.strip()]
        if not self.rows:
            raise UserError(
                "no question has an answer, so no passage can be judged; give --gold COLUMN"
                if column is None
                else f"the column {column!r} is empty"
            )

    def hits(self, row: int, passages: Sequence[_Passage]) -> list[bool]:
        """Whether each passage is right for the question."""
        return [self._fits(self._values[row], passage) for passage in passages]


def _with_blanks(text: str) -> str:
    """The words of a text with a blank before and behind each, so that whole words are sought; "" without words."""
    found = words(text)
    return f" {' '.join(found)} " if found else ""


def _begins(text: str, value: str) -> bool:
    return text[: len(value)].lower() == value and not in_word(text[len(value) : len(value) + 1])


def judge(gold: Gold, passages: Sequence[Sequence[_Passage]]) -> dict[str, Any]:
    """Recall@k (the share of questions with a right passage among the first k) and MRR, with 95 % intervals.

    Args:
        passages: of all questions, best first; only the first ten count.

    Returns:
        `recall@k` and `mrr@10` -> [mean, low, high], by the percentile bootstrap over questions.
    """
    deepest = DEPTHS[-1]
    hits = np.zeros((len(gold.rows), deepest), dtype=bool)
    for i, row in enumerate(gold.rows):
        row_hits = gold.hits(row, passages[row][:deepest])
        hits[i, : len(row_hits)] = row_hits
    any_hit = hits.any(axis=1)
    credits = {f"recall@{k}": hits[:, :k].any(axis=1).astype(float) for k in DEPTHS}
    credits[f"mrr@{deepest}"] = np.where(any_hit, 1 / (1 + hits.argmax(axis=1)), 0.0)
    return {
        name: [round(value, 4) for value in (float(credit.mean()), *bootstrap_interval(credit))]
        for name, credit in credits.items()
    }
