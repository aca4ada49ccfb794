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


def listwise_loss(
    scores: torch.Tensor,
    answers: torch.Tensor,
    smoothing: float = 0.0,
    weights: torch.Tensor | None = None,
    soft: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over questions of the softmax cross-entropy over each question's options.

    Args:
        scores: float [b, max_options], -inf where an option does not exist.
        answers: int64 [b].
        smoothing: the share of the aim that is spread evenly over the question's options (Szegedy et al. 2016).
        weights: float [b], by which the questions' losses are multiplied; None: 1.
        soft: float [b, max_options], what the probabilities are to be; None: 1 for the right answer.
    """
    if smoothing == 0 and soft is None:
        reduction = "sum" if weights is None else "none"
        losses = nn.functional.cross_entropy(scores.float(), answers, reduction=reduction)
    else:
        exists = scores.isfinite()
        logs = scores.float().log_softmax(dim=1).masked_fill(~exists, 0)
        right = logs.gather(1, answers[:, None])[:, 0] if soft is None else (logs * soft).sum(dim=1)
        even = logs.sum(dim=1) / exists.sum(dim=1)
        losses = -(1 - smoothing) * right - smoothing * even
    return losses.sum() if weights is None else (losses * weights).sum()


def divergence(first: torch.Tensor, second: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Sum over questions of the mean of both Kullback-Leibler divergences between two passes' probabilities.

    Args:
        first, second: scores, float [b, max_options], -inf where an option does not exist.
        weights: float [b], see `listwise_loss`.
    """
    exists = first.isfinite()
    logs = [scores.float().log_softmax(dim=1).masked_fill(~exists, 0) for scores in (first, second)]
    shares = [values.exp().masked_fill(~exists, 0) for values in logs]
    values = ((shares[0] - shares[1]) * (logs[0] - logs[1])).sum(dim=1) / 2
    return values.sum() if weights is None else (values * weights).sum()


@dataclass(frozen=True)
class Batch:
    """Questions of a step that go through the model together.

    Attributes:
        answers: int64 [b].
        counts: False for a pass that an idle process makes for the sake of the others.
        weights: float [b], see `listwise_loss`.
        soft: float [b, at least as wide as the scores], see `listwise_loss`.
    """

    items: list[Any]
    answers: np.ndarray
    counts: bool = True
    weights: np.ndarray | None = None
    soft: np.ndarray | None = None


@dataclass(frozen=True)
class Aim:
    """What the training lowers, see `TrainingSettings`."""

    label_smoothing: float = 0.0
    r_drop: float | None = None

    def loss(self, scorer: Scorer, batch: Batch, device: Device) -> torch.Tensor:
        """The loss of a batch, summed over its questions; with `r_drop` of two passes with other dropout."""
        passes = []
        for _ in range(1 if self.r_drop is None else 2):
            with device.autocast():
                passes.append(scorer.scores(batch.items))  # [b, max_options]
        there = passes[0].device
        right = torch.as_tensor(batch.answers, device=there)  # [b]
        weights, soft = (
            None if table is None else torch.as_tensor(table, dtype=torch.float32, device=there)
            for table in (batch.weights, batch.soft)
        )
        if soft is not None:
            soft = soft[:, : passes[0].shape[1]]  # the batch's questions may all have fewer options
        smoothing = self.label_smoothing
        loss = torch.stack([listwise_loss(scores, right, smoothing, weights, soft) for scores in passes]).mean()
        return loss if self.r_drop is None else loss + self.r_drop * divergence(passes[0], passes[1], weights)


def accumulate_gradient(
    scorer: Scorer,
    parameters: Sequence[nn.Parameter],
    batches: Sequence[Batch],
    questions: int,
    device: Device,
    scaler: torch.amp.GradScaler,
    aim: Aim,
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
        loss = aim.loss(scorer, batch, device) * batch.counts / questions
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
