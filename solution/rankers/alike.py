"""Options that a ranker reads alike: different texts of one question that are the same tokens to it.

An uncased tokenizer reads AA, Aa and aa alike, a vocabulary without superscripts gives 10³ and 10⁻³ the same unknown
token, and of two long options `max_tokens` may leave the same beginning. The ranker says the same of such options, or
what it says differs by rounding and by their letters only. So they get the mean of their probabilities, tilted by far
less than a ranker that tells them apart would move them, in the order of signals that see more than the tokens: first
retrieval's option scores, then how often the question's passages hold an option exactly as it is written, then its
length. Options that no signal tells apart stay equal, and are ranked by letter. (A blend of ranks knows no small
differences: there the order counts as any other.)

This is done where a ranker's probabilities are made. Training and submission, and all that reads OOF files, therefore
see the same order. Options that are the same text are no part of it: they are truly equal.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from solution.config import RankerConfig
from solution.exam import Exam, passage_text
from solution.questions import Questions, letter
from solution.words import mentions

Alike = dict[str, list[str]]
"""Question id -> for each group of options that are read alike, their letters: {"q3": ["ABC"]}."""
Groups = dict[int, list[list[int]]]
"""Row of a question -> for each group of options that are read alike, their positions."""

SAME_SCORE = 1e-3
"""Option scores that differ by less do not tell two options apart: an embedder in half precision gives the same text
scores that differ by so much from batch to batch."""
_TILT = 1e-4  # of a probability, from one place to the next: float32 holds it, and other rankers outweigh it


def alike_options(texts: Sequence[str], tokens: Mapping[int, Hashable]) -> list[list[int]]:
    """The groups of options that have the same tokens and not all the same text.

    Args:
        texts: of a question's options.
        tokens: option position -> what the ranker reads of it.
    """
    groups: dict[Hashable, list[int]] = {}
    for position in sorted(tokens):
        groups.setdefault(tokens[position], []).append(position)
    return [group for group in groups.values() if len({texts[position] for position in group}) > 1]


def by_letters(questions: Questions, groups: Groups) -> Alike:
    """The groups by question ids and letters, as JSON holds them."""
    return {questions.ids[row]: ["".join(map(letter, group)) for group in groups[row]] for row in sorted(groups)}


def settle(table: np.ndarray, exam: Exam, groups: Groups, config: RankerConfig) -> np.ndarray:
    """A ranker's probabilities with the options that it reads alike in the order of other signals.

    Args:
        table: float32 [n, max_options].

    Returns:
        The same table where there are no groups, else a new one; the sum of each group stays.
    """
    if not groups:
        return table
    settled = table.copy()
    priors = exam.prior(config) if config.retrieval_prior else None
    for row, question in groups.items():
        for group in question:
            # A prior that tells them apart is a part of the ranker's own score: there the options are not tied.
            tied = [group] if priors is None else parted(group, priors[row], SAME_SCORE)
            for options in tied:
                places = _places(exam, row, options, config)
                mean = table[row, options].astype(np.float64).mean()
                settled[row, options] = mean * (1 + _TILT * (places.mean() - places))
    return settled


def _places(exam: Exam, row: int, options: list[int], config: RankerConfig) -> np.ndarray:
    """The place of each option among these, float [options], 0 the best; those that stay equal share their places."""
    parts = [options]
    for values, tolerance in _signals(exam, row, options, config):
        parts = [piece for part in parts for piece in parted(part, values, tolerance)]
    place_of: dict[int, float] = {}
    begin = 0
    for part in parts:
        place_of |= dict.fromkeys(part, begin + (len(part) - 1) / 2)
        begin += len(part)
    return np.array([place_of[option] for option in options])


def _signals(
    exam: Exam, row: int, options: Sequence[int], config: RankerConfig
) -> Iterator[tuple[Mapping[int, float], float]]:
    """What ranks options beside a ranker, the best signal first: option -> value, and the difference that counts."""
    for kind in sorted(exam.option_scores, key=lambda kind: (kind != config.option_score, kind)):
        scores = np.nan_to_num(exam.option_scores[kind][row])
        yield {option: float(scores[option]) for option in options}, SAME_SCORE
    texts = exam.questions.options[row]
    read = "\n".join(map(passage_text, exam.passages[row]))
    yield {option: float(mentions(texts[option], read)) for option in options}, 0.0
    yield {option: float(len(texts[option])) for option in options}, 0.0


def parted(options: Sequence[int], values: Mapping[int, float] | np.ndarray, tolerance: float) -> list[list[int]]:
    """The options by their values, the highest first, in lists of which the next values differ by the tolerance at
    most."""
    ordered = sorted(options, key=lambda option: -float(values[option]))
    parts = [ordered[:1]]
    for before, option in zip(ordered, ordered[1:], strict=False):
        if float(values[before]) - float(values[option]) > tolerance:
            parts.append([])
        parts[-1].append(option)
    return [sorted(part) for part in parts]


def described(alike: Mapping[str, Sequence[str]], questions: int) -> str:
    """A clause on a ranker (named before it) that reads options alike, with an example.

    Args:
        questions: how many it has read.
    """
    id_, groups = next(iter(alike.items()))
    return (
        f"cannot tell options apart in {len(alike)} of {questions} questions (first: id {id_}, options "
        f"{', '.join(groups[0])}): their texts are the same tokens to it. They are ranked by retrieval's option "
        "scores, by the passages that hold an option as it is written, then by length"
    )
