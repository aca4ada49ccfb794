"""Planning of cascades: every order and threshold is tried on OOF tables, and the best for each cost is kept."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from solution import metrics
from solution.ensemble.blend import Recipe
from solution.ensemble.candidates import Fit, Problem
from solution.ensemble.cascade import By, CascadePlan, Point, Stage, doubt, living, refine
from solution.ensemble.costs import Cost
from solution.ensemble.nested import fit_nested
from solution.errors import UserError

_ALIVE = (0.0, 0.02, 0.05, 0.1)
_POINTS = 12


@dataclass(frozen=True)
class _Spec:
    """A cascade before its thresholds are known: which share of all questions each ranker reads."""

    shares: tuple[float, ...]
    by: By
    alive: float


def _specs(rankers: int) -> list[_Spec]:
    """The cascades that are compared; every ranker on every question is the last."""
    # The number of falling sequences grows with the number of rankers, so the grid gets coarser.
    grids = {
        2: (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        3: (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0),
        4: (0.0, 0.15, 0.3, 0.5, 0.75, 1.0),
        5: (0.0, 0.2, 0.4, 0.7, 1.0),
    }
    grid = grids.get(rankers, (0.0, 0.25, 0.5, 1.0))
    found = []
    for falling in itertools.combinations_with_replacement(sorted(grid, reverse=True), rankers - 1):
        shares = (1.0, *falling)
        gates = any(0 < share < 1 for share in falling)
        for by in ("margin", "entropy") if gates else ("margin",):
            for alive in _ALIVE if falling[0] > 0 else (0.0,):
                found.append(_Spec(shares, by, alive))  # type: ignore[arg-type]
    everything = _Spec((1.0,) * rankers, "margin", 0.0)
    found.remove(everything)
    return [*found, everything]


def _thresholds(spec: _Spec, doubts: Sequence[np.ndarray]) -> list[float | None]:
    """For each ranker behind the first the doubt above which it reads a question; None: it reads all that its
    forerunner read; infinity: none.

    Args:
        doubts: of the blends of 1, 2, ... rankers, float [n] each.
    """
    reached = np.ones(len(doubts[0]), dtype=bool)
    found: list[float | None] = []
    for stage, share in enumerate(spec.shares[1:]):
        if share == spec.shares[stage]:
            found.append(None)
            continue
        values = doubts[stage][reached]
        count, most = round(share * len(reached)), len(values)
        if count == 0 or most == 0:
            level = np.inf
        elif count >= most:
            level = -np.inf
        else:
            level = np.partition(values, (most - count - 1, most - count))[most - count - 1 : most - count + 1].mean()
        found.append(float(level))
        reached &= doubts[stage] > level
    return found


def _stages_reached(levels: Sequence[float | None], doubts: Sequence[np.ndarray]) -> np.ndarray:
    """Index of the last ranker that reads each question, int [n]."""
    reached = np.ones(len(doubts[0]), dtype=bool)
    last = np.zeros(len(reached), dtype=np.int64)
    for stage, level in enumerate(levels):
        if level is not None:
            reached = reached & (doubts[stage] > level)
        last += reached
    return last


def plan_cascade(
    problem: Problem,
    recipe: Recipe,
    folds: Mapping[int, Recipe],
    answers: np.ndarray,
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
        recipe: what ships for all rankers; its rankers, cheapest first, are the order.
        folds: fold -> the recipe for all rankers that was fitted without it.
        answers: float32 [n, width], what these say of their folds.
        fit: makes the recipe of the first rankers of the order alone.
        costs: ranker name -> cost; `seconds_per_question` is known.
        samples, seed: of the bootstrap.
        limit: seconds a question that the chosen point may cost; None: the choice is all rankers on all questions.

    Raises:
        UserError: no point costs as little as `limit`.
    """
    known = {name: float(costs[name].seconds_per_question or 0.0) for name in recipe.used}
    order = sorted(known, key=lambda name: (known[name], name))
    seconds = np.array([known[name] for name in order])
    by_option = [costs[name].by_option for name in order]
    recipes: list[Recipe] = []
    parts: list[Mapping[int, Recipe]] = []
    blends: list[np.ndarray] = []
    for count in range(1, len(order)):
        part = _only(problem, order[:count])
        recipes.append(fit(part))
        blend, own = fit_nested(part, fit)
        blends.append(blend)
        parts.append(own)
    recipes.append(recipe)
    parts.append(folds)
    blends.append(answers)

    specs = _specs(len(order))
    chains = {
        floor: _chain(problem, parts, blends, floor, seconds, by_option) for floor in {spec.alive for spec in specs}
    }
    places = [np.flatnonzero(problem.folds == fold) for fold in np.unique(problem.folds)]
    credits = np.empty((len(specs), len(problem.answers)), dtype=np.float32)
    prices = np.empty_like(credits)
    everyone = np.arange(len(problem.answers))
    shipped: list[list[float | None]] = []
    for number, spec in enumerate(specs):
        chain = chains[spec.alive]
        doubts = chain.doubts[spec.by]
        shipped.append(_thresholds(spec, doubts))
        last = np.zeros(len(everyone), dtype=np.int64)
        for rows in places:
            others = np.setdiff1d(everyone, rows, assume_unique=True)
            levels = _thresholds(spec, [each[others] for each in doubts])
            last[rows] = _stages_reached(levels, [each[rows] for each in doubts])
        credits[number] = chain.credits[last, everyone]
        prices[number] = chain.prices[last, everyone]

    points = []
    for number in _frontier(prices.mean(axis=1), credits.mean(axis=1)):
        judged = credits[number]
        if specs[number] != specs[-1] and specs[number].shares[1:] != (0.0,) * (len(order) - 1):
            judged = _honest(prices, credits, float(prices[number].mean(dtype=np.float64)), places)
        low, high = metrics.bootstrap_interval(judged.astype(np.float64), samples, seed=seed)
        spec, levels = specs[number], [None, *shipped[number]]
        used = next((i for i, level in enumerate(levels) if level == np.inf), len(order))
        stages = tuple(
            Stage(
                ranker=name,
                recipe=recipes[i],
                by=spec.by,
                threshold=_natural(levels[i], spec.by),
                share=spec.shares[i],
                alive=spec.alive if i else 0.0,
                seconds_per_question=float(seconds[i]),
                load_seconds=costs[name].load_seconds,
            )
            for i, name in enumerate(order[:used])
        )
        points.append(
            Point(
                stages,
                float(prices[number].mean(dtype=np.float64)),
                sum(stage.load_seconds for stage in stages),
                float(judged.mean(dtype=np.float64)),
                low,
                high,
                _note(stages),
            )
        )
    best = -1.0
    kept = []
    for number, each in enumerate(points):
        if each.map3 > best or number == len(points) - 1:  # what looked better before it was judged is left out
            kept.append(each)
            best = max(best, each.map3)
    return CascadePlan(tuple(order), tuple(kept), _choose(kept, limit))


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


def _chain(
    problem: Problem,
    recipes: Sequence[Mapping[int, Recipe]],
    blends: Sequence[np.ndarray],
    floor: float,
    seconds: np.ndarray,
    by_option: Sequence[bool],
) -> _Chain:
    exists, tables = problem.exists, dict(zip(problem.names, problem.table, strict=True))
    alive, blend = exists, blends[0]
    made, prices = [blend], [np.full(len(exists), seconds[0])]
    for number in range(1, len(blends)):
        before, blend = blend, blends[number]
        alive = living(before, alive, floor)
        if floor > 0:
            blend = blend.copy()
            for fold, recipe in recipes[number].items():
                rows = problem.folds == fold
                own = {name: tables[name][rows] for name in recipe.used}
                blend[rows] = refine(recipe, own, exists[rows], alive[rows], before[rows])
        made.append(blend)
        share = alive.sum(axis=1) / exists.sum(axis=1) if by_option[number] else 1.0
        prices.append(prices[-1] + seconds[number] * share)
    return _Chain(
        np.stack([metrics.credit_at_k(each, problem.answers) for each in made]).astype(np.float32),
        {by: [doubt(each, exists, by) for each in made] for by in ("margin", "entropy")},  # type: ignore[misc]
        np.stack(prices),
    )


def _only(problem: Problem, names: Sequence[str]) -> Problem:
    """The problem of these rankers alone."""
    kept = sorted(names)
    groups = [[name for name in members if name in kept] for members in problem.groups]
    return replace(
        problem,
        names=kept,
        table=problem.table[[list(problem.names).index(name) for name in kept]],
        groups=[members for members in groups if len(members) > 1],
        label=f"{problem.label} of {' '.join(kept)}",
    )


def _frontier(prices: np.ndarray, scores: np.ndarray) -> list[int]:
    """Which cascades no cheaper one matches, cheapest first, thinned out; the last, of all rankers, always."""
    everything = len(prices) - 1
    found: list[int] = []
    for number in sorted(range(len(prices)), key=lambda i: (prices[i], -scores[i])):
        if prices[number] < prices[everything] and (not found or scores[number] > scores[found[-1]]):
            found.append(number)
    if len(found) >= _POINTS:
        found = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, _POINTS - 1).round().astype(int))]
    return [*found, everything]


def _honest(prices: np.ndarray, credits: np.ndarray, budget: float, places: Sequence[np.ndarray]) -> np.ndarray:
    """The credits of "the best cascade within a budget", each fold's chosen on the others, float32 [n]."""
    result = np.empty(credits.shape[1], dtype=np.float32)
    count = credits.shape[1]
    whole_prices, whole_credits = prices.sum(axis=1, dtype=np.float64), credits.sum(axis=1, dtype=np.float64)
    for rows in places:
        rest = count - len(rows)
        if rest == 0:
            return credits[int(np.argmin(np.abs(prices.mean(axis=1) - budget)))]
        price = (whole_prices - prices[:, rows].sum(axis=1, dtype=np.float64)) / rest
        score = (whole_credits - credits[:, rows].sum(axis=1, dtype=np.float64)) / rest
        allowed = price <= max(budget * 1.000001, price.min())
        score = np.where(allowed, np.round(score, 9), -1.0)
        best = np.lexsort((price, -score))[0]
        result[rows] = credits[best, rows]
    return result


def _natural(level: float | None, by: By) -> float | None:
    if level is None or not np.isfinite(level):
        return None
    return -level if by == "margin" else level


def _note(stages: Sequence[Stage]) -> str:
    if len(stages) == 1:
        return f"{stages[0].ranker} alone"
    if all(stage.threshold is None and stage.alive == 0 for stage in stages):
        return " + ".join(stage.ranker for stage in stages) + " on every question"
    parts = [stages[0].ranker]
    parts += [f"{stage.ranker} on {stage.share:.0%}" for stage in stages[1:]]
    gated = any(stage.threshold is not None for stage in stages)
    told = " + ".join(parts) + (f" by {stages[-1].by}" if gated else "")
    return told + (f", options below {stages[-1].alive:g} dropped" if stages[-1].alive else "")


def _choose(points: Sequence[Point], limit: float | None) -> int:
    if limit is None:
        return len(points) - 1
    allowed = [i for i, point in enumerate(points) if point.seconds_per_question <= limit * 1.000001]
    if not allowed:
        raise UserError(
            f"--seconds-per-question {limit:g} is less than the cheapest cascade takes: {points[0].note}, "
            f"{points[0].seconds_per_question:.4g} seconds a question"
        )
    return max(allowed, key=lambda i: (points[i].map3, -i))
