"""The passages that questions are made from: drawn from the corpus in bounded memory, and parted into sentences."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from solution.generation.english import (
    FUNCTION_WORDS,
    WORDS_OF_SENTENCE,
    ends_with_abbreviation,
    glossary_lines,
    lowered,
    stands_alone,
    without_bullet,
    without_references,
)
from solution.generation.stems import Stems
from solution.retrieval.corpus import Document
from solution.sentences import ends_a_sentence, sentences

SAMPLE_CHARACTERS = 24_000_000
_PIECE = 4_000
"""Characters of a piece of a longer document; its pieces are drawn by themselves."""


_UNTITLED_GROUP = 10
"""Passages without a title that follow each other are taken for a chapter."""
_FEW_TITLES = 100
"""With fewer titles (one book, a folder of chapters) a title says little of what a passage is about."""
_GROUP = 5_000
"""Characters of a part of a text with few titles that is taken for a chapter."""
SHORT_TEXT = 1_000_000
"""Characters; a shorter corpus, up to some 300 pages, is read as a short text."""
_LIST_SHARE = 0.4
"""Of the long lines of a text: with so many that no mark ends, it is a list."""
_PARAGRAPH = 1_000
"""Characters of a passage of a short text: on a whole page stand most terms that could be wrong options."""


@dataclass(frozen=True)
class Sentence:
    """A sentence of the sample.

    Attributes:
        passage: the position of its passage in the sample.
        place: its position in the passage.
        tokens: words and marks in lower case.
        stems: of its words that are no function words.
        alone: can be understood without the text around it, and stands only once in the sample.
    """

    passage: int
    place: int
    text: str
    tokens: list[str]
    stems: frozenset[str]
    alone: bool


@dataclass
class Sample:
    """A part of the corpus.

    Attributes:
        passages: n documents or pieces of documents, in the corpus's order.
        group: n numbers, equal for passages of the same title (an article, a chapter), whatever their section;
            without titles, for ten that follow each other; with few titles, for some 5,000 characters of a title.
        sentences: in the order of the passages.
        starts: n + 1, the number of each passage's first sentence.
        whole: every passage of the corpus is in the sample.
        short: the corpus is a short text; see `SHORT_TEXT`.
    """

    passages: list[Document]
    group: list[int]
    sentences: list[Sentence] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    whole: bool = True
    short: bool = False

    def sentences_of(self, passage: int) -> list[Sentence]:
        """The sentences of a passage, by its position."""
        return self.sentences[self.starts[passage] : self.starts[passage + 1]]


def draw_sample(documents: Iterable[Document], stems: Stems, seed: int, characters: int = SAMPLE_CHARACTERS) -> Sample:
    """Passages of at most so many characters in all, drawn at random, and their sentences.

    The passages with the smallest hashes of seed and id stay, so that the draw does not depend on the corpus's order.
    """
    heap: list[tuple[int, int, Document]] = []  # the largest hash at the top
    size, whole = 0, True
    pieces = (entry for document in documents for entry in enumerate(_pieces(document)))
    for order, (place, piece) in enumerate(pieces):
        rank = hashlib.blake2b(f"{seed}\n{place}\n{piece.id}".encode(), digest_size=8).digest()
        entry = (-int.from_bytes(rank), order, piece)
        heapq.heappush(heap, entry)
        size += len(piece.text)
        while size > characters and len(heap) > 1:
            size -= len(heapq.heappop(heap)[2].text)
            whole = False
    passages = [piece for _, _, piece in sorted(heap, key=lambda entry: entry[1])]
    short = whole and size < SHORT_TEXT
    if short:
        passages = [part for passage in passages for part in paragraphs_of(passage)]
    return _parted(Sample(passages, _groups(passages), whole=whole, short=short), stems)


def _groups(passages: Sequence[Document]) -> list[int]:
    """See `Sample.group`."""
    titles = [passage.title.partition(" > ")[0] for passage in passages]
    names: list[tuple[str, int]] = [
        (title, 0) if title else ("", place // _UNTITLED_GROUP) for place, title in enumerate(titles)
    ]
    if len(set(names)) < _FEW_TITLES:
        read: Counter[str] = Counter()
        names = []
        for passage, title in zip(passages, titles, strict=True):
            names.append((title, read[title] // _GROUP))
            read[title] += len(passage.text)
    numbers: dict[tuple[str, int], int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]


def _pieces(document: Document) -> Iterator[Document]:
    """The entries of a document that is a glossary; the rest of it, or pieces of that which end with a sentence."""
    entries, rest = glossary_lines(document.text)
    for entry in entries:
        yield Document(document.id, document.title, entry)
    if rest:
        yield from _cut(Document(document.id, document.title, rest), _PIECE)


def paragraphs_of(document: Document) -> Iterator[Document]:
    """The pieces in which a short text is read: some sentences each."""
    return _cut(document, _PARAGRAPH)


def _cut(document: Document, size: int) -> Iterator[Document]:
    """Pieces of a document of at most so many characters where sentences are no longer; they keep its id and title."""
    if len(document.text) <= size:
        yield document
        return
    part = ""
    for sentence in sentences(document.text):
        if part and len(part) + len(sentence) > size:
            yield Document(document.id, document.title, part)
            part = ""
        # A heading, which ends without a mark, stays parted from the sentence behind it.
        between = "" if not part else " " if ends_a_sentence(part) else "\n"
        part += between + sentence
    if part:
        yield Document(document.id, document.title, part)


def _parted(sample: Sample, stems: Stems) -> Sample:
    """The sample with its sentences."""
    texts: list[tuple[int, int, str, bool]] = []
    count: Counter[str] = Counter()
    lists = _lists(sample) if sample.short else frozenset()
    for number, passage in enumerate(sample.passages):
        sample.starts.append(len(texts))
        before_is_whole = True
        in_list = passage.title.partition(" > ")[0] in lists
        for place, written in enumerate(sentences(passage.text)):
            text = without_bullet(without_references(written))
            if in_list and _is_long(text) and not _is_cut(text):
                text = text if ends_a_sentence(text) else f"{text}."
            count[text] += 1
            texts.append((number, place, text, before_is_whole))
            is_cut = sample.short and _is_long(text) and not ends_a_sentence(text)
            before_is_whole = not ends_with_abbreviation(text) and not is_cut
    sample.starts.append(len(texts))
    for number, place, text, is_begun in texts:
        tokens = lowered(text)
        alone = is_begun and count[text] == 1 and stands_alone(text, tokens, sample.short)
        sample.sentences.append(Sentence(number, place, text, tokens, frozenset(stems.all(tokens)), alone))
    return sample


def _lists(sample: Sample) -> frozenset[str]:
    """Titles of texts, as a lecture's slides, of which many lines that are long enough have no mark at their end."""
    lines: Counter[str] = Counter()
    without_mark: Counter[str] = Counter()
    for passage in sample.passages:
        title = passage.title.partition(" > ")[0]
        for line in filter(_is_long, passage.text.split("\n")):
            lines[title] += 1
            without_mark[title] += not ends_a_sentence(line)
    return frozenset(title for title, count in without_mark.items() if count >= _LIST_SHARE * lines[title])


def _is_cut(line: str) -> bool:
    """True for a line that must go on: behind "of", "the" and the like."""
    return not ends_a_sentence(line) and lowered(line)[-1] in FUNCTION_WORDS


def _is_long(line: str) -> bool:
    return len(line.split()) >= WORDS_OF_SENTENCE.start
