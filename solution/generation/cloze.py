"""Cloze questions: a sentence that stands alone, with a key term taken out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from solution.generation.drafts import Draft
from solution.generation.english import (
    ARTICLES,
    BE,
    BEFORE_ADJECTIVES,
    BLANK,
    FUNCTION_WORDS,
    TOKEN,
    is_word,
    looseness,
)
from solution.generation.material import Material
from solution.generation.phrases import is_introduced
from solution.generation.terms import Place, roots_of

DRAFTS_OF_A_TERM = 8
_LEAST_STEMS = 6
_LEAST_KEY_TERMS, _LEAST_OF_SHORT = 2, 1  # beside the answer, in any corpus and in a short text
_NO_LIST = ARTICLES | {"."}
_LIST_WORDS = 4
_LEAST_WORTH = -2
_COMMON_PASSAGES, _COMMON = 3, 0.1
"""A word in more passages of a short text than these, and than this share, is what all of it is about."""
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
    least = _LEAST_OF_SHORT if sample.short else _LEAST_KEY_TERMS
    for row, places in by_sentence.items():
        loose = looseness(sample.sentences[row].text, sample.short)
        if loose > _MOST_LOOSENESS or len({place.term for place in places}) <= least:
            continue
        for place in places:
            draft = _draft(material, place)
            if draft is not None and sample.short:
                draft = replace(draft, worth=_worth(material, place, loose))
            if draft is not None and draft.worth >= _LEAST_WORTH:
                drafts[place.term].append((loose - draft.worth, draft))
    return [
        [draft for _, draft in sorted(found, key=lambda entry: (entry[0], entry[1].prompt))[:DRAFTS_OF_A_TERM]]
        for _, found in sorted(drafts.items())
    ]


def _worth(material: Material, place: Place, loose: int) -> int:
    """How well a sentence of a short text says what its term is, and how much the term says: the larger the better."""
    sentence, term = material.sample.sentences[place.sentence], material.terms.terms[place.term]
    worth = 3 * is_introduced(sentence, place.start, place.end) + term.defined + (loose < 0)
    worth += term.is_name or (len(term.words) > 1 and term.count > 1)
    worth -= 2 * material.terms.phrases.is_vague(sentence)
    spread = len({material.sample.sentences[row].passage for row in material.rows_of(place.term)})
    common = spread > max(_COMMON_PASSAGES, _COMMON * len(material.sample.passages))
    return worth - 2 * (common and len(term.words) == 1 and not term.is_name)


def _draft(material: Material, place: Place) -> Draft | None:
    """The question with this place blanked; None where the sentence tells the term, or anything could stand there."""
    sentence, term = material.sample.sentences[place.sentence], material.terms.terms[place.term]
    tokens = sentence.tokens
    before = tokens[place.start - 1] if place.start else ""
    behind = tokens[place.end] if place.end < len(tokens) else ""
    first = place.start - 1 if before in ARTICLES else place.start
    before_article = tokens[first - 1] if first > 0 else ""
    if material.sample.short:
        after = tokens[place.end + 1] if place.end + 1 < len(tokens) else ""
        if behind and is_word(behind) and material.terms.phrases.is_verb(behind, after):
            behind = ""
        if before.endswith("s") and is_word(before) and material.terms.phrases.is_verb(before, ""):  # "causes fever"
            before = ""
        is_kind = before in ARTICLES and before_article in BE and not is_introduced(sentence, place.start, place.end)
        if is_kind or _begins_a_list(tokens[place.end :]):
            return None
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


def _begins_a_list(behind: list[str]) -> bool:
    """True before ", macrophages, and fibers": any of them could fill the blank."""
    if behind[:1] != [","]:
        return False
    size = 0
    for token in behind[1:]:
        if token in ("and", "or") and size <= _LIST_WORDS:
            return True
        size = 0 if token == "," else size + 1
        if size > _LIST_WORDS or token in _NO_LIST:
            return False
    return False


def _says_initials(words: list[str], tokens: list[str]) -> bool:
    """True where the sentence has the abbreviation of the term, or the term is the abbreviation of words in it."""
    if len(words) > 1:
        initials = "".join(word[0] for word in words if is_word(word))
        return initials in tokens
    word = words[0]
    letters = "".join(token[0] for token in tokens if is_word(token))
    return 2 <= len(word) <= 5 and word in letters and not word.isdigit()
