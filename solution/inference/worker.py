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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution import (
    noise,  # noqa: F401 - silences other libraries before they are imported
    progress,
)
from solution.config import RankerConfig, RetrievalConfig
from solution.errors import UserError
from solution.exam import Exam
from solution.files import without_hashing
from solution.gpu import gpu_problem, gpu_works
from solution.inference.memory import Watch, available_memory, hold_gpu_to, watched
from solution.inference.memory_plan import MemoryPlan
from solution.inference.wire import AnswerJob, Event, RetrieveJob, read_exam_record, read_questions_record
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


def plan_all(job: AnswerJob, tell: Tell) -> list[MemoryPlan]:
    """The memory of all rankers that are to run, the job's own first."""
    # Imported here: it loads torch, and `main` must first tie this process to its parent.
    from solution.inference.outline import plan_memory

    available = available_memory(job["memory"], job["held"])
    plans: list[MemoryPlan] = []
    own_done = time.monotonic()
    for request in job["to_plan"]:
        config = RankerConfig.model_validate(request["config"])
        tell({"event": "planning", "ranker": config.name})
        folders, exams = list(map(Path, request["folders"])), read_exam_record(request["exam"])
        plans.append(plan_memory(config, exams, folders, Path(job["cache"]), available, request["questions"]))
        if len(plans) == 1:
            own_done = time.monotonic()
    tell({"event": "plans", "plans": [vars(plan) for plan in plans], "seconds": time.monotonic() - own_done})
    return plans


def answer(job: AnswerJob, tell: Tell) -> None:
    """Load a ranker once, within its planned memory, and answer the job's batches in their order.

    The first ranker's process plans for all: what it has imported need not be imported in another one.
    """

    # Imported here: it loads torch, and `main` must first tie this process to its parent.
    from solution.inference.outline import empty_ranker

    exams, cache = read_exam_record(job["exam"]), Path(job["cache"])
    config = RankerConfig.model_validate(job["config"])
    plan = MemoryPlan(**job["plan"]) if job["plan"] else plan_all(job, tell)[0]
    if plan.problem:
        raise UserError(plan.problem)
    if job["plan"] and not gpu_works():
        with contextlib.suppress(Exception):  # what is wrong is told when it is loaded
            empty_ranker(config, cache)  # as planning does: the libraries are not to be measured as the model's
    hold_gpu_to(job["memory"])
    asked = {row for batch in job["batches"] for row in batch["rows"]}
    with watched(config.name, len(asked), plan) as watch:
        # The model's last reference goes when this returns, before its memory is looked at.
        _answer_batches(job, make_ranker(plan.apply(config), cache), exams, watch, tell)
    tell(
        {
            "event": "given_back",
            "used_mib": watch.peak_mib,
            "kept_mib": watch.kept_mib,
            "summary": watch.summary,
        }
    )


def _answer_batches(job: AnswerJob, model: Ranker, exams: Sequence[Exam], watch: Watch, tell: Tell) -> None:
    """Answer the job's batches; each fold is loaded when its first batch comes."""
    folders, width = list(map(Path, job["folders"])), exams[0].questions.max_options
    fold: int | None = None
    for number, batch in enumerate(job["batches"]):
        if batch["fold"] != fold:
            model.load(folders[batch["fold"]])
            watch.loaded(model)
            if fold is None:
                computed_on = str(getattr(model, "device", "cpu"))
                tell({"event": "device", "computed_on": computed_on, "problem": gpu_problem()})
                tell({"event": "loaded"})
            fold = batch["fold"]
        started, in_model = time.monotonic(), getattr(model, "model_seconds", 0.0)
        alive = np.array(batch["alive"], dtype=bool)  # [rows, width]
        table = predict_part(model, exams, batch["rows"], alive, width)
        tell(
            {
                "event": "part",
                "number": number,
                "table": base64.b64encode(np.ascontiguousarray(table, dtype="<f4").tobytes()).decode(),
                "seconds": time.monotonic() - started,
                "model_seconds": getattr(model, "model_seconds", 0.0) - in_model,
                "peak_mib": watch.peak.mib(),
                "alike": model.alike,
                "float32_rows": _overflown(model, exams[0], batch["rows"]),
            }
        )


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


_WORK: dict[str, Callable[[Any, Tell], None]] = {"answer": answer, "retrieve": retrieve}


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
        job: AnswerJob | RetrieveJob = json.load(sys.stdin.buffer)
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
