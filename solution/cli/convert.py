"""The verb convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.cli.options import read_noted, reads_exam
from solution.command import command
from solution.errors import UserError
from solution.formats.forms import BY_ENDING, WRITTEN
from solution.formats.items import Reading
from solution.progress import say
from solution.questions import write_questions


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
    if to is None:
        by_ending = BY_ENDING.get(output.suffix.lower())
        to = by_ending.name if by_ending is not None else ""
    if to not in WRITTEN:
        raise UserError(f"{output}: name the form to write with --to {', '.join(WRITTEN)}")
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a file")
    if output.exists() and output.resolve() == file.resolve():
        raise UserError(f"{output} is the file that is read; give another name")
    questions = read_noted(file, reading)
    write_questions(output, questions, to)
    gaps = sum("" in options for options in questions.options)
    drops = WRITTEN[to].drops
    if drops:
        say(f"note: {output}: this form does not hold {drops}")
        if gaps:
            say(f"note: {output}: {gaps} questions have a gap among their options; the letters behind it move up")
    print(f"{output}: {len(questions)} question{'s' if len(questions) > 1 else ''} as {to}")
