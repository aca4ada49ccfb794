"""AWP, adversarial weight perturbation (Wu, Xia, Wang 2020): train also where the weights hurt the most nearby."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from solution.config import AwpSettings


@contextmanager
def perturbed(parameters: Sequence[torch.nn.Parameter], settings: AwpSettings) -> Iterator[None]:
    """Within the block every parameter that has a gradient stands a step up that gradient; then it is put back.

    The step of a parameter w with gradient g is `rate * |w| * g / |g|` (Euclidean norms over the whole
    parameter), and no element moves by more than `epsilon` times its own size. The length of g does not
    matter, so a scaled loss gives the same step. The parameters come back from a copy, bit by bit.

    Costs a copy of the trainable parameters in memory; what the caller does within the block, a second
    forward and backward pass, costs as much time as the step without it.
    """
    moved = [parameter for parameter in parameters if parameter.grad is not None]
    saved = [parameter.detach().clone() for parameter in moved]
    try:
        with torch.no_grad():
            for parameter in moved:
                grad = parameter.grad
                assert grad is not None
                length = settings.rate * parameter.norm() / grad.norm().clamp_min(torch.finfo(grad.dtype).tiny)
                bound = parameter.abs() * settings.epsilon
                parameter.add_((grad * length).clamp(-bound, bound))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(moved, saved, strict=True):
                parameter.copy_(value)
