"""The passages that questions are made from: drawn from the corpus in bounded memory, and parted into sentences."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from solution.generation.english import ends_with_abbreviation, glossary_lines, lowered, stands_alone
from solution.generation.stems import Stems
from solution.retrieval.corpus import Document
from solution.sentences import sentences

SAMPLE_CHARACTERS = 24_000_000
_PIECE = 4_000
"""Characters of a piece of a longer document; its pieces are drawn by themselves."""


_UNTITLED_GROUP = 10
"""Passages without a title that follow each other are taken for a chapter."""


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
            without titles, for ten that follow each other.
        sentences: in the order of the passages.
        starts: n + 1, the number of each passage's first sentence.
        whole: every passage of the corpus is in the sample.
    """

    passages: list[Document]
    group: list[int]
    sentences: list[Sentence] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    whole: bool = True

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
    numbers: dict[str, int] = {}
    names = [piece.title.partition(" > ")[0] or f"\0{place // _UNTITLED_GROUP}" for place, piece in enumerate(passages)]
    group = [numbers.setdefault(name, len(numbers)) for name in names]
    return _parted(Sample(passages, group, whole=whole), stems)


def _pieces(document: Document) -> Iterator[Document]:
    """The entries of a document that is a glossary; the rest of it, or pieces of that which end with a sentence."""
    entries, rest = glossary_lines(document.text)
    for entry in entries:
        yield Document(document.id, document.title, entry)
    if not rest:
        return
    if len(rest) <= _PIECE:
        yield Document(document.id, document.title, rest)
        return
    part: list[str] = []
    size = 0
    for sentence in sentences(rest):
        if part and size + len(sentence) > _PIECE:
            yield Document(document.id, document.title, " ".join(part))
            part, size = [], 0
        part.append(sentence)
        size += len(sentence) + 1
    if part:
        yield Document(document.id, document.title, " ".join(part))


def _parted(sample: Sample, stems: Stems) -> Sample:
    """The sample with its sentences."""
    texts: list[tuple[int, int, str, bool]] = []
    count: Counter[str] = Counter()
    for number, passage in enumerate(sample.passages):
        sample.starts.append(len(texts))
        before_is_whole = True
        for place, text in enumerate(sentences(passage.text)):
            count[text] += 1
            texts.append((number, place, text, before_is_whole))
            before_is_whole = not ends_with_abbreviation(text)
    sample.starts.append(len(texts))
    for number, place, text, is_begun in texts:
        tokens = lowered(text)
        alone = is_begun and count[text] == 1 and stands_alone(text, tokens)
        sample.sentences.append(Sentence(number, place, text, tokens, frozenset(stems.all(tokens)), alone))
    return sample
