"""The files that a submission writes: answers, ranked options, probabilities and the report."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from solution.errors import UserError
from solution.files import SCHEMA, atomic_file
from solution.inference.retrieving import RetrievalTime
from solution.inference.turns import Answers, Turn, Work
from solution.memory import MIB
from solution.progress import say
from solution.questions import LETTERS, Questions, kaggle_prediction, ranked_options
from solution.tables import file_format, write_csv

Ended = Literal["finished", "deadline", "terminated", "interrupted"]
_WRITE_SECONDS = 60.0
_EXAMPLES = 10  # questions that the report names


@dataclass(frozen=True)
class Outputs:
    """The files that a submission writes.

    Attributes:
        submission: Kaggle's file, see `write_submission`.
        ranked, probabilities: see `write_ranked` and `write_probabilities`; None: not wanted.
    """

    submission: Path
    ranked: Path | None = None
    probabilities: Path | None = None

    @property
    def report(self) -> Path:
        """What happened, see `submission_report`."""
        return self.submission.with_name(f"{self.submission.stem}.report.json")

    @property
    def answers(self) -> list[Path]:
        """The files of answers, without the report."""
        return [path for path in (self.submission, self.ranked, self.probabilities) if path is not None]

    def check(self) -> None:
        """Refuse files that cannot be meant; nothing is written.

        Raises:
            UserError: one is a folder or has no known format, or two are the same.
        """
        for path in (*self.answers, self.report):
            if path.is_dir():
                raise UserError(f"the output {path} is a folder; give a file")
        if self.probabilities is not None and file_format(self.probabilities) not in (".csv", ".parquet"):
            raise UserError(f"--probabilities {self.probabilities}: use .csv or .parquet")
        places = [path.resolve() for path in self.answers]
        if len(set(places)) < len(places):
            raise UserError("two of --output, --ranked and --probabilities are the same file; give each its own")
        if self.report.resolve() in places:
            raise UserError(f"{self.report} is where the report on {self.submission} is written; give another output")

    def check_writable(self) -> None:
        """Tell now, not after hours, that a file cannot be written; makes the folders.

        Raises:
            UserError: it cannot.
        """
        for path in [path.resolve() for path in self.answers]:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=path.parent).close()
            except OSError as error:
                raise UserError(
                    f"{path} cannot be written: no file can be put into its folder ({error.strerror}); give another "
                    "output, in a folder that you may write to"
                ) from None

    def write(self, questions: Questions, probabilities: np.ndarray) -> None:
        """Write the answers in every form that is wanted.

        Args:
            probabilities: float32 [n, width].
        """
        write_submission(self.submission, questions, probabilities)
        if self.ranked is not None:
            write_ranked(self.ranked, questions, probabilities)
        if self.probabilities is not None:
            write_probabilities(self.probabilities, questions, probabilities)


class AnswerFile:
    """The best answer so far on disk, while the rankers are at work.

    Args:
        write: called with the blend, float32 [n, width].
    """

    def __init__(self, answers: Answers, write: Callable[[np.ndarray], None]):
        self._answers, self._write = answers, write
        self._written = 0.0  # time.monotonic(): the first answer is written at once

    def store(self, force: bool = False) -> None:
        """Write the blend, at most once a minute unless forced; a disk that is full now may have room at the end."""
        if not force and time.monotonic() - self._written < _WRITE_SECONDS:
            return
        try:
            self._write(self._answers.blended())
        except OSError as error:
            say(f"WARNING: the answer cannot be written now ({error.strerror}); it is tried again")
        self._written = time.monotonic()


def submission_report(
    answers: Answers, lost_folds: Mapping[str, Sequence[str]], retrieval: RetrievalTime, ended: Ended, output: Path
) -> dict[str, Any]:
    """The content of `submission.report.json`.

    Args:
        lost_folds: ranker -> a message for each fold that is not usable.
    """
    limits = answers.timeline.limits
    recipes = [{"rankers": list(names), "questions": len(rows)} for names, rows in answers.groups()]
    return {
        "schema": SCHEMA,
        "ended": ended,
        "output": output.name,
        "questions": len(answers.questions),
        "baseline": answers.baseline_kind,
        "seconds": round(limits.elapsed(), 2),
        "deadline_seconds": limits.deadline,
        "devices": answers.timeline.devices,
        "gpu_problem": answers.timeline.gpu_problem,
        "public_run": None if answers.sample is None else _public_run(answers, answers.sample),
        "warnings": _shortcomings(answers, lost_folds),
        "retrieval_seconds": round(retrieval.seconds, 2),
        "retrieval_model_seconds": round(retrieval.model_seconds, 2),
        "reranker_float32_passages": retrieval.float32_passages,
        "rankers": [_ranker_record(name, turn, lost_folds.get(name, [])) for name, turn in answers.turns.items()],
        "recipes": sorted(recipes, key=lambda each: -each["questions"]),
        "timeline": [{"second": second, "event": text} for second, text in answers.timeline.notes],
    }


def _public_run(answers: Answers, sample: np.ndarray) -> dict[str, Any]:
    return {
        "sample": int(sample.sum()),
        "answered_by_all_rankers": answers.answered_by_all(),
        "text": answers.public_run(),
    }


def _shortcomings(answers: Answers, lost_folds: Mapping[str, Sequence[str]]) -> list[str]:
    """What made the answer lesser than it could be, a line for each."""
    problem = answers.timeline.gpu_problem
    lines = [f"the rankers computed on the CPU: {problem}"] if problem else []
    lines += [f"--devices: {remark}" for remark in answers.timeline.device_remarks]
    failed = {name: turn.reason for name, turn in answers.turns.items() if turn.state == "failed"}
    lines += [f"the ranker {name} was left out: {reason}" for name, reason in failed.items()]
    lines += [f"{name} went on without one of its folds: {why}" for name, lost in lost_folds.items() for why in lost]
    shortfalls = [*answers.shortfalls(), *answers.unscored(), *answers.overflows()]
    return [*lines, *answers.left_devices(), *shortfalls]


def _ranker_record(name: str, turn: Turn, lost_folds: Sequence[str]) -> dict[str, Any]:
    work, passes = turn.work, int(turn.folds.max(initial=0))
    # A question is answered by each fold in its pass.
    rate = work.seconds / work.done * max(1, passes) if work.done else None
    return {
        "ranker": name,
        "blended": turn.blended,
        "state": turn.state,
        "reason": turn.reason,
        "asked": int(turn.planned.sum()),
        "answered": int(turn.answered.sum()),
        "folds": passes,
        "lost_folds": list(lost_folds),
        "without_scores_of": turn.unscored,
        "from_journal": turn.from_journal,
        "options_read_alike": {"questions": len(turn.alike), "first": dict(list(turn.alike.items())[:_EXAMPLES])},
        "computed_on": work.computed_on,
        "float32_questions": len(work.float32_rows),
        "load_seconds": _rounded(work.load_seconds),
        "seconds": round(work.seconds, 3),
        "model_seconds": round(work.model_seconds, 3),
        "seconds_per_question": _rounded(rate),
        "peak_memory_mib": work.peak_mib,
        "model_memory_mib": work.used_mib,
        "planned_memory_mib": turn.plan.peak // MIB if turn.plan and turn.plan.peak else None,
        "tokens_per_batch": turn.plan and turn.plan.batch,
        "devices": [_device_record(name, work) for name, work in sorted(turn.devices.items())],
    }


def _device_record(name: str, work: Work) -> dict[str, Any]:
    """One device's part of a ranker's answers; `answers`: questions times folds."""
    return {
        "device": name,
        "answers": work.done,
        "computed_on": work.computed_on,
        "load_seconds": _rounded(work.load_seconds),
        "seconds": round(work.seconds, 3),
        "model_seconds": round(work.model_seconds, 3),
        "peak_memory_mib": work.peak_mib,
        "model_memory_mib": work.used_mib,
        "left_out": work.left_out,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def write_submission(path: Path, questions: Questions, probabilities: np.ndarray) -> None:
    """Kaggle's file: `id,prediction` with the three most probable letters, `B A D`."""
    ranked = ranked_options(probabilities, questions.exists())
    write_csv(path, ["id", "prediction"], zip(questions.ids, map(kaggle_prediction, ranked), strict=True))


def write_ranked(path: Path, questions: Questions, probabilities: np.ndarray) -> None:
    """JSON lines `{"id": ..., "ranked": ["B", "A", "D", "C"]}`: every option, most probable first."""
    ranked = ranked_options(probabilities, questions.exists())
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for id_, letters in zip(questions.ids, ranked, strict=True):
            stream.write(json.dumps({"id": id_, "ranked": letters}, ensure_ascii=False) + "\n")


def write_probabilities(path: Path, questions: Questions, probabilities: np.ndarray) -> None:
    """`id,p_A,p_B,...` as CSV or parquet; empty where an option does not exist."""
    width = probabilities.shape[1]
    names = ["id", *(f"p_{letter}" for letter in LETTERS[:width])]
    exists = questions.exists(width)
    if file_format(path) == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = np.where(exists, probabilities, np.nan).astype(np.float32)
        columns = [pa.array(questions.ids, pa.string()), *(pa.array(column, from_pandas=True) for column in table.T)]
        with atomic_file(path) as temporary:
            pq.write_table(pa.table(columns, names=names), temporary)
        return
    rows = (
        [id_, *(f"{value:.6f}" if there else "" for value, there in zip(row, mask, strict=True))]
        for id_, row, mask in zip(questions.ids, probabilities, exists, strict=True)
    )
    write_csv(path, names, rows)
