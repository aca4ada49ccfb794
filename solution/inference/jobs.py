"""Jobs of a ranker's process: batches of questions, sent out and watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BATCH_SECONDS = 20.0
"""How long a batch of questions is to take: what a kill or the deadline costs at most."""
_LEAST_BATCH, _USUAL_BATCH, _MOST_BATCH = 16, 64, 512


class OutOfTime(Exception):
    """The deadline came."""


class Fault(Exception):
    """A ranker, or the retrieval, cannot go on."""


@dataclass
class Batch:
    """Questions for one fold of a ranker."""

    fold: int
    rows: list[int]
    key: str


def batch_size(seconds: float | None) -> int:
    """Questions that a fold answers in about `BATCH_SECONDS`."""
    if not seconds:
        return _USUAL_BATCH if seconds is None else _MOST_BATCH
    return int(min(max(BATCH_SECONDS / seconds, _LEAST_BATCH), _MOST_BATCH))


def cut(rows: np.ndarray, size: int) -> list[list[int]]:
    """Pieces of nearly equal size, none larger than `size`, in order."""
    pieces = max(1, -(-len(rows) // max(size, 1)))
    return [part.tolist() for part in np.array_split(rows, pieces)]


def json_cell(value: Any) -> Any:
    """A cell as JSON holds it."""
    return value if isinstance(value, (str, int, float, bool, list, dict, type(None))) else str(value)
