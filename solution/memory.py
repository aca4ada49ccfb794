"""How much memory a step took at its peak."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

_MIB = 1 << 20


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
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) // 1024
        return None
