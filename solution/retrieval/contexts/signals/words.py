"""Signals by words: BM25 of the question with the option, and the option's words in the question's passages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solution.progress import progress_bar
from solution.retrieval.bm25 import Postings, highest
from solution.retrieval.contexts.signals.limit import TimeLimit
from solution.retrieval.contexts.signals.texts import OptionTexts

NEAREST = 10  # texts of a question, in which the option's words are sought
BEST = 3  # texts of a question with an option, whose scores are averaged
_SHORT = 20_000
"""Entries of a posting list. All texts of a longer list are not looked through for each option: it counts in the texts
of the option's shorter lists and in the question's best ones."""
_CONSIDERED = 1000  # of the question's best texts, where an option has a long list
_NAMES = ("best", "mean3", "option", "both", "share", "share_best")


@dataclass
class WordSignals:
    """What `word_signals` makes.

    Attributes:
        values: name -> float32 [m].
        question_rows: int64 [n, NEAREST], the texts with the highest scores for each question; -1 where there are
            fewer.
        option_rows: int64 [m, NEAREST], the same for each question with an option.
    """

    values: dict[str, np.ndarray]
    question_rows: np.ndarray
    option_rows: np.ndarray


def word_signals(texts: OptionTexts, postings: Postings, kind: str, limit: TimeLimit | None = None) -> WordSignals:
    """BM25 signals in the texts of an index.

    `best`, `mean3`: the highest score of a text for question and option, and the mean of the three highest; `option`:
    the highest for the option alone; `both`: the highest value of the lower of the scores for question and option in
    one text; `share`, `share_best`: the share of the option's words that the question's ten best texts hold, on
    average and at best. All are 0 where no word is known, and NaN for the questions that the time did not reach.

    Memory: two float32 for each text of the index.

    Args:
        kind: begins the names: "bm25_KIND_best".
    """
    asked_terms, own_terms = postings.numbers(texts.prompts), postings.numbers(texts.options)
    words = [len(set(postings.words.terms(option))) for option in texts.options]
    table = np.zeros((len(texts), len(_NAMES)), dtype=np.float32)
    question_rows = np.full((len(texts.prompts), NEAREST), -1, dtype=np.int64)
    option_rows = np.full((len(texts), NEAREST), -1, dtype=np.int64)
    scores, alone = (np.zeros(len(postings), dtype=np.float32) for _ in range(2))
    with progress_bar(len(texts.prompts), f"searching for words ({kind})") as bar:
        for row, places in enumerate(texts.by_question()):
            if limit is not None and limit.over():
                table[places.start :] = np.nan
                break
            lists = [postings.entries(number) for number in asked_terms[row]]
            for rows, values in lists:
                scores[rows] += values
            own_lists = [[postings.entries(number) for number in own_terms[place]] for place in _range(places)]
            is_long = any(len(rows) > _SHORT for own in own_lists for rows, _ in own)
            considered = highest(scores, _CONSIDERED if is_long else NEAREST) if lists else np.zeros(0, dtype=np.int64)
            top = considered[:NEAREST]
            question_rows[row, : len(top)] = top
            for place, own in zip(_range(places), own_lists, strict=True):
                best = _OptionScores.of(scores, considered, _shortened(own, considered), alone)
                option_rows[place, : len(best.rows)] = best.rows
                table[place, :4] = best.best, best.mean, best.option, best.both
                table[place, 4:] = _shares(top, own, words[place])
            for rows, _ in lists:  # only what was touched is set back: an index may hold millions of texts
                scores[rows] = 0
            bar.advance()
    signals = {f"bm25_{kind}_{name}": table[:, column] for column, name in enumerate(_NAMES)}
    return WordSignals(signals, question_rows, option_rows)


Entries = list[tuple[np.ndarray, np.ndarray]]
"""Of several terms the texts that hold each, and its score in them; see `Postings.entries`."""


@dataclass
class _OptionScores:
    """BM25 scores of one option; `rows`: the texts with the highest for question and option together."""

    rows: np.ndarray
    best: float
    mean: float
    option: float
    both: float

    @classmethod
    def of(cls, scores: np.ndarray, top: np.ndarray, own: Entries, sums: np.ndarray) -> _OptionScores:
        """The scores of an option with these terms.

        Args:
            scores: float32 [texts], those of the question.
            top: the question's best texts.
            own: of the option's terms.
            sums: float32 [texts] to add up in, all 0 before and after.
        """
        parts = [np.zeros(0, dtype=np.int64)]
        for held, values in own:
            parts.append(held[sums[held] == 0])  # each text once, without sorting: scores are above 0
            sums[held] += values
        every = np.concatenate(parts)
        alone, asked = sums[every], scores[every]
        # A text that holds no word of the option is among the best only if it is among the question's.
        others = top[sums[top] == 0]
        sums[every] = 0
        rows = np.concatenate([every, others])
        together = np.concatenate([asked + alone, scores[others]])
        order = np.lexsort((rows, -together)) if len(rows) <= NEAREST else _best_places(rows, together)
        highest_scores = together[order[:BEST]]
        return cls(
            rows[order[:NEAREST]],
            float(highest_scores[0]) if len(order) else 0.0,
            float(highest_scores.sum()) / BEST,
            float(alone.max()) if len(alone) else 0.0,
            float(np.minimum(asked, alone).max()) if len(alone) else 0.0,
        )


def _range(places: slice) -> range:
    return range(places.start, places.stop)


def _shortened(own: Entries, considered: np.ndarray) -> Entries:
    """The lists of an option's terms, of the long ones only the texts that are looked at."""
    lengths = [len(rows) for rows, _ in own]
    if not own or max(lengths) <= _SHORT:
        return own
    most = max(_SHORT, min(lengths))  # the shortest list is read in full
    texts = np.sort(np.concatenate([considered, *(rows for rows, _ in own if len(rows) <= most)]))
    texts = texts[np.flatnonzero(np.diff(texts, prepend=-1))]  # each once; np.unique is slower
    shortened = []
    for rows, values in own:
        if len(rows) > most:
            at = np.minimum(np.searchsorted(rows, texts), len(rows) - 1)
            held = rows[at] == texts
            rows, values = texts[held], values[at[held]]
        shortened.append((rows, values))
    return shortened


def _best_places(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The places of the `NEAREST` highest scores, best first; of equal scores the lower row first."""
    least = np.partition(scores, len(scores) - NEAREST)[len(scores) - NEAREST]
    some = np.flatnonzero(scores >= least)
    return some[np.lexsort((rows[some], -scores[some]))[:NEAREST]]


def _shares(top: np.ndarray, own: Entries, words: int) -> tuple[float, float]:
    """The share of the option's words that the question's best texts hold: the mean over the texts, and the best."""
    if not len(top) or not own:
        return 0.0, 0.0
    held = np.zeros(len(top))
    for rows, _ in own:
        at = np.minimum(np.searchsorted(rows, top), len(rows) - 1)
        held += rows[at] == top
    return float(held.mean() / words), float(held.max() / words)
