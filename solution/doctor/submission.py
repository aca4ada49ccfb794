"""The doctor on the submission: what submit.py would do, and how long it would take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from solution.config import TRAINED_FAMILIES
from solution.doctor.examined import Examined
from solution.doctor.report import Finding, Report
from solution.files import read_json
from solution.questions import read_questions


def submission(examined: Examined, report: Report) -> Iterator[Finding]:
    """What each ranker would do, and the time; the plan is put into the report."""
    from solution.device import choose_device
    from solution.ensemble.tune import load_ensemble

    if not examined.trained:
        return  # told by ensemble_file
    weights = load_ensemble(examined.workdir)["weights"]
    count = len(read_questions(examined.test)) if examined.test.exists() else None
    total: float | None = 0.0
    for ranker in examined.trained:
        config = ranker.config
        folders = ranker.folders if config.folds_differ else ranker.folders[:1]
        here = str(choose_device(config.precision)) if config.family in TRAINED_FAMILIES else ""
        seconds, load, why = _measured(folders, here)
        record = {
            "ranker": ranker.name,
            "weight": weights[ranker.name],
            "model": config.model or config.family,
            "folds": len(folders),
            "seconds_per_question": seconds,
            "load_seconds": load,
        }
        report.plan.append(record)
        total = None if total is None or seconds is None or count is None else total + seconds * count + load
        time = why if seconds is None else f"{max(seconds, 0.001):.3g} s a question{why}"
        turns = f"{len(folders)} folds in turn, " if len(folders) > 1 else ""
        found = f"weight {weights[ranker.name]:.2f}, {record['model']}, {turns}{time}"
        yield Finding("submission", ranker.name, "ok", found)
    if count is None:
        return
    if total is None:
        yield Finding(
            "submission", "time", "ok", f"{count} questions: unknown, since not all rankers were measured here"
        )
        return
    report.seconds = total
    found = f"{count} questions: about {_duration(total)} of loading and scoring, without searching"
    yield Finding("submission", "time", "ok", found)


def _measured(folders: Sequence[Path], here: str) -> tuple[float | None, float, str]:
    """The seconds that training measured on a device such as this: a question through all folds (None: not known),
    and loading the base model once; and a remark."""
    total = load = 0.0
    for folder in folders:
        metrics = read_json(folder / "metrics.json", "the fold's metrics", "")
        seconds, device = metrics.get("score_seconds_per_question"), metrics.get("computed_on", here)
        if not isinstance(seconds, int | float):
            return None, load, "time unknown (not measured)"
        if here and not str(device).startswith(here):
            return None, load, f"time unknown (measured on {device}, this is {here})"
        total += seconds
        load = max(load, float(metrics.get("load_seconds") or 0.0))
    return total, load, f", {load:.0f} s to load (measured in training)" if load else " (measured in training)"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
