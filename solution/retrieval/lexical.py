"""Lexical retrieval: BM25 over the passages of a corpus, kept in `WORKDIR/cache` beside the index of vectors.

Scores and their layout are bm25s's (Lù 2024, https://arxiv.org/abs/2407.03618): the BM25 score of every word in every
passage is computed once (Lucene's variant; Robertson et al. 1994) and lies in three arrays, sorted by word, that are
memory-mapped. `bm25s.BM25.load(folder, mmap=True, load_vocab=False)` opens them. The library's own builder holds all
words of the corpus as Python objects; the one here holds a shard of passages and the vocabulary.
"""

from __future__ import annotations

from pathlib import Path

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.files import atomic_folder, link_or_copy, read_manifest, sweep_leftovers, write_manifest
from solution.progress import say
from solution.retrieval.bm25 import FILES, LexicalIndex, Words, write_bm25
from solution.retrieval.embedding import Embedder
from solution.retrieval.places import (
    DENSE,
    LEXICAL,
    IndexPlace,
    cutting_settings,
    find_embedder,
    locate,
    place_to_build,
    remedy_of,
    require_built,
    same_source,
)
from solution.retrieval.shards import dropped_counts, room_on_disk, write_passages
from solution.retrieval.store import PASSAGES

KIND = LEXICAL.name


def open_lexical(
    config: RetrievalConfig, workdir: Path, embedder: Embedder | None = None, place: IndexPlace | None = None
) -> LexicalIndex:
    """A lexical index that was built before.

    Args:
        embedder: one made already for `config.embedder`; its tokenizer cuts the passages.
        place: the index's place, where it is known already; see `places.locate`.

    Raises:
        UserError: there is none (see `places.locate`), or its files are corrupt or incomplete.
    """
    workdir = Path(workdir)
    embedder = embedder or find_embedder(config, workdir)
    place = place or locate(LEXICAL, config, workdir, embedder)
    require_built(place, config, workdir, embedder)
    return _open(place, config)


def _open(place: IndexPlace, config: RetrievalConfig) -> LexicalIndex:
    folder, remedy = place.folder, remedy_of(place.folder)
    lacking = FILES - set(read_manifest(folder, KIND, remedy)["files"])
    if lacking:
        raise UserError(f"the lexical index in {folder} is incomplete: {min(lacking)} is missing. {remedy}")
    return LexicalIndex(folder, Words(config.language), place.key)


def build_lexical(
    config: RetrievalConfig, workdir: Path, embedder: Embedder | None = None, place: IndexPlace | None = None
) -> LexicalIndex:
    """The lexical index of the corpus: opened when it is there, else built. The same corpus gives the same bytes.

    The passages of an index of vectors are used again where there is one. A build that was killed begins anew.

    Args:
        embedder, place: see `open_lexical`.

    Raises:
        UserError: the corpus or the embedder cannot be read, or an index that is there is corrupt.
    """
    workdir = Path(workdir)
    embedder = embedder or find_embedder(config, workdir)
    place = place or place_to_build(LEXICAL, config, workdir, embedder)
    if place.is_built:
        return _open(place, config)
    assert place.source is not None, "an index that was found by the corpus's name is built"
    sweep_leftovers(place.folder.parent, place.folder.name)
    dense = same_source(place, DENSE, cutting_settings(config), workdir)
    with room_on_disk(place.folder.parent), atomic_folder(place.folder) as temporary:
        passages = temporary / PASSAGES
        if dense is None:
            write_passages(config, embedder, passages)
        else:
            link_or_copy(dense / PASSAGES, passages)
        say(f"building the lexical index of {config.corpus}")
        count = write_bm25(passages, temporary, config)
        write_manifest(
            temporary,
            KIND,
            key=place.key,
            **place.source,
            settings=LEXICAL.settings(config),
            passages=count,
            dropped=dropped_counts(passages),
        )
    return _open(place, config)
