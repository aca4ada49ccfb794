"""The verb ask."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from solution.api.ensemble import Ensemble, load
from solution.api.inputs import read_noted, tell_notes
from solution.cli.answer import print_answer
from solution.cli.options import HERE, WorkdirOption, listed, reads_exam
from solution.command import command
from solution.errors import UserError
from solution.formats.items import Reading
from solution.interactive.answers import to_json
from solution.questions import MAX_OPTIONS, MIN_OPTIONS, Questions, letter, read_given_questions

Asked = tuple[str, list[str], str | None]
"""A question, its options, and the text of the column `context` where the file has one."""


# More than seven parameters: each is an option of the command line.
@command
@reads_exam
def ask(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUESTION OPTION...",
            help="The question and each option, or one text that has them all. Default: standard input, or asked for.",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Ask the questions of a file, in any form of docs/formats.md.")
    ] = None,
    rankers: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Only these; their weights keep their proportions.")
    ] = None,
    passages: Annotated[int, typer.Option(help="Passages to print.", min=0)] = 3,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="How much may be used, as 4GiB; the rankers share it.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="key.path=value", help="A setting in the place of the stored one."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object a question, a line each.")] = False,
    workdir: WorkdirOption = HERE,
    *,
    reading: Reading,
) -> None:
    """Rank the options of a question, and say why: what each ranker says, and the sentences that decided.

    Prints how sure the ensemble is, and how often it was right out of fold where it was about as sure.
    """
    given = _given(words or [], file, reading)
    names = None if rankers is None else listed(rankers)
    with load(workdir, memory=memory, rankers=names, settings=setting, warm=False) as ensemble:
        for asked in given:
            _answer(ensemble, asked, passages, json_)


def _answer(ensemble: Ensemble, asked: Asked, passages: int, as_json: bool) -> None:
    answer = ensemble.explain(*asked)
    if as_json:
        print(json.dumps(to_json(answer), ensure_ascii=False, allow_nan=False), flush=True)
    else:
        print_answer(answer, passages)


def _given(words: list[str], file: Path | None, reading: Reading) -> Iterator[Asked]:
    """The questions of the command line, read and checked before any model loads; those of a terminal come one by one.

    Raises:
        UserError: both words and a file, or they hold no question.
    """
    if words and file is not None:
        raise UserError("give either the question or --file FILE, not both")
    if file is not None:
        return iter(_each(read_noted(file, reading)))
    if len(words) > 2:
        return iter([(words[0], words[1:], None)])
    if len(words) == 2:
        raise UserError(
            f"the question has one option: give {MIN_OPTIONS} to {MAX_OPTIONS}, each a word of the command line (in "
            "quotes), or one text that has them all"
        )
    if words:
        return iter(_each(_parsed(words[0].encode(), "the text", replace(reading, encoding=None))))
    if sys.stdin.isatty():
        return _typed()
    return iter(_each(_parsed(sys.stdin.buffer.read(), "standard input", reading)))


def _parsed(data: bytes, name: str, reading: Reading) -> Questions:
    notes: list[str] = []
    questions = read_given_questions(data, name, notes, with_answers=False, reading=reading)
    tell_notes(name, notes)
    return questions


def _each(questions: Questions) -> list[Asked]:
    contexts = questions.extra.get("context", [None] * len(questions))
    rows = zip(questions.prompts, questions.options, contexts, strict=True)
    # A gap among the options has no letter here: those behind it move up.
    return [
        (prompt, list(filter(None, options)), text if isinstance(text, str) else None) for prompt, options, text in rows
    ]


def _typed() -> Iterator[Asked]:
    """Questions asked for in the terminal, until an empty one or the end of the input (Ctrl-D)."""
    while True:
        prompt = _line("Question (empty: end): ")
        if not prompt:
            return
        options: list[str] = []
        while len(options) < MAX_OPTIONS:
            text = _line(f"  {letter(len(options))} (empty: no more): ")
            if not text and len(options) >= MIN_OPTIONS:
                break
            if text:
                options.append(text)
            else:
                print(f"  at least {MIN_OPTIONS} options", file=sys.stderr)
        yield prompt, options, None


def _line(prompt: str) -> str:
    """A line from the terminal; empty at the end of the input."""
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise typer.Exit()
    return line.strip()
