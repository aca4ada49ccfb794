"""The honest estimate: every candidate judged on folds that it was not fitted on, and the choice judged likewise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from typing_extensions import TypedDict  # see `record`

from solution import metrics
from solution.config import CandidateName
from solution.ensemble.blend import Recipe
from solution.ensemble.candidates import Fit, Problem

_CHANCE = 0.16
"""The share of exams on which the choice may leave the plain blend for nothing: as much of a normal distribution lies
beyond one standard error above its mean."""
_DRAWS = 20_000
"""Of the normal distribution, see `_largest_by_chance`."""


def fit_nested(
    problem: Problem, fit: Fit, advance: Callable[[], None] = lambda: None
) -> tuple[np.ndarray, dict[int, Recipe]]:
    """Answer each fold's questions by a recipe that was fitted on the other folds.

    Scores of the result are honest about the fitting of weights (not about the rankers' own choices,
    such as `keep: best`).

    Args:
        advance: called after each fold.

    Returns:
        float32 [n, width], and fold -> its recipe.
    """
    result = np.zeros(problem.exists.shape, dtype=np.float32)
    recipes: dict[int, Recipe] = {}
    for fold in np.unique(problem.folds).tolist():
        held_out = problem.folds == fold
        recipes[fold] = fit(problem.subset(~held_out, f"without fold {fold}"))
        result[held_out] = problem.subset(held_out, f"fold {fold}").answer(recipes[fold])
        advance()
    return result, recipes


@dataclass(frozen=True)
class Fitted:
    """A candidate fitted on all questions and, for each fold, on the others.

    Attributes:
        recipe: what would ship.
        by_fold: fold -> the recipe that was fitted without it; none where nothing was fitted.
        answers: the nested answers, float32 [n, width].
        credits: of these, average precision at 3, float64 [n].
    """

    recipe: Recipe
    by_fold: dict[int, Recipe]
    answers: np.ndarray
    credits: np.ndarray


Fits = Mapping[CandidateName, Fitted]
"""Candidate -> what was fitted, plainest first."""


def fit_candidate(problem: Problem, fit: Fit) -> Fitted:
    recipe = fit(problem)
    answers, by_fold = fit_nested(problem, fit)
    return Fitted(recipe, by_fold, answers, metrics.credit_at_k(answers, problem.answers))


@dataclass(frozen=True)
class Choice:
    """The candidate that ships, and why.

    Attributes:
        name: of the candidate.
        reason: one line.
    """

    name: CandidateName
    reason: str


def choose(credits: Mapping[CandidateName, np.ndarray], sizes: Mapping[CandidateName, int], seed: int = 0) -> Choice:
    """The candidate that ships, by the nested estimates.

    The plain blend has equal weights: of probabilities or of log-probabilities, of all rankers or of fewer, whichever
    scores better, the fewer where they are as good. Another candidate must beat it by more than the noise, and the
    more candidates there are the better the luckiest looks: so its gain over its standard error must pass what the
    largest of all of them reaches in 16 % of exams on which none is better (a max-t test after White 2000, by draws
    from the normal distribution with the candidates' correlations, those left out that are clearly worse, as by
    Hansen 2005; one candidate alone needs one standard error). Of those that pass, the plainest that is no more than
    a standard error below the best.

    Args:
        credits: candidate name -> float [n], its nested credits, plainest first.
        sizes: candidate name -> how many rankers it uses.
        seed: of the draws.
    """
    # The plain blend: the better of two means, of fewer rankers where these are as good.
    plain = _better(credits, "equal", "equal_log")
    why = ""
    if "fewer" in credits:
        fewer = _better(credits, "fewer", "fewer_log")
        gain, error = _gain(credits[plain], credits[fewer])
        if sizes[fewer] < sizes[plain]:
            why = f"{sizes[fewer]} of {sizes[plain]} rankers {-gain:+z.4f} to all (standard error {error:.4f})"
            plain = fewer if gain <= 0 else plain

    # The others by their gain in standard errors, those left out that are clearly worse.
    gains = {name: _gain(credits[name], credits[plain]) for name in credits if name != plain}
    hopeless = -math.sqrt(2 * math.log(math.log(max(16, len(credits[plain])))))
    rated = {name: gain / error for name, (gain, error) in gains.items() if error > 0 and gain > hopeless * error}
    if not rated:
        return Choice(plain, f"{plain}: {why or 'no candidate differs from it'}")

    # One ships when it gains more than the luckiest would by chance: the plainest that is as good as the best.
    needed = _largest_by_chance(np.stack([credits[name] - credits[plain] for name in rated]), seed)
    passed = [name for name in rated if rated[name] > needed]
    best = max(passed or rated, key=lambda name: gains[name][0])
    seen = f"{best} is {gains[best][0]:+z.4f} to {plain} (nested), {rated[best]:z.1f} standard errors"
    rule = f"{needed:.1f} needed, as {len(rated)} were compared" if len(rated) > 1 else f"{needed:.1f} needed"
    for name in passed:  # the plainest first
        behind, error = _gain(credits[best], credits[name])
        if behind <= error:
            also = "" if name == best else f"; {name} is plainer and {-behind:+z.4f} to it"
            return Choice(name, f"{name}: {seen} ({rule}){also}")
    why = "; ".join(filter(None, [why, f"the best other, {seen}: no more than the noise ({rule})"]))
    return Choice(plain, f"{plain}: {why}")


def _better(credits: Mapping[CandidateName, np.ndarray], first: CandidateName, second: CandidateName) -> CandidateName:
    """The one of the higher mean; the first where they are equal, or where the second did not compete."""
    return second if second in credits and credits[second].mean() > credits[first].mean() else first


def _gain(credits: np.ndarray, plain: np.ndarray) -> tuple[float, float]:
    """Mean paired difference and its standard error."""
    difference = credits - plain
    if len(difference) < 2:
        return float(difference.mean()), math.inf
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))


def _largest_by_chance(differences: np.ndarray, seed: int) -> float:
    """The level that the largest of the standardised mean differences, float [candidates, n], passes by chance in
    16 % of cases, at least 1."""
    centred = differences - differences.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    root = vectors * np.sqrt(np.maximum(values, 0))
    draws = np.random.default_rng(seed).standard_normal((_DRAWS, len(root))) @ root.T
    return max(1.0, float(np.quantile(draws.max(axis=1), 1 - _CHANCE)))


def chosen_credits(
    credits: Mapping[CandidateName, np.ndarray],
    sizes: Mapping[int, Mapping[CandidateName, int]],
    folds: np.ndarray,
    seed: int = 0,
) -> np.ndarray:
    """The credits of the whole procedure, the choice of the candidate included, float [n].

    Each fold is answered by the candidate that `choose` takes from the other folds' nested credits: the best of many
    candidates looks better than it is, and this does not. (Those credits come from fits that saw the fold, as in
    every cross-validated choice; only the choice among a few candidates can carry that over.)

    Args:
        sizes: fold -> candidate name -> rankers used without that fold.
    """
    result = np.zeros(len(folds))
    for fold in np.unique(folds).tolist():
        held_out = folds == fold
        taken = choose({name: values[~held_out] for name, values in credits.items()}, sizes[fold], seed).name
        result[held_out] = credits[taken][held_out]
    return result


def choose_nested(fits: Fits, folds: np.ndarray, seed: int = 0) -> tuple[Choice, np.ndarray]:
    """The candidate that ships by `choose`, and the credits of the whole procedure, float [n] (`chosen_credits`).

    Args:
        folds: int [n].
        seed: of the draws, see `choose`.
    """
    credits = {name: fitted.credits for name, fitted in fits.items()}
    sizes = {name: len(fitted.recipe.used) for name, fitted in fits.items()}
    fold_sizes = {
        fold: {name: len(fitted.by_fold[fold].used) for name, fitted in fits.items()}
        for fold in np.unique(folds).tolist()
    }
    return choose(credits, sizes, seed), chosen_credits(credits, fold_sizes, folds, seed)


def estimate_interval(chosen: np.ndarray, shipped: np.ndarray, samples: int, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of the estimate; it holds both that of the procedure and that of what ships.

    What ships need not be what the folds chose, and the interval of the procedure alone holds its score too seldom.

    Args:
        chosen: float [n], from `chosen_credits`.
        shipped: float [n], the nested credits of the candidate that ships.
    """
    low, high = metrics.bootstrap_interval(chosen, samples, seed=seed)
    if chosen is not shipped:
        other_low, other_high = metrics.bootstrap_interval(shipped, samples, seed=seed)
        low, high = min(low, other_low), max(high, other_high)
    return low, high


class AddedValue(TypedDict):
    """A ranker's part in a blend: MAP@3 `without` it, MAP@3 `added` by it, and that difference's 95 % interval."""

    without: float
    added: float
    low: float
    high: float


def added_values(
    problem: Problem, recipes: Mapping[int, Recipe], credits: np.ndarray, samples: int, seed: int
) -> dict[str, AddedValue | None]:
    """The nested score of a candidate less that without a ranker, paired, for each ranker.

    The other rankers keep the proportions that were fitted with it (nothing is fitted again).

    Args:
        recipes: fold -> recipe, from `fit_nested`.
        credits: float [n], the candidate's nested credits.

    Returns:
        Ranker name -> what it adds; None for a ranker that is not used, or where nothing would be left without it.
    """
    result: dict[str, AddedValue | None] = {}
    for name in problem.names:
        result[name] = None
        if not any(recipe.weights[name] > 0 for recipe in recipes.values()):
            continue
        left = np.zeros(len(credits))
        for fold, recipe in recipes.items():
            rows = problem.folds == fold
            rest = recipe.without(name) if recipe.weights[name] > 0 else recipe
            if rest is None:
                break
            part = problem.subset(rows, "")
            left[rows] = metrics.credit_at_k(part.answer(rest), part.answers)
        else:
            low, high = metrics.bootstrap_interval(credits - left, samples, seed=seed)
            added = float((credits - left).mean())
            result[name] = {"without": float(left.mean()), "added": added, "low": low, "high": high}
    return result


def error_correlation(problem: Problem) -> list[list[float | None]]:
    """Pearson correlations between the rankers' credits, in the order of their names: who fails on the same questions.

    None where a ranker's credits do not vary.
    """
    credits = np.stack([metrics.credit_at_k(alone, problem.answers) for alone in problem.table])
    centred = credits - credits.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    result: list[list[float | None]] = []
    for i, row in enumerate(centred @ centred.T):
        result.append(
            [float(value / (norms[i] * norms[j])) if norms[i] * norms[j] > 0 else None for j, value in enumerate(row)]
        )
    return result
