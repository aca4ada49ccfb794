"""Stems of words, as BM25 counts them."""

from __future__ import annotations

from collections.abc import Iterable

from solution.generation.english import FUNCTION_WORDS, is_word
from solution.retrieval.bm25 import Words


class Stems:
    """Stems of words, None for function words and marks; each word is stemmed once."""

    def __init__(self) -> None:
        self._words = Words("english")
        self._known: dict[str, str | None] = {}

    def of(self, token: str) -> str | None:
        if token not in self._known:
            plain = is_word(token) and token not in FUNCTION_WORDS
            self._known[token] = self._words.term(token) if plain else None
        return self._known[token]

    def all(self, tokens: Iterable[str]) -> list[str]:
        """The stems of tokens in lower case; a word with hyphens gives those of its parts too."""
        found = []
        for token in tokens:
            stem = self.of(token)
            if stem is not None:
                found.append(stem)
                if "-" in token:
                    found += [part for word in token.split("-") if word and (part := self.of(word)) is not None]
        return found
