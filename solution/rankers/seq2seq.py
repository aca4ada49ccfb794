"""Encoder-decoders (T5, flan-T5): the encoder reads context and question once, the decoder scores each option."""

from __future__ import annotations

from typing import Any

import torch

from solution.rankers.generative import EncodedOptions, GenerativeRanker, ScoreHead, ScoringPass
from solution.rankers.layout import pad_rows
from solution.rankers.prompts import token_ids


class Seq2SeqRanker(GenerativeRanker):
    @property
    def base_dtype(self) -> torch.dtype:
        return torch.float32 if self.device.compute == torch.float16 else self.device.compute

    def _load_base(self, source: str, **options: Any) -> Any:
        from transformers import AutoModelForSeq2SeqLM

        return self.pretrained_model(AutoModelForSeq2SeqLM, source, **options)

    def _tokenize(self, prefix: str, options: list[str]) -> tuple[list[int], list[list[int]]]:
        # Encoder and decoder are apart: the option is a text of its own, ended by the end token.
        chat = self.config.prompt.chat
        head = token_ids(self.tokenizer, [prefix], special=not chat, markup=chat)[0]
        return head, token_ids(self.tokenizer, [option.strip() for option in options], special=True)

    def encoded_length(self, encoded: EncodedOptions) -> int:
        options = sum(map(len, encoded.options))
        return len(encoded.prefix) + options + (0 if encoded.prior is None else len(encoded.prior) + options)

    def _option_scores(self, one: ScoringPass) -> torch.Tensor:
        device, pad, items = self.device.torch, self.tokenizer.pad_token_id, one.items
        model = self.bare_model

        # The encoder reads context and question once for all options.
        prefix = pad_rows([item.prefix for item in items], pad, device)  # [b, prefix tokens]
        lengths = torch.tensor([len(item.prefix) for item in items], device=device)
        mask = (torch.arange(prefix.shape[1], device=device) < lengths[:, None]).long()
        with self._weights(one.prior):
            encoded = model.get_encoder()(input_ids=prefix, attention_mask=mask).last_hidden_state

        # The decoder scores every option against the states of its question; it reads each shifted by one token, so
        # that at every place the token to predict is unseen.
        owners = torch.tensor([row for row, item in enumerate(items) for _ in item.options], device=device)
        labels = pad_rows([option for item in items for option in item.options], pad, device)  # [options, tokens]
        option_lengths = torch.tensor([len(option) for item in items for option in item.options], device=device)
        is_token = torch.arange(labels.shape[1], device=device) < option_lengths[:, None]
        start = model.config.decoder_start_token_id
        shifted = torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], dim=1)
        with self._weights(one.prior):
            output = model(
                encoder_outputs=(encoded[owners],),
                attention_mask=mask[owners],
                decoder_input_ids=shifted,
                output_hidden_states=True,
                use_cache=False,
            )

        # The head's score of an option: from its last token's state, its mean log-likelihood, or both.
        head = self.head
        assert isinstance(head, ScoreHead)
        likelihood = None
        if head.needs_likelihood:
            logits = output.logits.float()  # [options, tokens, vocabulary]
            token = logits.gather(2, labels[:, :, None])[:, :, 0] - logits.logsumexp(dim=2)
            likelihood = torch.where(is_token, token, 0.0).sum(dim=1) / option_lengths
        if one.prior:
            assert likelihood is not None
            return likelihood
        last = output.decoder_hidden_states[-1][torch.arange(len(labels), device=device), option_lengths - 1]
        return head(last, likelihood, owners)
