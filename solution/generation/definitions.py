"""Definitions in a corpus: glossary entries ("term: definition") and sentences that say what a title's subject is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from solution.generation.english import ARTICLES, NOT_OF_NOUNS, glossary_entry, is_a_sentence, lowered
from solution.generation.sample import Sample

_WORDS = range(4, 41)
_IS_A_WORDS = range(7, 36)
_MOST_ENTRIES_OF_A_TERM = 4
_FIRST_SENTENCES = 2
_POINTERS = frozenset(
    "see above below figure table this these those equation chapter section http https www = ≈ * # →".split()
)


@dataclass(frozen=True)
class Definition:
    """What a term means.

    Attributes:
        passage: the position of its passage in the sample.
        term: as written.
        text: the definition; of a sentence "X is a ..." all from the article on.
        verb: that of the sentence; "" for a glossary entry.
    """

    passage: int
    term: str
    text: str
    verb: str = ""


@dataclass
class Glossary:
    """The definitions of a sample.

    Attributes:
        aliases: pairs of names, in lower case, of the same thing.
        entry_passages: the positions of the passages that are glossary entries.
    """

    definitions: list[Definition] = field(default_factory=list)
    aliases: set[tuple[str, str]] = field(default_factory=set)
    entry_passages: set[int] = field(default_factory=set)

    def nouns(self) -> list[str]:
        """The terms as written, but for those that are explained as adjectives and verbs are."""
        return [entry.term for entry in self.definitions if lowered(entry.text)[0] not in NOT_OF_NOUNS]


def read_definitions(sample: Sample) -> Glossary:
    """All definitions of a sample; heads that stand before many texts ("Note: ...") are none."""
    glossary = Glossary()
    entries: dict[str, list[Definition]] = defaultdict(list)
    for number, passage in enumerate(sample.passages):
        entry = glossary_entry(passage.text)
        if entry is None:
            continue
        term, text, names = entry
        entries[term.lower()].append(Definition(number, term, text))
        glossary.aliases.update((term.lower(), name.lower()) for name in names)
        glossary.entry_passages.add(number)
    for found in entries.values():
        if len({definition.text for definition in found}) <= _MOST_ENTRIES_OF_A_TERM:
            glossary.definitions += [definition for definition in found if _is_usable(definition.text)]
    for sentence in sample.sentences:
        if sentence.place < _FIRST_SENTENCES and sentence.alone and sentence.passage not in glossary.entry_passages:
            found_sentence = is_a_sentence(sentence.text)
            if found_sentence is not None and _is_subject(found_sentence[0], sample.passages[sentence.passage].title):
                term, verb, text = found_sentence
                if len(text.split()) in _IS_A_WORDS:
                    glossary.definitions.append(Definition(sentence.passage, term, text, verb))
    return glossary


def _is_usable(text: str) -> bool:
    words = lowered(text)
    return len(text.split()) in _WORDS and not _POINTERS & set(words) and text.count("(") == text.count(")")


def _is_subject(term: str, title: str) -> bool:
    """True where the title or its section is the term; "(physics)" behind it does not count."""
    words = [word for word in lowered(term) if word not in ARTICLES]
    names = [part.partition(" (")[0] for part in title.split(" > ")]
    return bool(words) and words in [[word for word in lowered(name) if word not in ARTICLES] for name in names]
