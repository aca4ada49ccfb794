"""Key terms of a corpus: glossary entries, titles and statistical noun phrases, and where they stand."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from solution.generation.english import (
    ADJECTIVE_ENDS,
    AFTER_ADJECTIVES,
    ARTICLES,
    DETERMINERS,
    FUNCTION_WORDS,
    can_be_asked,
    looks_plural,
    lowered,
    tokens_of,
)
from solution.generation.phrases import Phrases, short_runs
from solution.generation.sample import Sample
from solution.generation.stems import Stems
from solution.sentences import ends_a_sentence

_LONGEST_TERM = 5
_NOUN_VOTES = 3
_LEAST_COUNT = 4
_LEAST_GROUPS = 2
_LEAST_RESIDUAL_IDF = 0.3
_BEFORE_NOUNS = DETERMINERS | frozenset("of between by into from with".split())
_BE_SINGULAR, _BE_PLURAL = frozenset("is was has".split()), frozenset("are were have".split())
_NAME_SHARE = 0.8
_ROOT = 5
_ENOUGH_TERMS = 1500


@dataclass
class Term:
    """A key term in one number: "nucleus" and "nuclei" are two.

    Attributes:
        text: as it stands inside a sentence.
        words: its words and marks in lower case.
        stems: of its words that are no function words.
        defined: it is a glossary entry or a title.
        count: how often it stands in the sample, where no longer term stands.
        groups: in how many titles.
        with_article: the share of its places behind an article.
        with_a: behind "a" or "an".
        roots: see `roots_of`; made from `stems`.
    """

    text: str
    words: list[str]
    stems: frozenset[str]
    defined: bool
    count: int = 0
    groups: int = 0
    is_name: bool = False
    plural: bool = False
    with_article: float = 0.0
    with_a: float = 0.0
    roots: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.roots = roots_of(self.stems)


def roots_of(stems: Iterable[str]) -> frozenset[str]:
    """The beginnings of stems: "north" and "northern" share theirs."""
    return frozenset(stem[:_ROOT] for stem in stems)


@dataclass(frozen=True)
class Place:
    """Where a term stands: its number, a sentence's number, the first token and the token behind the last."""

    term: int
    sentence: int
    start: int
    end: int


@dataclass
class Terms:
    """The key terms of a sample and their places, in the order of the sentences."""

    terms: list[Term]
    places: list[Place]
    number: dict[str, int] = field(default_factory=dict)
    """Words of a term, joined by a space -> its number."""
    phrases: Phrases = field(default_factory=Phrases)
    """What is known of the noun phrases of a short text."""

    def of(self, text: str) -> int | None:
        """The number of a term as written anywhere; None: it is no key term."""
        return self.number.get(" ".join(lowered(text)))


def noun_votes(sample: Sample) -> dict[str, tuple[int, int]]:
    """Runs of one to three content words: how often they stand where nouns do, and where verbs and adjectives do.

    A run votes for a noun behind a determiner or preposition, for a verb behind "to" or "can" or before an article, and
    for an adjective behind "is": https://en.wikipedia.org/wiki/Noun_phrase without a tagger. A phrase needs three times
    as many votes for a noun as against.
    """
    nouns: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for run in short_runs(sample):
        if run.says_no_noun:
            others[run.text] += 1
        elif run.before in _BEFORE_NOUNS and run.behind not in AFTER_ADJECTIVES:
            nouns[run.text] += 1
    return {text: (nouns[text], others[text]) for text in nouns.keys() | others.keys()}


def find_terms(sample: Sample, defined: Iterable[str], phrases: Phrases, stems: Stems) -> Terms:
    """The key terms of a sample: terms that a definition explains, in both numbers, and titles that name things.

    Where these are few, noun phrases are taken too: those that stand most in clusters, as words do that a text is
    about, by their residual inverse document frequency over titles (Church and Gale 1995,
    https://aclanthology.org/W95-0110/). Those of a short text are `Phrases`.

    Args:
        defined: terms that a glossary or a sentence explains.
        phrases: of a short text.
    """
    votes = noun_votes(sample)
    explained = {
        " ".join(words): text
        for text in defined
        if can_be_asked(words := lowered(text)) and len(words) <= _LONGEST_TERM and _may_be_noun(words, votes)
    }
    known = explained.keys() | _named_titles(sample)
    forms = {tuple(stems.all(text.split(" "))) for text in explained}
    nouns = {run for run, (for_, against) in votes.items() if for_ >= _NOUN_VOTES and for_ >= 3 * against}
    known |= {run for run in nouns if tuple(stems.all(run.split(" "))) in forms}  # "nucleus" is explained: "nuclei"
    known |= phrases.named
    candidates = sorted(known | phrases.others.keys())
    if not sample.short and len(known) < _ENOUGH_TERMS:
        candidates = sorted(known | {run for run in nouns if can_be_asked(run.split(" "))})
    terms = [
        Term(explained.get(text, text), words := text.split(" "), frozenset(stems.all(words)), text in known)
        for text in candidates
    ]
    places = _places(sample, {text: number for number, text in enumerate(candidates)})
    _count(sample, terms, places)
    topics = _topics(sample, terms)
    if sample.short:
        least = phrases.others
        topics = [n for n, term in enumerate(terms) if not term.defined and term.count >= least[candidates[n]]]
    there = [n for n, term in enumerate(terms) if term.defined and (term.count or candidates[n] not in phrases.named)]
    fit = sorted([number for number in there if terms[number].stems] + topics)
    new = {old: number for number, old in enumerate(fit)}
    places = [Place(new[p.term], p.sentence, p.start, p.end) for p in places if p.term in new]
    numbers = {candidates[old]: number for old, number in new.items()}
    return Terms([terms[old] for old in fit], places, numbers, phrases)


def _may_be_noun(words: list[str], votes: Mapping[str, tuple[int, int]]) -> bool:
    """False for an adjective or a verb that a glossary explains."""
    for_, against = votes.get(" ".join(words), (0, 0))
    if len(words) == 1 and words[0].endswith(ADJECTIVE_ENDS):
        return for_ >= _NOUN_VOTES and for_ >= 4 * against
    return for_ >= against


def _named_titles(sample: Sample) -> set[str]:
    """Titles, without what stands in parentheses behind them, that the first sentence of their passage names."""
    names = set()
    for number, passage in enumerate(sample.passages):
        name = passage.title.rpartition(" > ")[2].partition(" (")[0]
        words = lowered(name)
        first = sample.sentences_of(number)[:1]
        if 0 < len(words) <= _LONGEST_TERM and first and first[0].place == 0 and can_be_asked(words):
            text = " ".join(words)
            is_name = name[:1].isupper() and (len(words) > 1 and name.split()[-1][:1].isupper())
            if is_name and f" {text} " in f" {' '.join(first[0].tokens)} ":
                names.add(text)
    return names


def _topics(sample: Sample, terms: list[Term]) -> list[int]:
    """The numbers of the undefined terms that stand most in clusters, so many that `_ENOUGH_TERMS` terms are there."""
    ranked = sorted(
        (-_residual_idf(term, sample), number)
        for number, term in enumerate(terms)
        if term.stems and not term.defined and term.count >= _LEAST_COUNT and term.groups >= _LEAST_GROUPS
    )
    wanted = max(0, _ENOUGH_TERMS - sum(term.defined for term in terms))
    return [number for score, number in ranked[:wanted] if score <= -_LEAST_RESIDUAL_IDF]


def _places(sample: Sample, number: Mapping[str, int]) -> list[Place]:
    """Where the terms stand; of terms that overlap the longest of those that begin first."""
    lengths: dict[str, set[int]] = defaultdict(set)
    for text in number:
        words = text.split(" ")
        lengths[words[0]].add(len(words))
    longest_first = {word: sorted(sizes, reverse=True) for word, sizes in lengths.items()}
    places = []
    for row, sentence in enumerate(sample.sentences):
        tokens = sentence.tokens
        place = 0
        while place < len(tokens):
            for size in longest_first.get(tokens[place], ()):
                term = number.get(" ".join(tokens[place : place + size])) if size > 1 else number.get(tokens[place])
                if term is not None and place + size <= len(tokens):
                    places.append(Place(term, row, place, place + size))
                    place += size - 1
                    break
            place += 1
    return places


def _count(sample: Sample, terms: list[Term], places: list[Place]) -> None:
    """Fill in what the terms' places tell: counts, the usual spelling, name or not, number, article."""
    groups: dict[int, set[int]] = defaultdict(set)
    spellings: dict[int, Counter[str]] = defaultdict(Counter)
    at_start: dict[int, Counter[str]] = defaultdict(Counter)
    case = _Case(sample) if sample.short else None
    articles: Counter[int] = Counter()
    indefinite: Counter[int] = Counter()
    verbs: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    written: list[str] = []
    row = -1
    for place in places:
        sentence = sample.sentences[place.sentence]
        if place.sentence != row:
            row, written = place.sentence, tokens_of(sentence.text)
        term, number = terms[place.term], place.term
        if sample.short and not ends_a_sentence(sentence.text):  # a heading
            continue
        term.count += 1
        groups[number].add(sample.group[sentence.passage])
        tokens = sentence.tokens
        before = tokens[place.start - 1] if place.start else ""
        articles[number] += before in ARTICLES
        indefinite[number] += before in ("a", "an")
        behind = tokens[place.end] if place.end < len(tokens) else ""
        verbs[number][0] += behind in _BE_SINGULAR
        verbs[number][1] += behind in _BE_PLURAL
        if len(written) != len(tokens):
            continue
        if place.start > 0:
            spellings[number][" ".join(written[place.start : place.end])] += 1
        elif case is not None:
            at_start[number][case.inside(written[: place.end])] += 1
    for number, term in enumerate(terms):
        term.groups = len(groups[number])
        term.with_article = articles[number] / max(1, term.count)
        term.with_a = indefinite[number] / max(1, term.count)
        _spell(term, spellings[number] or at_start[number])
        singular, plural = verbs[number]
        if looks_plural(term.words[-1]):  # not "lens is"
            term.plural = singular <= plural + 1
        else:  # "people are", but not "an array of antennas are"
            term.plural = plural > 2 * singular + 2 and not indefinite[number]


class _Case:
    """Whether the first word of a sentence has its capital as a name: as it is written inside of other sentences.

    A word that stands nowhere else is taken for a name where most other first words of the text are names.
    """

    def __init__(self, sample: Sample) -> None:
        self._inside: Counter[str] = Counter()
        first = []
        for sentence in sample.sentences:
            written = tokens_of(sentence.text)
            self._inside.update(written[1:])
            if sentence.alone and sentence.tokens[0] not in FUNCTION_WORDS:
                first.append(written[0])
        known = [self._inside[word] > self._inside[word.lower()] for word in first if self._known(word)]
        self._mostly_names = 2 * sum(known) > len(known)

    def _known(self, word: str) -> int:
        return self._inside[word] + self._inside[word.lower()]

    def inside(self, written: Sequence[str]) -> str:
        """The words at the beginning of a sentence as they would stand inside of one."""
        first = written[0]
        if len(written) > 1 and written[1][:1].isupper():  # "John Dalton"
            return " ".join(written)
        is_name = self._inside[first] > self._inside[first.lower()] if self._known(first) else self._mostly_names
        return " ".join([first if is_name or not first[1:].islower() else first.lower(), *written[1:]])


def _spell(term: Term, seen: Counter[str]) -> None:
    """Set the term's spelling inside a sentence, and whether it is a name; unseen it is as its definition has it.

    Args:
        seen: its spellings inside sentences.
    """
    names = Counter({text: count for text, count in seen.items() if _is_name(text)})
    term.is_name = names.total() >= _NAME_SHARE * seen.total() if seen else _is_name(term.text)
    fit = names if term.is_name else seen - names
    if fit:
        term.text = _joined(min(fit, key=lambda text: (-fit[text], text)))


def _is_name(text: str) -> bool:
    """True with a capital in front; "T cell" is no name."""
    return text[:1].isupper() and text[1:2] not in ("", " ")


def _joined(text: str) -> str:
    """Words and marks without the space in front of a hyphen or apostrophe and behind it."""
    return text.replace(" - ", "-").replace(" ' ", "'")


def _residual_idf(term: Term, sample: Sample) -> float:
    """Bits of inverse document frequency beyond those of a word that falls on titles at random."""
    n = max(sample.group, default=0) + 1
    return -math.log2(term.groups / n) + math.log2(1 - math.exp(-term.count / n))
