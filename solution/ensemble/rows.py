"""Rows of the table of scores: a ranker, a baseline or a blend, with intervals and the gain over equal weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from typing_extensions import TypedDict  # see `record`

from solution import metrics

RowKind = Literal["ranker", "baseline", "random", "equal", "tuned_in_sample", "tuned_nested", "candidate"]


class ScoreRow(TypedDict):
    """One line of the table, as JSON holds it; `None` where a figure does not apply.

    `map3`, `low`, `high`: MAP@3 and its 95 % bootstrap interval over questions. `precision1`: share of questions whose
    first option is right (ties shared). `log_loss`: mean -ln p(right option). `weight`: of this ranker in the shipped
    ensemble. `difference` and its two ends: MAP@3 less that of equal weights, and the paired 95 % interval. `shipped`:
    whether this is what `weights/ensemble.json` holds.
    """

    name: str
    kind: RowKind
    map3: float
    low: float | None
    high: float | None
    precision1: float
    log_loss: float
    weight: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    shipped: bool


@dataclass(frozen=True)
class Scorer:
    """Makes the rows of one exam.

    Attributes:
        answers: int [n].
        equal: float [n], the credits (average precision at 3) of equal weights.
        samples, seed: of the bootstrap.
    """

    answers: np.ndarray
    equal: np.ndarray
    samples: int
    seed: int

    def row(
        self,
        name: str,
        kind: RowKind,
        probabilities: np.ndarray,
        weight: float | None = None,
        shipped: bool = False,
    ) -> ScoreRow:
        """Score one table of probabilities, float [n, width]."""
        credits = metrics.credit_at_k(probabilities, self.answers)
        low, high = self._interval(credits)
        row = ScoreRow(
            name=name,
            kind=kind,
            map3=metrics.map_at_k(probabilities, self.answers),
            low=low,
            high=high,
            precision1=metrics.precision_at_k(probabilities, self.answers, k=1),
            log_loss=metrics.log_loss(probabilities, self.answers),
            weight=weight,
            difference=None,
            difference_low=None,
            difference_high=None,
            shipped=shipped,
        )
        if kind != "equal":
            row["difference"] = float((credits - self.equal).mean())
            row["difference_low"], row["difference_high"] = self._interval(credits - self.equal)
        return row

    def _interval(self, credits: np.ndarray) -> tuple[float, float]:
        return metrics.bootstrap_interval(credits, self.samples, seed=self.seed)


def random_row(exists: np.ndarray) -> ScoreRow:
    """Random guessing, exact (no interval: it is not a sample).

    Args:
        exists: bool [n, width].
    """
    counts = exists.sum(axis=1)
    return ScoreRow(
        name="random",
        kind="random",
        map3=metrics.expected_random_map(counts),
        low=None,
        high=None,
        precision1=float((1.0 / counts).mean()),
        log_loss=float(np.log(counts).mean()),
        weight=None,
        difference=None,
        difference_low=None,
        difference_high=None,
        shipped=False,
    )
