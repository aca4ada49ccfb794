"""DeBERTa-v2/v3's disentangled attention without gathers, its position bias handed to scaled dot-product attention.

A score is `(q_i·k_j + q_i·P_K[i-j] + k_j·P_Q[i-j]) / sqrt(3 d)` (He et al. 2021, arXiv:2006.03654). transformers
multiplies every token with all position buckets, then gathers the wanted products one by one. Here the buckets are
laid out by distance first, 2N - 1 rows; the products of a token then stand side by side in the order of its row of
the bias, and a strided view of them is that row (the relative shift of Transformer-XL, Dai et al. 2019, without its
copies). Blocks of rows keep the products that no row needs few, and in the processor's cache.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

from solution.errors import UserError

CPU_BLOCK = 64  # rows; on a GPU one block has fewer kernels to start


def choose_attention(model: nn.Module, kind: str, device: str) -> None:
    """Give a model's DeBERTa-v2/v3 attention another way of computing, in place; weights and their names stay.

    Args:
        kind: `auto` (this module's, exact), `eager` (transformers' own) or `flashdeberta` (the package's Triton
            kernels; they leave out the dropout of attention probabilities in training).
        device: "cuda" or "cpu".

    Raises:
        UserError: `flashdeberta` without CUDA, without the package, or for a model that is not a DeBERTa-v2/v3.
    """
    layers = [module for module in model.modules() if isinstance(module, DisentangledSelfAttention)]
    if kind == "flashdeberta":
        if not layers:
            raise UserError("attention flashdeberta is for DeBERTa-v2 and -v3 only; set attention to auto")
        if device != "cuda":
            raise UserError("attention flashdeberta needs an NVIDIA GPU; set attention to auto")
        try:
            from flashdeberta import FlashDisentangledSelfAttention
        except ImportError as error:
            raise UserError(
                f"attention flashdeberta: the package cannot be used ({error}); run: pip install flashdeberta, "
                "or set attention to auto"
            ) from None
        for layer in layers:
            layer.__class__ = FlashDisentangledSelfAttention
    elif kind == "auto":
        for layer in layers:
            if layer.relative_attention and {"c2p", "p2c"} & set(layer.pos_att_type):
                layer.__class__ = SkewedSelfAttention


class SkewedSelfAttention(DisentangledSelfAttention):
    """`DisentangledSelfAttention`, equal to it up to rounding, without attention maps."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        output_attentions: bool = False,
        query_states: torch.Tensor | None = None,
        relative_pos: torch.Tensor | None = None,
        rel_embeddings: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention of hidden states [b, n, width] under a mask [b, 1, n, n]; `relative_pos` is int64 [1, n, n]."""
        if output_attentions or query_states is not None or relative_pos is None or rel_embeddings is None:
            return super().forward(
                hidden_states, attention_mask, output_attentions, query_states, relative_pos, rel_embeddings
            )
        batch, n, _ = hidden_states.shape
        heads, width = self.num_attention_heads, self.attention_head_size
        query, key, value = (
            projection(hidden_states).view(batch, n, heads, width).permute(2, 0, 1, 3)
            for projection in (self.query_proj, self.key_proj, self.value_proj)
        )
        kinds = {"c2p", "p2c"} & set(self.pos_att_type)
        scale = 1 / math.sqrt(width * (1 + len(kinds)))
        # The bucket of a distance i - j, from n - 1 down to 1 - n: first column and first row hold them all.
        buckets = torch.cat([relative_pos[0, :, 0].flip(0), relative_pos[0, 0, 1:]])
        places = (buckets + self.pos_ebd_size).clamp(0, 2 * self.pos_ebd_size - 1)
        embeddings = self.pos_dropout(rel_embeddings[: 2 * self.pos_ebd_size])

        def table(projection: nn.Module, rows: torch.Tensor) -> torch.Tensor:
            """Scaled position vectors [heads, 2n - 1, width]; the smaller of buckets and distances is projected."""
            few = len(rows) < len(embeddings)
            vectors = projection(embeddings[rows]) if few else projection(embeddings)[rows]
            return (vectors * scale).view(-1, heads, width).transpose(0, 1)

        pos_key = pos_query = None
        if "c2p" in kinds:
            pos_key = table(self.key_proj if self.share_att_key else self.pos_key_proj, places)
        if "p2c" in kinds:
            pos_query = table(self.query_proj if self.share_att_key else self.pos_query_proj, places.flip(0))
        bias: torch.Tensor = PositionBias.apply(query, key, pos_key, pos_query)  # type: ignore[no-untyped-call]
        visible = attention_mask.bool().transpose(0, 1)
        if bias.is_cuda or not visible.all():  # on a GPU the look itself would cost a wait
            bias = bias.masked_fill_(~visible, torch.finfo(bias.dtype).min)
        dropout = self.dropout.p if self.training else 0.0
        if not bias.is_cuda and (dropout or bias.requires_grad):
            # The CPU's fused kernel has neither dropout nor a gradient for the mask; its fallback computes half
            # precision in float32.
            with torch.autocast("cpu", enabled=False):
                flat = (heads * batch, n, -1)
                scores = torch.baddbmm(
                    bias.view(flat), query.reshape(flat), key.reshape(flat).transpose(1, 2), alpha=scale
                )
                context = torch.bmm(self.dropout(scores.softmax(dim=-1)), value.reshape(flat))
        else:
            context = F.scaled_dot_product_attention(query, key, value, bias, dropout, scale=scale)
        context = context.view(heads, batch, n, width)
        return context.permute(1, 2, 0, 3).reshape(batch, n, heads * width), None


class PositionBias(torch.autograd.Function):
    """`bias[i, j] = q_i · pos_key[j - i + n - 1] + k_j · pos_query[i - j + n - 1]`; either part may be None.

    query, key: [heads, b, n, width]; pos_key, pos_query: [heads, 2n - 1, width]; bias: [heads, b, n, n].
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        pos_key: torch.Tensor | None,
        pos_query: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, pos_key, pos_query)
        heads, batch, n, width = query.shape
        bias = query.new_empty(heads, batch, n, n)
        first = True
        # The transposed part first: it is only copied, and the sum runs along the rows.
        for rows, table, out in ((key, pos_query, bias.transpose(-1, -2)), (query, pos_key, bias)):
            if table is None:
                continue
            for start, end, low, high in _blocks(n, bias.is_cuda):
                products = torch.bmm(
                    rows[:, :, start:end].reshape(heads, -1, width), table[:, low:high].transpose(1, 2)
                )
                band = _band(products.view(heads, batch, end - start, high - low), n)
                if first:
                    out[:, :, start:end] = band
                else:
                    out[:, :, start:end] += band
            first = False
        return bias

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, pos_key, pos_query = ctx.saved_tensors
        (grad,) = gradients
        heads, batch, n, width = query.shape
        results: list[torch.Tensor | None] = []
        for rows, table, out in ((query, pos_key, grad), (key, pos_query, grad.transpose(-1, -2))):
            if table is None:
                results += [None, None]
                continue
            of_rows, of_table = torch.empty_like(rows), torch.zeros_like(table)
            for start, end, low, high in _blocks(n, grad.is_cuda):
                products = grad.new_zeros(heads, batch, end - start, high - low)
                _band(products, n).copy_(out[:, :, start:end])
                products = products.view(heads, -1, high - low)
                of_rows[:, :, start:end] = torch.bmm(products, table[:, low:high]).view(heads, batch, -1, width)
                block = rows[:, :, start:end].reshape(heads, -1, width)
                of_table[:, low:high] += torch.bmm(products.transpose(1, 2), block)
            results += [of_rows, of_table]
        of_query, of_pos_key, of_key, of_pos_query = results
        return of_query, of_key, of_pos_key, of_pos_query


def _blocks(n: int, cuda: bool) -> list[tuple[int, int, int, int]]:
    """(first row, end, first distance that these rows need, end) of each block of rows."""
    step = n if cuda else CPU_BLOCK
    starts = range(0, n, step)
    return [(s, e, n - e, 2 * n - 1 - s) for s in starts for e in [min(n, s + step)]]


def _band(products: torch.Tensor, n: int) -> torch.Tensor:
    """View [.., r, n] of products [.., r, n + r - 1]: row a from column r - 1 - a on."""
    *outer, rows, columns = products.shape
    return products.as_strided((*outer, rows, n), (*products.stride()[:-2], columns - 1, 1), rows - 1)
