"""The results of `tune`, printed: the table of scores, what each ranker adds, the estimate, the cascade."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from solution.ensemble.record import EnsembleRecord
from solution.ensemble.rows import ScoreRow

_BLENDS = ("equal", "tuned_in_sample", "tuned_nested", "candidate")
_WIDE = 100
"""Columns of a terminal from which the paired intervals are shown."""


def print_table(rows: Sequence[ScoreRow], names: Mapping[str, str] | None = None) -> None:
    """Print the rows on stdout: on a terminal as wide as it is, elsewhere 80 columns (or $COLUMNS).

    From 100 columns on, the paired interval of the difference to equal weights is shown too.

    Args:
        names: of the blends for `tune.choose`, by their titles; they stand in front of the titles.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    wide = console.width >= _WIDE
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("ranker or blend", overflow="fold", min_width=12)
    for head in ["MAP@3", "95 %\ninterval", "P@1", "log\nloss", "weight", "vs\nequal"] + ["paired\n95 %"] * wide:
        table.add_column(head, justify="right", no_wrap=True)
    section = rows[0]["kind"] if rows else ""
    for row in rows:
        kind = "candidate" if row["kind"] in _BLENDS else row["kind"]
        if kind != section and kind == "candidate":
            table.add_section()
        section = kind
        label = f"{row['name']} (baseline)" if kind == "baseline" else row["name"]
        if names and row["name"] in names and names[row["name"]] != row["name"]:
            label = f"{names[row['name']]}: {label}"
        cells: list[str | Text] = [
            Text(f"* {label}" if row["shipped"] else f"  {label}"),
            f"{row['map3']:.4f}",
            _span(row["low"], row["high"], "{:.3f}-{:.3f}"),
            f"{row['precision1']:.3f}",
            f"{row['log_loss']:.3f}",
            "" if row["weight"] is None else f"{row['weight']:.3f}",
            "" if row["difference"] is None else f"{row['difference']:+z.4f}",
        ]
        if wide:
            cells.append(_span(row["difference_low"], row["difference_high"], "{:+z.3f} .. {:+z.3f}"))
        table.add_row(*cells, style="bold" if row["shipped"] else "")
    console.print(table)
    shipped = [row["name"] for row in rows if row["shipped"]]
    if shipped:
        # See `blend.Recipe.stacker`: it needs the answers of all its rankers.
        weight = "where a ranker is missing" if "stacker" in shipped[0] else "in what is shipped"
        console.print(f"* shipped; weight: {weight}; vs equal: MAP@3 minus equal weights'", soft_wrap=True)
    if names:
        console.print("tune.choose=NAME ships another blend: the word in front of its colon", soft_wrap=True)


def print_rankers(record: EnsembleRecord) -> None:
    """Print what each ranker adds to what ships, and whose errors go with whose, from `weights/ensemble.json`.

    Only the rankers that fit on the line get a column in the correlation matrix: those of the largest weights.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = record["rankers"]
    if len(names) < 2:
        return
    console = Console(file=sys.stdout, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("ranker", overflow="fold", min_width=12)
    shown = sorted(range(len(names)), key=lambda i: (-record["weights"][names[i]], i))
    shown = sorted(shown[: max(0, (console.width - 54) // 5)])
    correlations = record["error_correlation"]
    if all(value is None for row in correlations for value in row):
        shown = []  # each ranker earns the same on every question
    added = any(record["added_value"][name] is not None for name in names)
    heads = ["without\nit", "adds", "95 %\ninterval"] if added else []
    if not heads and not shown:
        return
    for head in [*heads, *(f"err\n{i + 1}" for i in shown)]:
        table.add_column(head, justify="right", no_wrap=True)
    for row, name in enumerate(names):
        value = record["added_value"][name]
        cells: list[str | Text] = [Text(f"{row + 1} {name}")]
        if value is None:
            cells += [""] * len(heads)
        else:
            cells += [f"{value['without']:.4f}", f"{value['added']:+z.4f}"]
            cells.append(_span(value["low"], value["high"], "{:+z.3f} .. {:+z.3f}"))
        beside = [correlations[row][i] for i in shown]
        cells += ["" if value is None else f"{100 * value:.0f}" for value in beside]
        table.add_row(*cells)
    console.print(table)
    legend = ["adds: MAP@3 of what ships, less that without the ranker"] if added else []
    legend += ["err: correlation of errors, %"] if shown else []
    if legend:
        console.print("; ".join(legend), soft_wrap=True)


def print_search(record: EnsembleRecord) -> None:
    """Print the honest estimate of what ships beside its in-sample score, and where exact search beat a sampler."""
    estimate = record["estimate"]
    span = _span(estimate["low"], estimate["high"], "{:.3f}-{:.3f}")
    how = "nothing was fitted"
    if estimate["kind"] == "nested":
        how = "fitted and chosen" if record["tune"]["choose"] == "auto" else "fitted"
        how += " without the fold that it answers"
    print(f"estimate: MAP@3 {estimate['map3']:.4f} [{span}] ({how}); in-sample {record['in_sample_map3']:.4f}")
    for name, scores in sorted(record["search"].items()):
        if scores["exact"] > scores["sampler"]:
            print(
                f"{name}: exact line search found {scores['exact']:.4f} in-sample, the sampler {scores['sampler']:.4f}"
            )


def print_cascade(record: EnsembleRecord) -> None:
    """Print the frontier of score against time, from `weights/ensemble.json`."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cascade = record.get("cascade")
    if cascade is None:
        return
    console = Console(file=sys.stdout, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for head in ("seconds a\nquestion", "MAP@3", "95 %\ninterval"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("cascade", overflow="fold")
    for number, point in enumerate(cascade["frontier"]):
        mark = "* " if number == cascade["chosen"] else "  "
        table.add_row(
            f"{point['seconds_per_question']:.4g}",
            f"{point['map3']:.4f}",
            _span(point["low"], point["high"], "{:.3f}-{:.3f}"),
            Text(mark + point["note"]),
            style="bold" if number == cascade["chosen"] else "",
        )
    console.print(table)


def _span(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else form.format(low, high)
