"""Vectors of key terms, made of counts: terms that are alike in kind and meaning have a large cosine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from solution.generation.counts import Counts
from solution.generation.sample import Sample
from solution.generation.stems import Stems
from solution.generation.terms import Term, Terms

_SHARES = {"around": 0.15, "sentences": 0.15, "titles": 0.2, "meaning": 0.35, "form": 0.15}
"""The share of the squared length of a term's vector that each kind of feature has."""
_SHARES_OF_SHORT = {"around": 0.3, "sentences": 0.15, "titles": 0.1, "meaning": 0.25, "form": 0.2}
"""In a short text, which has one topic and few definitions."""
_MOST_PLACES = 100
_MOST_FEATURES = 64
"""Features of a kind that a term keeps, the heaviest."""


def term_vectors(sample: Sample, terms: Terms, counts: Counts, meanings: Sequence[Counter[str]], stems: Stems) -> Any:
    """A sparse float matrix [terms, features] with rows of length 1, or 0.

    The features are the two words at each side of a term's places (Harris 1954, "Distributional structure"), the stems
    of its sentences, those of its articles or chapters, those of its definitions, and its own words and endings.

    Args:
        meanings: for each term the counts of its definitions' features.
    """
    from scipy.sparse import csr_matrix, diags, hstack

    n = len(terms.terms)
    if n == 0:
        return csr_matrix((0, 1))
    places = _first_places(terms)
    at = np.array([place.sentence for place in places], dtype=np.int64)
    of = np.array([place.term for place in places], dtype=np.int64)
    ones = np.ones(len(places), np.float32)
    sentences = csr_matrix((ones, (of, at)), shape=(n, len(sample.sentences))) @ counts.sentences
    group = np.array([sample.group[sentence.passage] for sentence in sample.sentences], dtype=np.int64)
    groups = max(sample.group, default=-1) + 1
    rows = np.arange(len(group))
    of_group = (
        csr_matrix((np.ones(len(group), np.float32), (group, rows)), shape=(groups, len(group))) @ counts.sentences
    )
    titles = csr_matrix((ones, (of, group[at])), shape=(n, groups)) @ _heaviest(_weighted(of_group))
    blocks = {
        "around": _weighted(_around(sample, places, n)),
        "sentences": _weighted(sentences),
        "titles": _unit_rows(titles),
        "meaning": _weighted(_table(meanings)),
        "form": _weighted(_table([_form(term, stems) for term in terms.terms])),
    }
    shares = _SHARES_OF_SHORT if sample.short else _SHARES
    scaled = [diags([shares[kind] ** 0.5] * n) @ _unit_rows(_heaviest(block)) for kind, block in blocks.items()]
    return _unit_rows(hstack(scaled, format="csr"))


def _first_places(terms: Terms) -> list[Any]:
    seen = [0] * len(terms.terms)
    places = []
    for place in terms.places:
        seen[place.term] += 1
        if seen[place.term] <= _MOST_PLACES:
            places.append(place)
    return places


def _around(sample: Sample, places: Sequence[Any], n: int) -> Any:
    """Counts [terms, words with their distance]."""
    from scipy.sparse import csr_matrix

    column: dict[tuple[int, str], int] = {}
    rows, columns = [], []
    for place in places:
        tokens = sample.sentences[place.sentence].tokens
        last = len(tokens)
        for distance, at in ((-2, place.start - 2), (-1, place.start - 1), (1, place.end), (2, place.end + 1)):
            rows.append(place.term)
            columns.append(column.setdefault((distance, tokens[at] if 0 <= at < last else ""), len(column)))
    return csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(n, max(1, len(column))))


def _form(term: Term, stems: Stems) -> Counter[str]:
    last = term.words[-1]
    counts = Counter([f"words {len(term.words)}", f"end {last[-3:]}", f"end {last[-4:]}"])
    counts.update(f"has {stem}" for stem in stems.all(term.words))
    return counts


def _table(features: Sequence[Counter[str]]) -> Any:
    """Counts [rows, features], the features numbered as they come."""
    from scipy.sparse import csr_matrix

    column: dict[str, int] = {}
    data, columns, starts = [], [], [0]
    for row in features:
        columns += [column.setdefault(name, len(column)) for name in sorted(row)]
        data += [row[name] for name in sorted(row)]
        starts.append(len(columns))
    return csr_matrix((np.array(data, np.float32), columns, starts), shape=(len(features), max(1, len(column))))


def _weighted(counts: Any) -> Any:
    """TF-IDF of counts, each row of length 1 (or 0)."""
    from sklearn.feature_extraction.text import TfidfTransformer

    return TfidfTransformer(sublinear_tf=True).fit_transform(counts) if counts.nnz else counts


def _heaviest(matrix: Any) -> Any:
    """The matrix with the largest entries of each row only."""
    matrix = matrix.tocsr()
    for row in np.flatnonzero(np.diff(matrix.indptr) > _MOST_FEATURES):
        begin, end = matrix.indptr[row : row + 2]
        data = matrix.data[begin:end]
        data[np.argsort(-data, kind="stable")[_MOST_FEATURES:]] = 0
    matrix.eliminate_zeros()
    return matrix


def _unit_rows(matrix: Any) -> Any:
    from sklearn.preprocessing import normalize

    return normalize(matrix)
