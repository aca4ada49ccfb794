"""The gradient of one optimizer step: summed over its batches and over the processes that train together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from solution.device import Device
from solution.learning import distributed
from solution.learning.scorer import Scorer


def listwise_loss(scores: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Sum over questions of the softmax cross-entropy over each question's options.

    Args:
        scores: float [b, max_options], -inf where an option does not exist.
        answers: int64 [b].
    """
    return nn.functional.cross_entropy(scores.float(), answers, reduction="sum")


@dataclass(frozen=True)
class Batch:
    """Questions of a step that go through the model together.

    Attributes:
        answers: int64 [b].
        counts: False for a pass that an idle process makes for the sake of the others.
    """

    items: list[Any]
    answers: np.ndarray
    counts: bool


def accumulate_gradient(
    scorer: Scorer,
    parameters: Sequence[nn.Parameter],
    batches: Sequence[Batch],
    questions: int,
    device: Device,
    scaler: torch.amp.GradScaler,
) -> float:
    """Add the gradient of the mean loss over a step's questions to what the parameters hold; returns that loss.

    Args:
        batches: with several processes, this one's.
        questions: how many the step has, on all processes.
    """
    # Gradients are summed over the processes below. Earlier ones (AWP's first) are summed already: set them aside.
    earlier = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None

    # Each batch adds its share of the mean, so that no more than one batch's activations are in memory.
    total = 0.0
    for batch in batches:
        with device.autocast():
            scores = scorer.scores(batch.items)  # [b, max_options]
        answers = torch.as_tensor(batch.answers, device=scores.device)  # [b]
        loss = listwise_loss(scores, answers) * batch.counts / questions
        total += float(loss.detach())
        scaler.scale(loss).backward()

    total = distributed.sum_gradients(parameters, total)
    for parameter, gradient in zip(parameters, earlier, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)
    return total


def gradient_is_finite(parameters: Sequence[nn.Parameter]) -> bool:
    norms = [parameter.grad.norm() for parameter in parameters if parameter.grad is not None]
    return not norms or bool(torch.stack(norms).isfinite().all())
