"""The verb convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.api import exams
from solution.cli.options import reads_exam
from solution.command import command
from solution.formats.forms import BY_ENDING, WRITTEN
from solution.formats.items import Reading


@command
@reads_exam
def convert(
    file: Annotated[Path, typer.Argument(help="A question file in any form of docs/formats.md, or a folder.")],
    output: Annotated[Path, typer.Argument(help="The file to write; its ending tells the form.")],
    to: Annotated[
        str | None, typer.Option(metavar="FORM", help=f"Another form than by the ending: {', '.join(WRITTEN)}.")
    ] = None,
    *,
    reading: Reading,
) -> None:
    """Write a question file of another program as this package's CSV, JSONL or parquet, or as GIFT, Moodle XML, Aiken.

    Rows without ids are numbered from 0.
    """
    made = exams.convert(file, output, to=to, reading=reading)
    form = to or BY_ENDING[output.suffix.lower()].name
    print(f"{output}: {len(made)} question{'s' if len(made) > 1 else ''} as {form}")
