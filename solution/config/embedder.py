"""Settings of the tuning of an embedder."""

from __future__ import annotations

from pydantic import Field

from solution.config.base import Settings


class EmbedderTuning(Settings):
    """The training of an embedder on questions whose source passage is known (see `retrieval.embedder_tuning`)."""

    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(2e-5, gt=0)
    """Its highest value: it rises over the first tenth of the steps, then falls in a straight line."""
    batch_size: int = Field(32, ge=2)
    """Questions of a step. The passages of the others are wrong ones for each."""
    negatives: int = Field(1, ge=0, le=8)
    """Wrong passages that are mined for each question, beside those of the step's other questions."""
    mined: int = Field(50, ge=1)
    """Wrong passages are looked for among so many of the nearest."""
    margin: float = Field(0.95, gt=0, le=1)
    """A passage whose cosine is higher than this share of the source's may be right as well: it is not mined
    (NV-Retriever, arXiv 2407.15831)."""
    options: bool = True
    """Learn too that the question with its right option is nearer to a sentence of the source than with a wrong one."""
    max_tokens: int = Field(128, ge=16)
    """Longer texts are cut while it learns."""
    held_out: float = Field(0.1, gt=0, le=0.5)
    """The share of the documents whose questions are not learnt from, but measured before and after."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
