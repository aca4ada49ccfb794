"""What runs in the process that `child.Child` starts: one job from stdin, events as JSON lines to stdout."""

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

from solution import noise  # noqa: F401
from solution.errors import UserError
from solution.files import without_hashing
from solution.questions import Questions
from solution.suggestions import running_command

Tell = Callable[..., None]
_BEAT_SECONDS = 1.0


def exam_record(exams: Sequence[Any]) -> dict[str, Any]:
    """The questions and their contexts (`rankers.base.Exam`, one for each context) as JSON holds them.

    Of the other columns only `is_question` matters to a ranker.
    """
    from solution.rankers.prompts import is_question

    first = exams[0]
    return {
        "questions": questions_record(first.questions, [is_question(first, row) for row in range(len(first))]),
        "views": [
            {
                "passages": [[vars(passage) for passage in found] for found in exam.passages],
                "option_scores": {kind: table.tolist() for kind, table in exam.option_scores.items()},
            }
            for exam in exams
        ],
    }


def questions_record(
    questions: Questions, is_question: Sequence[bool] | None = None, contexts: Sequence[Any] | None = None
) -> dict[str, Any]:
    extra = {"is_question": is_question, "context": contexts}
    return {
        "ids": questions.ids,
        "prompts": questions.prompts,
        "options": questions.options,
        "extra": {name: list(values) for name, values in extra.items() if values is not None},
    }


def read_questions_record(record: dict[str, Any]) -> Questions:
    unknown = np.full(len(record["ids"]), -1, dtype=np.int64)
    return Questions(record["ids"], record["prompts"], record["options"], unknown, record["extra"])


def read_exam_record(record: dict[str, Any]) -> list[Any]:
    """The exams of `exam_record`, the same to the bit."""
    from solution.rankers.base import Exam
    from solution.retrieval.contexts import ContextPassage

    questions = read_questions_record(record["questions"])
    return [
        Exam(
            questions,
            [[ContextPassage(**values) for values in found] for found in view["passages"]],
            {kind: np.array(table, dtype=np.float32) for kind, table in view["option_scores"].items()},
        )
        for view in record["views"]
    ]


def alive_only(questions: Questions, alive: np.ndarray) -> Questions:
    """The questions without the options where `alive`, bool [n, width], is false."""
    options = [
        [option if there else "" for option, there in zip(row, mask, strict=False)]
        for row, mask in zip(questions.options, alive.tolist(), strict=True)
    ]
    return Questions(questions.ids, questions.prompts, options, questions.answers, questions.extra)


def predict_part(model: Any, exams: Sequence[Any], rows: Sequence[int], alive: np.ndarray, width: int) -> np.ndarray:
    """What a loaded ranker says of these questions' living options, float32 [rows, width].

    Args:
        exams: all questions with each context, see `submit.ranker_exams`.
        alive: bool [rows, width].
    """
    from solution.rankers.base import Exam, predict_contexts

    parts = [exam.subset(rows) for exam in exams]
    questions = alive_only(parts[0].questions, alive)
    table = predict_contexts(model, [Exam(questions, part.passages, part.option_scores) for part in parts])
    return np.pad(table, ((0, 0), (0, width - table.shape[1])))


def plan_all(job: dict[str, Any], tell: Tell) -> list[Any]:
    """The memory of all rankers that are to run (`plan.Plan`), the job's own first."""
    from solution.config import RankerConfig
    from solution.inference.memory import available_memory, plan_memory

    available, plans, own = available_memory(job["memory"], job["held"]), [], time.monotonic()
    for record in job["to_plan"]:
        config = RankerConfig.model_validate(record["config"])
        tell("planning", ranker=config.name)
        folders, exams = list(map(Path, record["folders"])), read_exam_record(record["exam"])
        plans.append(plan_memory(config, exams, folders, Path(job["cache"]), available, record["questions"]))
        if len(plans) == 1:
            own = time.monotonic()
    tell("plans", plans=[vars(plan) for plan in plans], seconds=time.monotonic() - own)
    return plans


def answer(job: dict[str, Any], tell: Tell) -> None:
    """Load a ranker once, within its planned memory, and answer the job's batches in their order.

    The first ranker's process plans for all: what it has imported need not be imported in another one.
    """
    import torch

    from solution.config import RankerConfig
    from solution.inference.memory import empty_ranker, hold_gpu_to, watched
    from solution.inference.plan import Plan
    from solution.rankers.families import make_ranker

    exams = read_exam_record(job["exam"])
    width = exams[0].questions.max_options
    config, folders, cache = (
        RankerConfig.model_validate(job["config"]),
        list(map(Path, job["folders"])),
        Path(job["cache"]),
    )
    plan = Plan(**job["plan"]) if job["plan"] else plan_all(job, tell)[0]
    if plan.problem:
        raise UserError(plan.problem)
    if job["plan"] and not torch.cuda.is_available():
        with contextlib.suppress(Exception):  # what is wrong is told when it is loaded
            empty_ranker(config, cache)  # as planning does: the libraries are not to be measured as the model's
    hold_gpu_to(job["memory"])
    config = plan.apply(config)
    asked = {row for batch in job["batches"] for row in batch["rows"]}
    with watched(config.name, len(asked), plan) as watch:
        model = make_ranker(config, cache)
        fold: int | None = None
        for number, batch in enumerate(job["batches"]):
            if batch["fold"] != fold:
                model.load(folders[batch["fold"]])
                watch.loaded(model)
                if fold is None:
                    tell("loaded")
                fold = batch["fold"]
            started, in_model = time.monotonic(), getattr(model, "model_seconds", 0.0)
            alive = np.array(batch["alive"], dtype=bool)
            table = predict_part(model, exams, batch["rows"], alive, width)
            tell(
                "part",
                number=number,
                table=base64.b64encode(np.ascontiguousarray(table, dtype="<f4").tobytes()).decode(),
                seconds=time.monotonic() - started,
                model_seconds=getattr(model, "model_seconds", 0.0) - in_model,
                peak_mib=watch.peak.mib(),
            )
        del model
    tell("given_back", used_mib=watch.peak_mib, kept_mib=watch.kept_mib, summary=watch.summary)


def retrieve(job: dict[str, Any], tell: Tell) -> None:
    """Make the contexts that the rankers will read; they are kept in the working folder's cache."""
    from solution.config import RetrievalConfig
    from solution.retrieval.contexts import build_views
    from solution.retrieval.embedding import Embedder

    questions = read_questions_record(job["questions"])
    with contextlib.nullcontext() if job["verify"] else without_hashing():
        build_views(questions, RetrievalConfig.model_validate(job["retrieval"]), job["views"], Path(job["workdir"]))
    tell("retrieved", model_seconds=Embedder.model_seconds)


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

    def tell(event: str, **values: Any) -> None:
        events.write(json.dumps({"event": event, **values}) + "\n")
        events.flush()

    from solution import progress

    told = time.monotonic()

    def beat() -> None:
        nonlocal told
        if time.monotonic() - told >= _BEAT_SECONDS:
            told = time.monotonic()
            tell("beat")

    progress.listener = beat
    try:
        job = json.load(sys.stdin.buffer)
    except ValueError:  # the parent was ended while it was starting this process
        sys.exit(1)
    progress.console.quiet = job["kind"] == "answer"  # the parent shows one bar for all batches
    try:
        with running_command("submit", job["command"]):
            {"answer": answer, "retrieve": retrieve}[job["kind"]](job, tell)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent goes on without this ranker
        if os.environ.get("SOLUTION_TRACEBACK"):
            raise
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        tell("error", reason=text)
        sys.exit(1)
    tell("done")


if __name__ == "__main__":
    main()
