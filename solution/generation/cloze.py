"""Cloze questions: a sentence that stands alone, with a key term taken out."""

from __future__ import annotations

from collections import defaultdict

from solution.generation.drafts import Draft
from solution.generation.english import (
    ARTICLES,
    BEFORE_ADJECTIVES,
    BLANK,
    FUNCTION_WORDS,
    TOKEN,
    is_word,
    looseness,
)
from solution.generation.material import Material
from solution.generation.terms import Place, roots_of

DRAFTS_OF_A_TERM = 8
_LEAST_STEMS = 6
_LEAST_KEY_TERMS = 2  # beside the answer
_MOST_LOOSENESS = 0
_NOT_BEFORE = frozenset("and or ( , - – — / “ \" ' ‘".split())
_NOT_BEHIND = frozenset("and or ( - – — / ” \" ' ’".split())


def cloze_drafts(material: Material) -> list[list[Draft]]:
    """For each term that has any, its questions, the best first."""
    sample = material.sample
    by_sentence: dict[int, list[Place]] = defaultdict(list)
    for place in material.terms.places:
        sentence = sample.sentences[place.sentence]
        if sentence.alone and sentence.passage not in material.glossary.entry_passages:
            by_sentence[place.sentence].append(place)
    drafts: dict[int, list[tuple[int, Draft]]] = defaultdict(list)
    for row, places in by_sentence.items():
        loose = looseness(sample.sentences[row].text)
        if loose > _MOST_LOOSENESS or len({place.term for place in places}) <= _LEAST_KEY_TERMS:
            continue
        for place in places:
            draft = _draft(material, place)
            if draft is not None:
                drafts[place.term].append((loose, draft))
    return [
        [draft for _, draft in sorted(found, key=lambda entry: (entry[0], entry[1].prompt))[:DRAFTS_OF_A_TERM]]
        for _, found in sorted(drafts.items())
    ]


def _draft(material: Material, place: Place) -> Draft | None:
    """The question with this place blanked; None where the sentence tells the term, or anything could stand there."""
    sentence, term = material.sample.sentences[place.sentence], material.terms.terms[place.term]
    tokens = sentence.tokens
    before = tokens[place.start - 1] if place.start else ""
    behind = tokens[place.end] if place.end < len(tokens) else ""
    first = place.start - 1 if before in ARTICLES else place.start
    before_article = tokens[first - 1] if first > 0 else ""
    if before_article in _NOT_BEFORE or not _is_whole_phrase(before, behind):
        return None
    left = frozenset(material.stems.all(tokens[: place.start] + tokens[place.end :]))
    if len(left) < _LEAST_STEMS or roots_of(left) & term.roots or _says_initials(term.words, tokens):
        return None
    spans = [found.span() for found in TOKEN.finditer(sentence.text)]
    if len(spans) != len(tokens):  # a letter that is two in lower case
        return None
    begin, end = spans[place.start][0], spans[place.end - 1][1]
    head = sentence.text[:begin]
    if place.start and sentence.text[begin] != term.text[0]:  # a part of a title: "The War of the Worlds"
        return None
    if before in ("a", "an"):
        at = spans[place.start - 1][0]
        head = head[:at] + ("A(n) " if head[at].isupper() else "a(n) ")
    prompt = head + BLANK + sentence.text[end:]
    article = {"a": "a", "an": "a", "the": "the"}.get(before, "")
    return Draft("cloze", prompt, term.text, place.term, sentence.passage, left, article, place.sentence)


def _is_whole_phrase(before: str, behind: str) -> bool:
    """True between function words or marks, and not in an enumeration or apposition, where many terms fit."""
    if before in _NOT_BEFORE or behind in _NOT_BEHIND:
        return False
    if (
        before
        and is_word(before)
        and before not in FUNCTION_WORDS
        or before in BEFORE_ADJECTIVES - {"is", "are", "was", "were"}
    ):
        return False
    return not (behind and is_word(behind) and (behind not in FUNCTION_WORDS or behind in ARTICLES))


def _says_initials(words: list[str], tokens: list[str]) -> bool:
    """True where the sentence has the abbreviation of the term, or the term is the abbreviation of words in it."""
    if len(words) > 1:
        initials = "".join(word[0] for word in words if is_word(word))
        return initials in tokens
    word = words[0]
    letters = "".join(token[0] for token in tokens if is_word(token))
    return 2 <= len(word) <= 5 and word in letters and not word.isdigit()
