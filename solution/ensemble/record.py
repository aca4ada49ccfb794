"""ensemble.json: how it is written, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from solution.config import MAX_FOLDS, CandidateName
from solution.ensemble.blend import Blend, Recipe, Stacker
from solution.ensemble.cascade import By, CascadePlan, Stage
from solution.errors import UserError
from solution.files import content_hash, read_json
from solution.probabilities import Merge
from solution.suggestions import remember_configs, suggest
from solution.workdir import Workdir

_NAME = r"^[a-z0-9][a-z0-9_\-]{0,63}$"
"""As in `config.RankerConfig`: a ranker's name is a folder's name too, so no path may hide in it."""


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
    """See `cascade.CascadePlan`; `stages` are those of the chosen point."""

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
    """Of each ranker in what ships, see `nested.added_values`."""
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


def record_hash(record: Mapping[str, Any]) -> str:
    return content_hash({name: value for name, value in record.items() if name not in ("hash", "configs")})


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON holds it."""
    stacker = recipe.stacker
    return {
        "blend": recipe.blend,
        "weights": recipe.weights,
        "temperatures": recipe.temperatures,
        "groups": [{"rankers": list(members), "merge": how} for members, how in recipe.groups],
        "stacker": stacker and {"coefficients": {name: list(each) for name, each in stacker.coefficients.items()}},
    }


def plan_record(plan: CascadePlan) -> dict[str, Any]:
    """A cascade as JSON holds it."""

    def stage(each: Stage) -> dict[str, Any]:
        return {**vars(each), "recipe": recipe_record(each.recipe)}

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
    if record.get("hash") not in (None, record_hash(record)):
        raise UserError(
            f"the ensemble's weights are corrupt: {path} is not the file that was written. Make it again: "
            f"{suggest('tune')} (or, if you have changed it yourself, take out its `hash`)"
        )
    return record
