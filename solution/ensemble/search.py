"""Searches for weights: the smooth surrogate's optimum, greedy selection, Optuna's samplers. See also `line_search`."""

from __future__ import annotations

import fcntl
import json
import math
import os
import warnings
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from solution.ensemble.blend import FLOOR
from solution.ensemble.evaluator import Evaluator
from solution.progress import say

Sampler = Literal["tpe", "cma"]
_LOWEST = 1e-6
_GREEDY_STEPS = 50


def log_loss_weights(evaluator: Evaluator) -> np.ndarray:
    """The weights whose blend has the least log loss: a convex problem and a smooth stand-in for MAP@3.

    For means of probabilities (or places) on the simplex, by SLSQP (Kraft 1988); for log-probabilities not negative
    and of any sum, which there is one over the temperature, by L-BFGS-B, and then scaled to sum 1.

    Returns:
        float64 [rankers], not negative, sum 1.
    """
    from scipy.optimize import minimize

    count = evaluator.rankers
    equal = np.full(count, 1 / count)
    if count == 1:
        return equal
    more: dict[str, Any] = {"method": "L-BFGS-B", "bounds": [(0, None)] * count}
    if evaluator.kind != "log_probability":
        more = {
            "method": "SLSQP",
            "bounds": [(0, 1)] * count,
            "constraints": {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(count)},
            "options": {"maxiter": 200, "ftol": 1e-9},
        }
    found = minimize(evaluator.loss_and_slope, equal, jac=True, **more)
    weights = np.maximum(found.x, 0)
    if not np.isfinite(weights).all() or weights.sum() <= 0:
        return equal
    return weights / weights.sum()


def starting_points(evaluator: Evaluator) -> list[np.ndarray]:
    """Equal weights, the optimum of the log loss, each ranker alone."""
    count = evaluator.rankers
    return [np.full(count, 1 / count), log_loss_weights(evaluator), *np.eye(count)]


def best_of(evaluator: Evaluator, points: list[np.ndarray]) -> np.ndarray:
    """The point of the highest MAP@3, ties broken by the lower log loss and then by the order."""
    return max(points, key=evaluator.value)


def greedy_weights(evaluator: Evaluator) -> np.ndarray:
    """Greedy selection with replacement (Caruana et al. 2004), the log loss as tie-breaker.

    Each step adds the ranker with which the mean of those chosen so far is best; the best of all steps is kept. At
    most 50 steps, so that weights are multiples of at least 1/50.

    Returns:
        float64 [rankers], not negative, sum 1.
    """
    count = evaluator.rankers
    chosen = np.zeros(count)
    best, best_value = np.zeros(count), -math.inf
    for step in range(1, _GREEDY_STEPS + 1):
        points = [(chosen + unit) / step for unit in np.eye(count)]
        values = [evaluator.value(point) for point in points]
        pick = int(np.argmax(values))
        chosen[pick] += 1
        if values[pick] > best_value:
            best, best_value = points[pick], values[pick]
        elif step > 2 * count + 10 and chosen.max() == step:
            break  # one ranker alone, again and again
    return best


def fewer_rankers(evaluator: Evaluator) -> np.ndarray:
    """Equal weights for as few rankers as do: the best alone, then always the one that helps the equal mean most.

    It stops when the next raises MAP@3 by no more than one standard error (paired), unless it does raise it and
    lowers the log loss by more than that loss's own standard error: the smoother score sees help that is real earlier.

    Returns:
        float64 [rankers], 0 or 1 over the number chosen.
    """
    count = evaluator.rankers
    chosen = best_of(evaluator, list(np.eye(count)))
    while chosen.sum() < count:
        left = [unit for unit in np.eye(count) if not (unit * chosen).any()]
        points = [(chosen + unit) / (chosen.sum() + 1) for unit in left]
        pick = int(np.argmax([evaluator.value(point) for point in points]))
        before = chosen / chosen.sum()
        gain = evaluator.credits(points[pick]) - evaluator.credits(before)
        surer = evaluator.losses(before) - evaluator.losses(points[pick])
        if not (_beyond_noise(gain) or (gain.mean() > 0 and _beyond_noise(surer))):
            break
        chosen = chosen + left[pick]
    return chosen / chosen.sum()


def _beyond_noise(gain: np.ndarray) -> bool:
    return bool(gain.mean() > gain.std() / math.sqrt(len(gain)))


def fit_temperature(probabilities: np.ndarray, exists: np.ndarray, answers: np.ndarray) -> float:
    """The T with the least log loss of p^(1/T), renormalised: convex in 1/T; between 0.1 and 100.

    Args:
        probabilities: float [n, width].
    """
    from scipy.optimize import minimize_scalar

    logs = np.log(np.maximum(probabilities.astype(np.float64), FLOOR))
    rows = np.arange(len(answers))
    lead = np.where(exists, logs - logs[rows, answers][:, None], -np.inf)

    def loss(inverse: float) -> float:
        scaled = np.where(exists, inverse * lead, -np.inf)
        highest = scaled.max(axis=1)
        return float((highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))).mean())

    found = minimize_scalar(loss, bounds=(0.01, 10.0), method="bounded", options={"xatol": 1e-4})
    return float(1 / found.x)


# --- Optuna --------------------------------------------------------------------------------


class TrialJournal:
    """The studies of one tuning run in one Optuna journal file, so that a stopped search goes on where it was.

    Several processes may work on the same file: each takes the lowest free worker's number, which is part of its
    seeds, and adds its trials to those of the others. A number is free again when its process ends, however it ends;
    so one process alone is always number 0, and killed and started again it comes to the same result.
    """

    def __init__(self, path: Path):
        """
        Args:
            path: the journal; made with its folder when missing. One that cannot be read is begun anew: it is a cache.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._sweep(path)
        self.worker = 0
        while (slot := _locked(path.with_suffix(f".worker{self.worker}"))) is None:
            self.worker += 1
        self._slot = slot
        self._cut_unfinished(path)
        try:
            self._storage = self._open(path)
        except (ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
            say(f"note: the search's journal {path} is corrupt ({error}); it is begun anew")
            path.unlink()
            self._storage = self._open(path)

    @staticmethod
    def _sweep(path: Path) -> None:
        """Remove the journals of other OOF files on which no process works any more."""
        for other in path.parent.glob("*.journal"):
            slot = None if other == path else _locked(other.with_suffix(".worker0"))
            if slot is not None:
                for part in path.parent.glob(f"{other.stem}.*"):
                    part.unlink(missing_ok=True)
                slot.close()

    @staticmethod
    def _cut_unfinished(path: Path) -> None:
        """Remove a last line without end, left by a full disk or a kill: the next one would be joined to it."""
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # nobody is writing, then
            if path.exists():
                data = path.read_bytes()
                os.truncate(path, data.rfind(b"\n") + 1)

    @staticmethod
    def _open(path: Path) -> Any:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        class Lock(JournalFileOpenLock):
            """The system drops it when its process is killed, and nobody waits for the dead."""

            def acquire(self) -> bool:
                self._file = open(path.with_suffix(".lock"), "w")  # noqa: SIM115
                fcntl.flock(self._file, fcntl.LOCK_EX)
                return True

            def release(self) -> None:
                self._file.close()

        return JournalStorage(JournalFileBackend(str(path), lock_obj=Lock(str(path))))

    def study(self, name: str) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.create_study(storage=self._storage, study_name=name, direction="maximize", load_if_exists=True)

    def close(self) -> None:
        self._slot.close()


def _locked(path: Path) -> IO[str] | None:
    """The file, locked until it is closed or this process ends; None when another has it."""
    stream = open(path, "w")  # noqa: SIM115
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream


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

    The simplex is reached by w = -ln u / sum(-ln u), u in (0, 1]: uniform u give uniform weights (Dirichlet(1)),
    and unlike stick breaking it treats every ranker the same; u = 1 is a weight of exactly 0.

    Args:
        starts: tried first; the result is not worse than any of them.
        journal: where finished trials are kept and found again; None: nowhere.
        name: of the study in the journal; one for each table of answers, sampler and seed.

    Returns:
        float64 [rankers], not negative, sum 1. The same for the same input, whether stopped in between or not
        (unless several processes share the journal).
    """
    count = evaluator.rankers
    if count == 1:
        return np.ones(1)
    if trials == 0:
        return best_of(evaluator, starts)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [f"{i:04d}" for i in range(count)]
    distributions: dict[str, Any] = {each: optuna.distributions.FloatDistribution(_LOWEST, 1.0) for each in names}
    # A scale of -ln u at which `starts` lie where Dirichlet(1) draws do, and inside the bounds.
    scale = min(count, -math.log(_LOWEST))

    def parameters(weights: np.ndarray) -> dict[str, float]:
        return dict(zip(names, np.exp(-scale * weights).tolist(), strict=True))

    def weights_of(params: dict[str, float]) -> np.ndarray:
        lengths = np.abs(np.log([params[each] for each in names]))
        total = lengths.sum()
        return lengths / total if total > 0 else np.full(count, 1 / count)

    worker = journal.worker if journal else 0
    # The sampler works on a study in memory. The journal takes finished trials only, so that a kill leaves none half
    # done, and none of the sampler's state (which CMA-ES would store as a pickle).
    shared = journal.study(name) if journal else None
    memory = optuna.create_study(
        direction="maximize", sampler=_sampler(sampler, seed, worker, 0, parameters(starts[1]))
    )
    stored = shared.get_trials(deepcopy=False) if shared else []
    finished = [(trial.params, trial.value) for trial in stored]
    own = [(trial.params, trial.value) for trial in stored if trial.user_attrs["worker"] == worker]
    if sampler == "tpe":
        memory.add_trials(stored)

    def frozen(params: dict[str, float], value: float) -> Any:
        attributes = {"worker": worker}
        return optuna.trial.create_trial(params=params, distributions=distributions, value=value, user_attrs=attributes)

    def keep(params: dict[str, float], value: float) -> None:
        finished.append((params, value))
        if shared is None:
            return
        shared.add_trial(frozen(params, value))
        for other in shared.get_trials(deepcopy=False)[len(finished) - 1 :]:
            if other.user_attrs["worker"] != worker:
                finished.append((other.params, other.value))
                if sampler == "tpe":
                    memory.add_trial(other)

    if worker == 0:
        for start in starts[len(own) :]:
            params = parameters(start)
            keep(params, evaluator.value(weights_of(params)))
            if sampler == "tpe":
                memory.add_trial(frozen(params, finished[-1][1]))
    replay = own[len(starts) if worker == 0 else 0 :] if sampler == "cma" else []
    while len(finished) < len(starts) + trials:
        if sampler == "tpe":  # its randomness hangs on how far the search is, not on when it was started
            memory.sampler = _sampler(sampler, seed, worker, len(finished), {})
        trial = memory.ask(distributions)
        if replay and replay[0][0] == trial.params:
            memory.tell(trial, replay.pop(0)[1])
            continue
        replay = []
        value = evaluator.value(weights_of(trial.params))
        memory.tell(trial, value)
        keep(trial.params, value)
    # The journal may hold the trials of a longer search.
    best = max(range(len(starts) + trials), key=lambda i: (finished[i][1], -i))
    return weights_of(finished[best][0])


def _sampler(kind: Sampler, seed: int, worker: int, step: int, start: dict[str, float]) -> Any:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `multivariate` is marked experimental
        if kind == "tpe":
            mixed = int(np.random.SeedSequence([seed, worker, step]).generate_state(1)[0])
            return optuna.samplers.TPESampler(seed=mixed, multivariate=True, n_startup_trials=20)
        return optuna.samplers.CmaEsSampler(x0=start, sigma0=0.2, seed=seed + worker, warn_independent_sampling=False)
