"""The commands that messages tell the user to type: they name the same exam and settings as the command that runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_DEFAULTS = {"workdir": ".", "configs": "configs"}
_OPTIONS = {
    "train_fold": ("configs", "workdir", "questions", "corpus"),
    "index": ("configs", "workdir", "corpus"),
    "tune": ("configs", "workdir"),
    "reranker": ("configs", "workdir", "questions", "corpus"),
}
_SETTINGS: dict[str, str | tuple[str, ...]] = {
    "train_fold": "ensemble.",
    "index": "retrieval.",
    "reranker": ("retrieval.", "ensemble."),
}
"""The beginning of the settings on the command line that are repeated too."""

_running: dict[str, Any] = {}


@contextmanager
def running_command(name: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Keep what the running command was called with until it ends."""
    # The questions to answer are not those to train on.
    _running.update({key: value for key, value in arguments.items() if (name, key) != ("submit", "questions")})
    try:
        yield
    finally:
        _running.clear()


def remember_configs(folder: str | None) -> None:
    """Suggest this configs folder where the running command was given none."""
    if _running and folder is not None and str(_running.get("configs", _DEFAULTS["configs"])) == _DEFAULTS["configs"]:
        _running["configs"] = folder


def running_arguments() -> dict[str, Any]:
    """What the running command was called with, as JSON holds it: for a process that works for this one."""
    return {
        name: [str(each) for each in value] if isinstance(value, list) else None if value is None else str(value)
        for name, value in _running.items()
    }


def suggest(verb: str, *more: str) -> str:
    """A command line for a message to name, quoted for a shell.

    Args:
        verb: train_fold, index, tune or reranker.
        more: arguments that come first.

    Returns:
        The verb with `more` and with the options of the running command that it takes; those that are its
        defaults are left out. Outside a command line there are none.
    """
    words = ["python", *(["train_fold.py"] if verb == "train_fold" else ["-m", "solution", verb]), *more]
    for name in _OPTIONS[verb]:
        value = _running.get(name)
        if value is not None and str(value) != _DEFAULTS.get(name):
            words += [f"--{name}", str(value)]
    if verb in _SETTINGS:
        words += [text for text in _running.get("overrides") or () if text.startswith(_SETTINGS[verb])]
    return shlex.join(words)
