"""The rankers of a submission in turn, the cheapest first; after each turn a complete answer is on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solution.ensemble.cascade import Stage, doubt, living, unsure
from solution.errors import UserError
from solution.inference.asking import Asking
from solution.inference.jobs import Fault, OutOfTime
from solution.inference.turns import Answers


@dataclass
class Engine:
    """Gives each ranker its turn.

    Attributes:
        answers: takes what the rankers say, and says which questions are still open.
        answering: asks one ranker.
    """

    answers: Answers
    answering: Asking

    def run(self, stages: Sequence[Stage], second_pass: Sequence[Stage] = ()) -> None:
        """Give the rankers their turns, until all had them or the deadline comes.

        Args:
            stages: the cascade.
            second_pass: all rankers, for the time that the cascade leaves over; empty for none.
        """
        running = ""
        readers = [stage.ranker for stage in (*stages, *second_pass)]
        self.answering.plan_for([name for reader in readers for name in (*self.answering.sources(reader), reader)])
        try:
            for cascade in (stages, second_pass):
                before: Stage | None = None
                for stage in cascade:
                    state = self.answers.turns[stage.ranker].state
                    if state in ("waiting", "finished"):
                        running = stage.ranker
                        self._turn(stage, before)
                    elif state != "imported":
                        # What a ranker that is left out would have read, the next one reads.
                        self._mark_open_questions(stage, before)
                    # In a run on a sample every ranker reads it, however sure the others are.
                    before = stage if self.answers.sample is None else None
                    self.answering.store(force=True)
            for turn in self.answers.turns.values():
                if turn.state == "waiting":
                    turn.state, turn.reason = "unused", "the cascade does not ask it"
        except OutOfTime:
            self.answers.timeline.note("the deadline")
            self.answers.give_up("the deadline came", running)

    def _turn(self, stage: Stage, before: Stage | None) -> None:
        name = stage.ranker
        rows = self._mark_open_questions(stage, before)
        if not len(rows):
            self.answers.turns[name].state = "finished"
            return
        self._ask_sources(name, rows)
        if self.answers.turns[name].state != "failed":
            self._ask(name, rows)

    def _ask_sources(self, reader: str, rows: np.ndarray) -> None:
        """Have the rankers answer whose scores a ranker reads, as far as they have not.

        Its own answer without their scores comes first: they may take long, and fail.
        """
        unread = {name: self._unread(name, rows) for name in self.answering.sources(reader)}
        if not any(map(len, unread.values())):
            return
        self._ask(reader, rows)
        if self.answers.turns[reader].state == "failed":
            return
        self.answering.store(force=True)
        for name, missing in unread.items():
            turn = self.answers.turns[name]
            if len(missing):
                turn.planned[missing] = True
                turn.alive[missing] = self.answers.turns[reader].alive[missing]
                self._ask(name, missing)

    def _unread(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Those of the questions that a ranker has still to read, and may."""
        turn = self.answers.turns[name]
        if turn.state not in ("waiting", "finished"):
            return rows[:0]
        missing = ~turn.planned
        if self.answers.sample is not None and not self._costs_nothing(name):
            missing &= self.answers.sample
        return rows[missing[rows]]

    def _ask(self, name: str, rows: np.ndarray) -> None:
        """Have a ranker answer questions; where it cannot, it is left out from here on."""
        turn = self.answers.turns[name]
        try:
            self.answering.answer(name, rows)
        except (Fault, UserError, OSError) as error:
            self.answers.fail(name, str(error))
            return
        if turn.reason:
            turn.end(turn.reason)
        else:
            turn.state = "finished"
            self.answers.timeline.note(f"{name}: {len(rows)} questions answered")

    def _mark_open_questions(self, stage: Stage, before: Stage | None) -> np.ndarray:
        """Put the questions that a ranker is to read now, and the options it is shown of them, into its turn.

        Args:
            before: the stage before it; None: it is the first, and reads all questions.

        Returns:
            int, positions of the questions, the least sure first.
        """
        turns, turn = self.answers.turns, self.answers.turns[stage.ranker]
        exists, blend = self.answers.exists, self.answers.blended()
        opened = ~turn.planned
        if self.answers.sample is not None and not self._costs_nothing(stage.ranker):
            opened &= self.answers.sample
        if before is not None:
            # Of the questions of its forerunner it reads those that are unsure, and those that nobody has answered.
            answered = self.answers.any_answer()
            opened &= turns[before.ranker].planned & (unsure(stage, blend, exists) | ~answered)
            # bool [n, width]: options that an earlier ranker has dropped do not come back.
            asked = [other for other in self.answers.blended_turns.values() if other.planned.any()]
            alive = np.logical_and.reduce([other.alive for other in asked])
            shown = np.where(answered[:, None], living(blend, alive, stage.alive), exists)
            turn.alive[opened] = shown[opened]
        turn.planned |= opened
        rows = np.flatnonzero(opened)
        return rows[np.argsort(-doubt(blend, exists, stage.by)[rows], kind="stable")] if before else rows

    def _costs_nothing(self, name: str) -> bool:
        """Whether a ranker that can be asked has no model."""
        ranker = self.answering.rankers.get(name)
        return ranker is not None and not ranker.has_model
