"""BM25 over a million passages grown from a real corpus: search, signals, building against the bare library, memory.

    python benchmarks/lexical.py --workdir WORKDIR --questions EXAM/questions.csv

WORKDIR holds an index (`python -m solution index`), of whose passages the text is taken. A grown passage is as many
sentences as a real one has, each drawn from the whole corpus, and a real title: words keep their frequencies and
passages their lengths, so the lists that a query reads are as long as those of so many real passages. Queries are
the exam's prompts with all options; where more are asked for than there are, a query takes each of its words or, as
often, a word of the same place in another. `--json` prints one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from solution.command import command
from solution.config import RetrievalConfig
from solution.errors import UserError

ROWS_AT_ONCE = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="holds cache/index-*")
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000, help="passages")
    parser.add_argument("--queries", type=int, default=4000)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--no-library", action="store_true", help="leave out the bare library call (it takes minutes)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--step", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step[0]](Path(options.step[1]), options)))
        return
    with tempfile.TemporaryDirectory(prefix="lexical-") as name:
        folder = Path(name)
        # Each step in a process of its own, so that its memory is its own.
        facts: dict[str, Any] = {"rows": options.rows, "queries": options.queries, "k": options.k}
        for step in STEPS:
            if step != "library" or not options.no_library:
                facts |= run_step(step, folder)
    if "library_seconds" in facts:
        facts["build_ratio"] = round(facts["build_seconds"] / facts["library_seconds"], 2)
    for fact, value in facts.items():
        print(f"{fact:32}{value}")
    if options.json:
        print(json.dumps(facts))


def run_step(step: str, folder: Path) -> dict[str, Any]:
    command_line = [sys.executable, *sys.argv, "--step", step, str(folder)]
    done = subprocess.run(command_line, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"the step {step} failed")
    return json.loads(done.stdout.splitlines()[-1])


def write_grown(workdir: Path, path: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from solution.sentences import sentences

    folders = sorted((workdir / "cache").glob("index-*/passages.parquet"))
    if not folders:
        raise UserError(f"there is no index in {workdir / 'cache'}; make one: python -m solution index")
    real = pq.read_table(folders[0], columns=["title", "text"])
    titles = real.column("title").to_pylist()
    parts = [sentences(text) for text in real.column("text").to_pylist()]
    every = np.array([sentence for part in parts for sentence in part], dtype=object)
    counts = np.array([len(part) for part in parts])
    rng = np.random.default_rng(0)
    schema = pa.schema([(name, pa.string()) for name in ("id", "title", "text")])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for begin in range(0, rows, ROWS_AT_ONCE):
            sizes = rng.choice(counts, min(ROWS_AT_ONCE, rows - begin))
            drawn = np.split(every[rng.integers(len(every), size=sizes.sum())], np.cumsum(sizes)[:-1])
            columns = [
                [str(begin + i) for i in range(len(sizes))],
                [titles[i] for i in rng.integers(len(titles), size=len(sizes))],
                [" ".join(own) for own in drawn],
            ]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROWS_AT_ONCE)


def grown_queries(path: Path, count: int) -> list[str]:
    from solution.questions import read_questions

    questions = read_questions(path)
    real = [
        " ".join([prompt, *filter(None, options)])
        for prompt, options in zip(questions.prompts, questions.options, strict=True)
    ]
    rng = np.random.default_rng(1)
    words = [text.split() for text in real]
    while len(real) < count:
        own, other = words[rng.integers(len(words))], words[rng.integers(len(words))]
        mixed = [other[i] if i < len(other) and rng.random() < 0.5 else word for i, word in enumerate(own)]
        real.append(" ".join(mixed))
    return real[:count]


def step_grow(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    write_grown(options.workdir, folder / "passages.parquet", options.rows)
    (folder / "queries.json").write_text(json.dumps(grown_queries(options.questions, options.queries)))
    return {}


def step_build(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from solution.memory import PeakMemory
    from solution.retrieval.bm25 import write_bm25

    peak = PeakMemory()
    started = time.perf_counter()
    write_bm25(folder / "passages.parquet", folder, RetrievalConfig())
    seconds = time.perf_counter() - started
    files = [path for path in folder.iterdir() if path.name not in ("passages.parquet", "queries.json")]
    size = sum(path.stat().st_size for path in files)
    return {
        "build_seconds": round(seconds, 1),
        "build_peak_mib": round(peak.mib()),
        "index_mib": round(size / 2**20),
    }


def step_search(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from solution.memory import PeakMemory
    from solution.retrieval.bm25 import LexicalIndex, Words

    queries = json.loads((folder / "queries.json").read_text())
    peak = PeakMemory()
    started = time.perf_counter()
    index = LexicalIndex(folder, Words("english"), "")
    opened = time.perf_counter()
    _, rows = index.search(queries, options.k)
    seconds = time.perf_counter() - opened
    return {
        "open_seconds": round(opened - started, 2),
        "search_seconds": round(seconds, 1),
        "ms_per_query": round(1000 * seconds / len(queries), 2),
        "words_per_query": round(float(np.mean([len(numbers) for numbers in index.postings.numbers(queries)])), 1),
        "found": round(float((rows >= 0).mean()), 4),
        "search_peak_mib": round(peak.mib()),
    }


def step_signals(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The sentence index, and the signals of the exam's options that come from words and terms."""
    from solution.memory import PeakMemory
    from solution.questions import read_questions
    from solution.retrieval.bm25 import LexicalIndex, Postings, Words, write_bm25
    from solution.retrieval.contexts.signals.information import term_signals
    from solution.retrieval.contexts.signals.texts import OptionTexts
    from solution.retrieval.contexts.signals.words import word_signals
    from solution.sentences import sentences

    target = folder / "sentences"
    target.mkdir()
    started = time.perf_counter()
    count = write_bm25(folder / "passages.parquet", target, RetrievalConfig(), lambda passage: sentences(passage.text))
    built = time.perf_counter()
    questions = read_questions(options.questions)
    texts = OptionTexts.of(questions)
    words = Words("english")
    passages, of_sentences = LexicalIndex(folder, words, ""), Postings(target, words, "sentence index")
    peak = PeakMemory()
    times = [time.perf_counter()]
    word_signals(texts, passages.postings, "passage")
    times.append(time.perf_counter())
    word_signals(texts, of_sentences, "sentence")
    times.append(time.perf_counter())
    term_signals(texts, of_sentences)
    times.append(time.perf_counter())
    names = ("passage_words", "sentence_words", "sentence_terms")
    return {
        "sentences": count,
        "sentence_build_seconds": round(built - started, 1),
        "sentence_index_mib": round(sum(path.stat().st_size for path in target.iterdir()) / 2**20),
        **{
            f"{name}_ms_per_question": round(1000 * (end - begin) / len(questions), 1)
            for name, begin, end in zip(names, times, times[1:], strict=False)
        },
        "signals_peak_mib": round(peak.mib()),
    }


def step_library(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """bm25s.tokenize and BM25.index on the same texts, as its documentation shows them."""
    import Stemmer

    from solution.memory import PeakMemory
    from solution.retrieval.bm25 import bm25s_library

    bm25s = bm25s_library()

    texts = list(grown_texts(folder))
    peak = PeakMemory()
    started = time.perf_counter()
    tokens = bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False)
    tokenized = time.perf_counter()
    library = bm25s.BM25(k1=0.9, b=0.4)
    library.index(tokens, show_progress=False)
    seconds = time.perf_counter() - started
    return {
        "library_seconds": round(seconds, 1),
        "library_tokenize_seconds": round(tokenized - started, 1),
        "library_peak_mib": round(peak.mib()),
    }


def grown_texts(folder: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    from solution.exam import passage_text
    from solution.retrieval.passages import Passage

    with pq.ParquetFile(folder / "passages.parquet") as file:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            for row in batch.to_pylist():
                yield passage_text(Passage(**row))


STEPS = {
    "grow": step_grow,
    "build": step_build,
    "search": step_search,
    "signals": step_signals,
    "library": step_library,
}

if __name__ == "__main__":
    command(main)()
