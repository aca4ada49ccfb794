"""Signals by how rare an option's words are in the corpus."""

from __future__ import annotations

import numpy as np

from solution.retrieval.bm25 import Postings
from solution.retrieval.contexts.signals.texts import OptionTexts

_NAMES = ("mean", "highest", "unknown", "stop_words")


def rarity_signals(texts: OptionTexts, postings: Postings) -> dict[str, np.ndarray]:
    """Name -> float32 [m], by the passages of a lexical index.

    `rarity_mean`, `rarity_highest`: of the option's words log(N / (1 + n)), where n of N passages hold the word;
    `rarity_unknown`: the share of its words that no passage holds; `rarity_stop_words`: the share of stop words among
    all its words. All are 0 where the option has no word.
    """
    words = postings.words
    split = [[words.term(word) for word in words.split(option)] for option in texts.options]
    known = [[term for term in terms if term is not None] for terms in split]
    numbers = postings.numbers_of_terms(known)
    rare = _rarity(postings, np.concatenate(numbers)) if numbers else {}
    table = np.zeros((len(texts), len(_NAMES)), dtype=np.float32)
    for row, (every, terms, found) in enumerate(zip(split, known, numbers, strict=True)):
        if terms:
            values = [rare[number] for number in found.tolist()]
            table[row, :3] = np.mean(values), np.max(values), np.mean(found < 0)
        if every:
            table[row, 3] = 1 - len(terms) / len(every)
    return {f"rarity_{name}": table[:, column] for column, name in enumerate(_NAMES)}


def _rarity(postings: Postings, numbers: np.ndarray) -> dict[int, float]:
    """Number of a term -> log(N / (1 + n)); of -1, an unknown term, n is 0."""
    held = {number: len(postings.entries(number)[0]) if number >= 0 else 0 for number in np.unique(numbers).tolist()}
    return {number: float(np.log(max(len(postings), 1) / (1 + count))) for number, count in held.items()}
