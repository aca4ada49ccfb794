"""Encoders with a multiple-choice head (DeBERTa-v3, BERT, any AutoModelForMultipleChoice): one sequence an option."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from solution.errors import UserError
from solution.exam import Exam
from solution.rankers.deberta_attention import choose_attention
from solution.rankers.layout import pad_rows, spread
from solution.rankers.neural import Item, NeuralRanker
from solution.rankers.prompts import context_text, cut_text, question_room, question_with_options, share_room, token_ids
from solution.rankers.trained_head import NEW, check_head

_CHECKED, _PAIRS = 16, 4  # of so many training questions the shortest few are scored alone and beside the longest
_TOLERANCE = 1e-4  # of a score and 1 together: rounding in float32 differs with the shape of a batch, by far less


@dataclass(frozen=True)
class EncodedChoices:
    """One question: a sequence for each of its options, `[CLS] context [SEP] question [SEP] option [SEP]`.

    Attributes:
        sequences: token ids.
        context_ends: how many tokens of each sequence are of the first segment.
        positions: the option position of each sequence.
    """

    sequences: list[list[int]]
    context_ends: list[int]
    positions: list[int]

    @property
    def option_ids(self) -> list[list[int]]:
        return self.sequences


class MultipleChoiceRanker(NeuralRanker[EncodedChoices]):
    """Each option stands in a sequence of its own, and the model's head gives that sequence a score."""

    # The pooler is not in DeBERTa-v3's checkpoint: left frozen at its random start it caps what can be learnt.
    new_modules: tuple[str, ...] = NEW
    auto_class = "AutoModelForMultipleChoice"
    encodes_with = (*NeuralRanker.encodes_with, "_limit")

    def _load_base(self, source: str, **options: Any) -> Any:
        import transformers

        model = self.pretrained_model(getattr(transformers, self.auto_class), source, **options)
        self._check_stored_head()
        if self.config.attention != "eager":
            choose_attention(model, self.config.attention, self.device.kind)
        present = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
        self.new_modules = tuple(name for name in NEW if name in present)
        return model

    def _check_stored_head(self) -> None:
        """Refuse a model that is not to be trained and has no trained head; a hub's model may only now be here."""
        check_head(self.config)

    def encode_question(self, exam: Exam, row: int, passages: int, option_order: Sequence[int]) -> EncodedChoices:
        tokenizer, limit = self.tokenizer, self._limit  # 4 of the limit are special tokens
        cls, sep = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
        text, shown = exam.questions.prompts[row], [exam.questions.options[row][i] for i in option_order]
        options = token_ids(tokenizer, shown)
        if self.config.lists_options:
            room = question_room(max(map(len, options)), limit - 4)
            text = question_with_options(tokenizer, text, shown, room)
        question = token_ids(tokenizer, [text])[0]
        length, longest = share_room(len(question), max(map(len, options)), limit - 4)
        question, options = question[:length], [option[:longest] for option in options]
        # One context for all options of a question: cut by the longest option.
        room = limit - 4 - longest - length
        context: list[int] = []
        if passages and room > 0:
            text = cut_text(tokenizer, context_text(exam, row, passages), room)
            context = token_ids(tokenizer, [text])[0][:room]
        first = cls + context + sep
        return EncodedChoices(
            sequences=[first + question + sep + option + sep for option in options],
            context_ends=[len(first)] * len(options),
            positions=list(option_order),
        )

    @functools.cached_property
    def _limit(self) -> int:
        """The most tokens of a sequence."""
        # DeBERTa's relative positions have no hard end; BERT's table has.
        if getattr(self.model.config, "relative_attention", False):
            return self.config.max_tokens
        positions = getattr(self.model.config, "max_position_embeddings", None) or 0
        if positions <= 0:  # XLNet says -1: it has no table of positions
            positions = self.config.max_tokens
        for name, module in self.model.named_modules():
            # RoBERTa and MPNet count positions from behind the padding index.
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                positions = module.num_embeddings - module.padding_idx - 1
        return min(self.config.max_tokens, positions)

    def _check_before_training(self, exam: Exam) -> None:
        """Refuse an architecture whose scores of a question depend on the other questions in its batch.

        Some do not hide padding from what they compute (XLNet's summary is the last token, ConvBERT's convolutions
        reach into it): their answers would change with the batches.
        """
        if self.config.quantization is not None:
            return  # computed in half precision, whose rounding differs from batch to batch
        _, items = self.items(exam.subset(range(min(len(exam), _CHECKED))))
        longest, *others = sorted(items, key=self.length, reverse=True)
        for item in others[-_PAIRS:]:
            with torch.no_grad():  # without autocast: in float32
                beside, alone = self.scores([item, longest])[0], self.scores([item])[0]
            there = alone != -torch.inf  # [width]: the options that exist
            alone, beside = alone[there], beside[: len(there)][there]
            if not torch.isfinite(torch.cat([alone, beside])).all():
                return  # training and scoring say what to do about that
            difference = float((alone - beside).abs().max())
            if difference > _TOLERANCE * (1 + float(alone.abs().max())):
                raise UserError(
                    f"{self.config.name}: {self.config.model} (architecture {self.model.config.model_type}) scores an "
                    f"option otherwise when a longer question stands in the same batch (by {difference:.2g}): it does "
                    "not hide padding. Such a model cannot be used; choose another architecture"
                )

    def encoded_length(self, encoded: EncodedChoices) -> int:
        return max(map(len, encoded.sequences)) * len(encoded.sequences)

    def parts(self, item: Item[EncodedChoices]) -> list[Item[EncodedChoices]]:
        """Every option alone: sorted by length, sequences of many questions leave next to no padding."""
        choices = item.encoded
        return [
            Item(EncodedChoices([sequence], [end], [position]), item.prior[i : i + 1])
            for i, (sequence, end, position) in enumerate(
                zip(choices.sequences, choices.context_ends, choices.positions, strict=True)
            )
        ]

    def encoded_scores(self, items: Sequence[EncodedChoices]) -> torch.Tensor:
        # The sequences of all questions in one batch: ids and mask int64 [sequences, tokens].
        sequences = [sequence for item in items for sequence in item.sequences]
        ends = [end for item in items for end in item.context_ends]
        device = self.device.torch
        ids = pad_rows(sequences, self.tokenizer.pad_token_id, device)
        lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)
        mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()
        inputs = {"input_ids": ids, "attention_mask": mask}
        if getattr(self.model.config, "type_vocab_size", 0) > 1:
            first = torch.arange(ids.shape[1], device=device) < torch.tensor(ends, device=device)[:, None]
            inputs["token_type_ids"] = (~first).long() * mask
        return spread(self._sequence_scores(inputs).float(), items)

    def _sequence_scores(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The score of each sequence, float [sequences]."""
        # The model's own choice dimension is left at 1, so that questions may differ in their number of options.
        return self.model(**{name: value[:, None] for name, value in inputs.items()}).logits[:, 0]
