"""Tables as programs write them: CSV with any separator, JSON in its shapes, parquet, Arrow, Excel."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.formats.items import LETTERS, Source, Table
from solution.formats.names import LISTS, PROMPTS, SURE_PROMPTS, are_of_question, key_of
from solution.tables import (
    Row,
    cell_text,
    csv_records,
    decode,
    json_object,
    json_objects,
    listed,
    read_bytes,
    refuse_large,
    refuse_repeated,
)

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SEP_LINE = re.compile(r'\s*"?sep=(.)"?\r?[\n\r]', re.IGNORECASE)
_MOST_COLUMNS = 1000
_MOST_TITLES = 30  # rows above the names of the columns
_NAMELESS = re.compile(r"|Unnamed: \d+(_level_\d+)?|__index_level_\d+__")


def _tidied(names: Sequence[str], columns_of: Iterable[Sequence[Any]], form: str) -> Table:
    """A table without empty rows and without columns that have no name; the first such column becomes its index."""
    nameless = [place for place, name in enumerate(names) if _NAMELESS.fullmatch(name)]
    without_name = set(nameless)  # a line of a million commas has as many
    rows, index, dropped, filled = [], [], 0, set()
    for cells in columns_of:
        if not any(cell_text(cell) for place, cell in enumerate(cells) if place not in without_name):
            dropped += 1
            continue
        filled |= {place for place in nameless if cell_text(cells[place])}
        rows.append(dict(zip(names, cells, strict=True)))
        index.append(cells[nameless[0]] if nameless else None)
    # pandas writes the index first into CSV, last into parquet.
    is_index = bool(nameless) and nameless[0] in filled and (nameless[0] == 0 or names[nameless[0]].startswith("__"))
    kept = [name for place, name in enumerate(names) if place not in without_name]
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
    separator = separator or likely_separator(re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0])
    form = f"CSV with {_SEPARATORS.get(separator, repr(separator))}"
    # Written by hand: `Which gas?, "argon, dry", "helium"`. Where that does not fit, a quote is a character.
    for skips in (True, False) if re.search(re.escape(separator) + ' +"', text) else (False,):
        try:
            records = csv_records(io.StringIO(text, newline=""), str(source), 1 << 30, separator, skips)
            _, names = next(records, (0, []))
            return _tidied(names, (cells for _, cells in records), form)
        except UserError:
            if not skips:
                raise
    raise AssertionError("unreachable")


def likely_separator(head: str) -> str:
    """The mark that parts a table's first line into the most cells; a comma where none does."""

    def cells(mark: str) -> int:
        try:
            return len(next(csv.reader([head], delimiter=mark), []))
        except csv.Error:  # its reader tells of it
            return 0

    return max(_SEPARATORS, key=cells)


def names_columns(text: str) -> bool:
    """Whether a text begins with a line of column names, a question's among them."""
    head = re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0]
    cells = [key_of(cell) for cell in head.split(likely_separator(head))]
    return len(cells) > 1 and any(cell in PROMPTS for cell in cells)


def headless(table: Table) -> list[list[str]]:
    """The cells of all rows of a CSV file, its first line being a row too."""
    return [list(table.names), *([cell_text(row.get(name)) for name in table.names] for row in table.rows)]


def mmlu_rows(grid: Sequence[Sequence[str]]) -> list[Row] | None:
    """The rows of a table without a header in the form of MMLU: question, options, and the letter of the right one.

    None where it has another form. A question is a sentence: a file of ids, prompts, options and letters is none.
    """
    width = len(grid[0]) if grid else 0
    letters = LETTERS[: width - 2]
    if not 4 <= width <= len(LETTERS) + 2 or any(len(row) != width or row[-1].strip() not in letters for row in grid):
        return None
    if sum(map(_is_sentence, [row[0] for row in grid])) < len(grid) * 0.9 or not all(grid[0]):
        return None
    names = ["prompt", *letters, "answer"]
    return [dict(zip(names, row, strict=True)) for row in grid]


def _is_sentence(text: str) -> bool:
    """Three words, or as much in a script that writes no spaces."""
    return bool(re.search(r"\S\s+\S+\s+\S", text)) or sum(character > "\u2e7f" for character in text) >= 6


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
    inner = list(_questions_within(value)) if not rows or not any(map(_is_question, rows[:100])) else []
    if not inner and isinstance(value, dict):
        inner = list(_questions_within(value))
    parts: list[str] = []
    if len(inner) > len(rows or []) or (inner and rows and not any(map(_is_question, rows[:100]))):
        rows = inner
        parts = list(dict.fromkeys(str(row["section"]) for row in rows if row.get("section")))
    if rows is None:
        raise UserError(f"{source} is JSON and no table: a list of objects, or an object of columns, was expected")
    names = list(dict.fromkeys(name for row in rows for name in row))  # a set that keeps the order
    # Not through lists of cells: a missing key is no empty cell, and there may be many names.
    table = Table(names, [row for row in rows if any(cell_text(cell) for cell in row.values())], form)
    if len(table.rows) < len(rows):
        table.notes.append(f"{len(rows) - len(table.rows)} empty rows left out")
    if len(parts) > 1:
        table.notes.append(f"the questions of {len(parts)} parts are read ({listed(parts)})")
    return table


def _is_question(row: Row) -> bool:
    if are_of_question(list(row)):
        return True
    # ARC, CommonsenseQA: the question is an object that holds the options.
    nested = [part for name, part in row.items() if isinstance(part, dict) and key_of(name) in PROMPTS]
    return any(not {*map(key_of, part)}.isdisjoint(LISTS) for part in nested)


_TITLES = ("name", "title", "category", "topic", "subject", "chapter", "section")


def _questions_within(value: Any, path: tuple[str, ...] = ()) -> Iterator[Row]:
    """The questions anywhere within a JSON value, with the names of the parts around them as `section`."""
    if isinstance(value, list):
        for part in value:
            yield from _questions_within(part, path)
    elif isinstance(value, dict):
        if _is_question(value):
            yield {**value, "section": " / ".join(path)} if path and "section" not in value else value
            return
        title = next((value[key] for key in _TITLES if isinstance(value.get(key), str)), None)
        inner = {key: part for key, part in value.items() if isinstance(part, (dict, list))}
        for key, part in inner.items():
            names = (*path, *([title] if title else [key] if len(inner) > 1 else []))
            if isinstance(part, dict) and _is_question(part):
                names, part = path, {"id": key, **part}
            yield from _questions_within(part, names)


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
    named = {key_of(name) for name in value} & SURE_PROMPTS
    if len(lists) == 1 and not named:
        return _objects(lists[0])
    if inner and all(isinstance(part, dict) for part in inner):
        if named:  # pandas' own form: an object of columns, each an object by row
            keys = list(dict.fromkeys(key for part in inner for key in part))
            return [{name: part.get(key) for name, part in value.items()} for key in keys]
        return [{"id": key, **part} for key, part in value.items()]
    if inner and named and all(isinstance(part, list) for part in inner) and len(set(map(len, inner))) == 1:
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
            table = reader.read_all()
            table.validate(full=True)  # places of texts are taken on trust, and a damaged file would crash Python
            return _arrow_table(table, "Arrow", source)
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
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            refuse_large(archive.infolist(), source)
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        sheets = [(sheet.title, _sheet_rows(sheet)) for sheet in book.worksheets]
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - of zipfile, XML and openpyxl itself: a damaged file has many faces
        raise _broken("Excel", source, error) from None
    full = [(title, *read) for title, read in sheets if read[0]]
    if not full:
        raise UserError(f"{source} has no cell with content")
    title, rows, empty = full[0]
    # Titles and hints may stand above the names of the columns (Kahoot's template).
    texts = [[cell_text(cell) for cell in row] for row in rows[:_MOST_TITLES]]
    above = 0 if are_of_question(texts[0]) else next((i for i, row in enumerate(texts) if are_of_question(row)), 0)
    rows = rows[above:]
    width = max(map(len, rows))
    if width > _MOST_COLUMNS:
        raise UserError(
            f"{source} has a cell in column {width} of the sheet {title!r}; at most {_MOST_COLUMNS} columns are read. "
            "Delete what stands far to the right of the questions."
        )
    grid = [[*row, *[None] * (width - len(row))] for row in rows]
    names = [cell_text(cell) for cell in grid[0]]
    refuse_repeated(names, str(source))
    table = _tidied(names, grid[1:], "Excel")
    if empty:
        table.notes.append(f"{empty} empty row{'s' if empty > 1 else ''} left out")
    if above:
        table.notes.append(f"{above} row{'s' if above > 1 else ''} above the names of the columns left out")
    if len(full) > 1:
        table.notes.append(f"only the sheet {title!r} of {len(full)} is read")
    return table


def _sheet_rows(sheet: Any) -> tuple[list[list[Any]], int]:
    """The rows of a sheet that have content, without the empty cells at their ends, and the number of others between.

    A cell far below or far to the right makes no cells between.
    """
    sheet.reset_dimensions()
    rows: list[list[Any]] = []
    empty = behind = 0
    for cells in sheet.iter_rows(values_only=True):
        last = next((place for place in range(len(cells), 0, -1) if cell_text(cells[place - 1])), 0)
        if last:
            rows.append(list(cells[:last]))
            empty, behind = empty + behind, 0
        elif rows:
            behind += 1
    return rows, empty


# --- folders -------------------------------------------------------------------------------


def read_folder(path: Path, what: str) -> Table:
    """A folder of Arrow, parquet, CSV or JSON files, read as one table.

    That is a data set as Hugging Face's library saves it, RACE (an object a file, named .txt), MMLU (a file a subject).

    Raises:
        UserError: no such files; a folder of several splits; Arrow or parquet files of different columns.
    """
    readers: dict[str, Callable[[bytes, Source], Table]] = {".arrow": read_arrow, ".parquet": read_parquet}
    files = sorted(file for file in path.iterdir() if file.suffix in readers)
    splits = sorted(folder.name for folder in path.iterdir() if folder.is_dir() and any(folder.glob("*.arrow")))
    if splits and not files:
        raise UserError(
            f"{what} is a folder, not a file, and has no Arrow or parquet files: {path}; it has the splits "
            f"{', '.join(splits)}: name one, as {path / splits[0]}"
        )
    if not files:
        return _text_files(path, what)
    parts = [readers[file.suffix](file.read_bytes(), Source(file, what)) for file in files]
    first = parts[0]
    for file, part in zip(files, parts, strict=True):
        if part.names != first.names:
            raise UserError(f"{what}: {file} has other columns than {files[0].name}; name one file")
    rows = [row for part in parts for row in part.rows]
    return Table(first.names, rows, f"a folder of {len(files)} {first.form} file{'s' if len(files) > 1 else ''}")


def _text_files(path: Path, what: str) -> Table:
    """The rows of all CSV files of a folder or of the folders in it, or else of all JSON files, with `file`."""
    inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    tables = [file for file in inside if file.suffix.lower() == ".csv"]
    files = tables or [file for file in inside if file.suffix.lower() in _JSON_ENDINGS and _begins_json(file)]
    if not files:
        raise UserError(
            f"{what} is a folder, not a file, and has no Arrow, parquet, CSV or JSON files: {path}. Name a file"
        )
    rows: list[Row] = []
    for file in files:
        source = Source(file, what)
        part = (read_csv if tables else read_json)(read_bytes(file, what), source)
        found = None if are_of_question(part.names) else mmlu_rows(headless(part)) if tables else None
        rows += [{**row, "file": file.relative_to(path).as_posix()} for row in found or part.rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    form = "CSV" if tables else "JSON"
    notes = [f"{len(inside) - len(files)} other files in it are not read"] if len(inside) > len(files) else []
    return Table(names, rows, f"a folder of {len(files)} {form} file{'s' if len(files) > 1 else ''}", notes)


_JSON_ENDINGS = (".json", ".jsonl", ".txt")


def _begins_json(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))
