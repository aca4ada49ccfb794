"""Weights without a sampler: the optimum of the log loss, greedy selection, equal weights of few rankers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from solution.ensemble.evaluator import Evaluator
from solution.probabilities import FLOOR

_GREEDY_STEPS = 50
"""The most rankers, repeated ones counted, of which a greedy blend is the mean."""


def log_loss_weights(evaluator: Evaluator) -> np.ndarray:
    """The weights whose blend has the least log loss: a convex problem and a smooth stand-in for MAP@3.

    Means of probabilities (or places): weights on the simplex, by SLSQP (Kraft 1988). Means of log-probabilities:
    weights of any sum that are not negative, by L-BFGS-B, then scaled to sum 1; their sum stands for one over a
    temperature, which changes no order.

    Returns:
        float64 [rankers], not negative, sum 1.
    """
    from scipy.optimize import minimize

    count = evaluator.rankers
    equal = np.full(count, 1 / count)
    if count == 1:
        return equal
    more: dict[str, Any] = {"method": "L-BFGS-B", "bounds": [(0, None)] * count}
    if evaluator.kind != "log_probability":
        more = {
            "method": "SLSQP",
            "bounds": [(0, 1)] * count,
            "constraints": {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(count)},
            "options": {"maxiter": 200, "ftol": 1e-9},
        }
    optimum = minimize(evaluator.loss_and_slope, equal, jac=True, **more)
    weights = np.maximum(optimum.x, 0)
    if not np.isfinite(weights).all() or weights.sum() <= 0:
        return equal
    return weights / weights.sum()


def starting_points(evaluator: Evaluator) -> list[np.ndarray]:
    """Equal weights, the optimum of the log loss, each ranker alone."""
    count = evaluator.rankers
    return [np.full(count, 1 / count), log_loss_weights(evaluator), *np.eye(count)]


def best_of(evaluator: Evaluator, points: list[np.ndarray]) -> np.ndarray:
    """The point of the highest MAP@3, ties broken by the lower log loss and then by the order."""
    return max(points, key=evaluator.value)


def greedy_weights(evaluator: Evaluator) -> np.ndarray:
    """Greedy selection with replacement (Caruana et al. 2004), the log loss as tie-breaker.

    Each step adds the ranker with which the mean of those chosen so far is best; the best of all steps is kept. At
    most 50 steps, so that weights are multiples of at least 1/50.

    Returns:
        float64 [rankers], not negative, sum 1.
    """
    count = evaluator.rankers
    chosen = np.zeros(count)
    best, best_value = np.zeros(count), -math.inf
    for step in range(1, _GREEDY_STEPS + 1):
        points = [(chosen + unit) / step for unit in np.eye(count)]
        values = [evaluator.value(point) for point in points]
        pick = int(np.argmax(values))
        chosen[pick] += 1
        if values[pick] > best_value:
            best, best_value = points[pick], values[pick]
        elif step > 2 * count + 10 and chosen.max() == step:
            break  # one ranker alone, again and again
    return best


def fewer_rankers(evaluator: Evaluator) -> np.ndarray:
    """Equal weights for as few rankers as do: the best alone, then always the one that helps the equal mean most.

    It stops when the next raises MAP@3 by no more than one standard error (paired), unless it does raise it and
    lowers the log loss by more than that loss's own standard error: the smoother score sees real help earlier.

    Returns:
        float64 [rankers], 0 or 1 over the number chosen.
    """
    count = evaluator.rankers
    chosen = best_of(evaluator, list(np.eye(count)))
    while chosen.sum() < count:
        left = [unit for unit in np.eye(count) if not (unit * chosen).any()]
        points = [(chosen + unit) / (chosen.sum() + 1) for unit in left]
        pick = int(np.argmax([evaluator.value(point) for point in points]))
        before = chosen / chosen.sum()
        gain = evaluator.credits(points[pick]) - evaluator.credits(before)
        surer = evaluator.losses(before) - evaluator.losses(points[pick])
        if not (_beyond_noise(gain) or (gain.mean() > 0 and _beyond_noise(surer))):
            break
        chosen = chosen + left[pick]
    return chosen / chosen.sum()


def _beyond_noise(gain: np.ndarray) -> bool:
    """True where the mean of paired differences, float [n], is more than one standard error above 0."""
    return bool(gain.mean() > gain.std() / math.sqrt(len(gain)))


def fit_temperature(probabilities: np.ndarray, exists: np.ndarray, answers: np.ndarray) -> float:
    """The T with the least log loss of p^(1/T), renormalised: convex in 1/T; between 0.1 and 100.

    Args:
        probabilities: float [n, width].
    """
    from scipy.optimize import minimize_scalar

    logs = np.log(np.maximum(probabilities.astype(np.float64), FLOOR))
    rows = np.arange(len(answers))
    lead = np.where(exists, logs - logs[rows, answers][:, None], -np.inf)

    def loss(inverse: float) -> float:
        scaled = np.where(exists, inverse * lead, -np.inf)
        highest = scaled.max(axis=1)
        return float((highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))).mean())

    optimum = minimize_scalar(loss, bounds=(0.01, 10.0), method="bounded", options={"xatol": 1e-4})
    return float(1 / optimum.x)
