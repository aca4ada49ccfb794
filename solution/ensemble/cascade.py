"""The cascade: costly rankers read only the questions, and of these the options, that the cheap ones leave open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from solution.ensemble.blend import Recipe, apply_recipe

By = Literal["margin", "entropy"]
_LEAST_ALIVE = 2
"""Options of a question that are never dropped."""


@dataclass(frozen=True)
class Stage:
    """A ranker's turn.

    Attributes:
        ranker: its name.
        recipe: of this ranker and those before it; tuned for questions that only they saw.
        by, threshold: it reads the questions of its forerunner whose blend so far has a margin (first probability
            less the second) below the threshold, or an entropy (1 when all options are equal) above it; None: all.
        share: of the questions that were tuned on.
        alive: options whose probability in the blend so far is below it are dropped, but the two best.
        seconds_per_question: of all its folds together.
        load_seconds: before it answers its first question.
    """

    ranker: str
    recipe: Recipe
    by: By = "margin"
    threshold: float | None = None
    share: float = 1.0
    alive: float = 0.0
    seconds_per_question: float = 0.0
    load_seconds: float = 0.0


def doubt(table: np.ndarray, exists: np.ndarray, by: By) -> np.ndarray:
    """The doubt in each row of probabilities, float64 [n]: minus the margin, or the entropy; higher is less sure."""
    table = np.where(exists, table, 0.0).astype(np.float64)
    if by == "margin":
        # With a column of 0 more: all questions of an exam may have only one option that can be ranked.
        ordered = np.sort(np.pad(table, ((0, 0), (1, 0))), axis=1)
        return ordered[:, -2] - ordered[:, -1]
    logs = np.log(np.where(table > 0, table, 1.0))
    return -(table * logs).sum(axis=1) / np.log(np.maximum(exists.sum(axis=1), 2))


def unsure(stage: Stage, table: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """The questions that the stage's ranker is to read by the blend so far, bool [n]."""
    if stage.threshold is None:
        return np.ones(len(table), dtype=bool)
    return doubt(table, exists, stage.by) > (-stage.threshold if stage.by == "margin" else stage.threshold)


def living(table: np.ndarray, alive: np.ndarray, floor: float) -> np.ndarray:
    """The options that stay alive, bool [n, width]: those with at least `floor` in the blend so far, and the two best.

    Args:
        alive: bool [n, width], those that lived until now; no other comes back.
    """
    if floor <= 0:
        return alive
    living_table = np.where(alive, table, -1.0)
    best = np.argsort(-living_table, axis=1, kind="stable")[:, :_LEAST_ALIVE]
    stays = living_table >= floor
    np.put_along_axis(stays, best, True, axis=1)
    return stays & alive


def refine(
    recipe: Recipe, answers: Mapping[str, np.ndarray], exists: np.ndarray, alive: np.ndarray, before: np.ndarray
) -> np.ndarray:
    """The blend after a ranker that read only the living options, float32 [n, width].

    Dropped options keep what the blend before gave them; the living ones share the rest by the recipe, each ranker's
    probabilities taken among them alone.

    Args:
        answers: ranker name -> float [n, width].
        exists, alive: bool [n, width].
        before: float [n, width], the blend without the last ranker.
    """
    narrowed = (alive != exists).any(axis=1)
    if not narrowed.any():
        return apply_recipe(recipe, answers, exists)
    result = before.astype(np.float32, copy=True)

    # Questions that lost no option: the recipe as it is.
    if not narrowed.all():
        rows = ~narrowed
        whole = {name: table[rows] for name, table in answers.items()}
        result[rows] = apply_recipe(recipe, whole, exists[rows])

    # The others: what the living options had together is shared out among them anew.
    rows, living_options = narrowed, alive[narrowed]
    among = {name: _among(table[rows], living_options) for name, table in answers.items()}
    mass = np.where(living_options, before[rows], 0.0).sum(axis=1, keepdims=True)
    shares = mass * apply_recipe(recipe, among, living_options)
    result[rows] = np.where(living_options, shares, before[rows])
    return result


def _among(table: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Probabilities among the living options alone; equal where a ranker gave none of them any."""
    inside = np.where(alive, table, 0.0)
    total = inside.sum(axis=1, keepdims=True)
    return np.where(total > 0, inside, alive) / np.where(total > 0, total, alive.sum(axis=1, keepdims=True))


# --- what planning makes -------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """One cascade with what it costs and is worth.

    Attributes:
        stages: in order; rankers that it does not use are left out.
        seconds_per_question: expected, on questions like those tuned on.
        load_seconds: of its rankers together.
        map3, low, high: MAP@3 and its 95 % interval, each fold judged by recipes and thresholds that were fitted, and
            by a cascade of no greater cost that was chosen, on the other folds.
        note: in words.
    """

    stages: tuple[Stage, ...]
    seconds_per_question: float
    load_seconds: float
    map3: float
    low: float
    high: float
    note: str


@dataclass(frozen=True)
class CascadePlan:
    """The frontier of score against time, cheapest first.

    Attributes:
        order: the rankers, cheapest first.
        points: the last one is every ranker on every question.
        chosen: index of the point that ships.
    """

    order: tuple[str, ...]
    points: tuple[Point, ...]
    chosen: int
