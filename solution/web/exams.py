"""Exams to practise with: shown without their right answers, scored as far as they are answered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from solution.errors import UserError
from solution.files import content_hash
from solution.metrics import map_at_k
from solution.progress import say
from solution.questions import Questions, letter, letter_index
from solution.web.limits import Limits, check_exam
from solution.web.shown import shown_error

CHOICES = 3
"""The first, second and third choice count, as in MAP@3."""


@dataclass(frozen=True)
class PractiseExam:
    """An exam whose right answers are known.

    Attributes:
        key: the same for the same questions in the same order, whenever they are read.
        notes: what was left out, in words.
    """

    key: str
    title: str
    questions: Questions
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, title: str, questions: Questions, limits: Limits, notes: Sequence[str] = ()) -> PractiseExam:
        """The questions whose answers are known.

        Raises:
            UserError: there is none, or see `check_exam`.
        """
        known = np.flatnonzero(questions.answers >= 0)
        if not len(known):
            raise UserError(
                "The right answers are not known for any of these questions; to practise, each question needs its own."
            )
        left_out = len(questions) - len(known)
        more = [f"{left_out} questions without a right answer are left out"] if left_out else []
        kept = questions.subset(known)
        check_exam(kept, limits)
        return cls(content_hash("practise", _texts(kept)), title, kept, (*notes, *more))

    def head(self) -> dict[str, Any]:
        """What a list of exams says of it."""
        return {"key": self.key, "title": self.title, "count": len(self.questions)}

    def shown(self) -> dict[str, Any]:
        """The exam without its right answers."""
        questions = [
            {"prompt": prompt, "options": [[letter(place), text] for place, text in enumerate(options) if text]}
            for prompt, options in zip(self.questions.prompts, self.questions.options, strict=True)
        ]
        return {**self.head(), "notes": list(self.notes), "questions": questions}

    def score(self, choices: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """The score of what is answered, and for each answered question the right option's letter.

        Args:
            choices: the row of a question, as text -> the letters chosen, the first choice first.

        Raises:
            UserError: a row that is not there, or letters that are no options of it.
        """
        if not choices:
            return {"results": {}, "answered": 0, "right": 0, "map3": None}
        rows = [self._row(text) for text in choices]
        tables = [self._chosen(row, letters) for row, letters in zip(rows, choices.values(), strict=True)]
        answers = self.questions.answers[rows]
        results = {
            text: {
                "right": letter(int(answers[place])),
                "points": map_at_k(tables[place][None], answers[place : place + 1], CHOICES),
                "title": str(self._extra("title", rows[place])),
            }
            for place, text in enumerate(choices)
        }
        width = max(map(len, tables))
        table = np.stack([np.pad(each, (0, width - len(each))) for each in tables])
        right = sum(results[text]["right"] == letters[0] for text, letters in choices.items())
        return {
            "results": results,
            "answered": len(rows),
            "right": right,
            "map3": map_at_k(table, answers, CHOICES),
        }

    def _row(self, text: str) -> int:
        row = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else -1
        if not 0 <= row < len(self.questions):
            raise UserError("The exam has no such question.")
        return row

    def _chosen(self, row: int, letters: Sequence[str]) -> np.ndarray:
        """Choices as the metric takes them: float [options + CHOICES], the first choice highest.

        The further columns take the places behind the choices, so that an option that was not chosen has none.
        """
        options = self.questions.options[row]
        try:
            places = [letter_index(text) for text in letters]
        except ValueError:
            places = []
        is_there = all(place < len(options) and options[place] for place in places)
        if not 1 <= len(places) <= CHOICES or len(set(places)) < len(places) or not is_there:
            raise UserError(f"Choose one to {CHOICES} options of the question.")
        table = np.zeros(len(options) + CHOICES)
        table[len(options) :] = 0.5
        table[places] = [1 + CHOICES - rank for rank in range(len(places))]
        return table

    def _extra(self, name: str, row: int) -> Any:
        return (self.questions.extra.get(name) or [""] * len(self.questions))[row] or ""


def _texts(questions: Questions) -> list[Any]:
    return [questions.prompts, questions.options, [int(answer) for answer in questions.answers]]


@dataclass(frozen=True)
class ComingExam:
    """An exam that has to be made first: its title, and the function that makes its questions."""

    title: str
    make: Callable[[], Questions]


class Shelf:
    """The exams that the server offers to everybody, and those that visitors have given, each known by its key.

    Args:
        coming: exams that `make_coming` makes.
    """

    def __init__(self, offered: Sequence[PractiseExam], limits: Limits, coming: Sequence[ComingExam] = ()):
        self._offered = {exam.key: exam for exam in offered}
        self._to_make = list(coming)
        self._coming = {exam.title: "" for exam in coming}  # title -> why it cannot be made; empty: not known yet
        self._given: OrderedDict[str, PractiseExam] = OrderedDict()
        self._limits = limits
        self._lock = threading.Lock()

    def heads(self) -> list[dict[str, Any]]:
        """What the list says of the exams that are offered; those of visitors are not shown to others."""
        with self._lock:
            return [exam.head() for exam in self._offered.values()]

    def coming(self) -> list[dict[str, str]]:
        """The exams that are not made yet, by `title`; `problem`: why one cannot be made, or empty."""
        with self._lock:
            return [{"title": title, "problem": problem} for title, problem in self._coming.items()]

    def make_coming(self) -> None:
        """Make the exams that are not made yet; one that cannot be made is told, and the others are made."""
        for exam in self._to_make:
            try:
                made = PractiseExam.of(exam.title, exam.make(), self._limits)
            except Exception as error:  # whatever a library raises, the page goes on
                problem = shown_error(
                    error, "The exam cannot be made by an error in this program; the terminal shows it."
                )
                say(f"WARNING: {exam.title}: {problem}")
                with self._lock:
                    self._coming[exam.title] = problem
                continue
            with self._lock:
                self._offered[made.key] = made
                del self._coming[exam.title]

    def put(self, exam: PractiseExam) -> None:
        """Keep an exam that a visitor has given."""
        with self._lock:
            self._given[exam.key] = exam
            self._given.move_to_end(exam.key)
            while len(self._given) > self._limits.exams:
                self._given.popitem(last=False)

    def get(self, key: str) -> PractiseExam | None:
        """The exam of a key; None where it is not, or no longer, there."""
        with self._lock:
            if key in self._given:
                self._given.move_to_end(key)
            return self._offered.get(key) or self._given.get(key)
