"""Settings of the ensemble, and all settings of a command."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from solution.config.base import Settings, distinct_names
from solution.config.ranker import DEFAULT, RankerConfig, RankerName
from solution.config.retrieval import RetrievalConfig

MAX_FOLDS = 100
CandidateName = Literal[
    "equal",
    "fewer",
    "single",
    "mean",
    "max",
    "max_mean",
    "equal_log",
    "fewer_log",
    "equal_rank",
    "calibrated",
    "log_loss",
    "greedy",
    "tuned_exact",
    "tuned",
    "tuned_cma",
    "tuned_log",
    "tuned_rank",
    "stacker",
]

TrackerName = Literal["tensorboard", "wandb", "mlflow"]


class TuneSettings(Settings):
    trials: int = Field(300, ge=0)
    """Points that a sampler tries after the fixed ones (equal weights, the log loss's optimum, each ranker alone)."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    bootstrap_samples: int = Field(2000, ge=100)
    """Of the intervals."""
    candidates: list[CandidateName] = list(get_args(CandidateName))
    """The blends that compete, the plainest first: equal weights of all or of `fewer` rankers, the best `single` one;
    groups merged by `mean`, `max` or `max_mean` (only with `ensemble.groups`); equal weights of log-probabilities
    (of all or `fewer_log`), ranks, or `calibrated` log-probabilities (one temperature a ranker); weights by
    `log_loss`, `greedy` selection, exact line searches (`tuned_exact`; `tuned_log` and `tuned_rank` over
    log-probabilities and ranks), and Optuna's TPE (`tuned`) or CMA-ES (`tuned_cma`) with an exact finish;
    a `stacker`."""
    choose: Literal["auto", CandidateName] = "auto"
    """`auto` keeps equal weights, of all rankers or of fewer (the fewer where they score as well), unless another
    candidate is better by more than the noise, honestly estimated."""


class EnsembleConfig(Settings):
    _HASHED_WHERE_SET: ClassVar[frozenset[str]] = frozenset({"trackers"})

    rankers: list[RankerName] = Field(min_length=1)
    """Names of files in the same folder, without `.yaml`."""
    folds: int = Field(5, ge=2, le=MAX_FOLDS)
    """How many; each question is left out of the training of one."""
    group_column: str | None = None
    """A column of the question file whose rows with the same value stay in one fold (a module, an article); null:
    columns of contexts and source passages (`context`, `passage`, `article`, ...); none: no column."""
    near_duplicate: float = Field(0.9, gt=0, le=1)
    """Questions stay in one fold whose prompts have at least this TF-IDF cosine, and either their options have or their
    right options are the same. Questions that differ in a number or a negation may be parted."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    groups: dict[str, list[RankerName]] = {}
    """Rankers that are one ranker over several contexts (or seeds), as `name: [ranker, ranker]`: blends that merge
    each group by mean, max or max + mean before the weighting join the candidates."""
    trackers: list[TrackerName] = []
    """Experiment trackers that follow training, tuning and the report: steps, settings, OOF scores and the page, below
    WORKDIR/logs/tracking (needs their packages). They change no result."""
    tune: TuneSettings = TuneSettings()

    @model_validator(mode="after")
    def _groups(self) -> EnsembleConfig:
        seen: set[str] = set()
        for group, members in self.groups.items():
            if len(members) < 2:
                raise ValueError(f"the group {group} needs at least two rankers")
            twice = sorted(name for name in set(members) if members.count(name) > 1 or name in seen)
            if twice:
                raise ValueError(f"the ranker {twice[0]} stands in groups more than once")
            seen.update(members)
        return self

    @field_validator("rankers")
    @classmethod
    def _distinct(cls, names: list[str]) -> list[str]:
        return distinct_names(names, "ranker")

    @field_validator("trackers")
    @classmethod
    def _distinct_trackers(cls, names: list[TrackerName]) -> list[TrackerName]:
        if names:
            distinct_names(list(names), "tracker")
        return names


class Run(Settings):
    """All settings of one command: the rankers, the retrievals and the ensemble.

    `retrieval`: the default one; `retrievals`: the others, by name.
    """

    rankers: list[RankerConfig]
    retrieval: RetrievalConfig
    ensemble: EnsembleConfig
    retrievals: dict[RankerName, RetrievalConfig] = {}

    @property
    def every_retrieval(self) -> dict[str, RetrievalConfig]:
        """All retrievals by name, the default one first."""
        return {DEFAULT: self.retrieval, **self.retrievals}

    def reads(self, config: RankerConfig) -> dict[str, RetrievalConfig]:
        """The retrievals whose contexts a ranker reads, by name, in its order; empty: it reads none."""
        every = self.every_retrieval
        return {name: every[name] for name in config.retrieval if needs_contexts(config, every[name])}

    def with_default(self, name: str) -> Run:
        """The same settings with the retrieval of this name in the place of the default one."""
        return self.model_copy(update={"retrieval": self.every_retrieval[name]})


def needs_contexts(config: RankerConfig, retrieval: RetrievalConfig) -> bool:
    """True where the ranker reads anything that retrieval makes."""
    reads = config.traits.reads
    return retrieval.source != "none" and (
        reads in ("scores", "signals") or config.retrieval_prior or (reads == "passages" and config.passages > 0)
    )
