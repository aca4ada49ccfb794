"""The course of a submission, for its report."""

from __future__ import annotations

from dataclasses import dataclass, field

from solution.inference.limits import Limits


@dataclass
class Timeline:
    """Notes with the time at which they were taken.

    Attributes:
        limits: of the submission; they know when it began.
        notes: (seconds since then, text).
    """

    limits: Limits
    notes: list[tuple[float, str]] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append((round(self.limits.elapsed(), 2), text))
