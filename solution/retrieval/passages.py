"""Passages: documents cut into overlapping windows of tokens, at sentence ends where there are any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from solution.exam import begins_with, passage_text
from solution.retrieval.corpus import Document
from solution.sentences import sentence_ends
from solution.words import in_word

_DOCUMENTS_AT_ONCE = 256
_LONGEST = 1 << 18  # characters tokenised together; a longer document is cut into such pieces first
_MIN_TOKENS = 8
_MIN_BUDGET = 4


@dataclass(frozen=True)
class Passage:
    """The text that is embedded and found; `title` may be empty."""

    id: str
    title: str
    text: str


def token_offsets(tokenizer: Any, texts: list[str]) -> list[list[tuple[int, int]]]:
    """The character span of every token of every text, without special tokens."""
    if not texts:
        return []
    return tokenizer(
        texts,
        add_special_tokens=False,
        truncation=False,
        padding=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["offset_mapping"]


def split_passages(documents: Iterable[Document], tokenizer: Any, tokens: int, overlap: int) -> Iterator[Passage]:
    """Cut documents into passages of at most `tokens` tokens, the title in front included.

    A document that fits is one passage with the document's id; others become "id#0", "id#1", ...
    Neighbours share `overlap` tokens (a few more where that begins with a whole word, fewer where
    long titles leave little room). A window ends at the last sentence end in its second half, else
    at a word's end. Texts are cut from the original characters, so numbers, case and spacing stay;
    only white space at the cuts is dropped. A title may take at most half of a passage and is cut
    beyond that. Documents of more than 262,144 characters are first cut into pieces of so many, at a
    sentence end, which share nothing. Memory is that of one such piece.

    Args:
        tokenizer: a fast tokenizer (one that knows the offsets of its tokens).

    Raises:
        ValueError: `tokens` is below 8, or `overlap` is not below `tokens`.
    """
    if tokens < _MIN_TOKENS or not 0 <= overlap < tokens:
        raise ValueError(f"cannot cut passages of {tokens} tokens with an overlap of {overlap}")
    for batch in _batches(documents):
        if len(batch[0].text) > _LONGEST:  # alone in its batch
            yield from _long_document(batch[0], tokenizer, tokens, overlap)
            continue
        whole = token_offsets(tokenizer, [passage_text(document) for document in batch])
        long = [document for document, offsets in zip(batch, whole, strict=True) if len(offsets) > tokens]
        cut = iter(_cut_documents(long, tokenizer, tokens, overlap))
        for document, offsets in zip(batch, whole, strict=True):
            if len(offsets) <= tokens:
                yield Passage(document.id, document.title, document.text)
            else:
                title, texts = next(cut)
                for k, text in enumerate(texts):
                    yield Passage(f"{document.id}#{k}" if len(texts) > 1 else document.id, title, text)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents tokenised together: so many that memory stays small; a very long one is alone."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        length = len(document.text)
        if batch and (len(batch) == _DOCUMENTS_AT_ONCE or size + length > _LONGEST):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += length
    if batch:
        yield batch


def _long_document(document: Document, tokenizer: Any, tokens: int, overlap: int) -> Iterator[Passage]:
    """The passages of a document that is cut piece by piece; the pieces do not overlap."""
    number = begin = 0
    while begin < len(document.text):
        piece = document.text[begin : begin + _LONGEST]
        if begin + _LONGEST < len(document.text):
            # A tenth of it is searched for the last sentence end.
            tail = len(piece) - _LONGEST // 10
            ends = [tail + end for end in sentence_ends(piece[tail:])]
            piece = piece[: max(ends, default=piece.rfind(" ") + 1 or len(piece))]
        begin += len(piece)
        if piece.strip():
            part = Document(document.id, document.title, piece.strip())
            for title, texts in _cut_documents([part], tokenizer, tokens, overlap):
                for text in texts:
                    yield Passage(f"{document.id}#{number}", title, text)
                    number += 1


def _cut_documents(
    documents: list[Document], tokenizer: Any, tokens: int, overlap: int
) -> Iterator[tuple[str, list[str]]]:
    """For each document its (perhaps shortened) title and the texts of its passages."""
    heads = token_offsets(tokenizer, [f"{document.title}." if document.title else "" for document in documents])
    bodies = token_offsets(tokenizer, [document.text for document in documents])
    for document, head, body in zip(documents, heads, bodies, strict=True):
        title = document.title
        if len(head) > tokens // 2:
            head = head[: tokens // 2]
            title = title[: head[-1][1]].rstrip()  # the full stop may now be one token more: seen by the check below
        budget = tokens - len(head)
        opens = bool(title) and begins_with(document.text, title)
        while True:
            texts = _windows(document.text, body, tokens if opens else budget, budget, overlap)
            # A tokenizer may see more tokens in a cut text than the uncut one had there.
            lengths = [
                len(offsets)
                for offsets in token_offsets(tokenizer, [passage_text(Passage("", title, text)) for text in texts])
            ]
            excess = max(lengths) - tokens
            if excess <= 0 or budget <= _MIN_BUDGET:
                break
            budget, opens = max(_MIN_BUDGET, budget - excess), False
        yield title, texts


def _windows(text: str, offsets: list[tuple[int, int]], first: int, budget: int, overlap: int) -> list[str]:
    """The texts of windows of at most `first` (the first one), then `budget` tokens."""
    begins = np.array([begin for begin, _ in offsets], dtype=np.int64)
    ends = np.array([end for _, end in offsets], dtype=np.int64)
    n = len(begins)
    # White space lies before the token, or is part of it (SentencePiece's offsets).
    word_start = np.array([b == 0 or text[b].isspace() or not in_word(text[b - 1]) for b in begins.tolist()])
    sentence_start = np.zeros(n + 1, dtype=bool)
    for end in sentence_ends(text):
        sentence_start[np.searchsorted(ends, end, side="right")] = True
    shared = min(overlap, budget - max(1, budget // 8))
    texts: list[str] = []
    covered = 0  # how far the passages reach

    def add(begin: int, stop: int) -> None:
        nonlocal covered
        piece = text[begin:stop].rstrip()
        if piece and begin + len(piece) > covered:  # a window may bring nothing but white space
            covered = begin + len(piece)
            texts.append(piece.lstrip())

    start = end = 0
    while True:
        size = first if start == 0 else budget
        limit = start + size
        if limit >= n:
            add(begins[start] if start else 0, len(text))
            break
        lowest = max(start + max(size // 2, shared), end) + 1
        end = _last(sentence_start, lowest, limit) or _last(word_start, lowest, limit) or limit
        add(begins[start] if start else 0, begins[end])
        back = _last(word_start, max(start + 1, end - shared - budget // 16), end - shared)
        start = back or end - shared
    return texts


def _last(marks: np.ndarray, low: int, high: int) -> int:
    """The last marked place from `low` to `high`, both included; 0 when there is none."""
    places = np.flatnonzero(marks[low : high + 1])
    return int(places[-1]) + low if len(places) else 0
