"""All signals of an exam's options that are made with a corpus."""

from __future__ import annotations

from typing import Any

import numpy as np

from solution.config import RetrievalConfig
from solution.exam import Contexts
from solution.progress import say
from solution.questions import Questions
from solution.retrieval.approximate import search_settings
from solution.retrieval.contexts.option_scores import option_table
from solution.retrieval.contexts.signals.cosines import (
    OptionVectors,
    PassageSignals,
    passage_signals,
    sentence_signals,
)
from solution.retrieval.contexts.signals.information import term_signals
from solution.retrieval.contexts.signals.rarity import rarity_signals
from solution.retrieval.contexts.signals.texts import OptionTexts
from solution.retrieval.contexts.signals.words import WordSignals, word_signals
from solution.retrieval.search import Indexes

_VERSION = 2  # another one makes all signals anew


def signal_inputs(config: RetrievalConfig, indexes: Indexes) -> dict[str, Any]:
    """All that the signals depend on, beside the questions."""
    return {
        "signals": _VERSION,
        "settings": config.signals.model_dump(mode="json"),
        "index": indexes.dense_place.key,
        "lexical": indexes.lexical_place.key,
        "sentences": indexes.sentence_place.key,
        "backend": config.backend,
        **search_settings(config),
    }


def make_signals(questions: Questions, config: RetrievalConfig, indexes: Indexes) -> Contexts:
    """The signals of all options, without passages.

    Raises:
        UserError: an index cannot be made or opened, or the indexes hold different passages.
    """
    indexes.require_same_passages()
    texts = OptionTexts.of(questions)
    words = word_signals(texts, indexes.lexical.postings, "passage")
    in_sentences = word_signals(texts, indexes.sentences, "sentence")
    terms = term_signals(texts, indexes.sentences)
    vectors = OptionVectors.of(texts, config, indexes.embedder)
    near = passage_signals(texts, vectors, indexes.dense, config)
    rows = _passages_to_read(texts, config, near, words)
    read = sentence_signals(texts, vectors, rows, indexes.dense.passages, indexes.embedder, config.batch_size)
    _note_unknown(questions, terms.unknown)
    rare = rarity_signals(texts, indexes.lexical.postings)
    values = {**rare, **near.values, **read, **words.values, **in_sentences.values, **terms.values}
    signals = {name: option_table(questions, column) for name, column in values.items()}
    return Contexts(list(questions.ids), [[] for _ in range(len(questions))], signals=signals)


def _passages_to_read(
    texts: OptionTexts, config: RetrievalConfig, near: PassageSignals, words: WordSignals
) -> list[np.ndarray]:
    """For each question the rows of the passages whose sentences are compared, ascending."""
    for_option, for_question = config.signals.option_passages, config.signals.question_passages
    rows = []
    for row, places in enumerate(texts.by_question()):
        parts = [near.question_rows[row, :for_question], words.question_rows[row, :for_question]]
        parts += [near.option_rows[places, :for_option].ravel(), words.option_rows[places, :for_option].ravel()]
        every = np.unique(np.concatenate(parts))
        rows.append(every[every >= 0])
    return rows


def _note_unknown(questions: Questions, unknown: list[int]) -> None:
    if unknown:
        first = questions.ids[unknown[0]]
        say(
            f"note: {len(unknown)} of {len(questions)} questions or their options have no word that the corpus knows "
            f"(first: id {first}): what depends on words is 0 for all of their options"
        )
