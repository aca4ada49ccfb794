"""Questions: reading, checking and writing them, letters <-> indices, ranked answers out."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from solution.errors import UserError
from solution.files import content_hash

LETTERS = "ABCDEFGH"
MIN_OPTIONS, MAX_OPTIONS = 2, len(LETTERS)
FORMATS = (".csv", ".jsonl", ".parquet")
_SHOWN_PROBLEMS = 8
# The marks of UTF-32 begin with those of UTF-16.
_OTHER_MARKS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"


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

    def subset(self, rows: Sequence[int] | np.ndarray) -> Questions:
        """The questions at these positions, in the order given (or where a bool array [n] is true)."""
        places = np.asarray(rows)
        rows = np.flatnonzero(places).tolist() if places.dtype == bool else [int(row) for row in rows]
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


def file_format(path: Path) -> str:
    """ ".csv", ".jsonl" or ".parquet" by the file's name, a trailing ".gz" set aside.

    Raises:
        UserError: another ending, or a folder.
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    ending = suffixes[-1] if suffixes else ""
    if ending not in FORMATS:
        if Path(path).is_dir():
            raise UserError(f"{path} is a folder; name a file ({', '.join(FORMATS)}, or one with .gz)")
        raise UserError(f"{path}: unknown file type {ending or '(none)'!r}; use {', '.join(FORMATS)}, or one with .gz")
    return ending


def shown(text: str, most: int = 60) -> str:
    """A text of the user's file as a message holds it: of bounded length, what cannot be seen written as an escape."""
    text = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:12])) or "none"


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of a file, gunzipped when its name ends in .gz.

    Raises:
        UserError: missing, a folder, a pipe or device, empty, not readable or a truncated gzip.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise UserError(f"{what} not found: {path}")
        if path.is_dir():
            raise UserError(f"{what} is a folder, not a file: {path}")
        if not path.is_file():  # reading one may wait for ever, or never end
            raise UserError(f"{what} is a pipe or a device, not a file: {path}")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{what} cannot be read: {path} ({error.strerror})") from None
    if path.suffix.lower() == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise UserError(f"{what} is not a whole gzip file: {path} ({error}). Fetch or make it again.") from None
    if not data.strip():
        raise UserError(f"{what} is empty: {path}")
    return data


def decode(data: bytes, path: Path, what: str) -> str:
    """UTF-8 text (a byte-order mark is dropped).

    Raises:
        UserError: the bytes are not UTF-8; names the line.
    """
    for name, marks in _OTHER_MARKS.items():
        if data.startswith(marks):
            raise UserError(f"{what} is not UTF-8 but {name.upper()}: {path}. Save it as UTF-8 (iconv -f {name}).")
    if data.startswith(_GZIP):
        again = "gzipped twice" if path.suffix.lower() == ".gz" else "gzipped, and its name does not end in .gz"
        raise UserError(f"{what} is {again}: {path}. Gunzip it once.")
    if data.startswith(_ZIP):
        raise UserError(f"{what} is a zip archive or an Excel file: {path}. Unpack it, or save it as CSV.")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{what} is not UTF-8: {path}, line {line}, byte 0x{data[error.start]:02x}. "
            "Save it as UTF-8 (for example: iconv -f latin1 -t utf-8)."
        ) from None


def read_rows(path: Path, what: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Column names and rows of a CSV, JSONL or parquet file (missing cells are None or "").

    Raises:
        UserError: see `read_bytes`, `decode`; or the content is not of its format.
    """
    path = Path(path)
    ending = file_format(path)
    data = read_bytes(path, what)
    if ending == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # Without threads: a process that ends right after it has used them was once seen to abort.
            with pq.ParquetFile(io.BytesIO(data)) as file:
                names = file.schema_arrow.names
                _refuse_repeated(names, path, what)
                return names, file.read(use_threads=False).to_pylist()
        # ValueError: a text that is not UTF-8; OverflowError: a date that Python does not have.
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            message = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{what} is not a whole parquet file: {path} ({message})") from None
    text = decode(data, path, what)
    if ending == ".jsonl":
        return _jsonl_rows(text, path, what)
    return _csv_rows(text, path, what)


def _refuse_repeated(names: Sequence[str], path: Path, what: str) -> None:
    repeated = _repeated(names)
    if repeated:
        raise UserError(f"{what}: {path} has the column {shown(repeated[0])!r} more than once")


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are distinct: of equal ones Python's reader keeps the last and says nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key {shown(_repeated(name for name, _ in pairs)[0])!r} stands twice")
    return found


def _jsonl_rows(text: str, path: Path, what: str) -> tuple[list[str], list[dict[str, Any]]]:
    names: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_json_object)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{what}: {path}, line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{what}: {path}, line {number} is not a JSON object")
        if "\\ud" in line.lower():
            try:
                json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise UserError(
                    f"{what}: {path}, line {number} has half of a character (a lone \\uD800 to \\uDFFF escape)"
                ) from None
        names.update(dict.fromkeys(row))
        rows.append(row)
    return list(names), rows


def _csv_rows(text: str, path: Path, what: str) -> tuple[list[str], list[dict[str, Any]]]:
    if "\0" in text:
        raise UserError(f"{what}: {path} has a NUL byte in it; it is not a CSV text file")
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[dict[str, Any]] = []
    names: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if names is None:
                names = [cell.strip() for cell in cells]
                wrong = next((mark for mark in (";", "\t") if len(names) == 1 and mark in names[0]), None)
                if wrong:
                    raise UserError(
                        f"{what}: {path} parts its columns with {wrong!r}; a CSV file here has commas. Save it with "
                        "commas, or as JSONL or parquet."
                    )
                _refuse_repeated(names, path, what)
                continue
            if len(cells) != len(names):
                raise UserError(
                    f"{what}: {path}, line {reader.line_num}: {len(cells)} cells for {len(names)} columns "
                    "(a comma inside a text needs quotes around it)"
                )
            rows.append(dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise UserError(f"{what}: {path}, line {reader.line_num}: not a CSV file ({error})") from None
    return names or [], rows


def cell_text(value: Any) -> str:
    """A cell as stripped text; None and NaN are "" (but the words None and NaN in a text stay)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


def _no_text(value: Any) -> str | None:
    """What a cell holds in the place of a text; None where it is a text, a number or nothing."""
    if isinstance(value, (list, dict, bytes)):
        return f"a {type(value).__name__}"
    # JSON's 1e400 is one too: what stood there is lost.
    return "a number without end" if isinstance(value, float) and math.isinf(value) else None


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
    names, rows = read_rows(path, "the question file")
    option_names = [name for name in LETTERS if name in names]
    missing = [name for name in ("id", "prompt", "A", "B") if name not in names]
    if missing:
        raise UserError(
            f"{path}: column{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing; "
            f"it has {_listed(names)}. A question file has the columns id,prompt,A,B,...,answer."
        )
    if option_names != list(LETTERS[: len(option_names)]):
        gap = next(name for name in LETTERS if name not in option_names)
        raise UserError(f"{path}: option column {gap} missing while {option_names[-1]} is there")
    if len(option_names) == MAX_OPTIONS and "I" in names:
        raise UserError(f"{path} has an option column I: a question has at most {MAX_OPTIONS} options, A to H")
    if not rows:
        raise UserError(f"{path} has a header and no question")
    extra_names = [name for name in names if name not in ("id", "prompt", "answer", *option_names)]
    questions = Questions([], [], [], np.full(len(rows), -1, dtype=np.int64), {name: [] for name in extra_names})
    problems: list[str] = []
    harmless = problems if mended is None else mended
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        id_, prompt = cell_text(row.get("id")), cell_text(row.get("prompt"))
        options = [cell_text(row.get(name)) for name in option_names]
        while options and not options[-1]:
            options.pop()
        where = f"row {number} (id {shown(id_) or 'empty'})"
        problems += [
            f"{where}: column {name} holds {wrong}, not a text"
            for name in ("id", "prompt", *option_names, "answer")
            if (wrong := _no_text(row.get(name)))
        ]
        if not id_:
            problems.append(f"row {number}: the id is empty")
        elif "\0" in id_:
            problems.append(f"{where}: the id has a NUL character in it")
        elif id_ in seen:
            problems.append(f"{where}: the id stands in row {seen[id_]} already")
        seen.setdefault(id_, number)
        if not prompt:
            harmless.append(f"{where}: the prompt is empty")
            prompt = "?"
        if sum(option != "" for option in options) < MIN_OPTIONS:
            harmless.append(f"{where}: fewer than {MIN_OPTIONS} options are filled in")
            options = options or list(option_names)
        answer = cell_text(row.get("answer"))
        if answer:
            try:
                index = letter_index(answer)
            except ValueError:
                harmless.append(f"{where}: the answer {shown(answer)!r} is not a letter from A to {LETTERS[-1]}")
            else:
                if index < len(options) and options[index]:
                    questions.answers[number - 1] = index
                else:
                    harmless.append(f"{where}: the answer is {letter(index)}, and that option is empty")
        questions.ids.append(id_)
        questions.prompts.append(prompt)
        questions.options.append(options)
        for name in extra_names:
            questions.extra[name].append(row.get(name))
    if problems:
        # Messages on a file's form count its lines; a question may take several, and parquet has none.
        raise UserError(summary(f"{path} is not usable (row 1 is the first question, below the header)", problems))
    return questions


def repeated_options(questions: Questions) -> list[str]:
    """The ids of the questions of which two options are the same text."""
    there = [[option for option in options if option] for options in questions.options]
    return [id_ for id_, options in zip(questions.ids, there, strict=True) if len(set(options)) < len(options)]


def summary(title: str, problems: Sequence[str]) -> str:
    """A message that names the first of several problems, and how many there are."""
    lines = [f"{title}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
    lines += [f"  - {problem}" for problem in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"  - ... and {len(problems) - _SHOWN_PROBLEMS} more")
    return "\n".join(lines)


# --- writing -------------------------------------------------------------------------------


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV whole or not at all."""
    from solution.files import atomic_file

    with atomic_file(Path(path)) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        plain = csv.writer(stream, lineterminator="\n")
        # Python before 3.13 leaves a carriage return without quotes, and it would read as the end of the row.
        quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in itertools.chain([header], rows):
            (quoted if any("\r" in cell for cell in row if isinstance(cell, str)) else plain).writerow(row)


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
