"""The model that the training loop sees: modules, and scores of encoded questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn


class Scorer(Protocol):
    """A model that is trained: a ranker, or the reranker's cross-encoder."""

    @property
    def modules(self) -> list[nn.Module]:
        """All modules that have parameters, trained or not, in an order that does not change."""

    @property
    def head_names(self) -> tuple[str, ...]:
        """Parts of parameter names that mark new modules."""

    def encode(self, row: int, epoch: int) -> Any:
        """The token ids of one training question (`epoch` seeds its augmentation)."""

    def length(self, item: Any) -> int:
        """Padded tokens that an encoded question costs."""

    def scores(self, items: Sequence[Any]) -> torch.Tensor:
        """float [b, max_options] of b encoded questions, -inf where an option does not exist."""
