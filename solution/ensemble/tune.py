"""Ensemble weights: fit the candidates, estimate them honestly, choose, and write `weights/ensemble.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from solution import metrics
from solution.config import MAX_FOLDS, CandidateName, TuneSettings
from solution.ensemble.blend import Blend, Merge, Recipe, Stacker
from solution.ensemble.candidates import Candidate, Fit, Problem, candidates
from solution.ensemble.cascade import By, Cost, Plan, Stage, measured_cost, plan_cascade
from solution.ensemble.honest import (
    Choice,
    added_values,
    choose,
    chosen_credits,
    error_correlation,
    estimate_interval,
    fit_all,
)
from solution.ensemble.search import Journal
from solution.ensemble.table import Row, random_row, score_row
from solution.errors import UserError
from solution.files import SCHEMA, content_hash, read_json, write_json
from solution.oof import load_oof
from solution.progress import progress_bar, say
from solution.suggestions import remember_configs, suggest
from solution.workdir import Workdir

_NAME = r"^[a-z0-9][a-z0-9_\-]{0,63}$"
"""As in `config.RankerConfig`: a ranker's name is a folder's name too, so no path may hide in it."""


def run_tune(
    workdir: Workdir,
    settings: TuneSettings,
    rankers: list[str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    seconds: Mapping[str, float] | None = None,
    limit: float | None = None,
    configs: str | None = None,
) -> dict[str, Any]:
    """Fit and choose the blend from the OOF store, and write `weights/ensemble.json`.

    Args:
        rankers: names to load, baselines among them or not; None: every one that has OOF files.
        groups: see `EnsembleConfig.groups`; members that are not there are left out.
        seconds: ranker name -> seconds a question in a submission, in the place of what training measured.
        limit: seconds a question that the submission may take, see `cascade.plan_cascade`.
        configs: the folder of the settings, kept for messages that suggest to tune again.

    Returns:
        What was written, see `Ensemble`; its `table` is for `table.print_table`. The same OOF files and settings
        give the same bytes, unless several processes shared a search.

    Raises:
        UserError: see `oof.load_oof`; there is no ranker to blend (only baselines); or `settings.choose` needs
            groups that are not there.
    """
    oof = load_oof(workdir, rankers)
    names = oof.rankers
    if not names:
        raise UserError(
            f"{', '.join(oof.baselines)}: only baselines have OOF files in {workdir.oof}, and a baseline is never "
            f"blended. Train a ranker: {suggest('train_fold', '--all-folds')}"
        )
    costs = _costs(workdir, oof.about, names, seconds or {})
    answers, exists = oof.answers, oof.exists
    present = [[name for name in members if name in names] for members in (groups or {}).values()]
    problem = Problem(
        names=names,
        table=np.stack([oof.probabilities[name] for name in names]),
        exists=exists,
        answers=answers,
        folds=oof.folds,
        groups=[members for members in present if len(members) > 1],
    )
    samples, seed = settings.bootstrap_samples, settings.seed
    searches: dict[str, dict[str, float]] = {}
    rivals: list[Candidate] = []
    if len(names) == 1:
        recipes = {"single": Recipe({names[0]: 1.0})}
        tables = {"single": oof.probabilities[names[0]]}
        parts: dict[str, dict[int, Recipe]] = {}
        choice = Choice("single", f"single: {names[0]} is the only ranker")
    else:
        key = content_hash(oof.files, names, seed)
        journal = Journal(workdir.cache / "tune" / f"{key}.journal") if settings.trials > 0 else None
        rivals = candidates(problem, settings, journal, key, searches)
        if settings.choose not in ("auto", *(rival.name for rival in rivals)):
            raise UserError(
                f"tune.choose={settings.choose} merges groups, and ensemble.groups names no group of two rankers "
                "with OOF files"
            )
        with progress_bar(len(rivals), "blends") as bar:
            recipes, tables, parts = fit_all(problem, rivals, bar.advance)
        if journal is not None:
            journal.close()
    credits = {name: metrics.credit_at_k(table, answers) for name, table in tables.items()}
    if len(names) > 1:
        if settings.choose == "auto":
            sizes = {name: len(recipe.used) for name, recipe in recipes.items()}
            choice = choose(credits, sizes, seed)
            fold_sizes = {
                fold: {name: len(parts[name][fold].used) for name in parts} for fold in np.unique(oof.folds).tolist()
            }
            final = chosen_credits(credits, fold_sizes, oof.folds, seed)
        else:
            choice = Choice(settings.choose, f"{settings.choose}: asked for by tune.choose={settings.choose}")
            final = credits[choice.name]
    else:
        final = credits["single"]
    recipe = recipes[choice.name]
    equal = credits.get("equal", credits[choice.name])

    def row(name: str, kind: Any, probabilities: np.ndarray, weight: float | None = None, shipped: bool = False) -> Row:
        return score_row(name, kind, probabilities, answers, equal, samples, seed, weight, shipped)

    in_sample = {name: metrics.map_at_k(problem.answer(each), answers) for name, each in recipes.items()}
    rows = [row(name, "ranker", oof.probabilities[name], recipe.weights[name], len(names) == 1) for name in names]
    rows += [row(name, "baseline", oof.probabilities[name]) for name in oof.baselines]
    rows.append(random_row(exists))
    told = []
    for rival in rivals:
        kind = {"equal": "equal", "tuned": "tuned_nested"}.get(rival.name, "candidate")
        made = row(rival.title, kind, tables[rival.name], None, rival.name == choice.name)
        if rival.name == "tuned":
            best = problem.answer(recipes["tuned"])
            rows.append(row(f"{rival.title}, in-sample", "tuned_in_sample", best))
        rows.append(made)
        fitted = recipes[rival.name]
        told.append(
            {
                "name": rival.name,
                "title": rival.title,
                "nested": {"map3": made.map3, "low": made.low, "high": made.high, "log_loss": made.log_loss},
                "versus_equal": {"gain": made.difference, "low": made.difference_low, "high": made.difference_high},
                "in_sample_map3": in_sample[rival.name],
                "rankers": len(fitted.used),
                **_written(fitted),
            }
        )
    low, high = estimate_interval(final, credits[choice.name], samples, seed)
    plan = None
    if len(recipe.used) > 1 and all(costs[name].seconds_per_question is not None for name in recipe.used):
        fit = _prefix_fit(problem, settings, choice.name)
        plan = plan_cascade(problem, recipe, parts[choice.name], tables[choice.name], fit, costs, samples, seed, limit)
    elif limit is not None and len(recipe.used) == 1:
        say(f"note: the ensemble uses {recipe.used[0]} alone; --seconds-per-question has nothing to choose from")
    elif limit is not None:
        unknown = next(name for name in recipe.used if costs[name].seconds_per_question is None)
        raise UserError(
            f"--seconds-per-question needs each ranker's speed, and that of {unknown} was not measured: give it with "
            f"--seconds {unknown}=SECONDS"
        )
    unfitted = len(names) == 1 or settings.choose == "equal"
    record = {
        "schema": SCHEMA,
        "rankers": names,
        **_written(recipe),
        "choice": choice.name,
        "reason": choice.reason,
        "estimate": {"map3": float(final.mean()), "low": low, "high": high, "kind": "oof" if unfitted else "nested"},
        "in_sample_map3": in_sample[choice.name],
        "table": [each.record() for each in rows],
        "candidates": told,
        "added_value": added_values(problem, parts[choice.name], credits[choice.name], samples, seed)
        if rivals
        else dict.fromkeys(names),
        "error_correlation": error_correlation(problem),
        "cascade": plan and _written_plan(plan),
        "search": searches,
        "oof_files": oof.files,
        "questions": oof.about[names[0]]["questions"],
        "about": oof.about,
        "tune": settings.model_dump(mode="json"),
    }
    if configs is not None:
        record["configs"] = configs
    record["hash"] = _record_hash(record)
    write_json(workdir.ensemble, record)
    return record


def _costs(
    workdir: Workdir, about: Mapping[str, Mapping[str, Any]], names: Sequence[str], seconds: Mapping[str, float]
) -> dict[str, Cost]:
    strange = sorted(set(seconds) - set(names))
    if strange:
        raise UserError(f"--seconds {strange[0]}: no such ranker among those tuned ({', '.join(names)})")
    costs = {name: measured_cost(workdir, name, about[name]) for name in names}
    return {
        name: replace(cost, seconds_per_question=seconds[name]) if name in seconds else cost
        for name, cost in costs.items()
    }


def _prefix_fit(problem: Problem, settings: TuneSettings, name: str) -> Fit:
    """How the recipe of some of the rankers is found: as the candidate that ships, without a sampler."""
    name = {"tuned": "tuned_exact", "tuned_cma": "tuned_exact"}.get(name, name)
    alone = settings.model_copy(update={"candidates": [name], "choose": "auto"})
    found = next(candidate for candidate in candidates(problem, alone) if candidate.name == name)

    def fit(part: Problem) -> Recipe:
        return Recipe({part.names[0]: 1.0}) if len(part.names) == 1 else found.fit(part)

    return fit


# --- the file ------------------------------------------------------------------------------


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _About(BaseModel):
    """What is needed here of what a ranker's OOF files say of themselves."""

    model_config = ConfigDict(extra="allow", strict=True)

    folds: int = Field(ge=1, le=MAX_FOLDS)
    contexts: str
    config: str


class Estimate(_Part):
    map3: float = Field(ge=0, le=1)
    low: float
    high: float
    kind: Literal["nested", "oof"]
    """`nested`: each fold by what was fitted and, without `tune.choose`, chosen on the other folds; `oof`: of the one
    ranker, or of equal weights that were asked for, as they are."""


class _Group(_Part):
    rankers: list[str] = Field(min_length=2)
    merge: Merge


class _Stacker(_Part):
    coefficients: dict[str, Annotated[list[float], Field(min_length=3, max_length=3)]]
    """See `blend.Stacker`."""


class _RecipeRecord(_Part):
    blend: Blend
    weights: dict[str, Annotated[float, Field(ge=0)]]
    temperatures: dict[str, Annotated[float, Field(gt=0)]]
    groups: list[_Group]
    stacker: _Stacker | None


class _StageRecord(_Part):
    """See `cascade.Stage`."""

    ranker: str
    recipe: _RecipeRecord
    by: By
    threshold: float | None
    share: float = Field(ge=0, le=1)
    alive: float = Field(ge=0, le=1)
    seconds_per_question: float = Field(ge=0)
    load_seconds: float = Field(ge=0)


class _PointRecord(_Part):
    """See `cascade.Point`."""

    stages: list[_StageRecord] = Field(min_length=1)
    seconds_per_question: float
    load_seconds: float
    map3: float
    low: float
    high: float
    note: str


class _CascadeRecord(_Part):
    """See `cascade.Plan`; `stages` are those of the chosen point."""

    order: list[str] = Field(min_length=2)
    stages: list[_StageRecord] = Field(min_length=1)
    frontier: list[_PointRecord] = Field(min_length=1)
    chosen: int = Field(ge=0)


class Ensemble(_Part):
    """What `weights/ensemble.json` holds."""

    schema_: Literal[1] = Field(alias="schema")
    rankers: list[Annotated[str, Field(pattern=_NAME)]] = Field(min_length=1)
    """In alphabetical order."""
    blend: Blend
    weights: dict[str, float]
    """Of a stacker: what answers while a ranker is still missing."""
    temperatures: dict[str, Annotated[float, Field(gt=0)]]
    groups: list[_Group]
    stacker: _Stacker | None
    choice: CandidateName
    reason: str
    estimate: Estimate
    in_sample_map3: float
    table: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    """Each blend that competed: its recipe, nested score, gain over equal weights, in-sample score."""
    added_value: dict[str, dict[str, float] | None]
    """Of each ranker in what ships, see `honest.added_values`."""
    error_correlation: list[list[float | None]]
    """Of the rankers' credits, rows and columns as `rankers`."""
    cascade: _CascadeRecord | None = None
    """None where one ranker answers, or where the speed of a ranker is not known."""
    search: dict[str, dict[str, float]]
    """Candidate -> MAP@3 in-sample that the sampler found, and that after the exact line searches."""
    oof_files: dict[str, str]
    """Path below `oof/` -> hash."""
    questions: str
    about: dict[str, _About]
    tune: dict[str, Any]
    configs: str | None = None
    """The folder of the settings as it was typed; only messages use it."""
    hash: str | None = None
    """Of the rest without `configs`: a digit that has changed may give another valid file. Without it nothing is
    compared."""

    @model_validator(mode="after")
    def _weights(self) -> Ensemble:
        if self.rankers != sorted(set(self.rankers)) or set(self.weights) != set(self.rankers):
            raise ValueError("rankers and weights do not name the same rankers")
        if min(self.weights.values()) < 0 or abs(sum(self.weights.values()) - 1) > 1e-6:
            raise ValueError(f"weights must be at least 0 and sum to 1 (they are {self.weights})")
        named = set(self.temperatures) | {name for group in self.groups for name in group.rankers}
        named |= set(self.stacker.coefficients if self.stacker else ())
        strange = sorted(named - set(self.rankers))
        if strange:
            raise ValueError(f"temperatures, groups or stacker name {strange[0]}, which is not among the rankers")
        if self.stacker and set(self.stacker.coefficients) != {name for name in self.rankers if self.weights[name] > 0}:
            raise ValueError("the stacker's coefficients are not those of the rankers with a weight")
        if self.cascade:
            stages = [stage for point in self.cascade.frontier for stage in point.stages]
            named = {name for stage in stages for name in (stage.ranker, *stage.recipe.weights)}
            strange = sorted((named | set(self.cascade.order)) - set(self.rankers))
            if strange or self.cascade.chosen >= len(self.cascade.frontier):
                raise ValueError(f"the cascade names {strange[0] if strange else 'a point'} that is not there")
        lacking = [name for name in self.rankers if name not in self.about]
        if lacking:
            raise ValueError(f"about says nothing of {lacking[0]}")
        return self


def _record_hash(record: Mapping[str, Any]) -> str:
    return content_hash({name: value for name, value in record.items() if name not in ("hash", "configs")})


def _written(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON holds it."""
    stacker = recipe.stacker
    return {
        "blend": recipe.blend,
        "weights": recipe.weights,
        "temperatures": recipe.temperatures,
        "groups": [{"rankers": list(members), "merge": how} for members, how in recipe.groups],
        "stacker": stacker and {"coefficients": {name: list(each) for name, each in stacker.coefficients.items()}},
    }


def _written_plan(plan: Plan) -> dict[str, Any]:
    """A cascade as JSON holds it."""

    def stage(each: Stage) -> dict[str, Any]:
        return {**vars(each), "recipe": _written(each.recipe)}

    points = [{**vars(point), "stages": [stage(each) for each in point.stages]} for point in plan.points]
    return {
        "order": list(plan.order),
        "stages": points[plan.chosen]["stages"],
        "frontier": points,
        "chosen": plan.chosen,
    }


def read_stages(point: Mapping[str, Any]) -> list[Stage]:
    """The stages of a point of the cascade's frontier in what `load_ensemble` returned."""
    return [Stage(**{**stage, "recipe": read_recipe(stage["recipe"])}) for stage in point["stages"]]


def read_recipe(record: Mapping[str, Any]) -> Recipe:
    """The recipe in what `load_ensemble` returned."""
    stacker = record["stacker"]
    return Recipe(
        weights=record["weights"],
        blend=record["blend"],
        temperatures=record["temperatures"],
        groups=tuple((tuple(group["rankers"]), group["merge"]) for group in record["groups"]),
        stacker=stacker and Stacker({name: (a, b, c) for name, (a, b, c) in stacker["coefficients"].items()}),
    )


def load_ensemble(workdir: Workdir) -> dict[str, Any]:
    """Read and check `weights/ensemble.json`.

    Raises:
        UserError: missing, not JSON, a key missing or unknown, another schema or blend, weights that
            are negative, NaN, not of the rankers named or do not sum to 1, or another content than was written.
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
    remember_configs(record.get("configs"))
    if record.get("hash") not in (None, _record_hash(record)):
        raise UserError(
            f"the ensemble's weights are corrupt: {path} is not the file that was written. Make it again: "
            f"{suggest('tune')} (or, if you have changed it yourself, take out its `hash`)"
        )
    return record
