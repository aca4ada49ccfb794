"""ensemble.json: its form, and how it is written, read and checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic refuses that of `typing` up to Python 3.11

from solution.config import MAX_FOLDS, AnswerWith, CandidateName, RankerName, TrackerName
from solution.ensemble.blend import Blend, Recipe, Stacker
from solution.ensemble.cascade import By, CascadePlan, Point, Stage
from solution.ensemble.nested import AddedValue
from solution.ensemble.rows import ScoreRow
from solution.errors import UserError
from solution.files import content_hash, read_json
from solution.oof import signal_sources
from solution.probabilities import Merge
from solution.suggestions import remember_configs, suggest
from solution.workdir import Workdir

# --- the form ------------------------------------------------------------------------------
# Types of the parsed JSON; pydantic checks a file against the same annotations.


class RankerAbout(TypedDict):
    """A ranker's `about` in its OOF files: the parts that are needed here; more may stand in the file."""

    folds: Annotated[int, Field(ge=1, le=MAX_FOLDS)]
    contexts: str
    config: str
    answer_with: NotRequired[AnswerWith]
    """Absent: `folds`."""
    family: NotRequired[Any]
    """A name of `families.FAMILIES`, or `oof.IMPORTED`."""
    signals_from: NotRequired[dict[str, str]]
    """See `oof.signal_sources`."""


class EstimateRecord(TypedDict):
    map3: Annotated[float, Field(ge=0, le=1)]
    low: float
    high: float
    kind: Literal["nested", "oof"]
    """`nested`: each fold by what was fitted and, without `tune.choose`, chosen on the other folds; `oof`: of the one
    ranker, or of equal weights that were asked for, as they are."""


class GroupRecord(TypedDict):
    rankers: Annotated[list[str], Field(min_length=2)]
    merge: Merge


class StackerRecord(TypedDict):
    coefficients: dict[str, Annotated[list[float], Field(min_length=3, max_length=3)]]
    """See `blend.Stacker`."""


class RecipeRecord(TypedDict):
    """See `blend.Recipe`."""

    blend: Blend
    weights: dict[str, Annotated[float, Field(ge=0)]]
    temperatures: dict[str, Annotated[float, Field(gt=0)]]
    groups: list[GroupRecord]
    stacker: StackerRecord | None


class StageRecord(TypedDict):
    """See `cascade.Stage`."""

    ranker: str
    recipe: RecipeRecord
    by: By
    threshold: float | None
    share: Annotated[float, Field(ge=0, le=1)]
    alive: Annotated[float, Field(ge=0, le=1)]
    seconds_per_question: Annotated[float, Field(ge=0)]
    load_seconds: Annotated[float, Field(ge=0)]


class PointRecord(TypedDict):
    """See `cascade.Point`."""

    stages: Annotated[list[StageRecord], Field(min_length=1)]
    seconds_per_question: float
    load_seconds: float
    map3: float
    low: float
    high: float
    note: str


class CascadeRecord(TypedDict):
    """See `cascade.CascadePlan`; `stages` are those of the chosen point."""

    order: Annotated[list[str], Field(min_length=2)]
    stages: Annotated[list[StageRecord], Field(min_length=1)]
    frontier: Annotated[list[PointRecord], Field(min_length=1)]
    chosen: Annotated[int, Field(ge=0)]


class NestedScore(TypedDict):
    map3: float
    low: float | None
    high: float | None
    log_loss: float


class GainRecord(TypedDict):
    """Of MAP@3 over equal weights, with its paired 95 % interval; None for equal weights themselves."""

    gain: float | None
    low: float | None
    high: float | None


class CandidateRecord(RecipeRecord):
    """A blend that competed, with its recipe."""

    name: CandidateName
    title: str
    nested: NestedScore
    versus_equal: GainRecord
    in_sample_map3: float
    rankers: int
    """The number of rankers that it uses."""


def _check_dictionary(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("Input should be a valid dictionary")
    return value


_SHOWN = PlainValidator(_check_dictionary)
"""Of what is only printed: nothing is computed from it, so its content is not checked."""


class EnsembleRecord(TypedDict):
    """The content of `weights/ensemble.json`."""

    schema: Literal[1]
    rankers: Annotated[list[RankerName], Field(min_length=1)]
    """In alphabetical order."""
    blend: Blend
    weights: dict[str, float]
    """Where a stacker ships, these weights blend only while one of its rankers has not answered."""
    temperatures: dict[str, Annotated[float, Field(gt=0)]]
    groups: list[GroupRecord]
    stacker: StackerRecord | None
    choice: CandidateName
    reason: str
    estimate: EstimateRecord
    in_sample_map3: float
    table: list[Annotated[ScoreRow, _SHOWN]]
    candidates: list[Annotated[CandidateRecord, _SHOWN]]
    added_value: dict[str, AddedValue | None]
    """Of each ranker in what ships, see `nested.added_values`."""
    error_correlation: list[list[float | None]]
    """Of the rankers' credits, rows and columns as `rankers`."""
    cascade: NotRequired[CascadeRecord | None]
    """None where one ranker answers, or where the speed of a ranker is not known."""
    search: dict[str, dict[str, float]]
    """Candidate -> MAP@3 in-sample that the sampler found, and that after the exact line searches."""
    oof_files: dict[str, str]
    """Path below `oof/` -> hash."""
    questions: str
    about: dict[str, RankerAbout]
    sources: NotRequired[dict[str, RankerAbout]]
    """Of rankers that were not tuned, and whose scores the tuned ones read."""
    tune: dict[str, Any]
    """`config.TuneSettings`."""
    retrieval: NotRequired[dict[str, Any] | None]
    """`config.RetrievalConfig` of the settings, where rankers read or score by it: a submission without any weights
    ranks the options by it."""
    configs: NotRequired[str | None]
    """The folder of the settings as it was typed; only messages use it."""
    trackers: NotRequired[list[TrackerName]]
    """Experiment trackers, to which the report goes too."""
    hash: NotRequired[str | None]
    """Of the rest without `configs`: a digit that has changed may give another valid file. Without it nothing is
    compared."""


# pydantic checks the nested records by this configuration too; `RankerAbout` has another one.
EnsembleRecord.__pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # type: ignore[attr-defined]
RankerAbout.__pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[attr-defined]


def _check_names(record: EnsembleRecord) -> EnsembleRecord:
    """Refuse weights that are no weights, and names in one part that another part does not know."""
    rankers, weights, stacker = record["rankers"], record["weights"], record["stacker"]
    if rankers != sorted(set(rankers)) or set(weights) != set(rankers):
        raise ValueError("rankers and weights do not name the same rankers")
    if min(weights.values()) < 0 or abs(sum(weights.values()) - 1) > 1e-6:
        raise ValueError(f"weights must be at least 0 and sum to 1 (they are {weights})")
    named = set(record["temperatures"]) | {name for group in record["groups"] for name in group["rankers"]}
    named |= set(stacker["coefficients"] if stacker else ())
    strange = sorted(named - set(rankers))
    if strange:
        raise ValueError(f"temperatures, groups or stacker name {strange[0]}, which is not among the rankers")
    if stacker and set(stacker["coefficients"]) != {name for name in rankers if weights[name] > 0}:
        raise ValueError("the stacker's coefficients are not those of the rankers with a weight")
    cascade = record.get("cascade")
    if cascade:
        stages = [stage for point in cascade["frontier"] for stage in point["stages"]]
        named = {name for stage in stages for name in (stage["ranker"], *stage["recipe"]["weights"])}
        strange = sorted((named | set(cascade["order"])) - set(rankers))
        if strange or cascade["chosen"] >= len(cascade["frontier"]):
            raise ValueError(f"the cascade names {strange[0] if strange else 'a point'} that is not there")
    lacking = [name for name in rankers if name not in record["about"]]
    lacking += [name for name in _read_by(record, rankers) if name not in about_all(record)]
    if lacking:
        raise ValueError(f"about says nothing of {lacking[0]}")
    return record


def about_all(record: EnsembleRecord) -> dict[str, RankerAbout]:
    """What is known of each ranker, and of those whose scores rankers read."""
    return {**record.get("sources", {}), **record["about"]}


def used_rankers(record: EnsembleRecord) -> list[str]:
    """The names of the rankers that have a weight."""
    return [name for name in record["rankers"] if record["weights"][name] > 0]


def unweighted_sources(record: EnsembleRecord) -> list[str]:
    """The names of the rankers that have no weight, and whose scores those with a weight read."""
    used = used_rankers(record)
    return [name for name in _read_by(record, used) if name not in used]


def _read_by(record: EnsembleRecord, rankers: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for reader in rankers for name in signal_sources(record["about"].get(reader, {}))))


_FORM: TypeAdapter[EnsembleRecord] = TypeAdapter(Annotated[EnsembleRecord, AfterValidator(_check_names)])


# --- writing -------------------------------------------------------------------------------


def record_hash(record: EnsembleRecord) -> str:
    """See `EnsembleRecord.hash`."""
    return content_hash({name: value for name, value in record.items() if name not in ("hash", "configs")})


def recipe_record(recipe: Recipe) -> RecipeRecord:
    """A recipe as JSON holds it."""
    stacker = recipe.stacker
    return {
        "blend": recipe.blend,
        "weights": recipe.weights,
        "temperatures": recipe.temperatures,
        "groups": [{"rankers": list(members), "merge": how} for members, how in recipe.groups],
        "stacker": None if stacker is None else _stacker_record(stacker),
    }


def _stacker_record(stacker: Stacker) -> StackerRecord:
    return {"coefficients": {name: list(factors) for name, factors in stacker.coefficients.items()}}


def plan_record(plan: CascadePlan) -> CascadeRecord:
    """A cascade as JSON holds it."""
    points = [_point_record(point) for point in plan.points]
    return {
        "order": list(plan.order),
        "stages": points[plan.chosen]["stages"],
        "frontier": points,
        "chosen": plan.chosen,
    }


def _point_record(point: Point) -> PointRecord:
    return {
        "stages": [_stage_record(stage) for stage in point.stages],
        "seconds_per_question": point.seconds_per_question,
        "load_seconds": point.load_seconds,
        "map3": point.map3,
        "low": point.low,
        "high": point.high,
        "note": point.note,
    }


def _stage_record(stage: Stage) -> StageRecord:
    return {
        "ranker": stage.ranker,
        "recipe": recipe_record(stage.recipe),
        "by": stage.by,
        "threshold": stage.threshold,
        "share": stage.share,
        "alive": stage.alive,
        "seconds_per_question": stage.seconds_per_question,
        "load_seconds": stage.load_seconds,
    }


# --- reading -------------------------------------------------------------------------------


def read_stages(point: PointRecord | CascadeRecord) -> list[Stage]:
    """The stages of a point of the cascade's frontier, or of the chosen one, in what `load_ensemble` returned."""
    return [
        Stage(
            ranker=stage["ranker"],
            recipe=read_recipe(stage["recipe"]),
            by=stage["by"],
            threshold=stage["threshold"],
            share=stage["share"],
            alive=stage["alive"],
            seconds_per_question=stage["seconds_per_question"],
            load_seconds=stage["load_seconds"],
        )
        for stage in point["stages"]
    ]


def read_recipe(record: RecipeRecord | EnsembleRecord) -> Recipe:
    """The recipe of a stage, or of every ranker on every question, in what `load_ensemble` returned."""
    stacker = record["stacker"]
    return Recipe(
        weights=record["weights"],
        blend=record["blend"],
        temperatures=record["temperatures"],
        groups=tuple((tuple(group["rankers"]), group["merge"]) for group in record["groups"]),
        stacker=Stacker({name: (a, b, c) for name, (a, b, c) in stacker["coefficients"].items()}) if stacker else None,
    )


def load_ensemble(workdir: Workdir) -> EnsembleRecord:
    """Read and check `weights/ensemble.json`.

    Raises:
        UserError: missing, not JSON, a key missing or unknown, another schema or blend, weights that
            are negative, NaN, not of the rankers named or do not sum to 1, or another content than was written.
    """
    path = workdir.ensemble
    record: EnsembleRecord = read_json(path, "the file of the ensemble's weights", f"Make it: {suggest('tune')}")
    try:
        _FORM.validate_python(record)
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
