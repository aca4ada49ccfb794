"""An answer in words, as the terminal and notebooks have it."""

from __future__ import annotations

from collections.abc import Sequence

from solution.interactive.answers import Explanation, Mark, RankerAnswer
from solution.questions import letter


def sureness(answer: Explanation) -> str:
    """How sure the ensemble is, and how often it was right then, in words."""
    text, reliability = f"{answer.confidence:.0%} sure", answer.reliability
    if reliability is None:
        return f"{text}; how often it is right then is not known: there are too few out-of-fold answers"
    span = f"{reliability.low:.0%} to {reliability.high:.0%}"
    return (
        f"{text}; out of fold its first choice was right in {reliability.share:.0%} ({span}) of the "
        f"{reliability.questions} questions on which it was about as sure"
    )


def ranker_says(ranker: RankerAnswer, most: int = 5) -> str:
    """The first options of a ranker with their probabilities: "B 71 %  A 20 %"; or why it says nothing."""
    if ranker.probabilities is None:
        return ranker.note
    pairs = sorted(enumerate(ranker.probabilities), key=lambda pair: -pair[1])
    return "  ".join(f"{letter(place)} {probability:.0%}" for place, probability in pairs[:most])


def ranker_weight(ranker: RankerAnswer) -> str:
    """The weight of a ranker as tables show it."""
    return "stacker" if ranker.weight is None else f"{ranker.weight:.2f}"


def joined(marks: Sequence[Mark]) -> list[tuple[int, int, str]]:
    """The marked sentences in order, with the letters of their options: (start, end, "A, C")."""
    letters: dict[tuple[int, int], list[str]] = {}
    for mark in marks:
        letters.setdefault((mark.start, mark.end), []).append(mark.option)
    return [(start, end, ", ".join(sorted(names))) for (start, end), names in sorted(letters.items())]
