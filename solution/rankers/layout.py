"""Rows of token ids laid out in one tensor, and where each of them lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch


class Encoded(Protocol):
    """A question as token ids; each family has its own form."""

    @property
    def positions(self) -> list[int]:
        """The option position of each encoded option, in the order in which they are scored."""

    @property
    def option_ids(self) -> list[list[int]]:
        """Token ids for each position; options of which they are the same get the same score."""


def rotations(order: list[int], count: int) -> list[list[int]]:
    """`count` rotations of an order (at most one an option), evenly spread, the order itself first."""
    count = min(count, len(order))
    shifts = [round(i * len(order) / count) for i in range(count)]
    return [order[shift:] + order[:shift] for shift in shifts]


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
