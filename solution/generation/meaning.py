"""Questions about definitions: which term has this definition, and which definition has this term."""

from __future__ import annotations

from collections import defaultdict

from solution.generation.drafts import Draft
from solution.generation.english import lowered
from solution.generation.material import Material
from solution.generation.terms import roots_of

_LEAST_STEMS = 4
"""A definition of fewer words, "an overall property of a system", is true of many terms."""


def definition_drafts(material: Material) -> tuple[list[list[Draft]], list[list[Draft]]]:
    """For each term that has a definition: the questions for the term, and those for the definition.

    A definition with a word of its term is left out: it gives the answer away.
    """
    of_term: dict[int, list[Draft]] = defaultdict(list)
    of_meaning: dict[int, list[Draft]] = defaultdict(list)
    for number, definition in enumerate(material.glossary.definitions):
        term = material.terms.of(definition.term)
        stems = frozenset(material.stems.all(lowered(definition.text)))
        if term is None or roots_of(stems) & material.terms.terms[term].roots:
            continue
        name = material.terms.terms[term].text
        if definition.verb:
            prompt = f"Which of these {definition.verb} {definition.text}?"
        else:
            prompt = f"Which term means “{definition.text}”?"
        if len(stems) >= _LEAST_STEMS:
            of_term[term].append(Draft("term", prompt, name, term, definition.passage, stems, definition=number))
        prompt = f"Which description fits “{name}”?"
        of_meaning[term].append(
            Draft("definition", prompt, definition.text, term, definition.passage, stems, definition=number)
        )
    return [of_term[term] for term in sorted(of_term)], [of_meaning[term] for term in sorted(of_meaning)]
