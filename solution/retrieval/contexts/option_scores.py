"""Option scores: how near each question with an option put behind it comes to a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from solution.config import RetrievalConfig
from solution.exam import ContextPassage
from solution.questions import Questions
from solution.retrieval.embedding import Embedder
from solution.sentences import sentence_spans


def option_table(questions: Questions, values: np.ndarray) -> np.ndarray:
    """One value for each existing option, question after question -> float32 [n, max_options], NaN elsewhere."""
    exists = questions.exists()
    table = np.full(exists.shape, np.nan, dtype=np.float32)
    table[exists] = values
    return table


def sentence_scores(
    questions: Questions,
    passages: Sequence[Sequence[ContextPassage]],
    vectors: np.ndarray,
    config: RetrievalConfig,
    embedder: Embedder,
) -> np.ndarray:
    """The best cosine of question + option (`vectors`) to any sentence, title in front; 0 where there is none."""
    read = [question[: config.sentence_passages] for question in passages]
    best = [cosines.max(axis=1) for _, cosines in _cosines(questions, read, vectors, config, embedder)]
    return option_table(questions, np.concatenate([np.zeros(0, dtype=np.float32), *best]))


class NearSentence(NamedTuple):
    """The sentence that is nearest to a question with an option: `passages[passage].text[begin:end]`."""

    passage: int
    begin: int
    end: int
    cosine: float


def nearest_sentences(
    questions: Questions,
    passages: Sequence[Sequence[ContextPassage]],
    vectors: np.ndarray,
    config: RetrievalConfig,
    embedder: Embedder,
) -> list[list[NearSentence]]:
    """For each question the nearest sentence of all its passages to each option that exists; none without passages.

    Args:
        vectors: see `sentence_scores`.
    """
    nearest = []
    for spans, cosines in _cosines(questions, passages, vectors, config, embedder):
        best = cosines.argmax(axis=1) if spans else []
        cut = [(*spans[sentence], float(cosines[option, sentence])) for option, sentence in enumerate(best)]
        nearest.append([NearSentence(*place) for place in cut])
    return nearest


def _cosines(
    questions: Questions,
    passages: Sequence[Sequence[ContextPassage]],
    vectors: np.ndarray,
    config: RetrievalConfig,
    embedder: Embedder,
) -> Iterator[tuple[list[tuple[int, int, int]], np.ndarray]]:
    """Of each question the places of its sentences (passage, begin, end) and the cosines of question + option to these.

    The cosines are float32 [options, sentences]; of a question without sentences [options, 1], all 0.
    """
    places = [
        [(number, *span) for number, passage in enumerate(question) for span in sentence_spans(passage.text)]
        for question in passages
    ]
    texts = [
        [_titled(question[number], begin, end) for number, begin, end in spans]
        for question, spans in zip(passages, places, strict=True)
    ]
    # All sentences [s, d] are embedded together; those of a question end where `ends` says.
    flat = embedder.encode([text for row in texts for text in row], config.batch_size, "embedding the sentences")
    ends = np.cumsum([len(row) for row in texts])
    counts = questions.exists().sum(axis=1)
    begin = 0
    for end, spans, count in zip(ends, places, counts, strict=True):
        cosines = vectors[begin : begin + count] @ flat[end - len(spans) : end].T  # [options, sentences]
        yield spans, cosines if spans else np.zeros((count, 1), dtype=np.float32)
        begin += count


def _titled(passage: ContextPassage, begin: int, end: int) -> str:
    sentence = passage.text[begin:end]
    return f"{passage.title}: {sentence}" if passage.title else sentence
