"""An answer as the page's script takes it, and an error in words."""

from __future__ import annotations

from typing import Any

from solution.errors import explanation
from solution.interactive.answers import Explanation, ShownPassage, to_json
from solution.progress import say


def shown_answer(answer: Explanation) -> dict[str, Any]:
    """An answer as JSON. Passages are parted into `parts`, [text, letters of the options that the sentence decides]:
    scripts count characters otherwise than Python does."""
    record = to_json(answer)
    for passage, shown in zip(answer.passages, record["passages"], strict=True):
        shown["parts"] = parts(passage)
        del shown["text"], shown["marks"]
    return record


def parts(passage: ShownPassage) -> list[list[Any]]:
    """The text of a passage in parts, in their order: each with the letters of the options whose mark covers it."""
    ends = {0, len(passage.text)}
    for mark in passage.marks:
        ends |= {mark.start, mark.end}
    bounds = sorted(ends)
    found = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        letters = sorted({mark.option for mark in passage.marks if mark.start <= start and end <= mark.end})
        found.append([passage.text[start:end], "".join(letters)])
    return found


def shown_error(error: Exception, bug: str) -> str:
    """What a visitor reads of an error: its message, or `bug` where it is one; then the terminal has the traceback."""
    text = explanation(error)
    if text is None:
        import traceback

        say("".join(traceback.format_exception(error)))
    return bug if text is None else text
