"""Decoders (Llama, Phi-3, any AutoModelForCausalLM): each option scored after one shared "context + question" prefix.

All options of a question are packed behind their prefix in a single sequence. A block attention
mask lets an option see the prefix and itself only, and its positions restart behind the prefix, so
each option is scored exactly as if it stood alone, and the prefix is computed once, forward and
backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from solution.config import RankerConfig
from solution.errors import UserError
from solution.files import read_json, write_json
from solution.questions import LETTERS
from solution.rankers.attention import causal_tokens, use_shared_prefix
from solution.rankers.base import Exam
from solution.rankers.neural import NeuralRanker, flat_places, pad_rows, spread, table_width
from solution.rankers.prompts import (
    context_text,
    cut_text,
    is_question,
    listed_options,
    question_room,
    question_with_options,
    share_room,
    shorten,
    token_ids,
)
from solution.training import distributed

SLIDING, FULL = "sliding_attention", "full_attention"
EXAMPLES = "examples.json"
BETWEEN = "\n\n"  # between an example and what follows
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


@dataclass(frozen=True)
class Example:
    """An answered question of the training folds, shown in the prompt."""

    id: str
    prompt: str
    options: list[str]
    answer: int


class ScoreHead(nn.Module):
    """One score an option: a linear map of its last token's state, its mean log-likelihood, or their sum.

    With `others` a small hidden layer adds what the state says beside the mean state of the question's
    other options (the winners of the Kaggle exam fed their heads such a mean). It is not linear on purpose:
    under a softmax over the options a linear term of that mean is the same as one of the option's own state.
    """

    OTHERS = 64  # width of the hidden layer

    def __init__(self, kind: str, hidden: int, others: bool = False):
        super().__init__()
        self.kind = kind
        self.trained = kind in ("last_token", "both")
        if self.trained:
            # With the likelihood beside it the new part starts at nothing, so training starts from zero-shot.
            start = torch.randn(hidden) * 0.02 if kind == "last_token" else torch.zeros(hidden)
            self.score_weight = nn.Parameter(start)
        if kind != "last_token":
            self.log_scale = nn.Parameter(torch.zeros(1))
        if others:
            self.others_weight = nn.Parameter(torch.randn(self.OTHERS, 2 * hidden) * (2 * hidden) ** -0.5)
            self.others_out = nn.Parameter(torch.zeros(self.OTHERS))

    @property
    def needs_likelihood(self) -> bool:
        return self.kind != "last_token"

    def forward(self, last: torch.Tensor, likelihood: torch.Tensor | None, owners: torch.Tensor) -> torch.Tensor:
        """Scores float32 [options].

        Args:
            last: states of each option's last token, [options, hidden].
            likelihood: mean log-likelihoods, [options].
            owners: which question each option is of, int64 [options], from 0.
        """
        score = torch.zeros(len(last), dtype=torch.float32, device=last.device)
        # Outside autocast: small products, and the score's own precision matters.
        with torch.autocast(last.device.type, enabled=False):
            if self.trained:
                score = score + last.float() @ self.score_weight
            if hasattr(self, "others_out"):
                states = last.float()
                sums = torch.zeros(int(owners.max()) + 1, states.shape[1], device=last.device)
                sums = sums.index_add(0, owners, states)
                counts = torch.bincount(owners)[owners][:, None]
                others = (sums[owners] - states) / (counts - 1).clamp(min=1)
                score = score + torch.tanh(torch.cat([states, others], 1) @ self.others_weight.T) @ self.others_out
        if likelihood is not None:
            score = score + self.log_scale.exp() * likelihood.float()
        return score


class GenerativeRanker(NeuralRanker):
    """What decoders and encoder-decoders share: the prompt, the head, the dtype of the frozen weights."""

    def __init__(self, config: RankerConfig, cache: Path):
        super().__init__(config, cache)
        self.examples: list[Example] = []

    @property
    def base_dtype(self) -> torch.dtype:
        return self.device.compute

    @property
    def bare_model(self) -> Any:
        """The model below PEFT's wrapper."""
        return self.model.base_model.model if hasattr(self.model, "peft_config") else self.model

    def _hidden_size(self) -> int:
        config = self.model.config
        return getattr(config, "hidden_size", None) or config.d_model

    def _make_head(self) -> nn.Module:
        torch.manual_seed(self.config.seed)
        head = ScoreHead(self.config.head, self._hidden_size(), self.config.head_others)
        if not self.config.trains:
            head.requires_grad_(False)
        return head

    def build(self) -> None:
        super().build()
        if self.config.prompt.chat and not getattr(self.tokenizer, "chat_template", None):
            raise UserError(f"{self.config.name}: {self.config.model} has no chat template; set prompt.chat to false")

    # --- examples from the training folds ---

    def fit(self, train_exam: Exam, valid_exam: Exam, checkpoint: Path, logs: Path | None = None) -> dict[str, Any]:
        """See `Ranker.fit`."""
        self.examples = choose_examples(train_exam, self.config)
        return super().fit(train_exam, valid_exam, checkpoint, logs)

    def save(self, folder: Path) -> None:
        """See `Ranker.save`."""
        super().save(folder)
        if self.config.prompt.few_shot:
            write_json(folder / EXAMPLES, [vars(example) for example in self.examples])

    def load(self, folder: Path) -> None:
        """See `Ranker.load`."""
        super().load(folder)
        if self.config.prompt.few_shot:
            self.load_examples(folder)

    def load_examples(self, folder: Path) -> None:
        """Take the prompt's examples that were saved with a fold."""
        stored = read_json(folder / EXAMPLES, "the examples of the prompt", "Train that fold again.")
        self.examples = [Example(**values) for values in stored]

    # --- the prompt ---

    def _option_texts(self, options: Sequence[str]) -> list[str]:
        """What stands for each option: its text, or its letter where the options are listed for that."""
        shown = LETTERS[: len(options)] if self.config.head == "letters" else options
        return [self.config.prompt.option.replace("{option}", text) for text in shown]

    def _shots(self, exam: Exam, row: int) -> list[tuple[str, str]]:
        """The examples as (question, answer) texts; a question is never its own example."""
        config = self.config
        own = (exam.questions.ids[row], exam.questions.prompts[row])
        others = [example for example in self.examples if own[0] != example.id and own[1] != example.prompt]
        shots = []
        for example in others[: config.prompt.few_shot]:
            text = example.prompt + (listed_options(example.options) if config.lists_options else "")
            before, _, after = config.prompt.without_context.partition("{question}")
            shots.append((before + text + after, self._option_texts(example.options)[example.answer]))
        return shots

    def _prefix_text(self, template: str, context: str, question: str, shots: Sequence[tuple[str, str]]) -> str:
        # One pass over the template, so that braces in a text are never taken for a field.
        before, _, after = template.partition("{question}")
        text = before.replace("{context}", context) + question + after.replace("{context}", context)
        if not self.config.prompt.chat:
            return "".join(f"{asked}{answer}{BETWEEN}" for asked, answer in shots) + text
        turns = []
        for asked, answer in shots:
            turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer.strip()}]
        turns.append({"role": "user", "content": text})
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def encode_question(self, exam: Exam, row: int, passages: int, option_order: Sequence[int]) -> EncodedOptions:
        tokenizer, limit, prompt = self.tokenizer, self.config.max_tokens, self.config.prompt
        options = [exam.questions.options[row][i] for i in option_order]
        texts = self._option_texts(options)
        counts = [len(ids) for ids in token_ids(tokenizer, texts)]
        open_book = bool(passages and exam.passages[row])
        template = prompt.without_context
        if open_book:
            template = prompt.with_context if is_question(exam, row) else prompt.instruction
        shots = self._shots(exam, row)
        fixed = len(self._tokenize(self._prefix_text(template, "", "", shots), [])[0])
        room = limit - fixed
        if room < MIN_ROOM:
            raise UserError(
                f"{self.config.name}: the prompt's fixed text alone has {fixed} tokens, and max_tokens is {limit}. "
                "Raise max_tokens, shorten the prompt or set a smaller prompt.few_shot."
            )
        question = exam.questions.prompts[row]
        if self.config.lists_options:
            question = question_with_options(tokenizer, question, options, question_room(max(counts), room))
        kept, longest = share_room(len(token_ids(tokenizer, [question])[0]), max(counts), room)
        question = cut_text(tokenizer, question, kept)
        context = context_text(exam, row, passages) if open_book else ""
        context = cut_text(tokenizer, context, room - kept - longest)
        while True:
            prefix, encoded = self._tokenize(self._prefix_text(template, context, question, shots), texts)
            encoded = [ids[:longest] if count > longest else ids for ids, count in zip(encoded, counts, strict=True)]
            excess = len(prefix) + max(map(len, encoded)) - limit
            if excess <= 0:
                return EncodedOptions(prefix, encoded, list(option_order))
            # Pieces may have a token more together than apart. The context gives way first.
            if context:
                context = shorten(tokenizer, context, excess)
            elif question:
                question = shorten(tokenizer, question, excess)
            else:
                longest, counts = max(1, limit - len(prefix)), [limit] * len(counts)

    def _tokenize(self, prefix: str, options: list[str]) -> tuple[list[int], list[list[int]]]:
        """Each option as it is tokenized behind the prefix; alone where the two would merge."""
        # A chat template writes its special tokens itself.
        special = not self.config.prompt.chat
        head, *whole = token_ids(self.tokenizer, [prefix, *(prefix + option for option in options)], special=special)
        if special and head[-1:] == [self.tokenizer.eos_token_id]:
            head, whole = head[:-1], [ids[:-1] for ids in whole]
        stand_in = [self.tokenizer.unk_token_id or self.tokenizer.pad_token_id or 0]
        return head, [
            ids[len(head) :] if ids[: len(head)] == head and len(ids) > len(head) else own or stand_in
            for ids, own in zip(whole, token_ids(self.tokenizer, options), strict=True)
        ]


def choose_examples(exam: Exam, config: RankerConfig) -> list[Example]:
    """`prompt.few_shot` answered questions and one to spare, of the shorter half; a function of exam and seed."""
    if not config.prompt.few_shot:
        return []
    exam.questions.require_answers("examples in the prompt")
    questions = exam.questions
    both = zip(questions.prompts, questions.options, strict=True)
    sizes = [len(prompt) + sum(map(len, options)) for prompt, options in both]
    rows = [row for row in np.argsort(sizes, kind="stable") if is_question(exam, int(row))]
    rows = rows[: max(config.prompt.few_shot + 1, len(rows) // 2)]
    picked = np.random.default_rng([config.seed, 11]).permutation(len(rows))[: config.prompt.few_shot + 1]
    examples = []
    for row in (int(rows[i]) for i in picked):
        there = [i for i, option in enumerate(questions.options[row]) if option]
        options = [questions.options[row][i] for i in there]
        answer = there.index(int(questions.answers[row]))
        examples.append(Example(questions.ids[row], questions.prompts[row], options, answer))
    return examples


class CausalRanker(GenerativeRanker):
    def _load_base(self, source: str, **options: Any) -> Any:
        from transformers import AutoModelForCausalLM

        # transformers chooses sdpa where the architecture has it, else eager: both add our float mask.
        model = self.pretrained_model(AutoModelForCausalLM, source, **options)
        use_shared_prefix(model)
        return model

    def encoded_length(self, item: EncodedOptions) -> int:
        return len(item.prefix) + sum(map(len, item.options))

    def encoded_scores(self, items: Sequence[EncodedOptions]) -> torch.Tensor:
        parts, places = self._parts(items)
        return spread(torch.cat([self._option_scores(part) for part in parts]), items, places)

    def _parts(self, items: Sequence[EncodedOptions]) -> tuple[list[list[EncodedOptions]], list[int]]:
        """The batches in which questions pass through the model, and the `flat_places` of their options in turn.

        LongRoPE rotates a whole batch by the factors of its longest sequence. Options that are short alone
        and options that are long alone are kept apart, so that neither changes the other.
        """
        limit = longrope_limit(self.model.config)
        if limit is None:
            return [list(items)], flat_places(items)
        width = table_width(items)
        places: list[int] = []
        found: list[list[EncodedOptions]] = []
        for long in (False, True):
            parts = []
            for row, item in enumerate(items):
                chosen = [i for i, ids in enumerate(item.options) if (len(item.prefix) + len(ids) > limit) == long]
                if chosen:
                    positions = [item.positions[i] for i in chosen]
                    parts.append(EncodedOptions(item.prefix, [item.options[i] for i in chosen], positions))
                    places += [row * width + position for position in positions]
            if parts:
                found.append(parts)
        return found, places

    @property
    def backbone(self) -> Any:
        """The decoder without its output layer."""
        return getattr(self.bare_model, self.bare_model.base_model_prefix)

    def _option_scores(self, items: Sequence[EncodedOptions]) -> torch.Tensor:
        """float32 [sum of options], in the order of items and options."""
        inputs = self._packed(items)
        return self._head_scores(items, inputs["input_ids"], self.backbone(**inputs).last_hidden_state)

    def _packed(self, items: Sequence[EncodedOptions]) -> dict[str, Any]:
        """What the backbone is given: every option of a question behind its prefix, kept apart by the mask."""
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
                ends.append(end - 1)
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
        if longest and self.config.max_tokens > longest:
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
    own, seen = block[:, first:, None], block[:, None, :]
    mask = ((own == seen) | (seen == 0)) & (order[first:, None] >= order) & (own >= 0)
    if sliding_window:
        mask &= positions[:, first:, None] - positions[:, None, :] < sliding_window
    mask |= order[first:, None] == order
    return mask, positions
