"""What is learnt from: the signals of each option, and its place among the options of its question."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from solution.exam import Exam
from solution.questions import Questions

FORMS = ("value", "standardised", "rank", "gap")
"""The inputs that each signal becomes: as it is; less the mean of the question's options, in their standard deviations;
the number of options above it; its distance to the best of the others."""
_WORD = re.compile(r"\w+")


def exam_signals(exam: Exam, left_out: Collection[str] = ()) -> dict[str, np.ndarray]:
    """All signals of the exam's options: name -> float32 [n, width], of any value where no option is.

    Those of the options' form are made here, the others come with the exam, retrieval's option scores among them.

    Args:
        left_out: beginnings of the names of signals that are not wanted.
    """
    scores = {f"score_{kind}": table for kind, table in exam.option_scores.items()}
    signals = {**form_signals(exam.questions), **scores, **exam.signals}
    return {name: table for name, table in signals.items() if not name.startswith(tuple(left_out))}


def form_signals(questions: Questions) -> dict[str, np.ndarray]:
    """Signals that need no corpus, float32 [n, max_options]; 0 where no option is.

    `length`: characters; `words`; `shared_words`: the share of the option's words that the question has too.
    """
    width = questions.max_options
    words, shared = (np.zeros((len(questions), width), dtype=np.float32) for _ in range(2))
    for row, (prompt, options) in enumerate(zip(questions.prompts, questions.options, strict=True)):
        asked = set(_WORD.findall(prompt.lower()))
        for column, option in enumerate(options):
            own = _WORD.findall(option.lower())
            words[row, column] = len(own)
            shared[row, column] = len(asked.intersection(own)) / max(len(set(own)), 1)
    length = questions.option_lengths(width).astype(np.float32)
    return {"length": length, "words": words, "shared_words": shared}


@dataclass(frozen=True)
class OptionInputs:
    """The inputs of the m existing options, question after question.

    Attributes:
        values: float64 [m, len(FORMS) * signals]: all signals as they are, then all standardised, and so on.
        counts: int64 [n], the number of options of each question that has any.
    """

    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, signals: Sequence[np.ndarray], exists: np.ndarray) -> OptionInputs:
        """The inputs by these signals.

        Equal options have equal inputs, whatever their order.

        Args:
            signals: each float [n, at least width].
            exists: bool [n, width].
        """
        width = exists.shape[1]
        table = np.stack([signal[:, :width] for signal in signals], axis=2).astype(np.float64)  # [n, width, signals]
        table = np.where(exists[:, :, None], table, np.nan)
        parts = [np.nan_to_num(table), _standardised(table, exists), _ranks(table), _gaps(table, exists)]
        counts = exists.sum(axis=1)
        return cls(np.concatenate([part[exists] for part in parts], axis=1), counts[counts > 0])


def _standardised(table: np.ndarray, exists: np.ndarray) -> np.ndarray:
    counts = np.maximum(exists.sum(axis=1), 1)[:, None, None]
    known = np.nan_to_num(table)
    mean = known.sum(axis=1, keepdims=True) / counts
    away = np.where(exists[:, :, None], known - mean, 0.0)
    deviation = np.sqrt((away**2).sum(axis=1, keepdims=True) / counts)
    return away / (deviation + 1e-6)


def _ranks(table: np.ndarray) -> np.ndarray:
    """How many of the question's options stand above each, and half of those at its height."""
    above = (table[:, None] > table[:, :, None]).sum(axis=2)
    level = (table[:, None] == table[:, :, None]).sum(axis=2) - 1
    return above + level / 2


def _gaps(table: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """The distance to the best other option; 0 where there is no other."""
    known = np.where(exists[:, :, None], np.nan_to_num(table), -np.inf)
    ordered = np.sort(known, axis=1)
    best, second = ordered[:, -1:], ordered[:, -2:-1]
    if not second.shape[1]:
        return np.zeros_like(known)
    other = np.where(known == best, second, best)
    # Two options at the same height: the best other is the second, which equals the best.
    gaps = np.where(np.isfinite(other), known - np.where(np.isfinite(other), other, 0.0), 0.0)
    return np.where(np.isfinite(known), gaps, 0.0)
