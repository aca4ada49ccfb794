"""A question before its wrong options are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["cloze", "term", "definition"]
KINDS: tuple[Kind, ...] = ("cloze", "term", "definition")
"""Which term fills the blank; which term has this definition; which definition does this term have."""


@dataclass(frozen=True)
class Draft:
    """A prompt and its answer.

    Attributes:
        term: the number of the key term that is asked for, or about.
        passage: the position of the source passage in the sample.
        stems: of the statement that the answer makes true, without the term's own.
        article: of the blank: "a", "the" or "".
        sentence: the number of the sentence that a cloze question was made of; -1 for other kinds.
        definition: the number of the definition that it was made of; -1 for a cloze question.
        worth: of a short text, how good the question is likely to be; 0 or more, better ones are taken first.
    """

    kind: Kind
    prompt: str
    answer: str
    term: int
    passage: int
    stems: frozenset[str]
    article: str = ""
    sentence: int = -1
    definition: int = -1
    worth: int = 0
