"""The queue of questions: one is answered at a time, and whoever waits can see the place in the queue."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from solution.progress import say
from solution.web.answerer import Answerer, MakeAnswerer
from solution.web.limits import Limits
from solution.web.shown import shown_answer, shown_error

_ABANDONED = 30.0
"""Seconds without a look at a waiting question after which nobody seems to wait for it."""
_BUG = "The answer failed by an error in this program; the terminal shows it. Other questions may still work."


class Busy(Exception):
    """The queue is full."""


class UnknownJob(Exception):
    """No question is known by this name: it was given up, or its answer was kept long enough."""


@dataclass
class _Job:
    prompt: str
    options: tuple[str, ...]
    state: str = "waiting"
    news: str = ""
    answer: dict[str, Any] | None = None
    error: str | None = None
    looked: float = field(default=0.0)


class Desk:
    """Takes questions from any thread, and answers them in one thread of its own, in their order.

    Args:
        make_answerer: called in that thread, before the first question; it takes news.
        clock: seconds, for tests.

    Attributes:
        is_ending: the server ends: nobody shall wait for news any longer.
    """

    def __init__(self, make_answerer: MakeAnswerer, limits: Limits, clock: Callable[[], float] = time.monotonic):
        self._make_answerer, self._limits, self._clock = make_answerer, limits, clock
        self.is_ending = False
        self._answerer: Answerer | None = None
        self._loading = ""
        self._waiting: OrderedDict[str, _Job] = OrderedDict()
        self._others: OrderedDict[str, _Job] = OrderedDict()  # at work or finished
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    @property
    def answerer(self) -> Answerer | None:
        """None while it is being loaded."""
        return self._answerer

    @property
    def loading(self) -> str:
        """News of the loading."""
        return self._loading

    def close(self) -> None:
        """Take no more questions, and end when the one at work is answered."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def put(self, prompt: str, options: Sequence[str]) -> str:
        """Put a question into the queue.

        Returns:
            Its name, which nobody else can guess.

        Raises:
            Busy: the queue is full.
        """
        with self._changed:
            self._drop_abandoned()
            if len(self._waiting) >= self._limits.waiting:
                raise Busy
            name = secrets.token_urlsafe(16)
            self._waiting[name] = _Job(prompt, tuple(options), looked=self._clock())
            self._changed.notify_all()
            return name

    def look(self, name: str) -> dict[str, Any]:
        """How a question stands: `state` (waiting, working, done or failed), `place` in the queue (1: the next one),
        `news`, and in the end `answer` or `error`.

        Raises:
            UnknownJob: there is none of this name.
        """
        with self._changed:
            job = self._waiting.get(name) or self._others.get(name)
            if job is None:
                raise UnknownJob
            job.looked = self._clock()
            place = 0
            if job.state == "waiting":
                self._drop_abandoned()
                place = list(self._waiting).index(name) + 1
            news = job.news or (self._loading if self._answerer is None else "")
            return {"state": job.state, "place": place, "news": news, "answer": job.answer, "error": job.error}

    def give_up(self, name: str) -> None:
        """Take a question out of the queue; one at work is answered all the same."""
        with self._changed:
            self._waiting.pop(name, None)

    def _drop_abandoned(self) -> None:
        now = self._clock()
        for name in [name for name, job in self._waiting.items() if now - job.looked > _ABANDONED]:
            del self._waiting[name]

    def _work(self) -> None:
        try:
            self._answerer = self._make_answerer(self._tell_loading)
        except Exception as error:
            self._fail_all(error)
            return
        self._loading = ""
        while True:
            with self._changed:
                if (next_ := self._next()) is None:
                    return
                name, job = next_
                if self._clock() - job.looked > _ABANDONED:
                    continue
                job.state = "working"
                self._keep(name, job)
            self._answer(self._answerer, job)

    def _next(self) -> tuple[str, _Job] | None:
        """The first question of the queue, waited for and taken out of it, under the lock; None at the end."""
        self._changed.wait_for(lambda: self._closed or self._waiting)
        return None if self._closed else self._waiting.popitem(last=False)

    def _keep(self, name: str, job: _Job) -> None:
        self._others[name] = job
        while len(self._others) > self._limits.finished:
            self._others.popitem(last=False)

    def _answer(self, answerer: Answerer, job: _Job) -> None:
        def tell(text: str) -> None:
            job.news = text

        try:
            job.answer = shown_answer(answerer.explain(job.prompt, job.options, tell))
            job.state = "done"
        except Exception as error:
            # Whatever a library raises on one question, the next one is answered.
            job.error = shown_error(error, _BUG)
            job.state = "failed"

    def _tell_loading(self, text: str) -> None:
        self._loading = text

    def _fail_all(self, error: Exception) -> None:
        """The ensemble cannot be loaded: every question gets the message."""
        message = shown_error(error, _BUG)
        say(f"error: {message}")
        while True:
            with self._changed:
                if (next_ := self._next()) is None:
                    return
                name, job = next_
                job.error, job.state = message, "failed"
                self._keep(name, job)
