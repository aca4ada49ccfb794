"""The cascades that planning compares: shares of the questions, and the thresholds that give these shares."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solution.ensemble.cascade import By

_GRIDS = {
    2: (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.0),
    3: (1.0, 0.85, 0.7, 0.5, 0.35, 0.2, 0.1, 0.0),
    4: (1.0, 0.75, 0.5, 0.3, 0.15, 0.0),
    5: (1.0, 0.7, 0.4, 0.2, 0.0),
}
"""Number of rankers -> the shares that are tried. The number of falling sequences grows with the number of rankers, so
the grid gets coarser."""
_GRID_OF_MORE = (1.0, 0.5, 0.25, 0.0)
_FLOORS = (0.0, 0.02, 0.05, 0.1)
"""Of an option's probability; below it the option is dropped."""
_MEASURES: tuple[By, ...] = ("margin", "entropy")


@dataclass(frozen=True)
class Spec:
    """A cascade before its thresholds are known.

    Attributes:
        shares: of all questions, how many each ranker reads; falling, and the first reads all.
        by: the measure of doubt by which the questions are taken.
        alive: the floor of an option's probability, see `cascade.living`.
    """

    shares: tuple[float, ...]
    by: By
    alive: float


def list_specs(rankers: int) -> list[Spec]:
    """The cascades that are compared; every ranker on every question is the last."""
    specs = []
    grid = _GRIDS.get(rankers, _GRID_OF_MORE)
    for falling in itertools.combinations_with_replacement(grid, rankers - 1):
        # Without a threshold there is nothing to measure doubt for, without a second ranker no option to drop.
        measured = any(0 < share < 1 for share in falling)
        for by in _MEASURES if measured else _MEASURES[:1]:
            for floor in _FLOORS if falling[0] > 0 else (0.0,):
                specs.append(Spec((1.0, *falling), by, floor))
    everything = Spec((1.0,) * rankers, "margin", 0.0)
    specs.remove(everything)
    return [*specs, everything]


def thresholds(spec: Spec, doubts: Sequence[np.ndarray]) -> list[float | None]:
    """For each ranker behind the first the doubt above which it reads a question, so that it reads its share.

    Args:
        doubts: of the blends of 1, 2, ... rankers, float [n] each.

    Returns:
        rankers - 1 levels; None: the ranker reads all that its forerunner read; infinity: it reads none.
    """
    reached = np.ones(len(doubts[0]), dtype=bool)
    levels: list[float | None] = []
    for stage, share in enumerate(spec.shares[1:]):
        if share == spec.shares[stage]:
            levels.append(None)
            continue
        values = doubts[stage][reached]
        count, most = round(share * len(reached)), len(values)
        if count == 0 or most == 0:
            level = np.inf
        elif count >= most:
            level = -np.inf
        else:
            # Between the last question that is read and the first that is not.
            level = np.partition(values, (most - count - 1, most - count))[most - count - 1 : most - count + 1].mean()
        levels.append(float(level))
        reached &= doubts[stage] > level
    return levels


def stages_reached(levels: Sequence[float | None], doubts: Sequence[np.ndarray]) -> np.ndarray:
    """Index of the last ranker that reads each question, int [n].

    Args:
        levels: from `thresholds`.
        doubts: as there, of the questions at hand.
    """
    reached = np.ones(len(doubts[0]), dtype=bool)
    last = np.zeros(len(reached), dtype=np.int64)
    for stage, level in enumerate(levels):
        if level is not None:
            reached = reached & (doubts[stage] > level)
        last += reached
    return last
