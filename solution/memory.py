"""Amounts of memory, and how much a step took at its peak."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from solution.errors import UserError
from solution.gpu import gpu_works

MIB = 1 << 20
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_memory(text: str) -> int:
    """Bytes of `16GiB`, `16GB`, `500MiB`, `8g` or a plain number.

    Raises:
        UserError: it is none of these, or nothing.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    amount = int(float(found[1]) * _UNITS.get(found[2], 0)) if found else 0
    if amount <= 0:
        raise UserError(f"--memory {text!r}: give an amount such as 16GiB or 500MiB")
    return amount


def status_kib(name: str) -> int | None:
    """A figure of this process as Linux tells it; None where it does not.

    Raises:
        OSError: the system has no such file.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return None


def resident_kib() -> int | None:
    """This process's memory; None where the system does not tell."""
    with contextlib.suppress(OSError):
        return status_kib("VmRSS")
    return None


class PeakMemory:
    """The highest memory in use from its making on: of the GPU where there is one, else resident host memory."""

    def __init__(self) -> None:
        torch = sys.modules.get("torch")
        self._cuda = torch.cuda if torch is not None and gpu_works() else None
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
        with contextlib.suppress(OSError):
            # Linux: 5 resets the high-water mark of this process.
            Path("/proc/self/clear_refs").write_text("5")

    def mib(self) -> int | None:
        """MiB, or None where the system does not tell."""
        if self._cuda is not None:
            return int(self._cuda.max_memory_allocated() / MIB)
        with contextlib.suppress(OSError):
            kib = status_kib("VmHWM")
            return None if kib is None else kib // 1024
        return None


class PeakAnonymous:
    """The highest anonymous host memory in use inside a `with` block: what cannot be taken back by dropping a mapped
    file's pages. Linux only; sampled, so a peak shorter than `seconds` may be missed.

    Attributes:
        start: MiB when the block began.
        peak: MiB, the highest seen.
    """

    def __init__(self, seconds: float = 0.002):
        self.start = self.peak = 0.0
        self._seconds = seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @staticmethod
    def _now() -> float:
        return (status_kib("RssAnon") or 0) / 1024

    def _watch(self) -> None:
        while not self._done.wait(self._seconds):
            self.peak = max(self.peak, self._now())

    def __enter__(self) -> PeakAnonymous:
        self.start = self.peak = self._now()
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, self._now())


@dataclass(frozen=True)
class MainMemory:
    """Main memory that this process may use, in bytes.

    Attributes:
        total: of the machine, or its smallest limit.
        available: what the machine and each limit still leave; negative where a limit is exceeded.
    """

    total: int
    available: int


def main_memory(root: Path = Path("/")) -> MainMemory | None:
    """The main memory within all limits: of the machine, of this process (`ulimit`) and of its control groups.

    Args:
        root: where `proc` and `sys` lie.

    Returns:
        None where the system tells nothing.
    """
    bounds = [*_of_machine(root), *_of_process(), *_of_cgroups(root)]
    if not bounds:
        return None
    return MainMemory(min(bound.total for bound in bounds), min(bound.available for bound in bounds))


def _of_machine(root: Path) -> Iterator[MainMemory]:
    with contextlib.suppress(OSError, KeyError):
        lines = (line.split() for line in (root / "proc/meminfo").read_text().splitlines())
        kib = {words[0]: int(words[1]) for words in lines if len(words) > 1}
        yield MainMemory(1024 * kib["MemTotal:"], 1024 * kib["MemAvailable:"])


def _of_process() -> Iterator[MainMemory]:
    """The limits of `ulimit -v` and `ulimit -d`."""
    try:
        import resource
    except ImportError:
        return
    for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            with contextlib.suppress(OSError):
                yield MainMemory(soft, soft - 1024 * (status_kib(used) or 0))


@dataclass(frozen=True)
class _CgroupFiles:
    """The names of a control group's files: its limit, its use, and in `memory.stat` the file caches."""

    limit: str
    used: str
    caches: str


_VERSION_1 = _CgroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = _CgroupFiles("memory.max", "memory.current", "inactive_file")


def _of_cgroups(root: Path) -> Iterator[MainMemory]:
    """The limits of this process's control groups (version 1 or 2) up to the root; file caches count as available."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        top = root / "sys/fs/cgroup"
        if not controllers:
            names = _VERSION_2
        elif "memory" in controllers.split(","):
            names, top = _VERSION_1, top / "memory"
        else:
            continue
        # In a container the group's path may be hidden: then only the files at the top are there.
        group = top / inside.lstrip("/")
        for folder in [group, *group.parents]:
            if folder.is_relative_to(top):
                with contextlib.suppress(OSError, ValueError):
                    yield _of_cgroup(folder, names)


def _of_cgroup(folder: Path, names: _CgroupFiles) -> MainMemory:
    """One control group's limit.

    Raises:
        OSError: it has no such files.
        ValueError: it sets no limit (`max`).
    """
    limit, used = int((folder / names.limit).read_text()), int((folder / names.used).read_text())
    caches = 0
    with contextlib.suppress(OSError):
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        caches = int(stat.get(names.caches, 0))
    return MainMemory(limit, limit - used + caches)
