"""The curves of a training run: `log.csv`, and TensorBoard's event files where the settings ask for them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from solution.files import sweep_leftovers, write_text
from solution.learning import tracking

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG = "log.csv"
COLUMNS = ("step", "loss", "learning_rate", "gradient_norm", "map3", "seconds", "tokens")


def tensorboard_problem() -> str | None:
    """The reason why TensorBoard's event files cannot be written, or None."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except Exception as error:  # a broken installation raises whatever it likes
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("tensorboard")
        why = "is not installed" if missing else f"cannot be imported ({type(error).__name__}: {error})"
        return f"training.tensorboard is true and the package {why}: pip install tensorboard (or set it to false)"
    return None


class TrainingLog:
    """One line of `log.csv` a step, flushed at once, and the same figures as TensorBoard scalars.

    The lines so far belong to the checkpoint: on opening the file is written anew from them, so that a
    run that was killed leaves neither a gap nor a step twice.

    Columns: step (from 1), loss (mean over the step's questions), learning_rate (`learning_rate` times
    the schedule), gradient_norm (before clipping; not finite where float16 overflowed and the step was
    skipped), map3 (of the validation questions; empty where not evaluated), seconds (since the start,
    pauses left out), tokens (of the step's questions with all their options).
    """

    def __init__(self, folder: Path | None, lines: list[str], tensorboard: bool):
        """
        Args:
            folder: where the files go, made when missing; None: lines are only collected.
            lines: of the steps done before; every new one is appended to this list too.
        """
        self.lines = lines
        self._file: TextIO | None = None
        self._events: SummaryWriter | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        sweep_leftovers(folder, LOG)
        write_text(folder / LOG, "".join(f"{line}\n" for line in (",".join(COLUMNS), *lines)))
        for line in lines if tracking.is_tracked() else ():
            _track(line)
        self._file = open(folder / LOG, "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # Events behind the last checkpoint, and those of a run before this one, are not drawn any more.
            self._events = SummaryWriter(str(folder), purge_step=len(lines) + 1)

    def add(
        self,
        step: int,
        loss: float,
        learning_rate: float,
        gradient_norm: float,
        map3: float | None,
        seconds: float,
        tokens: int,
    ) -> None:
        """Write one step; steps come in order, each once."""
        score = "" if map3 is None else f"{map3:.6f}"
        line = f"{step},{loss:.6f},{learning_rate:.6g},{gradient_norm:.6g},{score},{seconds:.2f},{tokens}"
        self.lines.append(line)
        if self._file is not None:
            self._file.write(line + "\n")
            self._file.flush()
            _track(line)
        if self._events is not None:
            self._events.add_scalar("loss", loss, step)
            self._events.add_scalar("learning_rate", learning_rate, step)
            self._events.add_scalar("gradient_norm", gradient_norm, step)
            if map3 is not None:
                self._events.add_scalar("map3", map3, step)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._file, self._events):
            if stream is not None:
                stream.close()


def _track(line: str) -> None:
    """Write a step to the experiment trackers."""
    values = {name: float(cell) for name, cell in zip(COLUMNS, line.split(","), strict=True) if cell}
    tracking.track(values, step=int(values.pop("step")))


def drop_log(folder: Path) -> None:
    """Remove a finished run's `log.csv` and the folders that are left empty; event files stay."""
    (folder / LOG).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or never made
        for path in (folder, *folder.parents[:2]):
            path.rmdir()
