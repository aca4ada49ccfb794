"""Rows of token ids laid out in one tensor, and where each of them lies."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch

from solution.option_references import fixed_places


class Encoded(Protocol):
    """A question as token ids; each family has its own form."""

    @property
    def positions(self) -> list[int]:
        """The option position of each encoded option, in the order in which they are scored."""

    @property
    def option_ids(self) -> list[list[int]]:
        """Token ids for each position; options of which they are the same get the same score."""


def rotations(options: Sequence[str], count: int) -> list[list[int]]:
    """Positions of a question's options ("" is none) in `count` rotations of their order, evenly spread; the order
    itself is the first.

    Options that name others keep their places (see `fixed_places`), and there are at most as many rotations as others.
    """
    order, fixed = _places(options)
    others = [place for place in order if place not in fixed]
    count = min(count, max(len(others), 1))
    shifts = [round(i * len(others) / count) for i in range(count)]
    return [_filled(order, fixed, others[shift:] + others[:shift]) for shift in shifts]


def shuffled(options: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Positions of a question's options in a random order, in which options that name others keep their places."""
    order, fixed = _places(options)
    others = [place for place in order if place not in fixed]
    rng.shuffle(others)
    return _filled(order, fixed, others)


def _places(options: Sequence[str]) -> tuple[list[int], frozenset[int]]:
    return [place for place, option in enumerate(options) if option], _fixed(tuple(options))


# A training asks for the same questions in each epoch.
_fixed = functools.lru_cache(1 << 16)(fixed_places)


def _filled(order: list[int], fixed: frozenset[int], others: list[int]) -> list[int]:
    """The order with `others` one after the other at the places that are not fixed."""
    left = iter(others)
    return [place if place in fixed else next(left) for place in order]


def pad_rows(rows: Iterable[Sequence[int]], value: int, device: torch.device) -> torch.Tensor:
    """int64 [rows, longest], padded on the right."""
    rows = list(rows)
    width = max(len(row) for row in rows)
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows], device=device)


def table_width(items: Sequence[Encoded]) -> int:
    """Columns of a table in which every option of the items has its position."""
    return max(max(item.positions) for item in items) + 1


def flat_places(items: Sequence[Encoded]) -> list[int]:
    """The place of each option, in the order in which it was scored, in a table [b, width] read row by row."""
    width = table_width(items)
    return [row * width + position for row, item in enumerate(items) for position in item.positions]


def spread(values: torch.Tensor, items: Sequence[Encoded]) -> torch.Tensor:
    """Flat option scores [sum of options] -> [b, max position + 1], -inf where an option does not exist.

    Args:
        items: each names the positions of its options, in the order in which they were scored.
    """
    width = table_width(items)
    table = torch.full((len(items) * width,), -torch.inf, dtype=values.dtype, device=values.device)
    where = torch.tensor(flat_places(items), device=values.device)
    return table.index_put((where,), values).view(len(items), width)
