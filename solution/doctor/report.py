"""The doctor's findings: lines of a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from solution.errors import UserError

State = Literal["ok", "warning", "error"]
_STATES: tuple[State, ...] = ("ok", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        area: the group of checks ("machine", "packages", ...).
        subject: the thing that was looked at.
        found: its state in words.
        remedy: what to do; empty where nothing is, or where `found` says it.
    """

    area: str
    subject: str
    state: State
    found: str
    remedy: str = ""


@dataclass
class Report:
    """All findings.

    Attributes:
        plan: what submit.py would do, a record for each ranker in order: its name, weight, model, folds, seconds a
            question (None: not known for this machine), and the share of the questions that it is asked.
        seconds: of all rankers on the questions that they are asked; None: not known.
    """

    findings: list[Finding] = field(default_factory=list)
    plan: list[dict[str, Any]] = field(default_factory=list)
    seconds: float | None = None

    @property
    def state(self) -> State:
        return max((finding.state for finding in self.findings), key=_STATES.index, default="ok")

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        findings = [asdict(finding) for finding in self.findings]
        return {"state": self.state, "findings": findings, "plan": self.plan, "seconds": self.seconds}


def guarded(area: str, subject: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; an error that it raises is a finding too."""
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - an error of any kind is one line, and the other checks go on
        yield failure(area, subject, error)


def failure(area: str, subject: str, error: Exception) -> Finding:
    """An error as a finding."""
    if isinstance(error, UserError):
        return Finding(area, subject, "error", str(error))
    if isinstance(error, OSError):
        found = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        return Finding(area, subject, "error", found, "Make the file or folder readable, or the room for it.")
    return Finding(
        area,
        subject,
        "error",
        f"the check failed ({type(error).__name__}: {error})",
        "Tell it as a fault of this program.",
    )


def print_report(report: Report, as_json: bool = False) -> None:
    """The findings as a table on stdout, or as one JSON object."""
    if as_json:
        print(json.dumps(report.record(), indent=2, ensure_ascii=False))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for head, most in (("", None), ("what", 26), ("found, and what to do", None)):
        table.add_column(head, overflow="fold", max_width=most)
    styles = {"ok": "green", "warning": "yellow", "error": "bold red"}
    area = ""
    for finding in report.findings:
        if finding.area != area:
            table.add_row("", Text(finding.area, style="bold"), "")
            area = finding.area
        state = Text(finding.state, style=styles[finding.state])
        found = Text(finding.found)
        if finding.remedy:
            found.append(f"\n-> {finding.remedy}", style=styles[finding.state])
        table.add_row(state, Text(f"  {finding.subject}"), found)
    console.print(table)
    counts = {state: sum(finding.state == state for finding in report.findings) for state in _STATES}
    console.print(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['error']} errors")
