"""The files that a submission writes: answers, ranked options, probabilities and the report."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from solution.errors import UserError
from solution.files import SCHEMA, atomic_file
from solution.inference.engine import Engine
from solution.inference.plan import MIB
from solution.questions import LETTERS, Questions, kaggle_prediction, ranked_options
from solution.tables import file_format, write_csv


def _check_writable(path: Path) -> None:
    """Tell now, not after hours, that a file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); give another output") from None


def submission_report(engine: Engine, ended: str, output: Path) -> dict[str, Any]:
    """What `submission.report.json` holds."""
    rankers = []
    for name in engine.order:
        turn = engine.turns[name]
        rate = turn.seconds / turn.done if turn.done else None
        passes = max(1, int(turn.folds.max(initial=0)))
        rankers.append(
            {
                "ranker": name,
                "state": turn.state,
                "reason": turn.reason,
                "asked": int(turn.planned.sum()),
                "answered": int(turn.answered.sum()),
                "folds": int(turn.folds.max(initial=0)),
                "lost_folds": getattr(engine.rankers.get(name), "lost", []),
                "from_journal": turn.from_journal,
                "load_seconds": _rounded(turn.load_seconds),
                "seconds": round(turn.seconds, 3),
                "model_seconds": round(turn.model_seconds, 3),
                "seconds_per_question": _rounded(None if rate is None else rate * passes),
                "peak_memory_mib": turn.peak_mib,
                "model_memory_mib": turn.used_mib,
                "planned_memory_mib": turn.plan.peak // MIB if turn.plan and turn.plan.peak else None,
                "tokens_per_batch": turn.plan and turn.plan.batch,
            }
        )
    recipes = [{"rankers": list(names), "questions": len(rows)} for names, rows in engine.groups()]
    return {
        "schema": SCHEMA,
        "ended": ended,
        "output": output.name,
        "questions": len(engine.questions),
        "baseline": engine.baseline_kind,
        "seconds": round(engine.limits.elapsed(), 2),
        "deadline_seconds": engine.limits.deadline,
        "retrieval_seconds": round(engine.retrieval_seconds, 2),
        "retrieval_model_seconds": round(engine.embedder_seconds, 2),
        "rankers": rankers,
        "recipes": sorted(recipes, key=lambda each: -each["questions"]),
        "timeline": [{"second": second, "event": event} for second, event in engine.timeline],
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
