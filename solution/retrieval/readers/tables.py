"""Tables with a column of texts: CSV and TSV, JSON lines, JSON arrays, parquet, Arrow."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.formats.tabular import likely_separator
from solution.retrieval.readers.packing import BROKEN, LONGEST_LINE, REMEDY, broken, lines, packing, seekable
from solution.retrieval.readers.rows import COLUMNS, TEXT_COLUMNS, NotCorpus, Row, text_column, usual_names
from solution.tables import csv_records, json_objects

_ROWS_AT_ONCE = 64
_ROWS_LOOKED_AT = 8
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*$', re.IGNORECASE)
_NUMBERED = re.compile(r"\d+\t\s*\S")


# --- CSV -----------------------------------------------------------------------------------


def csv_rows(path: Path, encoding: str | None) -> Iterator[Row]:
    """CSV parted by what its first line shows: commas, semicolons or tabs. A TSV without a header: id, text."""
    stream = lines(path, encoding)
    begin: list[str] = []
    while not (begin and begin[-1].strip()) and (line := next(stream, None)) is not None:
        begin.append(line)
    first = begin[-1] if begin else ""
    if _NUMBERED.match(first):
        # MS MARCO's collection: no header, and a quote is a character like any other.
        yield from _numbered_rows(path, itertools.chain(begin, stream))
        return
    if said := _SEP_LINE.match(first.strip()):
        separator, begin[-1] = said[1], "\n"
    else:
        separator = "," if _has_text_column(first, ",") else likely_separator(first)
    records = csv_records(itertools.chain(begin, stream), f"the corpus {path}", LONGEST_LINE, separator)
    header = next(records, None)
    if header is None:
        return
    place, names = header
    usual = usual_names(names)
    names = [usual.get(name, name) for name in names]
    text_column(names, f"{path}, line {place}")
    for place, cells in records:
        yield Row(path, f"line {place}", dict(zip(names, cells, strict=True)))


def _numbered_rows(path: Path, stream: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            id_, tab, text = line.partition("\t")
            if not tab:
                raise UserError(f"the corpus {path}, line {number}: a number, a tab and a text were expected")
            yield Row(path, f"line {number}", {"id": id_, "text": text})


def is_table(lines: list[str]) -> bool:
    """Whether a text without a telling name is a table: a numbered TSV, or CSV with a column of texts and others.

    Args:
        lines: its first ones.
    """
    full = [line for line in lines if line.strip()]
    if full and all(_NUMBERED.match(line) for line in full):
        return True
    separator = likely_separator(full[0]) if full else ","
    if not full or not _has_text_column(full[0], separator):
        return False
    # A line of prose may have the word between two commas.
    try:
        records = list(itertools.islice(csv.reader(lines, delimiter=separator), _ROWS_LOOKED_AT))
    except csv.Error:
        return False
    counts = [len(cells) for cells in records if cells]
    return len(counts) > 1 and len(set(counts[:-1] if len(counts) > 2 else counts)) == 1


def _has_text_column(line: str, separator: str) -> bool:
    names = [name.strip().strip('"').casefold() for name in line.split(separator)]
    return len(names) > 1 and not set(names).isdisjoint(TEXT_COLUMNS)


# --- JSON ----------------------------------------------------------------------------------


def jsonl_rows(path: Path, encoding: str | None) -> Iterator[Row]:
    for number, row in json_objects(lines(path, encoding), f"the corpus {path}"):
        yield Row(path, f"line {number}", _usual(row))


def _usual(row: dict[str, Any]) -> dict[str, Any]:
    usual = usual_names(row)
    return {usual.get(name, name): value for name, value in row.items()} if usual else row


def json_rows(path: Path, encoding: str | None) -> Iterator[Row]:
    """A JSON array of objects or of texts, an entry at a time; or one object: a text, or a list of such within it.

    Raises:
        UserError: while reading: not JSON, an entry that is neither, or one of more than 32 MiB.
    """
    stream = lines(path, encoding)
    begin = next((line for line in stream if line.strip()), "")
    stream = itertools.chain([begin], stream)
    values = _array(stream, path) if begin.lstrip().startswith("[") else _within(stream, path)
    for number, value in enumerate(values, 1):
        where = f"entry {number}"
        if isinstance(value, str):
            value = {"text": value}
        elif not isinstance(value, dict):
            raise (NotCorpus if number == 1 else UserError)(f"the corpus {path}, {where} is no JSON object")
        yield Row(path, where, _usual(value))


def _within(stream: Iterable[str], path: Path) -> list[Any]:
    """The entries of one object: those of the only list of objects in it, or itself."""
    text = _at_least(iter(stream), LONGEST_LINE)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        long = " or is too long" if len(text) >= LONGEST_LINE else ""
        raise NotCorpus(f"the corpus {path} is one JSON object, and not whole{long} ({error})") from None
    if not isinstance(value, dict):
        raise NotCorpus(f"the corpus {path} is no JSON object")
    inner = [part for part in value.values() if isinstance(part, list) and part and isinstance(part[0], dict)]
    has_text = any(name in value for name in TEXT_COLUMNS) or bool(usual_names(value))
    return inner[0] if len(inner) == 1 and not has_text else [value]


def _array(stream: Iterator[str], path: Path) -> Iterator[Any]:
    """The entries of an array, decoded as soon as they are whole."""
    decoder = json.JSONDecoder()
    blocks = _blocks(stream)
    text, place = next(blocks, ""), 0
    number = 0
    after = re.compile(r"\s*\[\s*")  # what stands in front of the next entry
    while True:
        mark = after.match(text, place)
        try:
            if mark is None:
                raise ValueError("a bracket was expected" if not number else "a comma was expected")
            if text.startswith("]", mark.end()) and not number:
                end = mark.end()
                break
            value, end = decoder.raw_decode(text, mark.end())
        except (ValueError, RecursionError) as error:
            if closed := re.compile(r"\s*\]").match(text, place) if number else None:
                end = closed.end() - 1
                break
            # Perhaps not all of it is there. Twice as much each time, so that all attempts together stay linear.
            rest = text[place:]
            more = "" if len(rest) > LONGEST_LINE else _at_least(blocks, max(len(rest), 1))
            if not more:
                long = " or is too long" if len(rest) > LONGEST_LINE else ""
                raise UserError(f"the corpus {path}, entry {number + 1} is not JSON{long} ({error})") from None
            text, place = rest + more, 0
            continue
        yield value
        number += 1
        place, after = end, re.compile(r"\s*,\s*")
    if text[end + 1 :].strip() or any(block.strip() for block in blocks):
        raise UserError(f"the corpus {path} has more behind its JSON array")


def _at_least(blocks: Iterator[str], wanted: int) -> str:
    """The next blocks, of so many characters together if there are so many."""
    taken: list[str] = []
    for block in blocks:
        taken.append(block)
        wanted -= len(block)
        if wanted <= 0:
            break
    return "".join(taken)


def _blocks(stream: Iterator[str]) -> Iterator[str]:
    """Lines together, so that short ones are not decoded one by one."""
    block: list[str] = []
    size = 0
    for line in stream:
        block.append(line)
        size += len(line)
        if size > 1 << 16:
            yield "".join(block)
            block, size = [], 0
    if block:
        yield "".join(block)


# --- Arrow ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _whole(path: Path, form: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    # ValueError: a text that is not UTF-8; OverflowError: a date that Python does not have.
    except (pa.ArrowException, ValueError, OverflowError) as error:
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the corpus is not a whole {form} file: {path} ({message}). {REMEDY}") from None
    except MemoryError:
        raise UserError(f"the corpus {path} is damaged, or a batch of it is larger than the memory. {REMEDY}") from None
    except BROKEN as error:
        if packing(path):
            raise broken(path, "", error) from None
        raise UserError(f"the corpus is not a whole {form} file: {path} ({error}). {REMEDY}") from None


def _columns(path: Path, names: list[str]) -> dict[str, str]:
    """The columns that are read, by their names in the file, with the usual ones.

    Raises:
        NotCorpus: no column of texts.
    """
    usual = usual_names(names)
    named = {name: usual.get(name, name) for name in names}
    text = text_column(named.values(), str(path))
    return {
        name: other for name, other in named.items() if other == text or other not in TEXT_COLUMNS and other in COLUMNS
    }


def parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with (
        _whole(path, "parquet"),
        seekable(path) as source,
        # Without these two the compressed columns of a row group are read as a whole.
        pq.ParquetFile(path if packing(path) is None else source, pre_buffer=False, buffer_size=1 << 20) as file,
    ):
        columns = _columns(path, file.schema_arrow.names)
        yield from _batch_rows(path, file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)), columns)


def arrow_rows(path: Path) -> Iterator[Row]:
    """An Arrow file or stream: Feather, or a part of a data set that Hugging Face's library has saved."""
    import pyarrow as pa

    with _whole(path, "Arrow"), seekable(path) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source) as reader:
            columns = _columns(path, reader.schema.names)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
            yield from _batch_rows(path, (_sound(batch.select(list(columns))) for batch in batches), columns)


def _sound(batch: Any) -> Any:
    """The batch, or an error where the file is damaged: pyarrow takes the places of texts on trust, and would crash."""
    batch.validate(full=True)
    return batch


def _batch_rows(path: Path, batches: Any, columns: dict[str, str]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
            for row in batch.slice(start, _ROWS_AT_ONCE).to_pylist():
                number += 1
                yield Row(path, f"row {number}", {columns[name]: value for name, value in row.items()})
