"""The parts that the doctor looks at, each read once, when it is first asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from solution.config import RankerConfig, RetrievalConfig, Run
from solution.config_files import load_run
from solution.ensemble.record import EnsembleRecord, load_ensemble
from solution.formats.items import Reading
from solution.inference.devices import ComputeDevice, devices_seen_here
from solution.inference.trained import TrainedRanker, imported_rankers, read_rankers
from solution.kaggle.kernel import find_place, kernel_root
from solution.questions import Questions, read_questions
from solution.retrieval.embedding import Embedder
from solution.retrieval.prefixes import Prefixes
from solution.workdir import Workdir

Part = TypeVar("Part")


class ReadOnce(Generic[Part]):
    """A part of what is examined. It is read at most once, also where reading fails.

    The check whose subject the part is takes `get()`, so that its error becomes a finding; every other check takes
    `value`, so that the same error is not told again.
    """

    def __init__(self, read: Callable[[], Part]):
        self._read = read

    @functools.cached_property
    def _outcome(self) -> tuple[Part | None, Exception | None]:
        try:
            return self._read(), None
        except Exception as error:  # noqa: BLE001 - `get` raises it
            return None, error

    def get(self) -> Part:
        """The part, or the error that reading it raised."""
        part, error = self._outcome
        if error is not None:
            raise error
        return part  # type: ignore[return-value]

    @property
    def value(self) -> Part | None:
        """The part; None where it cannot be read."""
        return self._outcome[0]


class Examined:
    """The machine's working folder, its settings and its files.

    Attributes:
        run: the settings.
        exam: the questions to train on.
        test_path, test: the questions to answer, and what is wrong with rows that can be ranked all the same.
        ensemble: `weights/ensemble.json`.
        trained: the rankers of the ensemble, their weights checked.
        devices: those that a submission would use, and why they are not all.

    Raises:
        UserError: in a kernel, see `kaggle.kernel.find_place`.
    """

    def __init__(
        self,
        workdir: Path,
        configs: Path,
        questions: Path | None,
        corpus: str | None,
        overrides: Sequence[str],
        reading: Reading | None = None,
    ):
        self._reading = reading or Reading()
        self.workdir, self.configs, self.questions = Workdir(workdir), configs, questions
        submit_overrides: list[str] = []
        root = kernel_root()
        if root is not None and workdir == Path() and not self.workdir.ensemble.exists():
            place = find_place(None, questions, None, ())
            self.workdir, self.questions, submit_overrides = place.workdir, place.questions, place.overrides
        self.test_path = self.questions or self.workdir.test
        self.run: ReadOnce[Run] = ReadOnce(lambda: load_run(configs, overrides, corpus=corpus))
        self.exam: ReadOnce[Questions] = ReadOnce(lambda: read_questions(self.workdir.questions, reading=self._reading))
        self.test: ReadOnce[tuple[Questions, list[str]]] = ReadOnce(self._read_test)
        self.ensemble: ReadOnce[EnsembleRecord] = ReadOnce(lambda: load_ensemble(self.workdir))
        self.trained: ReadOnce[list[TrainedRanker]] = ReadOnce(lambda: self._read_rankers(submit_overrides))
        self.devices: ReadOnce[tuple[list[ComputeDevice], list[str]]] = ReadOnce(devices_seen_here)
        self._embedders: dict[tuple[str, Prefixes], Embedder] = {}

    def _read_test(self) -> tuple[Questions, list[str]]:
        wrong: list[str] = []
        return read_questions(self.test_path, wrong, self._reading), wrong

    def _read_rankers(self, overrides: Sequence[str]) -> list[TrainedRanker]:
        ensemble = self.ensemble.get()
        return read_rankers(self.workdir, ensemble, overrides, imported_rankers(ensemble))

    @functools.cached_property
    def readings(self) -> list[tuple[RankerConfig, dict[str, RetrievalConfig]]]:
        """The rankers of the settings, then those of the ensemble as they were trained; each with the retrievals that
        it reads, by name."""
        run = self.run.value
        readings = [] if run is None else [(ranker, run.reads(ranker)) for ranker in run.rankers]
        return readings + [(ranker.config, ranker.retrievals) for ranker in self.trained.value or ()]

    @property
    def pairs(self) -> list[tuple[RankerConfig, RetrievalConfig | None]]:
        """Each of `readings` with each of its retrievals; with None where it reads none."""
        return [(config, each) for config, retrievals in self.readings for each in retrievals.values() or (None,)]

    @property
    def by_name(self) -> dict[str, tuple[RankerConfig, dict[str, RetrievalConfig]]]:
        """One of each name: the ensemble's where it is in both."""
        return {config.name: (config, retrievals) for config, retrievals in self.readings}

    def embedder(self, retrieval: RetrievalConfig) -> Embedder:
        """The embedder of these settings, made once: its fingerprint reads the whole model."""
        key = (retrieval.embedder, Prefixes.of(retrieval))
        if key not in self._embedders:
            self._embedders[key] = Embedder(retrieval.embedder, self.workdir.cache, key[1])
        return self._embedders[key]
