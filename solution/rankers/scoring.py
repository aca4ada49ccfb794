"""Scoring in batches of a token budget; when memory runs out, what is left goes on in batches of half the size.

What overflows in float16 is computed again in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from solution.config import RankerConfig
from solution.device import Device, free_memory, out_of_memory
from solution.errors import UserError
from solution.learning import distributed
from solution.learning.batches import MAX_PADDING, budget_batches
from solution.progress import say
from solution.rankers.float32 import in_float32


class BatchModel(Protocol):
    """A model that is scored in batches of items: a ranker with its questions, the reranker with its passages."""

    config: RankerConfig
    device: Device
    title: str
    """The model's name in messages."""
    token_limit: int | None
    """Padded tokens that a batch may have since memory ran out; None: it never has. It outlasts a `BatchScoring`."""
    least_batch: str
    """A batch of one item, in words."""
    memory_advice: str
    """Settings with which one item takes less memory: what the user may do where not even that fits."""

    @property
    def modules(self) -> list[nn.Module]:
        """All modules that have parameters."""

    def length(self, item: Any) -> int:
        """Padded tokens that an item costs."""

    def columns(self, item: Any) -> Sequence[int]:
        """The places of an item's scores in its row; the others of the row are not its own."""

    def batch_scores(self, batches: Sequence[Sequence[Any]], advance: Callable[[int], None]) -> Iterator[torch.Tensor]:
        """The scores of one batch after the other; `advance` is called with the number of items scored since."""

    def use_less_memory(self) -> bool:
        """Take less memory from now on, beside that of a batch; False where there is nothing left to do."""


class BatchScoring:
    """The scores of items, computed in batches of items alike in length.

    With several processes each scores its part of the items.

    Attributes:
        total: items to score, for a progress bar.
        repeated: positions of the items whose scores were not finite in float16, and were computed again in float32.
    """

    def __init__(self, model: BatchModel, items: Sequence[Any]):
        self._model, self._items = model, items
        self._lengths = [model.length(item) for item in items]
        # The positions of each batch's items. An idle process has an empty batch, for which it makes a pass all the
        # same: see `distributed.own_batches`.
        self._batches = distributed.own_batches(self._lengths, self._budget, MAX_PADDING)
        self.total = sum(max(len(batch), 1) for batch in self._batches)
        self.repeated: list[int] = []
        self._did_not_fit: list[int] | None = None  # the batch of one item at which memory ran out
        self._in_float32 = False

    def results(self, advance: Callable[[int], None]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Score, and yield the positions of each batch's items with their scores, float64 [b, width].

        Items whose scores are not finite in float16 come last, computed in float32. The others keep the scores that
        they have. With FSDP none is repeated: all processes gather each layer together.

        Args:
            advance: called with the number of items scored since the last call; negative where a batch has failed.

        Raises:
            UserError: not even one item fits into the memory, tried twice.
        """
        if not self._model.device.may_overflow or distributed.shards():
            yield from self._scored(self._batches, advance)
            return
        for batch, values in self._scored(self._batches, advance):
            finite = [self._is_finite(i, row) for i, row in zip(batch, values, strict=True)]
            wrong = [i for i, right in zip(batch, finite, strict=True) if not right]
            if wrong:
                self.repeated += wrong
                advance(-len(wrong))
                batch, values = [i for i in batch if i not in wrong], values[finite]
            if batch:
                yield batch, values
        if not self.repeated:
            return
        say(
            f"{self._model.title}: the scores of {len(self.repeated)} of {len(self._items)} sequences are not finite "
            "in float16, and are computed again in float32"
        )
        self._in_float32, self._did_not_fit = True, None
        # A number takes twice the memory.
        batches = budget_batches(self._lengths, max(self._budget // 2, 1), self.repeated, MAX_PADDING)
        with in_float32(self._model):
            yield from self._scored(batches, advance)

    def _is_finite(self, position: int, row: np.ndarray) -> bool:
        return bool(np.isfinite(row[list(self._model.columns(self._items[position]))]).all())

    @property
    def _budget(self) -> int:
        """Padded tokens of a batch."""
        budget, limit = self._model.config.predict_tokens_per_batch, self._model.token_limit
        return budget if limit is None else min(budget, limit)

    def _scored(
        self, batches: list[list[int]], advance: Callable[[int], None]
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """`results` of these batches, in the number format that is set."""
        shown = done = 0  # items that the progress bar has counted, and items whose scores are there

        def show(count: int) -> None:
            nonlocal shown
            shown += count
            advance(count)

        while batches:
            finished = 0
            passes = [[self._items[i] for i in batch or [int(np.argmin(self._lengths))]] for batch in batches]
            try:
                for batch, scores in zip(batches, self._model.batch_scores(passes, show), strict=True):
                    values = scores.double().cpu().numpy()
                    finished += 1
                    done += len(passes[finished - 1])
                    if batch:
                        yield batch, values
                return
            except (RuntimeError, MemoryError) as error:
                # With FSDP all processes gather each layer together: one alone cannot repeat a pass.
                if not out_of_memory(error) or distributed.shards():
                    raise
            # Outside the except block: until its end the traceback keeps the failed batch's tensors alive.
            show(done - shown)
            free_memory()
            batches = self._smaller([batch for batch in batches[finished:] if batch])

    def _smaller(self, batches: list[list[int]]) -> list[list[int]]:
        """The batches to go on with after memory has run out at the first of these."""
        if not self._model.use_less_memory() and batches and len(batches[0]) == 1:
            # One item cannot be halved. The memory that other work held may be free by now: it is tried once more.
            if batches[0] == self._did_not_fit:
                tokens = self._lengths[batches[0][0]]
                why = ", computed in float32 because float16 overflows" if self._in_float32 else ""
                raise UserError(
                    f"{self._model.title}: the memory is not enough for {self._model.least_batch} "
                    f"({tokens} tokens{why}). {self._model.memory_advice}"
                )
            self._did_not_fit = batches[0]
            return batches
        if not batches:
            return []
        widest = max(len(batch) * max(self._lengths[i] for i in batch) for batch in batches)
        # The limit is one of the usual number format; what it allows in float32 is half of it.
        share = 2 if self._in_float32 else 1
        limit = max(min(widest, (self._model.token_limit or widest * share) // share) // 2, 1)
        self._model.token_limit = limit * share
        say(f"{self._model.title}: out of memory, going on with batches of {limit} tokens")
        return budget_batches(self._lengths, limit, [i for batch in batches for i in batch], MAX_PADDING)


def not_finite(device: Device, setting: str) -> str:
    """Words on scores that are not finite, to follow the model's name; `setting` is the one of its number format."""
    if device.compute == torch.float32 or (device.may_overflow and not distributed.shards()):
        return "gave scores that are not finite in float32: a weight is not finite, or its training has diverged"
    return f"gave scores that are not finite; try {setting}=float32 (half precision overflows with some models)"
