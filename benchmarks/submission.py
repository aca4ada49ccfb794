"""A whole submission at the size of the hidden test: rate, peak memory, and the time that is not a model's.

    make demo
    python benchmarks/submission.py --workdir demo_run --questions 4000 --json
    python benchmarks/submission.py --workdir demo_run --questions 4000 --passages 100000 --json -- --deadline 40m
    OMP_NUM_THREADS=1 python benchmarks/submission.py --workdir demo_run --questions 200 --compare cpu cpu,cpu

The demo's 510 questions are repeated under new ids, each id written into the prompt (so that nothing is embedded or
retrieved only once), and answered by `submit.py` from a fresh cache over the demo's index. `--passages N` makes an
index of N documents by the ordinary code: the demo's, each repeated under new titles; their vectors are those of the
real passages a little displaced, so that the embedder reads each text once only. The report that `submit.py` writes
gives the seconds of each ranker's model and of the embedder; what remains of the wall-clock time is starting
processes, loading, hashing, searching, tokenizing, batching, blending and writing. `--json` prints one JSON object as
the last line; arguments behind `--` go to `submit.py`. `--compare` answers once for each `--devices` given and exits
with an error where their answers or probabilities differ in a byte.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution.demo.exam import EXAM
from solution.files import file_hash
from solution.inference.trained import context_requests, read_ensemble
from solution.questions import Questions, read_questions, write_questions
from solution.retrieval.contexts.build import build_views
from solution.retrieval.corpus import read_corpus
from solution.retrieval.embedding import Embedder
from solution.retrieval.index import build_index
from solution.workdir import Workdir

ROOT = Path(__file__).parent.parent
COPY = re.compile(r" \(copy \d+\)")
DISPLACED = 0.3  # the length of what is added to a copy's unit vector


def grown_exam(count: int) -> Questions:
    """`count` questions from the built-in exam, repeated under new ids, without answers."""
    exam = read_questions(EXAM)
    rows = [row % len(exam) for row in range(count)]
    exam = exam.subset(rows)
    exam.ids = [f"{id_}-{number // len(set(rows))}" for number, id_ in enumerate(exam.ids)]
    exam.prompts = [f"{prompt} [{id_}]" for prompt, id_ in zip(exam.prompts, exam.ids, strict=True)]
    exam.answers[:] = -1
    exam.extra = {}
    return exam


def have_indexes(workdir: Path) -> None:
    """Build what retrieval searches in, where it is not there yet: a submission finds it ready."""
    _, rankers = read_ensemble(Workdir.open(workdir), ())
    for request in context_requests(rankers):
        build_views(grown_exam(1), request.config, request.views, workdir)


def fresh_workdir(source: Path, target: Path) -> None:
    """A working folder with the weights and the indexes of another one, and nothing else that a submission makes."""
    (target / "cache").mkdir(parents=True)
    for name in ("weights", "oof"):
        (target / name).symlink_to((source / name).resolve())
    for pattern in ("index-*", "lexical-*", "models"):
        for path in (source / "cache").glob(pattern):
            (target / "cache" / path.name).symlink_to(path.resolve())


class CopyEmbedder(Embedder):
    """Embeds what is no copy; a copy's vector is that of its original, displaced by a random vector of its own."""

    def __init__(self, spec: str, cache: Path):
        super().__init__(spec, cache)
        self._known: dict[str, np.ndarray] = {}

    def encode(self, texts: Sequence[str], *arguments: Any, **options: Any) -> np.ndarray:
        originals = [COPY.sub("", text) for text in texts]
        new = list(dict.fromkeys(text for text in originals if text not in self._known))
        self._known |= zip(new, super().encode(new, *arguments, **options), strict=True)
        vectors = np.stack([self._known[text] for text in originals])
        for text, vector in zip(texts, vectors, strict=True):
            if COPY.search(text):
                noise = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(len(vector))
                vector += DISPLACED * noise.astype(np.float32) / np.linalg.norm(noise)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def grow_index(workdir: Path, count: int) -> list[str]:
    """Build the indexes of `count` passages in `workdir`; returns the settings for submit.py that name them."""
    requests = context_requests(read_ensemble(Workdir.open(workdir), ())[1])
    if len(requests) != 1:
        raise SystemExit("the rankers do not share one retrieval")
    corpus = workdir / "grown.csv"
    before = requests[0].config
    documents = list(read_corpus(before.corpus))

    def rows() -> Iterator[tuple[str, str]]:
        for copy in itertools.count():
            for document in documents:
                yield document.title + (f" (copy {copy})" if copy else ""), document.text

    with corpus.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["title", "text"])
        writer.writerows(itertools.islice(rows(), count))
    config = before.model_copy(update={"corpus": str(corpus), "duplicates": "keep"})
    index = build_index(config, workdir, CopyEmbedder(config.embedder, workdir / "cache"))
    print(f"{len(index.passages)} passages of {count} documents", file=sys.stderr)
    build_views(grown_exam(1), config, requests[0].views, workdir)
    return [f"retrieval.corpus={corpus}", "retrieval.duplicates=keep"]


class TreeMemory:
    """The highest resident memory of a process and all below it, sampled."""

    def __init__(self, pid: int):
        self.peak_mib = 0.0
        self._pid, self._done = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.25):
            self.peak_mib = max(self.peak_mib, self._resident(self._pid) / 1024)

    def _resident(self, pid: int) -> int:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return 0
        alone = next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
        return alone + sum(self._resident(int(child)) for child in below)

    def stop(self) -> float:
        self._done.set()
        self._thread.join()
        return self.peak_mib


def measure(workdir: Path, count: int, documents: int | None, arguments: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_questions(place / "questions.csv", grown_exam(count))
        if documents is None:
            have_indexes(workdir)
        fresh_workdir(workdir, place / "work")
        if documents is not None:
            arguments = [*grow_index(place / "work", documents), *arguments]
        command = [sys.executable, str(ROOT / "submit.py"), "--questions", str(place / "questions.csv")]
        command += ["--workdir", str(place / "work"), "--output", str(place / "submission.csv")]
        command += ["--probabilities", str(place / "probabilities.csv"), *arguments]
        started = time.monotonic()
        process = subprocess.Popen(command)
        memory = TreeMemory(process.pid)
        code = process.wait()
        seconds, peak = time.monotonic() - started, memory.stop()
        if code:
            raise SystemExit(f"submit.py ended with exit code {code}")
        report = json.loads((place / "submission.report.json").read_text())
        answers = (place / "submission.csv").read_text().splitlines()
        digests = {path.name: file_hash(path) for path in place.glob("[sp]*.csv") if path.name != "questions.csv"}
    rankers = report["rankers"]
    in_models = report["retrieval_model_seconds"] + sum(ranker["model_seconds"] for ranker in rankers)
    figures: dict[str, Any] = {
        **{f"sha256_{name}": digest for name, digest in sorted(digests.items())},
        "devices": ",".join(report["devices"]),
        "questions": count,
        "answered": len(answers) - 1,
        "seconds": round(seconds, 1),
        "questions_per_second": round(count / seconds, 3),
        "peak_memory_mib": round(peak),
        "retrieval_seconds": report["retrieval_seconds"],
        "retrieval_model_seconds": report["retrieval_model_seconds"],
        "load_seconds": round(sum(ranker["load_seconds"] or 0.0 for ranker in rankers), 1),
        "model_seconds": round(in_models, 1),
        "outside_seconds": round(seconds - in_models, 1),
        "outside_share": round(1 - in_models / seconds, 4),
    }
    for ranker in rankers:
        for name in ("seconds_per_question", "load_seconds", "model_seconds", "seconds", "peak_memory_mib"):
            figures[f"{ranker['ranker']}_{name}"] = ranker[name]
        for device in ranker["devices"]:
            figures[f"{ranker['ranker']}_{device['device']}_answers"] = device["answers"]
    return figures


def compare(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether runs on other devices wrote the same bytes, and the seconds of each."""
    hashes = [name for name in runs[0] if name.startswith("sha256_")]
    same = all(run[name] == runs[0][name] for run in runs for name in hashes)
    figures: dict[str, Any] = {"same_bytes": same}
    for run in runs:
        figures |= {
            f"{run['devices']}: {name}": value for name, value in run.items() if name not in ("devices", *hashes)
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("demo_run"), help="the working folder of `make demo`")
    parser.add_argument("--questions", type=int, default=4000)
    parser.add_argument("--passages", type=int, metavar="N", help="grow the index to N documents; default: the demo's")
    parser.add_argument("--compare", nargs="*", metavar="DEVICES", help="one run for each --devices, and their bytes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("arguments", nargs="*", help="for submit.py")
    options = parser.parse_args()
    if options.compare:
        runs = [
            measure(options.workdir, options.questions, options.passages, ["--devices", devices, *options.arguments])
            for devices in options.compare
        ]
        figures = compare(runs)
    else:
        figures = measure(options.workdir, options.questions, options.passages, options.arguments)
    for name, value in figures.items():
        print(f"{name:32} {value}")
    if options.json:
        print(json.dumps(figures))
    if not figures.get("same_bytes", True):
        sys.exit("the devices came to different bytes")


if __name__ == "__main__":
    main()
