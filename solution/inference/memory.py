"""The memory that a ranker may take, and a measurement of what it does take."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Iterator
from typing import Any

from solution.device import free_memory
from solution.gpu import gpu_works
from solution.inference.memory_plan import RESERVE, MemoryPlan
from solution.memory import MIB, PeakMemory, main_memory, resident_kib
from solution.progress import say

TOLERANCE = 64 * MIB  # a GPU's libraries keep so much after a ranker is gone, and no warning is due


def available_memory(budget: int | None = None, held: int = 0) -> int:
    """Bytes that a ranker may take: of the GPU's memory where there is one, else of main memory.

    Negative where the process alone takes more than there is.

    Args:
        budget: bytes that the user allows. On a CPU the memory of this process and `held`, that of the submission, come
            off it.
    """
    import torch

    if gpu_works():
        free, total = torch.cuda.mem_get_info()
        free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return min(free, total if budget is None else budget) - (0 if budget is None else RESERVE)
    memory = main_memory()
    amounts = [] if memory is None else [memory.available]
    if budget is not None:
        amounts.append(budget - held - 1024 * (resident_kib() or 0))
    return min(amounts, default=0) - RESERVE


def hold_gpu_to(budget: int | None) -> None:
    """Have the GPU's allocator refuse more than the user allows; does nothing where there is no GPU.

    Args:
        budget: bytes of `--memory`; None: no limit.
    """
    import torch

    if budget is not None and gpu_works():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(max(budget - RESERVE, 0) / total, 1.0))


class Watch:
    """The measurements of `watched`.

    Attributes:
        load_seconds: from the beginning to the first call of `loaded`.
        peak_mib: the highest memory in use, less that at the beginning; None where the system does not tell.
        kept_mib: memory that was not given back.
        questions: how many were answered.
        summary: at the end the plan and the measurements in a line; empty where nothing was loaded.
    """

    def __init__(self, questions: int = 0) -> None:
        self.questions = questions
        self.load_seconds = 0.0
        self.peak_mib: int | None = None
        self.kept_mib = 0
        self.summary = ""
        self.peak = PeakMemory()
        self._started = time.monotonic()
        self._tensors: list[Any] = []

    def loaded(self, ranker: Any) -> None:
        """Note that a fold is loaded; only the first call counts."""
        if self._tensors or not hasattr(ranker, "modules"):
            return
        self.load_seconds = time.monotonic() - self._started
        parameters = {id(p): p for module in ranker.modules for p in module.parameters()}.values()
        self._tensors = [(weakref.ref(p), p.nbytes) for p in parameters]

    def _held(self) -> int:
        return sum(size for reference, size in self._tensors if reference() is not None)


@contextlib.contextmanager
def watched(name: str, questions: int, plan: MemoryPlan | None = None) -> Iterator[Watch]:
    """Measure and free the memory of a ranker whose last reference goes inside the block; say what was not freed.

    Args:
        questions: how many it answers, where that is known; else the block puts it into `Watch.questions`.
        plan: of its memory, for the summary.
    """
    import torch

    cuda = gpu_works()

    def in_use() -> int:
        return torch.cuda.memory_allocated() if cuda else 1024 * (resident_kib() or 0)

    free_memory()
    before, watch = in_use(), Watch(questions)
    yield watch
    seconds = time.monotonic() - watch._started
    highest = watch.peak.mib()
    free_memory()
    if highest is not None:
        watch.peak_mib = max(highest - before // MIB, 0)
    # On a CPU the allocator holds freed memory back: only the model's tensors show whether it is gone.
    kept = max(watch._held(), in_use() - before - TOLERANCE if cuda else 0)
    watch.kept_mib = -(-kept // MIB)
    if kept > 0:
        say(
            f"WARNING: {name} has answered, and {watch.kept_mib} MiB of its memory are still held; the next ranker has "
            "that much less"
        )
    if watch.load_seconds and watch.peak_mib is not None:
        planned = f" ({plan.peak // MIB} MiB planned)" if plan and plan.peak else ""
        each = (seconds - watch.load_seconds) / max(watch.questions, 1)
        watch.summary = (
            f"{name}: {watch.peak_mib} MiB at the highest{planned}, {watch.load_seconds:.1f} s to load, "
            f"{each:.2f} s a question"
        )
        say(watch.summary)
