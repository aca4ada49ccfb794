"""One set of weights from several: the exact mean of LoRA adapters, their compression, the mean of whole weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from solution.config import LoraSettings
from solution.errors import UserError

Tensors = dict[str, torch.Tensor]
_DOWN, _UP = "lora_A", "lora_B"
_DOWN_WORDS, _UP_WORDS = "lora_embedding_A", "lora_embedding_B"


def mean_adapter(adapters: Sequence[Tensors]) -> Tensors:
    """An adapter whose product is the mean of the adapters' products, to rounding.

    Of K adapters B_k A_k of rank r it is [B_1 ... B_K] / K times the A_k below each other, of rank K * r. All other
    tensors (heads and other modules that are trained whole, biases) are averaged.

    Args:
        adapters: name -> tensor, all of the same names and shapes, as PEFT stores them.

    Raises:
        UserError: they do not belong together, or have DoRA's magnitudes, whose mean is none of the products.
    """
    _require_alike(adapters)
    if any("lora_magnitude_vector" in name for name in adapters[0]):
        raise UserError(
            "adapters with DoRA (lora.use_dora) cannot be averaged: their changes of the weights do not add up"
        )
    found: Tensors = {}
    for name in adapters[0]:
        tensors = [adapter[name] for adapter in adapters]
        if _is_factor(name, _DOWN, _DOWN_WORDS):
            found[name] = torch.cat(tensors, dim=0)
        elif _is_factor(name, _UP, _UP_WORDS):
            found[name] = torch.cat([tensor.float() / len(tensors) for tensor in tensors], dim=1)
        else:
            found[name] = _mean(name, tensors)
    return found


def mean_tensors(states: Sequence[Tensors]) -> Tensors:
    """The mean of each tensor; raises `UserError` where the states do not belong together."""
    _require_alike(states)
    return {name: _mean(name, [state[name] for state in states]) for name in states[0]}


def widened(settings: LoraSettings, count: int) -> LoraSettings:
    """The settings of `mean_adapter` of `count` adapters: its rank, and the alpha that leaves the scale as it was."""
    # PEFT scales the product by alpha / r, and with rsLoRA by alpha / sqrt(r).
    grown = math.sqrt(count) if settings.use_rslora else count
    return settings.model_copy(
        update={
            "r": settings.r * count,
            "lora_alpha": settings.lora_alpha * grown,
            "rank_pattern": {name: rank * count for name, rank in settings.rank_pattern.items()},
            "alpha_pattern": {name: alpha * grown for name, alpha in settings.alpha_pattern.items()},
        }
    )


def compressed(adapter: Mapping[str, torch.Tensor], rank: int) -> tuple[Tensors, float]:
    """The adapter with each product replaced by the nearest of a lower rank (Eckart and Young 1936).

    The product itself is never made: its singular values are those of a small matrix between the orthogonal parts
    of the factors.

    Args:
        rank: of every product from now on, at most the present one.

    Returns:
        The adapter, and the share of the products' length (Frobenius norm, all together) that is lost, 0 to 1.
    """
    found = dict(adapter)
    lost = whole = 0.0
    for name in down_names(adapter):
        other = up_name(name)
        down, up = adapter[name].double(), adapter[other].double()  # [K r, in], [out, K r]
        left, right = torch.linalg.qr(up), torch.linalg.qr(down.T)
        inner = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
        roots = inner.S[:rank].sqrt()
        # The length is shared out evenly between the factors.
        found[other] = (left.Q @ inner.U[:, :rank] * roots).to(adapter[other].dtype).contiguous()
        found[name] = (roots[:, None] * (inner.Vh[:rank] @ right.Q.T)).to(adapter[name].dtype).contiguous()
        lost += float((inner.S[rank:] ** 2).sum())
        whole += float((inner.S**2).sum())
    return found, math.sqrt(lost / whole) if whole > 0 else 0.0


def down_names(adapter: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of the first factors of all products."""
    return [name for name in adapter if _is_factor(name, _DOWN, _DOWN_WORDS)]


def up_name(name: str) -> str:
    """The name of the second factor of the product with this first one."""
    return name.replace(_DOWN_WORDS, _UP_WORDS).replace(f".{_DOWN}", f".{_UP}")


def _is_factor(name: str, *kinds: str) -> bool:
    return any(kind in name.split(".") for kind in kinds)


def _mean(name: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    first = tensors[0]
    if first.is_floating_point():
        return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(first.dtype)
    if any(not torch.equal(first, tensor) for tensor in tensors[1:]):
        raise UserError(f"the weights cannot be averaged: {name} holds whole numbers that differ")
    return first


def _require_alike(states: Sequence[Tensors]) -> None:
    first = {name: tuple(tensor.shape) for name, tensor in states[0].items()}
    for state in states[1:]:
        other = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if other != first:
            name = min(dict(set(first.items()) ^ set(other.items())))
            raise UserError(f"the weights do not belong together: {name} differs in shape or is not in all of them")
