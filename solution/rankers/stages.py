"""The stages of a model that is larger than the memory: its weights, put into it a part at a time.

The stages are the embedding, every layer, and the output layer. While one computes, a thread reads the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from solution.config import RankerConfig
from solution.device import Device
from solution.errors import UserError
from solution.rankers.stored_weights import Weights


@dataclass
class Slot:
    """A weight of the model that is on disk.

    Attributes:
        names: its possible names in a checkpoint (tied weights have several).
        places: the modules that hold it, with the attribute's name.
        empty: the parameter without memory that stands in its place.
        name: its name in the checkpoint in use.
    """

    names: list[str]
    places: list[tuple[nn.Module, str]]
    empty: nn.Parameter
    name: str = ""

    def put(self, parameter: nn.Parameter) -> None:
        """Set the weight's value in all its places; `empty` takes it out of memory."""
        for module, attribute in self.places:
            module._parameters[attribute] = parameter
            if parameter is self.empty and hasattr(module, "quant_state"):
                setattr(module, "quant_state", None)  # noqa: B010 - bitsandbytes leaves a 4-bit weight's scales there too


class Stages:
    """The weights of a model that was built without any, sorted by when they are needed.

    Attributes:
        slots: all of them.
        embedding, layers, output: those of each stage.
        resident: those that are in memory all the time.
        weights: the checkpoint in use.
    """

    def __init__(self, model: Any, config: RankerConfig, device: Device, dtype: torch.dtype):
        """
        Args:
            model: a causal language model on the meta device.
            dtype: the weights' on the way into the model.

        Raises:
            UserError: the model is not built of embedding, layers and norm.
        """
        self._model, self._config, self._device, self._dtype = model, config, device, dtype
        # `read` works in a thread of its own, where "the current GPU" is the first one, whatever this thread's is.
        self._side: Any = torch.cuda.Stream() if device.kind == "cuda" else None
        self._main: Any = torch.cuda.current_stream() if device.kind == "cuda" else None
        self.weights: Weights
        backbone: Any = getattr(model, model.base_model_prefix, None)
        if not isinstance(getattr(backbone, "layers", None), nn.ModuleList) or not hasattr(backbone, "norm"):
            raise UserError(
                f"{config.name}: {config.model} is not built of embedding, `layers` and `norm` as Llama is, "
                "and cannot be streamed; set stream to false"
            )

        # A tied weight is one slot with several names and places.
        slots: dict[int, Slot] = {}
        for prefix, module in model.named_modules():
            for attribute, parameter in module._parameters.items():
                if parameter is None:
                    continue
                slot = slots.setdefault(id(parameter), Slot([], [], parameter))
                slot.names.append(f"{prefix}.{attribute}".removeprefix("."))
                slot.places.append((module, attribute))
        self.slots = list(slots.values())

        def take(module: nn.Module) -> list[Slot]:
            return [slots.pop(id(p)) for p in module.parameters() if id(p) in slots]

        self.layers = [take(layer) for layer in backbone.layers]
        output = model.get_output_embeddings()
        embedding = model.get_input_embeddings()
        self._tied = output is not None and output.weight is embedding.weight
        self.embedding = take(embedding)
        self.output = [] if output is None else take(output)
        self.resident = list(slots.values())

    def attach(self, weights: Weights) -> None:
        """Find every weight of the model in a checkpoint, and take the model's buffers from it.

        Raises:
            UserError: a weight is missing or has another shape there.
        """
        prefix = f"{self._model.base_model_prefix}."
        for slot in self.slots:
            shape = tuple(slot.empty.shape)
            # The checkpoint of a model without output layer names its tensors from below; that of a model which reads
            # pictures too, as those of its language model.
            below = [name.removeprefix(prefix) for name in slot.names]
            inside = [f"{part}{name}" for part in ("model.language_model.", "language_model.") for name in below]
            names = [*slot.names, *below, *inside, *(f"language_model.{name}" for name in slot.names)]
            stored = next((name for name in names if name in weights.shapes), None)
            if stored is None or weights.shapes[stored] != shape:
                what = "lacks" if stored is None else f"has another shape ({list(weights.shapes[stored])}) of"
                raise UserError(
                    f"{self._config.name}: the checkpoint of {self._config.model} {what} {names[0]} {list(shape)}. "
                    "stream reads tensors that are stored as the model holds them; set stream to false"
                )
            slot.name = stored
        for name, buffer in self._model.named_buffers():
            if name in weights.shapes:
                for _, tensor in weights.read([name]):
                    buffer.copy_(tensor)
        self.weights = weights

    def fill_resident(self) -> None:
        """Read the weights that are in memory all the time."""
        self._put(self.resident, self.read(self.resident))

    def in_turn(self, with_output: bool) -> Iterator[int]:
        """Put each stage's weights into the model in turn, while the next one's are read; yields its number.

        Stage 0 is the embedding, the last one the output layer: of no weights where it is not needed
        (`with_output`), or where its weights are the embedding's, which then stay in the model to the end.
        """
        stages = [self.embedding, *self.layers, self.output if with_output else []]
        staying = {id(slot) for slot in self.embedding} if self._tied and with_output else set()
        try:
            with ThreadPoolExecutor(1) as pool:
                coming = pool.submit(self.read, stages[0])
                for number, stage in enumerate(stages):
                    self._put(stage, coming.result())
                    if number + 1 < len(stages):
                        coming = pool.submit(self.read, stages[number + 1])
                    yield number
                    for slot in stage:
                        if id(slot) not in staying:
                            slot.put(slot.empty)
        finally:
            for stage in stages:
                for slot in stage:
                    slot.put(slot.empty)

    def read(self, slots: Sequence[Slot]) -> list[nn.Parameter]:
        """The weights of a stage, on the device; called in a thread of its own while the stage before computes."""
        named = {slot.name: slot for slot in slots}
        parameters = {name: self._parameter(named[name], tensor) for name, tensor in self.weights.read(list(named))}
        return [parameters[slot.name] for slot in slots]

    def _parameter(self, slot: Slot, tensor: torch.Tensor) -> nn.Parameter:
        """A stored tensor as the parameter that its slot asks for: dtype, device, and 4 bits where it has them."""
        # Always a copy: a memory-mapped tensor would be read only when a kernel touches it.
        tensor = tensor.to(self._dtype, copy=True)
        four_bit = hasattr(slot.empty, "quant_type")
        tensor = self._on_device(tensor if four_bit else tensor.to(slot.empty.dtype))
        if four_bit:
            kind: Any = type(slot.empty)
            return kind(tensor, requires_grad=False, **slot.empty.__dict__).to(tensor.device)
        return nn.Parameter(tensor, requires_grad=False)

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.kind != "cuda":
            return tensor
        # On a second stream, so that the copy runs beside the kernels of the layer before.
        with torch.cuda.stream(self._side):
            moved = tensor.pin_memory().to(self._device.torch, non_blocking=True)
        self._side.synchronize()
        moved.record_stream(self._main)
        return moved

    @staticmethod
    def _put(slots: Sequence[Slot], parameters: Sequence[nn.Parameter]) -> None:
        for slot, parameter in zip(slots, parameters, strict=True):
            slot.put(parameter)
