"""The course of a submission, for its report."""

from __future__ import annotations

from dataclasses import dataclass, field

from solution.inference.limits import Limits
from solution.progress import say


@dataclass
class Timeline:
    """Notes with the time at which they were taken.

    Attributes:
        limits: of the submission; they know when it began.
        notes: (seconds since then, text).
        gpu_problem: why a ranker did not compute on the GPU that the machine seems to have.
        devices: the names of those that share the questions of a ranker.
        device_remarks: why they are not all that were wanted.
    """

    limits: Limits
    notes: list[tuple[float, str]] = field(default_factory=list)
    gpu_problem: str | None = None
    devices: list[str] = field(default_factory=list)
    device_remarks: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append((round(self.limits.elapsed(), 2), text))

    def warn_of_gpu(self, problem: str) -> None:
        """Say once that rankers compute on the CPU although the machine seems to have a GPU."""
        if self.gpu_problem is None:
            self.gpu_problem = problem
            self.note("the CPU is used in place of a GPU")
            say(f"WARNING: the rankers compute on the CPU: {problem}")
