"""Settings checked, and what is wrong with them in words."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from solution.config.base import Settings

S = TypeVar("S", bound=Settings)

_MOST_PROBLEMS = 20
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 200
_REPR.maxlevel = 2


def value_shown(value: Any) -> str:
    try:
        return _REPR.repr(value)
    except ValueError:  # more digits than Python writes
        return "a number too long to be shown"


def check(model: type[S], value: dict[str, Any]) -> tuple[S | None, list[ErrorDetails]]:
    """The settings, or None and pydantic's errors."""
    try:
        config = model.model_validate(value)
        Settings.hash(config)
        return config, []
    except ValidationError as error:
        errors = error.errors()
        if len(errors) > _MOST_PROBLEMS:
            errors[_MOST_PROBLEMS:] = [_own_error(f"... and {len(errors) - _MOST_PROBLEMS} more problems")]
        return None, errors
    except ValueError as error:  # half of a character in a text, or a number of thousands of digits
        return None, [_own_error(f"a value cannot be written down ({error})")]


def _own_error(message: str) -> ErrorDetails:
    """An error of no single setting, in pydantic's form."""
    return {"loc": (), "type": "value_error", "msg": message, "input": None}


def explain(model: type[Settings], error: ErrorDetails, prefix: str = "", owner: str = "") -> str:
    """An error in words.

    Args:
        prefix: stands before the setting's name.
        owner: is named where the error is of several settings together.
    """
    where = ".".join(str(part) for part in error["loc"])
    where = prefix + where if where else owner
    if error["type"] == "extra_forbidden":
        return unknown_setting(where, [prefix + name for name in setting_names(model)])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: {message[0].lower()}{message[1:]} (it is {value_shown(error['input'])})"


def unknown_setting(name: str, known: Sequence[str]) -> str:
    """A message on an unknown setting, with the known one that is most like it."""
    leaf = name.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(name, known, 1) or [k for k in known if k.rsplit(".", 1)[-1] == leaf][:1]
    return f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else "")


def setting_names(model: type[Settings], prefix: str = "") -> list[str]:
    """The dotted names of all settings."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        name = written_name(name, field)
        inner = settings_class(field.annotation)
        names += setting_names(inner, f"{prefix}{name}.") if inner else [prefix + name]
    return names


def written_name(name: str, field: FieldInfo) -> str:
    """A setting's name as files have it: `from` is a word that Python keeps for itself."""
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else name


def settings_class(annotation: Any) -> type[Settings] | None:
    """The class of nested settings that a field's type holds; None: its value is a single setting."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Settings):
            return candidate
    return None
