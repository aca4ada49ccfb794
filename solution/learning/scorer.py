"""The model that the training loop sees: modules, and scores of encoded questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from solution.learning.ahead import Encoder


class Scorer(Protocol):
    """A model that is trained: a ranker, or the reranker's cross-encoder."""

    @property
    def modules(self) -> list[nn.Module]:
        """All modules that have parameters, trained or not, in an order that does not change."""

    @property
    def head_names(self) -> tuple[str, ...]:
        """Parts of parameter names that mark new modules."""

    def encoding_job(self, rows: Sequence[int], epoch: int) -> Any:
        """What `encode_job` needs to encode these training questions (`epoch` seeds their augmentation)."""

    def encode_job(self, job: Any) -> list[Any]:
        """The token ids of the questions of a job."""

    def for_processes(self) -> Encoder | None:
        """A copy that only encodes, to be sent to other processes; None where encoding takes next to no time."""

    def length(self, item: Any) -> int:
        """Padded tokens that an encoded question costs."""

    def scores(self, items: Sequence[Any]) -> torch.Tensor:
        """float [b, max_options] of b encoded questions, -inf where an option does not exist."""
