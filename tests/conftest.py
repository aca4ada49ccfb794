"""Small things that several tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from solution.questions import Questions


def random_questions(n: int, options: int = 5, seed: int = 0) -> Questions:
    """n questions of made-up words; no two prompts are alike, answers are drawn evenly."""
    rng = np.random.default_rng(seed)

    def text(words: int) -> str:
        return " ".join(f"w{word}" for word in rng.integers(0, 5000, words))

    return Questions(
        ids=[f"q{row}" for row in range(n)],
        prompts=[f"Which {text(8)}?" for _ in range(n)],
        options=[[text(3) for _ in range(options)] for _ in range(n)],
        answers=rng.integers(0, options, n),
    )


@pytest.fixture(scope="session")
def make_questions() -> Callable[..., Questions]:
    return random_questions
