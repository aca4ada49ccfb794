"""Rankers without a model of their own: the retrieval's similarity, and the longest-option baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RankerConfig
from solution.errors import UserError
from solution.rankers.base import Exam, masked_softmax


class _Untrained:
    def __init__(self, config: RankerConfig):
        self.config = config

    def fit(self, train: Exam, valid: Exam, checkpoint: Path) -> dict[str, Any]:
        return {}

    def save(self, folder: Path) -> None:
        """Nothing but the manifest is needed to use it again."""

    def load(self, folder: Path) -> None:
        """Nothing to load."""


class SimilarityRanker(_Untrained):
    """The best cosine of question + option to any passage, made into probabilities by a softmax."""

    def predict(self, exam: Exam) -> np.ndarray:
        if exam.option_scores is None:
            raise UserError(
                f"the ranker {self.config.name} ranks by the retrieval's option scores; "
                "set retrieval.option_scores=true and a retrieval.source other than none"
            )
        exists = exam.questions.exists()
        return masked_softmax(np.nan_to_num(exam.option_scores) / self.config.temperature, exists)


class LongestRanker(_Untrained):
    """Always the longest option: what a guesser who knows how exams are written would score."""

    def predict(self, exam: Exam) -> np.ndarray:
        exists = exam.questions.exists()
        lengths = np.zeros(exists.shape)
        for row, options in enumerate(exam.questions.options):
            lengths[row, : len(options)] = [len(option) for option in options]
        share = lengths / lengths.max(axis=1, keepdims=True)
        return masked_softmax(share / self.config.temperature, exists)
