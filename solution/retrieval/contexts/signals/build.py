"""All signals of an exam's options that are made with a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from solution.config import RetrievalConfig
from solution.exam import SIGNAL_STEPS, Contexts
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
from solution.retrieval.contexts.signals.limit import TimeLimit
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


def make_signals(
    questions: Questions, config: RetrievalConfig, indexes: Indexes, limit: TimeLimit | None = None
) -> Contexts:
    """The signals of all options, without passages.

    They are made step by step (`SIGNAL_STEPS`), the cheap ones first; what the time does not reach is NaN.

    Raises:
        UserError: an index cannot be made or opened, or the indexes hold different passages.
    """
    indexes.require_same_passages()
    limit = limit or TimeLimit()
    texts = OptionTexts.of(questions, config.statements)
    vectors = OptionVectors.of(texts, config, indexes.embedder)
    near = passage_signals(texts, vectors, indexes.dense, config)
    words = word_signals(texts, indexes.lexical.postings, "passage", limit)
    terms = term_signals(texts, indexes.sentences, limit)
    in_sentences = word_signals(texts, indexes.sentences, "sentence", limit)
    rows = _passages_to_read(texts, config, near, words)
    passages, embedder = indexes.dense.passages, indexes.embedder
    read = sentence_signals(texts, vectors, rows, passages, embedder, config.batch_size, limit)
    _note_unknown(questions, terms.unknown)
    rare = rarity_signals(texts, indexes.lexical.postings)
    values = {**rare, **near.values, **read, **words.values, **in_sentences.values, **terms.values}
    signals = {name: option_table(questions, column) for name, column in values.items()}
    if limit.is_set:
        _note_missing(made_by_step(signals, questions.exists()))
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


def made_by_step(signals: Mapping[str, np.ndarray], exists: np.ndarray) -> dict[str, int]:
    """For each step of `SIGNAL_STEPS` (its first name) the number of questions for which its signals are made."""
    return {
        step[0]: int(min((~(np.isnan(table) & exists).any(axis=1)).sum() for table in tables))
        for step in SIGNAL_STEPS
        if (tables := [table for name, table in signals.items() if name.startswith(step)])
    }


def _note_missing(made: Mapping[str, int]) -> None:
    most = max(made.values(), default=0)
    missing = [f"{step} for {count}" for step, count in made.items() if count < most]
    if missing:
        say(f"note: time was short, and of {most} questions these signals were made: {', '.join(missing)}")


def _note_unknown(questions: Questions, unknown: list[int]) -> None:
    if unknown:
        first = questions.ids[unknown[0]]
        say(
            f"note: {len(unknown)} of {len(questions)} questions or their options have no word that the corpus knows "
            f"(first: id {first}): what depends on words is 0 for all of their options"
        )
