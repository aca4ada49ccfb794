"""The commands that messages tell the user to type: they name the same exam and settings as the running command.

The running command's arguments are kept in one place of this module, since messages are made far below the command
line. `command.command` puts them there and takes them away.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMAND = "llm-science-exam"
"""The command that an installation gives."""
MODULE = "python -m solution"
_SCRIPT = "train_fold.py"  # of a checkout

# The options' defaults on the command line: a suggestion leaves them out.
_DEFAULTS = {"workdir": ".", "configs": "configs", "retrieval": "default"}
# How the question file is read.
_READING = ("columns", "encoding", "answers_from", "keep_html", "skip_bad_rows")
# The options of the running command that a suggested verb takes too.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "train_fold": ("configs", "workdir", "questions", "corpus", *_READING),
    "index": ("configs", "workdir", "corpus", "retrieval"),
    "tune": ("configs", "workdir"),
    "reranker": ("configs", "workdir", "questions", "corpus", "retrieval", *_READING),
    "serve": (),  # its folder is named: it need not be that of the running command
}
# The `key.path=value` arguments that it takes too, by their beginning.
_SETTINGS: dict[str, str | tuple[str, ...]] = {
    "train_fold": "ensemble.",
    "index": ("retrieval.", "retrievals."),
    "reranker": ("retrieval.", "retrievals.", "ensemble."),
}

_OF_EXAM = ("configs", "questions", "corpus", *_READING)

_running: dict[str, Any] = {}  # the arguments of the running command by name; empty: none runs
_PROGRAM = "program"  # among them: how it was called


def is_installed_command() -> bool:
    """Whether this process was started as the installed command."""
    return Path(sys.argv[0]).name == COMMAND


def program() -> str:
    """What stands before a verb: the installed command where it runs, else the module."""
    return str(_running.get(_PROGRAM) or (COMMAND if is_installed_command() else MODULE))


def command_runs() -> bool:
    """Whether a command is running, whose options suggestions have."""
    return bool(_running)


@contextmanager
def running_command(name: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Keep the arguments of the command `name` until it ends."""
    # The questions to answer are not those to train on.
    others = ("questions", *_READING) if name in ("submit", "doctor") else ()
    _running[_PROGRAM] = program()
    _running.update({key: value for key, value in arguments.items() if key not in others})
    try:
        yield
    finally:
        _running.clear()


def remember_configs(folder: str | None) -> None:
    """Suggest this configs folder where the running command was given none."""
    if _running and folder is not None and str(_running.get("configs", _DEFAULTS["configs"])) == _DEFAULTS["configs"]:
        _running["configs"] = folder


def exam_arguments() -> dict[str, Any]:
    """What the running command was told of its exam, as JSON holds it, with the folder in which its paths are given."""
    told = {name: _as_json(_running.get(name)) for name in _OF_EXAM}
    given = {name: value for name, value in told.items() if value not in (None, "False", _DEFAULTS.get(name))}
    return {"folder": os.getcwd(), "arguments": given}


def recall_exam(path: Path) -> None:
    """Suggest what `exam_arguments` wrote into a file, for options that the running command does not have."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        folder, arguments = saved["folder"], saved["arguments"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # a suggestion without them is still one
    for name, value in arguments if _running else ():
        if name in _OF_EXAM and name not in _running:
            elsewhere = os.path.join(folder, str(value))
            is_path = name in ("configs", "questions", "corpus") and folder != os.getcwd()
            _running[name] = elsewhere if is_path and os.path.exists(elsewhere) else value


def remember_exam(workdir: str, corpus: str) -> None:
    """Suggest this working folder, whose questions.csv is the exam, and this corpus: the command has found both."""
    if _running:
        for name in ("questions", *_READING):
            _running.pop(name, None)
        _running.update(workdir=workdir, corpus=corpus)


def running_arguments() -> dict[str, str | list[str] | None]:
    """The running command's arguments as JSON holds them: for a process that works for this one."""
    return {name: _as_json(value) for name, value in _running.items()}


def _as_json(value: Any) -> str | list[str] | None:
    if isinstance(value, list):
        return [str(item) for item in value]
    return None if value is None else str(value)


def typed_settings(ranker: str) -> list[str]:
    """The settings of a ranker that the running command was given, for a training to suggest; not those of a
    submission, which stand on top of the settings of the training, nor `answer_with`, which no training depends on."""
    texts = _running.get("overrides") or ()
    return [text for text in texts if text.startswith(f"{ranker}.") and not text.startswith(f"{ranker}.answer_with=")]


def suggest(verb: str, *more: str) -> str:
    """A command line for a message to name, quoted for a shell.

    Args:
        verb: train_fold, index, tune, reranker or serve.
        more: arguments that come first.

    Returns:
        The verb with `more` and with the options of the running command that it takes; those that are its
        defaults are left out. Outside a command line there are none.
    """
    words = [*program().split(), verb.replace("_", "-"), *more]
    if verb == "train_fold" and program() == MODULE and (Path(__file__).parents[1] / _SCRIPT).exists():
        words[:4] = ["python", _SCRIPT]
    for name in _OPTIONS[verb]:
        value = _running.get(name)
        option = f"--{name.replace('_', '-')}"
        if name in ("keep_html", "skip_bad_rows"):
            words += [option] if str(value) == "True" else []
        elif value is not None and str(value) != _DEFAULTS.get(name):
            for text in value if isinstance(value, list) else [value]:
                words += [option, str(text)]
    if verb in _SETTINGS:
        words += [text for text in _running.get("overrides") or () if text.startswith(_SETTINGS[verb])]
    return shlex.join(words)
