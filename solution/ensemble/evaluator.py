"""MAP@3 of a weight vector in one pass over memory, for searches that ask for it thousands of times."""

from __future__ import annotations

import numpy as np

from solution import metrics
from solution.ensemble.blend import Blend, terms

TIE_BREAKER = 1e-7
"""Of the log loss (at most 16): below the smallest step of MAP@3, 1 / (6 n), for every n up to 100,000."""
_NEVER = -100.0
"""In the place of the logarithm of an option that does not exist, less the right one's."""


class Evaluator:
    """Scores of weight vectors on one table of answers; what no weight changes is computed once.

    Whether a wrong option stands above the right one depends on the sign of w . d, d the rankers' differences of the
    two. So the table is kept as these differences, float32 [rankers, width - 1, n], and one evaluation is one
    matrix-vector product (each difference is read once) and a count of signs. Ties and gains are those of
    `solution.metrics`; the result is `metrics.map_at_k(blend(...), answers)` up to float32 rounding of near ties.

    Attributes:
        rankers, questions: their numbers.
        kind: of the blend.
    """

    def __init__(self, table: np.ndarray, exists: np.ndarray, answers: np.ndarray, kind: Blend = "probability"):
        """
        Args:
            table: float [rankers, n, width], rows sum to 1; temperatures are already in it.
            exists: bool [n, width].
            answers: int [n].
        """
        self.rankers, self.questions, width = table.shape
        self.kind = kind
        rows = np.arange(self.questions)
        # The wrong options of each question, int [n, width - 1]: those behind the right one, around the end.
        wrong = (answers[:, None] + np.arange(1, width)) % width
        self._differences = np.empty((self.rankers, width - 1, self.questions), dtype=np.float32)
        right = np.empty((self.rankers, self.questions), dtype=np.float32)
        lacking = ~exists[rows[:, None], wrong].T
        for number, alone in enumerate(table):
            values = terms(alone.astype(np.float64), exists, kind)
            right[number] = values[rows, answers]
            self._differences[number] = (values[rows[:, None], wrong] - values[rows, answers][:, None]).T
            if kind == "log_probability":
                self._differences[number][lacking] = _NEVER
            elif kind == "rank":  # in half places, which add without rounding: that ties stay ties
                self._differences[number] = np.rint(self._differences[number] * exists.sum(axis=1) ** 2)
        self._right = right if kind != "log_probability" else None
        self._width = width
        self.credit_table = metrics.credit_table(width)
        self._credits = self.credit_table.ravel()

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """The lead of each wrong option over the right one, float32 [width - 1, n]."""
        flat = self._differences.reshape(self.rankers, -1)
        return (np.asarray(weights, dtype=np.float32) @ flat).reshape(self._differences.shape[1:])

    def credits(self, weights: np.ndarray) -> np.ndarray:
        """Average precision at 3 of each question, float64 [n]."""
        above, tied = metrics.count_places(self.scores(weights), 0.0)
        return self._credits[above * np.uint8(self._width) + tied]

    def map3(self, weights: np.ndarray) -> float:
        """MAP@3.

        Args:
            weights: float [rankers], not negative, sum 1.
        """
        return float(self.credits(weights).mean())

    def losses(self, weights: np.ndarray) -> np.ndarray:
        """-ln of the blend's probability of each question's right option, float [n]."""
        if self._right is None:
            return np.log1p(np.exp(self.scores(weights)).sum(axis=0, dtype=np.float64))
        right = np.asarray(weights, dtype=np.float32) @ self._right
        return -np.log(np.maximum(right, np.float32(1e-7)))

    def log_loss(self, weights: np.ndarray) -> float:
        """The mean of `losses`."""
        return float(self.losses(weights).mean(dtype=np.float64))

    def value(self, weights: np.ndarray) -> float:
        """MAP@3 with the log loss as tie-breaker: what the searches maximise."""
        return self.map3(weights) - TIE_BREAKER * self.log_loss(weights)

    def loss_and_slope(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """The log loss and its gradient, float64 [rankers]: convex in the weights for every kind."""
        if self._right is None:
            powers = np.exp(np.minimum(self.scores(weights), 80.0)).astype(np.float64)
            total = 1 + powers.sum(axis=0)
            flat = self._differences.reshape(self.rankers, -1)
            slope = flat @ (powers / total).astype(np.float32).ravel()
            return float(np.log(total).mean()), slope.astype(np.float64) / self.questions
        mean = np.asarray(weights, dtype=np.float64) @ self._right + 1e-7  # keeps the loss finite and smooth
        return float(-np.log(mean).mean()), -(self._right @ (1 / mean)) / self.questions
