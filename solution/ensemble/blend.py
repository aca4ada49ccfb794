"""The blend of several rankers' probabilities: the only implementation, used by tuning and by submitting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

Blend = Literal["probability"]


def blend(
    probabilities: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    exists: np.ndarray,
    kind: Blend = "probability",
) -> np.ndarray:
    """Weighted mean of the rankers' probabilities, renormalised over the options that exist.

    Args:
        probabilities: ranker name -> float [n, width]. A ranker of weight 0 is not looked at and may be missing.
        weights: ranker name -> weight, none negative; they need not sum to 1.
        exists: bool [n, width].
        kind: `probability` is the arithmetic mean.

    Returns:
        float32 [n, width], rows sum to 1, 0 where an option does not exist. It does not depend on
        the order of the names, and options that tie in every ranker tie in the blend.

    Raises:
        ValueError: an unknown kind, a weight that is negative or no number, no weight above 0, or
            a row without any finite, positive probability.
        KeyError: a ranker with a weight above 0 is missing.
    """
    if kind != "probability":
        raise ValueError(f"unknown blend {kind!r}")
    if not all(0 <= weight < np.inf for weight in weights.values()):
        raise ValueError(f"weights must be finite and not negative, not {dict(weights)}")
    used = [name for name in sorted(weights) if weights[name] > 0]
    if not used:
        raise ValueError("no ranker has a weight above 0")
    total = np.zeros(exists.shape)
    for name in used:
        total += weights[name] * probabilities[name]
    total = np.where(exists, total, 0.0)
    sums = total.sum(axis=1, keepdims=True)
    wrong = ~((sums > 0) & (sums < np.inf))  # NaN too
    if wrong.any() or total.min(initial=0) < 0:
        row = int(np.argmax(wrong.ravel() | (total < 0).any(axis=1)))
        raise ValueError(f"row {row} has a NaN or negative probability, or none above 0")
    return (total / sums).astype(np.float32)
