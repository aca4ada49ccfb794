"""Encoding ahead of the device: processes make the token ids of the next questions while a model computes.

Questions are encoded window by window. While the model reads a window, the next two are encoded; no more is in memory.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from solution.progress import say

PIECE = 32
"""The questions of a job."""
_FEW = 2048  # encoding no more questions takes less time than to start a process
_MOST = 4  # processes: they keep ahead of any one device
_WINDOWS = 2  # encoded ahead of the one that is read


class Encoder(Protocol):
    """What encodes questions; a process takes a pickled copy of it."""

    def encode_job(self, job: Any) -> list[Any]:
        """The encoded questions of a job, a pickled part of the exam."""

    def length(self, item: Any) -> int:
        """Padded tokens that an encoded question costs."""


class Stored(NamedTuple):
    """An encoded question, pickled where another process made it: so it takes a quarter of the memory.

    Attributes:
        length: padded tokens.
    """

    length: int
    content: Any
    pickled: bool

    @property
    def item(self) -> Any:
        return pickle.loads(self.content) if self.pickled else self.content  # our own process's work, no file


def pieces(rows: Sequence[int]) -> list[Sequence[int]]:
    """The rows of a window as those of its jobs."""
    return [rows[begin : begin + PIECE] for begin in range(0, len(rows), PIECE)]


def encoding_processes(questions: int, asked: int | None) -> int:
    """The number of processes that encode, beside this one; 0: this one encodes.

    Args:
        asked: what the settings say; None: one a core, and none for few questions.
    """
    if asked is not None:
        return asked
    if questions <= _FEW:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    together = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes of this machine that train one model
    return max(1, min(_MOST, cores // together))


def encoded_windows(
    encoder: Encoder, copy: Encoder | None, windows: Iterable[Sequence[Any]], processes: int
) -> Iterator[list[Stored]]:
    """The encoded questions of one window after the other; the same whatever the number of processes.

    Args:
        copy: the encoder as it is sent to other processes; None: it is not.
        windows: the jobs of each.
    """
    sent = _pickled(copy) if processes and copy is not None else None
    if sent is None:
        for jobs in windows:
            yield _encoded_here(encoder, jobs)
        return
    workers = _Workers(sent, processes)
    waiting: deque[tuple[Sequence[Any], list[Future[list[Stored]]]]] = deque()
    try:
        for jobs in windows:
            waiting.append((jobs, workers.submit(jobs)))
            if len(waiting) > _WINDOWS:
                yield _result(encoder, workers, *waiting.popleft())
        while waiting:
            yield _result(encoder, workers, *waiting.popleft())
    finally:
        workers.stop()


def _pickled(copy: Encoder) -> bytes | None:
    """The copy as it is sent; None where it cannot be: parts of a tokenizer that Python code computes."""
    try:
        return pickle.dumps(copy, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # the library `tokenizers` raises plain exceptions
        say(f"note: the tokenizer cannot be sent to other processes ({error}); the model's own process encodes")
        return None


def _encoded_here(encoder: Encoder, jobs: Sequence[Any]) -> list[Stored]:
    items = [item for job in jobs for item in encoder.encode_job(job)]
    return [Stored(encoder.length(item), item, pickled=False) for item in items]


def _result(
    encoder: Encoder, workers: _Workers, jobs: Sequence[Any], futures: Sequence[Future[list[Stored]]]
) -> list[Stored]:
    try:
        if not workers.broken:
            return [stored for future in futures for stored in future.result()]
    except BrokenProcessPool:
        workers.tell_broken()
    return _encoded_here(encoder, jobs)


class _Workers:
    """Processes that encode jobs. They are spawned, so that none holds a copy of the model or of the GPU's state."""

    def __init__(self, encoder: bytes, processes: int):
        self.broken = False
        self._pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (encoder,))

    def submit(self, jobs: Sequence[Any]) -> list[Future[list[Stored]]]:
        if self.broken:
            return []
        try:
            with _without_main():
                return [self._pool.submit(_encode, job) for job in jobs]
        except BrokenProcessPool:
            self.tell_broken()
            return []

    def tell_broken(self) -> None:
        """A process has died, perhaps for want of memory: this one encodes from now on."""
        say("note: a process that encodes questions has ended; the training's own process encodes them from now on")
        self.broken = True

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Processes that are started meanwhile do not import the program's main module, which they do not need.

    A user's script that trains at once, without `if __name__ == "__main__"`, would run once more in each of them.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_encoder: Encoder | None = None
"""In a process that encodes."""


def _begin(encoder: bytes) -> None:
    """The beginning of a process that encodes. One that cannot read the encoder ends: see `_Workers.tell_broken`."""
    global _encoder
    try:
        _encoder = pickle.loads(encoder)  # the first process's own work, no file
    except Exception:  # whatever a tokenizer's own code raises; the executor would print a traceback
        os._exit(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes share the cores among themselves
    # No lower priority (`nice`): on a crowded machine other programs would starve it, and the device would wait.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all: the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _encode(job: Any) -> list[Stored]:
    assert _encoder is not None
    items = _encoder.encode_job(job)
    protocol = pickle.HIGHEST_PROTOCOL
    return [Stored(_encoder.length(item), pickle.dumps(item, protocol), pickled=True) for item in items]
