"""Whether a statement may be true of another term too: the best overlap of its words with a sentence of that term."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from solution.generation.counts import Counts
from solution.generation.sample import Sample
from solution.generation.terms import Terms


class Truth:
    """The stems of the sample's sentences and the sentences of each term."""

    def __init__(self, sample: Sample, terms: Terms, counts: Counts):
        self._counts = counts
        rows: dict[int, list[int]] = defaultdict(list)
        for place in terms.places:
            rows[place.term].append(place.sentence)
        self.rows = {term: np.unique(numbers) for term, numbers in rows.items()}
        self._passage = np.array([sentence.passage for sentence in sample.sentences])

    def overlaps(self, stems: Collection[str], terms: Sequence[int], but: int) -> np.ndarray:
        """Float [terms]: the largest share of the stems' weight that a sentence with the term has, 0 to 1.

        A stem weighs its inverse document frequency.

        Args:
            but: a passage that does not count.
        """
        weights = np.zeros(self._counts.sentences.shape[1])
        columns = [self._counts.column[stem] for stem in stems if stem in self._counts.column]
        weights[columns] = self._counts.idf[columns]
        shares = np.zeros(len(terms))
        there = [place for place, term in enumerate(terms) if term in self.rows]
        if there:
            rows = [self.rows[terms[place]] for place in there]
            numbers = np.concatenate(rows)
            scores = (self._counts.sentences[numbers] @ weights) * (self._passage[numbers] != but)
            starts = np.cumsum([0, *map(len, rows[:-1])])
            shares[there] = np.maximum.reduceat(scores, starts) / max(self._counts.weight(stems), 1e-9)
        return shares
