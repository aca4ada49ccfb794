"""The words that an embedder's authors put in front of queries and passages, where its files do not name them."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from solution.config import RetrievalConfig
from solution.progress import say


class Prefixes(NamedTuple):
    """What stands in front of each text before it is embedded; None: what the model's own files say, or nothing."""

    query: str | None = None
    passage: str | None = None

    @classmethod
    def of(cls, config: RetrievalConfig) -> Prefixes:
        return cls(config.query_prefix, config.passage_prefix)


# By the last part of a hub name or folder. The models' cards say them, and their config_sentence_transformers.json does
# not: E5 needs both (Wang et al. 2022, arXiv:2212.03533); BGE's instruction is for short queries (its card calls it
# optional since v1.5).
_KNOWN = (
    (r"(multilingual-)?e5-(small|base|large)(-v2)?", Prefixes("query: ", "passage: ")),
    (r"bge-(small|base|large)-en(-v1\.5)?", Prefixes("Represent this sentence for searching relevant passages: ", "")),
)


def known_prefixes(spec: str) -> Prefixes | None:
    """The prefixes that the authors of this model trained it with; None where none are known.

    Args:
        spec: a hub name or a folder; a folder of a bundle is named owner--name.
    """
    name = re.split(r"/|--", spec.rstrip("/"))[-1].lower()
    return next((prefixes for pattern, prefixes in _KNOWN if re.fullmatch(pattern, name)), None)


def unset_prefixes(spec: str, prefixes: Prefixes) -> str:
    """The settings that are missing for the embedder of this name, as they stand on a command line; "" where none is.

    A prefix that is set to nothing counts as set.
    """
    known = known_prefixes(spec) or Prefixes()
    pairs = zip(("query_prefix", "passage_prefix"), known, prefixes, strict=True)
    return " ".join(f"'retrieval.{name}=\"{text}\"'" for name, text, now in pairs if text and now is None)


@functools.cache
def warn_of_unset(spec: str, prefixes: Prefixes) -> None:
    """Say, once a process, that an embedder is used without the prefixes that its authors trained it with."""
    if missing := unset_prefixes(spec, prefixes):
        say(f"warning: the authors of the embedder {spec} put a prefix in front of its texts; set {missing}")
