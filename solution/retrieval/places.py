"""Which index belongs to given settings of retrieval, and where it lies in `WORKDIR/cache`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solution.config import SIGNALS, ContextView, RetrievalConfig
from solution.errors import UserError
from solution.files import MANIFEST, content_hash, read_json, read_manifest
from solution.retrieval.approximate import build_settings
from solution.retrieval.corpus import look_at_corpus, read_corpus
from solution.retrieval.embedding import Embedder
from solution.retrieval.prefixes import Prefixes, warn_of_unset
from solution.retrieval.sources import PACKAGES, corpus_fingerprint
from solution.suggestions import suggest
from solution.words import SCRIPTS_VERSION, other_scripts

# Another version makes another index.
_CUTTING_VERSION = 1  # of the way passages are cut
_WORDS_VERSION = 1  # of the way words are made
_SENTENCES_VERSION = 1  # of the way passages are cut into sentences
VECTORS_FORMAT = "float16"  # of the vectors on disk


# --- the settings that an index depends on -------------------------------------------------


def cutting_settings(config: RetrievalConfig) -> dict[str, Any]:
    """The settings that the passages depend on."""
    settings = {
        "version": _CUTTING_VERSION,
        **config.model_dump(include={"passage_tokens", "passage_overlap", "stub_words", "disambiguations", "sections"}),
        "duplicates": config.duplicates,
    }
    if config.duplicates == "near":
        settings["near_duplicate"] = config.near_duplicate
    if config.encoding is not None:
        settings["encoding"] = config.encoding
    return settings


def vector_settings(config: RetrievalConfig) -> dict[str, Any]:
    """The settings that the passages and their vectors depend on, whatever the kind of dense index."""
    settings = {**cutting_settings(config), "vectors": VECTORS_FORMAT}
    if config.passage_prefix is not None:
        settings["passage_prefix"] = config.passage_prefix
    return settings


def _dense_settings(config: RetrievalConfig) -> dict[str, Any]:
    return {**vector_settings(config), "index": config.index, "metric": config.metric, **build_settings(config)}


def _lexical_settings(config: RetrievalConfig) -> dict[str, Any]:
    words = {"words": _WORDS_VERSION, "language": config.language, "k1": config.bm25_k1, "b": config.bm25_b}
    return {**cutting_settings(config), **words}


def _sentence_settings(config: RetrievalConfig) -> dict[str, Any]:
    return {**_lexical_settings(config), "sentences": _SENTENCES_VERSION}


@dataclass(frozen=True)
class IndexKind:
    """The dense, the lexical or the sentence index, as folders, manifests and messages name it.

    Attributes:
        name: in manifests and messages.
        prefix: of the names of its folders.
        settings: gives the settings that it depends on; those of a search are not among them.
        key_parts: are hashed into its key, before the corpus.
    """

    name: str
    prefix: str
    settings: Callable[[RetrievalConfig], dict[str, Any]]
    key_parts: tuple[str, ...] = ()

    def folders(self, workdir: Path) -> list[Path]:
        """The indexes of this kind in the working folder's cache."""
        paths = sorted((workdir / "cache").glob(f"{self.prefix}-*"))
        return [path for path in paths if path.is_dir() and path.suffix != ".shards"]


DENSE = IndexKind("index", "index", _dense_settings)
LEXICAL = IndexKind("lexical index", "lexical", _lexical_settings, ("lexical index",))
SENTENCES = IndexKind("sentence index", "sentences", _sentence_settings, ("sentence index",))


# --- the place of an index -----------------------------------------------------------------


Source = dict[str, dict[str, str]]


@dataclass(frozen=True)
class IndexPlace:
    """The folder in which the index of given settings lies, or will lie when it is built.

    Attributes:
        key: names all that the index is made of.
        source: what its manifest says of corpus and embedder; None where the corpus is not on this machine and the
            index was found by the corpus's name.
    """

    kind: IndexKind
    key: str
    folder: Path
    source: Source | None

    @property
    def is_built(self) -> bool:
        return self.folder.is_dir()


def find_embedder(config: RetrievalConfig, workdir: Path, kind: type[Embedder] = Embedder) -> Embedder:
    """The embedder of these settings, which is not loaded yet.

    Args:
        kind: its class.

    Raises:
        UserError: it cannot be found; where no index is there yet, the message also says what is wrong with the corpus.
    """
    prefixes = Prefixes.of(config)
    warn_of_unset(config.embedder, prefixes)
    try:
        return kind(config.embedder, workdir / "cache", prefixes)
    except UserError as error:
        problems = [str(error)]
    if not DENSE.folders(workdir):
        try:
            look_at_corpus(config.corpus, config.encoding)
        except UserError as error:
            problems.append(str(error))
    raise UserError.join(problems, "no index can be made")


def place_to_build(kind: IndexKind, config: RetrievalConfig, workdir: Path, embedder: Embedder) -> IndexPlace:
    """The place of the index of this very corpus.

    Args:
        embedder: makes the vectors, and its tokenizer cuts the passages.

    Raises:
        UserError: no corpus is set, or it cannot be read.
    """
    return _place(kind, config, workdir, embedder, corpus_fingerprint(config.corpus, config.encoding))


def locate(kind: IndexKind, config: RetrievalConfig, workdir: Path, embedder: Embedder) -> IndexPlace:
    """The place of the index of this corpus; where it cannot be read, of the one that was made of a corpus so named.

    Raises:
        UserError: no corpus is set; or it cannot be read and not exactly one index was made of a corpus of that name;
            or there is no index at all and the corpus is not usable.
    """
    try:
        corpus = corpus_fingerprint(config.corpus, config.encoding)
    except UserError as error:
        if not config.corpus.strip():
            raise
        stored = _StoredIndexes(kind, config, workdir, embedder, None)
        if len(stored.fitting) == 1:
            return stored.fitting[0]
        raise stored.none_fits(f"The corpus itself cannot be read: {error}.") from None
    return _place(kind, config, workdir, embedder, corpus)


def locate_all(config: RetrievalConfig, view: ContextView, workdir: Path, embedder: Embedder) -> list[IndexPlace]:
    """The places of all indexes that this view of the contexts is made with.

    Raises:
        UserError: see `locate`.
    """
    if view == SIGNALS:
        kinds = [DENSE, LEXICAL, SENTENCES]
    else:
        config = config.view(view)
        kinds = [DENSE] if config.uses_vectors else []
        kinds += [LEXICAL] if "lexical" in config.retrievers else []
    return [locate(kind, config, workdir, embedder) for kind in kinds]


def require_built(place: IndexPlace, config: RetrievalConfig, workdir: Path, embedder: Embedder) -> None:
    """Refuse a place where no index lies.

    Raises:
        UserError: the message names indexes of the same corpus by another embedder.
    """
    if not place.is_built:
        corpus = None if place.source is None else place.source["corpus"]["fingerprint"]
        raise _StoredIndexes(place.kind, config, workdir, embedder, corpus).none_fits()


def same_source(place: IndexPlace, kind: IndexKind, settings: dict[str, Any], workdir: Path) -> Path | None:
    """A whole index of the kind that was made of the same corpus and embedder, with these settings among its own."""
    if place.source is None:
        return None
    for folder in kind.folders(workdir):
        with contextlib.suppress(UserError, KeyError, TypeError):
            manifest = read_json(folder / MANIFEST, "manifest", "")
            same = all(
                manifest[part].get(name) == about.get(name)
                for part, about in place.source.items()
                for name in ("fingerprint", "scripts")
            )
            if same and settings.items() <= manifest["settings"].items():
                read_manifest(folder, kind.name, "")
                return folder
    return None


def remedy_of(folder: Path) -> str:
    """The advice on an index, dense or lexical, that is not usable."""
    return f"Delete {folder} and run `{suggest('index')}`."


def _place(kind: IndexKind, config: RetrievalConfig, workdir: Path, embedder: Embedder, corpus: str) -> IndexPlace:
    if not kind.folders(workdir):
        # One will be built. A wrong corpus is refused before a hub's embedder is loaded for its fingerprint.
        look_at_corpus(config.corpus, config.encoding)
    source = {
        "corpus": {"name": Path(config.corpus).name, "fingerprint": corpus},
        "embedder": {"name": Path(embedder.spec).name, "fingerprint": embedder.fingerprint},
    }
    key_parts = [*kind.key_parts, corpus, embedder.fingerprint, kind.settings(config)]
    if _has_other_scripts(config.corpus, config.encoding, corpus):
        source["corpus"]["scripts"] = SCRIPTS_VERSION
        key_parts.append({"scripts": SCRIPTS_VERSION})
    key = content_hash(*key_parts)
    return IndexPlace(kind, key, workdir / "cache" / f"{kind.prefix}-{key}", source)


@functools.lru_cache
def _has_other_scripts(spec: str, encoding: str | None, fingerprint: str) -> bool:
    """Whether the first documents of a corpus are of scripts whose words and sentences have rules of their own.

    Only then these rules are a part of the key: an index of an English corpus that was made before them is still valid.

    Args:
        fingerprint: the corpus's; an answer is remembered for it.
    """
    if spec in PACKAGES:
        return False  # they are English
    with contextlib.suppress(UserError):  # what is wrong with the corpus is told where an index is built of it
        return other_scripts(f"{document.title} {document.text}" for document in read_corpus(spec, encoding=encoding))
    return False


class _StoredIndexes:
    """The indexes in the cache that were made of a corpus with these settings.

    Attributes:
        fitting: those that the embedder made.

    Args:
        corpus: the corpus's fingerprint; None: it cannot be read, and its name decides.
    """

    def __init__(self, kind: IndexKind, config: RetrievalConfig, workdir: Path, embedder: Embedder, corpus: str | None):
        self.fitting: list[IndexPlace] = []
        self._of_other_embedders: list[str] = []
        self._corrupt: list[str] = []
        self._kind, self._config, self._cache, self._embedder = kind, config, workdir / "cache", embedder
        for folder in kind.folders(workdir):
            try:
                manifest = read_json(folder / MANIFEST, f"the manifest of the {kind.name}", remedy_of(folder))
                about, model = manifest["corpus"], manifest["embedder"]
                same = about["name"] == Path(config.corpus).name if corpus is None else about["fingerprint"] == corpus
                if not same or manifest["settings"] != kind.settings(config):
                    continue
                if model["fingerprint"] == embedder.fingerprint:
                    self.fitting.append(IndexPlace(kind, manifest["key"], folder, None))
                else:
                    self._of_other_embedders.append(f"{folder} was made with {model['name']} ({model['fingerprint']})")
            except UserError as error:
                self._corrupt.append(str(error))
            except (KeyError, TypeError):
                self._corrupt.append(f"the manifest of {folder} is corrupt. {remedy_of(folder)}")

    def none_fits(self, more: str = "") -> UserError:
        """The error that says why none of them can be opened, or not which of them.

        Args:
            more: a sentence to add.
        """
        name, prefix, corpus = self._kind.name, self._kind.prefix, self._config.corpus
        lines = [f"there is no {name} of {corpus} with these settings in {self._cache}."]
        if len(self.fitting) > 1:
            names = ", ".join(place.folder.name for place in self.fitting)
            several = f"several {name}es in {self._cache} were made of a corpus of that name"
            lines = [f"{several}: {names}. Keep one of them."]
        elif self._of_other_embedders:
            lines.append(
                f"The embedder is now {self._embedder.spec} ({self._embedder.fingerprint}), and "
                f"{self._of_other_embedders[0]}. Set retrieval.embedder to that one, or build another index."
            )
        lines += [*self._corrupt[:1], *([more] if more else [])]
        lines.append(f"Run `{suggest('index')}` where the corpus is; elsewhere copy cache/{prefix}-* there.")
        return UserError(" ".join(lines))
