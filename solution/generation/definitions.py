"""Definitions in a corpus: glossary entries ("term: definition") and sentences that say what a title's subject is."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from solution.generation.english import (
    ARTICLES,
    FUNCTION_WORDS,
    GENERAL_ADJECTIVES,
    GENERAL_NOUNS,
    NOT_OF_NOUNS,
    can_be_asked,
    definition_head,
    glossary_entry,
    is_a_sentence,
    looseness,
    lowered,
)
from solution.generation.phrases import LONGEST_RUN, Phrases
from solution.generation.sample import Sample

_WORDS = range(4, 41)
_IS_A_WORDS = range(7, 36)
_MOST_ENTRIES_OF_A_TERM = 4
_FIRST_SENTENCES = 2
_OF_MANY = [[word] for word in "part parts member members result cause reason example source component list".split()]
_SECOND = re.compile(r",? (?:and|but|while|whereas|so) [^,]{1,60} (?:is|are|was|were) ")
"""A second statement behind the definition, of another subject."""
_OF_ANOTHER = re.compile(r"the \w+['’]s ")
"""The beginning of "the country's capital": of which one, the sentences before say."""
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


def read_definitions(sample: Sample, phrases: Phrases) -> Glossary:
    """All definitions of a sample; heads that stand before many texts ("Note: ...") are none.

    Args:
        phrases: of a short text, in which any sentence may define.
    """
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
            glossary.definitions += [definition for definition in found if _is_usable(definition.text, sample.short)]
    for sentence in sample.sentences:
        is_near = sentence.place < _FIRST_SENTENCES or sample.short
        if is_near and sentence.alone and sentence.passage not in glossary.entry_passages:
            found_sentence = is_a_sentence(sentence.text)
            if found_sentence is None:
                continue
            title = sample.passages[sentence.passage].title
            says_enough = sample.short and not phrases.is_vague(sentence) and _says_enough(*found_sentence)
            if _is_subject(found_sentence[0], title) or says_enough:
                term, verb, text = found_sentence
                if len(text.split()) in _IS_A_WORDS:
                    glossary.definitions.append(Definition(sentence.passage, term, text, verb))
    return glossary


def _is_usable(text: str, is_short: bool) -> bool:
    words = lowered(text)
    if is_short and any(mark in text for mark in ("[", "--")):  # of a list of references
        return False
    return len(text.split()) in _WORDS and not _POINTERS & set(words) and text.count("(") == text.count(")")


def _says_enough(subject: str, verb: str, text: str) -> bool:
    """True for a subject of one to three words that say what it is, and a text that is true of nothing else.

    Not "The same thing is ...", and not "... is a part of the body".
    """
    if looseness(f"{verb} {text}", is_short=True) >= 0 or definition_head(lowered(text))[-1:] in _OF_MANY:
        return False
    if _SECOND.search(text) or _OF_ANOTHER.match(text):
        return False
    words = [word for word in lowered(subject) if word not in ARTICLES]
    is_short = 0 < len(words) <= LONGEST_RUN and FUNCTION_WORDS.isdisjoint(words)
    if any(word.endswith("ly") for word in words):
        return False  # "Especially spectacular was the fate of ..."
    return is_short and can_be_asked(words) and words[-1] not in GENERAL_NOUNS and GENERAL_ADJECTIVES.isdisjoint(words)


def _is_subject(term: str, title: str) -> bool:
    """True where the title or its section is the term; "(physics)" behind it does not count."""
    words = [word for word in lowered(term) if word not in ARTICLES]
    names = [part.partition(" (")[0] for part in title.split(" > ")]
    return bool(words) and words in [[word for word in lowered(name) if word not in ARTICLES] for name in names]
