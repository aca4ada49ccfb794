"""Rankers that stay in memory between questions, as many as the memory allows; the others are loaded for each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from solution.config import RankerConfig
from solution.device import free_memory
from solution.errors import UserError
from solution.exam import ContextPassage, Exam
from solution.inference.memory import available_memory
from solution.inference.memory_plan import SLACK, MemoryPlan, shown
from solution.inference.trained import TrainedRanker
from solution.progress import news, say
from solution.questions import Questions
from solution.rankers.base import Ranker
from solution.rankers.families import make_ranker

_OPTIONS = 5


def long_question(config: RankerConfig) -> Exam:
    """An exam of one made-up question that fills what the ranker reads: none takes more memory."""
    text = "word " * config.max_tokens
    options = [f"the option number {number} of this question" for number in range(_OPTIONS)]
    questions = Questions(["long"], ["Which of these is it?"], [options], np.full(1, -1))
    passages = [ContextPassage(str(number), "", text, 1.0, "") for number in range(config.passages)]
    scores = {kind: np.zeros((1, _OPTIONS), dtype=np.float32) for kind in ("passage", "sentence")}
    return Exam(questions, [passages], scores)


def kept_rankers(plans: Iterable[MemoryPlan], available: int) -> set[str]:
    """The names of the rankers that stay loaded: the most that leave room for each of the others in its turn.

    Args:
        plans: of all rankers with a model. One whose memory is not known takes none here, nor does one that cannot run.
        available: bytes.
    """
    able = [plan for plan in plans if not plan.problem]
    ordered = sorted(able, key=lambda plan: (plan.peak, plan.ranker))
    for count in range(len(ordered), 0, -1):
        kept, others = ordered[:count], ordered[count:]
        held = sum(plan.weights + plan.adapters for plan in kept)
        # At work beside all that are kept; and while it is loaded, beside those that are loaded by then.
        working = held + max([plan.activations for plan in kept] + [plan.peak for plan in others])
        loading = max(
            sum(before.weights + before.adapters for before in kept[:place]) + plan.loading
            for place, plan in enumerate(kept)
        )
        if max(working, loading) * SLACK <= available:
            return {plan.ranker for plan in kept}
    return set()


@dataclass
class RankerPool:
    """The models of rankers.

    Attributes:
        cache: where converted models are kept.
        memory: bytes that may be used, of the GPU or else of the machine; None: what is free.
        kept: names of the rankers with a model that stay loaded.
        plans: ranker -> the plan of its memory.
        load_seconds: ranker -> seconds that its model took to load, the last time.
    """

    cache: Path
    memory: int | None = None
    kept: set[str] = field(default_factory=set)
    plans: dict[str, MemoryPlan] = field(default_factory=dict)
    load_seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._models: dict[str, Ranker] = {}
        self._folder: dict[str, Path] = {}  # of the weights that a model has taken
        self._small: dict[tuple[str, Path | None], Ranker] = {}

    def plan(self, rankers: Sequence[TrainedRanker]) -> None:
        """Decide which rankers stay loaded, and say which do not, and which cannot answer."""
        # Imported here: it loads torch, and whoever only names this class shall not wait for it.
        from solution.inference.outline import plan_memory

        available = available_memory(self.memory)
        for ranker in rankers:
            if ranker.config.has_model:
                exams = [long_question(ranker.config)]
                folders, config = ranker.asked_folders, ranker.config
                self.plans[ranker.name] = plan_memory(config, exams, folders, self.cache, available, 1)
        self.kept = kept_rankers(self.plans.values(), available)
        for name, plan in self.plans.items():
            if plan.problem:
                say(f"WARNING: the ranker {name} is left out: {plan.problem}")
            elif name not in self.kept:
                say(
                    f"{name} ({shown(plan.peak)}) does not fit beside the others into {shown(max(available, 0))}: it "
                    "is loaded anew for each question, which takes much longer"
                )

    @property
    def problems(self) -> dict[str, str]:
        """The rankers that cannot run, as for want of memory -> why."""
        return {name: plan.problem for name, plan in self.plans.items() if plan.problem}

    def load(self, rankers: Sequence[TrainedRanker]) -> None:
        """Load what stays loaded; a model that cannot be loaded is told, and tried again when it is asked."""
        for ranker in rankers:
            if ranker.name in self.kept or not ranker.config.has_model:
                has_files = ranker.config.has_model or ranker.config.learns_signals
                try:
                    for folder in ranker.asked_folders if has_files else [None]:
                        self.model(ranker, folder)
                except Exception as error:  # noqa: BLE001 - as in `Asking.answer`, whatever a library raises
                    say(f"WARNING: {ranker.name} cannot be loaded: {error}")

    def model(self, ranker: TrainedRanker, folder: Path | None) -> Ranker:
        """A ranker with the weights in a folder; None: it has none.

        Raises:
            UserError: it cannot be loaded, or there is not enough memory for it.
        """
        if not ranker.config.has_model:
            key = (ranker.name, folder)
            if key not in self._small:
                self._small[key] = make_ranker(ranker.config, self.cache)
                if folder is not None:
                    self._small[key].load(folder)
            return self._small[key]
        name, started = ranker.name, time.monotonic()
        new = name not in self._models
        if new:
            news(f"{name} is being loaded")
            self._models[name] = self._new(ranker)
        if folder is not None and self._folder.get(name) != folder:
            self._folder.pop(name, None)  # weights that are not whole are not taken for loaded
            try:
                self._models[name].load(folder)
            except BaseException:
                del self._models[name]
                raise
            self._folder[name] = folder
        if new:
            self.load_seconds[name] = time.monotonic() - started
            say(f"{name}: loaded in {self.load_seconds[name]:.1f} s")
        return self._models[name]

    def _new(self, ranker: TrainedRanker) -> Ranker:
        plan, config = self.plans.get(ranker.name), ranker.config
        if plan is not None and plan.problem:
            raise UserError(plan.problem)
        if plan is not None and not plan.unknown:
            config = plan.apply(config)
        if self.memory is not None:
            # The plan is that of one question: several in a batch would take more.
            config = config.model_copy(update={"predict_tokens_per_batch": 1})
        return make_ranker(config, self.cache)

    def release(self, name: str) -> None:
        """Give back the memory of a ranker that does not stay loaded."""
        if name not in self.kept and name in self._models:
            del self._models[name]
            self._folder.pop(name, None)
            free_memory()

    def close(self) -> None:
        """Give back all memory."""
        self._models.clear()
        self._folder.clear()
        self._small.clear()
        free_memory()
