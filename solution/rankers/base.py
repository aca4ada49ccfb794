"""The protocol of a ranker, and its answers to several contexts or to some of the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from solution.config import RankerConfig
from solution.exam import Exam
from solution.probabilities import merge
from solution.questions import Questions
from solution.rankers.alike import Alike


def predict_contexts(ranker: Ranker, exams: Sequence[Exam]) -> np.ndarray:
    """A ranker's answers to the same questions with each of several contexts, blended as its config says.

    Returns:
        float32 [n, max_options], see `Ranker.predict`.
    """
    tables = [ranker.predict(exam) for exam in exams]
    if len(tables) == 1:
        return tables[0].astype(np.float32)
    exists = exams[0].questions.exists(tables[0].shape[1])
    return merge([table.astype(np.float64) for table in tables], exists, ranker.config.context_blend).astype(np.float32)


class Ranker(Protocol):
    """A model that gives each option of a question a probability."""

    config: RankerConfig
    alike: Alike
    """The options that it could not tell apart when it was last asked."""

    def fit(self, train: Exam, valid: Exam, checkpoint: Path, logs: Path | None = None) -> dict[str, Any]:
        """Train on `train`; `valid` is only watched. Killed and called again, goes on from `checkpoint`.

        Args:
            logs: a folder for the curves of the training (`log.csv`, event files); None: nothing is written.

        Returns:
            JSON-able facts for metrics.json: losses, evaluations, trainable parameters.

        Raises:
            UserError: an answer is missing, or the loss is stuck or not finite.
        """

    def predict(self, exam: Exam) -> np.ndarray:
        """float32 [n, max_options]: rows sum to 1 over the options that exist, 0 elsewhere."""

    def save(self, folder: Path) -> None:
        """Write adapter and head into an existing folder."""

    def load(self, folder: Path) -> None:
        """Take the adapter and head of `save`; on the second call the base model stays in memory.

        Raises:
            UserError: the folder's files do not fit this ranker or are corrupt.
        """


def alive_only(questions: Questions, alive: np.ndarray) -> Questions:
    """The questions without the options where `alive`, bool [n, width], is false."""
    options = [
        [option if there else "" for option, there in zip(row, mask, strict=False)]
        for row, mask in zip(questions.options, alive.tolist(), strict=True)
    ]
    return Questions(questions.ids, questions.prompts, options, questions.answers, questions.extra)


def predict_part(
    ranker: Ranker, exams: Sequence[Exam], rows: Sequence[int], alive: np.ndarray, width: int
) -> np.ndarray:
    """A loaded ranker's answers to some questions, their living options alone, float32 [rows, width].

    Args:
        exams: all questions, with each of the contexts that the ranker reads.
        alive: bool [rows, width].
    """
    parts = [exam.subset(rows) for exam in exams]
    questions = alive_only(parts[0].questions, alive)
    table = predict_contexts(ranker, [replace(part, questions=questions) for part in parts])
    return np.pad(table, ((0, 0), (0, width - table.shape[1])))
