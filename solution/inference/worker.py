"""The process that `child.Child` starts: one job from stdin, events as JSON lines to stdout (see `wire`)."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from solution import progress
from solution.config import RankerConfig, RetrievalConfig
from solution.errors import UserError
from solution.exam import Exam
from solution.files import without_hashing
from solution.gpu import gpu_problem, gpu_works, visible_gpus
from solution.inference.memory import Watch, available_memory, hold_gpu_to, watched
from solution.inference.memory_plan import SLACK, MemoryPlan, shown
from solution.inference.wire import (
    AnswerJob,
    BatchRecord,
    Event,
    LookJob,
    RetrieveJob,
    read_exam_record,
    read_questions_record,
)
from solution.memory import main_memory
from solution.rankers.base import Ranker, predict_part
from solution.rankers.families import make_ranker
from solution.retrieval.contexts.build import build_views
from solution.retrieval.contexts.signals.limit import TimeLimit
from solution.retrieval.embedding import Embedder
from solution.retrieval.reranker.trained import Reranker
from solution.retrieval.sources import known_hashes, take_hashes
from solution.suggestions import running_command

Tell = Callable[[Event], None]
_BEAT_SECONDS = 1.0
_ROOM_SECONDS = 10.0  # a driver may take so long to free the memory of the process before


def plan_all(job: AnswerJob, tell: Tell) -> list[MemoryPlan]:
    """The memory of all rankers that are to run, the job's own first."""
    # Imported here: it loads torch, and `main` must first tie this process to its parent.
    from solution.inference.outline import plan_memory

    available = available_memory(job["memory"], job["held"])
    machine = main_memory() if gpu_works() else None
    host_available = 0 if machine is None else machine.available
    plans: list[MemoryPlan] = []
    own_done = time.monotonic()
    for request in job["to_plan"]:
        config = RankerConfig.model_validate(request["config"])
        tell({"event": "planning", "ranker": config.name})
        folders, exams = list(map(Path, request["folders"])), read_exam_record(request["exam"])
        plan = plan_memory(config, exams, folders, Path(job["cache"]), available, request["questions"])
        plans.append(replace(plan, host_available=host_available))
        if len(plans) == 1:
            own_done = time.monotonic()
    tell({"event": "plans", "plans": [vars(plan) for plan in plans], "seconds": time.monotonic() - own_done})
    return plans


def answer(job: AnswerJob, tell: Tell, batches: Iterator[BatchRecord]) -> None:
    """Load a ranker once, within its planned memory, and answer batches as they come.

    The first ranker's process plans for all: what it has imported need not be imported in another one.
    """

    # Imported here: it loads torch, and `main` must first tie this process to its parent.
    from solution.inference.outline import empty_ranker

    exams, cache = read_exam_record(job["exam"]), Path(job["cache"])
    config = RankerConfig.model_validate(job["config"])
    if job["on_gpu"] and not gpu_works():
        raise UserError(gpu_problem() or "torch sees no GPU")
    plan = MemoryPlan(**job["plan"]) if job["plan"] else plan_all(job, tell)[0]
    if plan.problem:
        raise UserError(plan.problem)
    if job["on_gpu"] and job["plan"]:
        _await_room(job, plan)
    if job["plan"] and not gpu_works():
        with contextlib.suppress(Exception):  # what is wrong is told when it is loaded
            empty_ranker(config, cache)  # as planning does: the libraries are not to be measured as the model's
    hold_gpu_to(job["memory"])
    with watched(config.name, 0, plan) as watch:
        # The model's last reference goes when this returns, before its memory is looked at.
        watch.questions = _answer_batches(job, make_ranker(plan.apply(config), cache), exams, watch, tell, batches)
    tell(
        {
            "event": "given_back",
            "used_mib": watch.peak_mib,
            "kept_mib": watch.kept_mib,
            "summary": watch.summary,
        }
    )


def _await_room(job: AnswerJob, plan: MemoryPlan) -> None:
    """Raise `UserError` where this process's GPU has no room for what was planned on another one."""
    needed, until = plan.peak * SLACK, time.monotonic() + _ROOM_SECONDS
    while (free := available_memory(job["memory"], job["held"])) < needed:
        if time.monotonic() > until:
            raise UserError(f"it has room for {shown(max(free, 0))}, and {shown(needed)} are needed")
        time.sleep(0.5)


def _answer_batches(
    job: AnswerJob,
    model: Ranker,
    exams: Sequence[Exam],
    watch: Watch,
    tell: Tell,
    batches: Iterator[BatchRecord],
) -> int:
    """Answer batches; each fold is loaded when its first batch comes, the job's own before. Returns the number of
    questions."""
    folders, width = list(map(Path, job["folders"])), exams[0].questions.max_options
    fold, asked = job["fold"], set[int]()
    model.load(folders[fold])
    watch.loaded(model)
    tell({"event": "device", "computed_on": str(getattr(model, "device", "cpu")), "problem": gpu_problem()})
    tell({"event": "loaded"})
    for batch in batches:
        if batch["fold"] != fold:
            fold = batch["fold"]
            model.load(folders[fold])
        asked |= set(batch["rows"])
        started, in_model = time.monotonic(), getattr(model, "model_seconds", 0.0)
        alive = np.array(batch["alive"], dtype=bool)  # [rows, width]
        table = predict_part(model, exams, batch["rows"], alive, width)
        tell(
            {
                "event": "part",
                "number": batch["number"],
                "table": base64.b64encode(np.ascontiguousarray(table, dtype="<f4").tobytes()).decode(),
                "seconds": time.monotonic() - started,
                "model_seconds": getattr(model, "model_seconds", 0.0) - in_model,
                "peak_mib": watch.peak.mib(),
                "alike": model.alike,
                "float32_rows": _overflown(model, exams[0], batch["rows"]),
            }
        )
    return len(asked)


def _overflown(model: Ranker, exam: Exam, rows: Sequence[int]) -> list[int]:
    """Those of the rows whose questions overflowed in float16, and were scored again in float32."""
    ids = getattr(model, "float32_ids", ())
    return [row for row in rows if exam.questions.ids[row] in ids]


def retrieve(job: RetrieveJob, tell: Tell) -> None:
    """Make the contexts that the rankers will read; the submission opens them by their keys."""
    questions = read_questions_record(job["questions"])
    config = RetrievalConfig.model_validate(job["retrieval"])
    take_hashes(job["corpus_hashes"])
    limit = None if job["signal_seconds"] is None else TimeLimit(job["signal_seconds"])
    with contextlib.nullcontext() if job["verify"] else without_hashing():
        views = build_views(questions, config, job["views"], Path(job["workdir"]), signal_limit=limit)
    keys = {view: contexts.key for view, contexts in views.items()}
    tell(
        {
            "event": "retrieved",
            "keys": keys,
            "model_seconds": Embedder.model_seconds,
            "float32_passages": Reranker.float32_passages,
            "corpus_hashes": known_hashes(),
        }
    )


def look(job: LookJob, tell: Tell) -> None:
    """Tell which GPUs there are: in a process that ends, since looking takes memory of each of them."""
    tell({"event": "gpus", "gpus": [(gpu.number, gpu.model, gpu.failure) for gpu in visible_gpus()]})


def _sent_batches() -> Iterator[BatchRecord]:
    """The lines that follow the job."""
    yield from map(json.loads, iter(sys.stdin.buffer.readline, b""))


_WORK: dict[str, Callable[[Any, Tell], None]] = {
    "answer": lambda job, tell: answer(job, tell, _sent_batches()),
    "retrieve": retrieve,
    "look": look,
}


def main() -> None:
    parent = int(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the parent ends this one
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # Linux, PR_SET_PDEATHSIG: not to outlive the parent
    if os.getppid() != parent:
        return
    # Whatever libraries print goes to stderr; stdout is for events.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(event: Event) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    beaten = time.monotonic()

    def beat() -> None:
        nonlocal beaten
        if time.monotonic() - beaten >= _BEAT_SECONDS:
            beaten = time.monotonic()
            tell({"event": "beat"})

    progress.listener = beat
    try:
        job: AnswerJob | RetrieveJob | LookJob = json.loads(sys.stdin.buffer.readline())
    except ValueError:  # the parent was ended while it was starting this process
        sys.exit(1)
    progress.console.quiet = job["kind"] == "answer"  # the parent shows one bar for all batches
    try:
        with running_command("submit", job["command"]):
            _WORK[job["kind"]](job, tell)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent goes on without this ranker
        if os.environ.get("SOLUTION_TRACEBACK"):
            raise
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        tell({"event": "error", "reason": text})
        sys.exit(1)
    tell({"event": "done"})


if __name__ == "__main__":
    main()
