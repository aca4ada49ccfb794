"""The parts that decoders and encoder-decoders share: the prompt with its examples, and the head over options."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from solution.config import RankerConfig
from solution.device import Device
from solution.errors import UserError
from solution.exam import Exam, is_question
from solution.files import read_json, write_json
from solution.learning import distributed
from solution.models import resolve_model
from solution.questions import LETTERS
from solution.rankers.examples import Example, choose_examples
from solution.rankers.layout import spread
from solution.rankers.likelihoods import UntrainedLikelihoods, likelihoods_file
from solution.rankers.neural import NeuralRanker
from solution.rankers.prompts import (
    context_text,
    cut_text,
    listed_options,
    question_room,
    question_with_options,
    share_room,
    shorten,
    token_ids,
)
from solution.tokenization import part_names, special_names
from solution.weights import EXAMPLES

BETWEEN = "\n\n"  # between an example and what follows
MIN_ROOM = 8  # tokens that question and option need at the very least
# Variables of published chat templates. Qwen3: the option is the reply itself, without thinking before it. Llama 3.2
# writes today's date where it is given none: the answers of a ranker must not hang on the day.
CHAT_SWITCHES: dict[str, Any] = {"enable_thinking": False, "date_string": "26 Jul 2024"}


@dataclass(frozen=True)
class EncodedOptions:
    """One question for a generative model.

    Attributes:
        prefix: token ids of context and question.
        options: token ids of each option.
        positions: the option position of each.
        prior: token ids of the text behind which the options are likely anyway, to be taken out of their scores; None:
            nothing is taken out.
    """

    prefix: list[int]
    options: list[list[int]]
    positions: list[int]
    prior: list[int] | None = None

    @property
    def option_ids(self) -> list[list[int]]:
        return self.options


class ScoringPass(NamedTuple):
    """Options that pass through a model together.

    Attributes:
        items: options behind their prefixes, n options in all.
        places: the place of each option among all those of a batch, n numbers.
        prior: whether their likelihood is taken out of the score.
    """

    items: Sequence[EncodedOptions]
    places: Sequence[int]
    prior: bool


class ScoreHead(nn.Module):
    """One score an option: a linear map of its last token's state, its mean log-likelihood, or their sum.

    With `prior` a second log-likelihood, that of the model before training behind a text without the question or its
    context, is taken out. Both log-likelihoods have a learnt scale, 1 and `prior` at the start.

    With `others` a small hidden layer adds what the state says beside the mean state of the question's
    other options (the winners of the Kaggle exam fed their heads such a mean). It is not linear on purpose:
    under a softmax over the options a linear term of that mean is the same as one of the option's own state.
    """

    OTHERS = 64  # width of the hidden layer

    def __init__(self, kind: str, hidden: int, others: bool = False, prior: float | None = None):
        super().__init__()
        self.kind = kind
        self.trained = kind in ("last_token", "both")
        if self.trained:
            # With the likelihood beside it the new part starts at nothing, so training starts from zero-shot.
            start = torch.randn(hidden) * 0.02 if kind == "last_token" else torch.zeros(hidden)
            self.score_weight = nn.Parameter(start)
        if kind != "last_token":
            self.log_scale = nn.Parameter(torch.zeros(1))
        if prior is not None:
            self.prior_log_scale = nn.Parameter(torch.full((1,), math.log(prior)))
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
                others = (sums[owners] - states) / (counts - 1).clamp(min=1)  # [options, hidden]
                score = score + torch.tanh(torch.cat([states, others], 1) @ self.others_weight.T) @ self.others_out
        if likelihood is not None:
            score = score + self.log_scale.exp() * likelihood.float()
        return score

    def taken_out(self, likelihood: torch.Tensor) -> torch.Tensor:
        """What is added to the scores for the likelihoods behind the prior's text, float32 [options]."""
        return -self.prior_log_scale.exp() * likelihood.float()


class GenerativeRanker(NeuralRanker[EncodedOptions]):
    """A ranker that reads a prompt and scores options by their tokens: decoders and encoder-decoders."""

    encodes_with = (*NeuralRanker.encodes_with, "examples")

    def __init__(self, config: RankerConfig, cache: Path):
        super().__init__(config, cache)
        self.examples: list[Example] = []
        self._likelihoods_on: Device | None = None
        """Where and in which number format likelihoods are computed that are kept; None: none are."""

    @property
    def base_dtype(self) -> torch.dtype:
        return self.device.compute

    @property
    def state_dtype(self) -> torch.dtype:
        """Of states and masks, which is that of the weights, but float32 where products are in float32."""
        return torch.float32 if self.device.compute == torch.float32 else self.bare_model.dtype

    @property
    def bare_model(self) -> Any:
        """The model below PEFT's wrapper."""
        return self.model.base_model.model if hasattr(self.model, "peft_config") else self.model

    def _hidden_size(self) -> int:
        config = self.model.config
        return getattr(config, "hidden_size", None) or config.d_model

    def _make_head(self) -> nn.Module:
        torch.manual_seed(self.config.seed)
        config = self.config
        prior = None if config.likelihood_prior == "none" else config.likelihood_prior_share
        head = ScoreHead(config.head, self._hidden_size(), config.head_others, prior)
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
        config = self.config
        # A text that lists the options has them in another order each time, and examples are of the fold: neither is
        # read twice.
        repeats = config.trains and not config.lists_options and not config.prompt.few_shot
        self._likelihoods_on = self.device if repeats else None
        try:
            return super().fit(train_exam, valid_exam, checkpoint, logs)
        finally:  # a training that is interrupted goes on from its checkpoint, and needs them again
            self._save_likelihoods()

    def predict(self, exam: Exam) -> np.ndarray:
        """See `Ranker.predict`."""
        table = super().predict(exam)
        self._save_likelihoods()
        return table

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

    # --- scoring ---

    def _option_scores(self, one: ScoringPass) -> torch.Tensor:
        """What a pass says of its options, float32 [its options]: their scores, or of a prior the likelihoods."""
        raise NotImplementedError

    def encoded_scores(self, items: Sequence[EncodedOptions]) -> torch.Tensor:
        """See `NeuralRanker.encoded_scores`."""
        known = [self._kept_likelihoods(item) for item in items]
        passes = self._passes(
            [item if kept is None else replace(item, prior=None) for item, kept in zip(items, known, strict=True)]
        )
        values = [self._option_scores(one) for one in passes]

        # What is known of the model before training takes no pass.
        starts = itertools.accumulate((len(item.options) for item in items), initial=0)
        for start, kept in zip(starts, known, strict=False):
            if kept is not None:
                passes.append(ScoringPass([], range(start, start + len(kept)), prior=True))
                values.append(torch.tensor(kept, device=values[0].device))
        return spread(self._summed(values, passes), items)

    def _summed(self, values: Sequence[torch.Tensor], passes: Sequence[ScoringPass]) -> torch.Tensor:
        """The scores of a batch's options from what its passes say, float32 [options of the batch]."""
        head = self.head
        assert isinstance(head, ScoreHead)
        both = zip(values, passes, strict=True)
        return summed([head.taken_out(value) if one.prior else value for value, one in both], passes)

    # --- likelihoods before training ---

    @functools.cached_property
    def _likelihoods(self) -> UntrainedLikelihoods:
        config = self.config
        source = resolve_model(config.model, self.cache, config.revision)
        formats = (config.quantization, self.device, self.bare_model.dtype)
        return UntrainedLikelihoods(likelihoods_file(self.cache, source, config.family, config.revision, *formats))

    def _kept_likelihoods(self, item: EncodedOptions) -> list[float] | None:
        """The likelihoods that are taken out of the scores; None where the batch is to compute them, or none are.

        The questions that a ranker is trained with are read by every fold, and the model before training says the
        same of them each time. They are computed alone, so that a value does not depend on the batch that it came in.
        """
        # Processes that work together make the same passes, whatever each of them knows. What overflows in float16 is
        # computed again in float32, all of it: a value that is kept from there would spare another fold the overflow.
        if self._likelihoods_on != self.device or item.prior is None or distributed.size() > 1:
            return None
        values = self._likelihoods.find(item.prior, item.options)
        if values is None:
            # Rounding depends on their order, and training shuffles them.
            options = sorted(item.options)
            alone = [part for part in self._passes([replace(item, options=options)]) if part.prior]
            found = summed([self._option_scores(part) for part in alone], alone).tolist()
            self._likelihoods.add(item.prior, options, found)
            values = [found[options.index(option)] for option in item.options]
        return values

    def _save_likelihoods(self) -> None:
        if "_likelihoods" in vars(self):
            self._likelihoods.save()

    @contextmanager
    def _weights(self, prior: bool) -> Iterator[None]:
        """While it lasts the model is the one that a `ScoringPass` is of: for a prior that before training, with LoRA
        switched off, and without gradients."""
        if not prior:
            yield
            return
        adapted = self.model.base_model if hasattr(self.model, "peft_config") else None
        training = self.model.training
        self.model.eval()  # a base model may have dropout of its own
        if adapted is not None:
            adapted.disable_adapter_layers()
        try:
            with torch.no_grad():
                yield
        finally:
            if adapted is not None:
                adapted.enable_adapter_layers()
            self.model.train(training)

    def _passes(self, items: Sequence[EncodedOptions]) -> list[ScoringPass]:
        """The passes of a batch through the model: the options behind their questions, and behind the prior's text.

        The two are apart: behind its short text an option would be padded to the length of a context.
        """
        places = range(sum(len(item.options) for item in items))
        passes = [ScoringPass(items, places, prior=False)]
        starts = itertools.accumulate((len(item.options) for item in items), initial=0)
        asked = [(start, item) for start, item in zip(starts, items, strict=False) if item.prior is not None]
        if asked:
            priors = [EncodedOptions(item.prior or [], item.options, item.positions) for _, item in asked]
            of_these = [start + option for start, item in asked for option in range(len(item.options))]
            passes.append(ScoringPass(priors, of_these, prior=True))
        return passes

    # --- the prompt ---

    def _option_texts(self, options: Sequence[str]) -> list[str]:
        """The text that is scored for each option: its own, or its letter where the options are listed for that."""
        shown = LETTERS[: len(options)] if self.config.head == "letters" else options
        return [self.config.prompt.option.replace("{option}", text) for text in shown]

    def _shots(self, exam: Exam, row: int) -> list[tuple[str, str]]:
        """The examples as (question, answer) texts; a question is never its own example."""
        config = self.config
        id_, prompt = exam.questions.ids[row], exam.questions.prompts[row]
        others = [example for example in self.examples if id_ != example.id and prompt != example.prompt]
        shots = []
        for example in others[: config.prompt.few_shot]:
            text = example.prompt + (listed_options(example.options) if config.lists_options else "")
            before, _, after = config.prompt.without_context.partition("{question}")
            shots.append((before + text + after, self._option_texts(example.options)[example.answer]))
        return shots

    @functools.cached_property
    def _special_names(self) -> list[str]:
        """Listed once: a long prompt is made several times for each question."""
        return special_names(self.tokenizer)

    def _prefix_text(self, template: str, context: str, question: str, shots: Sequence[tuple[str, str]]) -> str:
        # One pass over the template, so that braces in a text are never taken for a field.
        before, _, after = template.partition("{question}")
        text = before.replace("{context}", context) + question + after.replace("{context}", context)
        if not self.config.prompt.chat:
            return "".join(f"{asked}{answer}{BETWEEN}" for asked, answer in shots) + text
        # The template writes special tokens by their names: a name in the exam's own texts must not end a turn.
        plain = functools.partial(part_names, self._special_names)
        turns = []
        for asked, answer in shots:
            turns.append({"role": "user", "content": plain(asked)})
            turns.append({"role": "assistant", "content": plain(answer.strip())})
        turns.append({"role": "user", "content": plain(text)})
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **CHAT_SWITCHES)

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
            raise self._too_long(fixed)
        question = exam.questions.prompts[row]
        if self.config.lists_options:
            question = question_with_options(tokenizer, question, options, question_room(max(counts), room))
        question_tokens, longest = share_room(len(token_ids(tokenizer, [question])[0]), max(counts), room)
        question = cut_text(tokenizer, question, question_tokens)
        context = context_text(exam, row, passages) if open_book else ""
        context = cut_text(tokenizer, context, room - question_tokens - longest)
        while True:
            prefix, encoded = self._tokenize(self._prefix_text(template, context, question, shots), texts)
            encoded = [ids[:longest] if count > longest else ids for ids, count in zip(encoded, counts, strict=True)]
            excess = len(prefix) + max(map(len, encoded)) - limit
            if excess <= 0:
                prior = self._prior(question, open_book, shots, limit - max(map(len, encoded)))
                return EncodedOptions(prefix, encoded, list(option_order), prior)
            # Pieces may have a token more together than apart. The context gives way first.
            if context:
                context = shorten(tokenizer, context, excess)
            elif question:
                question = shorten(tokenizer, question, excess)
            else:
                longest, counts = max(1, limit - len(prefix)), [limit] * len(counts)

    def _prior(self, question: str, open_book: bool, shots: Sequence[tuple[str, str]], room: int) -> list[int] | None:
        """Token ids, at most `room`, of the text for `EncodedOptions.prior`."""
        if self.config.likelihood_prior == "none":
            return None
        template = self.config.prompt.without_context
        if self.config.likelihood_prior == "option" or not open_book:
            # A question without a context, taken out of itself, would leave nothing.
            template, question = template.partition("{question}")[2].lstrip(), ""
        while True:
            ids = self._tokenize(self._prefix_text(template, "", question, shots), [])[0]
            if len(ids) <= room:
                return ids
            if not question:
                raise self._too_long(len(ids))
            question = shorten(self.tokenizer, question, len(ids) - room)

    def _too_long(self, fixed: int) -> UserError:
        return UserError(
            f"{self.config.name}: the prompt's fixed text alone has {fixed} tokens, and max_tokens is "
            f"{self.config.max_tokens}. Raise max_tokens, shorten the prompt or set a smaller prompt.few_shot."
        )

    def read_options(self, exam: Exam, row: int, encoded: EncodedOptions) -> list[list[int]]:
        """See `NeuralRanker.read_options`; where letters are scored, of the lines that list the options."""
        if self.config.head != "letters":
            return encoded.options
        return token_ids(self.tokenizer, [f". {exam.questions.options[row][i]}" for i in encoded.positions])

    def _tokenize(self, prefix: str, options: list[str]) -> tuple[list[int], list[list[int]]]:
        """Each option as it is tokenized behind the prefix; alone where the two would merge."""
        # A chat template writes its special tokens itself.
        special = not self.config.prompt.chat
        texts = [prefix, *(prefix + option for option in options)]
        head, *whole = token_ids(self.tokenizer, texts, special=special, markup=not special)
        if special and head[-1:] == [self.tokenizer.eos_token_id]:
            head, whole = head[:-1], [ids[:-1] for ids in whole]
        stand_in = [self.tokenizer.unk_token_id or self.tokenizer.pad_token_id or 0]
        return head, [
            ids[len(head) :] if ids[: len(head)] == head and len(ids) > len(head) else alone or stand_in
            for ids, alone in zip(whole, token_ids(self.tokenizer, options), strict=True)
        ]


def summed(values: Sequence[torch.Tensor], passes: Sequence[ScoringPass]) -> torch.Tensor:
    """What the passes of a batch give to each option's score, added up, float32 [options of the batch]."""
    flat = torch.cat(list(values))
    places = [place for one in passes for place in one.places]
    total = torch.zeros(max(places) + 1, dtype=flat.dtype, device=flat.device)
    return total.index_add(0, torch.tensor(places, device=flat.device), flat)
