"""Scoring in batches of a token budget; when memory runs out, what is left goes on in batches of half the size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from solution.config import RankerConfig
from solution.device import free_memory, out_of_memory
from solution.errors import UserError
from solution.learning import distributed
from solution.learning.batches import MAX_PADDING, budget_batches
from solution.progress import say


class BatchModel(Protocol):
    """A model that is scored in batches of items: a ranker with its questions, the reranker with its passages."""

    config: RankerConfig
    title: str
    """The model's name in messages."""
    token_limit: int | None
    """Padded tokens that a batch may have since memory ran out; None: it never has. It outlasts a `BatchScoring`."""
    least_batch: str
    """A batch of one item, in words."""
    memory_advice: str
    """Settings with which one item takes less memory: what the user may do where not even that fits."""

    def length(self, item: Any) -> int:
        """Padded tokens that an item costs."""

    def batch_scores(self, batches: Sequence[Sequence[Any]], advance: Callable[[int], None]) -> Iterator[torch.Tensor]:
        """The scores of one batch after the other; `advance` is called with the number of items scored since."""

    def use_less_memory(self) -> bool:
        """Take less memory from now on, beside that of a batch; False where there is nothing left to do."""


class BatchScoring:
    """The scores of items, computed in batches of items alike in length.

    With several processes each scores its part of the items.

    Attributes:
        total: items to score, for a progress bar.
    """

    def __init__(self, model: BatchModel, items: Sequence[Any]):
        self._model, self._items = model, items
        self._lengths = [model.length(item) for item in items]
        budget = model.config.predict_tokens_per_batch
        if model.token_limit is not None:
            budget = min(budget, model.token_limit)
        # The positions of each batch's items. An idle process has an empty batch, for which it makes a pass all the
        # same: see `distributed.own_batches`.
        self._batches = distributed.own_batches(self._lengths, budget, MAX_PADDING)
        self.total = sum(max(len(batch), 1) for batch in self._batches)
        self._did_not_fit: list[int] | None = None  # the batch of one item at which memory ran out

    def results(self, advance: Callable[[int], None]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Score, and yield the positions of each batch's items with their scores, float64 [b, width].

        Args:
            advance: called with the number of items scored since the last call; negative where a batch has failed.

        Raises:
            UserError: not even one item fits into the memory, tried twice.
        """
        shown = done = 0  # items that the progress bar has counted, and items whose scores are there

        def show(count: int) -> None:
            nonlocal shown
            shown += count
            advance(count)

        batches = self._batches
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
                raise UserError(
                    f"{self._model.title}: the memory is not enough for {self._model.least_batch} "
                    f"({tokens} tokens). {self._model.memory_advice}"
                )
            self._did_not_fit = batches[0]
            return batches
        if not batches:
            return []
        widest = max(len(batch) * max(self._lengths[i] for i in batch) for batch in batches)
        limit = max(min(widest, self._model.token_limit or widest) // 2, 1)
        self._model.token_limit = limit
        say(f"{self._model.title}: out of memory, going on with batches of {limit} tokens")
        return budget_batches(self._lengths, limit, [i for batch in batches for i in batch], MAX_PADDING)
