"""The doctor's check of the submission: the rankers that submit.py would ask, and the time that it would take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from solution.config import SIGNALS
from solution.device import choose_device
from solution.doctor.examined import Examined
from solution.doctor.report import Finding, Report
from solution.inference.devices import DEFAULT_DEVICE, speed_of
from solution.inference.schedule import ensemble_costs, ensemble_points, expected_seconds
from solution.inference.trained import TrainedRanker
from solution.weights import SIGNAL_SECONDS, read_metrics


def submission(examined: Examined, report: Report) -> Iterator[Finding]:
    """The answers that submit.py would ask of each ranker, and the time; the plan is put into the report.

    As without a deadline.
    """
    ensemble, trained = examined.ensemble.value, examined.trained.value
    if ensemble is None or not trained:
        return  # `folder.ensemble_file` tells why
    weights, cascade = ensemble["weights"], ensemble.get("cascade")
    costs = ensemble_costs(examined.workdir, ensemble)
    point, stages = ensemble_points(ensemble, costs)[cascade["chosen"] if cascade else -1]
    shares: dict[str, float] = {}
    for stage in stages:  # those whose scores a ranker reads are asked at least what it is asked
        for name in (*costs[stage.ranker].sources, stage.ranker):
            shares[name] = max(stage.share, shares.get(name, 0.0))
    order = [*shares, *(name for name in costs if name not in shares)]
    count = len(examined.test.get()[0]) if examined.test_path.exists() else None
    for ranker in sorted(trained, key=lambda ranker: order.index(ranker.name)):
        record, found = _ranker(ranker, weights.get(ranker.name, 0.0), shares.get(ranker.name, 0.0))
        readers = [name for name, cost in costs.items() if ranker.name in cost.sources]
        if readers:
            found += f"; {', '.join(readers)} reads its scores"
        report.plan.append(record)
        yield Finding("submission", ranker.name, "ok", found)
    if count is None:
        return
    making = _signal_seconds(trained)
    if any(record["seconds_per_question"] is None and record["share"] for record in report.plan):
        found = f"{count} questions: unknown, since not all rankers were measured here"
    else:
        devices, _ = examined.devices.value or ([DEFAULT_DEVICE], [])
        speed = speed_of(devices)
        speeds = {each.name: speed for each in trained if each.config.has_model and not each.config.stream}
        report.seconds = expected_seconds(point, stages, count, speeds)
        shared = f"on {speed} devices " if speed > 1 else ""
        signals = f", {_duration(making * count)} of it to make signals" if making else ""
        report.seconds += making * count
        found = (
            f"{count} questions: about {_duration(report.seconds)} {shared}to start, load and score{signals}, without "
            f"searching (by {examined.workdir.ensemble} and each fold's metrics.json)"
        )
    yield Finding("submission", "time", "ok", found)


def _ranker(ranker: TrainedRanker, weight: float, share: float) -> tuple[dict[str, Any], str]:
    """One ranker's part of a submission: the record of `Report.plan`, and the same in words.

    Args:
        share: of the questions that the ranker is asked.
    """
    config, folders = ranker.config, ranker.asked_folders
    device = str(choose_device(config.precision)) if config.has_model else ""
    seconds, load, remark = _measured(folders, device)
    record = {
        "ranker": ranker.name,
        "weight": weight,
        "model": config.model or config.family,
        "folds": len(folders),
        "seconds_per_question": seconds,
        "load_seconds": load,
        "share": share,
    }
    time = remark if seconds is None else f"{max(seconds, 0.001):.3g} s a question{remark}"
    turns = f"{ranker.asked_text} in turn, " if len(folders) > 1 else ""
    found = f"weight {weight:.2f}, {record['model']}, {turns}{time}"
    if signals := _signal_seconds([ranker]):
        found += f"; its signals take {max(signals, 0.001):.3g} s a question to make (measured in training)"
    if share < 1:
        found += f"; the cascade asks it {f'about {share:.0%} of the questions' if share else 'nothing'}"
    return record, found


def _measured(folders: Sequence[Path], device: str) -> tuple[float | None, float, str]:
    """The seconds that training measured on this device.

    Returns:
        Those of a question through all folds (None: not known), those of loading the base model once, and a remark.
    """
    total = load = 0.0
    for folder in folders:
        metrics = read_metrics(folder, "")
        seconds, measured_on = metrics.get("score_seconds_per_question"), metrics.get("computed_on", device)
        if not isinstance(seconds, int | float):
            return None, load, "time unknown (not measured)"
        if device and not str(measured_on).startswith(device):
            return None, load, f"time unknown (measured on {measured_on}, this is {device})"
        total += seconds
        load = max(load, float(metrics.get("load_seconds") or 0.0))
    return total, load, f", {load:.0f} s to load (measured in training)" if load else " (measured in training)"


def _signal_seconds(rankers: Sequence[TrainedRanker]) -> float:
    """The seconds a question that the signals of these rankers take to make, as far as training measured them; rankers
    of the same retrievals share theirs."""
    by_retrievals = {}
    for ranker in rankers:
        if SIGNALS in ranker.config.contexts:
            key = tuple(retrieval.hash() for retrieval in ranker.retrievals.values())
            by_retrievals[key] = read_metrics(ranker.folders[0], "").get(SIGNAL_SECONDS, 0.0)
    return sum(by_retrievals.values())


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
