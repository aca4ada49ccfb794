"""What all tables share: bytes and text of a file, CSV records and JSON objects, cells, how messages show them.

The forms of tables that are read are modules of `formats`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import json
import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from solution.encodings import text_codec
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
FORMATS = (".csv", ".jsonl", ".parquet")
"""The endings of the tables that are written."""
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
            data = _gunzipped(data, f"{what}: {path}")
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise UserError(f"{what} is not a whole gzip file: {path} ({error}). Fetch or make it again.") from None
    if not data.strip():
        raise UserError(f"{what} is empty: {path}")
    return data


_LARGE = 1 << 28
_MOST_TIMES = 200  # text is packed to a twentieth at best


def _gunzipped(data: bytes, source: str) -> bytes:
    most = max(_LARGE, _MOST_TIMES * len(data))
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        text = stream.read(most + 1)
    if len(text) > most:
        raise UserError(f"{source} unpacks to more than {most >> 20} MiB, {_MOST_TIMES} times its size: it is no text")
    return text


def refuse_large(members: Iterable[zipfile.ZipInfo], source: object) -> None:
    """Raise `UserError` where the files of a zip archive are many times as large as what they are packed to."""
    members = list(members)
    size, packed = (sum(getattr(member, name) for member in members) for name in ("file_size", "compress_size"))
    if size > max(_LARGE, _MOST_TIMES * packed):
        raise UserError(f"{source} unpacks to {size >> 20} MiB, more than {_MOST_TIMES} times its size: it is no text")


def decode(data: bytes, source: str, encoding: str | None = None) -> str:
    """The text of a file: UTF-8, or UTF-16 and UTF-32 with their byte-order mark (which is dropped).

    Args:
        source: begins the messages: the file and its path.
        encoding: of the text, where the user has named it.

    Raises:
        UserError: gzip or a zip archive; bytes that are not of the encoding: names the line.
    """
    if data.startswith(_GZIP):
        again = "gzipped twice" if ".gz" in source.lower() else "gzipped, and its name does not end in .gz"
        raise UserError(f"{source} is {again}. Gunzip it once.")
    if data.startswith(_ZIP):
        raise UserError(f"{source} is a zip archive or an Excel file. Unpack it, or let its name end in .xlsx or .zip.")
    if encoding is None:
        encoding = marked_encoding(data) or "utf-8-sig"
    elif text_codec(encoding) is None:
        raise UserError(f"--encoding {encoding}: Python knows no such encoding of texts (utf-8, utf-16, cp1252, ...)")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        # `object` is what was decoded: without the mark of UTF-8.
        line = error.object[: error.start].count(b"\n") + 1
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise UserError(
            f"{source} is not {name}: line {line}, byte 0x{error.object[error.start]:02x}. "
            + (encoding_advice(data) if encoding == "utf-8-sig" else "Name another --encoding.")
        ) from None


_WESTERN = ("cp1252", "mac_roman", "cp1250")
_OTHER_ENCODINGS = ("cp1251", "koi8_r", "cp1253", "gb18030", "big5", "cp932", "euc_jp", "cp949")
_TITLES = {"cp1252": "Windows-1252", "mac_roman": "Mac Roman"}


def marked_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32, where a byte-order mark says so."""
    return next((name for name, marks in _OTHER_MARKS.items() if data.startswith(marks)), None)


def encoding_advice(data: bytes, option: str = "--encoding ") -> str:
    """The likely encodings of a text that is not UTF-8, with a line as it would read in each.

    Args:
        option: what the user writes in front of the encoding's name.
    """
    from charset_normalizer import from_bytes

    if b"\0" in data[:4]:
        name = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
        return f"It looks like UTF-16 without a byte-order mark: {option}{name} reads it."
    # Only what tells them apart: the lines that are not UTF-8.
    lines = [line for line in re.split(rb"[\r\n]+", data) if not _is_utf8(line)]
    sample = b"\n".join(lines[:2000])
    # Texts of Latin letters have few bytes beyond ASCII, others mostly such.
    is_western = sum(byte > 127 for byte in sample) < len(sample) / 5
    names = list(_WESTERN) if is_western else [*_WESTERN, *_OTHER_ENCODINGS]
    likely = [match.encoding for match in from_bytes(sample, cp_isolation=names, threshold=1.0)]
    # Of encodings that read the same the usual one is named.
    reads = {name: sample.decode(name, "replace") for name in names}
    likely = [next(other for other in names if reads[other] == reads[name]) for name in [*likely, names[0]]]
    shortest = min(lines, key=len)
    shows = [
        f"as {_TITLES.get(name, name)} a line reads {shown(shortest.decode(name, 'replace').strip(), 100)!r} "
        f"({option}{name})"
        for name in dict.fromkeys(likely)
    ]
    return "It may be of another encoding: " + "; ".join(shows[:2]) + ". Choose the one that reads right."


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


# --- records of CSV, objects of JSON --------------------------------------------------------


def refuse_repeated(names: Sequence[str], source: str) -> None:
    """Raise `UserError` where a name stands twice; columns without a name are no columns."""
    repeated = _repeated(name for name in names if name)
    if repeated:
        raise UserError(f"{source} has the column {shown(repeated[0])!r} more than once")


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are distinct: of equal ones Python's reader keeps the last and says nothing."""
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"the key {shown(_repeated(name for name, _ in pairs)[0])!r} stands twice")
    return row


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
            row = json.loads(line, object_pairs_hook=json_object if strict else None)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{source}, line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{source}, line {number} is not a JSON object")
        yield number, row


def csv_records(
    lines: Iterable[str], source: str, longest: int, separator: str | None = None, skips_spaces: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file, each with the number of its last line: first the columns' names, then the rows.

    Args:
        lines: with their ends.
        source: begins the messages: the file and its path.
        longest: characters that a cell may have.
        separator: between the cells. None: a comma; where there seems to be another one, the file is refused.
        skips_spaces: spaces behind a separator are no part of a cell, and a quote behind them opens it.

    Empty cells behind the last column are dropped, and a row without any text has an empty cell a column.

    Raises:
        UserError: not a CSV file with this separator, a repeated column, or a row of more or fewer cells than columns.
    """
    csv.field_size_limit(longest)
    reader = csv.reader(lines, strict=True, delimiter=separator or ",", skipinitialspace=skips_spaces)
    names: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not names:
                cells = names = [cell.strip() for cell in cells]
                other = next((mark for mark in (";", "\t") if len(names) == 1 and mark in names[0]), None)
                if other and separator is None:
                    raise UserError(
                        f"{source} parts its columns with {other!r}; a CSV file here has commas. Save it with "
                        "commas, or as JSONL or parquet."
                    )
                refuse_repeated(names, source)
            elif not any(cell.strip() for cell in cells):
                cells = [""] * len(names)
            elif len(cells) > len(names) and not any(cell.strip() for cell in cells[len(names) :]):
                cells = cells[: len(names)]
            elif len(cells) != len(names):
                raise UserError(
                    f"{source}, line {reader.line_num}: {len(cells)} cells for {len(names)} columns "
                    "(a comma inside a text needs quotes around it)"
                )
            yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f"{source}, line {reader.line_num}: not a CSV file ({shown(str(error), 200)})") from None


# --- cells and columns ---------------------------------------------------------------------


def cell_text(value: Any) -> str:
    """A cell as stripped text; None and NaN are "" (but the words None and NaN in a text stay)."""
    if isinstance(value, str):  # first: a large exam has millions of them
        return value.strip()
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
