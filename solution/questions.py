"""Questions: reading, checking and writing them, letters <-> indices, ranked answers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from solution.errors import UserError
from solution.files import content_hash
from solution.tables import Row, cell_text, listed, not_a_text, read_rows, shown, summary, write_csv

LETTERS = "ABCDEFGH"
MIN_OPTIONS, MAX_OPTIONS = 2, len(LETTERS)


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
        ValueError: not one letter from A to H.
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


def read_questions(path: str | Path, mended: list[str] | None = None) -> Questions:
    """Read an exam: columns `id,prompt,A,B,...[,answer]`, 2 to 8 options, CSV, JSONL or parquet (or .gz).

    Every other column is kept in `extra`. An empty option is one that the question does not have.

    Args:
        mended: takes what is wrong with rows that can be ranked all the same, as a submission must: an empty prompt
            becomes "?", of a question without options every column is one, a wrong answer is unknown. None: these
            are errors.

    Raises:
        UserError: the file cannot be read, a column is missing, or rows are wrong (empty or
            repeated ids, empty prompts, fewer than two options, an answer that is no option);
            the rows' problems are reported together.
    """
    path = Path(path)
    return questions_from_rows(*read_rows(path, "the question file"), path, mended)


def questions_from_rows(
    names: Sequence[str], rows: Sequence[Row], path: Path, mended: list[str] | None = None
) -> Questions:
    """The questions of a table in the columns of `read_questions`, which see; `path` names its file in messages."""
    option_names = _option_columns(names, path)
    if not rows:
        raise UserError(f"{path} has a header and no question")
    reader = _RowReader(option_names, mended)
    questions = [reader.read(number, row) for number, row in enumerate(rows, 1)]
    if reader.problems:
        # Messages on a file's form count its lines; a question may take several, and parquet has none.
        title = f"{path} is not usable (row 1 is the first question, below the header)"
        raise UserError(summary(title, reader.problems))
    extra_names = [name for name in names if name not in ("id", "prompt", "answer", *option_names)]
    return Questions(
        ids=[question.id for question in questions],
        prompts=[question.prompt for question in questions],
        options=[question.options for question in questions],
        answers=np.array([question.answer for question in questions], dtype=np.int64),
        extra={name: [row.get(name) for row in rows] for name in extra_names},
    )


def _option_columns(names: Sequence[str], path: Path) -> list[str]:
    """The letters that have a column: A, B and those that follow without a gap.

    Raises:
        UserError: a column is missing, or there is one more than a question may have options.
    """
    option_names = [name for name in LETTERS if name in names]
    missing = [name for name in ("id", "prompt", "A", "B") if name not in names]
    if missing:
        raise UserError(
            f"{path}: column{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing; "
            f"it has {listed(names)}. A question file has the columns id,prompt,A,B,...,answer."
        )
    if option_names != list(LETTERS[: len(option_names)]):
        gap = next(name for name in LETTERS if name not in option_names)
        raise UserError(f"{path}: option column {gap} missing while {option_names[-1]} is there")
    if len(option_names) == MAX_OPTIONS and "I" in names:
        raise UserError(f"{path} has an option column I: a question has at most {MAX_OPTIONS} options, A to H")
    return option_names


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

    def __init__(self, option_names: Sequence[str], mended: list[str] | None):
        self.option_names = option_names
        self.problems: list[str] = []
        self.mendable = self.problems if mended is None else mended
        self._row_of: dict[str, int] = {}

    def read(self, number: int, row: Row) -> _Question:
        """The question of row `number` (the first is 1), mended where it is wrong."""
        id_ = cell_text(row.get("id"))
        where = f"row {number} (id {shown(id_) or 'empty'})"
        self.problems += [
            f"{where}: column {name} holds {wrong}, not a text"
            for name in ("id", "prompt", *self.option_names, "answer")
            if (wrong := not_a_text(row.get(name)))
        ]
        self._check_id(id_, number, where)
        prompt = cell_text(row.get("prompt"))
        if not prompt:
            self.mendable.append(f"{where}: the prompt is empty")
            prompt = "?"
        options = self._options(row, where)
        return _Question(id_, prompt, options, self._answer(row, options, where))

    def _check_id(self, id_: str, number: int, where: str) -> None:
        if not id_:
            self.problems.append(f"row {number}: the id is empty")
        elif "\0" in id_:
            self.problems.append(f"{where}: the id has a NUL character in it")
        elif id_ in self._row_of:
            self.problems.append(f"{where}: the id stands in row {self._row_of[id_]} already")
        self._row_of.setdefault(id_, number)

    def _options(self, row: Row, where: str) -> list[str]:
        """The options without the empty ones at the end; one in the middle stays, so that letters keep their place."""
        options = [cell_text(row.get(name)) for name in self.option_names]
        while options and not options[-1]:
            options.pop()
        if sum(option != "" for option in options) < MIN_OPTIONS:
            self.mendable.append(f"{where}: fewer than {MIN_OPTIONS} options are filled in")
            options = options or list(self.option_names)
        return options

    def _answer(self, row: Row, options: Sequence[str], where: str) -> int:
        """The index of the right option; -1 where the cell is empty or wrong."""
        answer = cell_text(row.get("answer"))
        if not answer:
            return -1
        try:
            index = letter_index(answer)
        except ValueError:
            self.mendable.append(f"{where}: the answer {shown(answer)!r} is not a letter from A to {LETTERS[-1]}")
            return -1
        if index < len(options) and options[index]:
            return index
        self.mendable.append(f"{where}: the answer is {letter(index)}, and that option is empty")
        return -1


# --- writing -------------------------------------------------------------------------------


def write_questions(path: Path, questions: Questions) -> None:
    """Write an exam as CSV, its extra columns at the end."""
    width = questions.max_options
    extra = list(questions.extra)
    write_csv(
        path,
        ["id", "prompt", *LETTERS[:width], "answer", *extra],
        (
            [
                questions.ids[row],
                questions.prompts[row],
                *(questions.options[row] + [""] * (width - len(questions.options[row]))),
                letter(questions.answers[row]) if questions.answers[row] >= 0 else "",
                *(questions.extra[name][row] for name in extra),
            ]
            for row in range(len(questions))
        ),
    )
