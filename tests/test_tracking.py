"""Experiment trackers: what goes to them, that they need no network, and that none of them ends a training."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pipeline import run

from solution.config import EnsembleConfig, TrackerName
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.learning import tracking
from solution.learning.log import TrainingLog
from solution.learning.tracking import check_trackers, flat, track, track_artifact, tracked
from solution.workdir import Workdir

SETTINGS = {"training": {"epochs": 2, "awp": None}, "name": "tiny", "stream": False}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The figures that TensorBoard draws: name -> steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}


def a_training(folder: Path, names: list[TrackerName], before: list[str]) -> None:
    """A run of one more step than the lines `before`, scored and with a report."""
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "index.html").write_text("<p>report")
    with tracked(names, folder / "tracking", "tiny/fold_0", SETTINGS):
        with TrainingLog(folder / "logs", before, False) as log:
            log.add(len(before) + 1, 0.5, 1e-4, 2.0, 0.75, 3.0, 60)
        track({"oof_map3": 0.8})
        track_artifact(folder / "report", "report")


def test_settings_are_flat() -> None:
    assert flat(SETTINGS) == {"training.epochs": 2, "training.awp": "None", "name": "tiny", "stream": False}


def test_tensorboard_shows_every_step_once_after_a_kill_too(tmp_path: Path) -> None:
    a_training(tmp_path, ["tensorboard"], [])
    a_training(tmp_path, ["tensorboard"], (tmp_path / "logs" / "log.csv").read_text().splitlines()[1:])
    there = scalars(tmp_path / "tracking" / "tensorboard" / "tiny" / "fold_0")
    assert there["loss"] == [(1, 0.5), (2, 0.5)] and [step for step, _ in there["map3"]] == [1, 2]
    assert there["oof_map3"][-1][1] == pytest.approx(0.8)
    assert not tracking.is_tracked()


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed (the extra trackers)")
def test_mlflow_in_a_local_store(tmp_path: Path) -> None:
    import mlflow

    a_training(tmp_path, ["mlflow"], [])
    (made,) = mlflow.search_runs(experiment_names=[tracking.PROJECT], output_format="list")
    assert made.info.run_name == "tiny/fold_0" and made.data.params["training.epochs"] == "2"
    assert made.data.metrics["loss"] == 0.5 and made.data.metrics["oof_map3"] == 0.8
    assert len(list((tmp_path / "tracking" / "mlflow").rglob("report/index.html"))) == 1


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed (the extra trackers)")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    a_training(tmp_path, ["wandb"], [])
    (made,) = (tmp_path / "tracking" / "wandb").glob("offline-run-*/*.wandb")
    wanted = (b"tiny/fold_0", b"training.epochs", b"gradient_norm", b"oof_map3", b"index.html")
    late = time.monotonic() + 30  # its own process writes the file
    while not (whole := all(text in made.read_bytes() for text in wanted)) and time.monotonic() < late:
        time.sleep(0.1)
    assert whole


def test_wandb_alone_tracks_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.state import PartialState

    told: list[dict[str, float]] = []
    run = SimpleNamespace(
        id="1",
        finish=list,
        log=lambda values, step: told.append(values),
        log_artifact=lambda each: told.append(each.held),
    )
    package = SimpleNamespace(
        init=lambda **_: run, config=SimpleNamespace(update=lambda values, **_: told.append(values)), Artifact=Artifact
    )
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setattr(PartialState, "_shared_state", {})  # as in a process in which nothing else has used accelerate
    a_training(tmp_path, ["wandb"], [])
    wanted = ("training.epochs", "loss", "oof_map3", "files")
    assert all(name in each for name, each in zip(wanted, told, strict=True)), told
    assert told[-1] == {"files": str(tmp_path / "report")}


class Artifact:
    def __init__(self, name: str, type: str):
        self.held: dict[str, str] = {}

    def add_dir(self, folder: str) -> None:
        self.held["files"] = folder


def test_a_tracker_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def start(self) -> None:
            pass

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            pass

        def log(self, values: dict[str, float], step: int | None) -> None:
            raise ConnectionError("the server is away")

        def finish(self) -> None:
            raise AssertionError("it was left out before")

    monkeypatch.setitem(tracking._OPEN, "wandb", lambda folder, run: Broken())
    a_training(tmp_path, ["wandb", "tensorboard"], [])
    said = capsys.readouterr().err
    assert said.count("WARNING: wandb tracks no more of this run (ConnectionError: the server is away)") == 1
    assert (tmp_path / "logs" / "log.csv").read_text().count("\n") == 2
    assert "oof_map3" in scalars(tmp_path / "tracking" / "tensorboard" / "tiny" / "fold_0")


def test_a_package_that_is_not_there_is_told_before_anything_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else object())
    check_trackers(["tensorboard"])
    with pytest.raises(UserError, match="trackers names mlflow.*pip install mlflow"):
        check_trackers(["mlflow", "tensorboard"])


def test_trackers_change_no_hash_and_unknown_ones_are_refused() -> None:
    assert EnsembleConfig(rankers=["a"]).hash() == EnsembleConfig(rankers=["a"], trackers=[]).hash()
    for wrong in (["tensorbord"], ["wandb", "wandb"]):
        with pytest.raises(ValueError, match="tensorbord|twice"):
            EnsembleConfig.model_validate({"rankers": ["a"], "trackers": wrong})


def test_training_and_tuning_are_tracked(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    for name in ("oof", "weights"):
        shutil.rmtree(folder / name / "similarity")
    path = folder / "configs" / "ensemble.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"trackers": ["tensorboard"]}))
    for command in (("train", "--all-folds", "--ranker", "similarity"), ("tune", "tune.choose=equal")):
        done = run(*command, cwd=folder)
        assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    workdir = Workdir(folder)
    assert scalars(workdir.tracking / "tensorboard" / "similarity" / "fold_2")["oof_map3"]
    assert {"weight/similarity", "map3/tiny"} <= set(scalars(workdir.tracking / "tensorboard" / "ensemble"))
    # The report knows them from the record.
    assert load_ensemble(workdir)["trackers"] == ["tensorboard"]
