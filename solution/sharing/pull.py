"""`pull`: a pushed ensemble fetched into a new working folder, which `submit` answers from."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path, PurePosixPath

from solution.errors import UserError
from solution.files import MANIFEST, atomic_folder, read_json, read_manifest
from solution.sharing.place import ENSEMBLE, hub_errors, repository
from solution.workdir import Workdir

_FORMS = (".json", ".safetensors", ".csv", ".md", ".npy", ".txt", ".parquet", ".arrow", ".faiss", ".index", ".npz")
"""Endings of files that are data. Others might be run when they are read (pickles, programs)."""
_REMEDY = "Have it pushed again: llm-science-exam push."


def pull_ensemble(source: str, workdir: Path, revision: str | None = None) -> Workdir:
    """Copy or download an ensemble into a new folder, whole or not at all; every file is compared with its hash.

    Args:
        source: a folder, or OWNER/NAME: a repository of the hub.
        revision: a branch, tag or commit of it.

    Raises:
        UserError: the working folder holds something, the source is no pushed ensemble, is not whole or holds files
            that are no data, or the hub does not give it.
    """
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(f"{workdir} is there: give a new folder to pull into")
    name = repository(source)
    if name is None:
        if revision is not None:
            raise UserError(f"--revision is for a repository of the hub, and {source} is a folder")
        _take(Path(source), workdir)
    else:
        with tempfile.TemporaryDirectory(prefix="pull-") as place:
            _download(name, revision, Path(place))
            _take(Path(place), workdir)
    return Workdir.existing(workdir)


def _download(name: str, revision: str | None, folder: Path) -> None:
    """Fetch what the manifest names, and nothing else that the repository holds."""
    from huggingface_hub import errors, hf_hub_download, snapshot_download

    with hub_errors(name):
        try:
            path = hf_hub_download(name, MANIFEST, revision=revision, local_dir=folder)
        except errors.LocalEntryNotFoundError:
            raise  # a kind of EntryNotFoundError, but of the network: `hub_errors` tells it
        except errors.EntryNotFoundError:
            raise UserError(f"{name} is no pushed ensemble: it has no {MANIFEST}") from None
        files = _listed(Path(path).parent)
        snapshot_download(name, revision=revision, local_dir=folder, allow_patterns=[*files, MANIFEST])


def _take(source: Path, workdir: Path) -> None:
    files = _listed(source)
    read_manifest(source, ENSEMBLE, _REMEDY)
    with atomic_folder(workdir) as folder:
        for file in [*files, MANIFEST]:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, folder / file)


def _listed(folder: Path) -> list[str]:
    """The files that a manifest names.

    Raises:
        UserError: it is not that of an ensemble, or names a file that is no data or lies outside.
    """
    manifest = read_json(folder / MANIFEST, f"the manifest of the {ENSEMBLE}", _REMEDY)
    files = manifest.get("files") if isinstance(manifest, dict) and manifest.get("kind") == ENSEMBLE else None
    if not isinstance(files, dict):
        raise UserError(f"{folder} holds no {ENSEMBLE}. {_REMEDY}")
    for file in files:
        path = PurePosixPath(file)
        if path.suffix not in _FORMS or path.is_absolute() or ".." in path.parts or any(c in file for c in "*?["):
            raise UserError(f"the manifest names {file}, which is no file of weights, settings or passages")
    return list(files)
