"""The journal of a submission: each finished batch of a ranker, so that a run that was killed goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from solution.errors import UserError
from solution.files import SCHEMA, atomic_file, canonical_json, content_hash, read_json, sweep_leftovers, write_json
from solution.progress import say


class AnswerJournal:
    """Small files in one folder, each named by the hash of everything that its content depends on.

    A journal that cannot be written (a full disk) is reported once, and the submission goes on without it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._broken = False
        if folder.is_dir():
            sweep_leftovers(folder)

    def _path(self, key: str, kind: str) -> Path:
        return self.folder / f"{key}.{kind}"

    def read(self, key: str, shape: tuple[int, int]) -> np.ndarray | None:
        """The float32 table of this key; None when it is not there, not whole or of another shape."""
        try:
            head, _, data = self._path(key, "answers").read_bytes().partition(b"\n")
            about = json.loads(head)
            if about == {"schema": SCHEMA, "shape": list(shape), "hash": content_hash(data)}:
                return np.frombuffer(data, dtype="<f4").reshape(shape)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            pass
        say(f"a part of the journal in {self.folder} is not whole and is made again")
        return None

    def write(self, key: str, table: np.ndarray) -> None:
        """Keep a table, float [n, width]."""
        data = np.ascontiguousarray(table, dtype="<f4").tobytes()
        head = canonical_json({"schema": SCHEMA, "shape": list(table.shape), "hash": content_hash(data)})
        if self._broken:
            return
        try:
            with atomic_file(self._path(key, "answers")) as temporary:
                temporary.write_bytes(head.encode() + b"\n" + data)
        except OSError as error:
            self._broken = True
            say(f"WARNING: the journal in {self.folder} cannot be written ({error.strerror}): no resume after a kill")

    def note(self, key: str) -> Any:
        """The JSON value of this key, or None."""
        try:
            return read_json(self._path(key, "json"), "a note of the journal", "")
        except (UserError, OSError):
            return None

    def write_note(self, key: str, value: Any) -> None:
        """Keep a JSON value."""
        try:
            write_json(self._path(key, "json"), value)
        except OSError:
            self._broken = True
