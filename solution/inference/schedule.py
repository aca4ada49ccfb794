"""Which rankers a submission runs: the points of the cascade, their seconds, and the best one that fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from solution.ensemble.cascade import Stage
from solution.ensemble.costs import Cost, measured_cost, with_sources
from solution.ensemble.record import (
    EnsembleRecord,
    about_all,
    read_recipe,
    read_stages,
    unweighted_sources,
    used_rankers,
)
from solution.files import content_hash
from solution.inference.jobs import BATCH_SECONDS
from solution.inference.journal import AnswerJournal
from solution.inference.limits import Limits
from solution.inference.timeline import Timeline
from solution.inference.trained import TrainedRanker
from solution.inference.turns import Answers, Recipes
from solution.progress import say
from solution.questions import Questions
from solution.workdir import Workdir

START_SECONDS = 8.0
"""Of a ranker's process before it loads anything: Python, torch and transformers."""


def reading(stages: Sequence[Stage], questions: int) -> str:
    """The number of questions that each ranker of a cascade reads, in words."""
    first, *rest = stages
    parts = [f"{first.ranker} reads all {questions} questions"]
    parts += [
        f"{stage.ranker} about {round(stage.share * questions)}, those that {before.ranker} leaves least sure"
        if stage.threshold is not None
        else f"{stage.ranker} all of these"
        for before, stage in zip(stages, rest, strict=False)
    ]
    return "; ".join(parts)


def ensemble_points(ensemble: EnsembleRecord, costs: Mapping[str, Cost]) -> list[tuple[Mapping[str, Any], list[Stage]]]:
    """The points of the cascade's frontier, cheapest first: what JSON says of them, and their stages.

    The last point is every ranker on every question; where there is no cascade it is the only one.
    """
    cascade = ensemble.get("cascade")
    if cascade is not None:
        return [(point, read_stages(point)) for point in cascade["frontier"]]
    recipe, unknown = read_recipe(ensemble), float("inf")
    order = sorted(recipe.used, key=lambda name: (_known(costs[name].beyond().seconds_per_question, unknown), name))
    added = {name: costs[name].beyond(order[:place]) for place, name in enumerate(order)}
    rates = {name: _known(cost.seconds_per_question, 0.0) for name, cost in added.items()}
    stages = [
        Stage(name, recipe, seconds_per_question=rates[name], load_seconds=added[name].load_seconds) for name in order
    ]
    loading = sum(stage.load_seconds for stage in stages)
    return [({"load_seconds": loading, "seconds_per_question": sum(rates.values())}, stages)]


def ensemble_costs(workdir: Workdir, ensemble: EnsembleRecord) -> dict[str, Cost]:
    """What training measured of each ranker that has a weight, and of those whose scores these read."""
    about, used = about_all(ensemble), used_rankers(ensemble)
    names = [*used, *unweighted_sources(ensemble)]
    return with_sources({name: measured_cost(workdir, name, about[name]) for name in names}, names, about)


def shared_seconds(seconds: float, speed: int, batch: float = BATCH_SECONDS) -> float:
    """Seconds that a ranker's batches take on several devices: at the end one of these may be at work alone.

    Args:
        seconds: on one device.
        speed: how many times as fast the devices are together.
        batch: seconds of the longest batch.
    """
    return seconds / speed + (1 - 1 / speed) * min(seconds, batch)


def expected_seconds(
    point: Mapping[str, Any], stages: Sequence[Stage], questions: int, speeds: Mapping[str, int] | None = None
) -> float:
    """Seconds that a point of the cascade takes: its processes' starts, loading, and each question's rankers.

    Args:
        speeds: how many times as fast as one device those are that share a ranker's questions; None: there is one.
    """
    starts = sum(START_SECONDS for stage in stages if stage.load_seconds > 0)
    rates = {stage.ranker: stage.share * stage.seconds_per_question for stage in stages}
    # The point's own rate knows which options are dropped besides.
    scale = questions * point["seconds_per_question"] / (sum(rates.values()) or 1.0)
    scoring = [shared_seconds(scale * rate, (speeds or {}).get(name, 1)) for name, rate in rates.items()]
    return starts + point["load_seconds"] + (sum(scoring) or questions * point["seconds_per_question"])


def fitting(
    points: Sequence[tuple[Mapping[str, Any], Sequence[Stage]]],
    questions: int,
    left: float,
    speeds: Mapping[str, int] | None = None,
) -> int:
    """The index of the point of the cascade's frontier that is to run: the last one, or else the best that fits.

    Args:
        points: as JSON holds them, and their stages; cheapest first.
        left: seconds.
        speeds: see `expected_seconds`.
    """
    fits = [i for i, (point, stages) in enumerate(points) if expected_seconds(point, stages, questions, speeds) <= left]
    if len(points) - 1 in fits:
        return len(points) - 1
    return max(fits, key=lambda i: (points[i][0]["map3"], -i), default=0)


def _known(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


@dataclass(frozen=True)
class Schedule:
    """The cascades among which a submission can choose.

    Attributes:
        ensemble: what `ensemble.json` holds.
        costs: of each of its rankers, and of those whose scores they read.
        points: see `ensemble_points`.
    """

    ensemble: EnsembleRecord
    costs: Mapping[str, Cost]
    points: Sequence[tuple[Mapping[str, Any], list[Stage]]]

    @classmethod
    def read(cls, workdir: Workdir, ensemble: EnsembleRecord) -> Schedule:
        """The schedule by what training measured of each ranker."""
        costs = ensemble_costs(workdir, ensemble)
        return cls(ensemble, costs, ensemble_points(ensemble, costs))

    @property
    def whole(self) -> list[Stage]:
        """Every ranker on every question."""
        return self.points[-1][1]

    @property
    def tuned(self) -> list[Stage]:
        """The cascade that `tune` chose; every ranker on every question where there is none."""
        cascade = self.ensemble.get("cascade")
        return self.whole if cascade is None else self.points[cascade["chosen"]][1]

    def recipes(self) -> Recipes:
        """The recipe of all rankers, and where there is a cascade those of its first rankers."""
        partial = {}
        if self.ensemble.get("cascade") is not None:
            names = [stage.ranker for stage in self.whole]
            partial = {frozenset(names[: i + 1]): stage.recipe for i, stage in enumerate(self.whole)}
        return Recipes(read_recipe(self.ensemble), partial)

    def answers(
        self,
        questions: Questions,
        trained: Sequence[TrainedRanker],
        limits: Limits,
        sample: np.ndarray | None = None,
    ) -> Answers:
        """The answers to questions before any ranker has a turn.

        Args:
            trained: the rankers with usable weights.
            sample: see `Answers`.
        """
        folds = {ranker.name: len(ranker.asked_folders) for ranker in trained}
        sources = unweighted_sources(self.ensemble)
        names = [*(stage.ranker for stage in self.whole), *sources]
        asked_folds = {name: folds.get(name, 1) for name in names}
        return Answers(questions, self.recipes(), asked_folds, Timeline(limits), sample, sources)

    def choose(
        self, questions: int, journal: AnswerJournal, timeline: Timeline, speeds: Mapping[str, int] | None = None
    ) -> tuple[list[Stage], list[Stage]]:
        """The cascade that is to run, and a second pass for the time that it leaves over (empty for none).

        It is the one that `tune` chose, or with a deadline the best one that fits the time. What is chosen is kept in
        the journal: a run that goes on after a kill has less time left, and must not ask other questions.

        Args:
            speeds: see `expected_seconds`.
        """
        cascade = self.ensemble.get("cascade")
        if cascade is None:
            return self.whole, []
        limits = timeline.limits
        taken = chosen = cascade["chosen"]
        if limits.deadline is not None:
            key = content_hash("cascade", self.ensemble, limits.deadline)
            taken = journal.note(key)
            if not isinstance(taken, int) or not 0 <= taken <= chosen:
                taken = fitting(self.points[: chosen + 1], questions, limits.left(), speeds)
                journal.write_note(key, taken)
            timeline.note(f"cascade: {self.points[taken][0]['note']}")
        if taken < len(self.points) - 1:
            why = "the cascade that `tune` chose for its time limit"
            if taken != chosen:
                why = f"the deadline does not leave the time for {self.points[chosen][0]['note']}"
            say(f"{reading(self.points[taken][1], questions)} ({why})")
        # Time that is left over goes to what the cascade left out, unless the user chose it when tuning.
        return self.points[taken][1], self.whole if taken < chosen == len(self.points) - 1 else []
