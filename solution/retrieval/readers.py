"""The formats of a corpus, each read as a stream of rows. Memory: one row, or one block of a text file."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from solution.errors import UserError
from solution.tables import csv_records, json_objects, listed

TEXT_COLUMNS = ("text", "passage", "content", "extract")
Kind = Literal["csv", "jsonl", "parquet", "cirrus", "text"]
_NAMED: dict[str, Kind] = {
    ".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet", ".txt": "text", ".md": "text", ".markdown": "text",
}  # fmt: skip
_ROWS_AT_ONCE = 64
_HEAD = 1 << 16
_LONGEST_LINE = 1 << 25  # bytes; a file without line ends must not fill the memory
_BLOCK = 1 << 18  # characters of a text file that become one document
_REMEDY = "Fetch or make it again."


@dataclass(frozen=True)
class Row:
    """A row of a corpus file.

    Attributes:
        where: its place in the file ("line 7").
        cells: `text` (or another of `TEXT_COLUMNS`) and what else is known of `id`, `title`, `section`, `url`;
            from a CirrusSearch dump also `namespace`, `category` and `template`.
        is_article: of an encyclopedia, whatever its cells say.
    """

    path: Path
    where: str
    cells: Mapping[str, Any]
    is_article: bool = False


class NoTextColumn(UserError):
    """A table has no column of texts."""


def text_column(cells: Mapping[str, Any], where: str) -> str:
    """The name of the cell that holds the text.

    Raises:
        NoTextColumn: there is none.
    """
    for name in TEXT_COLUMNS:
        if name in cells:
            return name
    raise NoTextColumn(f"the corpus {where}: no column {' or '.join(TEXT_COLUMNS)}; it has {listed(list(cells))}")


# --- which format --------------------------------------------------------------------------


def _ending(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".bz2"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def file_kind(path: Path) -> Kind | None:
    """The format of a file: by its first bytes, where they do not tell by the ending of its name; None: unknown.

    Raises:
        UserError: empty, or WikiExtractor's output without `--json`.
    """
    named = _NAMED.get(_ending(path))
    if named == "text":
        return named
    if path.stat().st_size == 0:
        raise UserError(f"the corpus is empty: {path}")
    try:
        with _open(path) as stream:
            head = stream.read1(_HEAD)  # type: ignore[attr-defined]
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return named or "jsonl"  # a broken gzip: its reader tells of it
    if head.startswith(b"PAR1"):
        return "parquet"
    head = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(b"{") and named != "csv":
        try:
            return "cirrus" if _is_action(json.loads(head.partition(b"\n")[0])) else "jsonl"
        except (ValueError, RecursionError):
            return "jsonl"
    if head.startswith(b"<doc "):
        raise UserError(f"the corpus {path} is WikiExtractor's output of <doc> elements; run WikiExtractor with --json")
    return named


def read_rows(path: Path, kind: Kind, name: str) -> Iterator[Row]:
    """The rows of a file in order.

    Args:
        name: of the file in the corpus: a text file's id.

    Raises:
        UserError: while reading: not UTF-8, a broken gzip, bzip2 or parquet file, a broken row, a line of more than
            32 MiB, no text column in the head of a table; the message names the line.
    """
    if kind == "text":
        return _text_rows(path, name)
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        "csv": _csv_rows,
        "jsonl": _jsonl_rows,
        "parquet": _parquet_rows,
        "cirrus": _cirrus_rows,
    }
    return readers[kind](path)


# --- lines ---------------------------------------------------------------------------------


def _open(path: Path) -> BinaryIO:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return bz2.open(path, "rb") if suffix == ".bz2" else open(path, "rb")  # type: ignore[return-value]


def _broken(path: Path, after: str, error: Exception) -> UserError:
    """The error for a gzip or bzip2 file that is cut or damaged; an error of the system is raised again as it is."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    packing = "bzip2" if path.suffix.lower() == ".bz2" else "gzip"
    return UserError(f"the corpus is not a whole {packing} file: {path}{after} ({error}). {_REMEDY}")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends; a newline byte is never part of another UTF-8 character."""
    number = 0
    try:
        with _open(path) as stream:
            while line := stream.readline(_LONGEST_LINE + 1):
                number += 1
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if len(line) > _LONGEST_LINE:
                    raise UserError(f"the corpus {path}, line {number} is longer than {_LONGEST_LINE >> 20} MiB")
                if b"\0" in line:
                    raise UserError(f"the corpus {path}, line {number} has a NUL byte in it; it is not a text file")
                yield line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the corpus is not UTF-8: {path}, line {number}, byte 0x{error.object[error.start]:02x}. "
            "Save it as UTF-8 (for example: iconv -f latin1 -t utf-8)."
        ) from None
    except (EOFError, zlib.error, OSError) as error:
        raise _broken(path, f", after line {number}", error) from None


# --- tables --------------------------------------------------------------------------------


def _csv_rows(path: Path) -> Iterator[Row]:
    records = csv_records(_lines(path), f"the corpus {path}", _LONGEST_LINE)
    header = next(records, None)
    if header is None:
        return
    line, names = header
    text_column(dict.fromkeys(names), f"{path}, line {line}")
    for line, cells in records:
        yield Row(path, f"line {line}", dict(zip(names, cells, strict=True)))


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file of lines, with the lines' numbers; empty lines are skipped."""
    return json_objects(_lines(path), f"the corpus {path}")


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, row in _objects(path):
        yield Row(path, f"line {number}", row)


def _is_action(row: Any) -> bool:
    """Whether this is a line of an Elasticsearch bulk file that tells the id of the document in the next one."""
    return isinstance(row, dict) and list(row) == ["index"] and isinstance(row["index"], dict) and "_id" in row["index"]


def _cirrus_rows(path: Path) -> Iterator[Row]:
    """A CirrusSearch dump: pairs of an action line and a document line. Headings are no part of its texts."""
    action: tuple[int, str] | None = None
    for number, row in _objects(path):
        if action is None:
            if not _is_action(row):
                raise UserError(
                    f'the corpus {path}, line {number}: an action line ({{"index": {{"_id": ...}}}}) was expected; '
                    "in a CirrusSearch dump one stands before each document"
                )
            action = (number, str(row["index"]["_id"]))
            continue
        names = ("title", "text", "namespace", "category", "template")
        cells = {"text": "", **{name: row[name] for name in names if name in row}, "id": action[1]}
        yield Row(path, f"line {number}", cells, is_article=True)
        action = None
    if action is not None:
        raise UserError(f"the corpus {path} ends after the action line {action[0]}, without its document. {_REMEDY}")


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with tempfile.TemporaryFile() as unpacked:
            source: Any = path
            if path.suffix.lower() in (".gz", ".bz2"):
                with _open(path) as stream:
                    shutil.copyfileobj(stream, unpacked)
                source = unpacked
            # Without these two the compressed columns of a row group are read as a whole.
            with pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20) as file:
                names = file.schema_arrow.names
                text = text_column(dict.fromkeys(names), str(path))
                columns = [name for name in (text, "title", "section", "id", "url") if name in names]
                number = 0
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
                    for row in batch.to_pylist():
                        number += 1
                        yield Row(path, f"row {number}", row)
    # ValueError: a text that is not UTF-8; OverflowError: a date that Python does not have.
    except (pa.ArrowException, ValueError, OverflowError) as error:
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the corpus is not a whole parquet file: {path} ({message}). {_REMEDY}") from None
    except (EOFError, zlib.error, OSError) as error:
        if path.suffix.lower() in (".gz", ".bz2"):
            raise _broken(path, "", error) from None
        raise UserError(f"the corpus is not a whole parquet file: {path} ({error}). {_REMEDY}") from None


# --- text files ----------------------------------------------------------------------------

_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_IMAGE_OR_LINK = re.compile(r"!?\[([^\]\[]*)\]\([^()\s]*(?:\s+\"[^\"]*\")?\)")
_COMMENT = re.compile(r"<!--.*?-->", re.S)


def _text_rows(path: Path, name: str) -> Iterator[Row]:
    """A text file, or the sections of a Markdown file. The title is a Markdown file's first heading, else its name.

    Blocks of more than `_BLOCK` characters are cut at the next empty line (or at a line's end after as many again).
    """
    is_markdown = _ending(path) != ".txt"
    title = Path(name.removesuffix(path.suffix) if _ending(path) != path.suffix.lower() else name).stem
    headings: list[tuple[int, str]] = []
    titled = in_fence = False
    lines: list[str] = []
    size = written = number = 0

    def block() -> Iterator[Row]:
        nonlocal size, written
        text = "".join(lines).strip()
        lines.clear()
        size = 0
        if text:
            if is_markdown:
                text = _IMAGE_OR_LINK.sub(r"\1", _COMMENT.sub("", text))
            path_of_headings = [heading for _, heading in headings if heading != title]
            cells = {"id": f"{name}/{written}" if written else name, "title": title, "text": text}
            yield Row(path, f"before line {number}", {**cells, "section": " > ".join(path_of_headings)})
            written += 1

    for line in _lines(path):
        number += 1
        if is_markdown:
            in_fence ^= bool(_FENCE.match(line))
            heading = None if in_fence else _HEADING.match(line)
            if heading and heading[2]:
                if not titled:
                    title, titled = heading[2], True
                yield from block()
                level = len(heading[1])
                headings = [(other, text) for other, text in headings if other < level] + [(level, heading[2])]
                continue
        if size > _BLOCK and (not line.strip() or size > 2 * _BLOCK):
            yield from block()
        lines.append(line)
        size += len(line)
    yield from block()
