"""The turn of each ranker, and the blend of what the turns have answered so far."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from solution.config import SCORE_TEMPERATURE
from solution.ensemble.blend import Recipe, apply_recipe
from solution.ensemble.cascade import refine
from solution.inference.jobs import Fault
from solution.inference.memory_plan import MemoryPlan
from solution.inference.timeline import Timeline
from solution.inference.wire import PartEvent
from solution.probabilities import masked_softmax
from solution.progress import say
from solution.questions import Questions
from solution.rankers.alike import Alike
from solution.rankers.untrained import longest_options

State = Literal["waiting", "finished", "partial", "failed", "skipped", "unused", "imported"]


T = TypeVar("T", int, float)


@dataclass
class Work:
    """What a ranker's answers took in this run, the journal's left out.

    Attributes:
        done: questions times folds, in `seconds`, of which the model took `model_seconds`.
        load_seconds: until its first fold was loaded; None: it was not.
        peak_mib, used_mib: MiB at the highest, with the libraries of its process and without them.
        computed_on: device and number format, such as "cuda in float16".
        float32_rows: positions of the questions that overflowed in float16, and were scored again in float32.
        left_out: why a device was left out before everything was answered; empty: it was not.
    """

    done: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    load_seconds: float | None = None
    peak_mib: int | None = None
    used_mib: int | None = None
    computed_on: str | None = None
    float32_rows: set[int] = field(default_factory=set)
    left_out: str = ""

    def add_part(self, event: PartEvent, questions: int) -> None:
        """Count an answered batch of so many questions."""
        self.done += questions
        self.seconds += event["seconds"]
        self.model_seconds += event["model_seconds"]
        self.peak_mib = max_known(self.peak_mib, event["peak_mib"])
        self.float32_rows |= set(event["float32_rows"])


def max_known(one: T | None, other: T | None) -> T | None:
    """The larger of two figures, where they are known."""
    return max((value for value in (one, other) if value is not None), default=None)  # type: ignore[type-var]


@dataclass
class Turn:
    """What became of one ranker.

    Attributes:
        by_fold: fold -> float64 [n, width], what it has answered; 0 elsewhere.
        folds: int [n], how many folds have answered.
        alive: bool [n, width], the options that it was shown.
        planned: bool [n], the questions that it was to read.
        asked_folds: how many folds answer each question when its turn is over.
        reason: why it is in a state other than finished.
        from_journal: questions times folds that an earlier run had answered.
        plan: of its memory.
        alike: the options that it could not tell apart.
        work, devices: what its answers took, in all and on each device.
        blended: whether its answers are blended; else only another ranker reads them.
        unscored: ranker whose scores it reads -> the number of questions that it has answered without these.
    """

    folds: np.ndarray
    alive: np.ndarray
    planned: np.ndarray
    asked_folds: int = 1
    state: State = "waiting"
    reason: str = ""
    from_journal: int = 0
    plan: MemoryPlan | None = None
    alike: Alike = field(default_factory=dict)
    work: Work = field(default_factory=Work)
    devices: dict[str, Work] = field(default_factory=dict)
    by_fold: dict[int, np.ndarray] = field(default_factory=dict)
    blended: bool = True
    unscored: dict[str, int] = field(default_factory=dict)

    @classmethod
    def waiting(cls, exists: np.ndarray, asked_folds: int, blended: bool = True) -> Turn:
        """The turn of a ranker that has answered nothing yet; `exists`: bool [n, width]."""
        n = len(exists)
        folds, planned = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
        return cls(folds, exists.copy(), planned, asked_folds, blended=blended)

    @property
    def answered(self) -> np.ndarray:
        """Bool [n]."""
        return self.folds > 0

    @property
    def total(self) -> np.ndarray:
        """The sum over the folds that answered, float64 [n, width].

        Always in the order of the folds: in another one the last bit may differ, and devices answer in any order.
        """
        total = np.zeros(self.alive.shape)
        for fold in sorted(self.by_fold):
            total += self.by_fold[fold]
        return total

    def table(self) -> np.ndarray:
        """The mean over the folds, float32 [n, width]; 0 where nothing was answered."""
        return (self.total / np.maximum(self.folds, 1)[:, None]).astype(np.float32)

    def of_fold(self, fold: int) -> np.ndarray:
        """`by_fold` of a fold, to be added to."""
        return self.by_fold.setdefault(fold, np.zeros(self.alive.shape))

    def end(self, reason: str) -> None:
        """End the turn before everything is answered."""
        self.state = "partial" if self.answered.any() else "skipped"
        self.reason = reason

    def shortfall(self) -> str:
        """What is not answered, in words."""
        asked, whole = int(self.planned.sum()), int((self.folds >= self.asked_folds).sum())
        partly = int(self.answered.sum()) - whole
        parts = [f"answered {whole} of {asked or len(self.folds)} questions"]
        if partly:
            parts.append(f"{partly} more with some of its {self.asked_folds} folds only")
        return "; ".join([*parts, self.reason])


@dataclass(frozen=True)
class Recipes:
    """How the answers of any rankers become one.

    Attributes:
        whole: of all rankers; it also blends some of them where `partial` has none.
        partial: the names of some rankers -> the recipe tuned for these.
    """

    whole: Recipe
    partial: Mapping[frozenset[str], Recipe] = field(default_factory=dict)

    def of(self, names: Sequence[str]) -> Recipe:
        return self.partial.get(frozenset(names), self.whole)


class Answers:
    """All that is known of the answers to n questions while the rankers are at work.

    Attributes:
        questions: n, answers hidden or not; no ranker sees them.
        exists: bool [n, width], the options that are there.
        turns: name -> its turn, in the order of the rankers, cheapest first.
        baseline: float32 [n, width], the answer where no ranker has given one, of the kind `baseline_kind`.
        timeline: takes what happens to the rankers.
        sample: bool [n], the only questions that rankers with a model read; None: all of them.

    Args:
        asked_folds: name -> how many folds it is asked for, in the order of the rankers.
        unblended: the rankers that answer only for others, which read their scores.
    """

    def __init__(
        self,
        questions: Questions,
        recipes: Recipes,
        asked_folds: Mapping[str, int],
        timeline: Timeline,
        sample: np.ndarray | None = None,
        unblended: Collection[str] = (),
    ):
        self.questions, self.recipes, self.timeline, self.sample = questions, recipes, timeline, sample
        self.exists = questions.exists()
        self.turns = {
            name: Turn.waiting(self.exists, folds, name not in unblended) for name, folds in asked_folds.items()
        }
        self.baseline, self.baseline_kind = longest_options(questions), "the longest option"

    # --- taking answers ---

    def add(self, name: str, rows: Sequence[int] | np.ndarray, table: np.ndarray, fold: int = 0) -> None:
        """Add what one fold of a ranker says of the questions at these positions.

        Args:
            fold: its number among those that are asked.
            table: float [rows, width]; only the options that the ranker was shown count.

        Raises:
            Fault: they are no probabilities; nothing is added.
        """
        turn = self.turns[name]
        inside = np.where(turn.alive[rows], table, 0.0).astype(np.float64)
        wrong = ~(np.isfinite(inside).all(axis=1) & (inside >= 0).all(axis=1))
        wrong |= ~(np.abs(inside.sum(axis=1) - 1) < 1e-3)
        if wrong.any():
            id_ = self.questions.ids[int(np.asarray(rows)[np.argmax(wrong)])]
            raise Fault(f"it gave NaN or what does not sum to 1 for {wrong.sum()} questions (first: id {id_})")
        turn.of_fold(fold)[rows] += inside
        turn.folds[rows] += 1

    def replace(self, name: str, rows: np.ndarray, tables: Sequence[np.ndarray]) -> None:
        """Take what the folds of a ranker say of the questions at these positions in the place of what they said.

        Raises:
            Fault: see `add`; what they said before counts.
        """
        turn = self.turns[name]
        before = {fold: table.copy() for fold, table in turn.by_fold.items()}, turn.folds.copy()
        for known in turn.by_fold.values():
            known[rows] = 0.0
        turn.folds[rows] = 0
        try:
            for fold, table in enumerate(tables):
                self.add(name, rows, table, fold)
        except Fault:
            turn.by_fold, turn.folds = before
            raise

    def scored(self, source: str, reader: str) -> np.ndarray:
        """The questions of which a ranker has scored every option that another one is shown, bool [n]."""
        turn, shown = self.turns[source], self.turns[reader].alive
        return turn.answered & ~(shown & ~turn.alive).any(axis=1)

    def add_imported(self, tables: Mapping[str, np.ndarray]) -> None:
        """Take the answers that another program gave to all questions: name -> float [n, width]."""
        for name, table in tables.items():
            if name in self.turns:
                turn = self.turns[name]
                turn.of_fold(0)[:] = table
                turn.folds += 1
                turn.planned[:] = True
                turn.state = "imported"

    def set_baseline(self, scores: Mapping[str, np.ndarray], wanted: str) -> bool:
        """Take retrieval's ranking of the options as the baseline.

        Args:
            scores: kind -> float32 [n, at least width], see `Contexts.option_scores`.
            wanted: the kind that is taken where it is there.

        Returns:
            False where there are no scores.
        """
        kind = wanted if wanted in scores else next(iter(sorted(scores)), None)
        if kind is None:
            return False
        table = np.nan_to_num(scores[kind][:, : self.exists.shape[1]])
        self.baseline = masked_softmax(table / SCORE_TEMPERATURE, self.exists)
        self.baseline_kind = f"retrieval's {kind} similarity"
        self.timeline.note(f"baseline: {self.baseline_kind}")
        return True

    # --- what becomes of the rankers ---

    def fail(self, name: str, reason: str) -> None:
        """Leave a ranker out from here on; what it has answered counts."""
        turn = self.turns[name]
        turn.state, turn.reason = "failed", reason
        say(f"WARNING: the ranker {name} is left out: {reason}")
        self.timeline.note(f"{name} left out: {reason}")

    def give_up(self, reason: str, running: str = "") -> None:
        """End the turns of the rankers that wait, and of the one that is running."""
        for name, turn in self.turns.items():
            if name == running or turn.state == "waiting":
                turn.end(reason)

    def shortfalls(self) -> list[str]:
        """What the rankers that were cut short have not answered, a line for each."""
        cut = {name: turn for name, turn in self.turns.items() if turn.state in ("partial", "skipped")}
        return [f"{name} {turn.shortfall()}" for name, turn in cut.items()]

    def answered_by_all(self) -> int:
        """The number of questions that every ranker has answered."""
        return int(np.all([turn.answered for turn in self.turns.values()], axis=0).sum())

    def public_run(self) -> str:
        """What a run on a sample has proven, in words."""
        return f"public run: {self.answered_by_all()} of {len(self.questions)} questions answered by all rankers"

    def left_devices(self) -> list[str]:
        """A line for each device that was left out while a ranker answered."""
        return [
            f"{name}: {device} was left out, and others took its questions: {work.left_out}"
            for name, turn in self.turns.items()
            for device, work in turn.devices.items()
            if work.left_out
        ]

    def overflows(self) -> list[str]:
        """A line for each ranker some of whose scores overflowed in float16."""
        counts = {name: (len(turn.work.float32_rows), turn) for name, turn in self.turns.items()}
        return [
            f"{name}: {count} of {int(turn.answered.sum())} questions overflowed in float16, and were scored again in "
            "float32"
            for name, (count, turn) in counts.items()
            if count
        ]

    def unscored(self) -> list[str]:
        """A line for each ranker that had to answer without the scores of another one that it reads."""
        if self.sample is not None:
            return []  # what is not in the sample has no scores, as it is meant
        return [
            f"{name}: {count} of {int(turn.answered.sum())} questions answered without the scores of {source}"
            for name, turn in self.turns.items()
            for source, count in turn.unscored.items()
        ]

    # --- the best answer so far ---

    @property
    def blended_turns(self) -> dict[str, Turn]:
        """The turns of the rankers whose answers are blended."""
        return {name: turn for name, turn in self.turns.items() if turn.blended}

    def any_answer(self) -> np.ndarray:
        """Bool [n]: whether at least one ranker whose answers are blended has answered the question."""
        answered = [turn.answered for turn in self.blended_turns.values()]
        return np.any(answered, axis=0) if answered else np.zeros(len(self.questions), dtype=bool)

    def groups(self) -> list[tuple[tuple[str, ...], np.ndarray]]:
        """The sets of rankers that have answered the same questions, and the positions of these."""
        turns = self.blended_turns
        if not turns:
            return [((), np.arange(len(self.questions)))]
        # bool [n, rankers] -> its distinct rows, and for each question which of them it has
        answered = np.stack([turn.answered for turn in turns.values()], axis=1)
        kinds, kind_of = np.unique(answered, axis=0, return_inverse=True)
        names = [tuple(name for name, there in zip(turns, kind, strict=True) if there) for kind in kinds]
        return [(group, np.flatnonzero(kind_of.ravel() == i)) for i, group in enumerate(names)]

    def blended(self) -> np.ndarray:
        """The best answer so far, float32 [n, width]: each question by the recipe of the rankers that read it."""
        result = self.baseline.astype(np.float32, copy=True)
        for names, rows in self.groups():
            if names:
                result[rows] = self._blend(names, rows)
        return result

    def _blend(self, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """The blend of these rankers, float32 [rows, width]."""
        exists = self.exists[rows]
        tables = {name: self.turns[name].table()[rows] for name in names}
        shown = [self.turns[name].alive[rows] for name in names]
        if all((alive == exists).all() for alive in shown):
            return apply_recipe(self.recipes.of(names), tables, exists)
        # Some options were dropped: each ranker refines the blend of those before it, among the options still alive.
        blend, alive = apply_recipe(self.recipes.of(names[:1]), tables, exists), shown[0]
        for count in range(2, len(names) + 1):
            alive = alive & shown[count - 1]
            some = {name: tables[name] for name in names[:count]}
            blend = refine(self.recipes.of(names[:count]), some, exists, alive, blend)
        return blend
