"""The blends that compete: each knows how to be fitted on some questions, and nothing of how it will be judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from solution.config import CandidateName, TuneSettings
from solution.ensemble.blend import Blend, Recipe, apply_recipe, sharpen
from solution.ensemble.evaluator import Evaluator
from solution.ensemble.line_search import exact_weights
from solution.ensemble.search import (
    Sampler,
    TrialJournal,
    best_of,
    fewer_rankers,
    fit_temperature,
    greedy_weights,
    log_loss_weights,
    sample_weights,
    starting_points,
)
from solution.ensemble.stacker import fit_stacker
from solution.probabilities import Merge


@dataclass
class Problem:
    """What a candidate is fitted on.

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
        table = self.table
        if temperatures:
            pairs = zip(self.names, table, strict=True)
            table = np.stack([sharpen(alone, self.exists, temperatures[name]) for name, alone in pairs])
        return Evaluator(table, self.exists, self.answers, kind)

    def weights(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.names, values.tolist(), strict=True))

    def equal(self) -> dict[str, float]:
        return self.weights(np.full(len(self.names), 1 / len(self.names)))

    def temperatures(self) -> dict[str, float]:
        pairs = zip(self.names, self.table, strict=True)
        return {name: fit_temperature(alone, self.exists, self.answers) for name, alone in pairs}


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


def candidates(
    problem: Problem,
    settings: TuneSettings,
    journal: TrialJournal | None = None,
    key: str = "",
    searches: dict[str, dict[str, float]] | None = None,
) -> list[Candidate]:
    """Every candidate that the settings and the rankers allow, the plainest first; `equal` is always among them.

    Args:
        key: of everything that decides a search's way, for the names of the journal's studies.
        searches: takes what a sampler and the exact search after it found on all questions (MAP@3, in-sample).
    """

    def searched(name: CandidateName, sampler: Sampler) -> Fit:
        def fit(part: Problem) -> Recipe:
            evaluator, study = part.evaluator(), f"{key} {sampler} {part.label}"
            starts = starting_points(evaluator)
            sampled = sample_weights(evaluator, starts, settings.trials, settings.seed, sampler, journal, study)
            found = exact_weights(evaluator, [sampled, *starts])
            if searches is not None and part.label == problem.label:
                searches[name] = {"sampler": evaluator.map3(sampled), "exact": evaluator.map3(found)}
            return Recipe(part.weights(found))

        return fit

    def exact(kind: Blend) -> Fit:
        def fit(part: Problem) -> Recipe:
            temperatures = part.temperatures() if kind == "log_probability" else {}
            evaluator = part.evaluator(kind, temperatures)
            found = exact_weights(evaluator, starting_points(evaluator))
            return Recipe(part.weights(found), kind, temperatures)

        return fit

    def plain(search: Callable[[Evaluator], np.ndarray]) -> Fit:
        return lambda part: Recipe(part.weights(search(part.evaluator())))

    def single(evaluator: Evaluator) -> np.ndarray:
        return best_of(evaluator, list(np.eye(evaluator.rankers)))

    def merged(how: Merge) -> Fit:
        def fit(part: Problem) -> Recipe:
            grouped = [name for members in part.groups for name in members]
            share = 1 / (len(part.names) - len(grouped) + len(part.groups))
            weights = dict.fromkeys(part.names, share)
            for members in part.groups:
                weights |= dict.fromkeys(members, share / len(members))
            return Recipe(weights, groups=tuple((tuple(members), how) for members in part.groups))

        return fit

    def fewer_log(part: Problem) -> Recipe:  # of the rankers that `fewer` takes, so that only the mean differs
        return Recipe(part.weights(fewer_rankers(part.evaluator())), "log_probability")

    def calibrated(part: Problem) -> Recipe:
        return Recipe(part.equal(), "log_probability", part.temperatures())

    def stacked(part: Problem) -> Recipe:
        made = fit_stacker(part.names, part.table, part.exists, part.answers, part.folds)
        return Recipe(part.equal(), stacker=made)

    everyone = [
        Candidate("equal", "equal weights", lambda part: Recipe(part.equal())),
        Candidate("fewer", "equal, fewer rankers", plain(fewer_rankers)),
        Candidate("single", "best single ranker", plain(single)),
        Candidate("mean", "groups by mean", merged("mean")),
        Candidate("max", "groups by max", merged("max")),
        Candidate("max_mean", "groups by max + mean", merged("max_mean")),
        Candidate("equal_log", "equal, log-prob.", lambda part: Recipe(part.equal(), "log_probability")),
        Candidate("fewer_log", "fewer, log-prob.", fewer_log),
        Candidate("equal_rank", "equal, ranks", lambda part: Recipe(part.equal(), "rank")),
        Candidate("calibrated", "equal, calibrated", calibrated),
        Candidate("log_loss", "log loss optimum", plain(log_loss_weights)),
        Candidate("greedy", "greedy", plain(greedy_weights)),
        Candidate("tuned_exact", "exact search", exact("probability")),
        Candidate("tuned", "TPE + exact", searched("tuned", "tpe")),
        Candidate("tuned_cma", "CMA-ES + exact", searched("tuned_cma", "cma")),
        Candidate("tuned_log", "exact, log-prob.", exact("log_probability")),
        Candidate("tuned_rank", "exact, ranks", exact("rank")),
        Candidate("stacker", "stacker", stacked),
    ]
    assert [candidate.name for candidate in everyone] == list(get_args(CandidateName))
    wanted = {"equal", *settings.candidates}
    if settings.choose != "auto":
        wanted.add(settings.choose)
    if not problem.groups:
        wanted -= {"mean", "max", "max_mean"}
    return [candidate for candidate in everyone if candidate.name in wanted]
