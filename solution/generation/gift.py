"""An exam as GIFT, the text form of questions that Moodle imports (https://docs.moodle.org/en/GIFT_format)."""

from __future__ import annotations

import re
from pathlib import Path

from solution.files import write_text
from solution.questions import Questions

_MARKS = re.compile(r"([~=#{}:\\])")


def write_gift(path: Path, exam: Questions) -> None:
    """Write an exam whose answers are known, whole or not at all; ids become titles, further columns are left out."""
    blocks = []
    for row, options in enumerate(exam.options):
        lines = [f"::{_escaped(exam.ids[row])}::[plain]{_escaped(exam.prompts[row])} {{"]
        lines += [
            f"\t{'=' if place == exam.answers[row] else '~'}{_escaped(option)}"
            for place, option in enumerate(options)
            if option
        ]
        blocks.append("\n".join([*lines, "}", ""]))
    write_text(path, "\n".join(blocks))


def _escaped(text: str) -> str:
    return _MARKS.sub(r"\\\1", " ".join(text.split()))
