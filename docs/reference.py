"""The pages of reference, made from what they describe: the settings' classes and the commands' own options.

`docs/site_pages.py` puts them into the site when it is built, so they cannot be older than the program.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from solution.cli.app import app
from solution.config import EmbedderTuning, EnsembleConfig, RankerConfig, RetrievalConfig, Settings
from solution.config.problems import settings_class, written_name

DOCS = Path(__file__).resolve().parent
FILES = (
    ("A ranker: RANKER.yaml", "", RankerConfig),
    ("Retrieval: retrieval.yaml", "retrieval.", RetrievalConfig),
    ("The ensemble: ensemble.yaml", "ensemble.", EnsembleConfig),
    ("The tuning of an embedder", "", EmbedderTuning),
)
"""Title, what stands in front of a setting's name on the command line, class."""


_ABOUT_SETTINGS = """Each YAML file of a settings folder, and each setting in it. Any of them can be changed on the
command line as `key.path=value`: a ranker's with the ranker's name in front (`minilm.training.epochs=1`) or for all
rankers (`training.epochs=1`), others with `retrieval.` or `ensemble.` in front (`retrieval.top_k=20`). A list or a
group is written as YAML, in quotes: `"ensemble.rankers=[similarity,minilm]"`. An unknown name is refused, and the
nearest known one told. This page is made from the classes in `solution/config`."""
_ABOUT_COMMANDS = """Every command, as its own `--help` tells it. Wrong input ends with exit code 2 and one message.
Installed by pip, `llm-science-exam` is `python -m solution`; in a checkout `train_fold.py` is `train-fold`, and
`submit.py` is `submit`."""


def descriptions(model: type[Settings]) -> dict[str, str]:
    """Name of a setting -> the text that stands below it in its class (or in one that the class derives from)."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not (issubclass(owner, Settings) and owner is not Settings):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body  # type: ignore[attr-defined]
        for field, text in zip(body, body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = " ".join(text.value.value.split())
    return found


def type_words(annotation: Any) -> str:
    """The type of a setting as a reader of YAML writes it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):  # Annotated
        return type_words(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_words(argument) for argument in arguments))
    if origin is list:
        return f"list of {type_words(arguments[0])}"
    if origin is dict:
        return f"{type_words(arguments[0])}: {type_words(arguments[1])}"
    if annotation is type(None):
        return "null"
    return {str: "text", int: "whole number", float: "number", bool: "true, false"}.get(annotation, "settings")


_SIGNS = {"ge": "≤", "gt": "<", "le": "≤", "lt": "<"}


def _bounds(field: FieldInfo) -> str:
    """The bounds of a number, as `0 <= x < 1`."""
    found = {name: getattr(bound, name) for bound in field.metadata for name in _SIGNS if hasattr(bound, name)}
    low = "".join(f"{found[name]} {_SIGNS[name]} " for name in ("ge", "gt") if name in found)
    high = "".join(f" {_SIGNS[name]} {found[name]}" for name in ("le", "lt") if name in found)
    return f" ({low}x{high})" if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Settings):
        return "see below"
    return "null" if value is None else f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    quoted = isinstance(value, str) and (not value or value != value.strip() or "\n" in value)
    return repr(value) if quoted else str(value)


def _cell(text: str) -> str:
    return linked(text.replace("|", "\\|").replace("<", "&lt;"))


def linked(text: str, form: str = "[{title}]({name}.md)") -> str:
    """A text of the program in which each page of docs/ that it names is a link to it, with the page's title."""

    def link(match: re.Match[str]) -> str:
        page = DOCS / f"{match[1]}.md"
        if not page.is_file():
            return match[0]
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        return form.format(title=title, name=match[1])

    return re.sub(r"\bdocs/(\w+)\.md\b", link, text)


def settings_rows(model: type[Settings], prefix: str = "") -> Iterator[tuple[str, FieldInfo, str]]:
    """Dotted name, field and description of each setting; nested settings follow the setting that holds them."""
    told = descriptions(model)
    for name, field in model.model_fields.items():
        written = written_name(name, field)
        yield prefix + written, field, told.get(name, "")
        inner = settings_class(field.annotation)
        if inner is not None:
            yield from settings_rows(inner, f"{prefix}{written}.")


def settings_page() -> str:
    """The page of all settings, as Markdown."""
    lines = ["# Settings", "", _ABOUT_SETTINGS, ""]
    for title, prefix, model in FILES:
        about = " ".join((model.__doc__ or "").split())
        about = f"On the command line with `{prefix}` in front." if prefix else about
        lines += [f"## {title}", "", linked(about), "", *_table(model), ""]
    return "\n".join(lines) + "\n"


def _table(model: type[Settings]) -> list[str]:
    lines = ["| setting | value | default | what it does |", "| --- | --- | --- | --- |"]
    for name, field, told in settings_rows(model):
        inner = settings_class(field.annotation)
        told = told or (" ".join((inner.__doc__ or "").split()) if inner is not None else "")
        cells = (f"`{name}`", type_words(field.annotation) + _bounds(field), _default(field), told)
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return lines


def commands() -> Iterator[tuple[str, Any]]:
    """Every command line of the package: its words, and the command that reads it."""
    yield from _verbs("python -m solution", typer.main.get_command(app))


def _verbs(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _verbs(f"{words} {name}", inner)
    else:
        yield words, command


def commands_page() -> str:
    """The page of all commands with their options, as Markdown."""
    lines = ["# Commands", "", _ABOUT_COMMANDS, ""]
    for words, command in commands():
        lines += [f"## `{words}`", "", linked(inspect.cleandoc(command.help or "")), "", *_options(command), ""]
    return "\n".join(lines) + "\n"


def _options(command: Any) -> list[str]:
    """A row for each option and argument, in the words of `--help`."""
    context = typer.Context(command, info_name=command.name)
    records = [parameter.get_help_record(context) for parameter in command.params]
    rows = [f"| `{names}` | {_cell(told)} |" for names, told in filter(None, records)]
    return ["| option | what it does |", "| --- | --- |", *rows]
