"""Settings from YAML files and the command line; the problems of all files are shown at once, before a model loads."""

from __future__ import annotations

import copy
import difflib
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from solution.config import EnsembleConfig, RankerConfig, RetrievalConfig, Run, Settings
from solution.errors import UserError

Overrides = list[tuple[list[str], Any]]
"""Settings typed on the command line, parsed: the parts of the name, and the value."""
S = TypeVar("S", bound=Settings)
_Raw = tuple[Path, dict[str, Any] | None]
"""A ranker's file, and the settings in it; None where it could not be read."""


# --- files ---------------------------------------------------------------------------------


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

    Returns:
        Among the rankers, without `ranker` and `ranker_file`, are those that others name in `signals_from`; who reads
        others' scores stands behind the others.

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

    # The files as they stand. Which rankers there are, the command line or the ensemble's file says.
    ensemble_raw = reader.yaml(folder / "ensemble.yaml", "the ensemble's config")
    retrieval_raw = reader.yaml(folder / "retrieval.yaml", "the retrieval's config")
    if corpus is not None and retrieval_raw is not None:
        retrieval_raw["corpus"] = corpus
    names = [ranker] if ranker else _listed_rankers(changes, ensemble_raw)
    files = [ranker_file] if ranker_file else [folder / f"{name}.yaml" for name in names]
    raws = [(file, reader.yaml(file, "the ranker's config")) for file in files]
    sources = reader.sources(raws, changes, folder)
    if not (ranker or ranker_file):
        raws += sources

    # The command line's settings, each put on top of those of its owner's file.
    parted = reader.part_overrides(changes, {str(raw.get("name")) for _, raw in raws if raw}, folder)
    ensemble = reader.validate(
        EnsembleConfig, ensemble_raw, folder / "ensemble.yaml", "ensemble", [("ensemble.", parted["ensemble"])]
    )
    retrieval = reader.validate(
        RetrievalConfig, retrieval_raw, folder / "retrieval.yaml", "retrieval", [("retrieval.", parted["retrieval"])]
    )
    rankers = []
    for file, raw in raws:
        if raw is None:
            continue
        # A general override reaches every ranker for which the setting means something.
        owner = str(raw.get("name", file.stem))
        layers = [("", parted[""]), (f"{owner}.", parted.get(owner, []))]
        config = reader.validate(RankerConfig, raw, file, owner, layers)
        if config is not None:
            rankers.append(config)
            if ranker_file is None and config.name != file.stem:
                reader.problems.append(f"{file}: name is {config.name!r}; it must be the file's name, {file.stem!r}")
    reader.raise_problems()
    assert retrieval is not None and ensemble is not None
    rankers.sort(key=lambda config: bool(config.signals_from))
    return Run(rankers=rankers, retrieval=retrieval, ensemble=ensemble)


def _listed_rankers(changes: Overrides, ensemble_raw: dict[str, Any] | None) -> list[str]:
    """The rankers that `ensemble.rankers` names, on the command line or else in the file; checked later."""
    typed = [value for path, value in changes if path == ["ensemble", "rankers"]]
    names = typed[-1] if typed else (ensemble_raw or {}).get("rankers")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _named_sources(raw: Mapping[str, Any] | None, changes: Overrides) -> list[str]:
    """What a ranker's `signals_from` names, on the command line or else in its file; checked later."""
    if raw is None:
        return []
    typed = [value for path, value in changes if path == [str(raw.get("name")), "signals_from"]]
    names = typed[-1] if typed else raw.get("signals_from")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def check_settings(model: type[S], value: Mapping[str, Any], path: Path, owner: str, changes: Overrides) -> S:
    """Stored settings with those of the command line put on top.

    Args:
        path: where they are stored.
        owner: what begins the names of these settings on the command line.

    Raises:
        UserError: every problem at once.
    """
    reader = _Reader()
    config = reader.validate(model, value, path, owner, [(f"{owner}.", changes)])
    reader.raise_problems()
    assert config is not None
    return config


class _Reader:
    """Reads and checks settings, and collects the problems of all files and of the command line."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def yaml(self, path: Path, what: str) -> dict[str, Any] | None:
        """The settings that a YAML file holds; None where it cannot be read, is not YAML or holds something else."""
        text = self._text(path, what)
        if text is None:
            return None
        try:
            value, repeated = _parse_yaml(text)
        except _YAML_ERRORS as error:
            self.problems.append(f"{path} is not YAML: {' '.join(str(error).split())}")
            return None
        self.problems += [f"{path}, line {key.line}: {key.name} stands in line {key.first} already" for key in repeated]
        if value is None:
            self.problems.append(f"{what} is empty: {path}")
            return None
        if not isinstance(value, dict):
            self.problems.append(f"{path} must hold settings (`key: value` lines), not a {type(value).__name__}")
            return None
        return value

    def sources(self, raws: Sequence[_Raw], changes: Overrides, folder: Path) -> list[_Raw]:
        """The files of the rankers that `signals_from` of these names, without those that are among them.

        A ranker whose signals come from others is refused as such a source: each score of it would have to be made
        again without every two folds.
        """
        known = {str(raw.get("name")): (file, raw) for file, raw in raws if raw}
        added: dict[str, _Raw] = {}
        for owner, (file, raw) in known.items():
            for name in _named_sources(raw, changes):
                if name == owner:
                    continue  # refused with the ranker's other settings
                if name not in known and name not in added:
                    path = folder / f"{name}.yaml"
                    added[name] = path, self.yaml(path, f"the config of {name}, which {owner}.signals_from names,")
                beyond = _named_sources((known | added)[name][1], changes)
                if beyond:
                    self.problems.append(
                        f"{file}: signals_from names {name}, whose signals come from other rankers themselves "
                        f"({', '.join(beyond)}): name rankers without signals_from"
                    )
        return list(added.values())

    def _text(self, path: Path, what: str) -> str | None:
        try:
            if path.is_fifo() or path.is_char_device():  # reading one may wait for ever, or never end
                self.problems.append(f"{what} is a pipe or a device, not a file: {path}")
                return None
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            names = sorted(file.stem for file in path.parent.glob("*.yaml"))
            near = difflib.get_close_matches(path.stem, names, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.problems.append(f"{what} not found: {path}{hint} (there: {', '.join(names) or 'no .yaml file'})")
        except IsADirectoryError:
            self.problems.append(f"{what} is a folder, not a file: {path}")
        except UnicodeDecodeError:
            self.problems.append(f"{what} is not UTF-8: {path}")
        except (OSError, ValueError) as error:  # ValueError: a NUL in its name
            self.problems.append(f"{what} cannot be read: {str(path)!r} ({getattr(error, 'strerror', None) or error})")
        return None

    def part_overrides(self, changes: Overrides, rankers: set[str], folder: Path) -> dict[str, Overrides]:
        """The command line's settings by owner ("retrieval", "ensemble", a ranker's name), without the owner's name.

        Those under "" are for every ranker.

        Args:
            rankers: the names of this run's rankers.
            folder: the configs folder, whose other rankers a message tells apart from unknown names.
        """
        models: dict[str, type[Settings]] = {"retrieval": RetrievalConfig, "ensemble": EnsembleConfig}
        models.update(dict.fromkeys(sorted(rankers - set(models)), RankerConfig))
        known = setting_names(RankerConfig)
        known += [f"{owner}.{name}" for owner, model in models.items() for name in setting_names(model)]
        parted: dict[str, Overrides] = {owner: [] for owner in ("", *models)}
        for path, value in changes:
            whole = ".".join(path)
            if whole not in models and any(_is_within(whole, name) or _is_within(name, whole) for name in known):
                owner = path[0] if len(path) > 1 and path[0] in models else ""
                parted[owner].append((path[1:] if owner else path, value))
            elif path[0] not in models and (folder / f"{path[0]}.yaml").is_file():
                here = ", ".join(sorted(rankers)) or "none"
                problem = f"{path[0]} is not among the rankers of this run ({here}): {whole}"
                self.problems.append(f"the command line: {problem}")
            else:
                self.problems.append(f"the command line: {_unknown(whole, known)}")
        return parted

    def validate(
        self,
        model: type[S],
        value: Mapping[str, Any] | None,
        path: Path | str,
        owner: str = "",
        layers: Iterable[tuple[str, Overrides]] = (),
    ) -> S | None:
        """The settings of a file with those of the command line put on top; None where something is wrong.

        A problem is the file's when it is there without the command line, else the command line's.

        Args:
            owner: what the settings belong to: a ranker's name, "retrieval" or "ensemble".
            layers: parsed overrides, each with what stands before their names on the command line.
        """
        if value is None:
            return None
        settings = copy.deepcopy(dict(value))
        config, errors = _check(model, settings)
        # Message of an error -> the command-line layer that caused it; None: the file had the error already.
        layer_of: dict[str, str | None] = {_explain(model, error): None for error in errors}
        for prefix, changes in layers:
            config, errors = _check(model, apply_overrides(settings, changes))
            for error in errors:
                layer_of.setdefault(_explain(model, error), prefix)
        # An error of the file that an override has mended is gone from the last check's errors.
        for error in errors:
            layer = layer_of[_explain(model, error)]
            if layer is None:
                problem = f"{path}: {_explain(model, error)}"
            else:
                problem = f"the command line: {_explain(model, error, layer, owner)}"
            if problem not in self.problems:  # one override may reach several rankers
                self.problems.append(problem)
        return config

    def raise_problems(self) -> None:
        """Raise one `UserError` with all problems, if there are any."""
        if self.problems:
            raise UserError.join(self.problems, "the settings are wrong")


def _is_within(name: str, whole: str) -> bool:
    """True where a dotted name is `whole` or a part of it; a setting's value may be a mapping with names of its own."""
    return f"{name}.".startswith(f"{whole}.")


# --- YAML ----------------------------------------------------------------------------------

_MOST_NODES = 100_000
# ValueError: a date such as 2024-13-01; the others come of tags on what they do not fit: !!bool x, !!int "".
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError, OverflowError)


class _RepeatedKey(NamedTuple):
    """A key that stands in its mapping already: its dotted name, its line, and the line of the first."""

    name: str
    line: int
    first: int


def _parse_yaml(text: str) -> tuple[Any, list[_RepeatedKey]]:
    """The value of a YAML text, and its repeated keys.

    Raises:
        one of `_YAML_ERRORS`: it is not YAML, or so many aliases stand in it that reading it would not end.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if _size(root, {}) > _MOST_NODES:
        raise yaml.YAMLError(f"its aliases (*name) hold themselves or stand for more than {_MOST_NODES} values")
    return yaml.safe_load(text), _repeated_keys(root)


def _size(node: yaml.Node | None, sizes: dict[int, float]) -> float:
    """The number of nodes with each alias replaced by its value; `sizes` keeps the numbers that are known, by id."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until it is known: a node that holds itself has no end
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(node)]


def _repeated_keys(root: yaml.Node | None) -> list[_RepeatedKey]:
    """The keys of all mappings that YAML's own reader would drop without a word: it keeps the last of equal ones."""
    repeated: list[_RepeatedKey] = []
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
                    repeated.append(_RepeatedKey(prefix + name, line, lines[key.tag, name]))
                lines.setdefault((key.tag, name), line)
                walk(value, f"{prefix}{name}.")

    walk(root, "")
    return repeated


# --- problems in words ---------------------------------------------------------------------

_MOST_PROBLEMS = 20
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 200
_REPR.maxlevel = 2


def _value_shown(value: Any) -> str:
    try:
        return _REPR.repr(value)
    except ValueError:  # more digits than Python writes
        return "a number too long to be shown"


def _check(model: type[S], value: dict[str, Any]) -> tuple[S | None, list[ErrorDetails]]:
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


def _explain(model: type[Settings], error: ErrorDetails, prefix: str = "", owner: str = "") -> str:
    """An error in words.

    Args:
        prefix: stands before the setting's name.
        owner: is named where the error is of several settings together.
    """
    where = ".".join(str(part) for part in error["loc"])
    where = prefix + where if where else owner
    if error["type"] == "extra_forbidden":
        return _unknown(where, [prefix + name for name in setting_names(model)])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: {message[0].lower()}{message[1:]} (it is {_value_shown(error['input'])})"


def _unknown(name: str, known: Sequence[str]) -> str:
    """A message on an unknown setting, with the known one that is most like it."""
    leaf = name.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(name, known, 1) or [k for k in known if k.rsplit(".", 1)[-1] == leaf][:1]
    return f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else "")


def setting_names(model: type[Settings], prefix: str = "") -> list[str]:
    """The dotted names of all settings."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        inner = _settings_class(field.annotation)
        names += setting_names(inner, f"{prefix}{name}.") if inner else [prefix + name]
    return names


def _settings_class(annotation: Any) -> type[Settings] | None:
    """The class of nested settings that a field's type holds; None: its value is a single setting."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Settings):
            return candidate
    return None


# --- the command line ----------------------------------------------------------------------


def parse_overrides(texts: Iterable[str], problems: list[str] | None = None) -> Overrides:
    """`["training.epochs=1"]` -> `[(["training", "epochs"], 1)]`; values are YAML.

    Args:
        problems: takes what is wrong, so that it can be shown with other problems.

    Raises:
        UserError: a text is not `key.path=value` and `problems` is not given (all of them are named).
    """
    parsed: Overrides = []
    wrong: list[str] = []
    for text in texts:
        key, sign, value_text = text.partition("=")
        path = key.strip().split(".")
        if not sign or not all(path):
            wrong.append(f"{text!r} is not a setting of the form key.path=value")
            continue
        try:
            value, repeated = _parse_yaml(value_text)
            parsed.append((path, value))
            wrong += [f"{text!r}: {key.name} stands in it twice" for key in repeated]
        except _YAML_ERRORS:
            wrong.append(f"{text!r}: the value is not YAML (quote it?)")
    if problems is not None:
        problems += [f"the command line: {problem}" for problem in wrong]
    elif wrong:
        raise UserError.join(wrong, "the command line is wrong")
    return parsed


def apply_overrides(value: dict[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Put parsed overrides into raw settings, in place; a mapping that is not there yet is made."""
    for path, new in overrides:
        inner = value
        for part in path[:-1]:
            if not isinstance(inner.get(part), dict):
                inner[part] = {}
            inner = inner[part]
        inner[path[-1]] = copy.deepcopy(new)  # several rankers get it, and one may be changed further
    return value
