"""The answers of one ranker: from the journal, from a process of its own, or here where it has no model."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solution import __version__
from solution.files import MANIFEST, content_hash, read_json
from solution.inference.asking import Asking
from solution.inference.jobs import Batch, Fault, OutOfTime, Patience, batch_size, cut, job_text, run_job
from solution.inference.journal import AnswerJournal
from solution.inference.memory_plan import SAMPLE, MemoryPlan, print_plans, text_sizes
from solution.inference.outputs import AnswerFile
from solution.inference.schedule import START_SECONDS
from solution.inference.wire import AnswerJob, Event, GivenBackEvent, PartEvent, PlanRequest, PlansEvent, exam_record
from solution.memory import resident_kib
from solution.progress import Bar, progress_bar, say
from solution.suggestions import running_arguments
from solution.weights import TIMINGS


@dataclass
class Answering(Asking):
    """Has the rankers of a submission answer: those with a model each in a process of its own, batch by batch.

    Attributes:
        journal: takes each finished batch of a model, and gives back those of an earlier run.
        file: the answer on disk, written anew now and then.
        to_plan: names of the rankers with a model that will be asked: the first one's process plans the memory of all.
        planning: the ranker whose memory is being planned now; empty: none.
    """

    journal: AnswerJournal
    file: AnswerFile

    def __post_init__(self) -> None:
        self.to_plan: list[str] = []
        self.planning = ""
        self._exam_texts: dict[tuple[int, ...], tuple[str, str]] = {}

    def plan_for(self, names: Sequence[str]) -> None:
        """Name all the rankers that will be asked."""
        self.to_plan = [name for name in dict.fromkeys(names) if name in self.rankers and self.rankers[name].has_model]

    def store(self, force: bool = False) -> None:
        """See `AnswerFile.store`."""
        self.file.store(force)

    def answer(self, name: str, rows: np.ndarray) -> None:
        """Have a ranker answer questions; its turn has a reason afterwards when it was not started.

        What it has said of them before is replaced where the scores of other rankers are among its signals.

        Args:
            rows: int, positions of the questions, in the order in which they are read.

        Raises:
            Fault: it cannot answer; what it has answered until then counts.
            OutOfTime: the deadline came.
        """
        if not self.rankers[name].has_model:
            super().answer(name, rows)
            return
        turn = self.answers.turns[name]
        # An earlier run of the same submission may have answered some.
        missing = [batch for batch in self._batches(name, rows) if not self._take_from_journal(name, batch)]
        if turn.from_journal:
            self.answers.timeline.note(f"{name}: {turn.from_journal} answers taken from the journal")
        if not missing:
            return
        if turn.plan is not None and turn.plan.problem:
            raise Fault(turn.plan.problem)
        # A process that is ended before its first batch is there would only have taken time from others.
        load_seconds = self.rankers[name].load_seconds
        if not self._starts_in_time(name, len(missing[0].rows), load_seconds):
            return
        self._announce(name, len(rows), missing, load_seconds)
        self._ask(name, missing)

    # --- batches and the journal ---

    def _batches(self, name: str, rows: np.ndarray) -> list[Batch]:
        """The questions at these positions for each fold in turn, in pieces of some seconds.

        A batch's key names all that its answers depend on: version, settings, exam, the fold's files, the questions
        and options shown.
        """
        ranker = self.rankers[name]
        config, alive = ranker.trained.config, self.answers.turns[name].alive
        own = content_hash(__version__, config.hash(), self._exam_text(name)[1])
        # A streamed model is read from disk once for all questions, so one batch has them all.
        size = len(rows) if config.stream else batch_size(ranker.fold_seconds)
        batches = []
        for fold, folder in enumerate(ranker.trained.asked_folders):
            files = read_json(folder / MANIFEST, "the manifest of the fold's weights", "")["files"]
            weights = {file: digest for file, digest in files.items() if file not in TIMINGS}
            for part in cut(rows, size):
                ids = [self.answers.questions.ids[row] for row in part]
                shown = np.packbits(alive[part]).tolist()
                batches.append(Batch(fold, part, content_hash(own, weights, ids, shown, self._width)))
        return batches

    def _take_from_journal(self, name: str, batch: Batch) -> bool:
        """Add the answers to a batch that an earlier run has left; False where there are none."""
        table = self.journal.read(batch.key, (len(batch.rows), self._width))
        if table is None:
            return False
        try:
            self.answers.add(name, batch.rows, table)
        except Fault:  # no probabilities: the ranker is asked once more
            return False
        turn = self.answers.turns[name]
        turn.from_journal += len(batch.rows)
        noted = self.journal.note(batch.key)
        turn.alike |= noted if isinstance(noted, dict) else {}
        return True

    # --- time ---

    def _starts_in_time(self, name: str, first_batch: int, load_seconds: float) -> bool:
        """Whether a first batch of so many questions can be answered before the deadline; if not, the turn says so.

        Raises:
            OutOfTime: there is no time at all.
        """
        first = (self.rankers[name].fold_seconds or 0.0) * first_batch
        left = self._limits.left()
        if left >= START_SECONDS + load_seconds + first:
            return True
        if left <= 0:
            raise OutOfTime
        needed = f"{START_SECONDS + load_seconds:.0f} s to start and {first:.0f} s for a first batch"
        reason = f"{needed} no longer fit into the {left:.0f} s that are left"
        self.answers.turns[name].reason = reason
        say(f"{name} is not started: {reason}")
        self.answers.timeline.note(f"{name} not started: {reason}")
        return False

    def _announce(self, name: str, questions: int, batches: Sequence[Batch], load_seconds: float) -> None:
        ranker = self.rankers[name]
        expected = ""
        if ranker.fold_seconds is not None:
            units = sum(len(batch.rows) for batch in batches)
            minutes = (units * ranker.fold_seconds + load_seconds + START_SECONDS) / 60
            expected = f", about {minutes:.1f} min"
        say(f"{name}: {questions} questions, {ranker.trained.asked_text}{expected}")

    # --- the process ---

    def _ask(self, name: str, batches: list[Batch]) -> None:
        """Have a process answer the batches.

        Its first task, where the memory is not planned yet, is to plan that of all rankers. When it does not survive
        the planning of another ranker's model, that one is marked, and a new process goes on without it.
        """
        patience = Patience(self._limits.ranker_timeout, "--ranker-timeout: it finished no batch in")
        with progress_bar(sum(len(batch.rows) for batch in batches), name) as bar:
            while True:
                self.planning = ""
                listener = _Listener(self, name, batches, bar)
                job = job_text(self._job(name, batches), exam=self._exam_text(name)[0])
                try:
                    run_job(job, listener.take, self._limits, patience)
                    return
                except Fault as error:
                    if self.planning in ("", name):
                        raise
                    self._cannot_be_planned(self.planning, str(error))

    def _cannot_be_planned(self, name: str, error: str) -> None:
        batch = self.rankers[name].trained.config.predict_tokens_per_batch
        problem = f"its memory was being planned: {error}"
        self.answers.turns[name].plan = MemoryPlan(name, 0, 0, 0, 0, batch, 0, problem)

    def _job(self, name: str, batches: Sequence[Batch]) -> AnswerJob:
        """The job without its exam."""
        trained, turn = self.rankers[name].trained, self.answers.turns[name]
        to_plan = [] if turn.plan else [name, *(other for other in self._unplanned() if other != name)]
        return {
            "kind": "answer",
            "command": running_arguments(),
            "config": trained.config.model_dump(mode="json"),
            "cache": str(self.cache),
            "memory": self._limits.memory,
            "held": 1024 * (resident_kib() or 0),
            "folders": [str(folder.resolve()) for folder in trained.asked_folders],
            "batches": [
                {"fold": batch.fold, "rows": batch.rows, "alive": turn.alive[batch.rows].tolist()} for batch in batches
            ],
            "plan": None if turn.plan is None else vars(turn.plan),
            "to_plan": [self._plan_request(each) for each in to_plan],
        }

    def _unplanned(self) -> list[str]:
        """The rankers that may still be asked and whose memory is not planned yet."""
        turns = {name: self.answers.turns[name] for name in self.to_plan}
        may_run = ("waiting", "finished")  # a second pass asks the finished ones too
        return [name for name, turn in turns.items() if turn.plan is None and turn.state in may_run]

    def _plan_request(self, name: str) -> PlanRequest:
        """What a process needs to plan a ranker's memory: its longest questions, as many as it may be asked at once."""
        ranker = self.rankers[name]
        config, at_once = ranker.trained.config, len(self.answers.questions)
        if not config.stream:
            at_once = min(at_once, batch_size(ranker.fold_seconds))
        sizes = np.max([text_sizes(config, exam) for exam in ranker.exams], axis=0)
        rows = np.argsort(-sizes, kind="stable")[: min(at_once, SAMPLE)].tolist()
        return {
            "config": config.model_dump(mode="json"),
            "folders": [str(folder.resolve()) for folder in ranker.trained.asked_folders],
            "questions": at_once,
            "exam": exam_record([exam.subset(rows) for exam in ranker.exams]),
        }

    def _exam_text(self, name: str) -> tuple[str, str]:
        """The ranker's exams as JSON, and the hash of this text.

        Rankers that read the same contexts share it; only the last one is kept, since it may be large.
        """
        exams = self.rankers[name].exams
        key = tuple(id(exam.passages) for exam in exams)
        if key not in self._exam_texts:
            text = json.dumps(exam_record(exams))
            self._exam_texts = {key: (text, content_hash(text.encode()))}
        return self._exam_texts[key]


class _Listener:
    """Takes the events of a ranker's process."""

    def __init__(self, answering: Answering, name: str, batches: Sequence[Batch], bar: Bar):
        self._answering, self._answers = answering, answering.answers
        self._name, self._batches, self._bar = name, batches, bar
        self._turn = self._answers.turns[name]
        self._started = time.monotonic()

    def take(self, event: Event) -> None:
        """Take an event.

        Raises:
            Fault: it holds answers that are no probabilities.
        """
        if event["event"] == "planning":
            self._answering.planning = event["ranker"]
        elif event["event"] == "plans":
            self._take_plans(event)
        elif event["event"] == "device":
            self._turn.work.computed_on = event["computed_on"]
            if event["problem"] is not None:
                self._answers.timeline.warn_of_gpu(event["problem"])
        elif event["event"] == "loaded":
            self._turn.work.load_seconds = time.monotonic() - self._started
            self._answers.timeline.note(f"{self._name}: loaded")
        elif event["event"] == "part":
            self._take_part(event)
        elif event["event"] == "given_back":
            self._take_given_back(event)

    def _take_plans(self, event: PlansEvent) -> None:
        """Take the memory planned for all rankers and show it."""
        self._started += event["seconds"]  # that the others' plans took: it does not count as loading
        self._answering.planning = ""
        plans = [MemoryPlan(**values) for values in event["plans"]]
        for plan in plans:
            self._answers.turns[plan.ranker].plan = plan
        print_plans([turn.plan for turn in self._answers.turns.values() if turn.plan is not None])
        for plan in plans:
            if plan.unknown:
                say(
                    f"{plan.ranker}: the memory it will take cannot be told ({plan.unknown}); its batches stay at "
                    f"{plan.batch} tokens"
                )

    def _take_part(self, event: PartEvent) -> None:
        batch, work = self._batches[event["number"]], self._turn.work
        numbers = np.frombuffer(base64.b64decode(event["table"]), dtype="<f4")
        table = numbers.reshape(len(batch.rows), self._answers.exists.shape[1])
        self._answers.add(self._name, batch.rows, table)
        self._turn.alike |= event["alike"]
        if event["alike"]:
            self._answering.journal.write_note(batch.key, event["alike"])
        self._answering.journal.write(batch.key, table)
        work.done += len(batch.rows)
        work.seconds += event["seconds"]
        work.model_seconds += event["model_seconds"]
        work.peak_mib = event["peak_mib"]
        if event["float32_rows"] and not work.float32_rows:
            self._answers.timeline.note(f"{self._name}: overflows in float16")
        work.float32_rows |= set(event["float32_rows"])
        self._bar.advance(len(batch.rows))
        self._answering.store()

    def _take_given_back(self, event: GivenBackEvent) -> None:
        self._turn.work.used_mib = event["used_mib"]
        if event["summary"]:
            say(event["summary"])
        if event["kept_mib"]:
            say(f"WARNING: {self._name} has not given back {event['kept_mib']} MiB of its memory")
