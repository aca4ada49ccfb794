"""Wrong options: alike in kind, not true, and chosen so that neither length nor likeness gives the answer away."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from solution.generation.drafts import Draft, Kind
from solution.generation.english import lowered
from solution.generation.material import Material
from solution.generation.terms import Term, roots_of

_LOOKED_AT = 60
"""Terms like the answer's that are looked at for a question."""
_POOL_PER_OPTION = 3
_MOST_OVERLAP = 0.6
"""A statement may be true of a term that has this share of its words, by weight, in one sentence."""
_LEAST_COUNT = 3
_MOST_WITH_ARTICLE = 0.5
_USE_WEIGHT = 0.05
"""The cosine that a term loses in the choice each time that it was an option before."""
_USES_OF_ANSWER = 4
"""What being an answer counts: a term is asked for once, so a term that was an answer would be known as wrong."""


@dataclass(frozen=True)
class Option:
    """A wrong option: its text and its term."""

    text: str
    term: int


class Chooser:
    """Chooses the wrong options of questions in turn, so that the exam as a whole is balanced.

    Args:
        askable: for each kind the terms that its questions ask about: a term that is never an answer would be known as
            a wrong option.
        options: of a question, the right one included.
    """

    def __init__(
        self, material: Material, askable: Mapping[Kind, Sequence[int]], options: int, rng: random.Random
    ) -> None:
        self._material, self._options, self._rng = material, options, rng
        self._askable = {kind: np.array(sorted(numbers), dtype=np.int64) for kind, numbers in askable.items()}
        self._uses: Counter[int] = Counter()
        # Kind -> the number of options that are longer, or more like the others, than the answer -> questions.
        self._longer: dict[Kind, Counter[int]] = defaultdict(Counter)
        self._more_central: dict[Kind, Counter[int]] = defaultdict(Counter)
        self._definitions: dict[int, list[int]] = defaultdict(list)
        for number, definition in enumerate(material.glossary.definitions):
            term = material.terms.of(definition.term)
            if term is not None:
                self._definitions[term].append(number)

    def choose(self, draft: Draft) -> list[str] | None:
        """The wrong options of a question; None where there are too few that may be."""
        pool = self._pool(draft)
        if len(pool) < self._options - 1:
            return None
        chosen = self._balanced(draft, pool)
        if chosen is None:
            return None
        self._uses.update(option.term for option in chosen)
        self._uses[draft.term] += _USES_OF_ANSWER
        return [option.text for option in chosen]

    def _pool(self, draft: Draft) -> list[Option]:
        """Options that may be, the most alike first."""
        kin, terms = self._material.kin, self._material.terms.terms
        numbers = kin.alike(draft.term, self._askable[draft.kind], _LOOKED_AT)
        source = self._material.stems_of_passage(draft.passage)
        # Not in the source: what stands there may be true too. No word of the prompt: it would point to this option.
        roots = roots_of(draft.stems)
        numbers = [n for n in numbers if not terms[n].stems <= source and not terms[n].roots & roots]
        if draft.kind == "definition":
            options = self._other_definitions(draft, numbers)
        else:
            overlaps = self._material.truth.overlaps(draft.stems, numbers, draft.passage)
            is_short = self._material.sample.short
            fit = [
                n
                for n, overlap in zip(numbers, overlaps, strict=True)
                if overlap < _MOST_OVERLAP and (draft.kind != "cloze" or _fits(terms[n], draft.article, is_short))
            ]
            options = (Option(terms[n].text, n) for n in fit)
        pool: list[Option] = []
        for option in options:
            if not any(kin.same_thing(option.term, other.term) for other in pool):
                pool.append(option)
                if len(pool) == _POOL_PER_OPTION * self._options:
                    break
        return pool

    def _other_definitions(self, draft: Draft, numbers: Sequence[int]) -> Iterator[Option]:
        """A definition of each term that has one of the same form and is not true of the draft's term."""
        glossary, stems = self._material.glossary, self._material.stems
        name = self._material.terms.terms[draft.term].roots
        form = bool(glossary.definitions[draft.definition].verb)
        for number in numbers:
            for place in self._definitions[number]:
                definition = glossary.definitions[place]
                words = frozenset(stems.all(lowered(definition.text)))
                roots = roots_of(words)
                if bool(definition.verb) != form or roots & (name | self._material.terms.terms[number].roots):
                    continue
                if self._material.truth.overlaps(words, [draft.term], definition.passage)[0] < _MOST_OVERLAP:
                    yield Option(definition.text, number)
                    break

    def _balanced(self, draft: Draft, pool: Sequence[Option]) -> list[Option] | None:
        """Options of the pool so that answers are, over the exam, as often long and as often central as by chance.

        Each set that is tried holds the options most like one of the pool, the pivot. Were the answer the pivot, the
        option that is most like the others would be the right one.
        """
        wanted = self._options - 1
        tie = self._rng.choice((-0.5, 0.5))  # options as long as the answer count as longer, or as shorter
        longer = [len(option.text) + tie > len(draft.answer) for option in pool]
        shorter = [not is_longer for is_longer in longer]
        possible = [n for n in range(self._options) if n <= sum(longer) and wanted - n <= sum(shorter)]
        if not possible:
            return None
        count = min(possible, key=lambda n: (self._longer[draft.kind][n], self._rng.random()))
        likeness = self._material.kin.between([draft.term, *(option.term for option in pool)])  # the answer first
        uses = _USE_WEIGHT * np.array([self._uses[option.term] for option in pool])
        sets = []
        for pivot in range(len(pool)):
            order = np.argsort(uses - likeness[pivot + 1, 1:], kind="stable").tolist()
            chosen = [n for n in order if longer[n]][:count] + [n for n in order if shorter[n]][: wanted - count]
            rows = [0, *(n + 1 for n in chosen)]
            sums = likeness[np.ix_(rows, rows)].sum(axis=1)
            sets.append((int((sums[1:] > sums[0]).sum()), -float(sums[0]), chosen))
        central = self._more_central[draft.kind]
        rank, _, best = min(sets, key=lambda entry: (central[entry[0]], entry[1]))
        self._longer[draft.kind][count] += 1
        central[rank] += 1
        return [pool[n] for n in best]


def _fits(term: Term, article: str, is_short: bool) -> bool:
    """False where the article before the blank would tell that the term is wrong: "a(n)" before a mass noun, ..."""
    if term.count < (1 if is_short else _LEAST_COUNT) or term.plural:
        return True
    if article == "a":
        return term.with_a > 0
    return term.with_article > 0 if article == "the" else term.with_article < _MOST_WITH_ARTICLE
