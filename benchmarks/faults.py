"""Faults: every command is disturbed at random, looked at, started again, and compared with an undisturbed run.

    python benchmarks/faults.py --count 200 --seed 0
    python benchmarks/faults.py --steps submit --devices cpu,cpu

A tiny exam goes through index, train_fold, tune and submit with tiny random models. Each fault begins from a copy of
what lies on disk before a step and disturbs that step's command, which runs in a process of its own:

    kill       SIGKILL, at a random moment or at a random call of the package
    interrupt  SIGINT (and SIGTERM, where submit answers it) at a random moment
    stall      SIGSTOP, and SIGCONT a while later
    memory     MemoryError, or PyTorch's out-of-memory error, raised at a random call of the package
    disk       a file system that fills up (a tmpfs where one may be mounted, else a limit on the size of files)
    damage     one file of an earlier step is truncated, emptied, or has one bit turned over
    clock      the wall clock jumps by days, forwards and backwards
    readonly   a folder of the exam cannot be written (a read-only mount where one may be made)
    hang       a ranker's process stops for good (where submit has --ranker-timeout)
    deadline   the time is too short (where submit has --deadline)
    gpu        a GPU that torch cannot use: one that dies at the first operation, or a driver that is too old for torch
    half       with --devices: one of a ranker's processes is killed, or stops for good; the answer must be the same

Afterwards there must be the answer of an undisturbed run, a complete lesser one whose report names the ranker that was
left out, or a clear refusal: exit code 2, one message, no traceback. A submission that is there is complete. The same
command, started again without the fault, must end with the same bytes as an undisturbed run, and leave no other files.
A ranker that says it goes on with smaller batches may differ by their rounding (probabilities by 0.02).
Whatever breaks this is a violation: it is told with the number of its case (`--first N --count 1` repeats it), and the
exit code is 1.

With `--devices` every submission but the undisturbed one gets this option: several devices answer with the bytes of
one, after faults too.

A command runs in a fork of this process, which has imported the libraries, so that most of its time is work;
`--fresh` starts a new interpreter for each. `--json` prints one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import inspect
import json
import os
import random
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STEPS = {
    "index": ["index"],
    "train": ["train", "--all-folds"],
    "tune": ["tune"],
    "submit": ["submit"],
}
HOOK = "FAULTS_HOOK"
LIMIT = 900.0  # seconds of a command; a busy machine takes ten times as long as a quiet one
SMALLER = "out of memory, going on with batches of"
ROUNDING = 0.02  # bfloat16 has eight bits
TIMES = {"metrics.json", "log.csv", "submission.report.json"}
"""Files that say how long something took."""
JOURNALS = ("cache/tune/", "cache/submission/", "logs/")
"""Folders of what a run keeps for its own resume, with times in it."""
PRELOAD = """
    bm25s cmaes faiss numpy optuna pandas peft pyarrow.parquet safetensors.torch scipy.optimize scipy.sparse.csgraph
    sentence_transformers sklearn.feature_extraction.text torch transformers transformers.models.auto
    transformers.models.bert.modeling_bert transformers.models.bert.tokenization_bert solution.cli.app
    solution.ensemble.table solution.ensemble.tune solution.inference.submit solution.rankers.multiple_choice
    solution.retrieval.contexts.build solution.learning.loop solution.training.run
"""


# --- in the disturbed process ----------------------------------------------------------------


def install(hook: dict[str, Any]) -> Callable[[], dict[str, int]]:
    """Put a fault into this process; the function returned tells how many calls of the package were seen."""
    if hook.get("clock") is not None:
        _clock(random.Random(hook["clock"]))
    if hook.get("file_size") is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hook["file_size"], hook["file_size"]))
    if hook.get("gpu") is not None:
        _fake_gpu(hook["gpu"])
    seen = {"all": 0, "models": 0}
    act = hook.get("act")
    if act is None:
        return lambda: seen
    import solution

    package = str(Path(solution.__file__).parent) + os.sep
    models = (package + "rankers", package + "training")
    at, scope = hook.get("at", 0), hook.get("scope", "all")
    begins = Path(package, "inference", "worker.py") if hook.get("answering") else None

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal begins
        name = frame.f_code.co_filename
        if not name.startswith(package):
            return
        if begins is not None:
            if frame.f_code.co_name != "answer" or Path(name) != begins:
                return
            begins = None
        seen["all"] += 1
        seen["models"] += name.startswith(models)
        if seen[scope] == at:
            sys.setprofile(None)
            if hook.get("once") is None or _first(hook["once"]):
                _act(act)

    sys.setprofile(profile)
    return lambda: seen


def _first(place: str) -> bool:
    """Whether this process is the first that comes here."""
    try:
        os.close(os.open(place, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _act(act: str) -> None:
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if act == "memory":
        raise MemoryError
    if act == "torch":
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _fake_gpu(fault: str) -> None:
    import torch

    from solution import gpu

    if fault == "p100":
        # Only for our own code: a build of torch without CUDA lacks functions that others call where a GPU is.
        torch.cuda.is_available = lambda: sys._getframe(1).f_globals["__name__"].startswith("solution")
    else:
        torch.cuda.is_available = lambda: False
        gpu._DRIVER = Path(__file__)
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)


def _clock(draw: random.Random) -> None:
    real, offset = time.time, 0.0

    def jumping() -> float:
        nonlocal offset
        if draw.random() < 0.2:
            offset = draw.uniform(-400, 400) * 86400
        return real() + offset

    time.time = jumping
    time.time_ns = lambda: int(jumping() * 1e9)


def run_here(arguments: list[str], folder: str, hook: dict[str, Any]) -> None:
    """Run a command in this process, and end it."""
    os.chdir(folder)
    script = {"train": "train_fold.py", "submit": "submit.py"}.get(arguments[0])
    sys.argv = [str(ROOT / script) if script else "solution", *arguments[0 if script is None else 1 :]]
    code: Any = 1
    tell = install({} if "worker" in hook else hook)
    try:
        if script:
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            runpy.run_module("solution", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except KeyboardInterrupt:  # before the command began
        code = 130
    except BaseException:
        traceback.print_exc()
    sys.setprofile(None)
    if hook.get("tell"):
        Path(hook["tell"]).write_text(json.dumps(tell()))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


WORKERS = """
import json, os, sys
hook = json.loads(os.environ.get("FAULTS_HOOK") or "{}")
if hook.get("worker") and any("solution.inference.worker" in text for text in sys.orig_argv):
    sys.path.insert(0, hook["worker"])
    import faults
    faults.install(hook)
"""
"""A sitecustomize.py: the processes that submit starts for its rankers take the fault from their environment."""


# --- running ---------------------------------------------------------------------------------


@dataclass
class Ended:
    """How a command ended; a negative code is a signal's number."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass
class Runner:
    """Starts commands: in forks of this process, or in new interpreters."""

    fresh: bool
    scratch: Path

    def run(
        self,
        arguments: list[str],
        folder: Path,
        hook: dict[str, Any] | None = None,
        signals: list[tuple[float, int]] | None = None,
    ) -> Ended:
        """
        Args:
            hook: see `install`.
            signals: seconds after the start, and what is sent to the command's process group then.
        """
        hook = hook or {}
        out, err = self.scratch / "stdout", self.scratch / "stderr"
        started = time.monotonic()
        with open(out, "wb") as a, open(err, "wb") as b:
            child = self._start(arguments, folder, hook, a.fileno(), b.fileno())
        waiting = sorted(signals or [])
        late = False
        try:
            while True:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    break
                elapsed = time.monotonic() - started
                while waiting and elapsed >= waiting[0][0]:
                    _signal(child, waiting.pop(0)[1])
                if elapsed > LIMIT:
                    late = True
                    _signal(child, signal.SIGKILL)
                time.sleep(0.001)
        finally:
            _signal(child, signal.SIGKILL)  # also what it has started and left behind
        code = os.waitstatus_to_exitcode(status)
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
        if late:
            texts[1] += f"\nTraceback: not done after {LIMIT:.0f} s"
        return Ended(code, *texts, time.monotonic() - started)

    def _start(self, arguments: list[str], folder: Path, hook: dict[str, Any], out: int, err: int) -> int:
        if self.fresh:
            command = [sys.executable, __file__, "--run", json.dumps([arguments, str(folder), hook])]
            environment = {**os.environ, HOOK: json.dumps(hook)}
            return subprocess.Popen(command, env=environment, stdout=out, stderr=err, start_new_session=True).pid
        child = os.fork()
        if child:
            return child
        try:
            os.setsid()
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.environ[HOOK] = json.dumps(hook)
            run_here(arguments, str(folder), hook)
        finally:
            os._exit(1)


def _signal(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, number)


# --- the exam --------------------------------------------------------------------------------


def make_exam(folder: Path) -> None:
    """The exam, its corpus, a tiny BERT that embeds and ranks, and the settings."""
    sys.path.insert(0, str(ROOT / "tests"))
    import yaml
    from pipeline import HEADER, ROWS, tiny_ranker, write_configs
    from tiny_models import bert

    work = folder / "exam"
    work.mkdir()
    model = bert(folder / "bert")
    (work / "questions.csv").write_text(HEADER + ROWS)
    (work / "test.csv").write_text(HEADER + ROWS.replace("Which planet", "Which body"))
    lines = [f"p{i},Planet {i},Body number {i} is a planet of ice and iron number {i * 7}.\n" for i in range(12)]
    (work / "corpus.csv").write_text("id,title,text\n" + "".join(lines))
    tiny = tiny_ranker("tiny", model)
    tiny["training"] |= {"epochs": 3, "questions_per_step": 3, "checkpoint_seconds": 0}
    rankers = {
        "tiny": tiny,
        "similarity": {"name": "similarity", "family": "similarity"},
        "longest": {"name": "longest", "family": "longest", "role": "baseline"},
    }
    retrieval: dict[str, Any] = {"source": "index", "corpus": "corpus.csv", "embedder": str(model), "top_k": 3}
    retrieval |= {"retrievers": ["dense", "lexical"], "passage_tokens": 32, "passage_overlap": 4}
    write_configs(work / "configs", rankers, **retrieval)
    path = work / "configs" / "ensemble.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["tune"] |= {"candidates": ["equal", "single", "log_loss", "tuned", "tuned_cma"], "trials": 8}
    path.write_text(yaml.safe_dump(settings))


@dataclass
class Reference:
    """The undisturbed run.

    Attributes:
        before, after: step -> the folder as it is then.
        seconds: step -> what its command takes.
        calls: step -> how many calls of the package it makes: all, and those of rankers and training.
    """

    before: dict[str, Path] = field(default_factory=dict)
    after: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, dict[str, int]] = field(default_factory=dict)


def undisturbed(folder: Path, runner: Runner, asked: list[str]) -> Reference:
    """The steps up to the last one asked for; those asked for a second time, to compare, with their calls counted."""
    made = Reference()
    last = folder / "exam"
    for step, arguments in list(STEPS.items())[: max(map(list(STEPS).index, asked)) + 1]:
        made.before[step] = last
        now, again, tell = folder / f"after-{step}", folder / "again", runner.scratch / "calls.json"
        counted = [(again, {"act": "none", "tell": str(tell)})] if step in asked else []
        for place, hook in (*counted, (now, {})):
            shutil.copytree(last, place)
            done = runner.run(arguments, place, hook)
            if done.code != 0:
                raise SystemExit(f"the undisturbed {step} failed with exit code {done.code}:\n{done.err}")
        made.after[step] = last = now
        if not counted:
            continue
        other = differences(again, now)
        if other:
            raise SystemExit(f"two undisturbed runs of {step} differ: {other}")
        shutil.rmtree(again)
        made.seconds[step] = done.seconds  # of the run whose calls were not counted, which takes time
        made.calls[step] = json.loads(tell.read_text())
    return made


# --- looking ---------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> what decides whether two runs came to the same; times and journals are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name.startswith(JOURNALS):
            continue
        if path.name in TIMES or (path.name == "manifest.json" and name.startswith("weights/")):
            found[name] = b""  # that it is there
        elif name == "weights/ensemble.json":
            record = json.loads(path.read_bytes())
            found[name] = json.dumps({k: v for k, v in record.items() if k not in ("hash", "cascade")}).encode()
        else:
            found[name] = path.read_bytes()
    return found


def differences(folder: Path, wanted: Path, but: str | None = None, rounded: bool = False) -> str:
    """What is not as in an undisturbed run, or nothing; `but` names a file that is left out.

    Args:
        rounded: a ranker went on with smaller batches, so the probabilities of OOF parts may be rounded otherwise.
    """
    try:
        a, b = contents(folder), contents(wanted)
    except ValueError as error:
        return f"ensemble.json is not JSON: {error}"
    names = [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name) and name != but]
    if rounded:
        names = [name for name in names if not (name in a and name in b and equal_but_rounded(folder, wanted, name))]
    told = [f"{name} ({'more' if name not in b else 'missing' if name not in a else 'other'})" for name in names]
    return ", ".join(told[:6])


def equal_but_rounded(folder: Path, wanted: Path, name: str) -> bool:
    """Whether an OOF part has the same rows, and probabilities that only another batch's rounding parts."""
    if not name.startswith("oof/") or not name.endswith(".parquet"):
        return False
    import numpy as np
    import pyarrow.parquet as pq

    one, other = (pq.read_table(place / name).to_pandas() for place in (folder, wanted))
    columns = [column for column in one if column.startswith("p_")]
    if list(one) != list(other) or not one.drop(columns=columns).equals(other.drop(columns=columns)):
        return False
    return np.allclose(one[columns], other[columns], atol=ROUNDING, equal_nan=True)


def declared(folder: Path) -> bool:
    """Whether the report on the submission says that not every ranker answered everything."""
    try:
        report = json.loads((folder / "submission.report.json").read_text())
        cut = [each["lost_folds"] or each["state"] in ("failed", "partial", "skipped") for each in report["rankers"]]
        return report["ended"] != "finished" or any(cut)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def incomplete(folder: Path) -> str:
    """What is wrong with the submission that lies there, or nothing."""
    path = folder / "submission.csv"
    if not path.exists():
        return ""
    with open(folder / "test.csv", newline="") as stream:
        questions = list(csv.DictReader(stream))
    try:
        with open(path, newline="") as stream:
            rows = list(csv.reader(stream))
    except (ValueError, csv.Error) as error:
        return f"submission.csv cannot be read: {error}"
    if rows[:1] != [["id", "prediction"]] or [row[0] for row in rows[1:]] != [row["id"] for row in questions]:
        return "submission.csv does not answer each question once"
    for row, question in zip(rows[1:], questions, strict=True):
        there = [name for name in "ABC" if question[name]]
        letters = row[1].split()
        if (
            len(set(letters)) != min(3, len(there))
            or len(letters) != len(set(letters))
            or not set(letters) <= set(there)
        ):
            return f"submission.csv answers {row[0]} with {row[1]!r}"
    return ""


# --- the faults ------------------------------------------------------------------------------


@dataclass
class Case:
    """One fault, before it happens.

    Attributes:
        folder: a copy of what is on disk before the step.
        expected: exit codes, beside 0 and 2, that are the fault's own.
        mend: what undoes the fault on disk before the command is started again.
        spoilt: a damaged file; it may stay as it is.
        whole: the answer must be that of an undisturbed run.
        line: what the command must say.
    """

    step: str
    folder: Path
    told: str
    arguments: list[str]
    hook: dict[str, Any] = field(default_factory=dict)
    signals: list[tuple[float, int]] = field(default_factory=list)
    expected: tuple[int, ...] = ()
    mend: Callable[[], object] = lambda: None
    spoilt: str | None = None
    line: str = ""
    whole: bool = False
    wanted: Path | None = None


_READ = {"index": ["cache"], "train": ["oof", "weights", "cache"], "tune": ["oof"], "submit": ["weights", "cache"]}
_WORKER_CALLS = 400  # of the package, about what a ranker's process makes
Maker = Callable[[random.Random, Reference, Path, list[str]], Case]
KINDS: dict[str, tuple[Maker, tuple[str, ...]]] = {}


def kind(*steps: str) -> Callable[[Callable[..., Case]], Callable[..., Case]]:
    """Register a fault for these steps."""

    def register(make: Callable[..., Case]) -> Callable[..., Case]:
        name = make.__name__.strip("_")

        def maker(draw: random.Random, reference: Reference, folder: Path, asked: list[str]) -> Case:
            step = draw.choice([step for step in steps if step in asked])
            shutil.copytree(reference.before[step], folder)
            return make(draw, reference, Case(step, folder, "", list(STEPS[step])))

        KINDS[name] = (maker, steps)
        return make

    return register


def moment(draw: random.Random, reference: Reference, case: Case) -> float:
    return draw.uniform(0, reference.seconds[case.step])


@kind("index", "train", "train", "tune", "submit")
def kill(draw: random.Random, reference: Reference, case: Case) -> Case:
    case.expected = (-signal.SIGKILL,)
    if draw.random() < 0.5:
        after = moment(draw, reference, case)
        case.signals, case.told = [(after, signal.SIGKILL)], f"after {after:.3f} s"
    else:
        at = draw.randint(1, reference.calls[case.step]["all"])
        case.hook, case.told = {"act": "kill", "at": at}, f"at call {at}"
    return case


@kind("index", "train", "tune", "submit")
def interrupt(draw: random.Random, reference: Reference, case: Case) -> Case:
    after = moment(draw, reference, case)
    number = signal.SIGTERM if case.step == "submit" and "deadline" in submit_options() else signal.SIGINT
    case.signals, case.told = [(after, number)], f"{number.name} after {after:.3f} s"
    case.expected = (128 + number, -number)  # the second before the command has begun
    return case


@kind("index", "train", "tune", "submit")
def stall(draw: random.Random, reference: Reference, case: Case) -> Case:
    after = moment(draw, reference, case)
    case.signals = [(after, signal.SIGSTOP), (after + draw.uniform(0.1, 0.5), signal.SIGCONT)]
    case.told = f"after {after:.3f} s"
    return case


@kind("index", "train", "train", "tune", "submit", "submit")
def memory(draw: random.Random, reference: Reference, case: Case) -> Case:
    calls = reference.calls[case.step]
    own = case.step == "submit" and "ranker_timeout" in submit_options()
    scope = "models" if (own or calls["models"] > 0) and draw.random() < 0.4 else "all"
    at = draw.randint(1, _WORKER_CALLS if own and scope == "models" else calls[scope])
    case.hook = {"act": "torch" if scope == "models" else "memory", "at": at, "scope": scope}
    if own and scope == "models":
        case.hook["worker"] = str(Path(__file__).parent)
    case.told = (
        f"{case.hook['act']} at call {at} of {scope}{' in a process of a ranker' if 'worker' in case.hook else ''}"
    )
    return case


@kind("index", "train", "tune", "submit")
def disk(draw: random.Random, reference: Reference, case: Case) -> Case:
    grown = size_of(reference.after[case.step]) - size_of(case.folder)
    room = draw.randint(0, max(grown, 4096))
    case.told = f"{room} bytes of room"
    case.hook = {"room": room}
    return case


@kind("index", "train", "tune", "submit", "submit", "submit")
def damage(draw: random.Random, reference: Reference, case: Case) -> Case:
    """In the folder after the last step, so that every file is there."""
    shutil.rmtree(case.folder)
    case.wanted = list(reference.after.values())[-1]
    shutil.copytree(case.wanted, case.folder)
    if case.step == "submit" and draw.random() < 0.7:  # else nothing is asked of the weights again
        shutil.rmtree(case.folder / "cache" / "submission", ignore_errors=True)
    files = [
        path
        for top in _READ[case.step]
        for path in sorted((case.folder / top).rglob("*"))
        if path.is_file() and path.stat().st_size > 0
    ]
    path = draw.choice(files)
    whole = path.read_bytes()
    how = draw.choice(["bit", "bit", "cut", "empty"])
    data = bytearray(whole)
    if how == "bit":
        place = draw.randrange(len(data))
        data[place] ^= 1 << draw.randrange(8)
        how = f"bit of byte {place}"
    path.write_bytes(bytes(data[: draw.randrange(1, len(data))]) if how == "cut" else b"" if how == "empty" else data)
    case.spoilt = str(path.relative_to(case.folder))
    case.told = f"{how} of {case.spoilt}"
    case.mend = lambda: path.parent.mkdir(parents=True, exist_ok=True) or path.write_bytes(whole)
    return case


@kind("index", "train", "tune", "submit")
def clock(draw: random.Random, reference: Reference, case: Case) -> Case:
    case.hook, case.told = {"clock": draw.randrange(10**9)}, "by days"
    return case


@kind("index", "train", "tune", "submit", "submit")
def readonly(draw: random.Random, reference: Reference, case: Case) -> Case:
    names = [name for name in ("cache", "oof", "weights") if (case.folder / name).is_dir()]
    name = draw.choice([".", *names])
    case.told = f"the folder {name}"
    case.hook = {"locked": name}
    return case


@kind("submit")
def hang(draw: random.Random, reference: Reference, case: Case) -> Case:
    # Calls of the rankers' code: the process that retrieves has a longer limit, of its own.
    at = draw.randint(1, _WORKER_CALLS)
    case.hook = {"act": "stop", "at": at, "scope": "models", "worker": str(Path(__file__).parent)}
    case.arguments += ["--ranker-timeout", f"{max(5.0, 0.8 * reference.seconds['submit']):.0f}s"]
    case.told = f"at call {at} of a ranker's process"
    return case


@kind("submit")
def deadline(draw: random.Random, reference: Reference, case: Case) -> Case:
    seconds = draw.uniform(1, 1.2 * reference.seconds["submit"])
    case.arguments += ["--deadline", f"{seconds:.1f}s"]
    case.told = f"{seconds:.1f} s"
    return case


@kind("submit")
def gpu(draw: random.Random, reference: Reference, case: Case) -> Case:
    shutil.rmtree(case.folder / "cache" / "submission", ignore_errors=True)  # so that the rankers are asked
    case.told = draw.choice(["p100", "old driver"])
    case.hook = {"gpu": case.told, "worker": str(Path(__file__).parent)}
    why = "cannot compute on this machine's GPU" if case.told == "p100" else "has an NVIDIA driver, and torch"
    case.line = f"the rankers compute on the CPU: .*{why}"
    return case


@kind("submit")
def half(draw: random.Random, reference: Reference, case: Case) -> Case:
    shutil.rmtree(case.folder / "cache" / "submission", ignore_errors=True)
    act, at = draw.choice(["kill", "kill", "stop"]), draw.randint(1, _WORKER_CALLS)
    case.hook = {"act": act, "at": at, "scope": "models", "worker": str(Path(__file__).parent)}
    case.hook["answering"] = True  # calls from then on: all rankers need retrieval, whose process is no part of this
    case.hook["once"] = str(case.folder.with_name(f"{case.folder.name}-struck"))
    if act == "stop":  # a process that is silent for so long has stopped, and a busy machine's is not
        case.arguments += ["--ranker-timeout", f"{max(20.0, 3 * reference.seconds['submit']):.0f}s"]
    case.told, case.whole = f"{act} at call {at} of one process of a ranker", True
    return case


def submit_options() -> set[str]:
    """The options of submit.py, by their names in the code."""
    from solution.cli.submit import submit

    return set(inspect.signature(inspect.unwrap(submit)).parameters)


def available() -> list[str]:
    """The kinds of faults that this version of the package knows to meet."""
    options = submit_options()
    needed = {"hang": "ranker_timeout", "deadline": "deadline"}
    return [name for name in KINDS if needed.get(name, "questions") in options]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def mounts() -> bool:
    """Whether file systems may be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


@contextlib.contextmanager
def mounted(case: Case, may_mount: bool) -> Iterator[None]:
    """The file system as the fault wants it; afterwards the folder is an ordinary one with what was left in it."""
    folder, hook = case.folder, case.hook
    room, locked = hook.pop("room", None), hook.pop("locked", None)
    if room is not None and may_mount:
        whole = folder.with_name(folder.name + "-whole")
        folder.rename(whole)
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "none", str(folder)], check=True)
        try:
            shutil.copytree(whole, folder, dirs_exist_ok=True)
            state = os.statvfs(folder)
            size = (state.f_blocks - state.f_bfree) * state.f_frsize + room
            subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
            yield
            shutil.rmtree(whole)
            shutil.copytree(folder, whole)
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()
        whole.rename(folder)
    elif room is not None:
        hook["file_size"] = room
        yield
    elif locked is not None and may_mount:
        place = str((folder / locked).resolve())
        subprocess.run(["mount", "--bind", place, place], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
            yield
        finally:
            subprocess.run(["umount", "-l", place], check=True)
    elif locked is not None:
        paths = [path for path in (folder / locked, *(folder / locked).rglob("*")) if path.is_dir()]
        for path in paths:
            path.chmod(0o555)
        try:
            yield
        finally:
            for path in paths:
                path.chmod(0o755)
    else:
        yield


@dataclass
class Outcome:
    """What became of a fault: the answer's kind, and what broke the rules."""

    ended: str
    resumed: bool
    violations: list[str]
    told: str
    seconds: float
    err: str


def face(case: Case, reference: Reference, runner: Runner, may_mount: bool) -> Outcome:
    """Let the fault happen, look at what is left, and start the command again."""
    wanted = case.wanted or reference.after[case.step]
    started = time.monotonic()
    with mounted(case, may_mount):
        done = runner.run(case.arguments, case.folder, case.hook, case.signals)
    wrong: list[str] = []
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    clear = len(errors) == 1 and "Traceback" not in done.err
    ended = "stopped"
    rounded = SMALLER in done.err
    if done.code == 0:
        ended = "lesser" if rounded and differences(case.folder, wanted, case.spoilt) else "answer"
        other = differences(case.folder, wanted, case.spoilt, rounded)
        if case.step == "submit" and not (case.folder / "submission.csv").exists():
            wrong.append("done, and there is no submission")
        elif (
            other.startswith(("submission.csv (other)", "cache/contexts")) and declared(case.folder) and not case.whole
        ):
            ended = "lesser"
        elif other:
            wrong.append(f"done, and not as undisturbed: {other}")
    elif done.code == 2:
        ended = "refusal"
        wrong += [] if clear else ["exit code 2 without one clear message"]
        wrong += ["a refusal, and the other process could have answered"] if case.whole else []
    elif done.code not in case.expected and not (done.code == 1 and done.err.strip().endswith("Aborted!")):
        ended = "other"
        wrong.append(f"exit code {done.code}")
    if case.line and not re.search(case.line, " ".join(done.err.split())):
        wrong.append(f"it did not say {case.line!r}")
    broken = incomplete(case.folder)
    wrong += [broken] if broken else []
    case.mend()
    again = runner.run(list(STEPS[case.step]), case.folder)
    other = f"exit code {again.code}" if again.code else differences(case.folder, wanted, rounded=rounded)
    wrong += [f"started again: {other}"] if other else []
    err = done.err if not other or not again.code else f"{done.err}\n--- again ---\n{again.err}"
    return Outcome(ended, not other, wrong, f"{case.step}: {case.told}", time.monotonic() - started, err)


# --- the script ------------------------------------------------------------------------------


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        run_here(*json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), help="default: all that the package can meet")
    parser.add_argument("--steps", nargs="*", choices=list(STEPS), default=list(STEPS), help="whose commands")
    parser.add_argument("--devices", help="of submit.py, such as cpu,cpu")
    parser.add_argument("--fresh", action="store_true", help="a new interpreter for each command")
    parser.add_argument("--workdir", type=Path, help="a folder to work in; default: a temporary one")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    there = [name for name in available() if name != "half" or options.devices]
    kinds = [name for name in options.kinds or there if name in there]
    for name in sorted(set(options.kinds or KINDS) - set(kinds) - {"half"}):
        print(f"{name}: this version of submit.py has no option for it; left out")
    kinds = [name for name in kinds if set(KINDS[name][1]) & set(options.steps)]
    if not kinds:
        parser.error("no kind of fault is left")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("SOLUTION_TRACEBACK", None)
    if options.workdir:
        options.workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="faults-", dir=options.workdir) as name:
        broken = run_all(options, kinds, Path(name).resolve())
    sys.exit(1 if broken else 0)


def run_all(options: argparse.Namespace, kinds: list[str], folder: Path) -> bool:
    """All faults, the table, and whether there was a violation."""
    customize = folder / "customize"
    customize.mkdir()
    (customize / "sitecustomize.py").write_text(WORKERS)
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), path, str(customize)]))
    runner = Runner(options.fresh, folder)
    if not options.fresh:
        import importlib

        for name in PRELOAD.split():
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    # Models and tokenizers are made in a process of their own: no thread may run here when a command is forked.
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit("the exam could not be made")
    else:
        code = 1
        try:
            make_exam(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    reference = undisturbed(folder, runner, options.steps)
    STEPS["submit"] += ["--devices", options.devices] if options.devices else []
    may_mount = mounts()
    if not may_mount:
        print("nothing may be mounted here: disk limits the size of files, and readonly takes the right to write")
        if os.geteuid() == 0:  # whom no right stops
            kinds = [name for name in kinds if name != "readonly"]
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    violations: list[dict[str, Any]] = []
    started = time.monotonic()
    try:
        for number in range(options.first, options.first + options.count):
            name = kinds[number % len(kinds)]
            draw = random.Random(f"{options.seed} {number}")
            place = folder / f"case-{number}"
            case = KINDS[name][0](draw, reference, place, options.steps)
            found = face(case, reference, runner, may_mount)
            row = counts[name]
            row["runs"] += 1
            row[found.ended] += 1
            row["resumed"] += found.resumed
            row["violations"] += bool(found.violations)
            mark = "; ".join(found.violations) or found.ended
            print(f"{number:4} {name:9} {found.told}: {mark} ({found.seconds:.1f} s)", flush=True)
            if found.violations:
                tail = found.err.strip().splitlines()[-25:]
                print("\n".join(f"       | {line}" for line in tail), flush=True)
                violations.append({"case": number, "kind": name, "fault": found.told, "what": found.violations})
            shutil.rmtree(place, ignore_errors=True)
    except KeyboardInterrupt:
        print("interrupted: the table is of the faults until now")
    columns = ("runs", "answer", "lesser", "refusal", "stopped", "resumed", "violations")
    titles = ("runs", "same answer", "lesser answer", "clear refusal", "stopped", "resumed equal", "violations")
    print("\n" + "kind".ljust(11) + "".join(title.rjust(15) for title in titles))
    rows = {name: [counts[name][column] for column in columns] for name in kinds if name in counts}
    rows["all"] = [sum(row[place] for row in rows.values()) for place in range(len(columns))]
    for name, numbers in rows.items():
        print(name.ljust(11) + "".join(f"{value:15}" for value in numbers))
    if options.json:
        table = {name: dict(zip(columns, numbers, strict=True)) for name, numbers in rows.items()}
        seconds = round(time.monotonic() - started, 1)
        facts = {"count": rows["all"][0], "seed": options.seed, "first": options.first, "seconds": seconds}
        print(json.dumps({**facts, "mounts": may_mount, "kinds": table, "violations": violations}))
    return bool(violations)


if __name__ == "__main__":
    main()
