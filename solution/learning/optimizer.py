"""AdamW over the trainable parameters, and the factor of its learning rate at each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from solution.config import TrainingSettings
from solution.errors import UserError
from solution.learning.scorer import Scorer


def make_optimizer(scorer: Scorer, settings: TrainingSettings) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
    """AdamW over the trainable parameters: new heads at their own rate, no decay on vectors."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    parameters: list[nn.Parameter] = []
    for module in scorer.modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.dtype != torch.float32:
                raise AssertionError(f"trainable parameter {name} is {parameter.dtype}, not float32")
            head = "lora_" not in name and any(part in scorer.head_names for part in name.split("."))
            rate = (settings.head_learning_rate or settings.learning_rate) if head else settings.learning_rate
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    if not groups:
        raise UserError("nothing is trainable with these settings: set lora, or lora=null to train the whole model")
    listed = [
        {"params": params, "lr": rate, "base_lr": rate, "weight_decay": decay}
        for (rate, decay), params in sorted(groups.items(), key=lambda item: item[0])
    ]
    for group in listed:
        parameters += group["params"]  # type: ignore[arg-type]
    betas = (0.9, 0.999)
    if settings.optimizer == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(listed, betas=betas, eps=settings.adam_epsilon)
    else:
        import bitsandbytes as bnb

        bits8 = settings.optimizer.endswith("8bit")
        kind = bnb.optim.PagedAdamW8bit if bits8 else bnb.optim.PagedAdamW32bit
        optimizer = kind(listed, betas=betas, eps=settings.adam_epsilon)
    return optimizer, parameters


def learning_rate_factor(step: int, total: int, settings: TrainingSettings) -> float:
    """Warm-up, then cosine, linear or no decay: the factor of the learning rate at a step (from 0)."""
    warmup = int(total * settings.warmup_share)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    if settings.schedule == "linear":
        return 1.0 - progress
    return 0.5 * (1.0 + math.cos(math.pi * progress))
