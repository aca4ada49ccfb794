"""The contexts of a submission: made in a process of their own, then opened once by their keys."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from solution.config import SIGNALS, ContextView, RetrievalConfig
from solution.errors import UserError
from solution.exam import Contexts
from solution.files import hashing
from solution.inference.jobs import Fault, OutOfTime, Patience, job_text, run_job
from solution.inference.trained import TrainedRanker, context_requests
from solution.inference.turns import Answers
from solution.inference.wire import Event, QuestionsRecord, RetrieveJob, json_cell, questions_record
from solution.retrieval.contexts.build import open_views
from solution.retrieval.contexts.cache import is_stored
from solution.retrieval.sources import FileHash
from solution.suggestions import running_arguments
from solution.workdir import Workdir

PATIENCE = 30.0
"""Seconds that retrieval may be silent in any case: its process starts, and a large index is opened without a word."""
_SIGNALS_SHARE = 1 / 3
"""Of the time left that the signals of the options may take: the rankers that do not read them need the rest."""
_TO_FINISH = 0.1  # of that time: a step that has begun is finished, and the contexts are written
_LEAST_TO_FINISH = 20.0  # seconds; the process starts in them too


@dataclass
class RetrievalTime:
    """Seconds of all retrieval, of which the embedder's model took `model_seconds`.

    Attributes:
        float32_passages: see `Reranker.float32_passages`.
    """

    seconds: float = 0.0
    model_seconds: float = 0.0
    float32_passages: int = 0


@dataclass
class Retrieving:
    """Makes the contexts of a submission's questions.

    Attributes:
        answers: knows the questions, and takes what becomes of the rankers.
        time_taken: so far.
    """

    workdir: Workdir
    answers: Answers
    time_taken: RetrievalTime = field(default_factory=RetrievalTime)
    _corpus_hashes: list[FileHash] = field(default_factory=list)

    def contexts_of(self, rankers: Sequence[TrainedRanker]) -> dict[str, Mapping[ContextView, Contexts]]:
        """The contexts that the rankers read, by the hash of the retrieval's settings.

        Where they cannot be made, their rankers are left out.
        """
        contexts: dict[str, dict[ContextView, Contexts]] = {}
        for request in context_requests(rankers):
            try:
                views = self.contexts(request.config, request.views)
                contexts.setdefault(request.config.hash(), {}).update(views)
            except Fault as error:
                self._fail(request.readers, f"retrieval failed: {error}")
            except (UserError, OSError) as error:
                self._fail(request.readers, str(error))
            except OutOfTime:
                for name in request.readers:
                    self.answers.turns[name].end("the deadline left no time for its contexts")
        return dict(contexts)

    def _fail(self, names: Sequence[str], reason: str) -> None:
        for name in names:
            self.answers.fail(name, reason)

    def contexts(self, config: RetrievalConfig, views: Sequence[ContextView]) -> Mapping[ContextView, Contexts]:
        """The contexts by these settings, one for each view.

        Neither the corpus nor the embedder is looked at in this process: the one that makes the contexts has done so.

        Raises:
            Fault: retrieval failed or was silent for too long.
            OutOfTime: the deadline came.
            UserError, OSError: the contexts cannot be opened.
        """
        keys = self._make(config, views) if is_stored(config) else {}
        return open_views(self.answers.questions, config, views, keys, self.workdir.root)

    def _make(self, config: RetrievalConfig, views: Sequence[ContextView]) -> dict[ContextView, str]:
        """Have a process put the contexts into the working folder's cache; returns the key of each view."""
        keys: dict[ContextView, str] = {}

        def take(event: Event) -> None:
            if event["event"] == "retrieved":
                keys.update(event["keys"])
                self.time_taken.model_seconds += event["model_seconds"]
                self.time_taken.float32_passages += event["float32_passages"]
                self._corpus_hashes = event["corpus_hashes"]

        job: RetrieveJob = {
            "kind": "retrieve",
            "command": running_arguments(),
            "workdir": str(self.workdir.root),
            "retrieval": config.model_dump(mode="json"),
            "views": list(dict.fromkeys(views)),
            "verify": hashing(),
            "questions": self._record,
            "corpus_hashes": self._corpus_hashes,
            "signal_seconds": None,
        }
        timeline, started = self.answers.timeline, time.monotonic()
        longest = _SIGNALS_SHARE * timeline.limits.left() if SIGNALS in views else math.inf
        if math.isfinite(longest):
            # The process stops by itself, with those that it has made, before it is stopped.
            job["signal_seconds"] = max(0.0, longest - max(_TO_FINISH * longest, _LEAST_TO_FINISH))
        try:
            # Half of the time is left to rankers that read nothing, or contexts by other settings.
            seconds = max(PATIENCE, min(timeline.limits.ranker_timeout, timeline.limits.left() / 2))
            complaint = "it did not go on (--ranker-timeout, --deadline) for"
            run_job(job_text(job), take, timeline.limits, Patience(seconds, complaint, longest))
        except (Fault, OutOfTime) as error:
            timeline.note(f"no contexts: {str(error) or 'the deadline came'}")
            raise
        finally:
            self.time_taken.seconds += time.monotonic() - started
        timeline.note("signals made" if SIGNALS in views else "contexts made")
        return keys

    @functools.cached_property
    def _record(self) -> QuestionsRecord:
        questions = self.answers.questions
        contexts = questions.extra.get("context")
        cells = None if contexts is None else [json_cell(value) for value in contexts]
        return questions_record(questions, contexts=cells)
