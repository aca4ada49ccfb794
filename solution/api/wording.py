"""Messages in Python's words: they are written for the command line, and name its options."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, ParamSpec, TypeVar

from solution.config import EmbedderTuning
from solution.errors import UserError
from solution.formats.items import Reading
from solution.progress import turned_by
from solution.suggestions import command_runs

P = ParamSpec("P")
R = TypeVar("R")

# What an option is called where the argument has another name.
_OTHERWISE = {
    "all-folds": 'what="folds"',
    "full": 'what="full"',
    "average": 'what="average"',
    "no-models": "models=False",
    "no-verify": "verify=False",
    "set": "settings",
}
_READING = {field.name: field.default for field in fields(Reading)}

# A command to type stays as it is: a program, its verb, its options and settings; and so does what stands in quotes.
_VALUE = r"(?:'[^']*'|(?!--)[^\s'`,;()]+)"
_COMMAND = (
    r"(?:python -m [\w.]+|python \S+\.py|llm-science-exam|pip|hf|torchrun|accelerate)(?: [a-z][\w-]*)*"
    rf"(?: --[a-z][\w-]*(?: {_VALUE})?| {_VALUE}=\S+)*"
)
# An option, and behind it a value: pairs NAME=VALUE, a number, or a word in capitals.
_PAIR = r"[\w.-]+=[\w.-]+"
_OPTION = (
    r"(?P<quote>`)?(?<![\w-])--(?P<name>[a-z][a-z-]*[a-z])(?![\w-])"
    rf"(?: (?P<value>{_PAIR}(?:,{_PAIR})*|\d+(?![\w.])|[A-Z][A-Z_]*\b))?(?(quote)(?P<rest>[^`]*)`)"
)
_PARTS = re.compile(rf"(?P<kept>{_COMMAND}|`(?!--)[^`]*`)|{_OPTION}|(?P<settings>\bthe command line\b)")


def in_python(text: str, defaults: Mapping[str, Any]) -> str:
    """A message with the arguments of a function in the place of a command's options.

    Commands that it tells to type stay as they are, and so do options that the function has no argument for.

    Args:
        defaults: argument of the function -> its default.
    """

    def turned(match: re.Match[str]) -> str:
        if match["settings"] and "settings" in defaults:
            return "`settings`"
        argument = _argument(match["name"], match["value"], defaults) if match["name"] else ""
        return f"`{argument}{match['rest'] or ''}`" if argument else match[0]

    return _PARTS.sub(turned, text)


def _argument(option: str, value: str | None, defaults: Mapping[str, Any]) -> str:
    """The argument that an option is, with its value, as it is written in Python; empty: there is none."""
    name = option.replace("-", "_")
    if name in defaults:
        return _assigned(name, value, defaults[name])
    if name in _READING and "reading" in defaults:
        inner = _assigned(name, value, _READING[name])
        return f"reading=Reading({inner})" if "=" in inner else f"reading.{inner}"
    other = _OTHERWISE.get(option, "")
    return other if other.partition("=")[0] in defaults else ""


def _assigned(name: str, value: str | None, default: Any) -> str:
    if isinstance(default, bool):
        return f"{name}=True"
    if value is None:
        return name
    if "=" in value:
        pairs = [pair.split("=", 1) for pair in value.split(",")]
        listed = ", ".join(f'"{key}": {_written(each)}' for key, each in pairs)
        return f"{name}={{{listed}}}"
    return f"{name}={value}"


def _written(value: str) -> str:
    """A value of a dictionary: a number as it is, a text in quotes."""
    return value if re.fullmatch(r"[\d.]+", value) else f'"{value}"'


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Argument -> default of a function; the settings that `tune_embedder` takes as arguments are among them."""
    parameters = inspect.signature(function).parameters
    found = {name: parameter.default for name, parameter in parameters.items()}
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        found |= {name: field.default for name, field in EmbedderTuning.model_fields.items()}
    return found


@contextmanager
def python_wording(defaults: Mapping[str, Any]) -> Iterator[None]:
    """Within: notes, and the messages of `UserError`, name arguments in the place of a command's options."""
    try:
        with turned_by(lambda text: in_python(text, defaults)):
            yield
    except UserError as error:
        error.args = (in_python(str(error), defaults),)
        error.problems = [in_python(problem, defaults) for problem in error.problems]
        raise


def worded(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function of the API that is no stage: its errors name its arguments, but within a command."""
    defaults = defaults_of(function)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if command_runs():
            return function(*args, **kwargs)
        with python_wording(defaults):
            return function(*args, **kwargs)

    return run
