"""What questions are made of: the sample of a corpus with its key terms, definitions and term statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from solution.generation.counts import Counts
from solution.generation.definitions import Glossary, read_definitions
from solution.generation.kin import Kin
from solution.generation.phrases import Phrases
from solution.generation.sample import SAMPLE_CHARACTERS, Sample, draw_sample
from solution.generation.stems import Stems
from solution.generation.terms import Terms, find_terms
from solution.generation.truth import Truth
from solution.retrieval.corpus import Document


@dataclass(frozen=True)
class Material:
    """See the classes of its parts."""

    sample: Sample
    glossary: Glossary
    stems: Stems
    terms: Terms
    kin: Kin
    truth: Truth

    @classmethod
    def read(cls, documents: Iterable[Document], seed: int, characters: int = SAMPLE_CHARACTERS) -> Material:
        """Draw a sample of at most so many characters, and count what stands in it."""
        stems = Stems()
        sample = draw_sample(documents, stems, seed, characters)
        phrases = Phrases.of(sample) if sample.short else Phrases()
        glossary = read_definitions(sample, phrases)
        terms = find_terms(sample, glossary.nouns(), phrases, stems)
        counts = Counts.of(sample)
        kin = Kin(sample, terms, glossary, counts, stems)
        return cls(sample, glossary, stems, terms, kin, Truth(sample, terms, counts))

    def rows_of(self, term: int) -> Sequence[int]:
        """The numbers of the sentences with a key term."""
        return self.truth.rows.get(term, np.empty(0, dtype=np.int64)).tolist()

    def stems_of_passage(self, passage: int) -> frozenset[str]:
        """The stems of a passage's words, by its position in the sample."""
        return frozenset[str]().union(*(sentence.stems for sentence in self.sample.sentences_of(passage)))
