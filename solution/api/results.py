"""What the API returns: plain values that show as tables in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from solution.ensemble.record import EnsembleRecord
from solution.frames import ShownAsTable, frame
from solution.questions import LETTERS, Questions, kaggle_prediction, ranked_options

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RankedOption:
    """An option at its place.

    Attributes:
        letter: A to Z, as the question has it.
        probability: the blend's; those of a question sum to 1.
    """

    letter: str
    text: str
    probability: float


@dataclass(frozen=True, repr=False)
class Ranking(ShownAsTable):
    """The options of a question, the best first."""

    options: tuple[RankedOption, ...]

    @classmethod
    def of(cls, questions: Questions, probabilities: np.ndarray) -> Ranking:
        """The ranking of an exam of one question; `probabilities`: float [1, width]."""
        letters = ranked_options(probabilities, questions.exists(probabilities.shape[1]))[0]
        places = [LETTERS.index(letter) for letter in letters]
        texts, row = questions.options[0], probabilities[0]
        return cls(tuple(RankedOption(LETTERS[place], texts[place], float(row[place])) for place in places))

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters, the best option's first."""
        return tuple(option.letter for option in self.options)

    @property
    def best(self) -> RankedOption:
        """The first option."""
        return self.options[0]

    def __iter__(self) -> Iterator[RankedOption]:
        return iter(self.options)

    def __len__(self) -> int:
        return len(self.options)

    def __getitem__(self, place: int) -> RankedOption:
        return self.options[place]

    def to_frame(self) -> pd.DataFrame:
        """Columns letter, text, probability."""
        return frame([vars(option) for option in self.options])


@dataclass(frozen=True, repr=False)
class Scores(ShownAsTable):
    """How good answers are.

    Attributes:
        questions: how many were scored.
        map3: mean average precision at 3; low, high: its 95 % bootstrap interval over questions.
        accuracy: the share of questions whose first option is right.
        log_loss: the mean of -ln p(right option); None where only rankings are known.
        calibration_error: see `metrics.calibration_error`; None likewise.
        random: MAP@3 of guessing on these questions.
    """

    questions: int
    map3: float
    low: float
    high: float
    accuracy: float
    log_loss: float | None
    calibration_error: float | None
    random: float

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return frame([vars(self)])


@dataclass(frozen=True, repr=False)
class Tuned(ShownAsTable):
    """What `tune` chose.

    Attributes:
        record: the content of `weights/ensemble.json`.
    """

    record: EnsembleRecord

    @property
    def weights(self) -> dict[str, float]:
        """Ranker -> its share of the blend; sum 1."""
        return dict(self.record["weights"])

    @property
    def estimate(self) -> tuple[float, float, float]:
        """The honest estimate of MAP@3, and its 95 % interval."""
        found = self.record["estimate"]
        return found["map3"], found["low"], found["high"]

    @property
    def reason(self) -> str:
        """Why this blend ships, in one line."""
        return str(self.record["reason"])

    def to_frame(self) -> pd.DataFrame:
        """A row for each ranker and each blend: see `ensemble.rows.ScoreRow`."""
        return frame(self.record["table"])


@dataclass(frozen=True, repr=False)
class Rows(ShownAsTable):
    """What a stage has made, a row each.

    Attributes:
        rows: column -> value.
        columns: in order.
    """

    rows: Sequence[Mapping[str, Any]]
    columns: Sequence[str]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)

    def to_frame(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        return frame(self.rows, self.columns)


@dataclass(frozen=True, repr=False)
class Gain(Rows):
    """What the reranker brings, a row for each measure of the retrieved and the reranked passages and their difference.

    Attributes:
        lines: the same, as the command prints it.
    """

    lines: Sequence[str] = ()


class Files(ShownAsTable, list[Path]):
    """The files that a stage has written: a list of their paths."""

    def to_frame(self) -> pd.DataFrame:
        """Columns file, bytes."""
        return frame([{"file": str(path), "bytes": path.stat().st_size} for path in self], ["file", "bytes"])


class Parts(ShownAsTable, dict[str, int]):
    """What a bundle holds: part -> bytes."""

    def to_frame(self) -> pd.DataFrame:
        """Columns part, bytes."""
        return frame([{"part": part, "bytes": size} for part, size in self.items()], ["part", "bytes"])


class EmbedderGain(ShownAsTable, dict[str, Any]):
    """What a tuned embedder has learnt from, and its recall on questions held out: `before` and `after`."""

    def to_frame(self) -> pd.DataFrame:
        """Columns embedder (before, after), measure, value, low, high (its 95 % interval)."""
        rows = [
            {"embedder": name, "measure": measure, "value": value, "low": low, "high": high}
            for name in ("before", "after")
            for measure, (value, low, high) in self[name].items()
        ]
        return frame(rows, ["embedder", "measure", "value", "low", "high"])


@dataclass(frozen=True, repr=False)
class ExamTable(ShownAsTable):
    """An exam that was read or made."""

    questions: Questions

    def __len__(self) -> int:
        return len(self.questions)

    def to_frame(self) -> pd.DataFrame:
        """Columns id, prompt, A, B, ..., answer, and the exam's further ones."""
        questions = self.questions
        letters = LETTERS[: questions.max_options]
        rows = []
        for row, id_ in enumerate(questions.ids):
            options = dict(zip(letters, questions.options[row], strict=False))
            answer = int(questions.answers[row])
            own = {"id": id_, "prompt": questions.prompts[row]}
            own |= {letter: options.get(letter, "") for letter in letters}
            own["answer"] = LETTERS[answer] if answer >= 0 else ""
            rows.append(own | {name: values[row] for name, values in questions.extra.items() if name not in own})
        return frame(rows)


@dataclass(frozen=True, repr=False)
class Answered(ShownAsTable):
    """The answers to an exam.

    Attributes:
        probabilities: float32 [n, width], the blend's.
    """

    questions: Questions
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.questions)

    def to_frame(self) -> pd.DataFrame:
        """Columns id, prediction ("B A D"), and p_A, p_B, ...; NaN where an option does not exist."""
        questions, width = self.questions, self.probabilities.shape[1]
        exists = questions.exists(width)
        ranked = [kaggle_prediction(letters) for letters in ranked_options(self.probabilities, exists)]
        table = frame([], ["id", "prediction"])
        table["id"], table["prediction"] = questions.ids, ranked
        for place in range(width):
            table[f"p_{LETTERS[place]}"] = np.where(exists[:, place], self.probabilities[:, place], np.nan)
        return table
