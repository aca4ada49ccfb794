"""Signals by embeddings: how near a question with an option comes to passages and to single sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from solution.config import RetrievalConfig
from solution.retrieval.contexts.signals.limit import TimeLimit
from solution.retrieval.contexts.signals.texts import OptionTexts
from solution.retrieval.dense import PassageIndex, as_cosines
from solution.retrieval.embedding import Embedder
from solution.retrieval.search import fitted
from solution.retrieval.store import Passages
from solution.sentences import sentences
from solution.words import word_count

NEAREST = 10  # passages or sentences
_ABOUT_QUESTION = 20  # sentences nearest to the question
_MEANS = {"best": 1, "mean3": 3, "mean10": 10}
_WORDS = 4  # of a sentence: shorter ones are headings and remains
_QUESTIONS_AT_ONCE = 1024  # whose passages are in memory together
_SENTENCES_AT_ONCE = 150_000  # distinct ones, whose vectors are in memory together
_SENTENCES_IN_A_HURRY = 2048  # the same where time is short: some seconds of two cores


@dataclass(frozen=True)
class OptionVectors:
    """Unit vectors, float32: of the questions [n, d], the options [m, d], and of question with option [m, d]."""

    questions: np.ndarray
    options: np.ndarray
    joined: np.ndarray

    @classmethod
    def of(cls, texts: OptionTexts, config: RetrievalConfig, embedder: Embedder) -> OptionVectors:
        def encode(heads: Sequence[str], tails: Sequence[str], title: str) -> np.ndarray:
            return embedder.encode(fitted(embedder, heads, tails), config.batch_size, title, query=True)

        return cls(
            encode(texts.prompts, [""] * len(texts.prompts), "embedding the questions"),
            encode(texts.options, [""] * len(texts), "embedding the options alone"),
            encode(*texts.joined(), "embedding the options"),
        )


@dataclass
class PassageSignals:
    """What `passage_signals` makes.

    Attributes:
        values: name -> float32 [m].
        question_rows: int64 [n, NEAREST], the passages nearest to each question; -1 where there are fewer.
        option_rows: int64 [m, NEAREST], those nearest to each question with an option.
    """

    values: dict[str, np.ndarray]
    question_rows: np.ndarray
    option_rows: np.ndarray


def passage_signals(
    texts: OptionTexts, vectors: OptionVectors, dense: PassageIndex, config: RetrievalConfig
) -> PassageSignals:
    """Cosines with passages: of question + option to the nearest ones, of the option alone, and to the question."""
    scores, option_rows = dense.search(vectors.joined, NEAREST)
    values = _means("cosine_passage", as_cosines(scores, config))
    alone, _ = dense.search(vectors.options, 1)
    values["cosine_passage_option_alone"] = np.maximum(as_cosines(alone, config), -1)[:, 0]
    _, question_rows = dense.search(vectors.questions, NEAREST)
    near = question_rows[texts.question]  # [m, NEAREST]
    for name, of in (("option", vectors.options), ("near_question", vectors.joined)):
        values[f"cosine_passage_{name}"] = np.maximum(dense.pair_cosines(of, near), -1).max(axis=1)
    asked = vectors.questions[texts.question]
    values["cosine_option_question"] = np.einsum("md,md->m", vectors.options, asked)
    values["cosine_joined_question"] = np.einsum("md,md->m", vectors.joined, asked)
    return PassageSignals(values, question_rows, option_rows)


def sentence_signals(
    texts: OptionTexts,
    vectors: OptionVectors,
    rows: Sequence[np.ndarray],
    passages: Passages,
    embedder: Embedder,
    batch_size: int,
    limit: TimeLimit,
) -> dict[str, np.ndarray]:
    """Cosines with the sentences of the passages retrieved for each question, name -> float32 [m]; 0 without any, NaN
    for the questions that the time did not reach.

    `cosine_sentence_best`, `mean3`, `mean10`: question + option to the nearest sentences; `near_question`, `option`:
    question + option, and the option alone, to the nearest of the 20 sentences that are nearest to the question.

    Memory: the vectors of 150,000 sentences.

    Args:
        rows: for each question the rows of its passages.
    """
    names = [f"cosine_sentence_{name}" for name in (*_MEANS, "near_question", "option")]
    values = {name: np.zeros(len(texts), dtype=np.float32) for name in names}
    options = list(texts.by_question())
    # Where time is short the questions come in small groups, each finished before the next is begun.
    for group in _groups(rows, passages, _SENTENCES_IN_A_HURRY if limit.is_set else _SENTENCES_AT_ONCE):
        if limit.over():
            first = options[group[0][0]].start
            for column in values.values():
                column[first:] = np.nan
            break
        numbers: dict[str, int] = {}
        for _, found in group:
            for sentence in found:
                numbers.setdefault(sentence, len(numbers))
        embedded = embedder.encode(list(numbers), batch_size, "embedding the sentences")
        for row, found in group:
            if found:
                near = embedded[[numbers[sentence] for sentence in found]]  # [sentences, d]
                places = options[row]
                joined = vectors.joined[places] @ near.T  # [options, sentences]
                about = np.argsort(-(near @ vectors.questions[row]), kind="stable")[:_ABOUT_QUESTION]
                for name, part in _means("cosine_sentence", -np.sort(-joined, axis=1)[:, :NEAREST]).items():
                    values[name][places] = part
                values["cosine_sentence_near_question"][places] = joined[:, about].max(axis=1)
                values["cosine_sentence_option"][places] = (vectors.options[places] @ near[about].T).max(axis=1)
    return values


def _means(name: str, cosines: np.ndarray) -> dict[str, np.ndarray]:
    """The means of the highest cosines, float [m, at most NEAREST] in falling order, as far as there are so many."""
    there = np.where(np.isfinite(cosines), cosines, np.nan)
    return {
        f"{name}_{mean}": np.nan_to_num(np.nanmean(there[:, :count], axis=1)).astype(np.float32)
        for mean, count in _MEANS.items()
    }


def _groups(rows: Sequence[np.ndarray], passages: Passages, most: int) -> Iterator[list[tuple[int, list[str]]]]:
    """Questions with the distinct sentences of their passages, in groups whose sentences are embedded together."""
    for begin in range(0, len(rows), _QUESTIONS_AT_ONCE):
        block = rows[begin : begin + _QUESTIONS_AT_ONCE]
        # Read together: of a large corpus each passage lies in another part of the file.
        wanted = np.unique(np.concatenate(block))
        read = zip(wanted.tolist(), passages.take(wanted), strict=True)
        cut = {row: _long_sentences(passage.text) for row, passage in read}
        group: list[tuple[int, list[str]]] = []
        distinct: set[str] = set()
        for row, places in enumerate(block, begin):
            found = list(dict.fromkeys(sentence for place in places.tolist() for sentence in cut[place]))
            group.append((row, found))
            distinct.update(found)
            if len(distinct) >= most:
                yield group
                group, distinct = [], set()
        if group:
            yield group


def _long_sentences(text: str) -> list[str]:
    """The sentences of a text without headings and remains, where there are others."""
    every = sentences(text)
    return [sentence for sentence in every if word_count(sentence) >= _WORDS] or every
