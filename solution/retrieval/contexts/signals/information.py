"""Signals by term statistics: how much more often terms of question and option share a sentence than by chance.

Pointwise mutual information (Church and Hanks 1990) as it answers science questions in Clark et al. 2016 (Combining
Retrieval, Statistics, and Inference to Answer Elementary Science Questions). Terms are words and pairs of neighbouring
words; counts come from the posting lists of a sentence index, read for the exam's terms alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solution.progress import progress_bar
from solution.retrieval.bm25 import Postings
from solution.retrieval.contexts.signals.limit import TimeLimit
from solution.retrieval.contexts.signals.texts import OptionTexts

_HIGH = 3.0
_BEST = 5
_BITS = 64
_NAMES = ("mean", "best", "mean5", "above3")


@dataclass
class TermSignals:
    """What `term_signals` makes.

    Attributes:
        values: name -> float32 [m].
        unknown: rows of the questions that have no known term, or whose options all have none.
    """

    values: dict[str, np.ndarray]
    unknown: list[int]


def term_signals(texts: OptionTexts, postings: Postings, limit: TimeLimit | None = None) -> TermSignals:
    """PMI signals of each option.

    Of all pairs of a known term of the question and one of the option that the question does not have: `pmi_mean`,
    `pmi_best`, `pmi_mean5` (of the five highest), `pmi_above3` (the share above 3). A pair that shares no sentence
    counts 0; all are 0 where there is no pair, and NaN for the questions that the time did not reach.

    Memory: eight bytes for each sentence of the index.
    """
    reader = _Reader(postings)
    asked, own = reader.terms(texts.prompts), reader.terms(texts.options)
    table = np.zeros((len(texts), len(_NAMES)), dtype=np.float32)
    unknown = []
    with progress_bar(len(texts.prompts), "counting terms in sentences") as bar:
        for row, places in enumerate(texts.by_question()):
            if limit is not None and limit.over():
                table[places.start :] = np.nan
                break
            options = own[places]
            lists = reader.read({*asked[row], *(term for terms in options for term in terms)})
            known = [term for term in asked[row] if len(lists[term])]
            others = list(dict.fromkeys(term for terms in options for term in terms if len(lists[term])))
            if not known or not others:
                unknown.append(row)
            else:
                values = reader.pmi([lists[term] for term in known], [lists[term] for term in others])
                column = {term: place for place, term in enumerate(others)}
                for place, terms in zip(range(places.start, places.stop), options, strict=True):
                    columns = [column[term] for term in terms if term in column and term not in asked[row]]
                    table[place] = _summary(values[:, columns].ravel())
            bar.advance()
    return TermSignals({f"pmi_{name}": table[:, column] for column, name in enumerate(_NAMES)}, unknown)


def _summary(values: np.ndarray) -> tuple[float, float, float, float]:
    if not len(values):
        return 0.0, 0.0, 0.0, 0.0
    highest = np.sort(values)[-_BEST:]
    return float(values.mean()), float(highest[-1]), float(highest.mean()), float((values > _HIGH).mean())


Term = tuple[int, ...]
"""The number of a known word, or the numbers of two neighbouring words."""


class _Reader:
    """Reads the posting lists of terms and counts in which sentences they meet."""

    def __init__(self, postings: Postings):
        self._postings = postings
        self._bits = np.zeros(len(postings), dtype=np.uint64)  # a bit for each of the terms that are counted now

    def terms(self, texts: Sequence[str]) -> list[list[Term]]:
        """The known terms of each text, each once: words of at least two letters, and pairs of neighbours."""
        words = self._postings.words
        # None stands for a stop word: the words on its sides are no neighbours.
        split = [[words.term(word) for word in words.split(text)] for text in texts]
        flat = [[term or "" for term in terms] for terms in split]
        numbers = [part.tolist() for part in self._postings.numbers_of_terms(flat)]
        found = []
        for terms, row in zip(split, numbers, strict=True):
            known = [n if term and len(term) > 1 else -1 for term, n in zip(terms, row, strict=True)]
            pairs = [(a, b) for a, b in zip(known, known[1:], strict=False) if a >= 0 and b >= 0 and a != b]
            singles = [(n,) for n in known if n >= 0]
            found.append(list(dict.fromkeys([*singles, *pairs])))
        return found

    def read(self, terms: set[Term]) -> dict[Term, np.ndarray]:
        """The rows of the sentences that hold each term, ascending; of a pair those that hold both words."""
        words = {number for term in terms for number in term}
        rows = {number: self._postings.entries(number)[0] for number in words}
        return {term: rows[term[0]] if len(term) == 1 else _shared(rows[term[0]], rows[term[1]]) for term in terms}

    def pmi(self, asked: Sequence[np.ndarray], own: Sequence[np.ndarray]) -> np.ndarray:
        """PMI of terms by the sentences that hold them, none empty: float64 [asked, own]; 0 where they never meet."""
        together = np.zeros((len(asked), len(own)))
        for begin in range(0, len(asked), _BITS):
            block = asked[begin : begin + _BITS]
            for bit, rows in enumerate(block):
                self._bits[rows] |= np.uint64(1 << bit)
            for column, rows in enumerate(own):
                bits = self._bits[rows]
                bits = bits[bits > 0]
                for bit in range(len(block)):
                    together[begin + bit, column] = np.count_nonzero(bits & np.uint64(1 << bit))
            for rows in block:
                self._bits[rows] = 0
        counts = np.outer([len(rows) for rows in asked], [len(rows) for rows in own])
        ratio = together * len(self._postings) / counts
        return np.log(ratio, out=np.zeros_like(ratio), where=ratio > 0)


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rows that are in both, each ascending."""
    few, many = (a, b) if len(a) <= len(b) else (b, a)
    at = np.minimum(np.searchsorted(many, few), len(many) - 1)
    return few[many[at] == few]
