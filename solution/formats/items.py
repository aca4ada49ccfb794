"""What passes between the forms of question files and `Questions`: tables, questions as they stand, and wishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.tables import Row

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The names of options, in order: a question has at most so many."""
TEXT_FORMAT, PLAIN = "text_format", "plain"
"""The column of this package's files that says of a row that its texts are no HTML, whatever they look like."""


@dataclass(frozen=True)
class Reading:
    """How the user wants a question file to be read.

    Attributes:
        columns: this package's name (id, prompt, A, B, ..., options, answer, context) -> the file's.
        encoding: of a text file; None: UTF-8, or what a byte-order mark says.
        answers_from: 0 or 1: what numbers in the place of answers count from; None: the file must show it.
        keep_html: leave tags and entities as they stand.
        skip_bad_rows: leave out rows that are wrong, and tell them.
        needs_id: refuse a file without ids: they name the answers of a submission.
        expects_answers: tell that no column of right answers is known.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    answers_from: int | None = None
    keep_html: bool = False
    skip_bad_rows: bool = False
    needs_id: bool = False
    expects_answers: bool = True


def columns_named(texts: Sequence[str]) -> dict[str, str]:
    """The columns that the values of `--columns` name: "prompt=question,A=opt1" and further ones.

    Raises:
        UserError: a part has no name, no `=` or no column.
    """
    named = {}
    for part in (part.strip() for text in texts for part in text.split(",") if part.strip()):
        name, sign, column = part.partition("=")
        if not (name and sign and column):
            raise UserError(f"--columns {part!r}: give NAME=COLUMN")
        named[name] = column
    return named


@dataclass(frozen=True)
class Source:
    """A file that is read.

    Attributes:
        what: messages call it so ("the question file").
        encoding: of its text, where the user has named it.
        skips_bad: parts of it that cannot be read are left out and told.
    """

    path: Path
    what: str
    encoding: str | None = None
    skips_bad: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.path}"


@dataclass
class Table:
    """A table as it stands in a file.

    Attributes:
        names: of its columns, distinct but for those without a name.
        rows: without those that are empty.
        form: its name for messages ("CSV").
        notes: what was dropped or understood, in words.
        index: values of a first column without name, a number a row; None where there is none.
        is_plain: its texts are no HTML, whatever they look like: the form says so.
        is_headless: the first line of its file is a question, and names no columns.
    """

    names: list[str]
    rows: list[Row]
    form: str
    notes: list[str] = field(default_factory=list)
    index: list[Any] | None = None
    is_plain: bool = False
    is_headless: bool = False

    @property
    def has_header(self) -> bool:
        """True where the rows stand below a line of column names."""
        return self.form.startswith(("CSV", "Excel")) and not self.is_headless


@dataclass
class Item:
    """A question as it stands in a row, its cells not yet checked.

    Attributes:
        number: of its row, from 1.
        options: cells; an empty one is an option that the question does not have.
        names: of the options, for messages.
        answer: a cell: a letter, an index, a text, a list of them, or nothing.
        labels: the file's own names of the options; None: it has none.
        extra: the cells of all other columns.
        is_plain: its texts are no HTML, whatever they look like: the row says so.
    """

    number: int
    id: Any
    prompt: Any
    options: list[Any]
    names: Sequence[str]
    answer: Any
    labels: list[str] | None = None
    extra: Row = field(default_factory=dict)
    is_plain: bool = False


@dataclass(frozen=True)
class ExamToWrite:
    """A checked exam, as a writer takes it: n ids, prompts, lists of options ("" where there is none), and answers.

    Attributes:
        answers: the index of each right option, -1 where it is not known.
        extra: further columns, n values each.
        would_change: for each question whether its texts would be cleaned, or lose letters in front of options, where
            nothing says that they are plain.
    """

    ids: Sequence[str]
    prompts: Sequence[str]
    options: Sequence[Sequence[str]]
    answers: Sequence[int]
    extra: Mapping[str, Sequence[Any]]
    would_change: Sequence[bool] = ()
