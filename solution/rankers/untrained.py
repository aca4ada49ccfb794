"""Rankers without a model of their own: the retrieval's similarity, and the longest-option baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RankerConfig
from solution.exam import Exam
from solution.probabilities import masked_softmax
from solution.questions import Questions
from solution.rankers.alike import Alike, Groups, alike_options, by_letters, parted, settle

_ONE_TEXT = 1e-6  # two different texts have no option scores that are so near, unless the embedder reads them alike


class _Untrained:
    alike: Alike = {}

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
        scores = exam.prior(self.config)
        probabilities = masked_softmax(scores / self.config.temperature, exam.questions.exists())
        groups = _same_scores(exam, scores)
        self.alike = by_letters(exam.questions, groups)
        return settle(probabilities, exam, groups, self.config)


def _same_scores(exam: Exam, scores: np.ndarray) -> Groups:
    """The options of which the embedder says the same; a score of 0 says that nothing was retrieved.

    Args:
        scores: float32 [n, max_options].
    """
    groups: Groups = {}
    for row, texts in enumerate(exam.questions.options):
        scored = [option for option, text in enumerate(texts) if text and scores[row, option] != 0]
        parts = parted(scored, scores[row], _ONE_TEXT)
        found = alike_options(texts, {option: number for number, part in enumerate(parts) for option in part})
        if found:
            groups[row] = found
    return groups


class LongestRanker(_Untrained):
    """Always the longest option: what a guesser who knows how exams are written would score."""

    def predict(self, exam: Exam) -> np.ndarray:
        return longest_options(exam.questions, self.config.temperature)


def longest_options(questions: Questions, temperature: float = 1.0) -> np.ndarray:
    """The longer an option of its question, the more probable: float32 [n, max_options]."""
    lengths = questions.option_lengths()
    share = lengths / lengths.max(axis=1, keepdims=True)
    return masked_softmax(share / temperature, questions.exists())
