"""A section of the report: its texts, its charts and the questions that it shows, without how the page draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from solution.report.charts import Forest, Heat, Panels

Row = TypeVar("Row")


@dataclass(frozen=True)
class ShownPassage:
    """A passage that a ranker read with a question.

    Attributes:
        right: whether it counts as a right passage; None: not judged.
    """

    title: str
    text: str
    right: bool | None


@dataclass(frozen=True)
class Worst:
    """A question that the blend got wrong.

    Attributes:
        facts: name and value: the question's id, its fold, its columns.
        options: letter and text of each option.
        right: the letter of the right option.
        rows: name of the blend or of a ranker, and its probability for each option.
        contexts: names of rankers, and the passages that they read.
    """

    facts: tuple[tuple[str, str], ...]
    prompt: str
    options: tuple[tuple[str, str], ...]
    right: str
    rows: tuple[tuple[str, tuple[float, ...]], ...]
    contexts: tuple[tuple[str, tuple[ShownPassage, ...]], ...]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: its id in the page.
        lines: paragraphs above the charts.
        missing: why there is nothing to show; "": there is something.
    """

    anchor: str
    title: str
    lines: tuple[str, ...] = ()
    charts: tuple[Forest | Panels | Heat, ...] = ()
    worst: tuple[Worst, ...] = ()
    missing: str = ""


Columns = Sequence[tuple[str, Callable[[Row], str]]]
"""A table's further columns: the head of each, and how its cell is written for what the row stands for."""


def heads(first: str, columns: Columns[Row]) -> tuple[str, ...]:
    """The heads of a table: that of its labels, then those of its further columns."""
    return (first, *(head for head, _ in columns))


def cells(columns: Columns[Row], row: Row) -> tuple[str, ...]:
    """The cells of a row in a table's further columns."""
    return tuple(cell(row) for _, cell in columns)


def listed(names: Sequence[str]) -> str:
    """Names with commas between them; of more than four only the first three."""
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def shortened(text: str, most: int) -> str:
    """The text, or its first `most` characters and an ellipsis."""
    return text if len(text) <= most else text[:most].rstrip() + " …"


def interval(low: float | None, high: float | None, form: str = "{:.3f}") -> str:
    """An interval as cells and cards show it; "" where there is none."""
    return "" if low is None or high is None else f"[{form.format(low)}, {form.format(high)}]"
