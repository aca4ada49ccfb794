"""Which rankers a submission runs: the points of the cascade, their seconds, and the best one that fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from solution.ensemble.cascade import Stage
from solution.ensemble.costs import Cost
from solution.ensemble.record import read_recipe, read_stages

START_SECONDS = 8.0
"""Of a ranker's process before it loads anything: Python, torch and transformers."""


def reading(stages: Sequence[Stage], questions: int) -> str:
    """How many questions each ranker of a cascade reads, in words."""
    first, *rest = stages
    told = [f"{first.ranker} reads all {questions} questions"]
    told += [
        f"{stage.ranker} about {round(stage.share * questions)}, those that {before.ranker} leaves least sure"
        if stage.threshold is not None
        else f"{stage.ranker} all of these"
        for before, stage in zip(stages, rest, strict=False)
    ]
    return "; ".join(told)


def ensemble_points(
    ensemble: Mapping[str, Any], costs: Mapping[str, Cost]
) -> list[tuple[Mapping[str, Any], list[Stage]]]:
    """The points of the cascade's frontier, cheapest first: what JSON says of them, and their stages.

    The last one is every ranker on every question, the only one where there is no cascade.
    """
    cascade = ensemble.get("cascade")
    if cascade is not None:
        return [(point, read_stages(point)) for point in cascade["frontier"]]
    recipe, unknown = read_recipe(ensemble), float("inf")
    order = sorted(recipe.used, key=lambda name: (_known(costs[name].seconds_per_question, unknown), name))
    rates = {name: _known(costs[name].seconds_per_question, 0.0) for name in order}
    stages = [
        Stage(name, recipe, seconds_per_question=rates[name], load_seconds=costs[name].load_seconds) for name in order
    ]
    loading = sum(stage.load_seconds for stage in stages)
    return [({"load_seconds": loading, "seconds_per_question": sum(rates.values())}, stages)]


def expected_seconds(point: Mapping[str, Any], stages: Sequence[Stage], questions: int) -> float:
    """What a point takes: its processes' starts, loading, and each question's rankers."""
    starts = sum(START_SECONDS for stage in stages if stage.load_seconds > 0)
    return starts + point["load_seconds"] + questions * point["seconds_per_question"]


def fitting(points: Sequence[tuple[Mapping[str, Any], Sequence[Stage]]], questions: int, left: float) -> int:
    """Which point of the cascade's frontier is to run: the last one when it fits, else the best that does.

    Args:
        points: as JSON holds them, and their stages; cheapest first.
        left: seconds.
    """
    fits = [i for i, (point, stages) in enumerate(points) if expected_seconds(point, stages, questions) <= left]
    if len(points) - 1 in fits:
        return len(points) - 1
    return max(fits, key=lambda i: (points[i][0]["map3"], -i), default=0)


def _known(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
