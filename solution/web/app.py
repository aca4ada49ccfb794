"""The page and its requests: files of the page, questions, and exams to practise with.

Every answer of `api/` is JSON; an error is `{"error": "a message for the page"}`. It opens no file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import PurePath
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from solution import __version__
from solution.errors import UserError
from solution.files import content_hash
from solution.formats.forms import BY_ENDING, TEXT_FORMS
from solution.questions import read_given_questions
from solution.web.desk import Busy, Desk, UnknownJob
from solution.web.exams import PractiseExam, Shelf
from solution.web.guard import Guard
from solution.web.limits import Limits, check_question

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_PATIENCE = 10.0
"""Seconds for which a look at a question waits for news."""
_STEP = 0.05
_PASTED = "pasted text"
T = TypeVar("T", bound=BaseModel)


class _Question(BaseModel):
    prompt: str
    options: list[str]


class _Text(BaseModel):
    text: str


class _Choices(BaseModel):
    choices: dict[str, list[Annotated[str, StringConstraints(max_length=1)]]] = Field(max_length=10_000)


@dataclass(frozen=True)
class Doors:
    """Who may come in; see `Guard`.

    Attributes:
        names: further hosts that are taken.
        is_open: the server listens to other machines too.
        frames: origins whose pages may embed this one.
    """

    names: Sequence[str] = ()
    is_open: bool = False
    frames: Sequence[str] = field(default=())


def make_app(desk: Desk, shelf: Shelf, limits: Limits, doors: Doors, title: str = "") -> Starlette:
    """The application.

    Args:
        title: of the ensemble, for the head of the page: the working folder's name.
    """
    site = _Site(desk, shelf, limits, title)
    routes = [
        *(Route(path, _sends(data, kind), methods=["GET"]) for path, data, kind in _page_files()),
        Route("/api/about", site.about, methods=["GET"]),
        Route("/api/read", site.read, methods=["POST"]),
        Route("/api/questions", site.ask, methods=["POST"]),
        Route("/api/questions/{name}", site.look, methods=["GET"]),
        Route("/api/questions/{name}", site.give_up, methods=["DELETE"]),
        Route("/api/exams", site.exams, methods=["GET"]),
        Route("/api/exams", site.put_exam, methods=["POST"]),
        Route("/api/exams/{key}", site.exam, methods=["GET"]),
        Route("/api/exams/{key}/score", site.score, methods=["POST"]),
    ]
    guard = Middleware(Guard, names=doors.names, is_open=doors.is_open, most=limits.body, frames=doors.frames)
    return Starlette(
        routes=routes,
        middleware=[guard],
        exception_handlers={HTTPException: _on_status, UserError: _on_user_error, ValidationError: _on_wrong_form},
    )


def _page_files() -> list[tuple[str, bytes, str]]:
    """Path, content and type of each file of the page, read once: a request cannot name any other."""
    found = [("/", files("solution.web").joinpath("static", "index.html").read_bytes(), _TYPES[".html"])]
    for each in sorted(files("solution.web").joinpath("static").iterdir(), key=lambda each: each.name):
        if kind := _TYPES.get(PurePath(each.name).suffix):
            found.append((f"/{each.name}", each.read_bytes(), kind))
    return found


def _sends(data: bytes, kind: str) -> Callable[[Request], Response]:
    tag = f'"{content_hash(data.decode())}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}

    def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=kind, headers=headers)

    return send


def _error(status: int, text: str, **more: str) -> JSONResponse:
    return JSONResponse({"error": text, **more}, status)


def _on_status(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail))


def _on_user_error(_: Request, error: Exception) -> Response:
    return _error(400, str(error))


def _on_wrong_form(_: Request, error: Exception) -> Response:
    return _error(400, "The request has not the form that this page sends. Reload the page.")


async def _body(request: Request, kind: type[T]) -> T:
    """The request's JSON.

    A script of another site can send text, but not this type of content, without asking the server first.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "Send JSON.")
    return kind.model_validate_json(await request.body())


class _Site:
    """The requests of the page."""

    def __init__(self, desk: Desk, shelf: Shelf, limits: Limits, title: str):
        self._desk, self._shelf, self._limits, self._title = desk, shelf, limits, title

    async def about(self, _: Request) -> Response:
        """What the head of the page says."""
        answerer = self._desk.answerer
        about = answerer.about() if answerer is not None else None
        return JSONResponse(
            {
                "version": __version__,
                "title": self._title,
                "loading": self._desk.loading,
                "rankers": list(about.rankers) if about else [],
                "map3": about.map3 if about else None,
                "limits": {"body": self._limits.body, "prompt": self._limits.prompt, "option": self._limits.option},
            }
        )

    async def read(self, request: Request) -> Response:
        """The questions in a text of any form that `convert` reads."""
        data = (await _body(request, _Text)).text.encode("utf-8", "replace")
        notes: list[str] = []
        questions = await run_in_threadpool(read_given_questions, data, _PASTED, notes, False)
        if len(questions) > self._limits.questions:
            raise UserError(f"The text has {len(questions)} questions; at most {self._limits.questions} are taken.")
        texts = zip(questions.prompts, questions.options, strict=True)
        read = [{"prompt": prompt, "options": [text for text in options if text]} for prompt, options in texts]
        return JSONResponse({"questions": read, "notes": notes})

    async def ask(self, request: Request) -> Response:
        """A question for the queue."""
        question = await _body(request, _Question)
        prompt, options = question.prompt.strip(), [option.strip() for option in question.options]
        check_question(prompt, options, self._limits)
        try:
            name = self._desk.put(prompt, options)
        except Busy:
            return _error(503, f"{self._limits.waiting} questions are waiting already. Try again in a minute.")
        return JSONResponse({"name": name}, 202)

    async def look(self, request: Request) -> Response:
        """How a question stands, as soon as that is other than what `seen` says, or after some seconds."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                now = self._desk.look(request.path_params["name"])
            except UnknownJob:
                return _error(404, "This question is no longer known here. Ask it again.", code="unknown")
            tag = content_hash(now["state"], now["place"], now["news"])
            if tag != request.query_params.get("seen") or time.monotonic() > end or self._desk.is_ending:
                return JSONResponse({**now, "seen": tag})
            await asyncio.sleep(_STEP)

    async def give_up(self, request: Request) -> Response:
        """Take a question out of the queue."""
        self._desk.give_up(request.path_params["name"])
        return JSONResponse({})

    async def exams(self, _: Request) -> Response:
        """The exams that this server offers, and those that it makes now."""
        coming = self._shelf.coming()  # first: an exam that is made meanwhile is told twice, but never left out
        return JSONResponse({"exams": self._shelf.heads(), "coming": coming})

    async def put_exam(self, request: Request) -> Response:
        """An exam of the visitor: the bytes of a text file, its name in the query."""
        if request.headers.get("content-type") != "application/octet-stream":
            raise HTTPException(415, "Send the file's bytes.")
        name = PurePath(request.query_params.get("name", _PASTED)).name[:100] or _PASTED
        ending = PurePath(name).suffix.lower()
        if ending in BY_ENDING and BY_ENDING[ending].name not in TEXT_FORMS:
            raise UserError(f"{name}: only text files are taken here. Write it as CSV with: python -m solution convert")
        exam = await run_in_threadpool(_read_exam, await request.body(), name, self._limits)
        self._shelf.put(exam)
        return JSONResponse(exam.shown())

    async def exam(self, request: Request) -> Response:
        """An exam without its right answers."""
        return JSONResponse(self._exam(request).shown())

    async def score(self, request: Request) -> Response:
        """The score of the answers until now, with the right answers of these questions only."""
        exam = self._exam(request)
        choices: Mapping[str, Sequence[str]] = (await _body(request, _Choices)).choices
        return JSONResponse(exam.score(choices))

    def _exam(self, request: Request) -> PractiseExam:
        exam = self._shelf.get(request.path_params["key"])
        if exam is None:
            raise HTTPException(404, "This exam is not, or no longer, here. Give its file again.")
        return exam


def _read_exam(data: bytes, name: str, limits: Limits) -> PractiseExam:
    if not data.strip():
        raise UserError(f"{name} is empty.")
    notes: list[str] = []
    return PractiseExam.of(name, read_given_questions(data, name, notes), limits, notes)
