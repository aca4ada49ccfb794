"""Training on many questions: seconds of each stage, the time that a device waits, and the memory of all processes.

    python benchmarks/training_scale.py --workdir scale_run
    python benchmarks/training_scale.py --workdir scale_run --questions 300000

The exam and a corpus of 20,000 documents are generated from the words of the built-in exam; each question has five
passages of about 120 tokens, found by BM25. The stages are commands of their own: `folds`, `contexts`, the first fold
of a tiny BERT at 512 tokens, `oof` (the files of a ranker that is not trained, and of random guesses by `import-oof`),
`tune`, `report`.

There is no device. A step of the training is a sleep of `--step` milliseconds (8 questions), and so are 16 scored
questions, so that everything else is seen: what a sleep waits for is the time that the device would wait. The training
ends after `--steps` steps; the fold is scored whole. Memory is the highest sum over the processes of a stage, sampled:
resident (pages that processes share are counted once), and `private`, which leaves out the pages of files: the system
can take those back. A stage that is done is not done again: its figures are kept in the working folder. `--json` prints
one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from solution.demo.exam import EXAM
from solution.files import write_json
from solution.questions import read_questions

STARTED = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = 20_000
QUESTIONS_PER_STEP = 8
SCORED_PER_STEP = 16
FIGURES = "figures.json"
STAGES = ("folds", "contexts", "train", "oof", "tune", "report")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=60_000)
    parser.add_argument("--steps", type=int, default=1000, help="of the training")
    parser.add_argument("--step", type=float, default=50, metavar="MS", help="that the device takes for a step")
    parser.add_argument("--stages", nargs="*", default=STAGES, choices=STAGES)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--train-here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train_here is not None:
        train_here(options.workdir, options.train_here, options.steps, options.step / 1000)
        return
    prepare(options.workdir, options.questions)
    path = options.workdir / FIGURES
    figures = json.loads(path.read_text()) if path.exists() else {}
    for stage in options.stages:
        if stage not in figures:
            figures[stage] = measure(commands(stage, options))
            if stage == "train":
                figures[stage] |= json.loads((options.workdir / "train.json").read_text())
            write_json(path, figures)
    print(f"{options.questions} questions\n{'':10}{'seconds':>9}{'CPU s':>9}{'resident MiB':>14}{'private MiB':>13}")
    for stage, values in figures.items():
        print(
            f"{stage:10}{values['seconds']:9}{values['cpu_seconds']:9}{values['resident_mib']:14}{values['private_mib']:13}"
        )
    for name, value in figures.get("train", {}).items():
        print(f"{name:32}{value}")
    if options.json:
        print(json.dumps({"questions": options.questions, **figures}))


def commands(stage: str, options: argparse.Namespace) -> list[list[str]]:
    """The commands of a stage."""
    work = options.workdir
    configs = ["--configs", str(work / "configs"), "--workdir", str(work / "work")]
    blend = ["--configs", str(work / "blend"), *configs[2:]]
    read = ["--questions", str(work / "questions.csv")]
    ours = [sys.executable, "-m", "solution"]
    train = [sys.executable, str(ROOT / "train_fold.py"), *blend, *read, "--all-folds"]
    return {
        "folds": [[*ours, "folds", *configs, *read]],
        "contexts": [[*ours, "contexts", *configs, *read]],
        "train": [
            [
                *(sys.executable, __file__, "--workdir", str(work), "--steps", str(options.steps)),
                *("--step", str(options.step), "--train-here", str(work / "train.json")),
            ]
        ],
        "oof": [
            train,
            [*ours, "import-oof", str(work / "guesses.csv"), "--name", "guess", *blend, *read],
        ],
        "tune": [[*ours, "tune", *blend]],
        "report": [[*ours, "report", *configs[2:], *read]],
    }[stage]


# --- the exam ------------------------------------------------------------------------------


def prepare(workdir: Path, count: int) -> None:
    """Write the exam, the corpus, the model and the settings, where they are not there yet."""
    if (workdir / "configs").exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    exam = read_questions(EXAM)
    words = re.findall(r"[A-Za-z]+", " ".join([*exam.prompts, *(text for row in exam.options for text in row)]))
    rng = random.Random(1)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(low, high)))

    documents = [[f"Document {number}", f"{text(80, 110)}."] for number in range(DOCUMENTS)]
    write_table(workdir / "corpus.csv", ["title", "text"], documents)
    letters = "ABCDE"
    rows = (
        [f"q{row}", f"Which {text(8, 20)}?", *(text(2, 10) for _ in letters), rng.choice(letters)]
        for row in range(count)
    )
    write_table(workdir / "questions.csv", ["id", "prompt", *letters, "answer"], rows)
    guesses = ([f"q{row}", *shares([rng.random() for _ in letters])] for row in range(count))
    write_table(workdir / "guesses.csv", ["id", *letters], guesses)
    write_model(workdir / "model", [text for _, text in documents[:2000]])
    settings = {
        "retrieval": {
            **{"source": "index", "corpus": str(workdir / "corpus.csv"), "embedder": str(workdir / "model")},
            **{"retrievers": ["lexical"], "query": "prompt", "top_k": 5, "option_scores": []},
        },
        "tiny": {
            **{"name": "tiny", "family": "multiple_choice", "model": str(workdir / "model"), "passages": 5},
            **{"max_tokens": 512, "lora": {"target_modules": ["query", "value"]}, "precision": "float32"},
            "training": {
                **{"epochs": 1, "evaluations_per_epoch": 0, "stuck_patience": 10**6},
                "questions_per_step": QUESTIONS_PER_STEP,
            },
        },
        "longest": {"name": "longest", "family": "longest"},
    }
    # Of `tiny` the first fold alone is trained: the blend is without it.
    for folder, ranker in (("blend", "longest"), ("configs", "tiny")):
        (workdir / "new").mkdir(exist_ok=True)
        ensemble = {"rankers": [ranker], "folds": 5, "tune": {"trials": 200}}
        for name, values in {"ensemble": ensemble, **settings}.items():
            (workdir / "new" / f"{name}.yaml").write_text(yaml.safe_dump(values))
        (workdir / "new").rename(workdir / folder)


def shares(numbers: list[float]) -> list[float]:
    return [number / sum(numbers) for number in numbers]


def write_table(path: Path, header: list[str], rows: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def write_model(folder: Path, texts: list[str]) -> None:
    """A BERT of one layer with a tokenizer learnt from these texts."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(exist_ok=True)
    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=8000)
    tokenizer.save(str(folder / "tokenizer.json"))
    BertTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)


# --- a stage -------------------------------------------------------------------------------


def measure(stage: list[list[str]]) -> dict[str, Any]:
    """Seconds and highest memory of commands, one after the other."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    started, before, resident, private = time.monotonic(), cpu_seconds(), 0.0, 0.0
    for command in stage:
        print(" ".join(command), file=sys.stderr)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            now = [memory_of(pid) for pid in tree(process.pid)]
            resident = max(resident, sum(all_ for all_, _ in now))
            private = max(private, sum(own for _, own in now))
            time.sleep(0.2)
        if process.returncode:
            raise SystemExit(f"exit code {process.returncode}: {' '.join(command)}")
    seconds = time.monotonic() - started
    cpu = cpu_seconds() - before
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "resident_mib": round(resident),
        "private_mib": round(private),
    }


def cpu_seconds() -> float:
    """The processor time of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        below = [child for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return
    for child in below:
        yield from tree(int(child))


def memory_of(pid: int) -> tuple[float, float]:
    """Resident MiB of a process, pages that n processes share counted as an n-th, and those that are private to it."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0, 0.0
    kib = {name: int(value.split()[0]) for name, value in re.findall(r"^(Pss|Pss_Anon):\s*(.*)$", text, re.M)}
    return kib.get("Pss", 0) / 1024, kib.get("Pss_Anon", 0) / 1024


# --- training with a device that sleeps ----------------------------------------------------


class SleepingDevice:
    """In the place of the model's work: sleeps. Attributes: when steps began and ended, on the monotonic clock."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.begun: list[float] = []
        self.ended: list[float] = []
        self.scored: list[tuple[float, float]] = []

    def update(self, training: Any, step: Any) -> Any:
        """In the place of `Training.update`."""
        from solution.learning.task import Update

        self.begun.append(time.monotonic())
        time.sleep(self.seconds)
        progress = training.progress
        progress.step += 1
        progress.loss.append(1.0)
        progress.level.append(1.6)
        self.ended.append(time.monotonic())
        return Update(1.0, 0.0, 1.0)

    def batch_scores(self, ranker: Any, batches: Any, advance: Callable[[int], None]) -> Iterator[Any]:
        """In the place of `NeuralRanker.batch_scores`."""
        import torch

        from solution.rankers.layout import table_width

        for batch in batches:
            begun = time.monotonic()
            time.sleep(self.seconds * len(batch) / 5 / SCORED_PER_STEP)  # an item is an option
            self.scored.append((begun, time.monotonic()))
            advance(len(batch))
            yield torch.rand(len(batch), table_width([item.encoded for item in batch]))

    def figures(self) -> dict[str, Any]:
        steps = len(self.begun)
        waits = [begin - end for begin, end in zip(self.begun[1:], self.ended, strict=False)]
        work = sum(end - begin for begin, end in zip(self.begun, self.ended, strict=True))
        scoring = self.scored[-1][1] - self.scored[0][0]
        scored = sum(end - begin for begin, end in self.scored)
        return {
            "first_step_seconds": round(self.begun[0] - STARTED, 1),
            "steps": steps,
            "step_ms": round(1000 * work / steps, 1),
            "device_waits_share": round(sum(waits) / (sum(waits) + work), 4),
            "longest_wait_ms": round(1000 * max(waits)),
            "scoring_seconds": round(scoring, 1),
            "device_waits_in_scoring_share": round(1 - scored / scoring, 4),
        }


def train_here(workdir: Path, output: Path, steps: int, seconds: float) -> None:
    """Train the first fold of `tiny` on the sleeping device; write its figures."""
    from solution.api.inputs import read_settings
    from solution.learning.loop import Training
    from solution.rankers.families import make_ranker
    from solution.rankers.neural import NeuralRanker
    from solution.training import run as training_run
    from solution.workdir import Workdir

    device = SleepingDevice(seconds)
    Training.update = lambda training, step: device.update(training, step)  # type: ignore[method-assign]
    NeuralRanker.batch_scores = lambda *arguments: device.batch_scores(*arguments)  # type: ignore[method-assign]
    exam = read_questions(workdir / "questions.csv")

    def shortened(*arguments: Any) -> Any:
        ranker: Any = make_ranker(*arguments)
        ranker.trained_share = min(1.0, steps * QUESTIONS_PER_STEP / (0.8 * len(exam)))
        return ranker

    training_run.make_ranker = shortened
    run = read_settings(workdir / "configs", None, None, "tiny")
    training_run.train_folds(run, exam, Workdir.open(workdir / "work"), [0])
    write_json(output, device.figures())


if __name__ == "__main__":
    main()
