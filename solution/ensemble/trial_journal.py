"""The file of a search's finished trials, from which a stopped search goes on."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

from solution.progress import say

if TYPE_CHECKING:
    import optuna
    from optuna.storages import JournalStorage


class TrialJournal:
    """The studies of one tuning run in one Optuna journal file, so that a stopped search goes on where it was.

    Several processes may work on the same file: each takes the lowest free worker's number, which is part of its
    seeds, and adds its trials to those of the others. A number is free again when its process ends, however it ends;
    so one process alone is always number 0, and killed and started again it comes to the same result.
    """

    def __init__(self, path: Path):
        """
        Args:
            path: the journal; made with its folder when missing. One that cannot be read is begun anew: it is a cache.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._sweep(path)
        self.worker = 0
        while (slot := _locked(path.with_suffix(f".worker{self.worker}"))) is None:
            self.worker += 1
        self._slot = slot
        self._cut_unfinished(path)
        try:
            self._storage = self._open(path)
        except (ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
            say(f"note: the search's journal {path} is corrupt ({error}); it is begun anew")
            path.unlink()
            self._storage = self._open(path)

    @staticmethod
    def _sweep(path: Path) -> None:
        """Remove the journals of other OOF files on which no process works any more."""
        for other in path.parent.glob("*.journal"):
            slot = None if other == path else _locked(other.with_suffix(".worker0"))
            if slot is not None:
                for part in path.parent.glob(f"{other.stem}.*"):
                    part.unlink(missing_ok=True)
                slot.close()

    @staticmethod
    def _cut_unfinished(path: Path) -> None:
        """Remove a last line without end, left by a full disk or a kill: the next one would be joined to it."""
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # nobody is writing, then
            if path.exists():
                data = path.read_bytes()
                os.truncate(path, data.rfind(b"\n") + 1)

    @staticmethod
    def _open(path: Path) -> JournalStorage:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        class Lock(JournalFileOpenLock):
            """The system drops it when its process is killed, and nobody waits for the dead."""

            def acquire(self) -> bool:
                self._file = open(path.with_suffix(".lock"), "w")  # noqa: SIM115
                fcntl.flock(self._file, fcntl.LOCK_EX)
                return True

            def release(self) -> None:
                self._file.close()

        return JournalStorage(JournalFileBackend(str(path), lock_obj=Lock(str(path))))

    def study(self, name: str) -> optuna.Study:
        """The stored study of this name, made when missing."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.create_study(storage=self._storage, study_name=name, direction="maximize", load_if_exists=True)

    def close(self) -> None:
        self._slot.close()


def _locked(path: Path) -> IO[str] | None:
    """The file, locked until it is closed or this process ends; None when another has it."""
    stream = open(path, "w")  # noqa: SIM115
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream
