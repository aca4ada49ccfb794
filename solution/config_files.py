"""Settings from YAML files and the command line; the problems of all files are shown at once, before a model loads."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from solution.config import DEFAULT, RANKER_NAME, SCORE_OF, EnsembleConfig, RankerConfig, RetrievalConfig, Run, Settings
from solution.config.problems import check, explain, setting_names, unknown_setting, value_shown
from solution.config.yaml_text import YAML_ERRORS, parse_yaml
from solution.errors import UserError
from solution.shipped_configs import configs_folder

Overrides = list[tuple[list[str], Any]]
"""Settings typed on the command line, parsed: the parts of the name, and the value."""
S = TypeVar("S", bound=Settings)
_Raw = tuple[Path, dict[str, Any] | None]
"""A ranker's file, and the settings in it; None where it could not be read."""
NAMED = "retrievals"
"""The key of retrieval.yaml under which further retrievals stand, each with the settings that differ from its own."""


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
        folder: holds the YAML files; or `demo` or `full`, see `configs_folder`.
        overrides: `key.path=value` texts; `retrieval.` and `ensemble.` lead to those files, `retrievals.NAME.` to a
            further retrieval, `NAME.` (a ranker of this run) to that ranker, anything else to every ranker.
        ranker, ranker_file: only this one, by name or by file.
        corpus: stands in for `retrieval.corpus`.

    Returns:
        Among the rankers, without `ranker` and `ranker_file`, are those that others name in `signals_from`; these
        stand before the rankers that name them.

    Raises:
        UserError: every problem of every file at once.
    """
    folder = configs_folder(folder)
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
    named = reader.named_retrievals(retrieval_raw, changes, folder / "retrieval.yaml")
    parted = reader.part_overrides(changes, {str(raw.get("name")) for _, raw in raws if raw}, set(named), folder)
    ensemble = reader.validate(
        EnsembleConfig, ensemble_raw, folder / "ensemble.yaml", "ensemble", [("ensemble.", parted["ensemble"])]
    )
    retrieval = reader.validate(
        RetrievalConfig, retrieval_raw, folder / "retrieval.yaml", "retrieval", [("retrieval.", parted["retrieval"])]
    )
    retrievals = {}
    for name, own in named.items():
        owner, base = retrieval_owner(name), apply_overrides(copy.deepcopy(retrieval_raw or {}), parted["retrieval"])
        layers = [(f"{owner}.", parted[owner])]
        further = reader.validate(RetrievalConfig, _merged(base, own), folder / "retrieval.yaml", owner, layers, base)
        if further is not None:
            retrievals[name] = further
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
            reader.problems += [
                f"{file}: retrieval: there is no retrieval {name!r} (there are: {', '.join([DEFAULT, *named])})"
                for name in config.retrieval
                if name not in (DEFAULT, *named)
            ]
    rerankers = [each.reranker.name for each in (retrieval, *retrievals.values()) if each and each.reranker]
    reader.problems += [
        f"{config.name} is a ranker and a reranker: give the reranker another name (reranker.name)"
        for config in rankers
        if config.name in rerankers
    ]
    reader.raise_problems()
    assert retrieval is not None and ensemble is not None
    return Run(rankers=_sources_first(rankers), retrieval=retrieval, ensemble=ensemble, retrievals=retrievals)


def retrieval_owner(name: str) -> str:
    """The beginning of the names of a retrieval's settings on the command line."""
    return "retrieval" if name == DEFAULT else f"{NAMED}.{name}"


def _why_no_retrieval(name: str) -> str | None:
    """Why a further retrieval cannot have this name; None: it can."""
    if name == DEFAULT:
        return "is retrieval.yaml's own"
    if name.startswith(SCORE_OF):  # signals have the name of their retrieval in front
        return f"begins with {SCORE_OF}, as the signals by rankers' scores do: choose another name"
    return None if re.fullmatch(RANKER_NAME, name) else "must be small letters, digits, - and _"


def _merged(base: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Raw settings with others put on top; of two mappings the parts, anything else as a whole."""
    merged = dict(base)
    for name, value in own.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _listed_rankers(changes: Overrides, ensemble_raw: dict[str, Any] | None) -> list[str]:
    """The rankers that `ensemble.rankers` names, on the command line or else in the file; checked later."""
    typed = [value for path, value in changes if path == ["ensemble", "rankers"]]
    names = typed[-1] if typed else (ensemble_raw or {}).get("rankers")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _sources_first(rankers: Sequence[RankerConfig]) -> list[RankerConfig]:
    """The rankers in their order, those whose scores another one learns from before that one."""
    by_name = {config.name: config for config in rankers}
    named = [name for config in rankers for name in (*config.signals_from, *config.teachers, config.name)]
    names = [name for name in named if name in by_name]
    return [by_name[name] for name in dict.fromkeys(names)]


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


def settings_given(model: type[S], **values: Any) -> S:
    """Settings of a command's own options.

    Raises:
        UserError: every problem at once, by the options' names.
    """
    config, errors = check(model, values)
    if config is None:
        raise UserError.join(
            [f"--{explain(model, error).replace('_', '-', 1)}" for error in errors], "the options are wrong"
        )
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
            value, repeated = parse_yaml(text)
        except YAML_ERRORS as error:
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

    def named_retrievals(
        self, raw: dict[str, Any] | None, changes: Overrides, path: Path
    ) -> dict[str, Mapping[str, Any]]:
        """The settings of the further retrievals that differ from the default one, by name; taken out of `raw`.

        One that the command line alone names has none in the file.
        """
        given = (raw or {}).pop(NAMED, None) or {}
        if not isinstance(given, dict):
            self.problems.append(f"{path}: {NAMED} must hold names with settings below them, not {value_shown(given)}")
            given = {}
        named: dict[str, Mapping[str, Any]] = {}
        typed = [change[1] for change, _ in changes if change[0] == NAMED and len(change) > 2]
        for name in dict.fromkeys([*given, *typed]):
            own = given.get(name) or {}
            if (why := _why_no_retrieval(str(name))) is not None:
                where = path if name in given else "the command line"
                self.problems.append(f"{where}: {NAMED}: the name {value_shown(name)} {why}")
            elif not isinstance(own, dict):
                self.problems.append(f"{path}: {NAMED}.{name} must hold settings, not {value_shown(own)}")
            else:
                named[str(name)] = own
        return named

    def part_overrides(
        self, changes: Overrides, rankers: set[str], retrievals: set[str], folder: Path
    ) -> dict[str, Overrides]:
        """The command line's settings by owner ("retrieval", "retrievals.wiki", "ensemble", a ranker's name), without
        the owner's name.

        Those under "" are for every ranker.

        Args:
            rankers, retrievals: the names of this run's rankers and further retrievals.
            folder: the configs folder, whose other rankers a message tells apart from unknown names.
        """
        models: dict[str, type[Settings]] = {"retrieval": RetrievalConfig, "ensemble": EnsembleConfig}
        models.update(dict.fromkeys(sorted(map(retrieval_owner, retrievals)), RetrievalConfig))
        models.update(dict.fromkeys(sorted(rankers - set(models)), RankerConfig))
        known = setting_names(RankerConfig)
        known += [f"{owner}.{name}" for owner, model in models.items() for name in setting_names(model)]
        parted: dict[str, Overrides] = {owner: [] for owner in ("", *models)}
        for path, value in changes:
            whole = ".".join(path)
            if whole not in models and any(_is_within(whole, name) or _is_within(name, whole) for name in known):
                owner = next((each for each in (".".join(path[:2]), path[0]) if each in models), "")
                parted[owner].append((path[len(owner.split(".")) :] if owner else path, value))
            elif path[0] == NAMED and len(path) < 3:
                example = f"{NAMED}.{path[-1] if len(path) == 2 else 'NAME'}.top_k=5"
                problem = f"{whole}: a retrieval is a mapping of settings: type each of them, as in {example}"
                self.problems.append(f"the command line: {problem}")
            elif path[0] == NAMED and path[1] not in retrievals:
                continue  # `named_retrievals` has told why
            elif path[0] not in models and (folder / f"{path[0]}.yaml").is_file():
                here = ", ".join(sorted(rankers)) or "none"
                problem = f"{path[0]} is not among the rankers of this run ({here}): {whole}"
                self.problems.append(f"the command line: {problem}")
            else:
                self.problems.append(f"the command line: {unknown_setting(whole, known)}")
        return parted

    def validate(
        self,
        model: type[S],
        value: Mapping[str, Any] | None,
        path: Path | str,
        owner: str = "",
        layers: Iterable[tuple[str, Overrides]] = (),
        told: Mapping[str, Any] | None = None,
    ) -> S | None:
        """The settings of a file with those of the command line put on top; None where something is wrong.

        A problem is the file's when it is there without the command line, else the command line's.

        Args:
            owner: what the settings belong to: a ranker's name, "retrieval" or "ensemble".
            layers: parsed overrides, each with what stands before their names on the command line.
            told: raw settings whose problems are told elsewhere; the file's own have the owner's name in front then.
        """
        if value is None:
            return None
        settings = copy.deepcopy(dict(value))
        config, errors = check(model, settings)
        # Message of an error -> the command-line layer that caused it; None: the file had the error already.
        layer_of: dict[str, str | None] = {explain(model, error): None for error in errors}
        for prefix, changes in layers:
            config, errors = check(model, apply_overrides(settings, changes))
            for error in errors:
                layer_of.setdefault(explain(model, error), prefix)
        known = set() if told is None else {explain(model, error) for error in check(model, dict(told))[1]}
        prefix = "" if told is None else f"{owner}."
        # An error of the file that an override has mended is gone from the last check's errors.
        for error in errors:
            if explain(model, error) in known:
                continue
            layer = layer_of[explain(model, error)]
            if layer is None:
                problem = f"{path}: {explain(model, error, prefix, owner if told is not None else '')}"
            else:
                problem = f"the command line: {explain(model, error, layer, owner)}"
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
            value, repeated = parse_yaml(value_text)
            parsed.append((path, value))
            wrong += [f"{text!r}: {key.name} stands in it twice" for key in repeated]
        except YAML_ERRORS:
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
