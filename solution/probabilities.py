"""Probabilities of options: the softmax over those that exist, and how several tables become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

Merge = Literal["mean", "max", "max_mean"]
FLOOR = 1e-6
"""Of a probability before its logarithm: one ranker's certainty must not be a veto."""


def merge(tables: Sequence[np.ndarray], exists: np.ndarray, how: Merge) -> np.ndarray:
    """Several answers of one ranker (over contexts or folds) as one: their mean, their maximum, or half of both.

    Args:
        tables: each float [n, width].

    Returns:
        float64 [n, width], rows sum to 1 over the options that exist.
    """
    stack = np.where(exists, np.stack(tables), 0.0)
    total = stack.mean(axis=0)
    if how != "mean":
        highest = stack.max(axis=0)
        total = highest if how == "max" else (highest + total) / 2
    return total / total.sum(axis=1, keepdims=True)


def masked_softmax(scores: np.ndarray, exists: np.ndarray, precision: DTypeLike = np.float64) -> np.ndarray:
    """Softmax over the options that exist, float32 [n, width]; 0 elsewhere.

    Args:
        scores: float [n, width]; what stands where no option exists does not matter.
        precision: the type in which it is computed.
    """
    scores = np.where(exists, scores.astype(precision), -np.inf)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def widen(probabilities: np.ndarray, width: int) -> np.ndarray:
    """Append columns of 0: a fold's questions may all have fewer options than the exam's."""
    return np.pad(probabilities, ((0, 0), (0, width - probabilities.shape[1])))
