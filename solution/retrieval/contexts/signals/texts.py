"""The texts that signals are made from: questions, options, and each question joined with each of its options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from solution.questions import Questions
from solution.statements import statement

_BLANK = re.compile(r"_{2,}")
_LONGEST_FILLED = 1000
"""Characters. A longer prompt may be cut to what the embedder reads, and the option in its blank with it."""


@dataclass(frozen=True)
class OptionTexts:
    """The m options of n questions, question after question.

    Attributes:
        prompts: n texts.
        options: m texts.
        question: int64 [m], the row of each option's question.
        statements: whether a question with an option is joined to a statement where rules know how.
    """

    prompts: list[str]
    options: list[str]
    question: np.ndarray
    statements: bool = False

    @classmethod
    def of(cls, questions: Questions, statements: bool = False) -> OptionTexts:
        pairs = [(row, option) for row, options in enumerate(questions.options) for option in options if option]
        rows = np.array([row for row, _ in pairs], dtype=np.int64)
        return cls(questions.prompts, [option for _, option in pairs], rows, statements)

    def __len__(self) -> int:
        """The number of options."""
        return len(self.options)

    def by_question(self) -> Iterator[slice]:
        """For each question the places of its options."""
        ends = np.cumsum(np.bincount(self.question, minlength=len(self.prompts))).tolist()
        yield from (slice(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True))

    def joined(self) -> tuple[list[str], list[str]]:
        """For each option the question, and what is put behind it: the option, or nothing where it fills a blank.

        A blank is two or more underscores; only the first one is filled. A statement has nothing behind it.
        """
        heads, tails = [], []
        for row, option in zip(self.question, self.options, strict=True):
            prompt = self.prompts[row]
            stated = statement(prompt, option) if self.statements else None
            if stated is not None:
                heads.append(stated)
                tails.append("")
                continue
            fills = len(prompt) <= _LONGEST_FILLED and _BLANK.search(prompt) is not None
            heads.append(_filled(prompt, option) if fills else prompt)
            tails.append("" if fills else option)
        return heads, tails


def _filled(prompt: str, option: str) -> str:
    # A function: in a replacement text a backslash would have a meaning.
    return _BLANK.sub(lambda _: option, prompt, count=1)
