"""Scores of options put right by rules: in questions that ask for what is not so, and of options that name others.

Scores say how well an option fits the corpus. That is the wrong way round where the right option is the one that does
not fit, and says nothing of an option such as "all of the above", whose words are in no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solution.negation import is_negated
from solution.option_references import OptionReference, option_references

_ABOVE_THE_BEST = 0.01
"""Of the range of a question's scores: where all of the others may be right, "all of them" is so more often than the
best of them (17 of 39 such questions, measured on OpenStax: docs/signals.md)."""


@dataclass(frozen=True)
class OptionRules:
    """What the rules know of n questions.

    Attributes:
        negated: bool [n], the questions that ask for what is not so.
        references: row of a question, position of an option in it -> what that option says of the others.
    """

    negated: np.ndarray
    references: dict[tuple[int, int], OptionReference]

    @classmethod
    def of(
        cls, prompts: Sequence[str], options: Sequence[Sequence[str]], negations: bool, references: bool
    ) -> OptionRules:
        """The rules of these questions, of the kinds that are wanted; `options`: n lists, "" where there is none."""
        negated = np.array([negations and is_negated(prompt) for prompt in prompts], dtype=bool)
        found = {
            (row, place): reference
            for row, texts in enumerate(options)
            for place, reference in enumerate(option_references(texts) if references else [])
            if reference is not None
        }
        return cls(negated, found)

    def apply(self, scores: np.ndarray, exists: np.ndarray) -> np.ndarray:
        """A copy of the scores, put right.

        "All of these" gets the highest score of the options that it names and a little more, "none of these" their
        mean; then the scores of a negated question are mirrored in the middle of their range.

        Args:
            scores: float [n, at least width]; of any value where no option is.
            exists: bool [n, width].
        """
        ruled, width = scores.copy(), exists.shape[1]
        for (row, place), reference in self.references.items():
            named = scores[row, list(reference.places)]
            ruled[row, place] = named.mean()
            if reference.kind != "none":
                every = scores[row, :width][exists[row]]
                ruled[row, place] = named.max() + _ABOVE_THE_BEST * (every.max() - every.min())
        for turned in np.flatnonzero(self.negated & exists.any(axis=1)):
            there = np.flatnonzero(exists[turned])
            own = ruled[turned, there]
            ruled[turned, there] = own.min() + own.max() - own
        return ruled

    def marks(self, width: int) -> dict[str, np.ndarray]:
        """Which options say that all of the others they name are right, and which that none is: float32 [n, width]."""
        marks = {kind: np.zeros((len(self.negated), width), dtype=np.float32) for kind in ("all", "none")}
        for (row, place), reference in self.references.items():
            if reference.kind in marks:
                marks[reference.kind][row, place] = 1
        return marks
