"""The terms of the corpus's sentences, kept in `WORKDIR/cache` beside the lexical index: which sentence holds which.

The signals of options count in it how often terms stand in one sentence, and search it by BM25. It has the lexical
index's layout with a sentence in the place of a passage, so that a corpus of any size is read term by term.
"""

from __future__ import annotations

from pathlib import Path

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.files import atomic_folder, read_manifest, sweep_leftovers, write_manifest
from solution.progress import say
from solution.retrieval.bm25 import POSTINGS, Postings, Words, write_bm25
from solution.retrieval.embedding import Embedder
from solution.retrieval.passages import Passage
from solution.retrieval.places import LEXICAL, SENTENCES, IndexPlace, remedy_of, require_built
from solution.retrieval.shards import room_on_disk
from solution.retrieval.store import PASSAGES
from solution.sentences import sentences


def open_sentences(config: RetrievalConfig, workdir: Path, embedder: Embedder, place: IndexPlace) -> Postings:
    """A sentence index that was built before.

    Raises:
        UserError: there is none, or its files are corrupt or incomplete.
    """
    require_built(place, config, workdir, embedder)
    return _open(place, config)


def build_sentences(config: RetrievalConfig, place: IndexPlace, lexical: IndexPlace) -> Postings:
    """The sentence index of the corpus: opened when it is there, else built. A build that was killed begins anew.

    Args:
        lexical: the place of the lexical index, which is built and holds the passages.

    Raises:
        UserError: the passages cannot be read, or an index that is there is corrupt.
    """
    if place.is_built:
        return _open(place, config)
    sweep_leftovers(place.folder.parent, place.folder.name)
    about = read_manifest(lexical.folder, LEXICAL.name, remedy_of(lexical.folder))
    with room_on_disk(place.folder.parent), atomic_folder(place.folder) as temporary:
        say(f"building the sentence index of {config.corpus}")
        count = write_bm25(lexical.folder / PASSAGES, temporary, config, _texts)
        write_manifest(
            temporary,
            SENTENCES.name,
            key=place.key,
            corpus=about["corpus"],
            embedder=about["embedder"],
            settings=SENTENCES.settings(config),
            passages=about["passages"],
            sentences=count,
        )
    return _open(place, config)


def _texts(passage: Passage) -> list[str]:
    return sentences(passage.text)


def _open(place: IndexPlace, config: RetrievalConfig) -> Postings:
    folder, remedy = place.folder, remedy_of(place.folder)
    lacking = POSTINGS - set(read_manifest(folder, SENTENCES.name, remedy)["files"])
    if lacking:
        raise UserError(f"the sentence index in {folder} is incomplete: {min(lacking)} is missing. {remedy}")
    return Postings(folder, Words(config.language), SENTENCES.name)
