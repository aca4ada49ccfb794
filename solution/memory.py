"""Amounts of memory, and how much a step took at its peak."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from solution.errors import UserError

_MIB = 1 << 20
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
        self._cuda = torch.cuda if torch is not None and torch.cuda.is_available() else None
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
        with contextlib.suppress(OSError):
            # Linux: 5 resets the high-water mark of this process.
            Path("/proc/self/clear_refs").write_text("5")

    def mib(self) -> int | None:
        """MiB, or None where the system does not tell."""
        if self._cuda is not None:
            return int(self._cuda.max_memory_allocated() / _MIB)
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


def free_on_machine() -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def free_in_limits() -> Iterator[int]:
    """What the limits of this process (`ulimit -v`, `ulimit -d`) leave."""
    try:
        import resource
    except ImportError:
        return
    for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield soft - 1024 * (status_kib(used) or 0)


def free_in_cgroup() -> int | None:
    """What the cgroups (version 1 or 2) of this process leave, file caches counted as free."""
    names = {  # version -> files of the limit and of the use, the caches' name in memory.stat
        "": ("memory.max", "memory.current", "inactive_file"),
        "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, inside = line.split(":", 2)
            if controllers not in names:
                continue
            limit_name, used_name, cache_name = names[controllers]
            root = Path("/sys/fs/cgroup") / controllers
            group = root / inside.lstrip("/")
            # In a container the group's own path may be hidden, and its files lie at the root.
            for folder in [group, *group.parents]:
                if folder != root and root not in folder.parents:
                    break
                with contextlib.suppress(OSError, ValueError):
                    limit, used = int((folder / limit_name).read_text()), int((folder / used_name).read_text())
                    stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                    found.append(limit - used + int(stat.get(cache_name, 0)))
    return min(found, default=None)
