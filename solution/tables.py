"""Tables as files: CSV, JSON lines and parquet read to rows of cells, CSV written, and how messages show them.

Another form of table is a reader from bytes to names and rows, and a line of `_READERS`.
"""

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.files import atomic_file

Row = dict[str, Any]
"""A row's cells by the names of their columns; a missing cell is None or "", or is not there."""
_SHOWN_PROBLEMS = 8
# In this order: the marks of UTF-32 begin with those of UTF-16.
_OTHER_MARKS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"


# --- a file and its form -------------------------------------------------------------------


def file_format(path: Path) -> str:
    """The form of a file by its name: ".csv", ".jsonl" or ".parquet", with or without ".gz" behind it.

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


def read_rows(path: Path, what: str) -> tuple[list[str], list[Row]]:
    """Column names and rows of a CSV, JSONL or parquet file.

    Args:
        what: names the file in messages ("the question file").

    Raises:
        UserError: see `read_bytes`, `decode`; or the content is not of its format.
    """
    path = Path(path)
    read = _READERS[file_format(path)]
    return read(read_bytes(path, what), path, what)


# --- readers: one a form -------------------------------------------------------------------


def _parquet_rows(data: bytes, path: Path, what: str) -> tuple[list[str], list[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without threads: a process that ends right after it has used them was once seen to abort.
        with pq.ParquetFile(io.BytesIO(data)) as file:
            names = file.schema_arrow.names
            _refuse_repeated(names, f"{what}: {path}")
            return names, file.read(use_threads=False).to_pylist()
    # ValueError: a text that is not UTF-8; OverflowError: a date that Python does not have.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{what} is not a whole parquet file: {path} ({message})") from None


def _refuse_repeated(names: Sequence[str], source: str) -> None:
    repeated = _repeated(names)
    if repeated:
        raise UserError(f"{source} has the column {shown(repeated[0])!r} more than once")


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are distinct: of equal ones Python's reader keeps the last and says nothing."""
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"the key {shown(_repeated(name for name, _ in pairs)[0])!r} stands twice")
    return row


def _jsonl_rows(data: bytes, path: Path, what: str) -> tuple[list[str], list[Row]]:
    # Not splitlines: a JSON text may hold other characters that Python takes for the end of a line.
    lines = decode(data, path, what).split("\n")
    rows: list[Row] = []
    for number, row in json_objects(lines, f"{what}: {path}", strict=True):
        if "\\ud" in lines[number - 1].lower():
            try:
                json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise UserError(
                    f"{what}: {path}, line {number} has half of a character (a lone \\uD800 to \\uDFFF escape)"
                ) from None
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)  # a set that keeps the order
    return list(names), rows


def json_objects(lines: Iterable[str], source: str, strict: bool = False) -> Iterator[tuple[int, Row]]:
    """The objects of JSON lines, each with its line's number; blank lines are skipped.

    Args:
        source: begins the messages: the file and its path.
        strict: refuse an object in which a key stands twice.

    Raises:
        UserError: a line is not JSON, or no object.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_json_object if strict else None)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{source}, line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{source}, line {number} is not a JSON object")
        yield number, row


def _csv_rows(data: bytes, path: Path, what: str) -> tuple[list[str], list[Row]]:
    text = decode(data, path, what)
    if "\0" in text:
        raise UserError(f"{what}: {path} has a NUL byte in it; it is not a CSV text file")
    records = csv_records(io.StringIO(text, newline=""), f"{what}: {path}", 1 << 30)
    _, names = next(records, (0, []))
    return names, [dict(zip(names, cells, strict=True)) for _, cells in records]


def csv_records(lines: Iterable[str], source: str, longest: int) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file, each with the number of its last line: first the columns' names, then the rows.

    Args:
        lines: with their ends.
        source: begins the messages: the file and its path.
        longest: characters that a cell may have.

    Raises:
        UserError: not a CSV file with commas, a repeated column, or a row of more or fewer cells than columns.
    """
    csv.field_size_limit(longest)
    reader = csv.reader(lines, strict=True)
    names: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not names:
                cells = names = [cell.strip() for cell in cells]
                separator = next((mark for mark in (";", "\t") if len(names) == 1 and mark in names[0]), None)
                if separator:
                    raise UserError(
                        f"{source} parts its columns with {separator!r}; a CSV file here has commas. Save it with "
                        "commas, or as JSONL or parquet."
                    )
                _refuse_repeated(names, source)
            elif len(cells) != len(names):
                raise UserError(
                    f"{source}, line {reader.line_num}: {len(cells)} cells for {len(names)} columns "
                    "(a comma inside a text needs quotes around it)"
                )
            yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f"{source}, line {reader.line_num}: not a CSV file ({error})") from None


_READERS: dict[str, Callable[[bytes, Path, str], tuple[list[str], list[Row]]]] = {
    ".csv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".parquet": _parquet_rows,
}
FORMATS = tuple(_READERS)


# --- cells and columns ---------------------------------------------------------------------


def cell_text(value: Any) -> str:
    """A cell as stripped text; None and NaN are "" (but the words None and NaN in a text stay)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


def not_a_text(value: Any) -> str | None:
    """A name for what a cell holds in the place of a text; None where it holds a text, a number or nothing."""
    if isinstance(value, (list, dict, bytes)):
        return f"a {type(value).__name__}"
    # JSON's 1e400 is read as infinity too: the number that stood there is lost.
    return "a number without end" if isinstance(value, float) and math.isinf(value) else None


# --- in messages ---------------------------------------------------------------------------


def shown(text: str, most: int = 60) -> str:
    """A text of the user's file as a message holds it: of bounded length, what cannot be seen written as an escape."""
    text = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def listed(names: Sequence[str]) -> str:
    """The names of a file's columns, the first twelve, as a message holds them."""
    return ", ".join(map(shown, names[:12])) or "none"


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
    with atomic_file(Path(path)) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        plain = csv.writer(stream, lineterminator="\n")
        # Python before 3.13 leaves a carriage return without quotes, and it would read as the end of the row.
        quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in itertools.chain([header], rows):
            (quoted if any("\r" in cell for cell in row if isinstance(cell, str)) else plain).writerow(row)
