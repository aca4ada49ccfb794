"""Decoders larger than the memory: the questions pass through one layer after the other, each read from disk in turn.

The model is built without weights. All batches of questions go through a layer before the next one
takes its place, so a layer is read once for all of them, and the next is read while one is computed.
The layers' other inputs (masks, rotations) come from the model's own code, and mask, positions and
head are those of `CausalRanker`, so the scores are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from solution.rankers.causal import CausalRanker, unpacked_reason
from solution.rankers.generative import EncodedOptions, ScoreHead
from solution.rankers.layout import spread
from solution.rankers.neural import Item
from solution.rankers.stages import Stages
from solution.rankers.stored_weights import Weights

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
        self._reduced_tokens: int | None = None  # `_stream_tokens` since memory ran out; None: it never has
        self.stages: Stages

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
        if (reason := unpacked_reason(model)) is not None:
            raise UserError(
                f"{self.config.name}: {self.config.model} {reason}, and stream passes options packed behind one "
                "prefix from layer to layer; set stream to false"
            )
        use_shared_prefix(model)
        self.stages = Stages(model, self.config, self.device, options["dtype"])
        self.stages.attach(Weights.of_model(source, options.get("revision")))
        return model

    def build(self) -> None:
        if self.model is not None:
            return
        super().build()
        if not self.streaming:
            return
        # PEFT makes its parameters on the base model's device, here the meta device. `load` fills them.
        base = {id(slot.empty) for slot in self.stages.slots}
        model: Any = self.model
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.is_meta and id(parameter) not in base:
                    real = torch.zeros(parameter.shape, dtype=parameter.dtype, device=self.device.torch)
                    module._parameters[name] = nn.Parameter(real, requires_grad=parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(self.device.torch)
        self.stages.fill_resident()

    def _put_whole(self, path: Path) -> None:
        if not self.streaming:
            return super()._put_whole(path)
        self.stages.attach(Weights([path]))
        self.stages.fill_resident()

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

    @property
    def _stream_tokens(self) -> int:
        """Tokens that may pass through the layers together."""
        setting = self.config.stream_tokens
        if self.state_dtype.itemsize > self.bare_model.dtype.itemsize:  # see `float32.in_float32`
            setting //= 2
        return setting if self._reduced_tokens is None else min(setting, self._reduced_tokens)

    def use_less_memory(self) -> bool:
        """See `NeuralRanker.use_less_memory`: fewer tokens pass through the layers together."""
        before = self._stream_tokens
        self._reduced_tokens = before // 2
        return self.streaming and before > self.config.max_tokens

    def _stream(
        self, batches: Sequence[Sequence[Choices]], tokens: int, advance: Callable[[int], None]
    ) -> Iterator[torch.Tensor]:
        """The scores of each batch; all batches, `tokens` tokens together, go through a layer before the next one."""
        # A batch is one pass through the model, or several (see `_passes`).
        encoded = [[item.encoded for item in batch] for batch in batches]
        split = [self._passes(items) for items in encoded]
        packed = [part for parts in split for part in parts]
        layers = list(self.backbone.layers)
        head = self.head
        assert isinstance(head, ScoreHead)
        home = self._home(tokens)

        passes: list[Pass] = []
        values: list[torch.Tensor] = []  # of each pass, float32 [its options]
        show = self._shown_by_layer(sum(map(len, batches)), len(packed) * len(layers), advance)
        for stage in self.stages.in_turn(with_output=head.needs_likelihood):
            if stage == 0:  # the embedding
                for part in packed:
                    with self._weights(part.prior):
                        passes.append(self._begin(part.items, layers, home))
            elif stage <= len(layers):
                for part, one in zip(packed, passes, strict=True):
                    with self._weights(part.prior):
                        self._pass(layers[stage - 1], stage - 1, one, home)
                    show()
            else:  # the output layer
                for part, one in zip(packed, passes, strict=True):
                    with self.device.autocast():
                        with self._weights(part.prior):
                            states = self.backbone.norm(one.states.to(self.device.torch))
                        values.append(self._head_scores(part, one.ids, states))

        # The values of a batch's passes together, as one table: [b, max_options].
        start = 0
        for batch, items, parts in zip(batches, encoded, split, strict=True):
            with self.device.autocast():
                scores = spread(self._summed(values[start : start + len(parts)], parts), items)
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
            if tokens * self._hidden_size() * self.state_dtype.itemsize < free // 4:
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
                # Overflown embeddings are NaN on both sides: scoring says what to do about them.
                plain = torch.equal(last.nan_to_num(), backbone.norm(states).nan_to_num())
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
        dtype = self.state_dtype
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
