"""The best weights along a line, exactly: MAP@3 is piecewise constant there, and its break points can be sorted."""

from __future__ import annotations

import itertools

import numpy as np

from solution.ensemble.evaluator import Evaluator

_LINES = 200
"""Parallel lines through the triangle of three rankers' weights: 0.005 apart."""
_PAIRS_UP_TO = 8
"""With more rankers the directions from one ranker to another are too many, and the coordinates must do."""
_SWEEPS = 20
"""The most times that every line is searched."""
_POLISHED = 2
"""Starting points that are polished, the best ones."""


def best_on_segment(evaluator: Evaluator, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, float]:
    """The point between two weight vectors with the highest MAP@3, exact (line search of Och 2003).

    A wrong option's lead over the right one is linear along the segment, so it passes the right one at most once, at
    u = a / (a - b) with a and b its leads at the ends. Sorted, these points cut the segment into intervals of
    constant MAP@3, and cumulative sums of the gains and losses give the value of each.

    Args:
        start, end: float [rankers], each not negative with sum 1.

    Returns:
        The middle of the widest of the best intervals, and MAP@3 there.
    """
    # The crossings in order cut the segment into intervals; the widest of the best ones.
    base, crossings, gain = _crossings(evaluator, start, end)
    order = np.argsort(crossings)
    edges = np.concatenate([[0.0], crossings[order], [1.0]])
    values = base + np.concatenate([[0.0], np.cumsum(gain[order])])
    widths = np.diff(edges)
    highest = values[widths > 0].max()
    # The smallest step of a sum of credits is 1/60; rounding of the sum stays far below.
    best = int(np.where(values > highest - 1e-4, widths, -1.0).argmax())
    middle = (edges[best] + edges[best + 1]) / 2
    return (1 - middle) * start + middle * end, float(values[best] / evaluator.questions)


def _crossings(evaluator: Evaluator, start: np.ndarray, end: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The sum of credits at the start of a segment, and where it changes.

    Returns:
        The sum just inside the segment; and of each crossing, in no order, its place from 0 to 1 and what the sum
        gains there, float64 [crossings] each.
    """
    # The wrong options' leads at both ends, float32 [width - 1, n]. Those that are ahead on one side only cross.
    first, last = evaluator.scores(start), evaluator.scores(end)
    # Just inside the segment: a tie at one end is broken by the other end's sign.
    leads = (first > 0) | ((first == 0) & (last > 0))
    leads_after = (last > 0) | ((last == 0) & (first > 0))
    crosses = leads != leads_after
    tied = ((first == 0) & (last == 0)).sum(axis=0, dtype=np.intp)
    above = leads.sum(axis=0, dtype=np.intp)
    credit = evaluator.credit_table
    base = float(credit[above, tied].sum())

    # Where along the segment each option crosses, and whether the right one falls (1) or rises (-1) there; questions
    # without a crossing are left out.
    touched = np.flatnonzero(crosses.any(axis=0))
    crosses, above, tied = crosses[:, touched], above[touched], tied[touched]
    a, b = first[:, touched].astype(np.float64), last[:, touched].astype(np.float64)
    at = np.where(crosses, a / np.where(crosses, a - b, 1.0), 2.0)
    step = np.where(crosses, np.where(leads_after[:, touched], 1, -1), 0).astype(np.int8)

    # What the sum of credits gains at each crossing.
    width = credit.shape[1]
    flat, offset = credit.ravel(), tied.astype(np.int16)
    points, gains = [], []
    for option in range(len(at)):
        # How many stand above when this option passes: those at first, and all that passed before it.
        before = above.astype(np.int16)
        for other in range(len(at)):
            if other != option:
                earlier = at[other] <= at[option] if other < option else at[other] < at[option]
                before += step[other] * earlier
        rows = crosses[option]
        index = before[rows] * width + offset[rows]
        gain = flat[index + step[option][rows] * np.int16(width)] - flat[index]
        changes = gain != 0
        points.append(at[option][rows][changes])
        gains.append(gain[changes])
    return base, np.concatenate(points), np.concatenate(gains)


def polish_weights(evaluator: Evaluator, weights: np.ndarray, sweeps: int = _SWEEPS) -> np.ndarray:
    """Exact line searches in turn until none gains: every ranker against the rest, then (with at most eight) every
    ranker against every other.

    Args:
        weights: float [rankers], where to start.

    Returns:
        float64 [rankers], not negative, sum 1; its `Evaluator.value` is not below the start's.
    """
    count = evaluator.rankers
    if count == 1:
        return np.ones(1)
    best, value = np.asarray(weights, dtype=np.float64), evaluator.value(weights)
    lines: list[tuple[int, int | None]] = [(i, None) for i in range(count)]
    if 2 < count <= _PAIRS_UP_TO:
        lines += itertools.combinations(range(count), 2)
    idle = 0
    for ranker, other in itertools.islice(itertools.cycle(lines), sweeps * len(lines)):
        start, end = _ends(best, ranker, other)
        if start is not None:
            point, _ = best_on_segment(evaluator, start, end)
            point = np.maximum(point, 0) / np.maximum(point, 0).sum()
            point_value = evaluator.value(point)
            idle += 1
            if point_value > value + 1e-12:
                best, value, idle = point, point_value, 0
        else:
            idle += 1
        if idle >= len(lines):
            break
    return best


def _ends(weights: np.ndarray, ranker: int, other: int | None) -> tuple[np.ndarray | None, np.ndarray]:
    """The ends of a line through `weights`: `ranker` against the rest, or against one other.

    None in the place of the first end: neither of the two has a weight, so there is no line.
    """
    unit = np.eye(len(weights))
    if other is None:
        rest = weights.copy()
        rest[ranker] = 0
        if rest.sum() <= 0:
            rest = 1 - unit[ranker]
        return rest / rest.sum(), unit[ranker]
    mass = weights[ranker] + weights[other]
    if mass <= 0:
        return None, weights
    rest = weights - weights[ranker] * unit[ranker] - weights[other] * unit[other]
    return rest + mass * unit[ranker], rest + mass * unit[other]


def exact_weights(evaluator: Evaluator, starts: list[np.ndarray]) -> np.ndarray:
    """The best weights by exact line searches alone; with two rankers the best that there are.

    With two rankers one line holds all weights. With three, lines 0.005 apart cover the triangle, so that no grid of
    that step, or of a multiple of it, holds anything better; the best is polished. With more, the two best starts
    are polished.

    Args:
        starts: each float [rankers]; the result is not worse than any.
    """
    count = evaluator.rankers
    points = list(starts)
    if count == 2:
        points.append(best_on_segment(evaluator, *np.eye(2))[0])
    elif count == 3:
        best_of_lines = []
        for line in range(_LINES):
            share = line / _LINES
            ends = (np.array([share, 1 - share, 0.0]), np.array([share, 0.0, 1 - share]))
            best_of_lines.append(best_on_segment(evaluator, *ends))
        best_of_lines.sort(key=lambda pair: -pair[1])
        points += [point for point, _ in best_of_lines[:_POLISHED]]
    values = [evaluator.value(point) for point in points]
    order = sorted(range(len(points)), key=lambda i: -values[i])[:_POLISHED]
    polished = [polish_weights(evaluator, points[i]) for i in order]
    return max(polished, key=evaluator.value)
