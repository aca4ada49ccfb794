"""Which key terms are alike, and which pairs may not be options of one question."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict

import numpy as np

from solution.generation.counts import Counts
from solution.generation.definitions import Glossary
from solution.generation.english import ABSTRACT_ENDS, definition_head, is_word, lowered
from solution.generation.sample import Sample
from solution.generation.stems import Stems
from solution.generation.terms import Term, Terms
from solution.generation.vectors import term_vectors

_ARTICLE_DISTANCE = 0.4
_SAME_MEANING, _CONTAINED = 0.45, 0.7
_LEAST_LIKENESS, _LEAST_IN_SHORT = 0.13, 0.04
_COUNT_WEIGHT = 0.02
_ALIAS_SIGNS = (
    ("(",),
    ("or",),
    (",", "or"),
    (",", "also", "called"),
    (",", "also", "known", "as"),
    ("(", "or"),
    ("(", "also", "called"),
    ("also", "called"),
    ("also", "known", "as"),
    (",", "called"),
    ("is", "called"),
    ("are", "called"),
    ("are", "also", "called"),
    ("is", "also", "called"),
    ("is", "a"),
    ("is", "an"),
    ("are",),
)
"""What stands between two terms of which one is another name, a kind or an explanation of the other."""


class Kin:
    """Knows which key terms are alike.

    Attributes:
        vectors: see `term_vectors`.
    """

    def __init__(self, sample: Sample, terms: Terms, glossary: Glossary, counts: Counts, stems: Stems):
        self._terms, self._weigh = terms.terms, functools.cache(counts.weight)
        self._meanings: dict[int, list[frozenset[str]]] = defaultdict(list)
        features: list[Counter[str]] = [Counter() for _ in terms.terms]
        for definition in glossary.definitions:
            number = terms.of(definition.term)
            if number is not None:
                words = stems.all(lowered(definition.text))
                self._meanings[number].append(frozenset(words))
                features[number].update(words)
                head = stems.all(definition_head(lowered(definition.text)))
                features[number].update(f"0 {stem}" for stem in head)
                features[number].update(f"1 {stem}" for stem in head[-1:] * 3)
        self._aliases = _aliases(sample, terms, glossary)
        self.vectors = term_vectors(sample, terms, counts, features, stems)
        self._least = _LEAST_IN_SHORT if sample.short else _LEAST_LIKENESS
        self._counts = np.log2([1 + term.count for term in self._terms])
        self._article = np.array([term.with_article if term.count > 2 else np.nan for term in self._terms])
        self._class = np.array([_class_of(term, sample.short) for term in self._terms])

    def alike(self, number: int, among: np.ndarray, most: int) -> list[int]:
        """The terms that are most like a term, most alike first: of its class, and not another name of it.

        Args:
            among: int [m], the terms that may be.
        """
        fit = self._class[among] == self._class[number]
        with np.errstate(invalid="ignore"):
            fit &= ~(np.abs(self._article[among] - self._article[number]) > _ARTICLE_DISTANCE)
        chosen = among[fit & (among != number)]
        likeness = self.similarity(number)
        chosen = chosen[likeness[chosen] >= self._least]
        scores = likeness[chosen] - _COUNT_WEIGHT * np.abs(self._counts[chosen] - self._counts[number])
        order = np.argsort(-scores, kind="stable")
        alike = []
        for other in chosen[order].tolist():
            if not self.same_thing(number, other):
                alike.append(other)
                if len(alike) == most:
                    break
        return alike

    def similarity(self, number: int) -> np.ndarray:
        """Float [terms]: the cosines of a term's vector with all."""
        return self.vectors @ self.vectors[number].toarray().ravel()

    def between(self, numbers: list[int]) -> np.ndarray:
        """Float [m, m]: the cosines of m terms."""
        chosen = self.vectors[numbers]
        return (chosen @ chosen.T).toarray()

    def same_thing(self, one: int, other: int) -> bool:
        """True where two terms may mean the same, or one a kind or part of the other."""
        left, right = self._terms[one], self._terms[other]
        if (
            left.roots <= right.roots
            or right.roots <= left.roots
            or (min(one, other), max(one, other)) in self._aliases
        ):
            return True
        if _initials(left, right) or _initials(right, left):
            return True
        for term, others in ((left, self._meanings.get(other, ())), (right, self._meanings.get(one, ()))):
            if any(term.stems <= meaning for meaning in others):
                return True
        return any(
            self._mean_the_same(a, b) for a in self._meanings.get(one, ()) for b in self._meanings.get(other, ())
        )

    def _mean_the_same(self, one: frozenset[str], other: frozenset[str]) -> bool:
        """True where two definitions share most of their words, by weight, or all but a few of the shorter one."""
        common = one & other
        if len(common) < 2:
            return False
        shared, left, right = self._weigh(common), self._weigh(one), self._weigh(other)
        return shared >= _SAME_MEANING * (left + right - shared) or shared >= _CONTAINED * min(left, right)


def _class_of(term: Term, is_short: bool) -> str:
    """Name or not, number, and whether it is written like an abbreviation or a formula.

    In a short text, where too little stands around a term, also whether a name has several words, and whether a noun
    ends as those of actions and properties do.
    """
    odd = any(c.isdigit() for c in term.text) or any(c.isupper() for word in term.text.split() for c in word[1:])
    shape = ""
    if is_short:
        shape = str(len(term.words) > 1 if term.is_name else term.words[-1].endswith(ABSTRACT_ENDS))
    return f"{term.is_name}{term.plural}{odd}{shape}"


def _initials(short: Term, long: Term) -> bool:
    """True where one term is the abbreviation of the other."""
    if len(short.words) != 1 or len(long.words) < 2:
        return False
    initials = "".join(word[0] for word in long.words if is_word(word))
    return short.words[0].rstrip("s") == initials


def _aliases(sample: Sample, terms: Terms, glossary: Glossary) -> set[tuple[int, int]]:
    """Pairs of terms, the lower number first, that are called the same, or one a kind of the other."""
    pairs = set()
    for one, other in glossary.aliases:
        left, right = terms.of(one), terms.of(other)
        if left is not None and right is not None:
            pairs.add((min(left, right), max(left, right)))
    signs = set(_ALIAS_SIGNS)
    for before, place in zip(terms.places, terms.places[1:], strict=False):
        if before.sentence == place.sentence and 0 < place.start - before.end <= 4:
            between = tuple(sample.sentences[place.sentence].tokens[before.end : place.start])
            if between in signs or between[:-1] in signs and between[-1] in ("a", "an", "the"):
                pairs.add((min(before.term, place.term), max(before.term, place.term)))
    return pairs
