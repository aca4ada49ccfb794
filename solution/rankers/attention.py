"""Attention over options packed behind a prefix, without arithmetic on what their mask hides.

Given a mask of all tokens against all tokens, an attention kernel computes the whole square, while the
half above the prefix's diagonal is hidden, and reads the mask once a head and layer. Here the prefix goes
through the kernel's own causal path, which skips that half and needs no mask; only the options, a small
part of the tokens, are given one.
"""

from __future__ import annotations

from typing import Any

import torch

SHARED_PREFIX = "shared_prefix"


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention in which the tokens that the mask leaves out are causal.

    Args:
        module: the attention layer.
        query: [b, heads, n, head size]; key and value: [b, key heads, n, head size].
        attention_mask: None or, with a row for every query, what transformers' `sdpa` takes. With fewer rows, m,
            the additive mask [b, 1, m, n] of the last m queries; each query before them sees itself and all
            that stands in front of it.
        options: handed on to transformers' `sdpa`.

    Returns:
        [b, n, heads, head size], and None in the place of the attention weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    split = 0 if attention_mask is None else query.shape[2] - attention_mask.shape[2]
    if split == 0:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    before, behind = slice(None, split), slice(split, None)
    causal, _ = sdpa_attention_forward(
        module, query[:, :, before], key[:, :, before], value[:, :, before], None, **options
    )
    masked, _ = sdpa_attention_forward(module, query[:, :, behind], key, value, attention_mask, **options)
    return torch.cat([causal, masked], dim=1), None


def use_shared_prefix(model: Any) -> None:
    """Let a model that uses transformers' `sdpa` use `shared_prefix_attention`; leave any other as it is."""
    if model.config._attn_implementation != "sdpa":
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
    AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)
    model.set_attn_implementation(SHARED_PREFIX)


def causal_tokens(model: Any, prefixes: list[int], width: int, sliding_window: int | None) -> int:
    """The number of tokens at the front of every row of a packed batch that need no mask; decided here alone.

    Args:
        model: a decoder.
        prefixes: tokens of each row's prefix.
        width: tokens of the padded batch.
        sliding_window: of the layers in question; the causal path knows no window, so rows longer than
            it are masked whole.
    """
    if model.config._attn_implementation != SHARED_PREFIX or (sliding_window and sliding_window < width):
        return 0
    return min(prefixes)
