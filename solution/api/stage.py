"""What every stage does when it is called from Python: its messages name its arguments, and commands that name the same
folders."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from solution.api.inputs import setting_texts
from solution.api.wording import defaults_of, python_wording
from solution.suggestions import command_runs, running_command

P = ParamSpec("P")
R = TypeVar("R")


def stage(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a stage: what it is given is known to messages as a command's options are.

    Errors name the arguments of the function (`wording.in_python`). Within a command nothing changes: its own
    options are known already.
    """
    signature, defaults = inspect.signature(function), defaults_of(function)
    name = function.__name__.removeprefix("run_").removeprefix("make_")

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if command_runs():
            return function(*args, **kwargs)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # raises Python's own message, which names the function
        bound.apply_defaults()
        given: dict[str, Any] = {
            key: value for key, value in bound.arguments.items() if value is None or isinstance(value, (str, Path))
        }
        with python_wording(defaults):
            given["overrides"] = setting_texts(bound.arguments.get("settings"))
            with running_command(name, given):
                return function(*args, **kwargs)

    return run
