"""What is learnt from: the signals of each option, and its place among the options of its question."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from solution.config import SCORE_OF, RankerConfig
from solution.exam import Exam
from solution.probabilities import FLOOR
from solution.questions import Questions
from solution.words import search_words
from solution.words import words as words_of

FORMS = ("value", "standardised", "rank", "gap")
"""The inputs that each signal becomes: as it is; less the mean of the question's options, in their standard deviations;
the number of options above it; its distance to the best of the others."""
_FORM_SIGNALS = (
    *("length", "words", "word_length", "capitals", "commas", "digits"),
    *("shared_words", "shared_pairs", "alike_others", "common_words", "lone_words"),
)


def exam_signals(exam: Exam, config: RankerConfig) -> dict[str, np.ndarray]:
    """All signals of the exam's options that the ranker reads: name -> float32 [n, width], of any value where no
    option is.

    Those of the options' form are made here, the others come with the exam, retrieval's option scores among them; to
    these the ranker's score rules are applied.
    """
    made = {**{f"score_{kind}": table for kind, table in exam.option_scores.items()}, **exam.signals}
    own = form_signals(exam.questions)
    if config.score_rules:
        rules, exists = exam.rules(config), exam.questions.exists()
        # The scores of another ranker are as that ranker's own rules make them.
        made |= {name: rules.apply(table, exists) for name, table in made.items() if not name.startswith(SCORE_OF)}
        if "references" in config.score_rules:
            own |= {f"names_{kind}": marks for kind, marks in rules.marks(exists.shape[1]).items()}
    left_out = tuple(config.signals.leave_out)
    return {name: table for name, table in {**own, **made}.items() if not name.startswith(left_out)}


def repeated_signals(signals: Mapping[str, np.ndarray]) -> set[str]:
    """The signals of a second or further retrieval that repeat one of the first: two retrievals from one corpus have
    the same words."""
    repeated = set()
    for name, table in signals.items():
        _, colon, own = name.partition(":")
        if colon and own in signals and np.array_equal(table, signals[own], equal_nan=True):
            repeated.add(name)
    return repeated


def form_signals(questions: Questions) -> dict[str, np.ndarray]:
    """Signals that need no corpus, float32 [n, max_options]; 0 where no option is.

    They say how a question was written: who writes a right option often makes it longer, names more, and writes the
    wrong options as variations of it. Each question is looked at alone, so that a question's signals are the same in
    any file.

    `length`: characters; `words`; `word_length`: characters for each word; `capitals`, `commas`, `digits`: how many;
    `shared_words`: the share of the option's words that the question has too; `shared_pairs`: how many pairs of
    neighbouring words the question has too; `alike_others`: the mean over the other options of the words in common,
    as a share of the words of both; `common_words`: the share of its words that some other option has; `lone_words`:
    how many no other option has.
    """
    tables = {name: np.zeros((len(questions), questions.max_options), dtype=np.float32) for name in _FORM_SIGNALS}
    for row, (prompt, options) in enumerate(zip(questions.prompts, questions.options, strict=True)):
        asked = _Text(prompt)
        texts = [_Text(option) for option in options]
        for column, text in enumerate(texts):
            others = [other.distinct for place, other in enumerate(texts) if place != column]
            for name, value in (_own_form(text, asked) | _form_beside(text.distinct, others)).items():
                tables[name][row, column] = value
    tables["length"] = questions.option_lengths(questions.max_options).astype(np.float32)
    return tables


@dataclass(frozen=True)
class _Text:
    """An option or a prompt, its words in order, and the different words by which it is compared with others."""

    text: str

    @functools.cached_property
    def words(self) -> list[str]:
        return words_of(self.text)

    @functools.cached_property
    def distinct(self) -> set[str]:
        return set(search_words(self.text))


def _own_form(option: _Text, asked: _Text) -> dict[str, float]:
    """The signals of an option's form that do not depend on the other options."""
    text, words = option.text, option.words
    pairs = set(itertools.pairwise(words))
    return {
        "words": len(words),
        "word_length": len(text) / max(len(words), 1),
        "capitals": sum(letter.isupper() for letter in text),
        "commas": text.count(","),
        "digits": sum(letter.isdigit() for letter in text),
        "shared_words": len(option.distinct & asked.distinct) / max(len(option.distinct), 1),
        "shared_pairs": len(pairs.intersection(itertools.pairwise(asked.words))),
    }


def _form_beside(words: set[str], others: Sequence[set[str]]) -> dict[str, float]:
    """The signals of an option's form that compare it with the other options of the question."""
    elsewhere = set().union(*others)
    alike = [len(words & other) / max(len(words | other), 1) for other in others]
    return {
        "alike_others": sum(alike) / max(len(alike), 1),
        "common_words": len(words & elsewhere) / max(len(words), 1),
        "lone_words": len(words - elsewhere),
    }


def with_scores(exams: Sequence[Exam], tables: Mapping[str, np.ndarray], shown: np.ndarray) -> list[Exam]:
    """The same questions with rankers' log-probabilities among their signals, each among the options shown alone.

    NaN where an option is not shown, and in the rows of questions that the ranker has not answered.

    Args:
        exams: each n questions.
        tables: ranker's name -> probabilities, float [n, width]; a row of NaN: the question was not answered.
        shown: bool [n, width].
    """
    signals = {}
    for name, table in tables.items():
        inside = np.where(shown, np.maximum(table, FLOOR), np.nan)
        total = np.nansum(inside, axis=1, keepdims=True)
        signals[SCORE_OF + name] = np.log(inside / np.where(total > 0, total, 1.0)).astype(np.float32)
    return [replace(exam, signals=exam.signals | signals) for exam in exams]


@dataclass(frozen=True)
class OptionInputs:
    """The inputs of the m existing options, question after question.

    Attributes:
        values: float64 [m, len(FORMS) * signals]: all signals as they are, then all standardised, and so on.
        counts: int64 [n], the number of options of each question that has any.
    """

    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, signals: Sequence[np.ndarray], exists: np.ndarray) -> OptionInputs:
        """The inputs by these signals.

        Equal options have equal inputs, whatever their order.

        Args:
            signals: each float [n, at least width].
            exists: bool [n, width].
        """
        width = exists.shape[1]
        table = np.stack([signal[:, :width] for signal in signals], axis=2).astype(np.float64)  # [n, width, signals]
        table = _bounded(np.where(exists[:, :, None], table, np.nan))
        parts = [np.nan_to_num(table), _standardised(table, exists), _ranks(table), _gaps(table, exists)]
        counts = exists.sum(axis=1)
        return cls(np.concatenate([part[exists] for part in parts], axis=1), counts[counts > 0])


def _bounded(table: np.ndarray) -> np.ndarray:
    """The table with each infinite value in the place of the largest, or smallest, finite one of its question.

    An infinite signal (of an imported column, or of a division) would make every mean and coefficient NaN.
    """
    if not np.isinf(table).any():
        return table
    finite = np.isfinite(table)
    highest = np.where(finite, table, -np.inf).max(axis=1, keepdims=True)
    lowest = np.where(finite, table, np.inf).min(axis=1, keepdims=True)
    highest, lowest = (np.where(np.isfinite(bound), bound, 0.0) for bound in (highest, lowest))
    bounded: np.ndarray = np.where(table == np.inf, highest, np.where(table == -np.inf, lowest, table))
    return bounded


def _standardised(table: np.ndarray, exists: np.ndarray) -> np.ndarray:
    counts = np.maximum(exists.sum(axis=1), 1)[:, None, None]
    known = np.nan_to_num(table)
    mean = known.sum(axis=1, keepdims=True) / counts
    away = np.where(exists[:, :, None], known - mean, 0.0)
    deviation = np.sqrt((away**2).sum(axis=1, keepdims=True) / counts)
    return away / (deviation + 1e-6)


def _ranks(table: np.ndarray) -> np.ndarray:
    """How many of the question's options stand above each, and half of those at its height."""
    above = (table[:, None] > table[:, :, None]).sum(axis=2)
    level = (table[:, None] == table[:, :, None]).sum(axis=2) - 1
    return above + level / 2


def _gaps(table: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """The distance to the best other option; 0 where there is no other."""
    known = np.where(exists[:, :, None], np.nan_to_num(table), -np.inf)
    ordered = np.sort(known, axis=1)
    best, second = ordered[:, -1:], ordered[:, -2:-1]
    if not second.shape[1]:
        return np.zeros_like(known)
    other = np.where(known == best, second, best)
    # Two options at the same height: the best other is the second, which equals the best.
    gaps = np.where(np.isfinite(other), known - np.where(np.isfinite(other), other, 0.0), 0.0)
    return np.where(np.isfinite(known), gaps, 0.0)
