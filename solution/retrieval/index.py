"""The dense index of a corpus: its passages, their vectors and the search over them, kept in `WORKDIR/cache`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.files import atomic_file, atomic_folder, link_or_copy, read_manifest, sweep_leftovers, write_manifest
from solution.progress import say
from solution.retrieval.approximate import Structure, open_parts, write_parts
from solution.retrieval.corpus import look_at_corpus
from solution.retrieval.dense import PassageIndex
from solution.retrieval.embedding import Embedder
from solution.retrieval.places import (
    DENSE,
    LEXICAL,
    VECTORS_FORMAT,
    IndexPlace,
    Source,
    cutting_settings,
    find_embedder,
    locate,
    place_to_build,
    remedy_of,
    require_built,
    same_source,
    vector_settings,
)
from solution.retrieval.shards import dropped_counts, make_shards, read_shard, room_on_disk, shard_file
from solution.retrieval.store import PASSAGES, Passages

KIND = DENSE.name
_VECTORS = "vectors.npy"


# --- opening -------------------------------------------------------------------------------


def open_index(
    config: RetrievalConfig, workdir: Path, embedder: Embedder | None = None, place: IndexPlace | None = None
) -> PassageIndex:
    """An index that was built before.

    Args:
        embedder: one made already for `config.embedder`.
        place: the index's place, where it is known already; see `places.locate`.

    Raises:
        UserError: there is none (see also `places.locate`; where one of another embedder is there,
            both are named), or its files are corrupt, incomplete or of another dimension than the embedder.
    """
    workdir = Path(workdir)
    embedder = embedder or find_embedder(config, workdir)
    place = place or locate(DENSE, config, workdir, embedder)
    require_built(place, config, workdir, embedder)
    return _open(place, config, embedder)


def _open(place: IndexPlace, config: RetrievalConfig, embedder: Embedder) -> PassageIndex:
    folder, remedy = place.folder, remedy_of(place.folder)
    manifest = read_manifest(folder, KIND, remedy)
    try:
        structure = Structure.of(manifest["structure"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"the manifest of {folder} is corrupt. {remedy}") from None
    lacking = {PASSAGES, _VECTORS, *structure.files} - set(manifest["files"])
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
    passages = Passages(folder / PASSAGES, remedy_of(folder))
    try:
        vectors = np.load(folder / _VECTORS, mmap_mode="r", allow_pickle=False)
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


def build_index(
    config: RetrievalConfig, workdir: Path, embedder: Embedder | None = None, place: IndexPlace | None = None
) -> PassageIndex:
    """The index of the corpus: opened when it is there, else built. Killed and called again, it goes on where it was.

    The vectors of an index that differs only in kind or metric are used again, and the passages of a lexical index.

    Args:
        embedder, place: see `open_index`.

    Raises:
        UserError: the corpus or the embedder cannot be read, passages longer than the embedder
            reads, or an index that is there is corrupt.
    """
    workdir = Path(workdir)
    embedder = embedder or find_embedder(config, workdir)
    place = place or place_to_build(DENSE, config, workdir, embedder)
    shards = place.folder.with_name(f"{place.folder.name}.shards")
    if place.is_built:
        shutil.rmtree(shards, ignore_errors=True)  # of a run that was killed at its end
        return _open(place, config, embedder)
    assert place.source is not None, "an index that was found by the corpus's name is built"
    look_at_corpus(config.corpus, config.encoding)
    sweep_leftovers(place.folder.parent, place.folder.name)
    whole = same_source(place, DENSE, vector_settings(config), workdir)
    if whole is not None:
        say(f"the vectors of {whole.name} are used again")
    else:
        whole = shards
        if not (shards / _VECTORS).exists():
            _embed(config, place, workdir, embedder, shards)
    _write(config, place, place.source, whole, shards)
    shutil.rmtree(shards, ignore_errors=True)
    return _open(place, config, embedder)


def _embed(config: RetrievalConfig, place: IndexPlace, workdir: Path, embedder: Embedder, shards: Path) -> None:
    """Write passages and vectors of the corpus into the folder of shards; the corpus is read through at most once."""
    lexical = same_source(place, LEXICAL, cutting_settings(config), workdir)
    if lexical is not None and not (shards / PASSAGES).exists():
        with room_on_disk(shards):
            link_or_copy(lexical / PASSAGES, shards / PASSAGES)
    make_shards(config, embedder, shards)
    with room_on_disk(shards):
        _join(shards, embedder.dimension)


def _write(config: RetrievalConfig, place: IndexPlace, source: Source, whole: Path, shards: Path) -> None:
    """Build the faiss files among the shards, and put the folder of the index together.

    Args:
        source: see `IndexPlace`.
        whole: a folder with passages and vectors.
    """
    vectors = np.load(whole / _VECTORS, mmap_mode="r", allow_pickle=False)
    structure = write_parts(config, vectors, shards)
    with room_on_disk(place.folder.parent), atomic_folder(place.folder) as temporary:
        for path in [whole / PASSAGES, whole / _VECTORS, *(shards / name for name in structure.files)]:
            link_or_copy(path, temporary / path.name)
        write_manifest(
            temporary,
            KIND,
            key=place.key,
            **source,
            settings=DENSE.settings(config),
            passages=len(vectors),
            dimension=vectors.shape[1],
            dropped=dropped_counts(temporary / PASSAGES),
            structure=structure.record(),
        )


def _join(shards: Path, dimension: int) -> None:
    """vectors.npy of the shards, which are removed."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(shards / PASSAGES)
    paths = [shard_file(shards, shard) for shard in range(metadata.num_row_groups)]
    shape = (metadata.num_rows, dimension)
    with atomic_file(shards / _VECTORS) as temporary, open(temporary, "wb") as stream:
        format_ = np.lib.format.dtype_to_descr(np.dtype(VECTORS_FORMAT))
        about = {"descr": format_, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, about)
        for shard, path in enumerate(paths):
            part = read_shard(path, (metadata.row_group(shard).num_rows, dimension))
            if part is None:
                raise UserError(f"{path} cannot be read; delete it and run the command again")
            stream.write(part.tobytes())
    for path in paths:
        path.unlink()
