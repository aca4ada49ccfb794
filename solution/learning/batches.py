"""Batches by token budget, sorted by length, so that padding is a small share of what is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solution.files import content_hash

MAX_PADDING = 0.05
"""The share of a batch that may be padding in prediction."""


def budget_batches(
    lengths: Sequence[int], budget: int, order: Sequence[int] | None = None, max_padding: float = 1.0
) -> list[list[int]]:
    """Cut items into batches whose padded size (items x the longest) stays within `budget`.

    Args:
        lengths: tokens of each item.
        budget: padded tokens a batch may have; a single longer item is a batch of its own.
        order: positions to batch (default: all), sorted here by length, the longest first.
        max_padding: a batch that fills an eighth of the budget ends before more than this share of it is padding.

    Returns:
        Lists of positions.
    """
    positions = sorted(range(len(lengths)) if order is None else order, key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    used = 0  # tokens of the last batch that are not padding
    for position in positions:
        # Sorted downwards, the first item of a batch is its longest.
        padded = lengths[batches[-1][0]] * (len(batches[-1]) + 1) if batches else budget + 1
        wasteful = used + lengths[position] < (1 - max_padding) * padded and padded > budget // 8
        if padded > budget or wasteful:
            batches.append([])
            used = 0
        batches[-1].append(position)
        used += lengths[position]
    return batches


WHOLE = 4096
"""Questions of an epoch that is planned as a whole; a longer one is planned by windows."""
_WINDOW = 1024
_POOL = 16  # steps of which the questions are sorted together


@dataclass(frozen=True)
class Window:
    """Questions that are encoded together, before the steps that they make begin.

    Attributes:
        rows: the questions, in random order.
        order: of the steps.
    """

    rows: list[int]
    order: list[int]

    def steps(self, lengths: Sequence[int], questions_per_step: int) -> list[list[int]]:
        """The steps as places among `rows`: those of a step alike in length, all in random order.

        Args:
            lengths: tokens of each of the rows.
        """
        rows, pool = self.rows, questions_per_step * _POOL
        steps: list[list[int]] = []
        for start in range(0, len(rows), pool):
            chunk = sorted(range(start, min(start + pool, len(rows))), key=lambda i: (lengths[i], rows[i]))
            steps += [chunk[i : i + questions_per_step] for i in range(0, len(chunk), questions_per_step)]
        return [steps[i] for i in self.order]


def window_size(count: int, multiple: int = 1) -> int:
    """The most of `count` questions that are encoded at a time, a multiple of `multiple`: all, where they are few."""
    return max(count, 1) if count <= WHOLE else max(_WINDOW // multiple, 1) * multiple


def key_with_order(key: str, count: int) -> str:
    """The key of a run on `count` questions, with the order in which its epochs read them.

    Versions of this program before there were windows read an epoch of any length as a whole. A checkpoint of theirs
    cannot be continued by windows: some questions would be read twice, and others not at all.
    """
    return key if count <= WHOLE else content_hash(key, "windows")


def epoch_windows(count: int, questions_per_step: int, seed: int, epoch: int) -> list[Window]:
    """The windows of one epoch: every question once.

    A function of its arguments alone, so that a run that was killed continues with the same steps.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(count)
    size = window_size(count, questions_per_step * _POOL)
    parts = [order[start : start + size].tolist() for start in range(0, count, size)]
    return [Window(rows, rng.permutation(math.ceil(len(rows) / questions_per_step)).tolist()) for rows in parts]
