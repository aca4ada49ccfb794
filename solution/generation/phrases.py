"""Key terms of a short text: noun phrases that may be asked for where a text is too small for statistics of clusters.

In a chapter most terms stand only a few times, so a phrase must look like a noun phrase by its words and by what stands
around it, and say something: no "large amount", no "other part".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from solution.generation.english import (
    ADJECTIVE_ENDS,
    AFTER_ADJECTIVES,
    AFTER_VERBS,
    ARTICLES,
    AUXILIARIES,
    BE,
    BEFORE_ADJECTIVES,
    BEFORE_VERBS,
    DETERMINERS,
    FUNCTION_WORDS,
    GENERAL_ADJECTIVES,
    GENERAL_NOUNS,
    POINTERS,
    PREPOSITIONS,
    can_be_asked,
    is_word,
    looks_plural,
    tokens_of,
)
from solution.generation.sample import Sample, Sentence
from solution.sentences import ends_a_sentence

LONGEST_RUN = 3
_LONGEST_NAME = 5
_NAME_SHARE = 0.8
_NAMING = re.compile(r"^(?:called|termed|named|known as|referred to as|defined as)$")
_NOUN_ENDS = (
    "tion",
    "sion",
    "ment",
    "ness",
    "ity",
    "ism",
    "ist",
    "logy",
    "sis",
    "itis",
    "ium",
    "ure",
    "ance",
    "ence",
    "gen",
    "ase",
    "ide",
    "oma",
    "graph",
    "scope",
    "meter",
)
_BEFORE_NOUNS = DETERMINERS | PREPOSITIONS - frozenset("to like than since until up down off out".split())
_IRREGULAR = frozenset(
    "ate became began begun born bought broke broken brought built came caught chose chosen cut drawn drew driven "
    "drove eaten fallen fed fell felt flew flown fought found froze frozen gave given gone got grew grown held hid "
    "hidden hit kept knew known laid lain lay led left lit lost made met paid put ran read risen rose said saw seen "
    "sent set showed shown sold spent spoke spoken stood taken thought threw thrown told took tore torn went woke "
    "won wore worn written wrote".split()
)
"""Pasts and participles of verbs, which end no noun phrase."""
_VERBS = frozenset(
    "include includes contain contains allow allows require requires occur occurs produce produces become becomes "
    "provide provides consist consists remain appear appears involve involves enable enables prevent prevents "
    "differ".split()
)
"""Verbs that no noun phrase has."""
_POSSESSIVE = ("'s", "’s")
_VERB_ENDS = ("ed", "ing", "ify", "ize", "ise")


def runs(tokens: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and end of each longest run of words that are no function words."""
    start = None
    for place, token in enumerate(tokens):
        if is_word(token) and token not in FUNCTION_WORDS:
            start = place if start is None else start
        elif start is not None:
            yield start, place
            start = None
    if start is not None:
        yield start, len(tokens)


@dataclass(frozen=True)
class ShortRun:
    """A run of one to three content words where it stands.

    Attributes:
        words: at least one; lower case.
        before, behind: the words beside it in the sentence; empty at its ends.
    """

    words: list[str]
    before: str
    behind: str

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def says_no_noun(self) -> bool:
        """Whether verbs or adjectives stand in such a place."""
        return self.before in BEFORE_VERBS or self.before in BEFORE_ADJECTIVES or self.behind in AFTER_VERBS


def short_runs(sample: Sample) -> Iterator[ShortRun]:
    """The runs of at most `LONGEST_RUN` words of a sample's sentences, in their order."""
    for sentence in sample.sentences:
        tokens = sentence.tokens
        for start, end in runs(tokens):
            if end - start <= LONGEST_RUN:
                before, behind = tokens[start - 1] if start else "", tokens[end] if end < len(tokens) else ""
                yield ShortRun(list(tokens[start:end]), before, behind)


@dataclass(frozen=True)
class Phrases:
    """Noun phrases of a short text, as lower-case words joined by a space.

    Attributes:
        named: those that the text explains or introduces by name ("called the apex").
        others: phrase -> how often it must stand in the text to be a key term.
        nouns: words that stand at the end of noun phrases.
        unique: nouns that stand behind "the" and nearly never behind "a" or in plural: "the heart", but not "the
            toxin", of which the sentences before say which one is meant.
    """

    named: frozenset[str] = frozenset()
    others: Mapping[str, int] = field(default_factory=dict)
    nouns: frozenset[str] = frozenset()
    unique: frozenset[str] = frozenset()

    @classmethod
    def of(cls, sample: Sample) -> Phrases:
        """The phrases of a sample."""
        votes = _votes(sample)
        heads: Counter[str] = Counter()
        for run, (for_, against) in votes.items():
            heads[run.split(" ")[-1]] += for_ - against
        nouns = {word for word, count in heads.items() if count > 0}
        single = {run for run, (for_, against) in votes.items() if for_ > against and " " not in run}
        others: dict[str, int] = {}
        for run, (for_, against) in votes.items():
            words = run.split(" ")
            if for_ >= max(1, 3 * against) and _is_noun_phrase(words, nouns, single):
                is_noun = heads[words[-1]] >= 2 or words[-1].endswith(_NOUN_ENDS)
                others[run] = 1 + (not is_noun) if len(words) > 1 else 2 + (not is_noun)
        named = {
            " ".join(words)
            for words in _named(sample)
            if _is_noun_phrase(words, nouns | {words[-1]}, single | {words[-1]})
        }
        return cls(frozenset(named), {**others, **_names(sample)}, frozenset(nouns), _unique(sample))

    def is_verb(self, word: str, behind: str) -> bool:
        """True for a word that can only be a verb in front of this word: "leads to", "carried the"."""
        is_end = not behind or not is_word(behind) or behind in FUNCTION_WORDS
        return (
            is_end
            and word.endswith(("s", "ed"))
            and word not in self.nouns
            and word.removesuffix("s") not in self.nouns
        )

    def is_vague(self, sentence: Sentence) -> bool:
        """True where the subject is "The toxin" or the like, and the sentences before say which one is meant."""
        tokens = sentence.tokens
        if tokens[0] != "the" or len(tokens) < 3 or tokens[1] in FUNCTION_WORDS or tokens[1] in self.unique:
            return False
        return tokens[2] in AUXILIARIES or tokens[2] == "," or self.is_verb(tokens[2], tokens[3] if tokens[3:] else "")


def _unique(sample: Sample) -> frozenset[str]:
    """See `Phrases.unique`."""
    definite: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for sentence in sample.sentences:
        tokens = sentence.tokens
        for start, end in runs(tokens):
            before, last = tokens[start - 1] if start else "", tokens[end - 1]
            if end == start + 1 and before == "the":
                definite[last] += 1
            elif before in ("a", "an", "each", "every", "this", "another") or looks_plural(last):
                others[last] += 1
    return frozenset(word for word, count in definite.items() if 4 * (others[word] + others[f"{word}s"]) <= count)


def _votes(sample: Sample) -> dict[str, tuple[int, int]]:
    """How often runs of one to three words stand where nouns do, and where verbs and adjectives do.

    As `noun_votes`, but a short text needs every sign: all prepositions, and a sentence's subject without an article.
    """
    nouns: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for run in short_runs(sample):
        if run.says_no_noun:
            others[run.text] += 1
        elif not run.before:
            nouns[run.text] += run.behind in AUXILIARIES
        elif run.before in _BEFORE_NOUNS and (len(run.words) > 1 or run.behind not in AFTER_ADJECTIVES):
            # "By isolating bacteria": a verb with its object.
            is_verb = run.words[0].endswith("ing") and run.before not in DETERMINERS
            (others if is_verb else nouns)[run.text] += 1
    return {text: (nouns[text], others[text]) for text in nouns.keys() | others.keys()}


def _is_noun_phrase(words: Sequence[str], nouns: set[str], single: set[str]) -> bool:
    """False for what is no noun phrase by its words, and for phrases that say too little."""
    *front, last = words
    if any(word.endswith(_POSSESSIVE) or word in POINTERS or word in _VERBS for word in words):
        return False
    if not can_be_asked(list(words)) or last in GENERAL_NOUNS or last.removesuffix("s") in GENERAL_NOUNS:
        return False
    if last in GENERAL_ADJECTIVES or last in _IRREGULAR or last.endswith(ADJECTIVE_ENDS) and last not in single:
        return False
    if any(word.endswith("ly") for word in words):
        return False
    if not front:
        return not last.endswith(_VERB_ENDS)
    # "areas supplied", "ventricles contract", "ventricle contracts": a noun with its verb.
    if last.endswith(_VERB_ENDS) or last not in nouns or any(_is_plural(word) for word in front):
        return False
    if any(word.endswith("ing") for word in front[1:]):
        return False
    if looks_plural(last) and nouns.isdisjoint(_singulars(last)) and last not in single:
        return False
    return GENERAL_ADJECTIVES.isdisjoint(front)


def _singulars(word: str) -> list[str]:
    return [word[:-1], word[:-2], f"{word[:-3]}y"]


def _is_plural(word: str) -> bool:
    return len(word) > 4 and looks_plural(word)


def _named(sample: Sample) -> Iterator[list[str]]:
    """The words of the phrases that a text introduces by name, or that are a heading of it."""
    for sentence in sample.sentences:
        is_heading = len(sentence.tokens) <= LONGEST_RUN and not ends_a_sentence(sentence.text)
        if is_heading and FUNCTION_WORDS.isdisjoint(sentence.tokens):
            yield sentence.tokens
        for start, end in runs(sentence.tokens):
            if end - start <= LONGEST_RUN and is_introduced(sentence, start, end):
                yield sentence.tokens[start:end]


def is_introduced(sentence: Sentence, start: int, end: int) -> bool:
    """True where a sentence says by this name what something is: "called the X", or "The X is a ..."."""
    tokens = sentence.tokens
    first = start - 1 if start and tokens[start - 1] in ARTICLES else start
    before = tokens[max(0, first - 3) : first]
    if any(_NAMING.match(" ".join(before[at:])) for at in range(len(before))):
        return True
    behind = tokens[end : end + 2]
    is_explained = len(behind) == 2 and behind[0] in BE and behind[1] in ARTICLES
    return first == 0 and sentence.alone and is_explained


# --- names ---------------------------------------------------------------------------------


def _names(sample: Sample) -> dict[str, int]:
    """Words that are written with capitals inside sentences, in lower case -> how often a name must stand there."""
    counts: Counter[str] = Counter()
    capitals: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    names: set[str] = set()
    for sentence in sample.sentences:
        written = tokens_of(sentence.text)
        if len(written) != len(sentence.tokens) or not ends_a_sentence(sentence.text):  # a heading has capitals too
            continue
        counts.update(sentence.tokens[1:])
        capitals.update(word.lower() for word in written[1:] if word[:1].isupper())
        alone.update(sentence.tokens[start] for start, end in runs(sentence.tokens) if start and end == start + 1)
        names.update(_names_in(sentence, written))
    found = {}
    for name in sorted(names):
        words = name.split(" ")
        plain = {word for word in words if word not in FUNCTION_WORDS}
        if not can_be_asked(words) or plain <= GENERAL_NOUNS | GENERAL_ADJECTIVES:
            continue
        if len(words) > 1:
            found[name] = 1
        elif capitals[name] >= _NAME_SHARE * counts[name] and 2 * alone[name] >= counts[name]:  # not "Greek gods"
            found[name] = 2
    return found


def _names_in(sentence: Sentence, written: Sequence[str]) -> Iterator[str]:
    """The names inside a sentence, in lower case: words with capitals, and "of" or "of the" between them."""
    start = 1
    while start < len(written):
        end = _end_of_capitals(written, start)
        if end == start:
            start += 1
            continue
        for link in (["of"], ["of", "the"]):
            behind = end + len(link)
            if list(written[end:behind]) == link and _end_of_capitals(written, behind) > behind:
                end = _end_of_capitals(written, behind)
                break
        if end - start <= _LONGEST_NAME:
            yield " ".join(sentence.tokens[start:end])
        start = end + 1


def _end_of_capitals(written: Sequence[str], start: int) -> int:
    """The place behind the words with capitals that begin at `start`."""
    end = start
    while end < len(written) and _is_capital(written[end]):
        end += 1
    return end


def _is_capital(word: str) -> bool:
    is_plain = len(word) > 2 and not word.isupper() and not word.endswith(_POSSESSIVE)
    return is_plain and word[0].isupper() and word.lower() not in FUNCTION_WORDS
