"""The turn of each ranker, and the blend of what the turns have answered so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from solution.inference.plan import Plan

State = Literal["waiting", "finished", "partial", "failed", "skipped", "unused", "imported"]


@dataclass
class Turn:
    """What became of one ranker.

    Attributes:
        total: float64 [n, width], the sum over the folds that answered.
        folds: int [n], how many did.
        alive: bool [n, width], the options that it was shown.
        planned: bool [n], the questions that it was to read.
        from_journal: questions times folds that an earlier run had answered.
        done: questions times folds that it answered now, in `seconds`, of which the model took `model_seconds`.
        peak_mib, used_mib: MiB at the highest, with the libraries of its process and without them.
        plan: what its memory was planned to be.
    """

    total: np.ndarray
    folds: np.ndarray
    alive: np.ndarray
    planned: np.ndarray
    state: State = "waiting"
    reason: str = ""
    from_journal: int = 0
    done: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    load_seconds: float | None = None
    peak_mib: int | None = None
    used_mib: int | None = None
    plan: Plan | None = None

    @property
    def answered(self) -> np.ndarray:
        """Bool [n]."""
        return self.folds > 0

    def table(self) -> np.ndarray:
        """The mean over the folds, float32 [n, width]; 0 where nothing was answered."""
        return (self.total / np.maximum(self.folds, 1)[:, None]).astype(np.float32)
