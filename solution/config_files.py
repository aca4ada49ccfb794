"""Settings from YAML files and the command line; every error of every file is shown at once, before a model loads."""

from __future__ import annotations

import copy
import difflib
import math
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from solution.config import EnsembleConfig, RankerConfig, RetrievalConfig, Run, Settings
from solution.errors import UserError

Overrides = list[tuple[list[str], Any]]
"""Settings typed on the command line, parsed: the parts of the name, and the value."""


# --- reading -------------------------------------------------------------------------------


class _Reader:
    """Collects the problems of several files."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def yaml(self, path: Path, what: str) -> dict[str, Any] | None:
        try:
            if path.is_fifo() or path.is_char_device():  # reading one may wait for ever, or never end
                self.problems.append(f"{what} is a pipe or a device, not a file: {path}")
                return None
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            near = difflib.get_close_matches(path.stem, [p.stem for p in path.parent.glob("*.yaml")], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            there = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "no .yaml file"
            self.problems.append(f"{what} not found: {path}{hint} (there: {there})")
            return None
        except IsADirectoryError:
            self.problems.append(f"{what} is a folder, not a file: {path}")
            return None
        except UnicodeDecodeError:
            self.problems.append(f"{what} is not UTF-8: {path}")
            return None
        except (OSError, ValueError) as error:  # ValueError: a NUL in its name
            self.problems.append(f"{what} cannot be read: {str(path)!r} ({getattr(error, 'strerror', None) or error})")
            return None
        try:
            value, repeated = _parse_yaml(text)
        except _YAML_ERRORS as error:
            self.problems.append(f"{path} is not YAML: {' '.join(str(error).split())}")
            return None
        self.problems += [
            f"{path}, line {line}: {name} stands in line {first} already" for name, line, first in repeated
        ]
        if value is None:
            self.problems.append(f"{what} is empty: {path}")
            return None
        if not isinstance(value, dict):
            self.problems.append(f"{path} must hold settings (`key: value` lines), not a {type(value).__name__}")
            return None
        return value

    def validate(
        self,
        model: type[Settings],
        value: dict[str, Any] | None,
        path: Path | str,
        owner: str = "",
        layers: Iterable[tuple[str, Overrides]] = (),
    ) -> Any:
        """The settings of a file with those of the command line put on top; None where something is wrong.

        A problem is the file's when it is there without the command line, else the command line's.

        Args:
            owner: what the settings belong to: a ranker's name, "retrieval" or "ensemble".
            layers: parsed overrides, each with what stands before their names on the command line.
        """
        if value is None:
            return None
        config, items = _check(model, value)
        origin: dict[str, str | None] = {_explain(model, item): None for item in items}
        for prefix, changes in layers:
            config, items = _check(model, apply_overrides(value, changes))
            for item in items:
                origin.setdefault(_explain(model, item), prefix)
        for item in items:
            typed = origin[_explain(model, item)]
            if typed is None:
                problem = f"{path}: {_explain(model, item)}"
            else:
                problem = f"the command line: {_explain(model, item, typed, owner)}"
            if problem not in self.problems:  # one override may reach several rankers
                self.problems.append(problem)
        return config

    def done(self) -> None:
        if self.problems:
            raise UserError.join(self.problems, "the settings are wrong")


def check_settings(model: type[Settings], value: dict[str, Any], path: Path, owner: str, changes: Overrides) -> Any:
    """Stored settings with those of the command line put on top.

    Args:
        path: where they are stored.
        owner: what begins the names of these settings on the command line.

    Raises:
        UserError: every problem at once.
    """
    reader = _Reader()
    config = reader.validate(model, value, path, owner, [(f"{owner}.", changes)])
    reader.done()
    return config


_MOST_NODES = 100_000
# ValueError: a date such as 2024-13-01; the others come of tags on what they do not fit: !!bool x, !!int "".
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError, OverflowError)


def _parse_yaml(text: str) -> tuple[Any, list[tuple[str, int, int]]]:
    """What a YAML text says, and its repeated keys (see `_repeated_keys`).

    Raises:
        one of `_YAML_ERRORS`: it is not YAML, or so many aliases stand in it that reading it would not end.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if _size(root, {}) > _MOST_NODES:
        raise yaml.YAMLError(f"its aliases (*name) hold themselves or stand for more than {_MOST_NODES} values")
    return yaml.safe_load(text), _repeated_keys(root)


def _size(node: yaml.Node | None, sizes: dict[int, float]) -> float:
    """How many nodes there are with each alias replaced by what it stands for; `sizes` keeps those that are known."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until it is known: a node that holds itself has no end
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(node)]


def _repeated_keys(root: yaml.Node | None) -> list[tuple[str, int, int]]:
    """The dotted name of each key that stands in its mapping already, its line, and the line of the first.

    YAML's own reader keeps the last of them and says nothing.
    """
    found: list[tuple[str, int, int]] = []
    done: set[int] = set()

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if id(node) in done:  # an anchor may be named many times, and from inside itself
            return
        done.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                walk(item, prefix)
        if isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if (key.tag, name) in lines:
                    found.append((prefix + name, line, lines[key.tag, name]))
                lines.setdefault((key.tag, name), line)
                walk(value, f"{prefix}{name}.")

    walk(root, "")
    return found


_MOST_PROBLEMS = 20
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 200
_REPR.maxlevel = 2


def _value_shown(value: Any) -> str:
    try:
        return _REPR.repr(value)
    except ValueError:  # more digits than Python writes
        return "a number too long to be shown"


def _check(model: type[Settings], value: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The settings, or None and pydantic's account of what is wrong with them."""
    try:
        config = model.model_validate(value)
        Settings.hash(config)
        return config, []
    except ValidationError as error:
        items: list[Any] = list(error.errors())
        if len(items) > _MOST_PROBLEMS:
            rest = f"... and {len(items) - _MOST_PROBLEMS} more problems"
            items[_MOST_PROBLEMS:] = [{"loc": (), "type": "value_error", "msg": rest}]
        return None, items
    except ValueError as error:  # half of a character in a text, or a number of thousands of digits
        return None, [{"loc": (), "type": "value_error", "msg": f"a value cannot be written down ({error})"}]


def _explain(model: type[Settings], item: Any, prefix: str = "", owner: str = "") -> str:
    """A problem in words.

    Args:
        item: one of pydantic's `errors()`.
        prefix: stands before the setting's name.
        owner: is named where the problem is of several settings together.
    """
    where = ".".join(str(part) for part in item["loc"])
    where = prefix + where if where else owner
    if item["type"] == "extra_forbidden":
        return _unknown(where, [prefix + name for name in setting_names(model)])
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"{where} is missing"
    if item["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: {message[0].lower()}{message[1:]} (it is {_value_shown(item['input'])})"


def _unknown(name: str, known: Sequence[str]) -> str:
    leaf = name.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(name, known, 1) or [k for k in known if k.rsplit(".", 1)[-1] == leaf][:1]
    return f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else "")


def setting_names(model: type[Settings], prefix: str = "") -> list[str]:
    """Every setting's dotted name."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        inner = _settings_class(field.annotation)
        names += setting_names(inner, f"{prefix}{name}.") if inner else [prefix + name]
    return names


def _settings_class(annotation: Any) -> type[Settings] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Settings):
            return candidate
    return None


def parse_overrides(texts: Iterable[str], told: list[str] | None = None) -> Overrides:
    """`["training.epochs=1"]` -> `[(["training", "epochs"], 1)]`; values are YAML.

    Args:
        told: takes the problems, so that they can be shown with others.

    Raises:
        UserError: a text is not `key.path=value` and `told` is not given (all of them are named).
    """
    parsed: Overrides = []
    problems: list[str] = []
    for text in texts:
        key, sign, value = text.partition("=")
        path = key.strip().split(".")
        if not sign or not all(path):
            problems.append(f"{text!r} is not a setting of the form key.path=value")
            continue
        try:
            found, repeated = _parse_yaml(value)
            parsed.append((path, found))
            problems += [f"{text!r}: {name} stands in it twice" for name, _, _ in repeated]
        except _YAML_ERRORS:
            problems.append(f"{text!r}: the value is not YAML (quote it?)")
    if problems and told is None:
        raise UserError.join(problems, "the command line is wrong")
    if told is not None:
        told += [f"the command line: {problem}" for problem in problems]
    return parsed


def apply_overrides(value: dict[str, Any], overrides: Iterable[tuple[list[str], Any]]) -> dict[str, Any]:
    """Put parsed overrides into raw settings, in place; a mapping that is not there yet is made."""
    for path, new in overrides:
        inner = value
        for part in path[:-1]:
            if not isinstance(inner.get(part), dict):
                inner[part] = {}
            inner = inner[part]
        inner[path[-1]] = copy.deepcopy(new)  # several rankers get it, and one may be changed further
    return value


def load_run(
    folder: Path,
    overrides: Sequence[str] = (),
    ranker: str | None = None,
    ranker_file: Path | None = None,
    corpus: str | None = None,
) -> Run:
    """Read `ensemble.yaml`, `retrieval.yaml` and the rankers' files of a configs folder.

    Args:
        folder: holds the YAML files.
        overrides: `key.path=value` texts; `retrieval.` and `ensemble.` lead to those files,
            `NAME.` (a ranker of this run) to that ranker, anything else to every ranker.
        ranker, ranker_file: only this one, by name or by file.
        corpus: stands in for `retrieval.corpus`.

    Raises:
        UserError: every problem of every file at once.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--configs {folder} is a file; give the folder that it lies in")
    if not folder.is_dir():
        raise UserError(f"the configs folder is not there: {folder}. Name one with --configs or run in the checkout.")
    reader = _Reader()
    # `tune.` is short for `ensemble.tune.`, so that the verb `tune` takes its own settings by their name.
    typed = parse_overrides(overrides, reader.problems)
    changes = [(["ensemble", *path] if path[0] == "tune" else path, value) for path, value in typed]
    ensemble_raw = reader.yaml(folder / "ensemble.yaml", "the ensemble's config")
    retrieval_raw = reader.yaml(folder / "retrieval.yaml", "the retrieval's config")
    files = [ranker_file] if ranker_file else []
    if not files:
        chosen = [value for path, value in changes if path == ["ensemble", "rankers"]]
        names = [ranker] if ranker else chosen[-1] if chosen else (ensemble_raw or {}).get("rankers")
        names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        files = [folder / f"{name}.yaml" for name in names]
    raws = [(file, reader.yaml(file, "the ranker's config")) for file in files]

    names_here = {str(raw.get("name")) for _, raw in raws if raw}
    models: dict[str, type[Settings]] = {"retrieval": RetrievalConfig, "ensemble": EnsembleConfig}
    models.update(dict.fromkeys(sorted(names_here - set(models)), RankerConfig))
    apart: dict[str, Overrides] = {owner: [] for owner in ("", *models)}
    known = setting_names(RankerConfig)
    known += [f"{owner}.{name}" for owner, model in models.items() for name in setting_names(model)]
    for path, value in changes:
        whole = ".".join(path)
        # A setting whose value is a mapping may be named with a key of it, or as a whole.
        if whole in models or not any(f"{k}.".startswith(f"{whole}.") or whole.startswith(f"{k}.") for k in known):
            absent = path[0] not in models and (folder / f"{path[0]}.yaml").is_file()
            here = ", ".join(sorted(names_here)) or "none"
            problem = f"{path[0]} is not among the rankers of this run ({here}): {whole}"
            reader.problems.append(f"the command line: {problem if absent else _unknown(whole, known)}")
            continue
        owner = path[0] if len(path) > 1 and path[0] in models else ""
        apart[owner].append((path[1:] if owner else path, value))
    if corpus is not None and retrieval_raw is not None:
        retrieval_raw["corpus"] = corpus
    ensemble = reader.validate(
        EnsembleConfig, ensemble_raw, folder / "ensemble.yaml", "ensemble", [("ensemble.", apart["ensemble"])]
    )
    retrieval = reader.validate(
        RetrievalConfig, retrieval_raw, folder / "retrieval.yaml", "retrieval", [("retrieval.", apart["retrieval"])]
    )
    rankers = []
    for file, raw in raws:
        if raw is None:
            continue
        # A general override reaches every ranker for which the setting means something.
        owner = str(raw.get("name", file.stem))
        layers = [("", apart[""]), (f"{owner}.", apart.get(owner, []))]
        config = reader.validate(RankerConfig, raw, file, owner, layers)
        if config is not None:
            rankers.append(config)
            if ranker_file is None and config.name != file.stem:
                reader.problems.append(f"{file}: name is {config.name!r}; it must be the file's name, {file.stem!r}")
    reader.done()
    return Run(rankers=rankers, retrieval=retrieval, ensemble=ensemble)
