"""How much the page takes from whoever opens it, and the message where something is too large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from solution.errors import UserError
from solution.interactive.question import one_question
from solution.questions import Questions


@dataclass(frozen=True)
class Limits:
    """What a request may hold.

    Attributes:
        body: bytes of a request.
        prompt, option: characters.
        questions: of an exam to practise with.
        exams: that visitors have given and that are kept; the one not used for the longest time goes first.
        waiting: questions in the queue.
        finished: answers that are kept for whoever asked.
    """

    body: int = 2 * 1024 * 1024
    prompt: int = 8_000
    option: int = 2_000
    questions: int = 1_000
    exams: int = 20
    waiting: int = 20
    finished: int = 100


def check_question(prompt: str, options: Sequence[str], limits: Limits) -> None:
    """Refuse a question that cannot be ranked.

    Raises:
        UserError: a text that is too long, or see `one_question`.
    """
    _check_lengths(prompt, options, limits, "The")
    one_question(prompt, options)


def check_exam(questions: Questions, limits: Limits) -> None:
    """Refuse an exam that is too large to practise with.

    Raises:
        UserError: too many questions, or a text that is too long.
    """
    if len(questions) > limits.questions:
        raise UserError(f"The exam has {len(questions)} questions; at most {limits.questions} are taken.")
    for number, (prompt, options) in enumerate(zip(questions.prompts, questions.options, strict=True), 1):
        _check_lengths(prompt, options, limits, f"Question {number}: the")


def _check_lengths(prompt: str, options: Sequence[str], limits: Limits, begin: str) -> None:
    if len(prompt) > limits.prompt:
        raise UserError(f"{begin} question has {len(prompt):,} characters; at most {limits.prompt:,} are taken.")
    longest = max(map(len, options), default=0)
    if longest > limits.option:
        raise UserError(f"{begin} longest option has {longest:,} characters; at most {limits.option:,} are taken.")
