"""The families of rankers: what settings and stages must know of each before any of its code is loaded.

A new family is a module in `solution/rankers/` and a line of `FAMILIES` here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A family of rankers.

    Attributes:
        ranker: its class, `module.Class` below `solution.rankers`. It is named here and imported by
            `rankers.families.make_ranker`, since its module loads torch.
        streamed: the class that scores with a model larger than the memory; None: there is none.
        has_model: whether it loads a pretrained model; in a submission only such families get a process of their own.
        learns: whether a fold's ranker is trained, and has files that a submission loads.
        generative: whether it reads a prompt and has the settings `prompt`, `head`, `show_options` and `rotations`.
        reads: `passages`: as many as the ranker's settings say; `scores`: retrieval's scores of the options alone;
            `signals`: many signals of each option; `nothing`: no retrieval is needed.
        by_option: whether a question takes time in proportion to the number of its options.
        attention: whether it has the setting `attention`.
        float16: whether `precision: auto` takes float16 on a GPU without bfloat16. T5 was trained in bfloat16, and its
            activations overflow float16, in its own dtype and under autocast: it computes in float32 there.
    """

    ranker: str
    streamed: str | None = None
    has_model: bool = True
    learns: bool = True
    generative: bool = False
    reads: str = "passages"
    by_option: bool = False
    attention: bool = False
    float16: bool = True


FAMILIES = {
    "multiple_choice": Family("multiple_choice.MultipleChoiceRanker", by_option=True, attention=True),
    "causal": Family("causal.CausalRanker", streamed="streamed.StreamedCausalRanker", generative=True),
    "seq2seq": Family("seq2seq.Seq2SeqRanker", generative=True, float16=False),
    "features": Family("features.FeaturesRanker", has_model=False, reads="signals"),
    "similarity": Family("untrained.SimilarityRanker", has_model=False, learns=False, reads="scores"),
    "longest": Family("untrained.LongestRanker", has_model=False, learns=False, reads="nothing"),
}


def families_with(trait: Callable[[Family], object]) -> str:
    """The names of the families for which `trait` is true, as a message lists them: "causal and seq2seq"."""
    names = [name for name, family in FAMILIES.items() if trait(family)]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
