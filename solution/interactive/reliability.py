"""How often the ensemble was right, out of fold, where it was about as sure as it is now."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from solution.ensemble.blend import Recipe, apply_recipe
from solution.errors import UserError
from solution.interactive.answers import Reliability
from solution.metrics import credit_at_k
from solution.oof import load_oof
from solution.progress import say
from solution.workdir import Workdir

_FEWEST, _MOST = 20, 200
"""Questions of about the same confidence: fewer tell nothing, more are no longer of about the same."""
_SHARE = 0.2
_Z = 1.959964  # of the 95 % interval


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` questions (Wilson 1927); it stays within 0 and 1."""
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def reliability_at(confidence: float, confidences: np.ndarray, hits: np.ndarray) -> Reliability | None:
    """The share of hits among the questions of the nearest confidence; None where there are too few questions.

    Args:
        confidences: float [n], the highest probability of each question's blend.
        hits: float [n], 1 where that option was right; 1/m where m options shared the top and one was right.
    """
    count = min(max(round(_SHARE * len(confidences)), _FEWEST), _MOST)
    if len(confidences) < count:
        return None
    near = np.argsort(np.abs(confidences - confidence), kind="stable")[:count]
    share = float(hits[near].mean())
    low, high = wilson(share, count)
    return Reliability(share, low, high, count, float(confidences[near].min()), float(confidences[near].max()))


class OofReliability:
    """The ensemble's out-of-fold answers.

    Each ranker's answers are those of a training without the question. The weights of the blend were tuned on the same
    questions; a blend of several folds, as it answers a new question, is a little less sure than one fold is here.

    Args:
        names: of the rankers that may be asked.
    """

    def __init__(self, workdir: Workdir, names: Sequence[str]):
        self._oof = None
        self._known: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = {}
        try:
            self._oof = load_oof(workdir, names)
        except (UserError, OSError) as error:
            say(f"note: how often the ensemble is right at a confidence is not known: {error}")

    def at(self, confidence: float, names: Sequence[str], recipe: Recipe) -> Reliability | None:
        """How often the blend of some rankers was right where it was about as sure.

        Args:
            confidence: the highest probability of its answer.
            names: the rankers that have answered.
            recipe: of their blend.
        """
        key = tuple(sorted(names))
        if self._oof is None or not key or not set(key) <= set(self._oof.probabilities):
            return None
        if key not in self._known:
            oof = self._oof
            rows = oof.answers >= 0
            tables = {name: oof.probabilities[name][rows] for name in key}
            blended = apply_recipe(recipe, tables, oof.exists[rows])
            self._known[key] = (blended.max(axis=1), credit_at_k(blended, oof.answers[rows], k=1))
        return reliability_at(confidence, *self._known[key])
