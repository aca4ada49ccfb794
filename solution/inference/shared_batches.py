"""The batches of a ranker, shared out over one process a device.

Batches are handed out whole and in their order, one after the other to whichever device is free, so that each holds the
questions that it would hold on one device, and gets the same answers. What a device that fails has in hand goes to the
others.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from solution.inference.child import Child, cause_of_death
from solution.inference.devices import ComputeDevice
from solution.inference.jobs import Fault, OutOfTime, Patience
from solution.inference.limits import Limits
from solution.inference.memory_plan import Room
from solution.inference.wire import Event

_END_SECONDS = 60.0  # that a process may take to give its memory back when everything is answered


class SharedBatches:
    """Which batches are waiting, in which device's hand, and answered.

    Args:
        count: of the batches; they are known by their numbers.
    """

    def __init__(self, count: int):
        self._waiting = deque(range(count))
        self._in_hand: dict[str, list[int]] = {}

    @property
    def open(self) -> int:
        """The number of batches that are not answered."""
        return len(self._waiting) + sum(map(len, self._in_hand.values()))

    @property
    def first(self) -> int:
        """The batch that is handed out next, or else is in hand."""
        return self._waiting[0] if self._waiting else min(number for hand in self._in_hand.values() for number in hand)

    def in_hand(self, device: str) -> list[int]:
        """What a device has to answer, the one that it is at first."""
        return list(self._in_hand.get(device, []))

    def hand_out(self, device: str, devices: int) -> list[int]:
        """The batches that a device gets now.

        It needs one to answer, and one to go on with at once. Towards the end each gets one only: a device that is
        slow must not hold what another one could begin.

        Args:
            devices: how many are at work.
        """
        hand, given = self._in_hand.setdefault(device, []), []
        while self._waiting and (not hand or (len(hand) < 2 and len(self._waiting) >= devices)):
            hand.append(self._waiting.popleft())
            given.append(hand[-1])
        return given

    def answered(self, device: str, number: int) -> None:
        self._in_hand[device].remove(number)

    def take_back(self, device: str) -> list[int]:
        """What a device has in hand comes before all that is waiting; returns it."""
        back = self._in_hand.pop(device, [])
        self._waiting = deque(sorted([*back, *self._waiting]))
        return back


class BatchedRanker(Protocol):
    """A ranker, as those see it who share out its batches."""

    def job(self, device: ComputeDevice, number: int) -> bytes:
        """The job of a device's process, which will begin about at this batch."""

    def line(self, number: int) -> bytes:
        """A batch as a process reads it."""

    def take(self, device: ComputeDevice, event: Event) -> None:
        """Take an event; raises `Fault` where it makes no sense."""

    def room(self, devices: int) -> Room | None:
        """How many of so many devices may hold the model; None: the first process has yet to plan its memory."""

    def starts_again(self, error: str) -> bool:
        """Whether a process that ended so is to be replaced: planning another ranker's memory ended it."""

    def hand_over(self, device: ComputeDevice, error: str, batches: int) -> None:
        """A device has failed; others go on, with the batches that it had in hand too."""


@dataclass
class _Process:
    """A process at work; `heard`: when it last told anything, or got something to do."""

    device: ComputeDevice
    child: Child
    heard: float
    error: str = ""
    is_loaded: bool = False
    is_ending: bool = False


class Sharing:
    """Has the batches of a ranker answered by processes on several devices.

    Attributes:
        errors: device -> why it has failed.
    """

    def __init__(
        self, asked: BatchedRanker, count: int, devices: Sequence[ComputeDevice], limits: Limits, patience: Patience
    ):
        self.errors: dict[str, str] = {}
        self._asked, self._limits, self._patience = asked, limits, patience
        self._batches = SharedBatches(count)
        self._device_count = len(devices)
        self._idle = list(devices)  # that have no process, and have not failed
        self._running: list[_Process] = []
        self._inbox: queue.Queue[tuple[Child, Event]] = queue.Queue()

    def run(self) -> None:
        """Have everything answered. All processes have ended when this returns or raises.

        Raises:
            Fault: all devices have failed, or none can hold the model.
            OutOfTime: the deadline came.
        """
        try:
            while self._batches.open:
                self._start()
                if self._limits.left() <= 0:
                    raise OutOfTime
                self._step(self._patience.seconds)
            self._finish()
        finally:
            for process in self._running:
                process.child.end()

    def _start(self) -> None:
        """Start a process on each device that can be of use."""
        room = self._asked.room(self._device_count)
        if room is not None and not room.processes:
            raise Fault(room.reason)
        most = min(1 if room is None else room.processes, self._batches.open)
        while self._idle and len(self._running) < most:
            if room is not None and not room.together and not all(process.is_loaded for process in self._running):
                return
            device = self._idle.pop(0)
            child = Child(self._asked.job(device, self._batches.first), device.variables, self._inbox)
            self._running.append(_Process(device, child, time.monotonic()))

    def _step(self, patience: float) -> None:
        """Take the next event; a process that is silent for longer than `patience` seconds has failed."""
        now = time.monotonic()
        silent = {
            process.child: now - process.heard
            for process in self._running
            if not process.is_loaded or process.is_ending or self._batches.in_hand(process.device.name)
        }
        for process in [process for process in self._running if silent.get(process.child, 0.0) >= patience]:
            self._fail(process, f"{self._patience.complaint} {patience:g} s")
        longest = max(silent.values(), default=0.0)
        if longest >= patience:
            return
        try:
            # A wait without an end could not be left by a signal's exception on every system.
            child, event = self._inbox.get(timeout=max(min(self._limits.left(), patience - longest, 3600.0), 0.0))
        except queue.Empty:
            return
        for process in self._running:
            if process.child is child:
                process.heard = time.monotonic()
                self._take(process, event)
                return

    def _take(self, process: _Process, event: Event) -> None:
        name = process.device.name
        if event["event"] == "error":
            process.error = event["reason"]
        elif event["event"] == "end":
            self._fail(process, process.error or cause_of_death(event["code"]))
        elif event["event"] == "done":
            self._fail(process, "it ended before everything was answered")
        else:
            try:
                self._asked.take(process.device, event)
            except Fault as error:
                self._fail(process, str(error))
                return
            if event["event"] == "loaded":
                process.is_loaded = True
            elif event["event"] == "part":
                self._batches.answered(name, event["number"])
            self._hand_out()

    def _hand_out(self) -> None:
        loaded = [process for process in self._running if process.is_loaded]
        for process in loaded:
            if not self._batches.in_hand(process.device.name):
                process.heard = time.monotonic()  # it had nothing to do, and could tell nothing
            for number in self._batches.hand_out(process.device.name, len(loaded)):
                process.child.send(self._asked.line(number))

    def _fail(self, process: _Process, error: str) -> None:
        """Go on without a process, if it was not about to end."""
        self._running.remove(process)
        process.child.end()
        if process.is_ending:
            return
        device = process.device
        back = self._batches.take_back(device.name)
        if self._asked.starts_again(error):
            self._idle.insert(0, device)
            return
        self.errors[device.name] = error
        if not self._running and not self._idle:
            raise Fault(told_together(self.errors))
        self._asked.hand_over(device, error, len(back))
        self._hand_out()

    def _finish(self) -> None:
        """Let the processes give their memory back and tell how much it was: all is answered, whatever they do."""
        for process in list(self._running):
            if process.is_loaded:
                process.is_ending, process.heard = True, time.monotonic()
                process.child.finish()
            else:
                self._running.remove(process)
                process.child.end()
        while self._running and self._limits.left() > 0:
            self._step(min(self._patience.seconds, _END_SECONDS))


def told_together(errors: dict[str, str]) -> str:
    """The errors of all devices in one text; without their names where there is one, or all say the same."""
    if len(set(errors.values())) == 1:
        return next(iter(errors.values()))
    return "; ".join(f"{device}: {error}" for device, error in errors.items())
