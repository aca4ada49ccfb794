"""The submission while it runs: rankers in turn, the cheapest first, and at every moment a complete answer on disk."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from solution import __version__
from solution.config import SCORE_TEMPERATURE
from solution.ensemble.blend import Recipe, apply_recipe
from solution.ensemble.cascade import Stage, doubt, living, refine, unsure
from solution.ensemble.costs import Cost
from solution.errors import UserError
from solution.exam import Exam
from solution.files import MANIFEST, content_hash, hashing, read_json
from solution.inference.child import END, Child, cause_of_death
from solution.inference.jobs import Batch, Fault, OutOfTime, batch_size, cut, json_cell
from solution.inference.journal import Journal
from solution.inference.limits import Limits
from solution.inference.plan import SAMPLE, Plan, print_plans, text_sizes
from solution.inference.schedule import START_SECONDS
from solution.inference.turns import Turn
from solution.inference.wire import exam_record, questions_record
from solution.memory import resident_kib
from solution.probabilities import masked_softmax
from solution.progress import progress_bar, say
from solution.questions import Questions
from solution.rankers.base import predict_part
from solution.rankers.families import make_ranker
from solution.rankers.untrained import longest_options
from solution.suggestions import running_arguments
from solution.weights import TIMINGS

_WRITE_SECONDS = 60.0
RETRIEVAL_PATIENCE = 30.0
"""Seconds that retrieval may be silent in any case: its process starts, and a large index is opened without a word."""


@dataclass
class Engine:
    """One submission.

    Attributes:
        questions: n, answers hidden or not; no ranker sees them.
        recipe: for all rankers.
        recipes: for some of them: the names -> recipe.
        rankers: name -> `submit.TrainedRanker`, those that are usable.
        costs: name -> cost, of every ranker.
        order: names, cheapest first.
        write: called with the blend, float32 [n, width], whenever there is a better one.
        turns: name -> what became of it.
        timeline: (seconds, what happened).
        retrieval_seconds: of all retrieval, of which the embedder's model took `embedder_seconds`.
    """

    questions: Questions
    recipe: Recipe
    recipes: Mapping[frozenset[str], Recipe]
    rankers: Mapping[str, Any]
    costs: Mapping[str, Cost]
    order: Sequence[str]
    journal: Journal
    limits: Limits
    write: Callable[[np.ndarray], None]
    cache: str
    turns: dict[str, Turn] = field(default_factory=dict)
    timeline: list[tuple[float, str]] = field(default_factory=list)
    exams: dict[str, list[Exam]] = field(default_factory=dict)
    retrieval_seconds: float = 0.0
    embedder_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.exists = self.questions.exists()
        self._to_plan: list[str] = []
        self._planning = ""
        self._exam_jobs: dict[tuple[int, ...], tuple[str, str]] = {}
        self._written = 0.0
        n = len(self.questions)
        for name in self.order:
            self.turns[name] = Turn(
                np.zeros(self.exists.shape), np.zeros(n, dtype=np.int64), self.exists.copy(), np.zeros(n, dtype=bool)
            )
        self.baseline = longest_options(self.questions)
        self.baseline_kind = "the longest option"

    # --- telling ---

    def note(self, text: str) -> None:
        self.timeline.append((round(self.limits.elapsed(), 2), text))

    def fail(self, name: str, reason: str) -> None:
        """Leave a ranker out from here on; what it has answered counts."""
        turn = self.turns[name]
        turn.state, turn.reason = "failed", reason
        say(f"WARNING: the ranker {name} is left out: {reason}")
        self.note(f"{name} left out: {reason}")

    def store(self, force: bool = False) -> None:
        """Write the best answer so far; a disk that is full now may have room at the end."""
        if not force and time.monotonic() - self._written < _WRITE_SECONDS:
            return
        try:
            self.write(self.blended())
        except OSError as error:
            say(f"WARNING: the answer cannot be written now ({error.strerror}); it is tried again")
        self._written = time.monotonic()

    # --- what comes before the rankers ---

    def add_imported(self, answers: Mapping[str, np.ndarray]) -> None:
        for name, table in answers.items():
            if name in self.turns:
                turn = self.turns[name]
                turn.total += table
                turn.folds += 1
                turn.planned[:] = True
                turn.state = "imported"

    def retrieve(self, workdir: str, settings: Mapping[str, Any], views: Mapping[str, Sequence[str]]) -> set[str]:
        """Make the contexts, each of the settings in a process of its own.

        Args:
            settings: key -> retrieval settings.
            views: key -> names of the contexts wanted.

        Returns:
            The keys whose contexts are there; where that fails, their rankers are left out.
        """
        made = set(settings)
        contexts = self.questions.extra.get("context")
        plain = None if contexts is None else [json_cell(value) for value in contexts]
        for key, retrieval in settings.items():
            if retrieval.source == "column" and not retrieval.option_scores:
                continue  # nothing is searched or embedded
            job = {
                "kind": "retrieve",
                "command": running_arguments(),
                "workdir": workdir,
                "retrieval": retrieval.model_dump(mode="json"),
                "views": list(dict.fromkeys(views[key])),
                "verify": hashing(),
                "questions": questions_record(self.questions, contexts=plain),
            }
            started = time.monotonic()
            try:
                # Half of the time is left to rankers that read nothing, or by other settings.
                silence = max(RETRIEVAL_PATIENCE, min(self.limits.ranker_timeout, self.limits.left() / 2))
                complaint = "it did not go on (--ranker-timeout, --deadline) for"
                self._watch(json.dumps(job).encode(), self._retrieved, silence, complaint)
                self.note("contexts made")
            except (Fault, OutOfTime) as error:
                made.remove(key)
                self.note(f"no contexts: {str(error) or 'the deadline came'}")
                for name, ranker in self.rankers.items():
                    if ranker.retrieval is None or ranker.retrieval.hash() != key:
                        continue
                    if isinstance(error, Fault):
                        self.fail(name, f"retrieval failed: {error}")
                    else:
                        self.turns[name].state, self.turns[name].reason = "skipped", "the deadline came in retrieval"
            self.retrieval_seconds += time.monotonic() - started
        return made

    def _retrieved(self, event: dict[str, Any]) -> None:
        self.embedder_seconds += event.get("model_seconds", 0.0)

    def set_exams(self, exams: Mapping[str, list[Exam]]) -> None:
        """Take the rankers' exams; retrieval's own ranking of the options becomes the baseline where there is one."""
        self.exams = dict(exams)
        for name, views in self.exams.items():
            if self.set_baseline(views[0].option_scores, self.rankers[name].config.option_score):
                return

    def set_baseline(self, scores: Mapping[str, np.ndarray], wanted: str) -> bool:
        """Take retrieval's own ranking of the options as the baseline, by the score wanted or another; whether one is
        there."""
        kind = wanted if wanted in scores else next(iter(sorted(scores)), None)
        if kind is None:
            return False
        table = np.nan_to_num(scores[kind][:, : self.exists.shape[1]])
        self.baseline = masked_softmax(table / SCORE_TEMPERATURE, self.exists)
        self.baseline_kind = f"retrieval's {kind} similarity"
        self.note(f"baseline: {self.baseline_kind}")
        return True

    # --- the rankers ---

    def run(self, stages: Sequence[Stage], everything: Sequence[Stage]) -> None:
        """Each ranker's turn.

        Args:
            stages: the cascade.
            everything: a second pass for the time that is left; empty for none.
        """
        running = ""
        asked = dict.fromkeys(stage.ranker for stage in (*stages, *everything))
        self._to_plan = [n for n in asked if n in self.rankers and self.rankers[n].config.has_model]
        try:
            for passing in (stages, everything):
                before: Stage | None = None
                for stage in passing:
                    state = self.turns[stage.ranker].state
                    if state in ("waiting", "finished"):
                        running = stage.ranker
                        self._turn(stage, before)
                    elif state != "imported":
                        self._plan(stage, before)  # what its turn would have been is the next one's
                    before = stage
                    self.store(force=True)
            for turn in self.turns.values():
                if turn.state == "waiting":
                    turn.state, turn.reason = "unused", "the cascade does not ask it"
        except OutOfTime:
            self.note("the deadline")
            self.give_up("the deadline came", running)

    def give_up(self, reason: str, running: str = "") -> None:
        """Mark the rankers that have not had their turn, or not the whole of it."""
        for name, turn in self.turns.items():
            if name == running or turn.state == "waiting":
                turn.state = "partial" if turn.answered.any() else "skipped"
                turn.reason = reason

    def _plan(self, stage: Stage, before: Stage | None) -> np.ndarray:
        """Which questions the ranker is to read now, int positions, the least sure first."""
        turn = self.turns[stage.ranker]
        blend = self.blended()
        wanted = ~turn.planned
        if before is not None:
            any_answer = np.any([other.answered for other in self.turns.values()], axis=0)
            wanted &= self.turns[before.ranker].planned & (unsure(stage, blend, self.exists) | ~any_answer)
            alive = np.logical_and.reduce([other.alive for other in self.turns.values() if other.planned.any()])
            narrowed = living(blend, alive, stage.alive)
            turn.alive[wanted] = np.where(any_answer[:, None], narrowed, self.exists)[wanted]
        turn.planned |= wanted
        rows = np.flatnonzero(wanted)
        return rows[np.argsort(-doubt(blend, self.exists, stage.by)[rows], kind="stable")] if before else rows

    def _turn(self, stage: Stage, before: Stage | None) -> None:
        name, turn = stage.ranker, self.turns[stage.ranker]
        rows = self._plan(stage, before)
        if not len(rows):
            turn.state = "finished"
            return
        ranker = self.rankers[name]
        try:
            if ranker.config.has_model:
                self._answer(ranker, rows, stage)
            else:
                self._answer_here(ranker, rows)
        except (Fault, UserError, OSError) as error:
            self.fail(name, str(error))
            return
        turn.state = "finished"
        if turn.reason:
            turn.state = "partial" if turn.answered.any() else "skipped"
        else:
            self.note(f"{name}: {len(rows)} questions answered")

    def _answer_here(self, ranker: Any, rows: np.ndarray) -> None:
        """A ranker without a model needs no process."""
        turn, started = self.turns[ranker.name], time.monotonic()
        alive = turn.alive[rows]
        try:
            model = make_ranker(ranker.config, Path(self.cache))
            table = predict_part(model, self.exams[ranker.name], rows.tolist(), alive, self.exists.shape[1])
        except Exception as error:  # noqa: BLE001 - as in worker.main
            raise Fault(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}") from error
        problem = self._take(turn, rows, table)
        if problem is not None:
            raise Fault(problem)
        turn.done += len(rows)
        turn.seconds += time.monotonic() - started
        turn.load_seconds = 0.0

    def _answer(self, ranker: Any, rows: np.ndarray, stage: Stage) -> None:
        turn, width = self.turns[ranker.name], self.exists.shape[1]
        exam, exam_hash = self._exam(ranker.name)
        own = content_hash(__version__, ranker.config.hash(), exam_hash)
        folders = ranker.asked_folders
        speed = self.costs[ranker.name].fold_seconds
        batches = []
        for fold, folder in enumerate(folders):
            files = read_json(folder / MANIFEST, "the manifest of the fold's weights", "")["files"]
            weights = {name: digest for name, digest in files.items() if name not in TIMINGS}
            for part in cut(rows, len(rows) if ranker.config.stream else batch_size(speed)):
                ids = [self.questions.ids[row] for row in part]
                shown = np.packbits(turn.alive[part]).tolist()
                batches.append(Batch(fold, part, content_hash(own, weights, ids, shown, width)))
        missing = []
        for batch in batches:
            kept = self.journal.read(batch.key, (len(batch.rows), width))
            if kept is None or self._take(turn, batch.rows, kept) is not None:
                missing.append(batch)
            else:
                turn.from_journal += len(batch.rows)
        if turn.from_journal:
            self.note(f"{ranker.name}: {turn.from_journal} answers taken from the journal")
        if not missing:
            return
        if turn.plan is not None and turn.plan.problem:
            raise Fault(turn.plan.problem)
        first = (speed or 0.0) * len(missing[0].rows)
        left = self.limits.left()
        if left < START_SECONDS + stage.load_seconds + first:
            needed = f"{START_SECONDS + stage.load_seconds:.0f} s to start and {first:.0f} s for a first batch"
            if left <= 0:
                raise OutOfTime
            turn.reason = f"{needed} no longer fit into the {left:.0f} s that are left"
            say(f"{ranker.name} is not started: {turn.reason}")
            self.note(f"{ranker.name} not started: {turn.reason}")
            return
        units = sum(len(batch.rows) for batch in missing)
        minutes = (units * (speed or 0.0) + stage.load_seconds + START_SECONDS) / 60
        expected = "" if speed is None else f", about {minutes:.1f} min"
        say(f"{ranker.name}: {len(rows)} questions, {len(folders)} folds{expected}")
        job = {
            "kind": "answer",
            "command": running_arguments(),
            "config": ranker.config.model_dump(mode="json"),
            "cache": self.cache,
            "memory": self.limits.memory,
            "held": 1024 * (resident_kib() or 0),
            "folders": [str(folder.resolve()) for folder in folders],
            "batches": [
                {"fold": batch.fold, "rows": batch.rows, "alive": turn.alive[batch.rows].tolist()} for batch in missing
            ],
        }
        with progress_bar(units, ranker.name) as bar:
            started = 0.0

            def take(event: dict[str, Any]) -> None:
                nonlocal started
                if event["event"] == "loaded":
                    turn.load_seconds = time.monotonic() - started
                    self.note(f"{ranker.name}: loaded")
                if event["event"] == "planning":
                    self._planning = event["ranker"]
                if event["event"] == "plans":
                    self._planned([Plan(**values) for values in event["plans"]])
                    started += event["seconds"]  # the others' planning is not its loading
                if event["event"] == "given_back":
                    turn.used_mib = event["used_mib"]
                    if event["summary"]:
                        say(event["summary"])
                    if event["kept_mib"]:
                        say(f"WARNING: {ranker.name} has not given back {event['kept_mib']} MiB of its memory")
                if event["event"] != "part":
                    return
                batch = missing[event["number"]]
                data = base64.b64decode(event["table"])
                table = np.frombuffer(data, dtype="<f4").reshape(len(batch.rows), width)
                problem = self._take(turn, batch.rows, table)
                if problem is not None:
                    raise Fault(problem)
                self.journal.write(batch.key, table)
                turn.done += len(batch.rows)
                turn.seconds += event["seconds"]
                turn.model_seconds += event["model_seconds"]
                turn.peak_mib = event["peak_mib"]
                bar.advance(len(batch.rows))
                self.store()

            while True:
                started, self._planning = time.monotonic(), ""
                job["plan"] = turn.plan and vars(turn.plan)
                others = [each for each in self._unplanned() if each != ranker.name]
                job["to_plan"] = [] if turn.plan else list(map(self._to_be_planned, [ranker.name, *others]))
                text = f'{json.dumps(job)[:-1]}, "exam": {exam}}}'  # the long part is not made again for every ranker
                silence = self.limits.ranker_timeout
                try:
                    self._watch(text.encode(), take, silence, "--ranker-timeout: it finished no batch in")
                    return
                except Fault as error:
                    if self._planning in ("", ranker.name):
                        raise
                    # It was another one's model that it did not survive.
                    batch, lost = self.rankers[self._planning].config.predict_tokens_per_batch, self._planning
                    self.turns[lost].plan = Plan(lost, 0, 0, 0, 0, batch, 0, f"its memory was being planned: {error}")

    def _unplanned(self) -> list[str]:
        """The rankers that may run and whose memory is not planned yet."""
        states = ("waiting", "finished")  # a second pass asks the finished ones too
        return [each for each in self._to_plan if self.turns[each].plan is None and self.turns[each].state in states]

    def _to_be_planned(self, name: str) -> dict[str, Any]:
        """What a process needs to plan a ranker's memory: its longest questions, as many as it may be asked at once."""
        ranker, views = self.rankers[name], self.exams[name]
        at_once = len(self.questions)
        if not ranker.config.stream:
            at_once = min(at_once, batch_size(self.costs[name].fold_seconds))
        sizes = np.max([text_sizes(ranker.config, exam) for exam in views], axis=0)
        rows = np.argsort(-sizes, kind="stable")[: min(at_once, SAMPLE)].tolist()
        return {
            "config": ranker.config.model_dump(mode="json"),
            "folders": [str(folder.resolve()) for folder in ranker.asked_folders],
            "questions": at_once,
            "exam": exam_record([exam.subset(rows) for exam in views]),
        }

    def _planned(self, plans: Sequence[Plan]) -> None:
        """Take the memory planned for all rankers and show it."""
        self._planning = ""
        for plan in plans:
            self.turns[plan.ranker].plan = plan
        print_plans([turn.plan for turn in self.turns.values() if turn.plan is not None])
        for plan in plans:
            if plan.unknown:
                say(
                    f"{plan.ranker}: the memory it will take cannot be told ({plan.unknown}); its batches stay at "
                    f"{plan.batch} tokens"
                )

    def _exam(self, name: str) -> tuple[str, str]:
        """The ranker's exams as JSON text, and its hash; rankers that read the same share it."""
        views = self.exams[name]
        key = tuple(id(view.passages) for view in views)
        if key not in self._exam_jobs:
            text = json.dumps(exam_record(views))
            self._exam_jobs = {key: (text, content_hash(text.encode()))}
        return self._exam_jobs[key]

    def _take(self, turn: Turn, rows: Sequence[int] | np.ndarray, table: np.ndarray) -> str | None:
        """Add one fold's answers to these questions; what is wrong with them where they are no probabilities."""
        alive = turn.alive[rows]
        inside = np.where(alive, table, 0.0).astype(np.float64)
        wrong = ~(np.isfinite(inside).all(axis=1) & (inside >= 0).all(axis=1))
        wrong |= ~(np.abs(inside.sum(axis=1) - 1) < 1e-3)
        if wrong.any():
            id_ = self.questions.ids[int(np.asarray(rows)[np.argmax(wrong)])]
            return f"it gave NaN or what does not sum to 1 for {wrong.sum()} questions (first: id {id_})"
        turn.total[rows] += inside
        turn.folds[rows] += 1
        return None

    def _watch(self, job: bytes, take: Callable[[dict[str, Any]], None], limit: float, complaint: str) -> None:
        """Have a job done in a process of its own, until it ends, is silent for `limit` seconds or the deadline comes.

        Args:
            take: called with each event.
            complaint: begins what is said of a silent one.
        """
        with Child(job) as child:
            heard = time.monotonic()
            error = ""
            while True:
                left = self.limits.left()
                silent = time.monotonic() - heard
                if left <= 0:
                    raise OutOfTime
                if silent >= limit:
                    raise Fault(f"{complaint} {limit:g} s")
                event = child.event(min(left, limit - silent))
                if event is None:
                    continue
                heard = time.monotonic()
                if event["event"] == "error":
                    error = event["reason"]
                elif event["event"] == "done":
                    return  # it need not take down its libraries
                elif event["event"] == END:
                    raise Fault(error or cause_of_death(event["code"]))
                else:
                    take(event)

    # --- the answer ---

    def shortfalls(self) -> list[str]:
        """What the rankers that were cut short have not answered, a line for each."""
        lines = []
        for name, turn in self.turns.items():
            if turn.state not in ("partial", "skipped"):
                continue
            folds = len(self.rankers[name].asked_folders) if name in self.rankers else 1
            asked, whole = int(turn.planned.sum()), int((turn.folds >= folds).sum())
            partly = int(turn.answered.sum()) - whole
            told = [f"{name} answered {whole} of {asked or len(self.questions)} questions"]
            told += [f"{partly} more with some of its {folds} folds only"] if partly else []
            lines.append("; ".join([*told, turn.reason]))
        return lines

    def blended(self) -> np.ndarray:
        """The best answer so far, float32 [n, width]: each question by the recipe of the rankers that read it."""
        result = self.baseline.astype(np.float32, copy=True)
        for names, rows in self.groups():
            if names:
                result[rows] = self._blend(names, rows)
        return result

    def groups(self) -> list[tuple[tuple[str, ...], np.ndarray]]:
        """The sets of rankers, in their order, that have answered questions, and which: positions."""
        if not self.order:
            return [((), np.arange(len(self.questions)))]
        seen = np.stack([self.turns[name].answered for name in self.order], axis=1)
        kinds, which = np.unique(seen, axis=0, return_inverse=True)
        names = [tuple(name for name, there in zip(self.order, kind, strict=True) if there) for kind in kinds]
        return [(each, np.flatnonzero(which.ravel() == i)) for i, each in enumerate(names)]

    def recipe_for(self, names: Sequence[str]) -> Recipe:
        return self.recipes.get(frozenset(names), self.recipe)

    def _blend(self, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
        exists = self.exists[rows]
        tables = {name: self.turns[name].table()[rows] for name in names}
        shown = [self.turns[name].alive[rows] for name in names]
        if all((alive == exists).all() for alive in shown):
            return apply_recipe(self.recipe_for(names), tables, exists)
        blend, alive = apply_recipe(self.recipe_for(names[:1]), tables, exists), shown[0]
        for count in range(2, len(names) + 1):
            alive = alive & shown[count - 1]
            some = {name: tables[name] for name in names[:count]}
            blend = refine(self.recipe_for(names[:count]), some, exists, alive, blend)
        return blend
