"""This package's own columns, `id,prompt,A,B,...,answer` and further ones, written as CSV, JSON lines and parquet."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.files import atomic_file
from solution.formats.items import LETTERS, PLAIN, TEXT_FORMAT, ExamToWrite
from solution.tables import shown, write_csv


def _names(exam: ExamToWrite) -> list[str]:
    width = max(map(len, exam.options), default=2)
    return ["id", "prompt", *LETTERS[:width], "answer", *_extra(exam)]


def _extra(exam: ExamToWrite) -> dict[str, Sequence[Any]]:
    """The further columns, and where reading would change texts the one that says which of them are plain."""
    extra = dict(exam.extra)
    if any(exam.would_change):
        if TEXT_FORMAT in extra:
            free = next(name for i in itertools.count(1) if (name := f"{TEXT_FORMAT}_{i}") not in extra)
            extra = {free if name == TEXT_FORMAT else name: values for name, values in extra.items()}
        extra[TEXT_FORMAT] = [PLAIN if is_like else "" for is_like in exam.would_change]
    return extra


def _rows(exam: ExamToWrite) -> Iterator[list[Any]]:
    width = max(map(len, exam.options), default=2)
    extra = _extra(exam)
    for row, options in enumerate(exam.options):
        yield [
            exam.ids[row],
            exam.prompts[row],
            *(list(options) + [""] * (width - len(options))),
            LETTERS[exam.answers[row]] if exam.answers[row] >= 0 else "",
            *(values[row] for values in extra.values()),
        ]


def write_csv_exam(path: Path, exam: ExamToWrite) -> None:
    """Write an exam as CSV, its further columns at the end; lists and objects in them as JSON.

    Raises:
        UserError: a text has a NUL character, which no CSV file can hold.
    """
    write_csv(path, _names(exam), ([_without_nul(_flat(cell)) for cell in row] for row in _rows(exam)))


def _without_nul(cell: Any) -> Any:
    if isinstance(cell, str) and "\0" in cell:
        raise UserError(f"CSV cannot hold the NUL character in {shown(cell)!r}; remove it, or choose another form")
    return cell


def _flat(cell: Any) -> Any:
    return json.dumps(cell, ensure_ascii=False, default=str) if isinstance(cell, (list, dict)) else cell


def write_jsonl(path: Path, exam: ExamToWrite) -> None:
    """Write an exam as JSON lines; an option that a question does not have is left out."""
    names = _names(exam)
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        for cells in _rows(exam):
            pairs = zip(names, cells, strict=True)
            row = {name: cell for name, cell in pairs if cell != "" or name not in (*LETTERS, "answer", TEXT_FORMAT)}
            stream.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def write_parquet(path: Path, exam: ExamToWrite) -> None:
    """Write an exam as parquet; a further column of mixed types, or that parquet cannot hold, becomes text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {}
    for name, cells in zip(_names(exam), zip(*_rows(exam), strict=True), strict=True):
        try:
            columns[name] = pa.array(cells)
            # Arrow holds an object without keys, parquet does not, and only writing shows it.
            if pa.types.is_nested(columns[name].type):
                pq.write_table(pa.table({name: columns[name]}), pa.BufferOutputStream())
        except (pa.ArrowException, OverflowError):
            columns[name] = pa.array([None if cell is None else str(_flat(cell)) for cell in cells], pa.string())
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
