"""Checkpoints: trainable parameters, optimizer state and progress, as safetensors and JSON (no pickles)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solution.errors import UserError
from solution.files import MANIFEST, atomic_folder, read_manifest, sweep_leftovers, write_json, write_manifest
from solution.progress import say

if TYPE_CHECKING:
    import torch

_CHECKPOINT = "training checkpoint"  # the kind of manifest
_TENSORS, _STATE = "tensors.safetensors", "state.json"
_NESTED = "/"  # between the names of a state that is a dict in a dict


@dataclass
class Progress:
    """The state of a run beside its tensors, as its checkpoint holds it. The names are those of `state.json`.

    Attributes:
        run: a hash of all that determines the result; a checkpoint of another run is not used.
        step: updates done.
        loss: the mean loss of each step.
        level: ln(number of options), the loss of a guess, of each step's questions.
        evaluations: [step, MAP@3].
        seconds: of training before the checkpoint.
        skipped: float16 steps whose gradient overflowed.
        log: the lines of `log.csv`.
        kept_step: the step with the best evaluation, where its parameters are kept.
        stopped_step: the step at which `patience` ended the training.
        scaler: state of the loss scaling in float16.
    """

    run: str
    step: int = 0
    loss: list[float] = field(default_factory=list)
    level: list[float] = field(default_factory=list)
    evaluations: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    skipped: int = 0
    log: list[str] = field(default_factory=list)
    kept_step: int | None = None
    stopped_step: int | None = None
    scaler: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The values for `state.json`; those that are not there yet are left out."""
        return {name: value for name, value in vars(self).items() if value is not None}


def save_checkpoint(
    folder: Path,
    parameters: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    groups: Mapping[str, Sequence[torch.Tensor]],
) -> None:
    """Write everything that a run needs to go on exactly; replaces the checkpoint before it.

    Args:
        parameters: the trainable parameters, in an order that does not change.
        groups: further lists of tensors by name: the best evaluation's parameters, the moving average.
    """
    import torch
    from safetensors.torch import save_file

    # See `load_checkpoint` for the names.
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
        save_file(tensors, temporary / _TENSORS)
        write_json(temporary / _STATE, {**progress.as_json(), "numbers": numbers})
        write_manifest(temporary, _CHECKPOINT)


def load_checkpoint(
    folder: Path, parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, run: str
) -> tuple[Progress, dict[str, list[torch.Tensor]]] | None:
    """Take up the checkpoint in `folder`; None when there is none of this run (a broken or other one is dropped).

    Returns:
        `progress` and `groups` of `save_checkpoint` (an empty group is left out); parameters and optimizer are
        restored in place.
    """
    import torch
    from safetensors.torch import load_file

    if folder.parent.is_dir():
        sweep_leftovers(folder.parent, folder.name)
    if not (folder / MANIFEST).is_file():
        return None
    try:
        read_manifest(folder, _CHECKPOINT, "")
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (UserError, OSError, ValueError):
        say(f"the checkpoint in {folder} is broken; starting this fold anew")
        drop_checkpoint(folder)
        return None
    if state.get("run") != run:
        say(
            f"note: the checkpoint in {folder} is of another training (other questions or settings, or an older "
            "version of this program, which read many questions in another order); starting this one anew"
        )
        drop_checkpoint(folder)
        return None

    # Every tensor is named by what it belongs to: `parameter.3`, `average.3`, `optimizer.3.exp_avg`.
    tensors = load_file(folder / _TENSORS)
    numbers = state.pop("numbers")
    with torch.no_grad():
        for i, parameter in enumerate(parameters):
            parameter.copy_(tensors.pop(f"parameter.{i}"))
    groups: dict[str, list[torch.Tensor]] = {}
    for group in {name.split(".")[0] for name in tensors} - {"optimizer"}:
        count = sum(name.startswith(f"{group}.") for name in tensors)
        groups[group] = [tensors.pop(f"{group}.{i}") for i in range(count)]

    # What is left is the optimizer's state of each parameter; its learning rates are those of the settings.
    restored: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **numbers}.items():
        _, i, key = name.split(".", 2)
        *outer, last = key.split(_NESTED)
        inner = restored.setdefault(int(i), {})
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[last] = value
    current = optimizer.state_dict()
    optimizer.load_state_dict({"state": restored, "param_groups": current["param_groups"]})
    return Progress(**state), groups


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """bitsandbytes' optimizers keep a part of a parameter's state in a dict of its own."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}{_NESTED}") if isinstance(value, dict) else {prefix + name: value}
    return flat


def drop_checkpoint(folder: Path) -> None:
    """Remove a checkpoint that is no longer needed."""
    shutil.rmtree(folder, ignore_errors=True)
