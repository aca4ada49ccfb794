"""The index of a corpus: its passages, their vectors and the search over them, kept in `WORKDIR/cache`."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.files import (
    MANIFEST,
    atomic_file,
    atomic_folder,
    content_hash,
    link_or_copy,
    read_json,
    read_manifest,
    sweep_leftovers,
    write_manifest,
)
from solution.progress import say
from solution.retrieval.approximate import Structure, build_settings, open_parts, write_parts
from solution.retrieval.corpus import corpus_fingerprint, look_at_corpus
from solution.retrieval.dense import PassageIndex
from solution.retrieval.embedding import Embedder
from solution.retrieval.places import Place, cutting, find_embedder, index_folders, made_of, remedy_of
from solution.retrieval.shards import dropped_counts, make_shards, read_shard, room_on_disk, shard_file
from solution.retrieval.store import Passages
from solution.suggestions import suggest

KIND = "index"
_FORMAT = "float16"  # of the vectors on disk


def _settings(config: RetrievalConfig) -> dict[str, Any]:
    """The settings that an index depends on; those of a search are not among them."""
    own = {"vectors": _FORMAT, "index": config.index, "metric": config.metric}
    return {**cutting(config), **own, **build_settings(config)}


def _place(workdir: Path, corpus: str, embedder: str, config: RetrievalConfig) -> Place:
    key = content_hash(corpus, embedder, _settings(config))
    return Place(key, workdir / "cache" / f"index-{key}")


def locate_index(config: RetrievalConfig, workdir: Path, embedder: Embedder) -> Place:
    """Where the index of these settings is or will be. Where the corpus is not on this machine: the one of its name.

    Raises:
        UserError: no corpus is set; or it cannot be read and not exactly one index was made of a corpus of that name;
            or there is no index at all and the corpus is not usable.
    """
    try:
        corpus = corpus_fingerprint(config.corpus)
    except UserError as error:
        if not config.corpus.strip():
            raise
        found = _Candidates(config, workdir, None, embedder)
        if len(found.fitting) == 1:
            return found.fitting[0]
        raise found.error(f"The corpus itself cannot be read: {error}.") from None
    if not index_folders(workdir):  # one will be built, and a hub's embedder is loaded for its fingerprint
        look_at_corpus(config.corpus)
    return _place(workdir, corpus, embedder.fingerprint, config)


class _Candidates:
    """The indexes in the cache that were made of this corpus with these settings."""

    def __init__(self, config: RetrievalConfig, workdir: Path, corpus: str | None, embedder: Embedder):
        self.fitting: list[Place] = []
        self._others: list[str] = []
        self._broken: list[str] = []
        self._config, self._cache, self._embedder = config, workdir / "cache", embedder
        for folder in index_folders(workdir):
            try:
                made = read_json(folder / MANIFEST, "the manifest of the index", remedy_of(folder))
                about, model = made["corpus"], made["embedder"]
                same = about["name"] == Path(config.corpus).name if corpus is None else about["fingerprint"] == corpus
                if not same or made["settings"] != _settings(config):
                    continue
                if model["fingerprint"] == embedder.fingerprint:
                    self.fitting.append(Place(made["key"], folder))
                else:
                    self._others.append(f"{folder} was made with {model['name']} ({model['fingerprint']})")
            except UserError as error:
                self._broken.append(str(error))
            except (KeyError, TypeError):
                self._broken.append(f"the manifest of {folder} is corrupt. {remedy_of(folder)}")

    def error(self, more: str = "") -> UserError:
        lines = [f"there is no index of {self._config.corpus} with these settings in {self._cache}."]
        if len(self.fitting) > 1:
            names = ", ".join(place.folder.name for place in self.fitting)
            lines = [f"several indexes in {self._cache} were made of a corpus of that name: {names}. Keep one of them."]
        elif self._others:
            lines.append(
                f"The embedder is now {self._embedder.spec} ({self._embedder.fingerprint}), and {self._others[0]}. "
                "Set retrieval.embedder to that one, or build another index."
            )
        lines += [*self._broken[:1], *([more] if more else [])]
        lines.append(f"Run `{suggest('index')}` where the corpus is; elsewhere copy cache/index-* there.")
        return UserError(" ".join(lines))


def open_index(config: RetrievalConfig, workdir: Path, embedder: Embedder | None = None) -> PassageIndex:
    """An index that was built before.

    Args:
        embedder: one made already for `config.embedder`.

    Raises:
        UserError: there is none (see also `locate_index`; where one of another embedder is there,
            both are named), or its files are corrupt, incomplete or of another dimension than the embedder.
    """
    workdir = Path(workdir)
    embedder = embedder or find_embedder(config, workdir)
    place = locate_index(config, workdir, embedder)
    if not place.folder.is_dir():
        raise _Candidates(config, workdir, corpus_fingerprint(config.corpus), embedder).error()
    return _open(place, config, embedder)


def _open(place: Place, config: RetrievalConfig, embedder: Embedder) -> PassageIndex:
    folder, remedy = place.folder, remedy_of(place.folder)
    manifest = read_manifest(folder, KIND, remedy)
    try:
        structure = Structure.of(manifest["structure"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"the manifest of {folder} is corrupt. {remedy}") from None
    lacking = {"passages.parquet", "vectors.npy", *structure.files} - set(manifest["files"])
    if lacking:
        raise UserError(f"the index in {folder} is incomplete: {min(lacking)} is missing. {remedy}")
    passages, vectors = _read_parts(folder)
    if vectors.shape[1] != embedder.dimension:
        raise UserError(
            f"the index in {folder} has vectors of {vectors.shape[1]} dimensions and the embedder {embedder.spec} "
            f"makes {embedder.dimension}. {remedy}"
        )
    approximate = None
    if structure.kind != "flat" and config.backend == "faiss":
        try:
            approximate = open_parts(folder, structure, config, vectors.shape)
        except UserError as error:
            raise UserError(f"the index in {folder} is corrupt: {error}. {remedy}") from None
    return PassageIndex(passages, vectors, approximate, config, place.key)


def _read_parts(folder: Path) -> tuple[Passages, np.ndarray]:
    passages = Passages(folder / "passages.parquet", remedy_of(folder))
    try:
        vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the index in {folder} is corrupt ({message}). {remedy_of(folder)}") from None
    if vectors.dtype != np.float16 or vectors.ndim != 2 or len(vectors) != len(passages):
        raise UserError(
            f"the index in {folder} is corrupt: vectors.npy is {vectors.dtype} {list(vectors.shape)} "
            f"for {len(passages)} passages. {remedy_of(folder)}"
        )
    return passages, vectors


# --- building ------------------------------------------------------------------------------


def build_index(config: RetrievalConfig, workdir: Path, embedder: Embedder | None = None) -> PassageIndex:
    """The index of the corpus: opened when it is there, else built. Killed and called again, it goes on where it was.

    The vectors of an index that differs only in kind or metric are used again.

    Raises:
        UserError: the corpus or the embedder cannot be read, passages longer than the embedder
            reads, or an index that is there is corrupt.
    """
    workdir = Path(workdir)
    embedder = embedder or find_embedder(config, workdir)
    corpus = corpus_fingerprint(config.corpus)
    look_at_corpus(config.corpus)
    place = _place(workdir, corpus, embedder.fingerprint, config)
    shards = place.folder.with_name(f"{place.folder.name}.shards")
    if place.folder.is_dir():
        shutil.rmtree(shards, ignore_errors=True)  # of a run that was killed at its end
        return _open(place, config, embedder)
    sweep_leftovers(place.folder.parent, place.folder.name)
    source = made_of(config, corpus, embedder)
    relative = same_vectors(config, workdir, source)
    if relative is not None:
        say(f"the vectors of {relative.name} are used again")
    elif not (shards / "vectors.npy").exists():
        make_shards(config, embedder, shards)
        with room_on_disk(shards):
            _join(shards, embedder.dimension)
    whole = relative or shards
    vectors = np.load(whole / "vectors.npy", mmap_mode="r", allow_pickle=False)
    structure = write_parts(config, vectors, shards)
    with room_on_disk(place.folder.parent), atomic_folder(place.folder) as temporary:
        for path in [whole / "passages.parquet", whole / "vectors.npy", *(shards / name for name in structure.files)]:
            link_or_copy(path, temporary / path.name)
        write_manifest(
            temporary,
            KIND,
            key=place.key,
            **source,
            settings=_settings(config),
            passages=len(vectors),
            dimension=vectors.shape[1],
            dropped=dropped_counts(temporary / "passages.parquet"),
            structure=structure.record(),
        )
    del vectors
    shutil.rmtree(shards, ignore_errors=True)
    return _open(place, config, embedder)


def same_vectors(config: RetrievalConfig, workdir: Path, source: dict[str, Any]) -> Path | None:
    """A whole index of the same passages and embedder."""
    for folder in index_folders(workdir):
        with contextlib.suppress(UserError, KeyError, TypeError):
            made = read_json(folder / MANIFEST, "manifest", "")
            same = all(made[part]["fingerprint"] == source[part]["fingerprint"] for part in source)
            if same and {**cutting(config), "vectors": _FORMAT}.items() <= made["settings"].items():
                read_manifest(folder, KIND, "")
                return folder
    return None


def _join(shards: Path, dimension: int) -> None:
    """vectors.npy of the shards, which are removed."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(shards / "passages.parquet")
    paths = [shard_file(shards, shard) for shard in range(metadata.num_row_groups)]
    shape = (metadata.num_rows, dimension)
    with atomic_file(shards / "vectors.npy") as temporary, open(temporary, "wb") as stream:
        about = {"descr": np.lib.format.dtype_to_descr(np.dtype(_FORMAT)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, about)
        for shard, path in enumerate(paths):
            part = read_shard(path, (metadata.row_group(shard).num_rows, dimension))
            if part is None:
                raise UserError(f"{path} cannot be read; delete it and run the command again")
            stream.write(part.tobytes())
    for path in paths:
        path.unlink()
