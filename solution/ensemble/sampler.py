"""Weights by Optuna's samplers, TPE and CMA-ES: the sampler asks for points, and the evaluator scores them."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np

from solution.ensemble.evaluator import Evaluator
from solution.ensemble.search import best_of
from solution.ensemble.trial_journal import TrialJournal

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

Sampler = Literal["tpe", "cma"]
Parameters = dict[str, float]
"""A point as the sampler sees it: name of a ranker's parameter -> value in (0, 1]."""
_LOWEST = 1e-6
"""The smallest parameter; 0 has no logarithm."""


def sample_weights(
    evaluator: Evaluator,
    starts: list[np.ndarray],
    trials: int,
    seed: int,
    sampler: Sampler = "tpe",
    journal: TrialJournal | None = None,
    name: str = "weights",
) -> np.ndarray:
    """The best weights that an Optuna sampler finds in `trials` points after the fixed ones.

    TPE (Bergstra et al. 2011; multivariate as in Falkner et al. 2018) or CMA-ES (Hansen and Ostermeier 2001). There
    is no pruner: one evaluation takes less time than the sampler's own step, so there is nothing to cut short.

    Args:
        starts: tried first, see `search.starting_points`; the result is not worse than any of them.
        journal: where finished trials are kept and found again; None: nowhere.
        name: of the study in the journal; one for each table of answers, sampler and seed.

    Returns:
        float64 [rankers], not negative, sum 1. The same for the same input, whether stopped in between or not
        (unless several processes share the journal).
    """
    if evaluator.rankers == 1:
        return np.ones(1)
    if trials == 0:
        return best_of(evaluator, starts)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    simplex = _Simplex(evaluator.rankers)
    worker = journal.worker if journal else 0
    log_loss_optimum = simplex.parameters(starts[1])
    search = _Search(sampler, _make_sampler(sampler, seed, worker, 0, log_loss_optimum), simplex, journal, name)

    # The fixed points, those that an earlier run has stored left out. With several processes the first tries them.
    if worker == 0:
        for start in starts[len(search.own) :]:
            parameters = simplex.parameters(start)
            search.add(parameters, evaluator.value(simplex.weights(parameters)), asked=False)

    # CMA-ES cannot be told of trials that it did not ask for: it asks again for those of the run before, in the same
    # order since its seed is the same, and the stored values are its answers.
    replay = search.own[len(starts) if worker == 0 else 0 :] if sampler == "cma" else []
    while len(search.finished) < len(starts) + trials:
        if sampler == "tpe":  # seeded by how far the search is, so that one started again goes the same way
            search.study.sampler = _make_sampler(sampler, seed, worker, len(search.finished), {})
        trial = search.study.ask(simplex.distributions)
        if replay and replay[0][0] == trial.params:
            search.study.tell(trial, replay.pop(0)[1])
            continue
        replay = []
        value = evaluator.value(simplex.weights(trial.params))
        search.study.tell(trial, value)
        search.add(trial.params, value)

    # The first of the best. The journal may hold more trials than were asked for now: those of a longer search.
    best = max(range(len(starts) + trials), key=lambda i: (search.finished[i][1], -i))
    return simplex.weights(search.finished[best][0])


class _Simplex:
    """Weight vectors as a sampler's parameters and back: w = -ln u / sum(-ln u), u in (0, 1].

    Uniform u give uniform weights (Dirichlet(1)), and unlike stick breaking it treats every ranker the same; u = 1 is
    a weight of exactly 0.
    """

    def __init__(self, rankers: int):
        from optuna.distributions import FloatDistribution

        self.names = [f"{i:04d}" for i in range(rankers)]
        self.distributions: dict[str, BaseDistribution] = {name: FloatDistribution(_LOWEST, 1.0) for name in self.names}
        # A scale of -ln u at which the starting points lie where Dirichlet(1) draws do, and inside the bounds.
        self._scale = min(rankers, -math.log(_LOWEST))

    def parameters(self, weights: np.ndarray) -> Parameters:
        return dict(zip(self.names, np.exp(-self._scale * weights).tolist(), strict=True))

    def weights(self, parameters: Parameters) -> np.ndarray:
        lengths = np.abs(np.log([parameters[name] for name in self.names]))
        total = lengths.sum()
        return lengths / total if total > 0 else np.full(len(self.names), 1 / len(self.names))


class _Search:
    """The finished trials of one search, with those of other processes that share its journal.

    The sampler works on a study in memory. The journal takes finished trials only, so that a kill leaves none half
    done, and none of the sampler's state (which CMA-ES would store as a pickle).

    Attributes:
        study: in memory; what the sampler learns from. TPE learns from every trial, CMA-ES from those it asked for.
        finished: parameters and value of each trial, in the journal's order.
        own: those among them that a process of this worker's number had finished when the search began.
    """

    def __init__(self, kind: Sampler, sampler: BaseSampler, simplex: _Simplex, journal: TrialJournal | None, name: str):
        import optuna

        self._worker = journal.worker if journal else 0
        self._distributions = simplex.distributions
        self._learns_from_all = kind == "tpe"
        self._stored = journal.study(name) if journal else None
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        stored = self._stored.get_trials(deepcopy=False) if self._stored else []
        self.finished = [_point(trial) for trial in stored]
        self.own = [_point(trial) for trial in stored if trial.user_attrs["worker"] == self._worker]
        if self._learns_from_all:
            self.study.add_trials(stored)

    def add(self, parameters: Parameters, value: float, asked: bool = True) -> None:
        """Put a finished trial into the journal, and take from there what other processes have added meanwhile.

        Args:
            asked: whether the sampler asked for it, and knows it already.
        """
        import optuna

        trial = optuna.trial.create_trial(
            params=parameters, distributions=self._distributions, value=value, user_attrs={"worker": self._worker}
        )
        self.finished.append((parameters, value))
        if self._stored is not None:
            self._stored.add_trial(trial)
            for other in self._stored.get_trials(deepcopy=False)[len(self.finished) - 1 :]:
                if other.user_attrs["worker"] != self._worker:
                    self.finished.append(_point(other))
                    if self._learns_from_all:
                        self.study.add_trial(other)
        if self._learns_from_all and not asked:
            self.study.add_trial(trial)


def _point(trial: FrozenTrial) -> tuple[Parameters, float]:
    assert trial.value is not None  # the journal takes finished trials only
    return trial.params, trial.value


def _make_sampler(kind: Sampler, seed: int, worker: int, step: int, start: Parameters) -> BaseSampler:
    """The sampler of one process.

    Args:
        step: how many trials are finished; TPE's randomness hangs on it.
        start: where CMA-ES begins.
    """
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `multivariate` is marked experimental
        if kind == "tpe":
            mixed = int(np.random.SeedSequence([seed, worker, step]).generate_state(1)[0])
            return optuna.samplers.TPESampler(seed=mixed, multivariate=True, n_startup_trials=20)
        return optuna.samplers.CmaEsSampler(x0=start, sigma0=0.2, seed=seed + worker, warn_independent_sampling=False)
