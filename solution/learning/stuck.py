"""A watch over the loss: a ranker that learns nothing stays at the loss of a guess."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class StuckWatch:
    """Says when the loss has not left ln(number of options) for `patience` steps in a row (after warm-up)."""

    def __init__(self, patience: int, losses: Sequence[float] = (), levels: Sequence[float] = ()):
        self.patience = patience
        self.losses, self.levels = list(losses), list(levels)

    def add(self, loss: float, level: float) -> bool:
        """Take a step's mean loss and mean ln(options); True when stuck."""
        self.losses = [*self.losses, loss][-self.patience :]
        self.levels = [*self.levels, level][-self.patience :]
        if len(self.losses) < self.patience:
            return False
        # A ranker that learns nothing hovers about ln(n). One that comes from above and passes through is
        # not stuck: its mean may lie in the band, and its later half lies below its earlier one.
        above = np.subtract(self.losses, self.levels)
        half = len(above) // 2
        falls = half > 0 and float(above[:half].mean() - above[half:].mean()) > 0.02
        return abs(float(above.mean())) < 0.005 and not falls
