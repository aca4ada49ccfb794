"""What a training run is given, and the records of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import TrainingSettings
from solution.device import Device
from solution.learning.gradient import Batch


@dataclass(frozen=True)
class Targets:
    """The right answers of the training questions; the questions themselves are encoded by the scorer.

    Attributes:
        answers: int64 [n], the right option of each question.
        option_counts: int [n].
        weights: float64 [n] of mean 1, how much each question counts in the loss; None: all alike.
        soft: float32 [n, max_options], what the probabilities of the options are to be; None: 1 for the right one.
    """

    answers: np.ndarray
    option_counts: np.ndarray
    weights: np.ndarray | None = None
    soft: np.ndarray | None = None

    def batch(self, rows: list[int], items: list[Any], counts: bool) -> Batch:
        """Questions to go through the model together."""
        parts = [None if table is None else table[rows] for table in (self.weights, self.soft)]
        return Batch(items, self.answers[rows], counts, *parts)

    def guess(self, rows: Sequence[int]) -> float:
        """The mean loss of a guess at these questions: ln(number of options)."""
        levels = np.log(self.option_counts[rows])
        return float((levels if self.weights is None else levels * self.weights[rows]).mean())


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run.

    Attributes:
        title: its name on the progress bar and in messages.
        key: a hash of all that determines the result; a checkpoint of another run is not used.
        seed: of the order of the questions and of dropout.
        share: of the steps after which the run ends, in (0, 1]; the learning rate falls as if it went on.
    """

    title: str
    key: str
    training: TrainingSettings
    device: Device
    seed: int
    share: float = 1.0


@dataclass(frozen=True)
class RunFiles:
    """Files that a run writes.

    Attributes:
        checkpoint: the folder from which a killed run goes on.
        logs: a folder for `log.csv` (see `TrainingLog`) and TensorBoard's event files; None: neither is written.
    """

    checkpoint: Path
    logs: Path | None = None


@dataclass(frozen=True)
class Step:
    """The questions of one optimizer step, alike in length, the shortest first.

    Attributes:
        rows: which training questions they are.
        items: these, encoded.
        lengths: tokens of each.
    """

    epoch: int
    rows: list[int]
    items: list[Any]
    lengths: list[int]


@dataclass(frozen=True)
class Update:
    """The figures of one optimizer step; `gradient_norm` before clipping, not finite where float16 overflowed."""

    loss: float
    learning_rate: float
    gradient_norm: float
