"""Planning of cascades: every order and threshold is tried on OOF tables, and the best for each cost is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from solution import metrics
from solution.ensemble.candidates import Fit, Problem
from solution.ensemble.cascade import By, CascadePlan, Point, Stage, doubt, living, refine
from solution.ensemble.cascade_grid import Spec, list_specs, stages_reached, thresholds
from solution.ensemble.costs import Cost
from solution.ensemble.nested import Fitted, fit_candidate
from solution.errors import UserError

_POINTS = 12
"""The most points of the frontier."""
_ROUNDING = 1.000001
"""Times a budget: a cascade that costs just as much is within it."""


def plan_cascade(
    problem: Problem,
    whole: Fitted,
    fit: Fit,
    costs: Mapping[str, Cost],
    samples: int,
    seed: int,
    limit: float | None = None,
) -> CascadePlan:
    """Find the frontier of MAP@3 against seconds a question.

    Every figure is cross-fitted: recipes and thresholds come from the other folds, and so does the choice of the
    cascade that stands for a budget.

    Args:
        whole: what ships for all rankers; its rankers, cheapest first, are the order.
        fit: makes the recipe of the first rankers of the order alone.
        costs: ranker name -> cost; `seconds_per_question` is known.
        samples, seed: of the bootstrap.
        limit: seconds a question that the chosen point may cost; None: the choice is all rankers on all questions.

    Raises:
        UserError: no point costs as little as `limit`.
    """
    # The rankers in order, and the blends of the first one, the first two, ... of them.
    ladder = _climb(problem, whole, fit, costs)
    fold_rows = [np.flatnonzero(problem.folds == fold) for fold in np.unique(problem.folds)]

    # What each cascade of the grid earns and costs on each question, its thresholds taken from the other folds.
    specs = list_specs(len(ladder.order))
    outcome = _try_all(problem, ladder, specs, fold_rows)

    # The cascades that no cheaper one matches. Each was picked because it looked good, so its score is judged anew.
    points: list[Point] = []
    numbers = _frontier(outcome.prices.mean(axis=1), outcome.credits.mean(axis=1))
    for number in numbers:
        judged = outcome.credits[number]
        if not _is_given(specs[number]):
            budget = float(outcome.prices[number].mean(dtype=np.float64))
            judged = credits_within(budget, outcome.prices, outcome.credits, fold_rows)
        stages = _stages(ladder, specs[number], outcome.levels[number])
        low, high = metrics.bootstrap_interval(judged.astype(np.float64), samples, seed=seed)
        point = Point(
            stages=stages,
            seconds_per_question=float(outcome.prices[number].mean(dtype=np.float64)),
            load_seconds=sum(stage.load_seconds for stage in stages),
            map3=float(judged.mean(dtype=np.float64)),
            low=low,
            high=high,
            note=_note(stages, len(problem.answers)),
        )
        # A point that only looked better than a cheaper one before it was judged is left out.
        if number == numbers[-1] or point.map3 > max((cheaper.map3 for cheaper in points), default=-1.0):
            points.append(point)
    return CascadePlan(tuple(ladder.order), tuple(points), _choose(points, limit))


# --- the rankers in order ------------------------------------------------------------------


@dataclass(frozen=True)
class _Ladder:
    """The rankers of the cascades, cheapest first.

    Attributes:
        order: their names.
        costs: of each, with the rankers whose scores it reads where these do not stand before it.
        seconds: of each for a question.
        blends: of the first ranker alone, of the first two, ...; the last is what ships for all of them.
    """

    order: list[str]
    costs: list[Cost]
    seconds: list[float]
    blends: list[Fitted]


def _climb(problem: Problem, whole: Fitted, fit: Fit, costs: Mapping[str, Cost]) -> _Ladder:
    alone = {name: costs[name].beyond().seconds_per_question or 0.0 for name in whole.recipe.used}
    # A ranker costs as much as those whose scores it reads, or more: at the same cost it stands behind them.
    order = sorted(alone, key=lambda name: (alone[name], bool(costs[name].sources), name))
    added = [costs[name].beyond(order[:place]) for place, name in enumerate(order)]
    blends = [fit_candidate(_only(problem, order[:count]), fit) for count in range(1, len(order))]
    return _Ladder(order, added, [cost.seconds_per_question or 0.0 for cost in added], [*blends, whole])


def _only(problem: Problem, names: Sequence[str]) -> Problem:
    """The problem of these rankers alone."""
    wanted = sorted(names)
    groups = [[name for name in members if name in wanted] for members in problem.groups]
    return replace(
        problem,
        names=wanted,
        table=problem.table[[list(problem.names).index(name) for name in wanted]],
        groups=[members for members in groups if len(members) > 1],
        label=f"{problem.label} of {' '.join(wanted)}",
    )


# --- every cascade on every question -------------------------------------------------------


@dataclass(frozen=True)
class _Outcome:
    """The cascades on the questions that are tuned on.

    Attributes:
        credits: float32 [cascades, n], average precision at 3, by thresholds of the other folds.
        prices: float32 [cascades, n], seconds.
        levels: of each cascade the thresholds that all questions give, see `cascade_grid.thresholds`.
    """

    credits: np.ndarray
    prices: np.ndarray
    levels: list[list[float | None]]


def _try_all(problem: Problem, ladder: _Ladder, specs: Sequence[Spec], fold_rows: Sequence[np.ndarray]) -> _Outcome:
    chains = {floor: _chain(problem, ladder, floor) for floor in {spec.alive for spec in specs}}
    everyone = np.arange(len(problem.answers))
    credits = np.empty((len(specs), len(everyone)), dtype=np.float32)
    prices = np.empty_like(credits)
    shipped = []
    for number, spec in enumerate(specs):
        chain = chains[spec.alive]
        doubts = chain.doubts[spec.by]
        shipped.append(thresholds(spec, doubts))
        last = np.zeros(len(everyone), dtype=np.int64)
        for rows in fold_rows:
            others = np.setdiff1d(everyone, rows, assume_unique=True)
            levels = thresholds(spec, [values[others] for values in doubts])
            last[rows] = stages_reached(levels, [values[rows] for values in doubts])
        # Of the blend of the last ranker that reads the question, and of all rankers up to it.
        credits[number] = chain.credits[last, everyone]
        prices[number] = chain.prices[last, everyone]
    return _Outcome(credits, prices, shipped)


@dataclass(frozen=True)
class _Chain:
    """The blends of 1, 2, ... rankers where options below one floor are dropped on the way.

    Attributes:
        credits: float32 [rankers, n].
        doubts: by -> float [n] for each blend.
        prices: float [rankers, n], the seconds that the first 1, 2, ... rankers take for each question.
    """

    credits: np.ndarray
    doubts: dict[By, list[np.ndarray]]
    prices: np.ndarray


def _chain(problem: Problem, ladder: _Ladder, floor: float) -> _Chain:
    exists, tables = problem.exists, dict(zip(problem.names, problem.table, strict=True))
    alive, blend = exists, ladder.blends[0].answers  # bool and float32, [n, width]
    blends, prices = [blend], [np.full(len(exists), ladder.seconds[0])]
    for cost, seconds, fitted in zip(ladder.costs[1:], ladder.seconds[1:], ladder.blends[1:], strict=True):
        before, blend = blend, fitted.answers
        alive = living(before, alive, floor)
        if floor > 0:
            # The answers that were fitted know all options: blend again, the dropped ones left out.
            blend = blend.copy()
            for fold, recipe in fitted.by_fold.items():
                rows = problem.folds == fold
                answers = {name: tables[name][rows] for name in recipe.used}
                blend[rows] = refine(recipe, answers, exists[rows], alive[rows], before[rows])
        blends.append(blend)
        share = alive.sum(axis=1) / exists.sum(axis=1) if cost.by_option else 1.0
        prices.append(prices[-1] + seconds * share)
    measures: tuple[By, ...] = ("margin", "entropy")
    return _Chain(
        np.stack([metrics.credit_at_k(blend, problem.answers) for blend in blends]).astype(np.float32),
        {by: [doubt(blend, exists, by) for blend in blends] for by in measures},
        np.stack(prices),
    )


# --- the frontier --------------------------------------------------------------------------


def _frontier(prices: np.ndarray, scores: np.ndarray) -> list[int]:
    """The cascades that no cheaper one matches, cheapest first, thinned out; the last, of all rankers, always.

    Args:
        prices, scores: float [cascades], means over the questions.
    """
    everything = len(prices) - 1
    best: list[int] = []
    for number in sorted(range(len(prices)), key=lambda i: (prices[i], -scores[i])):
        if prices[number] < prices[everything] and (not best or scores[number] > scores[best[-1]]):
            best.append(number)
    if len(best) >= _POINTS:
        best = [best[i] for i in np.unique(np.linspace(0, len(best) - 1, _POINTS - 1).round().astype(int))]
    return [*best, everything]


def _is_given(spec: Spec) -> bool:
    """A cascade that was not chosen for its score: all rankers on all questions, or the cheapest alone."""
    everything = spec.alive == 0 and set(spec.shares) == {1.0}
    return everything or not any(spec.shares[1:])


def credits_within(
    budget: float, prices: np.ndarray, credits: np.ndarray, fold_rows: Sequence[np.ndarray]
) -> np.ndarray:
    """The credits of "the best cascade within a budget", each fold's chosen on the others, float32 [n].

    Args:
        budget: mean seconds a question.
        prices, credits: float32 [cascades, n].
        fold_rows: the indices of each fold's questions.
    """
    result = np.empty(credits.shape[1], dtype=np.float32)
    count = credits.shape[1]
    whole_prices, whole_credits = prices.sum(axis=1, dtype=np.float64), credits.sum(axis=1, dtype=np.float64)
    for rows in fold_rows:
        rest = count - len(rows)
        if rest == 0:  # one fold alone: nothing to choose on
            return credits[int(np.argmin(np.abs(prices.mean(axis=1) - budget)))]
        price = (whole_prices - prices[:, rows].sum(axis=1, dtype=np.float64)) / rest
        score = (whole_credits - credits[:, rows].sum(axis=1, dtype=np.float64)) / rest
        allowed = price <= max(budget * _ROUNDING, price.min())
        # Rounded, so that cascades that do the same tie, and the cheaper one is taken.
        score = np.where(allowed, np.round(score, 9), -1.0)
        best = np.lexsort((price, -score))[0]
        result[rows] = credits[best, rows]
    return result


def _stages(ladder: _Ladder, spec: Spec, levels: Sequence[float | None]) -> tuple[Stage, ...]:
    """The turns of a cascade; rankers that read no question are left out, with all behind them."""
    used = 1 + next((i for i, level in enumerate(levels) if level == np.inf), len(levels))
    by_stage = [None, *levels]
    return tuple(
        Stage(
            ranker=ladder.order[i],
            recipe=ladder.blends[i].recipe,
            by=spec.by,
            threshold=_natural(by_stage[i], spec.by),
            share=spec.shares[i],
            alive=spec.alive if i else 0.0,
            seconds_per_question=ladder.seconds[i],
            load_seconds=ladder.costs[i].load_seconds,
        )
        for i in range(used)
    )


def _natural(level: float | None, by: By) -> float | None:
    """A level of doubt as `Stage.threshold` has it: doubt by margin is minus the margin."""
    if level is None or not np.isfinite(level):
        return None
    return -level if by == "margin" else level


def _note(stages: Sequence[Stage], questions: int) -> str:
    """A cascade in words; of a small exam each share is that of the whole questions that are read."""
    if len(stages) == 1:
        return f"{stages[0].ranker} alone"
    if all(stage.threshold is None and stage.alive == 0 for stage in stages):
        return " + ".join(stage.ranker for stage in stages) + " on every question"
    parts = [stages[0].ranker]
    parts += [f"{stage.ranker} on {round(stage.share * questions) / questions:.0%}" for stage in stages[1:]]
    gated = any(stage.threshold is not None for stage in stages)
    note = " + ".join(parts) + (f" by {stages[-1].by}" if gated else "")
    return note + (f", options below {stages[-1].alive:g} dropped" if stages[-1].alive else "")


def _choose(points: Sequence[Point], limit: float | None) -> int:
    """Index of the best point within the limit; the last where there is none."""
    if limit is None:
        return len(points) - 1
    allowed = [i for i, point in enumerate(points) if point.seconds_per_question <= limit * _ROUNDING]
    if not allowed:
        raise UserError(
            f"--seconds-per-question {limit:g} is less than the cheapest cascade takes: {points[0].note}, "
            f"{points[0].seconds_per_question:.4g} seconds a question"
        )
    return max(allowed, key=lambda i: (points[i].map3, -i))
