"""Decoders (Llama, Phi-3, any AutoModelForCausalLM): each option scored after one shared "context + question" prefix.

All options of a question are packed behind their prefix in a single sequence. A block attention
mask lets an option see the prefix and itself only, and its positions restart behind the prefix, so
each option is scored exactly as if it stood alone, and the prefix is computed once, forward and
backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from solution.errors import UserError
from solution.learning import distributed
from solution.rankers.attention import causal_tokens, use_shared_prefix
from solution.rankers.generative import EncodedOptions, GenerativeRanker, ScoreHead
from solution.rankers.layout import flat_places, pad_rows, spread, table_width

SLIDING, FULL_ATTENTION = "sliding_attention", "full_attention"


class CausalRanker(GenerativeRanker):
    def _load_base(self, source: str, **options: Any) -> Any:
        from transformers import AutoModelForCausalLM

        # transformers chooses sdpa where the architecture has it, else eager: both add our float mask.
        model = self.pretrained_model(AutoModelForCausalLM, source, **options)
        use_shared_prefix(model)
        return model

    def encoded_length(self, encoded: EncodedOptions) -> int:
        return len(encoded.prefix) + sum(map(len, encoded.options))

    def encoded_scores(self, items: Sequence[EncodedOptions]) -> torch.Tensor:
        batches, places = self._passes(items)
        return spread(torch.cat([self._option_scores(batch) for batch in batches]), items, places)

    def _passes(self, items: Sequence[EncodedOptions]) -> tuple[list[list[EncodedOptions]], list[int]]:
        """The batches in which questions pass through the model, and the `flat_places` of their options in turn.

        LongRoPE rotates a whole batch by the factors of its longest sequence. Options that are short alone
        and options that are long alone are kept apart, so that neither changes the other.
        """
        limit = longrope_limit(self.model.config)
        if limit is None:
            return [list(items)], flat_places(items)
        width = table_width(items)
        places: list[int] = []
        passes: list[list[EncodedOptions]] = []
        for long in (False, True):
            batch = []
            for row, item in enumerate(items):
                chosen = [i for i, ids in enumerate(item.options) if (len(item.prefix) + len(ids) > limit) == long]
                if chosen:
                    positions = [item.positions[i] for i in chosen]
                    batch.append(EncodedOptions(item.prefix, [item.options[i] for i in chosen], positions))
                    places += [row * width + position for position in positions]
            if batch:
                passes.append(batch)
        return passes, places

    @property
    def backbone(self) -> Any:
        """The decoder without its output layer."""
        return getattr(self.bare_model, self.bare_model.base_model_prefix)

    def _option_scores(self, items: Sequence[EncodedOptions]) -> torch.Tensor:
        """float32 [sum of options], in the order of items and options."""
        inputs = self._packed(items)
        return self._head_scores(items, inputs["input_ids"], self.backbone(**inputs).last_hidden_state)

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
            bias = torch.zeros(mask.shape, dtype=causal_lm.dtype)
            biases[kind] = bias.masked_fill_(~mask, torch.finfo(causal_lm.dtype).min)[:, None].to(device)
        return {
            "input_ids": ids,
            # Models whose layers differ take one mask a kind.
            "attention_mask": biases if len(biases) > 1 else next(iter(biases.values())),
            "position_ids": positions.to(device),
            "use_cache": False,
        }

    def _head_scores(self, items: Sequence[EncodedOptions], ids: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """float32 [sum of options] from the backbone's last states, [b, tokens, hidden]."""
        rows, ends = [], []
        for row, item in enumerate(items):
            end = len(item.prefix)
            for option in item.options:
                end += len(option)
                rows.append(row)
                ends.append(end - 1)  # the option's last token
        head = self.head
        assert isinstance(head, ScoreHead)
        likelihood = self._likelihood(states, ids, items) if head.needs_likelihood else None
        return head(states[rows, ends], likelihood, torch.tensor(rows, device=states.device))

    def _likelihood(self, states: torch.Tensor, ids: torch.Tensor, items: Sequence[EncodedOptions]) -> torch.Tensor:
        """Mean log-likelihood of each option's tokens, float32 [options]; logits are made only where needed."""
        causal_lm = self.bare_model
        rows, sources, targets, owners = [], [], [], []
        owner = 0
        for row, item in enumerate(items):
            start = len(item.prefix)
            for option in item.options:
                # A token is predicted by the one before it, the first of an option by the last of the prefix.
                places = range(start, start + len(option))
                rows += [row] * len(option)
                sources += [len(item.prefix) - 1, *places[:-1]]
                targets += list(places)
                owners += [owner] * len(option)
                owner += 1
                start += len(option)
        logits = causal_lm.get_output_embeddings()(states[rows, sources]).float()
        # Gemma, Cohere and Granite cap or scale their logits behind the output layer.
        if cap := getattr(causal_lm.config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        factor = getattr(causal_lm.config, "logit_scale", 1.0) / getattr(causal_lm.config, "logits_scaling", 1.0)
        if factor != 1.0:  # a whole pass over tokens x vocabulary
            logits = logits * factor
        picked = logits.gather(1, ids[rows, targets][:, None])[:, 0] - logits.logsumexp(dim=1)
        owners_tensor = torch.tensor(owners, device=states.device)
        sums = torch.zeros(owner, dtype=torch.float32, device=states.device).index_add(0, owners_tensor, picked)
        return sums / torch.bincount(owners_tensor, minlength=owner)

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
        kinds = set(getattr(self.model.config, "layer_types", None) or ()) - {SLIDING, FULL_ATTENTION}
        if kinds or getattr(self.model, "_is_stateful", False):
            raise UserError(
                f"{self.config.name}: {self.config.model} has layers that are not attention "
                f"({', '.join(sorted(kinds)) or 'a recurrent state'}); options behind one prefix cannot be kept "
                "apart in them. Use a model of attention layers only."
            )


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
