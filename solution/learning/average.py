"""The exponential moving average of the trainable parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class MovingAverage:
    """A float32 copy of the trainable parameters that follows them slowly.

    The decay grows with the updates, `min(decay, (1 + updates) / (10 + updates))`, so that the
    untrained start weighs little also in a short run.

    Attributes:
        values: the average of each parameter, on its device.
    """

    def __init__(
        self, parameters: Sequence[torch.nn.Parameter], decay: float, values: Sequence[torch.Tensor] | None = None
    ):
        self.parameters, self.decay = parameters, decay
        start = [parameter.detach() for parameter in parameters] if values is None else values
        self.values = [
            value.to(parameter.device, torch.float32, copy=True)
            for value, parameter in zip(start, parameters, strict=True)
        ]

    def update(self, updates: int) -> None:
        """Take in the parameters after an optimizer step; `updates` counts those before it."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        with torch.no_grad():
            for value, parameter in zip(self.values, self.parameters, strict=True):
                value.lerp_(parameter, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the parameters are the average; then they are again what they were, bit by bit."""
        saved = [parameter.detach().clone() for parameter in self.parameters]
        put(self.parameters, self.values)
        try:
            yield
        finally:
            put(self.parameters, saved)


def put(parameters: Sequence[torch.nn.Parameter], values: Sequence[torch.Tensor]) -> None:
    """Copy values into parameters."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
