"""Rankers asked in this process: in a submission those without a model, in `interactive` all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solution.errors import UserError
from solution.exam import Exam
from solution.inference.jobs import Fault, OutOfTime
from solution.inference.limits import Limits
from solution.inference.trained import TrainedRanker
from solution.inference.turns import Answers
from solution.rankers.base import Ranker, predict_part
from solution.rankers.families import make_ranker
from solution.rankers.option_inputs import with_scores


@dataclass(frozen=True)
class ReadyRanker:
    """A ranker that can be asked.

    Attributes:
        exams: all questions, answers hidden, with each of the contexts that it reads.
        fold_seconds: seconds a question of one fold; None: not measured.
        load_seconds: until its model is there.
    """

    trained: TrainedRanker
    exams: list[Exam]
    fold_seconds: float | None
    load_seconds: float = 0.0

    @property
    def has_model(self) -> bool:
        return self.trained.config.has_model


@dataclass
class Asking:
    """Has one ranker after the other answer questions in this process; what they say is added to `answers`.

    Attributes:
        answers: takes what the rankers say.
        rankers: name -> ranker.
        cache: where converted models are kept.
    """

    answers: Answers
    rankers: Mapping[str, ReadyRanker]
    cache: Path

    @property
    def _limits(self) -> Limits:
        return self.answers.timeline.limits

    @property
    def _width(self) -> int:
        return self.answers.exists.shape[1]

    def plan_for(self, names: Sequence[str]) -> None:
        """Take the names of all the rankers that will be asked, before the first is."""

    def store(self, force: bool = False) -> None:
        """Keep the blend of what is answered so far: nothing to do where nobody else reads it."""

    def sources(self, name: str) -> list[str]:
        """The rankers whose scores a ranker reads."""
        named = self.rankers[name].trained.config.signals_from if name in self.rankers else []
        return [source for source in named if source in self.answers.turns]

    def model(self, ranker: TrainedRanker, folder: Path | None) -> Ranker:
        """A ranker with the weights in a folder; None: it has none.

        Raises:
            UserError: they cannot be loaded.
        """
        model = make_ranker(ranker.config, self.cache)
        if folder is not None:
            model.load(folder)
        return model

    def answer(self, name: str, rows: np.ndarray) -> None:
        """Have a ranker answer questions, each of its folds where they differ.

        What it has said of them before is replaced where the scores of other rankers are among its signals.

        Args:
            rows: int, positions of the questions.

        Raises:
            Fault: it cannot answer; what it has answered until then counts.
            OutOfTime: the deadline came between two folds.
        """
        ranker, turn = self.rankers[name], self.answers.turns[name]
        turn.work.load_seconds = 0.0
        has_files = ranker.has_model or ranker.trained.config.learns_signals
        exams, again, tables = self._with_scores(name), bool(turn.answered[rows].any()), []
        for folder in ranker.trained.asked_folders if has_files else [None]:
            if self._limits.left() <= 0:
                raise OutOfTime
            started = time.monotonic()
            try:
                model = self.model(ranker.trained, folder)
                table = predict_part(model, exams, rows.tolist(), turn.alive[rows], self._width)
            except Exception as error:  # noqa: BLE001 - as in worker.main
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                raise Fault(reason) from error
            tables.append(table)
            if not again:
                self.answers.add(name, rows, table, len(tables) - 1)
            turn.alike |= model.alike
            turn.work.done += len(rows)
            turn.work.seconds += time.monotonic() - started
        if again:
            self.answers.replace(name, rows, tables)
        scored = {source: self.answers.scored(source, name) for source in self.sources(name)}
        without = {source: int((turn.answered & ~known).sum()) for source, known in scored.items()}
        turn.unscored = {source: count for source, count in without.items() if count}

    def _with_scores(self, name: str) -> list[Exam]:
        """What a ranker reads, with the scores that other rankers have given until now."""
        tables = {}
        for source in self.sources(name):
            known = self.answers.scored(source, name)[:, None]
            tables[source] = np.where(known, self.answers.turns[source].table(), np.nan)
        return with_scores(self.rankers[name].exams, tables, self.answers.turns[name].alive)
