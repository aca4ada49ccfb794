"""Checkpoints: trainable parameters, optimizer state and progress, as safetensors and JSON (no pickles)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solution.errors import UserError
from solution.files import MANIFEST, atomic_folder, read_manifest, sweep_leftovers, write_json, write_manifest
from solution.progress import say

if TYPE_CHECKING:
    import torch

KIND = "training checkpoint"
NESTED = "/"


def save_checkpoint(
    folder: Path,
    parameters: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    groups: Mapping[str, Sequence[torch.Tensor]],
) -> None:
    """Write everything that a run needs to go on exactly; replaces the checkpoint before it.

    Args:
        parameters: the trainable parameters, in an order that does not change.
        state: JSON-able progress; holds a `run` key that names what is being trained.
        groups: further lists of tensors by name: the best evaluation's parameters, the moving average.
    """
    import torch
    from safetensors.torch import save_file

    tensors = {f"parameter.{i}": p.detach().cpu().contiguous() for i, p in enumerate(parameters)}
    for group, members in groups.items():
        tensors |= {f"{group}.{i}": value.cpu().contiguous() for i, value in enumerate(members)}
    numbers: dict[str, Any] = {}
    for i, values in optimizer.state_dict()["state"].items():
        for name, value in _flat(values).items():
            if isinstance(value, torch.Tensor):
                # bitsandbytes shares its quantization tables between parameters, which safetensors refuses.
                tensors[f"optimizer.{i}.{name}"] = value.detach().cpu().clone().contiguous()
            else:
                numbers[f"optimizer.{i}.{name}"] = value
    with atomic_folder(folder) as temporary:
        save_file(tensors, temporary / "tensors.safetensors")
        write_json(temporary / "state.json", {**state, "numbers": numbers})
        write_manifest(temporary, KIND)


def load_checkpoint(
    folder: Path, parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, run: str
) -> tuple[dict[str, Any], dict[str, list[torch.Tensor]]] | None:
    """Take up the checkpoint in `folder`; None when there is none of this run (a broken or other one is dropped).

    Returns:
        `state` and `groups` of `save_checkpoint` (an empty group is left out); parameters and optimizer are
        restored in place.
    """
    import torch
    from safetensors.torch import load_file

    if folder.parent.is_dir():
        sweep_leftovers(folder.parent, folder.name)
    if not (folder / MANIFEST).is_file():
        return None
    try:
        read_manifest(folder, KIND, "")
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (UserError, OSError, ValueError):
        say(f"the checkpoint in {folder} is broken; starting this fold anew")
        drop_checkpoint(folder)
        return None
    if state.get("run") != run:
        drop_checkpoint(folder)
        return None
    tensors = load_file(folder / "tensors.safetensors")
    with torch.no_grad():
        for i, parameter in enumerate(parameters):
            parameter.copy_(tensors.pop(f"parameter.{i}"))
    groups: dict[str, list[torch.Tensor]] = {}
    for group in {name.split(".")[0] for name in tensors} - {"optimizer"}:
        count = sum(name.startswith(f"{group}.") for name in tensors)
        groups[group] = [tensors.pop(f"{group}.{i}") for i in range(count)]
    restored: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **state.pop("numbers")}.items():
        _, i, key = name.split(".", 2)
        *outer, last = key.split(NESTED)
        inner = restored.setdefault(int(i), {})
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[last] = value
    current = optimizer.state_dict()
    optimizer.load_state_dict({"state": restored, "param_groups": current["param_groups"]})
    return state, groups


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """bitsandbytes' optimizers keep a part of a parameter's state in a dict of its own."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}{NESTED}") if isinstance(value, dict) else {prefix + name: value}
    return flat


def drop_checkpoint(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
