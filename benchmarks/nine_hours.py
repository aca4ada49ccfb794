"""The nine hours on paper: what a submission of the shipped full-size ensemble takes on Kaggle's GPUs.

    python benchmarks/nine_hours.py
    python benchmarks/nine_hours.py --questions 4000 --achieved 0.5

Nothing is measured here. The operations of a question are counted from the shapes of the models in `configs/` and
divided by a GPU's rate: the peak of its data sheet times the share of it that is assumed to be reached. Every question
is taken to fill `max_tokens`, so most are cheaper. The time that two GPUs take together is the estimate of `submit.py`
itself (`schedule.shared_seconds`). `--achieved 0.5` halves all rates, since no T4 and no P100 was at hand. What an
H200 was measured to take (docs/reliability.md) is shown beside what this count gives for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from solution.config import RankerConfig
from solution.config_files import load_run
from solution.inference.schedule import START_SECONDS, shared_seconds

ROOT = Path(__file__).parent.parent
OPTIONS, OPTION_TOKENS = 5, 20  # of a question: the competition's; assumed
LIMIT = 8.5  # hours, the deadline of the bundle's notebook
READ = 150e6  # bytes a second from Kaggle's disk, assumed
TERA = 1e12


@dataclass(frozen=True)
class Shape:
    """A model's layers, from its `config.json`.

    Attributes:
        inner: width of the feed-forward part.
        matrices: of it: 2, or 3 where it is gated.
        file: bytes of the checkpoint.
        score_passes: products of queries and keys of a layer; DeBERTa has three (He et al. 2021).
    """

    layers: int
    hidden: int
    inner: int
    matrices: int
    file: float
    score_passes: int = 1

    def operations(self, tokens: float, cross: bool = False) -> float:
        """Of a sequence of tokens through all layers; `cross`: with attention to another sequence besides."""
        weights = (8 if cross else 4) * self.hidden**2 + self.matrices * self.hidden * self.inner
        attention = 2 * (1 + self.score_passes) * tokens * self.hidden
        return self.layers * tokens * (2 * weights + attention)


SHAPES = {
    "deberta_v3_large": Shape(24, 1024, 4096, 2, 0.87e9, score_passes=3),
    "phi3_mini": Shape(32, 3072, 8192, 3, 7.6e9),
    "llama2_7b": Shape(32, 4096, 11008, 3, 13.5e9),
    "flan_t5_large": Shape(24, 1024, 2816, 3, 3.1e9),
}


@dataclass(frozen=True)
class Gpu:
    """A GPU's rates in operations a second: the peaks of its data sheet, and the share of them that is assumed."""

    name: str
    half: float
    single: float
    share: float
    count: int = 1

    def rate(self, config: RankerConfig) -> float:
        """T5 computes in float32 where there is no bfloat16, see `Family.float16`."""
        half = config.traits.float16 or self.name == "H200"
        return (self.half if half else self.single) * self.share


# Matrix products of a T4 run into its limit of 70 W; a P100 has no tensor cores, so its products come nearer its peak.
GPUS = (
    Gpu("T4", 65 * TERA, 8.1 * TERA, 0.4),
    Gpu("2 x T4", 65 * TERA, 8.1 * TERA, 0.4, count=2),
    Gpu("P100", 18.7 * TERA, 9.3 * TERA, 0.6),
)
H200 = Gpu("H200", 989 * TERA, 67 * TERA, 1.0)
MEASURED = {"deberta_v3_large": 0.04, "llama2_7b": 0.05, "phi3_mini": 0.03}  # docs/reliability.md, 512 tokens, one fold


def operations(config: RankerConfig, tokens: int) -> float:
    """Of one question and one fold: encoders read each option with the context, the others the context once."""
    shape = SHAPES[config.name]
    if config.family == "multiple_choice":
        return OPTIONS * shape.operations(tokens)
    if config.family == "seq2seq":
        return shape.operations(tokens) + OPTIONS * shape.operations(OPTION_TOKENS, cross=True)
    return shape.operations(tokens + OPTIONS * OPTION_TOKENS)


def hours(configs: Sequence[RankerConfig], gpu: Gpu, passes: dict[str, int], questions: int, achieved: float) -> float:
    """Of a whole submission, without the retrieval; `passes`: ranker -> the weights that answer each question."""
    total = 0.0
    for config in configs:
        seconds = (
            questions * passes[config.name] * operations(config, config.max_tokens) / (gpu.rate(config) * achieved)
        )
        total += START_SECONDS + SHAPES[config.name].file / READ + shared_seconds(seconds, gpu.count)
    return total / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, default=ROOT / "configs")
    parser.add_argument("--questions", type=int, default=4000)
    parser.add_argument("--achieved", type=float, default=1.0, help="a factor on all rates")
    options = parser.parse_args()
    run = load_run(options.configs)
    configs = [config for config in run.rankers if config.name in SHAPES]
    folds = run.ensemble.folds
    print("| ranker, one pass | " + " | ".join(f"{gpu.name}, s a question" for gpu in GPUS if gpu.count == 1) + " |")
    for config in configs:
        rates = [gpu.rate(config) * options.achieved for gpu in GPUS if gpu.count == 1]
        cells = [f"{operations(config, config.max_tokens) / rate:.2f}" for rate in rates]
        print(f"| {config.name} ({config.max_tokens} tokens) | {' | '.join(cells)} |")
    ways = {
        f"folds ({folds} passes each)": {config.name: folds for config in configs},
        "average, or full with one seed (1 pass each)": {config.name: 1 for config in configs},
        "as shipped": {config.name: folds if config.answer_with == "folds" else 1 for config in configs},
    }
    print(f"\n| {options.questions} questions, hours | " + " | ".join(gpu.name for gpu in GPUS) + " |")
    for way, passes in ways.items():
        cells = []
        for gpu in GPUS:
            needed = hours(configs, gpu, passes, options.questions, options.achieved)
            cells.append(f"{needed:.1f}{'' if needed <= LIMIT else ' (too long)'}")
        print(f"| {way} | {' | '.join(cells)} |")
    print("\n| 512 tokens on an H200 | measured, s | operations | share of the peak that was reached |")
    for config in configs:
        if config.name in MEASURED:
            count = operations(config, 512)
            share = count / MEASURED[config.name] / H200.rate(config)
            print(f"| {config.name} | {MEASURED[config.name]} | {count / TERA:.1f} tera | {share:.0%} |")


if __name__ == "__main__":
    main()
