"""The limits of a submission: its deadline, its memory, and how long a ranker may be silent."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field

from solution.errors import UserError

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")
_RESERVE_SHARE = 0.02
_LEAST_RESERVE, _MOST_RESERVE = 0.5, 20.0


def parse_duration(text: str, what: str) -> float:
    """Seconds of `8h30m`, `90m`, `1.5h`, `45s` or `3600`.

    Raises:
        UserError: not such a text, or 0; the message begins with `what`, the name of the option.
    """
    match = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    parts = [float(part or 0) for part in match.groups()] if match else [0.0]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not 0 < seconds < math.inf:
        raise UserError(f"{what} {text!r} is no time: give hours, minutes and seconds, as in 8h30m, 90m, 45s or 3600")
    return seconds


@dataclass(frozen=True)
class WantedDevices:
    """The devices that are to answer, see `devices.parse_devices`; by default every GPU, else one process on the CPU.

    Attributes:
        count: how many; None: as many as there are.
        gpus: the numbers of GPUs; empty: any.
        cpus: processes on the CPU; 0: none where there is a GPU.
    """

    count: int | None = None
    gpus: tuple[int, ...] = ()
    cpus: int = 0


@dataclass
class Limits:
    """The limits of one submission; its time runs from the making of this object on.

    Attributes:
        deadline: seconds after which the answer must be there; None: no limit.
        ranker_timeout: seconds without a finished batch after which a ranker, or the retrieval, is given up.
        strict: whether a ranker that is left out is an error.
        memory: bytes that may be used, of each GPU or else of the machine; None: what is free.
        devices: those that may be used.
    """

    deadline: float | None = None
    ranker_timeout: float = 1800.0
    strict: bool = False
    memory: int | None = None
    devices: WantedDevices = WantedDevices()
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def left(self) -> float:
        """Seconds that rankers may still take: those of the last blend and its file are set aside."""
        if self.deadline is None:
            return math.inf
        reserve = min(max(_RESERVE_SHARE * self.deadline, _LEAST_RESERVE), _MOST_RESERVE)
        return self.deadline - reserve - self.elapsed()
