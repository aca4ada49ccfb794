"""One question as somebody asks it, checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from solution.errors import UserError
from solution.files import content_hash
from solution.questions import MAX_OPTIONS, MIN_OPTIONS, Questions, letter


def one_question(prompt: str, options: Sequence[str], context: str | None = None) -> Questions:
    """An exam of one question without its answer.

    Args:
        context: the passage that rankers read where `retrieval.source` is `column`; others do not see it.

    Raises:
        UserError: the question or an option is empty or no text, or there are fewer than 2 or more than 26 options.
    """
    if isinstance(options, str):
        raise UserError("the options are one text: give a list of texts, one an option")
    texts = list(options)
    wrong = [text for text in (prompt, *texts) if not isinstance(text, str)]
    if wrong:
        raise UserError(f"{wrong[0]!r} is not a text: give the question and each option as texts")
    if not prompt.strip():
        raise UserError("the question is empty")
    if not MIN_OPTIONS <= len(texts) <= MAX_OPTIONS:
        raise UserError(f"the question has {len(texts)} options: give {MIN_OPTIONS} to {MAX_OPTIONS}, A to Z")
    empty = [letter(place) for place, text in enumerate(texts) if not text.strip()]
    if empty:
        raise UserError(f"option {empty[0]} is empty: leave it out, or give its text")
    texts = [text.strip() for text in texts]
    id_ = f"asked-{content_hash(prompt, texts)}"
    extra = {} if context is None else {"context": [context]}
    return Questions([id_], [prompt.strip()], [texts], np.full(1, -1, dtype=np.int64), extra)
