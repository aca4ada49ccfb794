"""Batches by token budget, sorted by length, so that padding is a small share of what is computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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


def training_steps(lengths: Sequence[int], questions_per_step: int, seed: int, epoch: int) -> list[list[int]]:
    """The steps of one epoch: every question once, those of a step alike in length, all in random order.

    A function of its arguments alone, so that a run that was killed continues with the same steps.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    pool = questions_per_step * 16
    steps: list[list[int]] = []
    for start in range(0, len(order), pool):
        chunk = sorted(order[start : start + pool].tolist(), key=lambda i: (lengths[i], i))
        steps += [chunk[i : i + questions_per_step] for i in range(0, len(chunk), questions_per_step)]
    return [steps[i] for i in rng.permutation(len(steps))]
