"""Jobs of a process: batches of questions, cut to size, sent out and watched."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from solution.inference.child import Child, cause_of_death
from solution.inference.limits import Limits
from solution.inference.wire import AnswerJob, Event, LookJob, RetrieveJob

BATCH_SECONDS = 20.0
"""How long a batch of questions is to take: what a kill or the deadline costs at most."""
_LEAST_BATCH, _USUAL_BATCH, _MOST_BATCH = 16, 64, 512


class OutOfTime(Exception):
    """The deadline came."""


class Fault(Exception):
    """A ranker, or the retrieval, cannot go on."""


@dataclass
class Batch:
    """Questions for one fold of a ranker.

    Attributes:
        fold: its number among those that are asked.
        rows: positions of the questions.
        key: of its answers in the journal.
    """

    fold: int
    rows: list[int]
    key: str


@dataclass
class Patience:
    """How long a process may be silent.

    Attributes:
        seconds: without an event, after which it is given up.
        complaint: what is said then, before the seconds.
        longest: seconds that its job may take in all.
    """

    seconds: float
    complaint: str
    longest: float = math.inf


def batch_size(seconds: float | None) -> int:
    """Questions that a fold answers in about `BATCH_SECONDS`.

    Args:
        seconds: a question; None: not known.
    """
    if not seconds:
        return _USUAL_BATCH if seconds is None else _MOST_BATCH
    return int(min(max(BATCH_SECONDS / seconds, _LEAST_BATCH), _MOST_BATCH))


def cut(rows: np.ndarray, size: int) -> list[list[int]]:
    """Pieces of nearly equal size, none larger than `size`, in order."""
    pieces = max(1, -(-len(rows) // max(size, 1)))
    return [part.tolist() for part in np.array_split(rows, pieces)]


def job_text(job: AnswerJob | LookJob | RetrieveJob, **ready: str) -> bytes:
    """A job as its process reads it.

    Args:
        ready: further fields, as JSON text already: a long exam is not written again for every ranker.
    """
    fields = [f'"{name}": {text}' for name, text in ready.items()]
    return ", ".join([json.dumps(job)[:-1], *fields]).encode() + b"}"


def run_job(job: bytes, take: Callable[[Event], None], limits: Limits, patience: Patience) -> None:
    """Have a job done in a process of its own, which has ended when this returns or raises.

    Args:
        job: see `job_text`.
        take: called with each event but `error`, `done` and `end`; what it raises ends the process too.

    Raises:
        OutOfTime: the deadline came, or the job took longer than `patience.longest`.
        Fault: the process was silent for too long, told of an error, or ended before its job was done.
    """
    with Child(job) as child:
        started = heard = time.monotonic()
        error = ""
        while True:
            left = min(limits.left(), started + patience.longest - time.monotonic())
            silent = time.monotonic() - heard
            if left <= 0:
                raise OutOfTime
            if silent >= patience.seconds:
                raise Fault(f"{patience.complaint} {patience.seconds:g} s")
            event = child.event(min(left, patience.seconds - silent))
            if event is None:
                continue
            heard = time.monotonic()
            if event["event"] == "error":
                error = event["reason"]
            elif event["event"] == "done":
                return  # it is not waited for: taking down its libraries takes seconds
            elif event["event"] == "end":
                raise Fault(error or cause_of_death(event["code"]))
            else:
                take(event)
