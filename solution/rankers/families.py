"""The families: which class a config's `family` names."""

from __future__ import annotations

from pathlib import Path

from solution.config import RankerConfig
from solution.rankers.base import Ranker


def make_ranker(config: RankerConfig, cache: Path) -> Ranker:
    """The ranker of a config; no model is loaded yet.

    Args:
        cache: the folder in which a converted model is kept.
    """
    if config.family in ("similarity", "longest"):
        from solution.rankers.untrained import LongestRanker, SimilarityRanker

        return SimilarityRanker(config) if config.family == "similarity" else LongestRanker(config)
    if config.family == "multiple_choice":
        from solution.rankers.multiple_choice import MultipleChoiceRanker

        return MultipleChoiceRanker(config, cache)
    if config.family == "seq2seq":
        from solution.rankers.seq2seq import Seq2SeqRanker

        return Seq2SeqRanker(config, cache)
    if config.stream:
        from solution.rankers.streamed import StreamedCausalRanker

        return StreamedCausalRanker(config, cache)
    from solution.rankers.causal import CausalRanker

    return CausalRanker(config, cache)
