"""Ensemble weights: the search, the honest estimate, the choice, and `weights/ensemble.json`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from solution import metrics
from solution.config import TuneSettings
from solution.ensemble.blend import Blend, blend
from solution.ensemble.table import Row, random_row, score_row
from solution.errors import UserError
from solution.files import SCHEMA, read_json, write_json
from solution.oof import load_oof
from solution.progress import progress_bar
from solution.suggestions import suggest
from solution.workdir import Workdir

_TIE_BREAKER = 1e-7
"""Of the log loss (at most 16): below the smallest step of MAP@3, 1 / (6 n), for every n up to 100,000."""
_ONE_ERROR = 0.68
"""A two-sided level whose lower end is the one-sided 84 % bound, about one standard error below the mean."""
_LOWEST = 1e-6
_NAME = r"^[a-z0-9][a-z0-9_\-]{0,63}$"
"""As in `config.RankerConfig`: a ranker's name is a folder's name too, so no path may hide in it."""

Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


# --- the search ----------------------------------------------------------------------------


def search_weights(table: np.ndarray, exists: np.ndarray, answers: np.ndarray, trials: int, seed: int) -> np.ndarray:
    """The weights with the highest MAP@3 found, ties broken by the lower log loss.

    Optuna's TPE sampler (Bergstra et al. 2011; multivariate as in Falkner et al. 2018) tries `trials`
    points after the fixed ones: equal weights, the optimum of the log loss, each ranker alone. So the result
    is never worse, on these questions, than any of those, and `trials=0` is the best of them.

    The simplex is reached by w = -ln u / sum(-ln u), u in (0, 1]: uniform u give uniform weights (Dirichlet(1)),
    and unlike stick breaking it treats every ranker the same; u = 1 is a weight of exactly 0.

    Args:
        table: float [rankers, n, width], rows sum to 1; give the rankers in the order of their names.
        exists: bool [n, width].
        answers: int [n].

    Returns:
        float64 [rankers], not negative, sum 1. The same for the same input.
    """
    count = len(table)
    if count == 1:
        return np.ones(1)
    import optuna

    names = [f"{i:04d}" for i in range(count)]
    probabilities = dict(zip(names, table, strict=True))

    def score(weights: np.ndarray) -> float:
        mean = blend(probabilities, dict(zip(names, weights.tolist(), strict=True)), exists)
        return metrics.map_at_k(mean, answers) - _TIE_BREAKER * metrics.log_loss(mean, answers)

    starts = [np.full(count, 1 / count), log_loss_weights(table, answers), *np.eye(count)]
    # A scale of -ln u at which `starts` lie where Dirichlet(1) draws do, and inside the bounds.
    scale = min(count, -math.log(_LOWEST))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `multivariate` is marked experimental
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=len(starts) + 10)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for start in starts:
        study.enqueue_trial(dict(zip(names, np.exp(-scale * start).tolist(), strict=True)))
    best, best_value = starts[0], -math.inf
    for _ in range(len(starts) + trials):
        trial = study.ask()
        lengths = np.abs(np.log([trial.suggest_float(name, _LOWEST, 1.0) for name in names]))
        total = lengths.sum()
        weights = lengths / total if total > 0 else starts[0]
        value = score(weights)
        study.tell(trial, value)
        if value > best_value:
            best, best_value = weights, value
    return best


def log_loss_weights(table: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """The weights on the simplex whose weighted mean has the least log loss: a convex problem, by SLSQP (Kraft 1988).

    Args, return: see `search_weights`.
    """
    from scipy.optimize import minimize

    count = len(table)
    right = table[:, np.arange(len(answers)), answers].astype(np.float64) + 1e-7  # keeps the loss finite and smooth

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mean = weights @ right
        return float(-np.log(mean).mean()), -(right / mean).mean(axis=1)

    found = minimize(
        loss,
        np.full(count, 1 / count),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(count)},
        options={"maxiter": 200, "ftol": 1e-9},
    )
    weights = np.clip(found.x, 0, 1)
    if not np.isfinite(weights).all() or weights.sum() <= 0:
        return np.full(count, 1 / count)
    return weights / weights.sum()


def best_single(table: np.ndarray, exists: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Weight 1 for the ranker with the highest MAP@3 alone, ties broken by the lower log loss.

    Args, return: see `search_weights`.
    """
    scores = [(metrics.map_at_k(alone, answers), -metrics.log_loss(alone, answers)) for alone in table]
    return np.eye(len(table))[scores.index(max(scores))]


def nested_blend(
    table: np.ndarray,
    exists: np.ndarray,
    answers: np.ndarray,
    folds: np.ndarray,
    fit: Fit,
    advance: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Each fold's questions blended with weights that were fitted on the other folds.

    Scores of the result are honest about the fitting of weights (not about the rankers' own choices,
    such as `keep: best`).

    Args:
        table, exists, answers: see `search_weights`.
        folds: int [n].
        fit: (table, exists, answers) of the other folds -> weights [rankers].
        advance: called after each fold.

    Returns:
        float32 [n, width].
    """
    names = [f"{i:04d}" for i in range(len(table))]
    result = np.zeros(exists.shape, dtype=np.float32)
    for fold in np.unique(folds):
        held_out = folds == fold
        rest = ~held_out
        weights = fit(table[:, rest], exists[rest], answers[rest])
        result[held_out] = blend(
            dict(zip(names, table[:, held_out], strict=True)),
            dict(zip(names, weights.tolist(), strict=True)),
            exists[held_out],
        )
        advance()
    return result


# --- the choice ----------------------------------------------------------------------------

Choice = Literal["tuned", "equal", "single"]


def choose(
    tuned: np.ndarray, equal: np.ndarray, single: np.ndarray, best: str, settings: TuneSettings
) -> tuple[Choice, str]:
    """Which candidate ships, and why in one line.

    Equal weights, unless the tuned ones (by the nested estimate), or else the best single ranker, are better
    by more than about one standard error of the paired difference. The best of several equally good rankers looks
    better than it is, so `single` too must be picked for each fold on the other folds.

    Args:
        tuned, equal, single: float [n], credits of the questions; tuned and single from `nested_blend`.
        best: the ranker that `single` would ship.
    """

    def bound(credits: np.ndarray) -> tuple[float, float]:
        difference = credits - equal
        low, _ = metrics.bootstrap_interval(difference, settings.bootstrap_samples, _ONE_ERROR, settings.seed)
        return float(difference.mean()), low

    if settings.choose != "auto":
        what = f" ({best})" if settings.choose == "single" else ""
        return settings.choose, f"{settings.choose}{what}: asked for by tune.choose={settings.choose}"
    gain, low = bound(tuned)
    tuned_told = f"tuned weights are {gain:+.4f} to equal ones (nested; one-sided 84 % bound {low:+.4f})"
    if gain > 0 and low > 0:
        return "tuned", f"tuned: {tuned_told}, more than one standard error"
    gain, low = bound(single)
    single_told = f"the best single ranker, {best}, {gain:+.4f} (nested; bound {low:+.4f})"
    if gain > 0 and low > 0:
        return "single", f"single: {tuned_told}; {single_told}, more than one standard error"
    return "equal", f"equal: {tuned_told}, {single_told}: neither better by more than one standard error"


# --- the command ---------------------------------------------------------------------------


def run_tune(workdir: Workdir, settings: TuneSettings, rankers: list[str] | None = None) -> dict[str, Any]:
    """Fit and choose the weights from the OOF store, and write `weights/ensemble.json`.

    Args:
        rankers: names to load, baselines among them or not; None: every one that has OOF files.

    Returns:
        What was written, see `Ensemble`; its `table` is for `table.print_table`. The same OOF files and settings
        give the same bytes.

    Raises:
        UserError: see `oof.load_oof`; or there is no ranker to blend (only baselines).
    """
    oof = load_oof(workdir, rankers)
    names = oof.rankers
    if not names:
        raise UserError(
            f"{', '.join(oof.baselines)}: only baselines have OOF files in {workdir.oof}, and a baseline is never "
            f"blended. Train a ranker: {suggest('train_fold', '--all-folds')}"
        )
    answers, exists = oof.answers, oof.exists
    table = np.stack([oof.probabilities[name] for name in names])
    samples, seed = settings.bootstrap_samples, settings.seed

    def mixed(weights: dict[str, float]) -> np.ndarray:
        return blend(oof.probabilities, weights, exists)

    def fit(part: np.ndarray, there: np.ndarray, right: np.ndarray) -> np.ndarray:
        return search_weights(part, there, right, settings.trials, seed)

    single = best_single(table, exists, answers)
    best = names[int(single.argmax())]
    candidates = {"single": dict(zip(names, single.tolist(), strict=True))}
    equal_table = mixed(dict.fromkeys(names, 1 / len(names)))
    equal = metrics.credit_at_k(equal_table, answers)
    choice: Choice = "single"
    reason = f"single: {best} is the only ranker"
    if len(names) > 1:
        candidates["equal"] = dict.fromkeys(names, 1 / len(names))
        with progress_bar(len(np.unique(oof.folds)) + 1, "weights") as bar:
            nested = nested_blend(table, exists, answers, oof.folds, fit, bar.advance)
            picked = nested_blend(table, exists, answers, oof.folds, best_single)
            candidates["tuned"] = dict(zip(names, fit(table, exists, answers).tolist(), strict=True))
            bar.advance()
        tuned_credits, picked_credits = metrics.credit_at_k(nested, answers), metrics.credit_at_k(picked, answers)
        choice, reason = choose(tuned_credits, equal, picked_credits, best, settings)
    weights = candidates[choice]

    def row(name: str, kind: Any, probabilities: np.ndarray, weight: float | None, shipped: bool) -> Row:
        return score_row(name, kind, probabilities, answers, equal, samples, seed, weight, shipped)

    rows = [
        row(name, "ranker", oof.probabilities[name], weights[name], choice == "single" and name == best)
        for name in names
    ]
    rows += [row(name, "baseline", oof.probabilities[name], None, False) for name in oof.baselines]
    rows.append(random_row(exists))
    if len(names) > 1:
        rows += [
            row("equal weights", "equal", equal_table, None, choice == "equal"),
            row("tuned (in-sample)", "tuned_in_sample", mixed(candidates["tuned"]), None, False),
            row("tuned (nested, honest)", "tuned_nested", nested, None, choice == "tuned"),
        ]
    shipped = next(row for row in rows if row.shipped)
    record = {
        "schema": SCHEMA,
        "rankers": names,
        "blend": "probability",
        "weights": weights,
        "tuned_weights": candidates.get("tuned", weights),
        "choice": choice,
        "reason": reason,
        "estimate": {
            "map3": shipped.map3,
            "low": shipped.low,
            "high": shipped.high,
            "kind": "nested" if choice == "tuned" else "oof",
        },
        "in_sample_map3": metrics.map_at_k(mixed(weights), answers),
        "table": [row.record() for row in rows],
        "oof_files": oof.files,
        "questions": oof.about[names[0]]["questions"],
        "about": oof.about,
        "tune": settings.model_dump(mode="json"),
    }
    write_json(workdir.ensemble, record)
    return record


# --- the file ------------------------------------------------------------------------------


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Estimate(_Part):
    map3: float = Field(ge=0, le=1)
    low: float
    high: float
    kind: Literal["nested", "oof"]
    """`nested`: of weights fitted on the other folds; `oof`: of the ranker or the equal weights as they are."""


class Ensemble(_Part):
    """What `weights/ensemble.json` holds."""

    schema_: Literal[1] = Field(alias="schema")
    rankers: list[Annotated[str, Field(pattern=_NAME)]] = Field(min_length=1)
    """In alphabetical order."""
    blend: Blend
    weights: dict[str, float]
    tuned_weights: dict[str, float]
    choice: Choice
    reason: str
    estimate: Estimate
    in_sample_map3: float
    table: list[dict[str, Any]]
    oof_files: dict[str, str]
    """Path below `oof/` -> hash."""
    questions: str
    about: dict[str, dict[str, Any]]
    tune: dict[str, Any]

    @model_validator(mode="after")
    def _weights(self) -> Ensemble:
        if self.rankers != sorted(set(self.rankers)) or set(self.weights) != set(self.rankers):
            raise ValueError("rankers and weights do not name the same rankers")
        if min(self.weights.values()) < 0 or abs(sum(self.weights.values()) - 1) > 1e-6:
            raise ValueError(f"weights must be at least 0 and sum to 1 (they are {self.weights})")
        lacking = [name for name in self.rankers if name not in self.about]
        if lacking:
            raise ValueError(f"about says nothing of {lacking[0]}")
        return self


def load_ensemble(workdir: Workdir) -> dict[str, Any]:
    """Read and check `weights/ensemble.json`.

    Raises:
        UserError: missing, not JSON, a key missing or unknown, another schema or blend, weights that
            are negative, NaN, not of the rankers named or do not sum to 1.
    """
    path = workdir.ensemble
    record = read_json(path, "the file of the ensemble's weights", f"Make it: {suggest('tune')}")
    try:
        Ensemble.model_validate(record)
    except ValidationError as error:
        item = error.errors()[0]
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        raise UserError(
            f"the ensemble's weights are corrupt: {path} ({where + ': ' if where else ''}{message}). "
            f"Make it again: {suggest('tune')}"
        ) from None
    return record
