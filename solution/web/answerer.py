"""What the page needs of whoever ranks the options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from solution.interactive.answers import Explanation

Tell = Callable[[str], None]
"""Takes one line of news about a question at work."""


@dataclass(frozen=True)
class About:
    """What the head of the page says of the ensemble.

    Attributes:
        rankers: their names.
        map3: the honest estimate of MAP@3, with its 95 % interval; None: it is not known.
    """

    rankers: tuple[str, ...]
    map3: tuple[float, float, float] | None = None


class Answerer(Protocol):
    """Ranks options; called by one thread at a time."""

    def explain(self, prompt: str, options: Sequence[str], tell: Tell) -> Explanation:
        """The ranked options of one question, with reasons.

        Raises:
            UserError: the question cannot be answered.
        """

    def about(self) -> About:
        """What is known of the ensemble without a question."""


MakeAnswerer = Callable[[Tell], Answerer]
