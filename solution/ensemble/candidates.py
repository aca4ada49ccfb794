"""The blends that compete: each knows how to be fitted on some questions, and nothing of how it will be judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from solution.config import CandidateName, TuneSettings
from solution.ensemble.blend import Blend, Recipe, apply_recipe, sharpen
from solution.ensemble.evaluator import Evaluator
from solution.ensemble.line_search import exact_weights
from solution.ensemble.sampler import Sampler, sample_weights
from solution.ensemble.search import (
    best_of,
    fewer_rankers,
    fit_temperature,
    greedy_weights,
    log_loss_weights,
    starting_points,
)
from solution.ensemble.stacker import fit_stacker
from solution.ensemble.trial_journal import TrialJournal
from solution.files import content_hash
from solution.oof import Oof
from solution.probabilities import Merge


@dataclass
class Problem:
    """The questions and answers that a candidate is fitted on.

    Attributes:
        names: of the rankers, in alphabetical order.
        table: float32 [rankers, n, width], rows sum to 1 over the options that exist.
        exists: bool [n, width].
        answers, folds: int [n].
        groups: lists of rankers that are one ranker over several contexts.
        label: says which questions these are, for the journal.
    """

    names: Sequence[str]
    table: np.ndarray
    exists: np.ndarray
    answers: np.ndarray
    folds: np.ndarray
    groups: Sequence[Sequence[str]] = ()
    label: str = "all"

    def subset(self, rows: np.ndarray, label: str) -> Problem:
        """The questions where `rows`, bool [n], is true."""
        return replace(
            self,
            table=self.table[:, rows],
            exists=self.exists[rows],
            answers=self.answers[rows],
            folds=self.folds[rows],
            label=label,
        )

    def answer(self, recipe: Recipe) -> np.ndarray:
        """The recipe's blend of these questions, float32 [n, width]."""
        return apply_recipe(recipe, dict(zip(self.names, self.table, strict=True)), self.exists)

    def evaluator(self, kind: Blend = "probability", temperatures: Mapping[str, float] | None = None) -> Evaluator:
        """The evaluator of weight vectors on these questions, the rankers' temperatures applied."""
        table = self.table
        if temperatures:
            pairs = zip(self.names, table, strict=True)
            table = np.stack([sharpen(alone, self.exists, temperatures[name]) for name, alone in pairs])
        return Evaluator(table, self.exists, self.answers, kind)

    def weights(self, values: np.ndarray) -> dict[str, float]:
        """A weight vector, float [rankers], by the rankers' names."""
        return dict(zip(self.names, values.tolist(), strict=True))

    def equal(self) -> dict[str, float]:
        """The same weight for every ranker."""
        return self.weights(np.full(len(self.names), 1 / len(self.names)))

    def temperatures(self) -> dict[str, float]:
        """Ranker name -> the temperature with the least log loss on these questions."""
        pairs = zip(self.names, self.table, strict=True)
        return {name: fit_temperature(alone, self.exists, self.answers) for name, alone in pairs}


def oof_problem(oof: Oof, groups: Iterable[Sequence[str]] = ()) -> Problem:
    """The OOF store's questions, answered by its rankers (the baselines are never blended).

    Args:
        groups: lists of rankers that are one ranker over several contexts. Members without OOF files are left out,
            and then groups of fewer than two.
    """
    names = oof.rankers
    present = [[name for name in members if name in names] for members in groups]
    return Problem(
        names=names,
        table=np.stack([oof.probabilities[name] for name in names]),
        exists=oof.exists,
        answers=oof.answers,
        folds=oof.folds,
        groups=[members for members in present if len(members) > 1],
    )


@dataclass
class Searches:
    """The searches by samplers of one tuning run.

    Attributes:
        key: see `search_key`; the names of the journal's studies begin with it.
        journal: where finished trials are kept and found again; None: nowhere.
        scores: candidate -> MAP@3 on all questions, in-sample, of what its `sampler` found and of what the `exact`
            search after it found.
    """

    key: str = ""
    journal: TrialJournal | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    def close(self) -> None:
        """Give the journal back, so that another process may take this one's place in it."""
        if self.journal is not None:
            self.journal.close()


def search_key(oof: Oof, seed: int) -> str:
    """A hash of all that decides which points a sampler tries, the number of trials left out."""
    return content_hash(oof.files, oof.rankers, seed)


Fit = Callable[[Problem], Recipe]


@dataclass(frozen=True)
class Candidate:
    """One way to make a blend.

    Attributes:
        name: as in `tune.choose`.
        title: as the table shows it.
        fit: on these questions, and on nothing else.
    """

    name: CandidateName
    title: str
    fit: Fit


def candidates(problem: Problem, settings: TuneSettings, searches: Searches | None = None) -> list[Candidate]:
    """Every candidate that the settings and the rankers allow, the plainest first; `equal` is always among them.

    Args:
        problem: all questions; what is fitted on parts of it is not told to `searches.scores`.
        searches: of the sampled candidates; None: they are kept nowhere.
    """
    names = {"equal", *settings.candidates}
    if settings.choose != "auto":
        names.add(settings.choose)
    if not problem.groups:
        names -= {"mean", "max", "max_mean"}
    everyone = _every_candidate(_Sampling(settings.trials, settings.seed, searches or Searches(), problem.label))
    assert [candidate.name for candidate in everyone] == list(get_args(CandidateName))
    return [candidate for candidate in everyone if candidate.name in names]


@dataclass(frozen=True)
class _Sampling:
    """Settings of the candidates that are fitted by a sampler; `label` is that of the problem of all questions."""

    trials: int
    seed: int
    searches: Searches
    label: str


def _every_candidate(sampling: _Sampling) -> list[Candidate]:
    """In the order of `config.CandidateName`."""
    return [
        Candidate("equal", "equal weights", _equal("probability")),
        Candidate("fewer", "equal, fewer rankers", _weights_by(fewer_rankers)),
        Candidate("single", "best single ranker", _weights_by(_best_ranker)),
        Candidate("mean", "groups by mean", _merged("mean")),
        Candidate("max", "groups by max", _merged("max")),
        Candidate("max_mean", "groups by max + mean", _merged("max_mean")),
        Candidate("equal_log", "equal, log-prob.", _equal("log_probability")),
        Candidate("fewer_log", "fewer, log-prob.", _fewer_log),
        Candidate("equal_rank", "equal, ranks", _equal("rank")),
        Candidate("calibrated", "equal, calibrated", _calibrated),
        Candidate("log_loss", "log loss optimum", _weights_by(log_loss_weights)),
        Candidate("greedy", "greedy", _weights_by(greedy_weights)),
        Candidate("tuned_exact", "exact search", _exact("probability")),
        Candidate("tuned", "TPE + exact", _sampled("tuned", "tpe", sampling)),
        Candidate("tuned_cma", "CMA-ES + exact", _sampled("tuned_cma", "cma", sampling)),
        Candidate("tuned_log", "exact, log-prob.", _exact("log_probability")),
        Candidate("tuned_rank", "exact, ranks", _exact("rank")),
        Candidate("stacker", "stacker", _stacked),
    ]


# --- the fits ------------------------------------------------------------------------------


def _equal(kind: Blend) -> Fit:
    return lambda part: Recipe(part.equal(), kind)


def _weights_by(search: Callable[[Evaluator], np.ndarray]) -> Fit:
    """The mean of probabilities with the weights that a search finds."""
    return lambda part: Recipe(part.weights(search(part.evaluator())))


def _best_ranker(evaluator: Evaluator) -> np.ndarray:
    return best_of(evaluator, list(np.eye(evaluator.rankers)))


def _merged(how: Merge) -> Fit:
    """Groups and the rankers outside them at equal weights, each group merged first."""

    def fit(part: Problem) -> Recipe:
        grouped = [name for members in part.groups for name in members]
        share = 1 / (len(part.names) - len(grouped) + len(part.groups))
        weights = dict.fromkeys(part.names, share)
        for members in part.groups:
            weights |= dict.fromkeys(members, share / len(members))
        return Recipe(weights, groups=tuple((tuple(members), how) for members in part.groups))

    return fit


def _fewer_log(part: Problem) -> Recipe:
    # The rankers are those that `fewer` takes, so that the two candidates differ in the kind of mean alone.
    return Recipe(part.weights(fewer_rankers(part.evaluator())), "log_probability")


def _calibrated(part: Problem) -> Recipe:
    return Recipe(part.equal(), "log_probability", part.temperatures())


def _exact(kind: Blend) -> Fit:
    """Exact line searches without a sampler."""

    def fit(part: Problem) -> Recipe:
        temperatures = part.temperatures() if kind == "log_probability" else {}
        evaluator = part.evaluator(kind, temperatures)
        weights = exact_weights(evaluator, starting_points(evaluator))
        return Recipe(part.weights(weights), kind, temperatures)

    return fit


def _sampled(name: CandidateName, sampler: Sampler, sampling: _Sampling) -> Fit:
    """A sampler's best point, then exact line searches from there."""
    searches = sampling.searches

    def fit(part: Problem) -> Recipe:
        evaluator, study = part.evaluator(), f"{searches.key} {sampler} {part.label}"
        starts = starting_points(evaluator)
        sampled = sample_weights(evaluator, starts, sampling.trials, sampling.seed, sampler, searches.journal, study)
        weights = exact_weights(evaluator, [sampled, *starts])
        if part.label == sampling.label:
            searches.scores[name] = {"sampler": evaluator.map3(sampled), "exact": evaluator.map3(weights)}
        return Recipe(part.weights(weights))

    return fit


def _stacked(part: Problem) -> Recipe:
    stacker = fit_stacker(part.names, part.table, part.exists, part.answers, part.folds)
    return Recipe(part.equal(), stacker=stacker)
