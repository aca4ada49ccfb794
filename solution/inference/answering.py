"""The answers of one ranker: from the journal, from a process of its own, or here where it has no model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solution import __version__
from solution.files import MANIFEST, content_hash, read_json
from solution.inference.asking import Asking
from solution.inference.devices import DEFAULT_DEVICE, ComputeDevice, speed_of
from solution.inference.jobs import Batch, Fault, OutOfTime, Patience, batch_size, cut
from solution.inference.journal import AnswerJournal
from solution.inference.memory_plan import SAMPLE, MemoryPlan, text_sizes
from solution.inference.outputs import AnswerFile
from solution.inference.processes import AskedRanker
from solution.inference.schedule import START_SECONDS, shared_seconds
from solution.inference.shared_batches import Sharing
from solution.inference.wire import AnswerJob, PlanRequest, exam_record
from solution.memory import resident_kib
from solution.progress import progress_bar, say
from solution.suggestions import running_arguments
from solution.weights import TIMINGS

_FAILURES = 2  # rankers that a device may fail with: one of them may ask too much of it


@dataclass
class Answering(Asking):
    """Has the rankers of a submission answer: those with a model each in a process of its own, batch by batch.

    Attributes:
        journal: takes each finished batch of a model, and gives back those of an earlier run.
        file: the answer on disk, written anew now and then.
        devices: those that share the questions of a ranker with a model.
        to_plan: names of the rankers with a model that will be asked: the first one's process plans the memory of all.
        asked: the ranker that was asked last.
    """

    journal: AnswerJournal
    file: AnswerFile
    devices: Sequence[ComputeDevice] = (DEFAULT_DEVICE,)

    def __post_init__(self) -> None:
        self.to_plan: list[str] = []
        self.asked: AskedRanker | None = None
        self._failures: Counter[str] = Counter()
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
            self.answers.add(name, batch.rows, table, batch.fold)
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
            seconds = shared_seconds(units * ranker.fold_seconds, speed_of(self.devices_of(name)))
            expected = f", about {(seconds + load_seconds + START_SECONDS) / 60:.1f} min"
        devices = self.devices_of(name)
        shared = f", on {len(devices)} devices" if len(devices) > 1 else ""
        say(f"{name}: {questions} questions, {ranker.trained.asked_text}{shared}{expected}")

    # --- the process ---

    def _ask(self, name: str, batches: list[Batch]) -> None:
        """Have processes answer the batches, one on each device; the first one ever plans the memory of all rankers."""
        patience = Patience(self._limits.ranker_timeout, "--ranker-timeout: it finished no batch in")
        devices = self.devices_of(name)
        with progress_bar(sum(len(batch.rows) for batch in batches), name) as bar:
            self.asked = AskedRanker(
                *(self.answers, name, batches, devices, self.journal, self.file, bar),
                write_job=lambda: (self._job(name), self._exam_text(name)[0]),
                cannot_be_planned=self._cannot_be_planned,
            )
            sharing = Sharing(self.asked, len(batches), devices, self._limits, patience)
            sharing.run()
        self._failures.update(sharing.errors)

    def _cannot_be_planned(self, name: str, error: str) -> None:
        batch = self.rankers[name].trained.config.predict_tokens_per_batch
        problem = f"its memory was being planned: {error}"
        self.answers.turns[name].plan = MemoryPlan(name, 0, 0, 0, 0, batch, 0, problem)

    def devices_of(self, name: str) -> list[ComputeDevice]:
        """The devices that share a ranker's questions.

        A model that is read layer by layer is read once for all questions. A device that has failed with two rankers
        that others could answer is not asked again.
        """
        sound = [device for device in self.devices if self._failures[device.name] < _FAILURES] or list(self.devices)
        return sound[:1] if self.rankers[name].trained.config.stream else sound

    def _job(self, name: str) -> AnswerJob:
        """The job of one of its processes, without its exam."""
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
            "fold": 0,
            "on_gpu": False,
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
