"""A ranker that is asked: the jobs of its processes, and what becomes of the events that they tell."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from solution.inference.devices import ComputeDevice
from solution.inference.jobs import Batch, job_text
from solution.inference.journal import AnswerJournal
from solution.inference.memory_plan import MemoryPlan, Room, print_plans, room_for
from solution.inference.outputs import AnswerFile
from solution.inference.turns import Answers, Work, max_known
from solution.inference.wire import AnswerJob, BatchRecord, Event, GivenBackEvent, PartEvent, PlansEvent
from solution.progress import Bar, say


@dataclass
class AskedRanker:
    """A ranker whose batches are shared out, see `BatchedRanker`.

    Attributes:
        devices: those that answer.
        journal: takes each finished batch.
        file: the answer on disk, written anew now and then.
        bar: shows the questions that are answered.
        write_job: gives the job, but for its fold and device, and the exam as JSON text.
        cannot_be_planned: is called with a ranker and the error of the process that planned its memory.
        planning: the ranker whose memory is being planned now; empty: none.
    """

    answers: Answers
    name: str
    batches: Sequence[Batch]
    devices: Sequence[ComputeDevice]
    journal: AnswerJournal
    file: AnswerFile
    bar: Bar
    write_job: Callable[[], tuple[AnswerJob, str]]
    cannot_be_planned: Callable[[str, str], None]
    planning: str = ""

    def __post_init__(self) -> None:
        self._turn = self.answers.turns[self.name]
        self._started: dict[str, float] = {}  # device -> time.monotonic() of its process's start
        self._room: Room | None = None

    # --- what processes get ---

    def job(self, device: ComputeDevice, number: int) -> bytes:
        """The job of a device's process, which will begin about at this batch."""
        job, exam = self.write_job()
        job["fold"] = self.batches[number].fold
        job["on_gpu"] = device.is_gpu and bool(device.variables)
        self._started[device.name] = time.monotonic()
        return job_text(job, exam=exam)

    def line(self, number: int) -> bytes:
        """A batch as a process reads it."""
        batch = self.batches[number]
        alive = self._turn.alive[batch.rows].tolist()
        record: BatchRecord = {"number": number, "fold": batch.fold, "rows": batch.rows, "alive": alive}
        return json.dumps(record).encode()

    def room(self, devices: int) -> Room | None:
        """How many of so many devices may hold the model; None: its memory is not planned yet."""
        if self._turn.plan is None:
            return None
        if self._room is None:
            self._room = room_for(self._turn.plan, devices, self.devices[0].is_gpu)
            if self._room.reason and self._room.processes:
                count = self._room.processes
                text = f"{self.name}: {count} of {devices} devices {'is' if count == 1 else 'are'} used: "
                say(text + self._room.reason)
                self.answers.timeline.note(text + self._room.reason)
        return self._room

    # --- what becomes of processes ---

    def starts_again(self, error: str) -> bool:
        """Whether a process that ended so is to be replaced: planning another ranker's memory ended it.

        That ranker is marked, and a new process goes on without it.
        """
        other, self.planning = self.planning, ""
        if other in ("", self.name):
            return False
        self.cannot_be_planned(other, error)
        return True

    def hand_over(self, device: ComputeDevice, error: str, batches: int) -> None:
        """A device has failed; others go on, with the batches that it had in hand too."""
        self._work(device).left_out = error
        what = f"the {batches} batches that it had go to the others" if batches else "the others go on"
        say(f"WARNING: {self.name}: {device.name} is left out ({error}); {what}")
        self.answers.timeline.note(f"{self.name}: {device.name} left out: {error}")

    def _work(self, device: ComputeDevice) -> Work:
        return self._turn.devices.setdefault(device.name, Work())

    # --- events ---

    def take(self, device: ComputeDevice, event: Event) -> None:
        """Take an event of a device's process.

        Raises:
            Fault: it holds answers that are no probabilities.
        """
        work = self._work(device)
        if event["event"] == "planning":
            self.planning = event["ranker"]
        elif event["event"] == "plans":
            self._started[device.name] += event["seconds"]  # the others' plans do not count as loading
            self._take_plans(event)
        elif event["event"] == "device":
            work.computed_on = self._turn.work.computed_on = event["computed_on"]
            if event["problem"] is not None:
                self.answers.timeline.warn_of_gpu(event["problem"])
        elif event["event"] == "loaded":
            work.load_seconds = time.monotonic() - self._started[device.name]
            self._turn.work.load_seconds = max_known(self._turn.work.load_seconds, work.load_seconds)
            place = f" on {device.name}" if len(self.devices) > 1 else ""
            self.answers.timeline.note(f"{self.name}: loaded{place}")
        elif event["event"] == "part":
            self._take_part(work, event)
        elif event["event"] == "given_back":
            self._take_given_back(device, work, event)

    def _take_plans(self, event: PlansEvent) -> None:
        """Take the memory planned for all rankers and show it."""
        self.planning = ""
        plans = [MemoryPlan(**values) for values in event["plans"]]
        for plan in plans:
            self.answers.turns[plan.ranker].plan = plan
        known = [turn.plan for turn in self.answers.turns.values() if turn.plan is not None]
        count, on_gpus = len(self.devices), self.devices[0].is_gpu
        print_plans(known, [room_for(plan, count, on_gpus).processes for plan in known] if count > 1 else [])
        for plan in plans:
            if plan.unknown:
                say(
                    f"{plan.ranker}: the memory it will take cannot be told ({plan.unknown}); its batches stay at "
                    f"{plan.batch} tokens"
                )

    def _take_part(self, work: Work, event: PartEvent) -> None:
        batch, whole = self.batches[event["number"]], self._turn.work
        numbers = np.frombuffer(base64.b64decode(event["table"]), dtype="<f4")
        table = numbers.reshape(len(batch.rows), self.answers.exists.shape[1])
        self.answers.add(self.name, batch.rows, table, batch.fold)
        self._turn.alike |= event["alike"]
        if event["alike"]:
            self.journal.write_note(batch.key, event["alike"])
        self.journal.write(batch.key, table)
        if event["float32_rows"] and not whole.float32_rows:
            self.answers.timeline.note(f"{self.name}: overflows in float16")
        for each in (whole, work):
            each.add_part(event, len(batch.rows))
        self.bar.advance(len(batch.rows))
        self.file.store()

    def _take_given_back(self, device: ComputeDevice, work: Work, event: GivenBackEvent) -> None:
        work.used_mib = event["used_mib"]
        self._turn.work.used_mib = max_known(self._turn.work.used_mib, work.used_mib)
        place = f"{device.name}: " if len(self.devices) > 1 else ""
        if event["summary"]:
            say(place + event["summary"])
        if event["kept_mib"]:
            say(f"WARNING: {place}{self.name} has not given back {event['kept_mib']} MiB of its memory")
