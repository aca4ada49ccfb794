"""The answer to one question with all that led to it, as the terminal, the web page and the Python API show it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from solution.frames import ShownAsTable, frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Option:
    """An option of the question: its letter (A to Z) and its text."""

    letter: str
    text: str


@dataclass(frozen=True)
class RankerAnswer:
    """What one ranker says.

    Attributes:
        weight: its share of the blend, 0 to 1; 0: only another ranker reads its scores; None: a stacker (a regression
            on what all rankers say) takes the place of weights.
        probabilities: one for each option, in the order of the options, sum 1; None: it was not asked, as in a cascade
            whose first rankers are sure, or it failed.
        seconds: that its answer took, without loading its model.
        note: why it was not asked, or what went wrong; mostly empty.
    """

    name: str
    family: str
    weight: float | None
    probabilities: tuple[float, ...] | None
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Mark:
    """A deciding sentence: the one of all passages that is nearest to the question with an option put behind it.

    Attributes:
        start, end: positions in the passage's text, as Python counts: `text[start:end]`.
        option: the option's letter.
        score: how near, where 1 is the same: see `Explanation.mark_kind`.
    """

    start: int
    end: int
    option: str
    score: float


@dataclass(frozen=True)
class ShownPassage:
    """A passage that a ranker has read, or by which retrieval has scored the options.

    Attributes:
        score: the retrieval's; only the order means something across retrievals.
        marks: sorted by their start. Two options may share a sentence: then two marks have the same start and end.
    """

    id: str
    title: str
    text: str
    score: float
    retriever: str
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Reliability:
    """How often the ensemble was right out of fold, among the questions of about the same confidence.

    Attributes:
        share: of these questions, the first choice was right; low, high: its 95 % interval (Wilson).
        questions: how many they are.
        confidence_low, confidence_high: the lowest and the highest confidence among them.
    """

    share: float
    low: float
    high: float
    questions: int
    confidence_low: float
    confidence_high: float


@dataclass(frozen=True, repr=False)
class Explanation(ShownAsTable):
    """A ranked answer with its reasons.

    Attributes:
        options: as the question has them.
        order: the letters, the best option first.
        probabilities: the blend's, in the order of the options, sum 1.
        rankers: the largest weight first.
        passages: the best first.
        mark_kind: how the deciding sentences were sought: "embedding" (cosine of the retrieval's embedder), "terms"
            (share of the words of question and option), or "" where there are no passages.
        confidence: the highest of the probabilities.
        reliability: None where the ensemble has too few out-of-fold answers to tell.
        seconds: stage -> seconds: retrieval, each ranker by its name, "sentences", and "total".
        notes: what whoever reads the answer should know, in sentences.
    """

    prompt: str
    options: tuple[Option, ...]
    order: tuple[str, ...]
    probabilities: tuple[float, ...]
    rankers: tuple[RankerAnswer, ...]
    passages: tuple[ShownPassage, ...]
    mark_kind: str
    confidence: float
    reliability: Reliability | None
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = field(default=())

    @property
    def best(self) -> Option:
        """The first option of the ranking."""
        return self.ranking[0][0]

    @property
    def ranking(self) -> tuple[tuple[Option, float], ...]:
        """The options with their probabilities, the best first."""
        pairs = {option.letter: (option, p) for option, p in zip(self.options, self.probabilities, strict=True)}
        return tuple(pairs[letter] for letter in self.order)

    def to_frame(self) -> pd.DataFrame:
        """The options, the best first: letter, text, probability, and a column for each ranker that answered."""
        said = {ranker.name: ranker.probabilities for ranker in self.rankers if ranker.probabilities is not None}
        places = {option.letter: place for place, option in enumerate(self.options)}
        rows = [
            {"letter": option.letter, "text": option.text, "probability": probability}
            | {name: each[places[option.letter]] for name, each in said.items()}
            for option, probability in self.ranking
        ]
        return frame(rows)


def to_json(answer: Explanation) -> dict[str, Any]:
    """An answer as `json.dumps` takes it: dataclasses as objects, tuples as lists, numbers that are none as null."""
    record: dict[str, Any] = _plain(dataclasses.asdict(answer))
    return record


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
