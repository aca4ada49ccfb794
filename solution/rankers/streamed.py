"""Decoders larger than the memory: the questions pass through one layer after the other, each read from disk in turn.

The model is built without weights. All batches of questions go through a layer before the next one
takes its place, so a layer is read once for all of them, and the next is read while one is computed.
The layers' other inputs (masks, rotations) come from the model's own code, and mask, positions and
head are those of `CausalRanker`, so the scores are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solution.config import RankerConfig
from solution.errors import UserError
from solution.exam import Exam
from solution.models import empty_model, stored_quantized
from solution.rankers.attention import use_shared_prefix
from solution.rankers.causal import CausalRanker
from solution.rankers.generative import EncodedOptions, ScoreHead
from solution.rankers.layout import spread
from solution.rankers.neural import Item
from solution.rankers.stored_weights import Slot, Weights

Choices = Item[EncodedOptions]


@dataclass
class Pass:
    """A batch of packed questions on its way through the layers.

    Attributes:
        ids: int64 [b, tokens].
        states: [b, tokens, hidden].
        inputs: each layer's arguments beside the states; a mask is named by its place in `masks`.
        masks: bool [b, 1, tokens, tokens], True where a token sees another: a small part of the float ones' memory.
    """

    ids: torch.Tensor
    states: torch.Tensor
    inputs: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    masks: list[torch.Tensor] = field(default_factory=list)


class Relay(nn.Module):
    """A module in a layer's place: it notes the layer's inputs, and hands the states on unchanged."""

    def __init__(self, layer: nn.Module, calls: list[Any]):
        super().__init__()
        self._noted = (layer, calls)  # in a tuple, so that the layer is not taken for a part of this module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._noted[0], name)  # models look up a layer's kind of attention

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._noted[1].append((states, args, kwargs))
        return states


class StreamedCausalRanker(CausalRanker):
    """A `CausalRanker` that scores without ever holding its model. `fit` holds it, like any other."""

    def __init__(self, config: RankerConfig, cache: Path):
        super().__init__(config, cache)
        self.streaming = True
        self._stream_tokens = config.stream_tokens  # halved when memory runs out
        self.weights: Weights
        self._side: Any = torch.cuda.Stream() if self.device.kind == "cuda" else None

    def fit(self, train_exam: Exam, valid_exam: Exam, checkpoint: Path, logs: Path | None = None) -> dict[str, Any]:
        """See `Ranker.fit`. After training the model is in memory, and scores from there."""
        self.streaming = not self.config.trains
        return super().fit(train_exam, valid_exam, checkpoint, logs)

    # --- building ---

    def _load_base(self, source: str, **options: Any) -> Any:
        if not self.streaming:
            return super()._load_base(source, **options)
        from transformers import AutoModelForCausalLM

        if stored_quantized(source, options.get("revision")):
            raise UserError(
                f"{self.config.name}: {self.config.model} is stored quantized, and stream reads plain weights; "
                "set stream to false"
            )
        model = empty_model(AutoModelForCausalLM, source, **options)
        use_shared_prefix(model)
        self._load_dtype = options["dtype"]
        self._stages(model)
        self._attach(Weights.of_model(source, options.get("revision")), model)
        return model

    def build(self) -> None:
        if self.model is not None:
            return
        super().build()
        if not self.streaming:
            return
        # PEFT makes its parameters on the base model's device, here the meta device. `load` fills them.
        base = {id(slot.empty) for slot in self._slots}
        model: Any = self.model
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.is_meta and id(parameter) not in base:
                    real = torch.zeros(parameter.shape, dtype=parameter.dtype, device=self.device.torch)
                    module._parameters[name] = nn.Parameter(real, requires_grad=parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(self.device.torch)
        self._put(self._resident, self._read(self._resident))

    def _put_whole(self, path: Path) -> None:
        if not self.streaming:
            return super()._put_whole(path)
        self._attach(Weights([path]), self.model)
        self._put(self._resident, self._read(self._resident))

    def _stages(self, model: Any) -> None:
        """Sort the model's weights into the stages at which they are needed: embedding, layers, output, and those
        that stay in memory."""
        backbone: Any = getattr(model, model.base_model_prefix, None)
        if not isinstance(getattr(backbone, "layers", None), nn.ModuleList) or not hasattr(backbone, "norm"):
            raise UserError(
                f"{self.config.name}: {self.config.model} is not built of embedding, `layers` and `norm` as Llama is, "
                "and cannot be streamed; set stream to false"
            )
        slots: dict[int, Slot] = {}
        for prefix, module in model.named_modules():
            for attribute, parameter in module._parameters.items():
                if parameter is None:
                    continue
                slot = slots.setdefault(id(parameter), Slot([], [], parameter))
                slot.names.append(f"{prefix}.{attribute}".removeprefix("."))
                slot.places.append((module, attribute))
        self._slots = list(slots.values())

        def take(module: nn.Module) -> list[Slot]:
            return [slots.pop(id(p)) for p in module.parameters() if id(p) in slots]

        self._layers = [take(layer) for layer in backbone.layers]
        output = model.get_output_embeddings()
        embedding = model.get_input_embeddings()
        self._tied = output is not None and output.weight is embedding.weight
        self._embedding = take(embedding)
        self._output = [] if output is None else take(output)
        self._resident = list(slots.values())

    def _attach(self, weights: Weights, model: Any) -> None:
        """Find every weight of the model in a checkpoint."""
        prefix = f"{model.base_model_prefix}."
        for slot in self._slots:
            shape = tuple(slot.empty.shape)
            # The checkpoint of a model without output layer names its tensors from below.
            names = [*slot.names, *(name.removeprefix(prefix) for name in slot.names)]
            stored = next((name for name in names if name in weights.shapes), None)
            if stored is None or weights.shapes[stored] != shape:
                what = "lacks" if stored is None else f"has another shape ({list(weights.shapes[stored])}) of"
                raise UserError(
                    f"{self.config.name}: the checkpoint of {self.config.model} {what} {names[0]} {list(shape)}. "
                    "stream reads tensors that are stored as the model holds them; set stream to false"
                )
            slot.name = stored
        for name, buffer in model.named_buffers():
            if name in weights.shapes:
                for _, tensor in weights.read([name]):
                    buffer.copy_(tensor)
        self.weights = weights

    # --- reading ---

    def _read(self, slots: Sequence[Slot]) -> list[nn.Parameter]:
        """The weights of a stage, on the device; called in a thread of its own while the stage before computes."""
        named = {slot.name: slot for slot in slots}
        parameters = {name: self._parameter(named[name], tensor) for name, tensor in self.weights.read(list(named))}
        return [parameters[slot.name] for slot in slots]

    def _parameter(self, slot: Slot, tensor: torch.Tensor) -> nn.Parameter:
        """A stored tensor as the parameter that its slot asks for: dtype, device, and 4 bits where it has them."""
        # Always a copy: a memory-mapped tensor would be read only when a kernel touches it.
        tensor = tensor.to(self._load_dtype, copy=True)
        four_bit = hasattr(slot.empty, "quant_type")
        tensor = self._on_device(tensor if four_bit else tensor.to(slot.empty.dtype))
        if four_bit:
            kind: Any = type(slot.empty)
            return kind(tensor, requires_grad=False, **slot.empty.__dict__).to(tensor.device)
        return nn.Parameter(tensor, requires_grad=False)

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.kind != "cuda":
            return tensor
        # On a second stream, so that the copy runs beside the kernels of the layer before.
        main = torch.cuda.default_stream()
        with torch.cuda.stream(self._side):
            moved = tensor.pin_memory().to(self.device.torch, non_blocking=True)
        self._side.synchronize()
        moved.record_stream(main)
        return moved

    @staticmethod
    def _put(slots: Sequence[Slot], parameters: Sequence[nn.Parameter]) -> None:
        for slot, parameter in zip(slots, parameters, strict=True):
            slot.put(parameter)

    def _in_turn(self, stages: Sequence[Sequence[Slot]], staying: Sequence[Slot]) -> Iterator[int]:
        """Put each stage's weights into the model in turn, while the next one's are read; yields its number.

        Args:
            staying: slots that stay filled to the end.
        """
        to_the_end = {id(slot) for slot in staying}
        try:
            with ThreadPoolExecutor(1) as pool:
                coming = pool.submit(self._read, stages[0])
                for number, stage in enumerate(stages):
                    self._put(stage, coming.result())
                    if number + 1 < len(stages):
                        coming = pool.submit(self._read, stages[number + 1])
                    yield number
                    for slot in stage:
                        if id(slot) not in to_the_end:
                            slot.put(slot.empty)
        finally:
            for stage in stages:
                for slot in stage:
                    slot.put(slot.empty)

    # --- scoring ---

    def batch_scores(
        self, batches: Sequence[Sequence[Choices]], advance: Callable[[int], None]
    ) -> Iterator[torch.Tensor]:
        """See `NeuralRanker.batch_scores`; `stream_tokens` bounds the batches that pass through the layers together."""
        if not self.streaming:
            yield from super().batch_scores(batches, advance)
            return
        group: list[Sequence[Choices]] = []
        tokens = 0
        for batch in batches:
            more = len(batch) * max(map(self.length, batch))
            if group and tokens + more > self._stream_tokens:
                yield from self._stream(group, tokens, advance)
                group, tokens = [], 0
            group.append(batch)
            tokens += more
        yield from self._stream(group, tokens, advance)

    def use_less_memory(self) -> bool:
        """See `NeuralRanker.use_less_memory`: fewer tokens pass through the layers together."""
        before, self._stream_tokens = self._stream_tokens, self._stream_tokens // 2
        return self.streaming and before > self.config.max_tokens

    def _stream(
        self, batches: Sequence[Sequence[Choices]], tokens: int, advance: Callable[[int], None]
    ) -> Iterator[torch.Tensor]:
        """The scores of each batch; all batches, `tokens` tokens together, go through a layer before the next one."""
        # A batch is one pass through the model, or two (see `_passes`).
        encoded = [[item.encoded for item in batch] for batch in batches]
        split = [self._passes(items) for items in encoded]
        packed = [part for parts, _ in split for part in parts]
        layers = list(self.backbone.layers)
        head = self.head
        assert isinstance(head, ScoreHead)
        stages = [self._embedding, *self._layers, self._output if head.needs_likelihood else []]
        staying = self._embedding if self._tied and head.needs_likelihood else []
        home = self._home(tokens)

        passes: list[Pass] = []
        values: list[torch.Tensor] = []  # of each pass, float32 [its options]
        show = self._shown_by_layer(sum(map(len, batches)), len(packed) * len(layers), advance)
        for stage in self._in_turn(stages, staying):
            if stage == 0:  # the embedding
                passes = [self._begin(part, layers, home) for part in packed]
            elif stage <= len(layers):
                for one in passes:
                    self._pass(layers[stage - 1], stage - 1, one, home)
                    show()
            else:  # the output layer
                for part, one in zip(packed, passes, strict=True):
                    with self.device.autocast():
                        states = self.backbone.norm(one.states.to(self.device.torch))
                        values.append(self._head_scores(part, one.ids, states))

        # The values of a batch's passes together, as one table: [b, max_options].
        start = 0
        for batch, items, (parts, places) in zip(batches, encoded, split, strict=True):
            with self.device.autocast():
                scores = spread(torch.cat(values[start : start + len(parts)]), items, places)
                scores = self.with_prior(scores, batch)
            yield scores
            start += len(parts)

    @staticmethod
    def _shown_by_layer(items: int, steps: int, advance: Callable[[int], None]) -> Callable[[], None]:
        """A function to call after each of `steps` passes through a layer: it advances by a share of the items."""
        done = shown = 0

        def show() -> None:
            nonlocal done, shown
            done += 1
            advance(items * done // steps - shown)
            shown = items * done // steps

        return show

    def _home(self, tokens: int) -> torch.device:
        """The device on which the states of so many tokens wait for the next layer: the GPU if they take a small part
        of it."""
        if self.device.kind == "cuda":
            free, _ = torch.cuda.mem_get_info()
            if tokens * self._hidden_size() * self.bare_model.dtype.itemsize < free // 4:
                return self.device.torch
        return torch.device("cpu")

    def _begin(self, part: Sequence[EncodedOptions], layers: Sequence[nn.Module], home: torch.device) -> Pass:
        """Embed a batch, and note each layer's inputs, which the model's own code makes."""
        inputs = self._packed(part)
        calls: list[tuple[torch.Tensor, tuple[Any, ...], dict[str, Any]]] = []
        backbone = self.backbone
        real = backbone.layers
        backbone.layers = nn.ModuleList([Relay(layer, calls) for layer in layers])
        try:
            with self.device.autocast():
                last = backbone(**inputs).last_hidden_state
                states = calls[0][0]
                plain = torch.equal(last, backbone.norm(states))
        finally:
            backbone.layers = real
        plain = plain and len(calls) == len(layers) and all(given is states for given, _, _ in calls)
        if not plain or not all(isinstance(kwargs.get("attention_mask"), torch.Tensor) for _, _, kwargs in calls):
            raise UserError(
                f"{self.config.name}: {self.config.model} does more between its layers than hand states on, and "
                "cannot be streamed; set stream to false"
            )
        one = Pass(inputs["input_ids"], states.to(home))
        places: dict[int, int] = {}
        for _, args, kwargs in calls:
            mask = kwargs["attention_mask"]
            if id(mask) not in places:
                places[id(mask)] = len(one.masks)
                one.masks.append((mask == 0).to(home))
            one.inputs.append((args, {**kwargs, "attention_mask": places[id(mask)]}))
        return one

    def _pass(self, layer: nn.Module, number: int, one: Pass, home: torch.device) -> None:
        """Take a batch through a layer."""
        args, kwargs = one.inputs[number]
        states = one.states.to(self.device.torch)
        # The float mask that the model's code made is needed layer after layer: kept as bool, made anew each time.
        dtype = self.bare_model.dtype
        seen = one.masks[kwargs["attention_mask"]].to(self.device.torch)
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
        with self.device.autocast():
            states = layer(states, *args, **{**kwargs, "attention_mask": mask})
        if not isinstance(states, torch.Tensor):
            raise UserError(
                f"{self.config.name}: the layers of {self.config.model} give more than states, and cannot be "
                "streamed; set stream to false"
            )
        one.states = states.to(home)
        one.inputs[number] = ((), {})  # not needed again
