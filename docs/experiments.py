"""The table in docs/experiments.md, drawn from docs/experiments.jsonl. With --check: say if it is old.

usage: python docs/experiments.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from drawn import redraw

DOCS = Path(__file__).resolve().parent
PAGE, ROWS = DOCS / "experiments.md", DOCS / "experiments.jsonl"
BEGIN, END = "<!-- drawn by docs/experiments.py -->", "<!-- end of the table -->"
KEYS = {
    *("hypothesis", "change", "exam", "map3", "interval", "gain", "gain_interval", "minutes", "kept", "details"),
}
HEAD = "| hypothesis | change | exam | MAP@3 | gain | minutes | kept | details |\n|---|---|---|---|---|---|---|---|"


def rows() -> list[dict[str, Any]]:
    """The experiments in the order in which they were made; null stands for a figure that was not taken.

    Raises:
        ValueError: a row lacks a key or has another one.
    """
    found = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(found, 1):
        if set(row) != KEYS:
            raise ValueError(f"{ROWS.name}, line {number}: its keys are {sorted(row)} and not {sorted(KEYS)}")
    return found


def table(found: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [HEAD]
    for row in found:
        gain = _figure(row["gain"], row["gain_interval"], "+.3f")
        minutes = "" if row["minutes"] is None else f"{row['minutes']:g}"
        cells = [row["hypothesis"], row["change"], row["exam"], _figure(row["map3"], row["interval"], ".3f"), gain]
        lines.append("| " + " | ".join([*cells, minutes, row["kept"], f"[{row['details']}]({row['details']})"]) + " |")
    return "\n".join(lines)


def _figure(value: float | None, interval: list[float] | None, form: str) -> str:
    if value is None:
        return ""
    return f"{value:{form}}" + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")


if __name__ == "__main__":
    sys.exit(
        redraw(
            PAGE, BEGIN, END, table(rows()), f"the table is not that of {ROWS.name}; run: python docs/experiments.py"
        )
    )
