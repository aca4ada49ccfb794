"""Sparse counts of the sample: the stems of its sentences and their weights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from solution.generation.sample import Sample


@dataclass(frozen=True)
class Counts:
    """Which sentence has which stem.

    Attributes:
        sentences: sparse float32 [sentences, stems], 1 where the sentence has the stem.
        column: stem -> its column.
        idf: float [stems], the inverse document frequency by sentences.
    """

    sentences: Any
    column: dict[str, int]
    idf: np.ndarray

    @classmethod
    def of(cls, sample: Sample) -> Counts:
        """Count the stems of a sample."""
        from scipy.sparse import csr_matrix

        column: dict[str, int] = {}
        columns: list[int] = []
        starts = [0]
        for sentence in sample.sentences:
            # Sorted: the order of a set of texts changes from process to process.
            columns += sorted(column.setdefault(stem, len(column)) for stem in sorted(sentence.stems))
            starts.append(len(columns))
        n, width = len(sample.sentences), max(1, len(column))
        matrix = csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=(n, width))
        return cls(matrix, column, np.log((n + 1) / (np.bincount(columns, minlength=width) + 1.0)))

    def weight(self, stems: Collection[str]) -> float:
        """The sum of the stems' inverse document frequencies; those that no sentence has weigh most."""
        rare = float(np.log(self.sentences.shape[0] + 1))
        return sum(float(self.idf[self.column[stem]]) if stem in self.column else rare for stem in sorted(stems))
