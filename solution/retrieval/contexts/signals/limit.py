"""The time that making signals may take: what is not reached in it is missing."""

from __future__ import annotations

import math
import time


class TimeLimit:
    """Seconds from now on; signals that are not made in them are NaN for all options of a question.

    Args:
        seconds: inf: everything is made.
    """

    def __init__(self, seconds: float = math.inf):
        self._end = time.monotonic() + seconds

    @property
    def is_set(self) -> bool:
        """True where there is an end."""
        return math.isfinite(self._end)

    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end
