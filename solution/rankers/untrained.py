"""Rankers without a model of their own: the retrieval's similarity, and the longest-option baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RankerConfig
from solution.exam import Exam
from solution.probabilities import masked_softmax
from solution.questions import Questions


class _Untrained:
    def __init__(self, config: RankerConfig, cache: Path):
        self.config = config

    def fit(self, train: Exam, valid: Exam, checkpoint: Path, logs: Path | None = None) -> dict[str, Any]:
        return {}

    def save(self, folder: Path) -> None:
        """Nothing but the manifest is needed to use it again."""

    def load(self, folder: Path) -> None:
        """Nothing to load."""


class SimilarityRanker(_Untrained):
    """Retrieval's option score, made into probabilities by a softmax."""

    def predict(self, exam: Exam) -> np.ndarray:
        return masked_softmax(exam.prior(self.config) / self.config.temperature, exam.questions.exists())


class LongestRanker(_Untrained):
    """Always the longest option: what a guesser who knows how exams are written would score."""

    def predict(self, exam: Exam) -> np.ndarray:
        return longest_options(exam.questions, self.config.temperature)


def longest_options(questions: Questions, temperature: float = 1.0) -> np.ndarray:
    """The longer an option of its question, the more probable: float32 [n, max_options]."""
    lengths = questions.option_lengths()
    share = lengths / lengths.max(axis=1, keepdims=True)
    return masked_softmax(share / temperature, questions.exists())
