"""A submission in a kernel under supervision: it is ended when it is late, and what it left is judged.

A notebook whose last cell fails has no score, however good the answer is that lies there. So only an answer that is not
complete is a failure; all else is a warning, shown together at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from solution.errors import UserError
from solution.files import read_json
from solution.formats.items import Reading, columns_named
from solution.inference.limits import parse_duration
from solution.inference.outputs import Outputs
from solution.kaggle.kernel import find_place
from solution.questions import LETTERS, Questions, read_questions

GRACE = 600.0
"""Seconds behind its deadline after which a submission is ended, and a tenth of it later killed."""
BAR = "=" * 100
"""The line above and below what is shown at the end."""
REMARKS = ("WARNING: ", "public run: ", "devices: ")
"""The beginnings of the lines between them."""


def supervise(script: Path, arguments: Sequence[str]) -> int:
    """Run a bundle's `submit.py`, show its output, and show at the end what its answer lacks.

    Args:
        script: the `submit.py`.
        arguments: of its command line.

    Returns:
        0 where it has written an answer to every question, else 1.

    Raises:
        UserError: bundle, questions or deadline are not usable; see `find_place`.
    """
    named = _named_files(arguments)
    place = _Files.find(named)
    before = [_identity(path) for path in place.written]
    seconds = parse_duration(named.deadline, "--deadline") + GRACE if named.deadline else None
    code, error, late = _run([sys.executable, str(script), *arguments], seconds)
    is_new = [now is not None and now != then for now, then in zip(map(_identity, place.written), before, strict=True)]
    lacking = (
        incomplete(place.answer, place.questions, named.reading) if is_new[0] else "this run has written no answer"
    )
    report = _read_report(place.report) if is_new[1] else None
    _show(f"{place.answer}: {lacking or 'every question is answered'}", _lines(code, error, late, report))
    return 1 if lacking else 0


# --- the files -----------------------------------------------------------------------------


def _named_files(arguments: Sequence[str]) -> argparse.Namespace:
    """Of a command line of submit.py what names its files, its deadline and its settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--questions", "--output", "--workdir"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--deadline")
    parser.add_argument("--columns", action="append", default=[])
    parser.add_argument("--encoding")
    parser.add_argument("--answers-from", type=int)
    parser.add_argument("--keep-html", action="store_true")
    named, others = parser.parse_known_args(arguments)
    # The folder of a model that the bundle lacks may be named so.
    named.overrides = [text for text in others if "=" in text and not text.startswith("-")]
    named.reading = Reading(columns_named(named.columns), named.encoding, named.answers_from, named.keep_html)
    return named


@dataclass(frozen=True)
class _Files:
    """The answer, the report on it, and the questions."""

    answer: Path
    report: Path
    questions: Path

    @classmethod
    def find(cls, named: argparse.Namespace) -> _Files:
        place = find_place(named.workdir, named.questions, named.output, named.overrides)
        return cls(place.output, Outputs(place.output).report, place.questions or place.workdir.test)

    @property
    def written(self) -> tuple[Path, Path]:
        return self.answer, self.report


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size


def incomplete(answer: Path, questions: Path, reading: Reading | None = None) -> str | None:
    """What an answer lacks; None where it ranks three different options (or all of fewer) of every question once."""
    try:
        exam = read_questions(questions, [], reading)
        with open(answer, newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
    except (UserError, OSError, ValueError, csv.Error) as error:
        return f"it cannot be compared with the questions: {error}"
    return _difference(rows, exam)


def _difference(rows: Sequence[Sequence[str]], exam: Questions) -> str | None:
    if not rows or list(rows[0]) != ["id", "prediction"] or any(len(row) != 2 for row in rows):
        return "it has not the columns id,prediction"
    predictions = {id_: prediction.split() for id_, prediction in rows[1:]}
    if len(predictions) != len(rows) - 1 or predictions.keys() != set(exam.ids):
        return f"it has {len(rows) - 1} rows and not each of the {len(exam)} questions once"
    for id_, exists in zip(exam.ids, exam.exists(len(LETTERS)), strict=True):
        letters, given = {LETTERS[column] for column in exists.nonzero()[0]}, predictions[id_]
        if not set(given) <= letters or len(given) != min(3, len(letters)) or len(set(given)) != len(given):
            return f"question {id_} has the answer {' '.join(given)!r}"
    return None


def _read_report(path: Path) -> dict[str, Any] | None:
    try:
        report = read_json(path, "", "")
    except (UserError, OSError):
        return None
    return report if isinstance(report, dict) else None


# --- the process ---------------------------------------------------------------------------


def _run(command: Sequence[str], seconds: float | None) -> tuple[int, str, bool]:
    """Run a command and show its output.

    Args:
        seconds: until it gets SIGTERM, and SIGKILL some time later; None: no limit.

    Returns:
        Its exit code, the last error that it has told, and whether it took too long.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    assert process.stdout is not None
    told: list[str] = []
    # What the command has started may hold its output open, so this thread is not waited for without an end.
    reader = threading.Thread(target=_pass_on, args=(process.stdout, told), daemon=True)
    reader.start()
    late = False
    with _passed_on_signals(process):
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            late = True
            process.terminate()
            try:
                code = process.wait(GRACE / 10)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
    reader.join(10)
    errors = [line for line in told if line.startswith("error: ")]
    return code, errors[-1] if errors else "", late


def _pass_on(stream: IO[str], told: list[str]) -> None:
    for line in stream:
        print(line, end="", flush=True)
        told.append(line.rstrip("\n"))


@contextlib.contextmanager
def _passed_on_signals(process: subprocess.Popen[str]) -> Iterator[None]:
    """SIGINT and SIGTERM are the command's, which writes its best answer on them."""

    def send(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, send) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- the block at the end ------------------------------------------------------------------


def _lines(code: int, error: str, late: bool, report: dict[str, Any] | None) -> list[str]:
    """What there is to know of an answer.

    Args:
        code: the exit code of submit.py.
        error: what it has told as its error.
        late: whether it was ended.
        report: on this run; None: it wrote none.
    """
    lines = []
    if report is not None and report.get("public_run"):
        lines.append(f"{report['public_run']['text']} (--full-run answers all by all)")
    if late:
        lines.append(f"WARNING: submit.py went on {GRACE / 60:.0f} minutes behind its deadline and was ended")
    if code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else str(-code)
        why = ": the system takes a process that uses too much memory" if -code == signal.SIGKILL and not late else ""
        lines.append(f"WARNING: submit.py was ended by {name}{why}")
    elif code:
        lines.append(f"WARNING: submit.py ended with exit code {code}{': ' if error else ''}{error[len('error: ') :]}")
    if report is None:
        lines.append("WARNING: there is no report on this run: its output above tells which rankers have answered")
        return lines
    if devices := report.get("devices"):
        lines.append(f"devices: {', '.join(devices)}")
    lines += [f"WARNING: {line}" for line in report.get("warnings", [])]
    computed = [str(ranker.get("computed_on")) for ranker in report.get("rankers", []) if ranker.get("computed_on")]
    if not report.get("gpu_problem") and any(place.startswith("cpu") for place in computed):
        lines.append("WARNING: the rankers computed on the CPU: no GPU is switched on for this kernel")
    return lines


def _show(title: str, lines: Sequence[str]) -> None:
    print("\n".join(["", BAR, title, *lines, BAR]), flush=True)
