"""The report's charts as PNGs, by matplotlib."""

from __future__ import annotations

import importlib.util
import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solution.errors import UserError
from solution.report.charts import Forest, Heat, Panel, Panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTALL = "pip install matplotlib"
_BACKGROUND, _INK, _LINE = "#fafafa", "#1c1f23", "#c9ced4"
_COLORS = ("#1f5fa8", "#b4511a", "#1f7a44", "#7a3fa0", "#846400", "#0f7480")
_DASHES = ("-", (0, (7, 3)), (0, (2, 2)), (0, (9, 3, 2, 3)), (0, (12, 4)), (0, (4, 2, 1, 2)))
_DPI = 120
_LABEL = 42
"""Characters of a label's line."""


def require_matplotlib() -> None:
    """Raise `UserError` where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"the report's plots need matplotlib, which is not installed: {INSTALL}")


def save(chart: Forest | Panels | Heat, path: Path) -> None:
    """Write one chart as a PNG on a neutral background."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.facecolor": _BACKGROUND,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 10,
        "axes.titlesize": 11,
        # A $ in a name is a dollar sign.
        "text.parse_math": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(facecolor=_BACKGROUND, layout="constrained")
        if isinstance(chart, Forest):
            _forest(figure, chart)
        elif isinstance(chart, Heat):
            _heat(figure, chart)
        else:
            _panels(figure, chart)
        figure.savefig(path, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})


def _short(label: str) -> str:
    return label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"


def folded_label(label: str) -> str:
    """A label that has room of its own: folded into lines where it is long, and cut only beyond four lines."""
    return "\n".join(textwrap.wrap(label, _LABEL, max_lines=4, placeholder="…")) or label


def _wrapped(title: str, width: int) -> str:
    return "\n".join(textwrap.wrap(title, width))


def _forest(figure: Figure, chart: Forest) -> None:
    labels = [folded_label(mark.label) for mark in chart.marks]
    lines = max(label.count("\n") for label in labels) + 1
    figure.set_size_inches(8, 1.3 + (0.15 + 0.15 * lines) * len(chart.marks))
    axes = figure.subplots()
    axes.set_xlim(*chart.span())
    axes.set_ylim(len(chart.marks) - 0.4, -0.6)
    axes.set_yticks(range(len(chart.marks)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    figure.suptitle(_wrapped(chart.title, 90), x=0.01, ha="left", fontsize=11)
    axes.set_xlabel(chart.axis)
    if chart.reference is not None:
        label = chart.reference[1] or None
        axes.axvline(chart.reference[0], color=_INK, linewidth=1, linestyle="--", label=label)
    hollow = False
    for row, mark in enumerate(chart.marks):
        color = _COLORS[1] if mark.strong else _COLORS[0]
        if mark.strong:
            axes.get_yticklabels()[row].set_fontweight("bold")
        figure_text = mark.text
        if mark.value is not None:
            figure_text = chart.form.format(mark.value)
            if mark.low is not None and mark.high is not None:
                axes.plot([mark.low, mark.high], [row, row], color=color, linewidth=4, alpha=0.4, solid_capstyle="butt")
            if chart.bars:
                start = chart.reference[0] if chart.reference is not None else 0.0
                axes.barh(row, mark.value - start, left=start, height=0.55, color=color)
            else:
                axes.plot(mark.value, row, "o", color=color, markersize=7)
            if mark.other is not None:
                label = chart.other if not hollow else None
                axes.plot(
                    mark.other,
                    row,
                    "o",
                    color=_INK,
                    markerfacecolor="none",
                    markersize=7,
                    label=label,
                    linestyle="none",
                )
                hollow = True
        axes.text(1.01, row, figure_text, transform=axes.get_yaxis_transform(), va="center")
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=9)


def _panels(figure: Figure, chart: Panels) -> None:
    columns = min(len(chart.panels), 4 if chart.small else 2)
    rows = math.ceil(len(chart.panels) / columns)
    width, height = (2.3, 2.4) if chart.small else (4.6, 3.1)
    figure.set_size_inches(max(columns * width, 4.0), rows * height + 0.4)
    names = chart.legend()
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, chart.panels, strict=False):
        _lines(axes, panel, names)
    for axes in grid[len(chart.panels) :]:
        axes.set_visible(False)
    if names:
        handles: dict[str, Any] = {}
        for axes in grid:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)


def _lines(axes: Axes, panel: Panel, names: list[str]) -> None:
    axes.set_title(_short(panel.title), loc="left")
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.grid(color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    if panel.log_x:
        axes.set_xscale("log")
    if panel.unit:
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    if panel.diagonal:
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle="--")
    for series in panel.series:
        number = names.index(series.name) % len(_COLORS) if names else 0
        color = _COLORS[number]
        xs, ys = [point.x for point in series.points], [point.y for point in series.points]
        label = series.name if names else None
        axes.plot(xs, ys, color=color, linestyle=_DASHES[number], linewidth=1.5, label=label)
        for point in series.points:
            point_color = _COLORS[1] if point.strong else color
            if point.low is not None and point.high is not None:
                axes.plot([point.x, point.x], [point.low, point.high], color=point_color, linewidth=2, alpha=0.5)
            if point.share or len(series.points) == 1:
                axes.plot(point.x, point.y, "o", color=point_color, markersize=3 + 13 * point.share**0.5, alpha=0.8)


def _heat(figure: Figure, chart: Heat) -> None:
    count = len(chart.labels)
    figure.set_size_inches(3.2 + 0.55 * count, 1.2 + 0.45 * count)
    axes = figure.subplots()
    values = [[math.nan if value is None else value for value in row] for row in chart.values]
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
    axes.set_xticks(range(count), [str(number) for number in range(1, count + 1)])
    axes.set_yticks(range(count), [f"{number} {_short(label)}" for number, label in enumerate(chart.labels, 1)])
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    figure.suptitle(_wrapped(chart.title, 28 + 5 * count), x=0.01, ha="left", fontsize=11)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if not math.isnan(value):
                axes.text(j, i, f"{round(value, 2) + 0:.2f}", ha="center", va="center", fontsize=9)
