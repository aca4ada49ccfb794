"""Questions: reading, checking and writing them, letters <-> indices, ranked answers out."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from solution.errors import UserError
from solution.files import content_hash
from solution.formats.answers import UNKNOWN, AnswerColumn, Refused
from solution.formats.columns import Columns, is_inexact
from solution.formats.forms import WRITTEN, read_given_items, read_items, table_items
from solution.formats.html import clean_options, is_html, plain_text
from solution.formats.items import LETTERS, ExamToWrite, Item, Reading, Table
from solution.formats.options import has_letters
from solution.tables import Row, cell_text, not_a_text, shown, summary

MIN_OPTIONS, MAX_OPTIONS = 2, len(LETTERS)
SOURCE = "passage"
"""The column that names the document a question was made from."""


def positions(rows: Sequence[int] | np.ndarray) -> list[int]:
    """Positions as a list: those given, or where a bool array [n] is true."""
    places = np.asarray(rows)
    return np.flatnonzero(places).tolist() if places.dtype == bool else [int(row) for row in rows]


@dataclass
class Questions:
    """An exam.

    Attributes:
        ids: n distinct strings.
        prompts: n strings.
        options: n lists, one text an option position; "" marks a position that is not there.
        answers: int64 [n], the index of the right option, -1 where it is not known.
        extra: the file's other columns, each a list of n values.
    """

    ids: list[str]
    prompts: list[str]
    options: list[list[str]]
    answers: np.ndarray
    extra: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def max_options(self) -> int:
        """The number of option columns that a table of these questions needs."""
        return max((len(options) for options in self.options), default=MIN_OPTIONS)

    def exists(self, width: int | None = None) -> np.ndarray:
        """Bool [n, width or max_options]: which option positions hold an option."""
        table = np.zeros((len(self), width or self.max_options), dtype=bool)
        for row, options in enumerate(self.options):
            for column, option in enumerate(options):
                table[row, column] = option != ""
        return table

    def option_lengths(self, width: int | None = None) -> np.ndarray:
        """Float64 [n, width or max_options]: the characters of each option, 0 where there is none."""
        table = np.zeros((len(self), width or self.max_options))
        for row, options in enumerate(self.options):
            table[row, : len(options)] = [len(option) for option in options]
        return table

    def without_answers(self) -> Questions:
        """The same questions, every answer unknown."""
        unknown = np.full(len(self), -1, dtype=np.int64)
        extra = {name: values for name, values in self.extra.items() if name != "answer"}
        return Questions(self.ids, self.prompts, self.options, unknown, extra)

    def subset(self, rows: Sequence[int] | np.ndarray) -> Questions:
        """The questions at these positions, in the order given (or where a bool array [n] is true)."""
        rows = positions(rows)
        return Questions(
            ids=[self.ids[row] for row in rows],
            prompts=[self.prompts[row] for row in rows],
            options=[self.options[row] for row in rows],
            answers=self.answers[rows] if rows else self.answers[:0],
            extra={name: [values[row] for row in rows] for name, values in self.extra.items()},
        )

    def content_hash(self, with_answers: bool = True) -> str:
        """A hash of ids, prompts, options (and answers) that does not depend on the order of the rows."""
        rows = sorted(
            (id_, prompt, options, int(answer) if with_answers else None)
            for id_, prompt, options, answer in zip(self.ids, self.prompts, self.options, self.answers, strict=True)
        )
        return content_hash(rows)

    def require_answers(self, purpose: str) -> None:
        """Raise `UserError` unless every question has its answer."""
        missing = [self.ids[row] for row in np.flatnonzero(self.answers < 0)]
        if missing:
            raise UserError(
                f"{purpose} needs the answer of every question, and {len(missing)} of {len(self)} have none "
                f"(first: id {missing[0]}). Fill the column 'answer' or leave those rows out."
            )


def joined(parts: Sequence[Questions]) -> Questions:
    """The questions of several exams, one after the other; a column that one of them lacks holds None there.

    Ids may repeat: the result is for work on rows.
    """
    columns = dict.fromkeys(name for part in parts for name in part.extra)
    return Questions(
        [id_ for part in parts for id_ in part.ids],
        [prompt for part in parts for prompt in part.prompts],
        [options for part in parts for options in part.options],
        np.concatenate([part.answers for part in parts]),
        {name: [value for part in parts for value in part.extra.get(name, [None] * len(part))] for name in columns},
    )


def repeated_options(questions: Questions) -> list[str]:
    """The ids of the questions of which two options are the same text."""
    filled = [[option for option in options if option] for options in questions.options]
    return [id_ for id_, options in zip(questions.ids, filled, strict=True) if len(set(options)) < len(options)]


# --- letters and ranked answers ------------------------------------------------------------


def letter(index: int) -> str:
    """The letter of an option position: 0 -> "A"."""
    return LETTERS[index]


def letter_index(text: str) -> int:
    """The option position of a letter: "A" -> 0.

    Raises:
        ValueError: not one letter from A to Z.
    """
    text = text.strip().upper()
    if len(text) != 1 or text not in LETTERS:
        raise ValueError(f"{text!r} is not a letter from A to {LETTERS[-1]}")
    return LETTERS.index(text)


def ranked_options(probabilities: np.ndarray, exists: np.ndarray) -> list[list[str]]:
    """For each question the letters of its options, most probable first; equal ones in the order of the letters.

    Args:
        probabilities: float [n, width].
        exists: bool [n, width]; options that are not there are not ranked.

    An option that is there is ranked whatever its number: NaN comes last.
    """
    exists = np.asarray(exists, dtype=bool)
    order = np.lexsort((-np.asarray(probabilities, dtype=np.float64), ~exists), axis=1)
    return [[LETTERS[column] for column in row[:count]] for row, count in zip(order, exists.sum(axis=1), strict=True)]


def kaggle_prediction(ranked: Sequence[str], k: int = 3) -> str:
    """Kaggle's form of a ranked answer: `["B", "A", "D", "C"]` -> "B A D"."""
    return " ".join(ranked[:k])


# --- reading -------------------------------------------------------------------------------


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Millions of new objects and no garbage: the collector would look at all of them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_collector()
def read_questions(
    path: str | Path, mended: list[str] | None = None, reading: Reading | None = None, notes: list[str] | None = None
) -> Questions:
    """Read an exam of 2 to 26 options a question in any form of `formats.forms`; see docs/formats.md.

    Every column that is neither id, prompt, option nor answer is kept in `extra`. An empty option is one that the
    question does not have.

    Args:
        mended: takes what is wrong with rows that can be ranked all the same, as a submission must: an empty prompt
            becomes "?", of a question without options every column is one, a wrong answer is unknown. None: these
            are errors. A file to answer needs its ids: they are not numbered.
        reading: what the user says of the file.
        notes: takes what was recognised in a file that has not this package's columns, what was cleaned and what
            was left out.

    Raises:
        UserError: the file cannot be read, a column is missing, or rows are wrong (empty or
            repeated ids, empty prompts, fewer than two options, an answer that is no option, or several);
            the rows' problems are reported together.
    """
    path = Path(path)
    reading = reading or Reading()
    if mended is not None:
        reading = replace(reading, needs_id=True)
    items, columns, table = read_items(path, "the question file", reading)
    if not items:
        raise UserError(f"{path} has a header and no question")
    return _checked(_AsRead(str(path), items, columns, table), mended, reading, notes)


def table_questions(
    names: Sequence[str],
    rows: Sequence[Row],
    index: list[Any] | None = None,
    reading: Reading | None = None,
    notes: list[str] | None = None,
    with_answers: bool = True,
) -> Questions:
    """The questions of a table that is in memory; see `read_questions`.

    Args:
        names: of its columns.
        rows: its cells by the names of their columns.
        index: names of the rows, for a table without ids; None: its rows are numbered.
        with_answers: False: the questions are to be answered, and answers in the table are not read.
    """
    name, reading = "the table", reading or Reading(expects_answers=False)
    table = Table(list(names), list(rows), "a table", index=index)
    items, columns, table = table_items(table, reading, name)
    if not items:
        raise UserError("the table has no question")
    if not with_answers:
        items = [replace(item, answer=None) for item in items]
    return _checked(_AsRead(name, items, columns, table), None, reading, notes)


def read_given_questions(
    data: bytes, name: str, notes: list[str] | None = None, with_answers: bool = True, reading: Reading | None = None
) -> Questions:
    """The questions of a text that was pasted, or of a text file that was sent; see `read_given_items`.

    Rows that are wrong are left out, and `notes` tells them.

    Args:
        with_answers: False: the questions are to be answered, and answers that the text has are not read.
        reading: how the user wants it to be read, where that is said.

    Raises:
        UserError: no form is recognised, or no row is usable.
    """
    reading = replace(reading or Reading(), skip_bad_rows=True, expects_answers=False)
    items, columns, table = read_given_items(data, name, reading)
    if not items:
        raise UserError(f"{name} has no question")
    if not with_answers:
        items = [replace(item, answer=None) for item in items]
    return _checked(_AsRead(name, items, columns, table), None, reading, notes)


class _AsRead(NamedTuple):
    """The questions of a file as they stand in it."""

    name: str
    items: list[Item]
    columns: Columns
    table: Table


def _checked(read: _AsRead, mended: list[str] | None, reading: Reading, notes: list[str] | None) -> Questions:
    """The questions of a file, its rows checked; see `read_questions`."""
    name, items, columns, table = read
    cleaned = 0 if reading.keep_html or table.is_plain else sum([not item.is_plain and _clean(item) for item in items])
    answers = _answer_column(items, columns.start if reading.answers_from is None else reading.answers_from)
    reader = _RowReader(answers, mended)
    questions, left_out = [], []
    for item in items:
        before = len(reader.problems)
        question = reader.read(item)
        if reading.skip_bad_rows and mended is None and len(reader.problems) > before:
            left_out.append(reader.problems[before])
            continue
        questions.append((item, question))
    if reader.problems and not (left_out and questions):
        # Messages on a file's form count its lines; a question may take several, and parquet has none.
        below = ", below the header" if table.has_header else ""
        title = f"{name} is not usable (row 1 is the first question{below})"
        hint = "" if left_out or mended is not None else "\nTo go on without these rows: --skip-bad-rows"
        raise UserError(summary(title, reader.problems) + hint)
    if notes is not None:
        notes += _notes(columns, table.form, table.notes, answers, cleaned)
        unknown = sum(question.answer == UNKNOWN for _, question in questions)
        if 0 < unknown < len(questions) and mended is None:
            notes.append(f"{unknown} of {len(questions)} questions have no right answer")
        if left_out:
            notes.append(summary(f"{len(left_out)} of {len(items)} rows are left out", left_out))
    return Questions(
        ids=[question.id for _, question in questions],
        prompts=[question.prompt for _, question in questions],
        options=[question.options for _, question in questions],
        answers=np.array([question.answer for _, question in questions], dtype=np.int64),
        extra={name: [item.extra.get(name) for item, _ in questions] for name in items[0].extra},
    )


def _answer_column(items: Sequence[Item], start: int | None) -> AnswerColumn:
    options = [[cell_text(option) for option in item.options] for item in items]
    return AnswerColumn([item.answer for item in items], options, [item.labels for item in items], start)


def _notes(columns: Columns, form: str, notes: list[str], answers: AnswerColumn, cleaned: int) -> list[str]:
    """What was recognised in a file and dropped from it, in one line; nothing where it has this package's columns."""
    parts = [*columns.notes, *notes]
    if answers.counted and columns.start is None and answers.ways in ([0], [1]):
        parts.append(f"the answers are numbers from {answers.ways[0]}")
    if cleaned:
        parts.append(f"HTML of {cleaned} question{'s' if cleaned > 1 else ''} cleaned to text (--keep-html leaves it)")
    return [f"{form}: {'; '.join(parts)}"] if parts else []


def _clean(item: Item) -> bool:
    """Clean the HTML of a question's texts; False where there is none, or where it seems to be the very subject.

    That is so where an option would become empty or equal to another ("Which tag is right?").
    """
    cells = [item.prompt, *item.options]
    if not any(isinstance(cell, str) and is_html(cell) for cell in cells):
        return False
    prompt = plain_text(item.prompt) if isinstance(item.prompt, str) else item.prompt
    texts = [cell_text(cell) for cell in item.options]
    plain = clean_options(texts)
    if not cell_text(prompt) or (plain == texts and any(map(is_html, texts))):
        return False
    item.prompt = prompt
    item.options = [new if isinstance(cell, str) else cell for cell, new in zip(item.options, plain, strict=True)]
    if isinstance(item.answer, str):
        item.answer = plain_text(item.answer)
    return True


class _Question(NamedTuple):
    id: str
    prompt: str
    options: list[str]
    answer: int


class _RowReader:
    """Reads questions row by row and collects the problems of all rows, each with the row that it is in.

    Attributes:
        problems: what makes the file unusable.
        mendable: what a submission can do without; the same list as `problems` where it must be right.
    """

    def __init__(self, answers: AnswerColumn, mended: list[str] | None):
        self.answers = answers
        self.problems: list[str] = []
        self.mendable = self.problems if mended is None else mended
        self._row_of: dict[str, int] = {}

    def read(self, item: Item) -> _Question:
        """The question of a row, mended where it is wrong."""
        id_ = cell_text(item.id)
        where = f"row {item.number} (id {shown(id_) or 'empty'})"
        cells = [("id", item.id), ("prompt", item.prompt), *zip(item.names, item.options, strict=False)]
        if not isinstance(item.answer, (list, tuple)):
            cells.append(("answer", item.answer))
        self.problems += [
            f"{where}: column {name} holds {wrong}, not a text" for name, cell in cells if (wrong := not_a_text(cell))
        ]
        self._check_id(item, id_, where)
        prompt = cell_text(item.prompt)
        if not prompt:
            self.mendable.append(f"{where}: the prompt is empty")
            prompt = "?"
        options = self._options(item, where)
        return _Question(id_, prompt, options, self._answer(item, options, where))

    def _check_id(self, item: Item, id_: str, where: str) -> None:
        if not id_:
            self.problems.append(f"row {item.number}: the id is empty")
        elif "\0" in id_:
            self.problems.append(f"{where}: the id has a NUL character in it")
        elif is_inexact(item.id):
            self.problems.append(f"{where}: the id is a number that lost its last digits; save ids as texts")
        elif id_ in self._row_of:
            self.problems.append(f"{where}: the id stands in row {self._row_of[id_]} already")
        self._row_of.setdefault(id_, item.number)

    def _options(self, item: Item, where: str) -> list[str]:
        """The options without the empty ones at the end; one in the middle stays, so that letters keep their place."""
        options = [cell_text(cell) for cell in item.options]
        while options and not options[-1]:
            options.pop()
        if len(options) > MAX_OPTIONS:
            self.problems.append(f"{where} has {len(options)} options: at most {MAX_OPTIONS}, A to Z, are read")
            options = options[:MAX_OPTIONS]
        if sum(option != "" for option in options) < MIN_OPTIONS:
            why = f" ({item.names[0]})" if not item.options else ""
            self.mendable.append(f"{where}: fewer than {MIN_OPTIONS} options are filled in{why}")
            names = item.names if item.options else LETTERS[:MIN_OPTIONS]
            options = options or list(names[: max(len(item.options), MIN_OPTIONS)])
        return options

    def _answer(self, item: Item, options: Sequence[str], where: str) -> int:
        """The index of the right option; -1 where the cell is empty or wrong."""
        try:
            return self.answers.read(item.answer, options, item.labels)
        except Refused as error:
            self.mendable.append(f"{where}: {error}")
            return UNKNOWN


# --- writing -------------------------------------------------------------------------------


def write_questions(path: Path, questions: Questions, form: str = "csv") -> None:
    """Write an exam in a form of `formats.forms.WRITTEN`; in this package's own, its extra columns at the end.

    Raises:
        UserError: the form needs the answer of every question, or cannot hold a text.
    """
    writer = WRITTEN[form]
    if writer.needs_answers:
        questions.require_answers(f"the form {form}")
    assert writer.write is not None
    answers = [int(answer) for answer in questions.answers]
    rows = zip(questions.prompts, questions.options, strict=True)
    changed = [_clean(Item(0, "", prompt, list(options), [], None)) or has_letters(options) for prompt, options in rows]
    exam = ExamToWrite(questions.ids, questions.prompts, questions.options, answers, questions.extra, changed)
    writer.write(Path(path), exam)
