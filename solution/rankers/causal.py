"""Decoders (Llama, Phi-3, any AutoModelForCausalLM): each option scored after one shared "context + question" prefix.

All options of a question are packed behind their prefix in a single sequence. A block attention
mask lets an option see the prefix and itself only, and its positions restart behind the prefix, so
each option is scored exactly as if it stood alone, and the prefix is computed once, forward and
backward.

A mask keeps options apart in attention only. A model with other layers (recurrent states, convolutions) reads
each option as a sequence of its own, and the prefix once for every option.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from solution.errors import UserError
from solution.exam import Exam
from solution.learning import distributed
from solution.models import other_layers
from solution.progress import say
from solution.rankers.attention import causal_tokens, use_shared_prefix
from solution.rankers.generative import EncodedOptions, GenerativeRanker, ScoreHead, ScoringPass
from solution.rankers.layout import pad_rows
from solution.rankers.neural import Item

SLIDING = "sliding_attention"
_ROUNDING = {True: 0.01, False: 0.2}  # the share by which the same states may differ, in float32 and in half precision
SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


class OptionPlace(NamedTuple):
    """The place of an option's tokens in a batch.

    Attributes:
        row: the row of the batch.
        start: the column of the option's first token.
        before: the column of the prefix's last token, in the same row.
        length: tokens of the option.
        question: number of its question in the batch.
    """

    row: int
    start: int
    before: int
    length: int
    question: int


class CausalRanker(GenerativeRanker):
    encodes_with = (*GenerativeRanker.encodes_with, "packs")

    def _load_base(self, source: str, **options: Any) -> Any:
        from transformers import AutoModelForCausalLM

        # transformers chooses sdpa where the architecture has it, else eager: both add our float mask.
        model = self.pretrained_model(AutoModelForCausalLM, source, **options)
        use_shared_prefix(model)
        return model

    def encoded_length(self, encoded: EncodedOptions) -> int:
        times = 1 if self.packs else len(encoded.options)
        options = sum(map(len, encoded.options))
        prior = 0 if encoded.prior is None else times * len(encoded.prior) + options
        return times * len(encoded.prefix) + options + prior

    def parts(self, item: Item[EncodedOptions]) -> list[Item[EncodedOptions]]:
        """See `NeuralRanker.parts`: every option alone where it is a sequence of its own."""
        if self.packs or self.config.head_others:
            return [item]
        encoded = item.encoded
        return [
            Item(replace(encoded, options=[option], positions=[position]), item.prior[i : i + 1])
            for i, (option, position) in enumerate(zip(encoded.options, encoded.positions, strict=True))
        ]

    def _passes(self, items: Sequence[EncodedOptions]) -> list[ScoringPass]:
        """See `GenerativeRanker._passes`.

        LongRoPE rotates a whole batch by the factors of its longest sequence. Options that are short alone
        and options that are long alone are kept apart, so that neither changes the other.
        """
        passes, limit = super()._passes(items), longrope_limit(self.model.config)
        return passes if limit is None else [part for one in passes for part in split_by_length(one, limit)]

    @property
    def backbone(self) -> Any:
        """The decoder without its output layer."""
        return decoder_of(self.bare_model)

    def _option_scores(self, one: ScoringPass) -> torch.Tensor:
        inputs = self._packed(one.items) if self.packs else self._unpacked(one.items)
        with self._weights(one.prior):
            states = self.backbone(**inputs).last_hidden_state
        return self._head_scores(one, inputs["input_ids"], states)

    @functools.cached_property
    def packs(self) -> bool:
        """True where options are packed behind one prefix; False where each of them is a sequence of its own."""
        return unpacked_reason(self.bare_model) is None

    def _unpacked(self, items: Sequence[EncodedOptions]) -> dict[str, Any]:
        """The arguments of the backbone: every option behind its prefix in a row of its own, padded on the right."""
        rows = [[*item.prefix, *option] for item in items for option in item.options]
        ids = pad_rows(rows, self.tokenizer.pad_token_id, self.device.torch)
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
        if "attention_mask" in inspect.signature(self.backbone.forward).parameters:
            lengths = torch.tensor([len(row) for row in rows], device=ids.device)
            inputs["attention_mask"] = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
        return inputs

    def _packed(self, items: Sequence[EncodedOptions]) -> dict[str, Any]:
        """The arguments of the backbone: every option of a question behind its prefix, kept apart by the mask."""
        device, causal_lm = self.device.torch, self.bare_model
        ids = pad_rows(
            [[*item.prefix, *(token for option in item.options for token in option)] for item in items],
            self.tokenizer.pad_token_id,
            device,
        )
        window = getattr(causal_lm.config, "sliding_window", None)
        kinds = sorted(set(getattr(causal_lm.config, "layer_types", None) or ()))
        biases = {}
        for kind in kinds or [SLIDING]:
            reach = window if kind == SLIDING else None
            first = causal_tokens(causal_lm, [len(item.prefix) for item in items], ids.shape[1], reach)
            mask, positions = packed_layout(items, ids.shape[1], reach, first)
            bias = torch.zeros(mask.shape, dtype=self.state_dtype)
            biases[kind] = bias.masked_fill_(~mask, torch.finfo(bias.dtype).min)[:, None].to(device)
        return {
            "input_ids": ids,
            # Models whose layers differ take one mask a kind.
            "attention_mask": biases if len(biases) > 1 else next(iter(biases.values())),
            "position_ids": positions.to(device),
            "use_cache": False,
        }

    def _head_scores(self, one: ScoringPass, ids: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """See `_option_scores`, from the backbone's last states, [rows, tokens, hidden]."""
        places = option_places(one.items, self.packs)
        head = self.head
        assert isinstance(head, ScoreHead)
        with self._weights(one.prior):
            likelihood = self._likelihood(states, ids, places) if head.needs_likelihood else None
        if one.prior:
            assert likelihood is not None
            return likelihood
        questions = torch.tensor([place.question for place in places], device=states.device)
        return head(last_states(states, places), likelihood, questions)

    def _likelihood(self, states: torch.Tensor, ids: torch.Tensor, places: Sequence[OptionPlace]) -> torch.Tensor:
        """Mean log-likelihood of each option's tokens, float32 [options]; logits are made only where needed."""
        rows, sources, targets, owners = [], [], [], []
        for owner, place in enumerate(places):
            # A token is predicted by the one before it, the first of an option by the last of the prefix.
            columns = range(place.start, place.start + place.length)
            rows += [place.row] * place.length
            sources += [place.before, *columns[:-1]]
            targets += list(columns)
            owners += [owner] * place.length
        logits = scaled_logits(self.bare_model, states[rows, sources])
        picked = logits.gather(1, ids[rows, targets][:, None])[:, 0] - logits.logsumexp(dim=1)
        owners_tensor = torch.tensor(owners, device=states.device)
        sums = torch.zeros(len(places), dtype=torch.float32, device=states.device)
        sums = sums.index_add(0, owners_tensor, picked)
        return sums / torch.bincount(owners_tensor, minlength=len(places))

    def _check_before_training(self, exam: Exam) -> None:
        """Refuse an architecture that this family reads otherwise than the model's own code does.

        Two options of a question are scored as the ranker does it, and as two sequences that the whole model reads.
        The bounds leave room for rounding; a mask or an output layer that is not understood is off by far more.
        """
        head = self.head
        assert isinstance(head, ScoreHead)
        if distributed.shards():
            return  # one pass more of the whole model would have to be gathered otherwise
        order = [i for i, option in enumerate(exam.questions.options[0]) if option][:2]
        items = [self.encode_question(exam, 0, 0, order)]  # without passages: it costs next to nothing
        if sum(not one.prior for one in self._passes(items)) > 1:  # LongRoPE tells the two apart
            items = [self.encode_question(exam, 0, 0, order[:1])]
        packed, places = option_places(items, self.packs), option_places(items, packed=False)
        with torch.no_grad(), self.device.autocast():
            inputs = self._packed(items) if self.packs else self._unpacked(items)
            states = self.backbone(**inputs).last_hidden_state
            plain = self._unpacked(items)
            wanted = self.backbone(**plain).last_hidden_state
            pairs = [(last_states(states, packed), last_states(wanted, places))]
            if head.needs_likelihood:
                logits = self.bare_model(**plain).logits.float()
                rows, columns = zip(*((place.row, place.before) for place in places), strict=True)
                pairs.append((scaled_logits(self.bare_model, wanted[rows, columns]), logits[rows, columns]))
        share = _ROUNDING[self.bare_model.dtype.itemsize == 4 and self.device.compute == torch.float32]
        for got, right in pairs:
            if not torch.isfinite(torch.cat([got, right])).all():
                return  # training and scoring say what to do about that
            difference = float((got - right).float().norm() / right.float().norm().clamp(min=1e-9))
            if difference > share:
                raise UserError(
                    f"{self.config.name}: {self.config.model} (architecture {self.bare_model.config.model_type}) does "
                    "more between its last layer and its answer, or between its tokens, than a causal ranker knows of "
                    f"(its {'states' if got is pairs[0][0] else 'logits'} differ by {difference:.0%}). Such a model "
                    "cannot be used; choose another architecture"
                )

    def build(self) -> None:
        super().build()
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest and 0 < longest < self.config.max_tokens:
            raise UserError(
                f"{self.config.name}: max_tokens is {self.config.max_tokens}, and {self.config.model} reads "
                f"{longest} at most"
            )
        limit = longrope_limit(self.model.config)
        if distributed.shards() and limit is not None and self.config.max_tokens > limit:
            raise UserError(
                f"{self.config.name}: with FSDP, max_tokens may be {limit} at most for {self.config.model}: longer "
                "sequences take passes of their own, and the processes would no longer keep step"
            )
        reason = unpacked_reason(self.bare_model)
        if reason is not None and self.device.kind != "meta":  # on the meta device a plan is made, and nothing is read
            say(
                f"{self.config.name}: {self.config.model} {reason}: each option is read as a sequence of its own, and "
                "the context again for every option. With five options this takes about five times the time"
            )


def split_by_length(one: ScoringPass, limit: int) -> list[ScoringPass]:
    """A pass as one of its options that are at most `limit` tokens with their prefixes, and one of the longer ones."""
    passes = []
    starts = np.cumsum([0, *(len(item.options) for item in one.items)])
    for long in (False, True):
        items: list[EncodedOptions] = []
        places: list[int] = []
        for start, item in zip(starts, one.items, strict=False):
            chosen = [i for i, ids in enumerate(item.options) if (len(item.prefix) + len(ids) > limit) == long]
            if chosen:
                options, positions = [item.options[i] for i in chosen], [item.positions[i] for i in chosen]
                items.append(replace(item, options=options, positions=positions))
                places += [one.places[int(start) + i] for i in chosen]
        if items:
            passes.append(ScoringPass(items, places, one.prior))
    return passes


def unpacked_reason(model: Any) -> str | None:
    """The reason why a decoder's options cannot share one prefix, as the end of a sentence; None where they can."""
    others, told = other_layers(model.config), getattr(model.config, "layer_types", None)
    if others or (not told and getattr(model, "_is_stateful", False)):
        return f"has layers that are not attention ({', '.join(others) or 'a recurrent state'})"
    takes_positions = "position_ids" in inspect.signature(decoder_of(model).forward).parameters
    if not takes_positions or getattr(model.config, "alibi", False):
        return "counts positions along the whole row"
    return None


def decoder_of(model: Any) -> Any:
    """A causal language model's decoder, without the output layer."""
    # Llama 4's class names another prefix than the decoder has in it.
    return getattr(model, model.base_model_prefix, None) or model.model


def last_states(states: torch.Tensor, places: Sequence[OptionPlace]) -> torch.Tensor:
    """The state of each option's last token, [options, hidden]."""
    return states[[place.row for place in places], [place.start + place.length - 1 for place in places]]


def option_places(items: Sequence[EncodedOptions], packed: bool) -> list[OptionPlace]:
    """Where each option of the questions lies in their batch, in the order of items and options."""
    places: list[OptionPlace] = []
    for question, item in enumerate(items):
        before = len(item.prefix) - 1
        start = before + 1
        for option in item.options:
            row = question if packed else len(places)
            places.append(OptionPlace(row, start, before, len(option), question))
            start += len(option) if packed else 0
    return places


def scaled_logits(model: Any, states: torch.Tensor) -> torch.Tensor:
    """The logits of a decoder from its backbone's last states, float32 [tokens, vocabulary].

    Some models cap or scale their logits behind the output layer: Gemma, Cohere, Granite, Falcon-H1.
    """
    logits = model.get_output_embeddings()(states).float()
    config = model.config
    cap = next((value for name in SOFT_CAPS if (value := getattr(config, name, None))), None)
    if cap:
        logits = torch.tanh(logits / cap) * cap
    factor = getattr(config, "logit_scale", None) or 1.0
    factor *= getattr(config, "lm_head_multiplier", None) or 1.0
    factor /= getattr(config, "logits_scaling", None) or 1.0
    if factor != 1.0:  # a whole pass over tokens x vocabulary
        logits = logits * factor
    return logits


def longrope_limit(config: Any) -> int | None:
    """The length beyond which a LongRoPE model (Phi-3 128k) uses its long factors; None for other models."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return None
    return rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)


def packed_layout(
    items: Sequence[EncodedOptions], width: int, sliding_window: int | None = None, first: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention mask and positions of packed questions.

    Args:
        items: b questions.
        width: tokens of the padded batch.
        sliding_window: how far back the model's attention reaches, where it has such a limit; a
            mask that is given to the model takes the place of its own, so the limit is put in here.
        first: the mask's first row; see `shared_prefix_attention`.

    Returns:
        Bool [b, width - first, width], True where the row's token sees the column's; int64 [b, width].
        A padded token sees itself only, so that its softmax is defined.
    """
    block = torch.full((len(items), width), -1)  # [b, width]; 0: prefix, 1, 2, ...: options, -1: padding
    positions = torch.zeros((len(items), width), dtype=torch.int64)
    for row, item in enumerate(items):
        start = len(item.prefix)
        block[row, :start] = 0
        positions[row, :start] = torch.arange(start)
        for number, option in enumerate(item.options, 1):
            end = start + len(option)
            block[row, start:end] = number
            positions[row, start:end] = len(item.prefix) + torch.arange(len(option))
            start = end
    order = torch.arange(width)
    # [b, rows, 1] against [b, 1, columns]: a token sees its own block and the prefix, at or before its own place.
    seeing, seen = block[:, first:, None], block[:, None, :]
    mask = ((seeing == seen) | (seen == 0)) & (order[first:, None] >= order) & (seeing >= 0)
    if sliding_window:
        mask &= positions[:, first:, None] - positions[:, None, :] < sliding_window
    mask |= order[first:, None] == order
    return mask, positions
