"""The memory that is there for a ranker, and what it takes while it answers."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Iterator
from typing import Any

from solution.device import free_memory
from solution.inference.plan import MIB, RESERVE, Plan
from solution.memory import PeakMemory, main_memory, resident_kib
from solution.progress import say

TOLERANCE = 64 * MIB  # that may stay allocated on a GPU: workspaces of its libraries


# --- what there is -------------------------------------------------------------------------


def available_memory(budget: int | None = None, held: int = 0) -> int:
    """Bytes that a ranker may take: of the GPU's memory where there is one, else of the machine's; negative where a
    process takes more for itself.

    Args:
        budget: what the user gives; on a CPU what this process has already, and `held`, are taken off.
    """
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return min(free, total if budget is None else budget) - (0 if budget is None else RESERVE)
    memory = main_memory()
    amounts = [] if memory is None else [memory.available]
    if budget is not None:
        amounts.append(budget - held - 1024 * (resident_kib() or 0))
    return min(amounts, default=0) - RESERVE


def hold_gpu_to(budget: int | None) -> None:
    """Have a GPU's allocator refuse what goes beyond what the user gives; where there is no GPU, nothing happens.

    Args:
        budget: bytes of `--memory`; None: no limit.
    """
    import torch

    if budget is not None and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(max(budget - RESERVE, 0) / total, 1.0))


# --- while a ranker answers ----------------------------------------------------------------


class Watch:
    """What `watched` measures.

    Attributes:
        load_seconds: from the beginning to the first fold's `loaded`.
        peak_mib: the highest memory in use, less that at the beginning; None where the system does not tell.
        kept_mib: what was not given back.
        summary: at the end, what was planned and measured, in a line; empty where nothing was loaded.
    """

    def __init__(self) -> None:
        self.load_seconds = 0.0
        self.peak_mib: int | None = None
        self.kept_mib = 0
        self.summary = ""
        self.peak = PeakMemory()
        self._started = time.monotonic()
        self._tensors: list[Any] = []

    def loaded(self, ranker: Any) -> None:
        """To be called when a fold is loaded, at least the first."""
        if self._tensors or not hasattr(ranker, "modules"):
            return
        self.load_seconds = time.monotonic() - self._started
        parameters = {id(p): p for module in ranker.modules for p in module.parameters()}.values()
        self._tensors = [(weakref.ref(p), p.nbytes) for p in parameters]

    def _held(self) -> int:
        return sum(size for reference, size in self._tensors if reference() is not None)


@contextlib.contextmanager
def watched(name: str, questions: int, plan: Plan | None = None) -> Iterator[Watch]:
    """Around all that is done with one ranker, to its last reference: measures, frees, and tells what was not freed.

    Args:
        questions: that it answers.
        plan: to compare with.
    """
    import torch

    cuda = torch.cuda.is_available()

    def in_use() -> int:
        return torch.cuda.memory_allocated() if cuda else 1024 * (resident_kib() or 0)

    free_memory()
    before, watch = in_use(), Watch()
    yield watch
    seconds = time.monotonic() - watch._started
    highest = watch.peak.mib()
    free_memory()
    if highest is not None:
        watch.peak_mib = max(highest - before // MIB, 0)
    # On a CPU the allocator keeps what it likes; whether the model is gone is seen by its tensors.
    kept = max(watch._held(), in_use() - before - TOLERANCE if cuda else 0)
    watch.kept_mib = -(-kept // MIB)
    if kept > 0:
        say(
            f"WARNING: {name} has answered, and {watch.kept_mib} MiB of its memory are still held; the next ranker has "
            "that much less"
        )
    if watch.load_seconds and watch.peak_mib is not None:
        planned = f" ({plan.peak // MIB} MiB planned)" if plan and plan.peak else ""
        each = (seconds - watch.load_seconds) / max(questions, 1)
        watch.summary = (
            f"{name}: {watch.peak_mib} MiB at the highest{planned}, {watch.load_seconds:.1f} s to load, "
            f"{each:.2f} s a question"
        )
        say(watch.summary)
