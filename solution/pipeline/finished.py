"""`WORKDIR/exam.json`: the steps of a run that are finished, so that a second one does only what is missing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.files import content_hash, file_hash, read_json, write_json


class Finished:
    """The steps that are finished, each with a key of all that it depends on and the hashes of the files it wrote.

    A file that cannot be read counts as an empty one: everything is looked at again, and nothing is lost.

    Attributes:
        plan: what an earlier run decided: where the questions are from, the folds.
        notes: sentences for the head of the report.
    """

    def __init__(self, path: Path):
        self._path = path
        stored: dict[str, Any] = {}
        if path.exists():
            try:
                stored = read_json(path, "the record of finished steps", "")
            except UserError:
                stored = {}
        self._steps: dict[str, dict[str, Any]] = stored.get("steps", {}) if isinstance(stored, dict) else {}
        self.plan: dict[str, Any] = stored.get("plan", {}) if isinstance(stored, dict) else {}
        self.notes: list[str] = stored.get("notes", []) if isinstance(stored, dict) else []

    def write(self) -> None:
        write_json(self._path, {"steps": self._steps, "plan": self.plan, "notes": self.notes})

    def add(self, step: str, key: Mapping[str, Any], files: Sequence[Path], result: Any = None) -> None:
        """Record a step with the files that it has written, and what a later run needs of it (JSON)."""
        hashes = {os.path.relpath(path, self._path.parent): file_hash(path) for path in files}
        self._steps[step] = {"key": content_hash(dict(key)), "files": hashes, "result": result}
        self.write()

    def has(self, step: str, key: Mapping[str, Any]) -> bool:
        """True where the step was done with this key and its files are as it left them."""
        stored = self._steps.get(step)
        if stored is None or stored["key"] != content_hash(dict(key)):
            return False
        places = {self._path.parent / name: digest for name, digest in stored["files"].items()}
        return all(path.is_file() and file_hash(path) == digest for path, digest in places.items())

    def result(self, step: str) -> Any:
        return self._steps[step]["result"]
