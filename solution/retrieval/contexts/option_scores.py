"""Option scores: how near each question with an option put behind it comes to a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from solution.config import RetrievalConfig
from solution.exam import ContextPassage
from solution.questions import Questions
from solution.retrieval.embedding import Embedder
from solution.sentences import sentences


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
    texts = [
        [
            f"{passage.title}: {sentence}" if passage.title else sentence
            for passage in question[: config.sentence_passages]
            for sentence in sentences(passage.text)
        ]
        for question in passages
    ]
    # All sentences [s, d] are embedded together; those of a question end where `ends` says.
    flat = embedder.encode([text for row in texts for text in row], config.batch_size, "embedding the sentences")
    ends = np.cumsum([len(row) for row in texts])
    counts = questions.exists().sum(axis=1)
    best = np.zeros(len(vectors), dtype=np.float32)
    begin = 0
    for end, row, count in zip(ends, texts, counts, strict=True):
        if row:
            cosines = vectors[begin : begin + count] @ flat[end - len(row) : end].T  # [options, sentences]
            best[begin : begin + count] = cosines.max(axis=1)
        begin += count
    return option_table(questions, best)
