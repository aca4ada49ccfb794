"""Lexical retrieval: BM25 over the passages of a corpus, kept in `WORKDIR/cache` beside the index of vectors.

Scores and their layout are bm25s's (Lù 2024, https://arxiv.org/abs/2407.03618): the BM25 score of every word in every
passage is computed once (Lucene's variant; Robertson et al. 1994) and lies in three arrays, sorted by word, that are
memory-mapped. `bm25s.BM25.load(folder, mmap=True, load_vocab=False)` opens them. The library's own builder holds all
words of the corpus as Python objects; the one here holds a shard of passages and the vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.files import (
    MANIFEST,
    atomic_folder,
    content_hash,
    link_or_copy,
    read_json,
    read_manifest,
    sweep_leftovers,
    write_manifest,
)
from solution.progress import say
from solution.retrieval.bm25 import FILES, LexicalIndex, Words, write_bm25
from solution.retrieval.corpus import corpus_fingerprint
from solution.retrieval.embedding import Embedder
from solution.retrieval.index import same_vectors
from solution.retrieval.places import Place, cutting, find_embedder, made_of, remedy_of
from solution.retrieval.shards import dropped_counts, room_on_disk, write_passages
from solution.suggestions import suggest

KIND = "lexical index"
_VERSION = 1  # of the way words are made; another one makes another index


# --- which index ---------------------------------------------------------------------------


def _settings(config: RetrievalConfig) -> dict[str, Any]:
    own = {"words": _VERSION, "language": config.language, "k1": config.bm25_k1, "b": config.bm25_b}
    return {**cutting(config), **own}


def _place(workdir: Path, corpus: str, embedder: str, config: RetrievalConfig) -> Place:
    key = content_hash(KIND, corpus, embedder, _settings(config))
    return Place(key, workdir / "cache" / f"lexical-{key}")


def locate_lexical(config: RetrievalConfig, workdir: Path, embedder: Embedder) -> Place:
    """Where the index of these settings is or will be. Where the corpus is not on this machine: the one of its name.

    Args:
        embedder: its tokenizer cuts the passages.

    Raises:
        UserError: no corpus is set; or it cannot be read and not exactly one index was made of a corpus of that name.
    """
    try:
        corpus = corpus_fingerprint(config.corpus)
    except UserError as error:
        if not config.corpus.strip():
            raise
        fitting = []
        for folder in sorted((workdir / "cache").glob("lexical-*")):
            made = read_json(folder / MANIFEST, "the manifest of the lexical index", remedy_of(folder))
            about = {"name": Path(config.corpus).name, "embedder": embedder.fingerprint, "settings": _settings(config)}
            if about == {
                "name": made.get("corpus", {}).get("name"),
                "embedder": made.get("embedder", {}).get("fingerprint"),
                "settings": made.get("settings"),
            }:
                fitting.append(Place(str(made.get("key")), folder))
        if len(fitting) == 1:
            return fitting[0]
        raise UserError(
            f"{len(fitting) or 'no'} lexical indexes in {workdir / 'cache'} were made of {config.corpus} with these "
            f"settings, and the corpus itself cannot be read: {error}. Run `{suggest('index')}` where the "
            "corpus is; elsewhere copy the one cache/lexical-* that you need there."
        ) from None
    return _place(workdir, corpus, embedder.fingerprint, config)


def open_lexical(config: RetrievalConfig, workdir: Path, embedder: Embedder | None = None) -> LexicalIndex:
    """A lexical index that was built before.

    Raises:
        UserError: there is none (see `locate_lexical`), or its files are corrupt or incomplete.
    """
    workdir = Path(workdir)
    place = locate_lexical(config, workdir, embedder or find_embedder(config, workdir))
    if not place.folder.is_dir():
        raise UserError(
            f"there is no lexical index of {config.corpus} with these settings in {workdir / 'cache'}. Run "
            f"`{suggest('index')}` where the corpus is; elsewhere copy cache/lexical-* there."
        )
    return _open(place, config)


def _open(place: Place, config: RetrievalConfig) -> LexicalIndex:
    folder, remedy = place.folder, remedy_of(place.folder)
    lacking = FILES - set(read_manifest(folder, KIND, remedy)["files"])
    if lacking:
        raise UserError(f"the lexical index in {folder} is incomplete: {min(lacking)} is missing. {remedy}")
    return LexicalIndex(folder, Words(config.language), place.key)


# --- building ------------------------------------------------------------------------------


def build_lexical(config: RetrievalConfig, workdir: Path, embedder: Embedder | None = None) -> LexicalIndex:
    """The lexical index of the corpus: opened when it is there, else built. The same corpus gives the same bytes.

    The passages of an index of vectors are used again where there is one. A build that was killed begins anew.

    Raises:
        UserError: the corpus or the embedder (whose tokenizer cuts the passages) cannot be read, or an index that
            is there is corrupt.
    """
    workdir = Path(workdir)
    corpus = corpus_fingerprint(config.corpus)
    embedder = embedder or find_embedder(config, workdir)
    place = _place(workdir, corpus, embedder.fingerprint, config)
    if place.folder.is_dir():
        return _open(place, config)
    sweep_leftovers(place.folder.parent, place.folder.name)
    source = made_of(config, corpus, embedder)
    relative = same_vectors(config, workdir, source)
    with room_on_disk(place.folder.parent), atomic_folder(place.folder) as temporary:
        passages = temporary / "passages.parquet"
        if relative is None:
            write_passages(config, embedder, passages)
        else:
            link_or_copy(relative / "passages.parquet", passages)
        say(f"building the lexical index of {config.corpus}")
        count = write_bm25(passages, temporary, config)
        settings = _settings(config)
        dropped = dropped_counts(passages)
        write_manifest(temporary, KIND, key=place.key, **source, settings=settings, passages=count, dropped=dropped)
    return _open(place, config)
