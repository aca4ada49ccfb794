"""What the doctor looks at, each part read when it is first asked for."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solution.config import RankerConfig, RetrievalConfig, Run, needs_contexts
from solution.config_files import load_run
from solution.ensemble.record import load_ensemble
from solution.inference.trained import imported_rankers, read_ensemble
from solution.kaggle.kernel import find_place, kernel_root
from solution.questions import Questions, read_questions
from solution.retrieval.embedding import Embedder
from solution.workdir import Workdir


class Examined:
    """What is looked at; each part is read when it is first asked for, and what is wrong with it is told once."""

    def __init__(
        self, workdir: Path, configs: Path, questions: Path | None, corpus: str | None, overrides: Sequence[str]
    ):
        self.workdir = Workdir(workdir)
        self.configs, self.corpus, self.overrides = configs, corpus, list(overrides)
        self.questions = questions
        self.submit_overrides: list[str] = []
        self._embedders: dict[str, Any] = {}
        root = kernel_root()
        if root is not None and workdir == Path() and not self.workdir.ensemble.exists():
            place = find_place(None, questions, None, ())
            self.workdir, self.questions, self.submit_overrides = place.workdir, place.questions, place.overrides

    @functools.cached_property
    def run(self) -> Run | None:
        """The settings; None where they are wrong, which `settings` tells."""
        with contextlib.suppress(Exception):
            return load_run(self.configs, self.overrides, corpus=self.corpus)
        return None

    @functools.cached_property
    def exam(self) -> Questions | None:
        with contextlib.suppress(Exception):
            return read_questions(self.workdir.root / "questions.csv")
        return None

    @property
    def test(self) -> Path:
        return self.questions or self.workdir.root / "test.csv"

    @functools.cached_property
    def trained(self) -> list[Any]:
        """The rankers of the ensemble (`inference.submit.TrainedRanker`); none where they have a fault."""
        with contextlib.suppress(Exception):
            return trained_rankers(self.workdir, self.submit_overrides)
        return []

    @functools.cached_property
    def pairs(self) -> list[tuple[RankerConfig, RetrievalConfig | None]]:
        """The rankers of the settings, then those of the ensemble as they were trained; each with what retrieves."""
        found: list[tuple[RankerConfig, RetrievalConfig | None]] = []
        if self.run is not None:
            retrieval = self.run.retrieval
            found += [(each, retrieval if needs_contexts(each, retrieval) else None) for each in self.run.rankers]
        return found + [(each.config, each.retrieval) for each in self.trained]

    @property
    def by_name(self) -> dict[str, tuple[RankerConfig, RetrievalConfig | None]]:
        """One of each name: the ensemble's where it is in both."""
        return {config.name: (config, retrieval) for config, retrieval in self.pairs}

    def embedder(self, spec: str) -> Any:
        """Made once: its fingerprint reads the whole model."""
        if spec not in self._embedders:
            self._embedders[spec] = Embedder(spec, self.workdir.cache)
        return self._embedders[spec]


def trained_rankers(workdir: Workdir, overrides: Sequence[str]) -> list[Any]:
    return read_ensemble(workdir, overrides, imported_rankers(load_ensemble(workdir)))[1]
