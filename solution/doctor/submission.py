"""The doctor on the submission: what submit.py would do, and how long it would take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from solution.device import choose_device
from solution.doctor.examined import Examined
from solution.doctor.report import Finding, Report
from solution.ensemble.costs import measured_cost
from solution.inference.schedule import ensemble_points, expected_seconds
from solution.weights import read_metrics


def submission(examined: Examined, report: Report) -> Iterator[Finding]:
    """What each ranker would do, and the time, without a deadline; the plan is put into the report."""
    ensemble, trained = examined.ensemble.value, examined.trained.value
    if ensemble is None or not trained:
        return  # told by ensemble_file
    weights, cascade = ensemble["weights"], ensemble.get("cascade")
    used = [name for name, weight in weights.items() if weight > 0]
    costs = {name: measured_cost(examined.workdir, name, ensemble["about"][name]) for name in used}
    point, stages = ensemble_points(ensemble, costs)[cascade["chosen"] if cascade else -1]
    shares = {stage.ranker: stage.share for stage in stages}
    order = [*shares, *(name for name in used if name not in shares)]
    count = len(examined.test.get()[0]) if examined.test_path.exists() else None
    known = True
    for ranker in sorted(trained, key=lambda each: order.index(each.name)):
        config = ranker.config
        folders = ranker.asked_folders
        here = str(choose_device(config.precision)) if config.has_model else ""
        seconds, load, why = _measured(folders, here)
        share = shares.get(ranker.name, 0.0)
        record = {
            "ranker": ranker.name,
            "weight": weights[ranker.name],
            "model": config.model or config.family,
            "folds": len(folders),
            "seconds_per_question": seconds,
            "load_seconds": load,
            "share": share,
        }
        report.plan.append(record)
        known = known and (seconds is not None or not share)
        time = why if seconds is None else f"{max(seconds, 0.001):.3g} s a question{why}"
        turns = f"{len(folders)} folds in turn, " if len(folders) > 1 else ""
        found = f"weight {weights[ranker.name]:.2f}, {record['model']}, {turns}{time}"
        if share < 1:
            found += f"; the cascade asks it {f'about {share:.0%} of the questions' if share else 'nothing'}"
        yield Finding("submission", ranker.name, "ok", found)
    if count is None:
        return
    if not known:
        yield Finding(
            "submission", "time", "ok", f"{count} questions: unknown, since not all rankers were measured here"
        )
        return
    report.seconds = expected_seconds(point, stages, count)
    found = (
        f"{count} questions: about {_duration(report.seconds)} to start, load and score, without searching (by "
        f"{examined.workdir.ensemble} and each fold's metrics.json)"
    )
    yield Finding("submission", "time", "ok", found)


def _measured(folders: Sequence[Path], here: str) -> tuple[float | None, float, str]:
    """The seconds that training measured on a device such as this: a question through all folds (None: not known),
    and loading the base model once; and a remark."""
    total = load = 0.0
    for folder in folders:
        metrics = read_metrics(folder, "")
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
