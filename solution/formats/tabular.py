"""Tables as programs write them: CSV with any separator, JSON in its shapes, parquet, Arrow, Excel."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.formats.items import Source, Table
from solution.tables import Row, cell_text, csv_records, decode, json_object, json_objects, refuse_repeated

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SEP_LINE = re.compile(r'\s*"?sep=(.)"?\r?[\n\r]', re.IGNORECASE)
_NAMELESS = re.compile(r"|Unnamed: \d+(_level_\d+)?|__index_level_\d+__")


def _tidied(names: Sequence[str], columns_of: Iterable[Sequence[Any]], form: str) -> Table:
    """A table without empty rows and without columns that have no name; the first such column becomes its index."""
    nameless = [place for place, name in enumerate(names) if _NAMELESS.fullmatch(name)]
    rows, index, dropped, filled = [], [], 0, set()
    for cells in columns_of:
        if not any(cell_text(cell) for place, cell in enumerate(cells) if place not in nameless):
            dropped += 1
            continue
        filled |= {place for place in nameless if cell_text(cells[place])}
        rows.append(dict(zip(names, cells, strict=True)))
        index.append(cells[nameless[0]] if nameless else None)
    # pandas writes the index first into CSV, last into parquet.
    is_index = bool(nameless) and nameless[0] in filled and (nameless[0] == 0 or names[nameless[0]].startswith("__"))
    kept = [name for place, name in enumerate(names) if place not in nameless]
    notes = []
    if dropped:
        notes.append(f"{dropped} empty row{'s' if dropped > 1 else ''} left out")
    others = len(nameless) - is_index
    if others:
        holds = "" if not filled - {nameless[0] if is_index else -1} else " (they hold something)"
        notes.append(f"{others} column{'s' if others > 1 else ''} without a name left out{holds}")
    rows = [{name: row[name] for name in kept if name in row} for row in rows] if nameless else rows
    return Table(kept, rows, form, notes, index if is_index else None)


# --- text ----------------------------------------------------------------------------------


def read_csv(data: bytes, source: Source) -> Table:
    """CSV: separated by commas, semicolons or tabs, as its first line shows, or says (`sep=;`)."""
    text = decode(data, str(source), source.encoding)
    if "\0" in text:
        raise UserError(f"{source} has a NUL byte in it; it is not a CSV text file")
    separator = None
    if said := _SEP_LINE.match(text):
        separator, text = said[1], "\n" + text[said.end() :]
    separator = separator or _separator(text)
    records = csv_records(io.StringIO(text, newline=""), str(source), 1 << 30, separator)
    _, names = next(records, (0, []))
    table = _tidied(names, (cells for _, cells in records), f"CSV with {_SEPARATORS.get(separator, repr(separator))}")
    return table


def _separator(text: str) -> str:
    """The mark that parts the first line into the most cells; a comma where none does."""
    head = re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0]

    def cells(mark: str) -> int:
        try:
            return len(next(csv.reader([head], delimiter=mark), []))
        except csv.Error:  # its reader tells of it
            return 0

    return max(_SEPARATORS, key=cells)


def headless(table: Table) -> list[list[str]]:
    """The cells of all rows of a CSV file, its first line being a row too."""
    return [list(table.names), *([cell_text(row.get(name)) for name in table.names] for row in table.rows)]


def read_json(data: bytes, source: Source) -> Table:
    """JSON lines, or one JSON value: a list of objects, an object of columns, or either within an object."""
    text = decode(data, str(source), source.encoding)
    start = text.lstrip()
    if not start.startswith("[") or _first_line_is_json(start):
        lines = text.split("\n")  # not splitlines: a JSON text may hold other characters that Python takes for ends
        if not start.startswith("{") or _first_line_is_json(start):
            rows = []
            for number, row in json_objects(lines, str(source), strict=True):
                _refuse_half_characters(lines[number - 1], row, f"{source}, line {number}")
                rows.append(row)
            # One object alone may hold the whole table.
            return _json_table(rows[0] if len(rows) == 1 else rows, source, "JSON lines")
    try:
        value = json.loads(text, object_pairs_hook=json_object)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not JSON ({error})") from None
    _refuse_half_characters(text, value, str(source))
    return _json_table(value, source, "JSON")


def _first_line_is_json(text: str) -> bool:
    """True where the first line is an object by itself, or a list that more lines follow."""
    line, _, rest = text.partition("\n")
    try:
        return not isinstance(json.loads(line), list) or bool(rest.strip())
    except (ValueError, RecursionError):
        return False


def _refuse_half_characters(text: str, value: Any, where: str) -> None:
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UserError(f"{where} has half of a character (a lone \\uD800 to \\uDFFF escape)") from None


def _json_table(value: Any, source: Source, form: str) -> Table:
    rows = _objects(value)
    if rows is None:
        raise UserError(f"{source} is JSON and no table: a list of objects, or an object of columns, was expected")
    names = list(dict.fromkeys(name for row in rows for name in row))  # a set that keeps the order
    # Not through lists of cells: a missing key is no empty cell, and there may be many names.
    table = Table(names, [row for row in rows if any(cell_text(cell) for cell in row.values())], form)
    if len(table.rows) < len(rows):
        table.notes.append(f"{len(rows) - len(table.rows)} empty rows left out")
    return table


_PROMPTS = {"prompt", "question", "query", "stem", "problem"}


def _objects(value: Any) -> list[Row] | None:
    """The rows of a JSON value; None where it is no table."""
    if isinstance(value, list):
        if not all(isinstance(row, dict) for row in value):
            return None
        # The viewer of the Hugging Face hub puts each row into an object of its own.
        return [row["row"] if isinstance(row.get("row"), dict) and "row_idx" in row else row for row in value]
    if not isinstance(value, dict):
        return None
    # pandas: orient="split".
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        cells = value["data"]
        if all(isinstance(row, list) and len(row) == len(value["columns"]) for row in cells):
            return [dict(zip(map(str, value["columns"]), row, strict=True)) for row in cells]
    inner = list(value.values())
    lists = [part for part in inner if isinstance(part, list) and part and all(isinstance(row, dict) for row in part)]
    named = {name.casefold() for name in value}
    if len(lists) == 1 and not named & _PROMPTS:
        return _objects(lists[0])
    if inner and all(isinstance(part, dict) for part in inner):
        if named & _PROMPTS:  # pandas' own form: an object of columns, each an object by row
            keys = list(dict.fromkeys(key for part in inner for key in part))
            return [{name: part.get(key) for name, part in value.items()} for key in keys]
        return [{"id": key, **part} for key, part in value.items()]
    if inner and named & _PROMPTS and all(isinstance(part, list) for part in inner) and len(set(map(len, inner))) == 1:
        return [dict(zip(value, row, strict=True)) for row in zip(*inner, strict=True)]
    return [value]


# --- binary --------------------------------------------------------------------------------


def _arrow_table(data: Any, form: str, source: Source) -> Table:
    names = data.column_names
    refuse_repeated(names, str(source))
    table = _tidied(names, zip(*(column.to_pylist() for column in data.columns), strict=True), form)
    return table


def read_parquet(data: bytes, source: Source) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without threads: a process that ends right after it has used them was once seen to abort.
        with pq.ParquetFile(io.BytesIO(data)) as file:
            return _arrow_table(file.read(use_threads=False), "parquet", source)
    # ValueError: a text that is not UTF-8; OverflowError: a date that Python does not have.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _broken("parquet", source, error) from None


def _broken(form: str, source: Source, error: Exception) -> UserError:
    message = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"{source.what} is not a whole {form} file: {source.path} ({message})")


def read_arrow(data: bytes, source: Source) -> Table:
    """An Arrow file or stream (Feather; a saved Hugging Face data set)."""
    import pyarrow as pa

    open_ = pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream
    try:
        with open_(pa.BufferReader(data)) as reader:
            return _arrow_table(reader.read_all(), "Arrow", source)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _broken("Arrow", source, error) from None


def read_excel(data: bytes, source: Source) -> Table:
    """The first sheet with cells of an Excel workbook; formulas give the values that were stored with them."""
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            f"{source} is an Excel file, which the package openpyxl reads: pip install openpyxl. Or save it as CSV."
        ) from None

    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        sheets = [(sheet.title, [list(row) for row in sheet.iter_rows(values_only=True)]) for sheet in book.worksheets]
    except Exception as error:  # noqa: BLE001 - of zipfile, XML and openpyxl itself: a damaged file has many faces
        raise _broken("Excel", source, error) from None
    full = [(title, rows) for title, rows in sheets if any(cell_text(cell) for row in rows for cell in row)]
    if not full:
        raise UserError(f"{source} has no cell with content")
    title, rows = full[0]
    rows = list(itertools.dropwhile(lambda row: not any(map(cell_text, row)), rows))
    width = max(map(len, rows))
    grid = [[*row, *[None] * (width - len(row))] for row in rows]
    names = [cell_text(cell) for cell in grid[0]]
    refuse_repeated(names, str(source))
    table = _tidied(names, grid[1:], "Excel")
    if len(full) > 1:
        table.notes.append(f"only the sheet {title!r} of {len(full)} is read")
    return table


# --- folders -------------------------------------------------------------------------------


def read_folder(path: Path, what: str) -> Table:
    """A folder of Arrow or parquet files with the same columns: a data set as Hugging Face's library saves it.

    Raises:
        UserError: no such files; a folder of several splits; files of different columns.
    """
    files = sorted(file for file in path.iterdir() if file.suffix in (".arrow", ".parquet"))
    splits = sorted(folder.name for folder in path.iterdir() if folder.is_dir() and any(folder.glob("*.arrow")))
    if not files:
        ways = f"; it has the splits {', '.join(splits)}: name one, as {path / splits[0]}" if splits else ""
        raise UserError(f"{what} is a folder, not a file, and has no Arrow or parquet files: {path}{ways}")
    readers: dict[str, Callable[[bytes, Source], Table]] = {".arrow": read_arrow, ".parquet": read_parquet}
    parts = [readers[file.suffix](file.read_bytes(), Source(file, what)) for file in files]
    first = parts[0]
    for file, part in zip(files, parts, strict=True):
        if part.names != first.names:
            raise UserError(f"{what}: {file} has other columns than {files[0].name}; name one file")
    rows = [row for part in parts for row in part.rows]
    return Table(first.names, rows, f"a folder of {len(files)} {first.form} file{'s' if len(files) > 1 else ''}")
