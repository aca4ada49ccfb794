"""The charts of the report as figures: `page` draws them in HTML and SVG, `plots` in PNGs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SIGNED = "{:+z.4f}"  # z: never -0.0000
PLAIN = "{:.4f}"


@dataclass(frozen=True)
class Mark:
    """One line of a `Forest`.

    Attributes:
        label: name of what the figure is of.
        value: the figure; None: `text` stands in its place and nothing is drawn.
        low, high: its 95 % interval.
        other: a second figure of the same line, drawn hollow.
        cells: further figures, as the table shows them.
        strong: whether the line is set off.
        text: stands in the place of a figure that is None.
    """

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    other: float | None = None
    cells: tuple[str, ...] = ()
    strong: bool = False
    text: str = ""


@dataclass(frozen=True)
class Forest:
    """Figures with their intervals, one above the other on one axis.

    Attributes:
        name: of the PNG.
        title: names the measure and what it is measured on.
        axis: the measure alone.
        heads: of the label's column and of the further cells.
        reference: a value at which a line is drawn through all marks, and its meaning.
        other: meaning of the hollow marks.
        form: format of a figure.
        bars: the marks are drawn as bars from the reference, not as points.
    """

    name: str
    title: str
    axis: str
    marks: tuple[Mark, ...]
    heads: tuple[str, ...]
    reference: tuple[float, str] | None = None
    other: str = ""
    form: str = PLAIN
    bars: bool = False

    def span(self) -> tuple[float, float]:
        """The axis: it holds every figure, interval and the reference, with a little room."""
        values = [v for mark in self.marks for v in (mark.value, mark.low, mark.high, mark.other) if v is not None]
        if self.reference is not None:
            values.append(self.reference[0])
        low, high = min(values), max(values)
        room = 0.05 * (high - low) or 0.05
        return (low if self.bars and low == 0 else low - room), high + room


@dataclass(frozen=True)
class Point:
    """A point of a `Series`.

    Attributes:
        low, high: the 95 % interval of y.
        share: of all questions that it stands for: the larger the dot; 0: no dot.
        strong: whether the point is set off.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    share: float = 0.0
    strong: bool = False


@dataclass(frozen=True)
class Series:
    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """One plot of lines.

    Attributes:
        diagonal: whether y = x is drawn.
        unit: both axes from 0 to 1.
        log_x: a logarithmic axis (every x above 0).
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    diagonal: bool = False
    unit: bool = False
    log_x: bool = False

    def spans(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Of the x axis (its logarithm to base 10 with `log_x`) and the y axis."""
        if self.unit:
            return (0.0, 1.0), (0.0, 1.0)
        points = [point for series in self.series for point in series.points]
        return _span(self.place(point.x) for point in points), _span(
            value for point in points for value in (point.y, point.low, point.high) if value is not None
        )

    def place(self, x: float) -> float:
        return math.log10(x) if self.log_x else x

    def description(self) -> str:
        """The plot in words, for those who do not see it."""
        parts = []
        for series in self.series:
            first, last = series.points[0], series.points[-1]
            head = f"{series.name}: " if series.name else ""
            parts.append(f"{head}{first.y:.3g} at {first.x:.3g} to {last.y:.3g} at {last.x:.3g}")
        return f"{self.title}: {self.y_label} against {self.x_label}; " + "; ".join(parts)


@dataclass(frozen=True)
class Panels:
    """Plots of lines side by side.

    Attributes:
        name: of the PNG.
        small: many small ones.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    small: bool = False

    def legend(self) -> list[str]:
        """The names of the series in the order of their colours; none where there is but one."""
        names = list(dict.fromkeys(series.name for panel in self.panels for series in panel.series))
        return names if len(names) > 1 else []


@dataclass(frozen=True)
class Heat:
    """A symmetric matrix of correlations; a value is None where the correlation is not defined."""

    name: str
    title: str
    labels: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


def _span(values: Iterable[float]) -> tuple[float, float]:
    numbers = list(values)
    low, high = min(numbers), max(numbers)
    room = 0.06 * (high - low) or 0.05 * max(abs(high), 1.0)
    return low - room, high + room


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` (1, 2 or 5 times a power of ten apart)."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        first, last = math.ceil(low / (step * factor) - 1e-9), math.floor(high / (step * factor) + 1e-9)
        if last - first + 1 <= most:
            return [number * step * factor for number in range(first, last + 1)]
    return []


def smooth(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and the `window` - 1 before it (fewer at the beginning)."""
    result, total = [], 0.0
    for place, value in enumerate(values):
        total += value
        if place >= window:
            total -= values[place - window]
        result.append(total / min(place + 1, window))
    return result
