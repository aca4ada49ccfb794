"""Runs in experiment trackers (TensorBoard, Weights & Biases, MLflow), written by accelerate's trackers.

All of them write below the working folder and ask no network for anything, unless their own environment variables say
so: WANDB_MODE=online, MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solution.config import TrackerName
from solution.errors import UserError
from solution.learning import distributed
from solution.progress import say

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PROJECT = "llm-science-exam"
"""The experiment or project of all runs."""
_Value = str | int | float | bool
_NO_NAME = re.compile(r"[^\w./ -]")  # MLflow refuses such letters in a metric's name

_active: dict[TrackerName, GeneralTracker] = {}  # the trackers whose run goes on, by name


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Raise `UserError` where the package of a tracker is not installed."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        packages = " ".join("mlflow-skinny" if name == "mlflow" else name for name in missing)
        raise UserError(
            f"ensemble.trackers names {', '.join(missing)}, which cannot be imported: pip install {packages} "
            "(or leave it out)"
        )


@contextlib.contextmanager
def tracked(names: Sequence[TrackerName], folder: Path, run: str, settings: Mapping[str, Any]) -> Iterator[None]:
    """While the block runs, `track` and `track_artifact` write to a run in each of the trackers.

    A tracker that fails is left out with a warning: it never ends a training. Of several processes the first one
    tracks.

    Args:
        folder: below which they write, see `Workdir.tracking`.
        run: the name of the run, as RANKER/fold_K.
        settings: the run's parameters, nested or not.
    """
    if distributed.rank() == 0:
        for name in names:
            with _harmless(name):
                tracker = _OPEN[name](folder.resolve(), run)
                tracker.start()
                _active[name] = tracker
                tracker.store_init_configuration(flat(settings))
    try:
        yield
    finally:
        for name in list(_active):
            with _harmless(name):
                _active[name].finish()
            _active.pop(name, None)


def is_tracked() -> bool:
    """Whether a run goes on."""
    return bool(_active)


def track(values: Mapping[str, float], step: int | None = None) -> None:
    """Write figures, of a training's step or of the whole run."""
    named = {_NO_NAME.sub("", key): value for key, value in values.items()}
    for name in list(_active):
        with _harmless(name):
            _active[name].log(named, step=step)


def track_artifact(folder: Path, kind: str) -> None:
    """Keep a folder of files (a report) with the run; TensorBoard keeps none."""
    for name in list(_active):
        with _harmless(name):
            if name == "wandb":
                import wandb

                artifact = wandb.Artifact(f"{kind}-{_active[name].tracker.id}", type=kind)
                artifact.add_dir(str(folder))
                _active[name].tracker.log_artifact(artifact)
            elif name == "mlflow":
                _active[name].log_artifacts(str(folder), kind)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, _Value]:
    """Nested settings as `key.path` -> value; what is neither a number nor a text becomes a text."""
    values: dict[str, _Value] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value if isinstance(value, str | int | float) else str(value)
    return values


@contextlib.contextmanager
def _harmless(name: TrackerName) -> Iterator[None]:
    """Leave a tracker out that raises, and say why."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - packages that talk to servers raise whatever they like
        _active.pop(name, None)
        say(f"WARNING: {name} tracks no more of this run ({type(error).__name__}: {error})")


# --- the trackers --------------------------------------------------------------------------


def _tensorboard(folder: Path, run: str) -> GeneralTracker:
    from accelerate.tracking import TensorBoardTracker

    # Of the same run before this one nothing is drawn any more.
    return TensorBoardTracker(run, folder / "tensorboard", purge_step=0)


def _wandb(folder: Path, run: str) -> GeneralTracker:
    from accelerate.state import PartialState
    from accelerate.tracking import WandBTracker

    PartialState()  # accelerate's log, which this tracker writes to, refuses to work without; other trackers make it
    folder.mkdir(parents=True, exist_ok=True)
    mode = os.environ.get("WANDB_MODE", "offline")
    if mode == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    return WandBTracker(PROJECT, name=run, dir=str(folder), mode=mode)


def _mlflow(folder: Path, run: str) -> GeneralTracker:
    if "MLFLOW_TRACKING_URI" in os.environ:
        from accelerate.tracking import MLflowTracker

        return MLflowTracker(PROJECT, run_name=run)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
    import mlflow
    from accelerate.tracking import MLflowTracker

    folder.mkdir(parents=True, exist_ok=True)
    # Version 3 refuses a store of plain files.
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    return MLflowTracker(PROJECT, (folder / "mlflow").as_uri(), run_name=run)


_OPEN: dict[TrackerName, Callable[[Path, str], GeneralTracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
