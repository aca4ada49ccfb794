"""Decoders (Llama, Phi-3, any AutoModelForCausalLM): each option scored after one shared "context + question" prefix.

All options of a question are packed behind their prefix in a single sequence. A block attention
mask lets an option see the prefix and itself only, and its positions restart behind the prefix, so
each option is scored exactly as if it stood alone, and the prefix is computed once, forward and
backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from solution.errors import UserError
from solution.rankers.base import Exam
from solution.rankers.neural import NeuralRanker, pad_rows, spread
from solution.rankers.prompts import context_text, cut_text, is_question, share_room, token_ids

SLIDING, FULL = "sliding_attention", "full_attention"
MIN_ROOM = 8  # tokens that question and option need at the very least


@dataclass(frozen=True)
class EncodedOptions:
    """One question for a generative model.

    Attributes:
        prefix: token ids of context and question.
        options: token ids of each option.
        positions: the option position of each.
    """

    prefix: list[int]
    options: list[list[int]]
    positions: list[int]


class ScoreHead(nn.Module):
    """One score an option: a linear map of its last token's state, its mean log-likelihood, or their sum."""

    def __init__(self, kind: str, hidden: int):
        super().__init__()
        self.kind = kind
        if kind != "likelihood":
            # With the likelihood beside it the new part starts at nothing, so training starts from zero-shot.
            start = torch.randn(hidden) * 0.02 if kind == "last_token" else torch.zeros(hidden)
            self.score_weight = nn.Parameter(start)
        if kind != "last_token":
            self.log_scale = nn.Parameter(torch.zeros(1))

    @property
    def needs_likelihood(self) -> bool:
        return self.kind != "last_token"

    def forward(self, last: torch.Tensor, likelihood: torch.Tensor | None) -> torch.Tensor:
        """Scores float32 [options] from states [options, hidden] and mean log-likelihoods [options]."""
        score = torch.zeros(len(last), dtype=torch.float32, device=last.device)
        if self.kind != "likelihood":
            # Outside autocast: a small product, and the score's own precision matters.
            with torch.autocast(last.device.type, enabled=False):
                score = score + last.float() @ self.score_weight
        if likelihood is not None:
            score = score + self.log_scale.exp() * likelihood.float()
        return score


class GenerativeRanker(NeuralRanker):
    """What decoders and encoder-decoders share: the prompt, the head, the dtype of the frozen weights."""

    @property
    def base_dtype(self) -> torch.dtype:
        return self.device.compute

    def _hidden_size(self) -> int:
        config = self.model.config
        return getattr(config, "hidden_size", None) or config.d_model

    def _make_head(self) -> nn.Module:
        torch.manual_seed(self.config.seed)
        head = ScoreHead(self.config.head, self._hidden_size())
        if not self.config.trains:
            head.requires_grad_(False)
        return head

    def encode_question(self, exam: Exam, row: int, passages: int, option_order: Sequence[int]) -> EncodedOptions:
        tokenizer, limit, prompt = self.tokenizer, self.config.max_tokens, self.config.prompt
        question = exam.questions.prompts[row]
        texts = [prompt.option.replace("{option}", exam.questions.options[row][i]) for i in option_order]
        counts = [len(ids) for ids in token_ids(tokenizer, texts)]
        open_book = bool(passages and exam.passages[row])
        template = prompt.without_context
        if open_book:
            template = prompt.with_context if is_question(exam, row) else prompt.instruction
        bare = template.replace("{context}", "")
        fixed = len(token_ids(tokenizer, [bare.replace("{question}", "")], special=True)[0])
        if limit - fixed < MIN_ROOM:
            raise UserError(
                f"{self.config.name}: the prompt's fixed text alone has {fixed} tokens, and max_tokens is {limit}. "
                "Raise max_tokens or shorten the prompt."
            )
        kept, longest = share_room(len(token_ids(tokenizer, [question])[0]), max(counts), limit - fixed)
        question = cut_text(tokenizer, question, kept)
        context = context_text(exam, row, passages) if open_book else ""
        context = cut_text(tokenizer, context, limit - fixed - kept - longest)
        # One pass over the template, so that braces in a text are never taken for a field.
        before, _, after = template.partition("{question}")
        while True:
            text = before.replace("{context}", context) + question + after.replace("{context}", context)
            prefix, options = self._tokenize(text, texts)
            options = [ids[:longest] if count > longest else ids for ids, count in zip(options, counts, strict=True)]
            excess = len(prefix) + max(map(len, options)) - limit
            if excess <= 0:
                return EncodedOptions(prefix, options, list(option_order))
            # Pieces may have a token more together than apart. The context gives way first.
            if context:
                context = cut_text(tokenizer, context, len(token_ids(tokenizer, [context])[0]) - excess)
            elif question:
                question = cut_text(tokenizer, question, len(token_ids(tokenizer, [question])[0]) - excess)
            else:
                longest, counts = max(1, limit - len(prefix)), [limit] * len(counts)

    def _tokenize(self, prefix: str, options: list[str]) -> tuple[list[int], list[list[int]]]:
        """Each option as it is tokenized behind the prefix; alone where the two would merge."""
        head, *whole = token_ids(self.tokenizer, [prefix, *(prefix + option for option in options)], special=True)
        if head and whole[0][-1:] == head[-1:] == [self.tokenizer.eos_token_id]:
            head, whole = head[:-1], [ids[:-1] for ids in whole]
        stand_in = [self.tokenizer.unk_token_id or self.tokenizer.pad_token_id or 0]
        return head, [
            ids[len(head) :] if ids[: len(head)] == head and len(ids) > len(head) else own or stand_in
            for ids, own in zip(whole, token_ids(self.tokenizer, options), strict=True)
        ]


class CausalRanker(GenerativeRanker):
    def _load_base(self, source: str, **options: Any) -> Any:
        from transformers import AutoModelForCausalLM

        # transformers chooses sdpa where the architecture has it, else eager: both add our float mask.
        return AutoModelForCausalLM.from_pretrained(source, **options)

    def encoded_length(self, item: EncodedOptions) -> int:
        return len(item.prefix) + sum(map(len, item.options))

    def encoded_scores(self, items: Sequence[EncodedOptions]) -> torch.Tensor:
        limit = longrope_limit(self.model.config)
        if limit is None:
            return spread(self._option_scores(items), items)
        # LongRoPE rotates a whole batch by the factors of its longest sequence. Options that are short alone
        # and options that are long alone are kept apart, so that neither changes the other.
        width = max(max(item.positions) for item in items) + 1
        places: list[int] = []
        values: list[torch.Tensor] = []
        for long in (False, True):
            parts = []
            for row, item in enumerate(items):
                chosen = [i for i, ids in enumerate(item.options) if (len(item.prefix) + len(ids) > limit) == long]
                if chosen:
                    positions = [item.positions[i] for i in chosen]
                    parts.append(EncodedOptions(item.prefix, [item.options[i] for i in chosen], positions))
                    places += [row * width + position for position in positions]
            if parts:
                values.append(self._option_scores(parts))
        flat = torch.cat(values)
        table = torch.full((len(items) * width,), -torch.inf, dtype=flat.dtype, device=flat.device)
        return table.index_put((torch.tensor(places, device=flat.device),), flat).view(len(items), width)

    def _option_scores(self, items: Sequence[EncodedOptions]) -> torch.Tensor:
        """float32 [sum of options], in the order of items and options."""
        device = self.device.torch
        causal_lm = self.model.base_model.model if hasattr(self.model, "peft_config") else self.model
        ids = pad_rows(
            [[*item.prefix, *(token for option in item.options for token in option)] for item in items],
            self.tokenizer.pad_token_id,
            device,
        )
        window = getattr(causal_lm.config, "sliding_window", None)
        kinds = sorted(set(getattr(causal_lm.config, "layer_types", None) or ()))
        biases = {}
        for kind in kinds or [SLIDING]:
            mask, positions = packed_layout(items, ids.shape[1], window if kind == SLIDING else None)
            bias = torch.zeros(mask.shape, dtype=causal_lm.dtype)
            biases[kind] = bias.masked_fill_(~mask, torch.finfo(causal_lm.dtype).min)[:, None].to(device)
        output = getattr(causal_lm, causal_lm.base_model_prefix)(
            input_ids=ids,
            # Models whose layers differ take one mask a kind.
            attention_mask=biases if len(biases) > 1 else next(iter(biases.values())),
            position_ids=positions.to(device),
            use_cache=False,
        )
        states = output.last_hidden_state
        rows, ends = [], []
        for row, item in enumerate(items):
            end = len(item.prefix)
            for option in item.options:
                end += len(option)
                rows.append(row)
                ends.append(end - 1)
        head = self.head
        assert isinstance(head, ScoreHead)
        likelihood = self._likelihood(causal_lm, states, ids, items) if head.needs_likelihood else None
        return head(states[rows, ends], likelihood)

    def _likelihood(
        self, causal_lm: Any, states: torch.Tensor, ids: torch.Tensor, items: Sequence[EncodedOptions]
    ) -> torch.Tensor:
        """Mean log-likelihood of each option's tokens, float32 [options]; logits are made only where needed."""
        rows, sources, targets, owners = [], [], [], []
        owner = 0
        for row, item in enumerate(items):
            start = len(item.prefix)
            for option in item.options:
                # The first token of an option is foretold by the last one of the prefix.
                places = range(start, start + len(option))
                rows += [row] * len(option)
                sources += [len(item.prefix) - 1, *places[:-1]]
                targets += list(places)
                owners += [owner] * len(option)
                owner += 1
                start += len(option)
        logits = causal_lm.get_output_embeddings()(states[rows, sources]).float()
        # What Gemma, Cohere and Granite do to their logits behind the output layer.
        if cap := getattr(causal_lm.config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        logits = logits * getattr(causal_lm.config, "logit_scale", 1.0)
        logits = logits / getattr(causal_lm.config, "logits_scaling", 1.0)
        picked = logits.gather(1, ids[rows, targets][:, None])[:, 0] - logits.logsumexp(dim=1)
        owners_tensor = torch.tensor(owners, device=states.device)
        sums = torch.zeros(owner, dtype=torch.float32, device=states.device).index_add(0, owners_tensor, picked)
        return sums / torch.bincount(owners_tensor, minlength=owner)

    def build(self) -> None:
        super().build()
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest and self.config.max_tokens > longest:
            raise UserError(
                f"{self.config.name}: max_tokens is {self.config.max_tokens}, and {self.config.model} reads "
                f"{longest} at most"
            )
        kinds = set(getattr(self.model.config, "layer_types", None) or ()) - {SLIDING, FULL}
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
    items: Sequence[EncodedOptions], width: int, sliding_window: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention mask and positions of packed questions.

    Args:
        items: b questions.
        width: tokens of the padded batch.
        sliding_window: how far back the model's attention reaches, where it has such a limit; a
            mask that is given to the model takes the place of its own, so the limit is put in here.

    Returns:
        Bool [b, width, width], True where the row's token sees the column's; int64 [b, width].
        A padded token sees itself only, so that its softmax is defined.
    """
    block = torch.full((len(items), width), -1)  # 0: prefix, 1, 2, ...: options, -1: padding
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
    same = block[:, :, None] == block[:, None, :]
    mask = (same | (block[:, None, :] == 0)) & (order[:, None] >= order[None, :]) & (block[:, :, None] >= 0)
    if sliding_window:
        mask &= positions[:, :, None] - positions[:, None, :] < sliding_window
    mask |= torch.eye(width, dtype=torch.bool)
    return mask, positions
