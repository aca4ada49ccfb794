"""Float32 products of a model whose weights are in float16, for what overflows in float16.

A model trained in bfloat16 may compute numbers beyond 65504, where float16 ends. Cast to float32 as a whole it would
need twice its memory. Here the weights of a module are cast when it is called, and dropped when it has finished.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn

from solution.device import Device


class Computing(Protocol):
    """A ranker, or the reranker's model."""

    device: Device

    @property
    def modules(self) -> list[nn.Module]:
        """All modules that have parameters."""


@contextlib.contextmanager
def in_float32(model: Computing) -> Iterator[None]:
    """Within the block the model computes in float32, with the weights that it has."""
    device = model.device
    model.device = replace(device, compute=torch.float32)
    try:
        with float32_products(model.modules):
            yield
    finally:
        model.device = device


@contextlib.contextmanager
def float32_products(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block every module computes in float32; its stored weights stay as they are, to the bit.

    A float16 weight becomes float32 without loss for the time of its module's own call, so the block needs little more
    memory than the largest module. A 4-bit weight is multiplied in float32. Autocast is the caller's to leave off.
    """
    parts = {id(part): part for module in modules for part in module.modules()}.values()
    with contextlib.ExitStack() as undo:
        for part in parts:
            if hasattr(part, "compute_dtype") and hasattr(part, "quant_state"):  # bitsandbytes' 4-bit layer
                undo.callback(setattr, part, "compute_dtype", part.compute_dtype)
                part.compute_dtype = torch.float32  # type: ignore[assignment]
            if not any(parameter.dtype == torch.float16 for parameter in part.parameters(recurse=False)):
                continue
            if type(part) is nn.Embedding:
                # Looked up, not multiplied: the rows alone are cast, not the table, which may have a gigabyte.
                undo.callback(part.register_forward_hook(_cast_output).remove)
                continue
            swap = _Swap()
            undo.callback(part.register_forward_pre_hook(swap.put_float32).remove)
            undo.callback(part.register_forward_hook(swap.put_back, always_call=True).remove)
        yield


def _cast_output(module: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
    return output.float()


class _Swap:
    """A module's float16 parameters while float32 copies stand in their places."""

    def __init__(self) -> None:
        self._stored: dict[str, nn.Parameter] = {}

    def put_float32(self, module: nn.Module, given: Any) -> None:
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.dtype == torch.float16:
                self._stored[name] = parameter
        for name, parameter in self._stored.items():
            module._parameters[name] = nn.Parameter(parameter.detach().float(), requires_grad=False)

    def put_back(self, module: nn.Module, given: Any, output: Any) -> None:
        module._parameters.update(self._stored)
        self._stored = {}
