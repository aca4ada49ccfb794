"""Where the index of given settings lies, and whether it is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.retrieval.corpus import look_at_corpus
from solution.retrieval.embedding import Embedder
from solution.suggestions import suggest

_VERSION = 1  # of the way passages are cut; another one makes another index


# --- which index ---------------------------------------------------------------------------


def cutting(config: RetrievalConfig) -> dict[str, Any]:
    """The settings that the passages depend on."""
    settings = {
        "version": _VERSION,
        **config.model_dump(include={"passage_tokens", "passage_overlap", "stub_words", "disambiguations", "sections"}),
        "duplicates": config.duplicates,
    }
    if config.duplicates == "near":
        settings["near_duplicate"] = config.near_duplicate
    return settings


def made_of(config: RetrievalConfig, corpus: str, embedder: Embedder) -> dict[str, Any]:
    """What a manifest says of the corpus, whose fingerprint is given, and of the embedder."""
    return {
        "corpus": {"name": Path(config.corpus).name, "fingerprint": corpus},
        "embedder": {"name": Path(embedder.spec).name, "fingerprint": embedder.fingerprint},
    }


@dataclass(frozen=True)
class Place:
    """Where the index of these settings is or would be."""

    key: str
    folder: Path


def find_embedder(config: RetrievalConfig, workdir: Path) -> Embedder:
    """The embedder of these settings, which is not loaded yet.

    Raises:
        UserError: it cannot be found; where no index is there yet, what is wrong with the corpus is told too.
    """
    try:
        return Embedder(config.embedder, workdir / "cache")
    except UserError as error:
        problems = [str(error)]
    if not index_folders(workdir):
        try:
            look_at_corpus(config.corpus)
        except UserError as error:
            problems.append(str(error))
    raise UserError.join(problems, "no index can be made")


def index_folders(workdir: Path) -> list[Path]:
    return [path for path in sorted((workdir / "cache").glob("index-*")) if path.is_dir() and path.suffix != ".shards"]


def remedy_of(folder: Path) -> str:
    """What to do about an index, dense or lexical, that is not usable."""
    return f"Delete {folder} and run `{suggest('index')}`."
