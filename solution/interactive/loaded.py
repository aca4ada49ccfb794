"""An ensemble whose rankers and indexes stay loaded: questions are answered as a submission answers them, at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from solution.config import ContextView
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.exam import Contexts
from solution.inference.asking import Asking, ReadyRanker
from solution.inference.engine import Engine
from solution.inference.limits import Limits
from solution.inference.schedule import Schedule
from solution.inference.trained import (
    ContextRequest,
    TrainedRanker,
    context_requests,
    imported_rankers,
    ranker_exams,
    read_rankers,
)
from solution.inference.turns import Answers
from solution.interactive.pool import RankerPool
from solution.progress import news, say
from solution.questions import Questions
from solution.rankers.base import Ranker
from solution.retrieval.contexts.opened import OpenRetrieval
from solution.workdir import Workdir


@dataclass
class _PooledAsking(Asking):
    """Asks rankers whose models a pool keeps."""

    pool: RankerPool

    def model(self, ranker: TrainedRanker, folder: Path | None) -> Ranker:
        return self.pool.model(ranker, folder)

    def answer(self, name: str, rows: np.ndarray) -> None:
        news(f"{name} is answering")
        try:
            super().answer(name, rows)
        finally:
            self.pool.release(name)


@dataclass
class Asked:
    """Questions with all that was found out about them.

    Attributes:
        answers: what each ranker says, and the blend.
        contexts: hash of a retrieval's settings -> its contexts by view.
        seconds: stage -> seconds: `retrieval`, each ranker by its name, and `loading` where models had to be loaded.
    """

    answers: Answers
    contexts: dict[str, dict[ContextView, Contexts]]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def blended(self) -> np.ndarray:
        """The blend, float32 [n, width]; see `Answers.blended`."""
        return self.answers.blended()


class LoadedEnsemble:
    """The ensemble of a working folder, ready to answer.

    Which weights answer (folds, their mean, or those trained on all questions), which rankers read which questions and
    how they are blended is as `weights/ensemble.json` says, and the same as in a submission. Calls from several threads
    wait for each other.

    Attributes:
        workdir: the working folder.
        trained: the rankers with usable weights.
        asked: the names of the rankers that are asked, but for those whose scores they read.
        faults: the other rankers -> why they do not answer.
        retrievals: hash of a retrieval's settings -> the open retrieval.
        pool: the models.
        lock: held while questions are answered; whoever uses the retrievals besides holds it too.
    """

    def __init__(
        self,
        workdir: Workdir,
        memory: int | None = None,
        rankers: Collection[str] | None = None,
        overrides: Sequence[str] = (),
    ):
        """Read and check everything; no model is loaded yet. See `open`."""
        self.workdir = workdir
        self.faults: dict[str, str] = {}
        ensemble = load_ensemble(workdir)
        imported = imported_rankers(ensemble)
        self.faults |= dict.fromkeys(imported, "it was imported, and only the program that it is from can answer")
        self.trained: list[TrainedRanker] = read_rankers(workdir, ensemble, overrides, imported, self.faults)
        self.schedule = Schedule.read(workdir, ensemble)
        names = [stage.ranker for stage in self.schedule.whole]
        self.asked = _chosen(rankers, names)
        usable = {ranker.name for ranker in self.trained}
        if not usable & self.asked:
            reasons = "; ".join(f"{name}: {self.faults.get(name, 'left out')}" for name in names)
            raise UserError(f"no ranker can answer: {reasons}")
        self.trained = [ranker for ranker in self.trained if ranker.name in self._needed()]
        self.requests: list[ContextRequest] = context_requests(self.trained)
        self.retrievals: dict[str, OpenRetrieval] = {}
        self.pool = RankerPool(workdir.cache.resolve(), memory)
        self.lock = threading.RLock()
        self._is_open = False

    @classmethod
    def open(
        cls,
        workdir: str | Path,
        memory: int | None = None,
        rankers: Collection[str] | None = None,
        overrides: Sequence[str] = (),
        warm: bool = True,
    ) -> LoadedEnsemble:
        """The ensemble with its indexes opened and its models loaded.

        Args:
            workdir: the working folder.
            memory: bytes that may be used, of the GPU or else of the machine; None: what is free. Rankers that do not
                fit together are loaded anew for each question; one that does not fit at all is left out.
            rankers: the names of those that are asked; the others are left out, and the weights of those that remain
                keep their proportions. None: all.
            overrides: settings, `key.path=value`; a key begins with a ranker's name or `retrieval`.
            warm: whether a first question is answered now, so that the next one does not wait for what libraries do
                only once.

        Raises:
            UserError: there is no ensemble, or no ranker of it can answer; a name or an override is wrong.
        """
        ensemble = cls(Workdir.existing(workdir), memory, rankers, overrides)
        ensemble.load(warm)
        return ensemble

    def _needed(self) -> set[str]:
        """The rankers that are asked, and those whose scores these read."""
        sources = [name for ranker in self.trained if ranker.name in self.asked for name in ranker.config.signals_from]
        return self.asked | set(sources)

    def load(self, warm: bool = True) -> None:
        """Open the indexes and load the models; once is enough.

        What cannot be opened or loaded is told, and tried again with each question: as in a submission, the rankers
        that need it are left out then, and the others answer.
        """
        with self.lock:
            if self._is_open:
                return
            for request in self.requests:
                try:
                    self._opened(request)
                except (UserError, OSError) as error:
                    say(f"WARNING: {', '.join(request.readers)}: {error}")
            for ranker in self.trained:
                for reason in ranker.lost.values():
                    say(f"WARNING: {ranker.name} goes on without one of its folds: {reason}")
            self.pool.plan(self.trained)
            self.pool.load(self.trained)
            self._is_open = True
            if warm:
                self.ask(_trial())

    def _opened(self, request: ContextRequest) -> OpenRetrieval:
        key = request.config.hash()
        if key not in self.retrievals:
            news("the indexes are being opened")
            self.retrievals[key] = OpenRetrieval(request.config, self.workdir.root)
        return self.retrievals[key]

    def ask(self, questions: Questions) -> Asked:
        """Have the rankers answer.

        Args:
            questions: n; their answers are hidden from the rankers.

        Raises:
            UserError: no ranker could answer one of the questions; says why.
        """
        with self.lock:
            self.load(warm=False)
            self.pool.load_seconds.clear()
            answers = self.schedule.answers(questions, self.trained, Limits())
            for name, reason in (self.faults | self.pool.problems).items():
                if name in answers.turns:
                    answers.turns[name].state, answers.turns[name].reason = "failed", reason
            result = Asked(answers, {})
            self._retrieve(result)
            self._rank(result)
        if not answers.any_answer().all():
            turns = answers.turns.items()
            reasons = "; ".join(f"{name}: {turn.reason}" for name, turn in turns if turn.reason and name in self.asked)
            raise UserError(f"no ranker answered: {reasons}")
        return result

    def _retrieve(self, result: Asked) -> None:
        """Make the contexts; rankers whose contexts cannot be made are left out."""
        started, answers = time.monotonic(), result.answers
        for request in self.requests:
            key = request.config.hash()
            news("passages are being searched")
            try:
                views = self._opened(request).views(answers.questions, request.views)
                result.contexts.setdefault(key, {}).update(views)
            except (UserError, OSError) as error:
                for name in request.readers:
                    answers.fail(name, str(error))
        result.seconds["retrieval"] = time.monotonic() - started

    def _rank(self, result: Asked) -> None:
        """Give the rankers their turns."""
        answers, ready = result.answers, {}
        for ranker in self.trained:
            if answers.turns[ranker.name].state == "waiting":
                exams = ranker_exams(ranker, answers.questions, result.contexts)
                ready[ranker.name] = ReadyRanker(ranker, exams, None)
        stages = [stage for stage in self.schedule.tuned if stage.ranker in self.asked]
        for name, turn in answers.blended_turns.items():
            if turn.state == "waiting" and name not in self.asked:
                turn.state, turn.reason = "unused", "it is left out"
        Engine(answers, _PooledAsking(answers, ready, self.pool.cache, self.pool)).run(stages)
        loading = dict(self.pool.load_seconds)
        for name, turn in answers.turns.items():
            if turn.work.done:
                result.seconds[name] = turn.work.seconds - loading.get(name, 0.0)
        if loading:
            result.seconds["loading"] = sum(loading.values())

    def weights(self, answers: Answers, row: int = 0) -> Mapping[str, float | None]:
        """The share of each ranker in the blend of a question, sum 1, or None for each where a stacker blends; of those
        that have not answered, none."""
        return self.weights_of([name for name, turn in answers.blended_turns.items() if turn.answered[row]])

    def weights_of(self, names: Sequence[str]) -> dict[str, float | None]:
        """The same of a question that these rankers answer."""
        recipe = self.schedule.recipes().of(names)
        if recipe.stacks(names):
            return {name: None if name in recipe.used else 0.0 for name in names}
        given = {name: recipe.weights.get(name, 0.0) for name in names}
        total = sum(given.values()) or 1.0
        return {name: weight / total for name, weight in given.items()}

    def close(self) -> None:
        """Give back the memory of the models; the next question loads them again."""
        with self.lock:
            self.pool.close()
            self.retrievals.clear()
            self._is_open = False


def _chosen(wanted: Collection[str] | None, names: Sequence[str]) -> set[str]:
    """The rankers that are asked.

    Raises:
        UserError: one is not in the ensemble, or none is wanted.
    """
    if wanted is None:
        return set(names)
    strange = [name for name in wanted if name not in names]
    if strange or not wanted:
        what = f"the ranker {strange[0]!r} is not in the ensemble" if strange else "no ranker is named"
        raise UserError(f"{what}; it has {', '.join(names)}")
    return set(wanted)


def _trial() -> Questions:
    context = {"context": ["Iron is a metal."]}
    return Questions(["trial"], ["Which of these is a metal?"], [["iron", "wood"]], np.full(1, -1), context)
