"""An answerer for tests of the page: it answers at once, or when it is let go, without any model."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from solution.errors import UserError
from solution.interactive.answers import (
    Explanation,
    Mark,
    Option,
    RankerAnswer,
    Reliability,
    ShownPassage,
)
from solution.questions import letter
from solution.web.answerer import About, Tell

TEXT = "Helium is lighter than air 🎈. It lifts balloons. Neon <glows> red."


class FakeAnswerer:
    """The longer an option, the more probable it is.

    Attributes:
        gate: while it is closed (cleared), answers wait.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[str] = []

    def about(self) -> About:
        return About(("small", "large"), (0.8, 0.75, 0.85))

    def explain(self, prompt: str, options: Sequence[str], tell: Tell) -> Explanation:
        tell("large: loading")
        self.asked.append(prompt)
        assert self.gate.wait(30)
        if "fail" in prompt:
            raise UserError("no ranker answered: large: too little memory")
        if "bug" in prompt:
            raise ZeroDivisionError("a secret path")
        total = sum(map(len, options))
        shares = tuple(len(option) / total for option in options)
        order = sorted(range(len(options)), key=lambda place: -shares[place])
        begin, end = TEXT.index("It lifts"), TEXT.index(" Neon")
        marks = (Mark(begin, end, "A", 0.9), Mark(begin, end, "B", 0.8))
        return Explanation(
            prompt,
            tuple(Option(letter(place), text) for place, text in enumerate(options)),
            tuple(map(letter, order)),
            shares,
            (
                RankerAnswer("large", "causal", 0.75, shares, 0.5),
                RankerAnswer("small", "features", 0.25, None, 0.0, "it was not asked"),
            ),
            (ShownPassage("p1", "Helium", TEXT, 0.9, "dense", marks), ShownPassage("p2", "", "No mark.", 0.1, "bm25")),
            "embedding",
            max(shares),
            Reliability(0.7, 0.5, 0.85, 20, 0.4, 0.6),
            {"retrieval": 0.1, "large": 0.5, "total": 0.6},
            ("A note.",),
        )
