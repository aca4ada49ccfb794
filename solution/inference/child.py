"""A process for each job of a submission: crashes, hangs and memory that is not freed end with it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from solution.inference.wire import Event

_ROOT = str(Path(__file__).resolve().parents[2])
# A CPU meets ever new shapes of batches. oneDNN and ideep keep something for each of their last 1,024, and glibc's heap
# cannot give back what lies between: two bfloat16 layers grew from 243 to 2,922 MiB over 400 shapes, and to 274 with
# large tensors mapped and 32 shapes kept. Mapped memory comes in huge pages, or clearing it costs a sixth of the time.
# All this is read when the process starts.
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "LRU_CACHE_CAPACITY": "32",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
}


def _path() -> str:
    """PYTHONPATH for a process that is to import this package and no other copy of it."""
    # What is installed is found anyway, and other packages there must not come before the standard library.
    installed = _ROOT in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return os.pathsep.join(filter(None, ["" if installed else _ROOT, os.environ.get("PYTHONPATH")]))


class Child:
    """A running `solution.inference.worker`; leaving the `with` block ends it, whatever it does.

    It gets its job, and then what `send` sends, as lines on stdin and tells what it did in JSON lines on stdout (see
    `wire`): nothing is pickled, and it needs no file.

    Attributes:
        started: `time.monotonic()` of its start.

    Args:
        variables: of its environment, beside this process's.
        inbox: takes its events, each with this object; None: `event` gives them.
    """

    def __init__(
        self,
        job: bytes,
        variables: Mapping[str, str] | None = None,
        inbox: queue.Queue[tuple[Child, Event]] | None = None,
    ):
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            # -P: the folder that the command runs in must not put its own modules in front of ours.
            [sys.executable, "-P", "-m", "solution.inference.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**MEMORY, **os.environ, **(variables or {}), "PYTHONPATH": _path()},
        )
        self._inbox: queue.Queue[tuple[Child, Event]] = queue.Queue() if inbox is None else inbox
        self._outbox: queue.Queue[bytes | None] = queue.Queue()
        self.send(job)
        works = (self._write, self._receive)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def send(self, line: bytes) -> None:
        """Send a line, whether it is read now or later."""
        self._outbox.put(line + b"\n")

    def finish(self) -> None:
        """Tell it that no more lines come."""
        self._outbox.put(None)

    def _write(self) -> None:
        stream = self._process.stdin
        assert stream is not None
        # An error says that it has ended before it had read its job: its exit code tells.
        with contextlib.suppress(OSError):
            while (line := self._outbox.get()) is not None:
                stream.write(line)
                stream.flush()
        with contextlib.suppress(OSError):
            stream.close()

    def _receive(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a line that was cut off when it was killed
            self._inbox.put((self, event))
        self._inbox.put((self, {"event": "end", "code": self._process.wait()}))

    def event(self, timeout: float) -> Event | None:
        """The next event, or None when none came for `timeout` seconds; the last one is `EndEvent`."""
        try:
            # A wait without an end could not be left by a signal's exception on every system.
            return self._inbox.get(timeout=min(max(timeout, 0.0), 3600.0))[1]
        except queue.Empty:
            return None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self.finish()
        for thread in self._threads:
            thread.join(5)
        if self._process.stdout is not None and not self._threads[1].is_alive():
            self._process.stdout.close()


def cause_of_death(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else str(-code)
    hint = ": the system takes a process that uses too much memory" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name}{hint}"
