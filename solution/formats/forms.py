"""The list of forms of question files: their endings, how they are read and written. Another form is a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from solution.errors import UserError
from solution.formats.columns import Columns, NoQuestionColumns, items_of
from solution.formats.gift import is_aiken, read_aiken, read_gift, write_aiken, write_gift
from solution.formats.items import ExamToWrite, Item, Reading, Source, Table
from solution.formats.moodle import read_moodle, write_moodle
from solution.formats.own import write_csv_exam, write_jsonl, write_parquet
from solution.formats.qti import read_qti
from solution.formats.tabular import (
    headless,
    mmlu_rows,
    names_columns,
    read_arrow,
    read_csv,
    read_excel,
    read_folder,
    read_json,
    read_parquet,
)
from solution.formats.trivia import is_trivia, read_trivia
from solution.formats.written_out import is_written_out, read_row, read_written_out
from solution.formats.xml import root_name
from solution.tables import decode, read_bytes, shown

Reader = Callable[[bytes, Source], Table]
Writer = Callable[[Path, ExamToWrite], None]


@dataclass(frozen=True)
class Form:
    """A form of question files.

    Attributes:
        name: for `convert --to`, and for messages.
        endings: of the files' names.
        write: None where it is only read.
        needs_answers: a question without its answer cannot be written.
        drops: what `write` leaves out, in words.
    """

    name: str
    endings: tuple[str, ...]
    read: Reader
    write: Writer | None = None
    needs_answers: bool = False
    drops: str = ""


def _read_text(data: bytes, source: Source) -> Table:
    """A text whose name does not tell its form: Aiken, GIFT, questions with lettered options, or a table."""
    text = decode(data, str(source), source.encoding).replace("\r\n", "\n").replace("\r", "\n")
    if is_aiken(text):
        return read_aiken(data, source)
    if text.lstrip().startswith(("{", "[")):
        return read_json(data, source)
    if is_trivia(text):
        return read_trivia(data, source)
    if "{" in text and "=" in text:
        return read_gift(data, source)
    is_list = is_written_out(text) and not names_columns(text)
    return read_written_out(data, source) if is_list else read_csv(data, source)


def _begins_trivia(path: Path) -> bool:
    with open(path, "rb") as stream:
        return is_trivia(stream.read(4096).decode("utf-8", "replace"))


def _read_xml(data: bytes, source: Source) -> Table:
    return read_moodle(data, source) if root_name(data) in ("quiz", "question") else read_qti(data, source)


FORMS = (
    Form("csv", (".csv", ".tsv", ".tab"), read_csv, write_csv_exam),
    Form("jsonl", (".jsonl", ".json", ".ndjson"), read_json, write_jsonl),
    Form("parquet", (".parquet",), read_parquet, write_parquet),
    Form("arrow", (".arrow", ".feather"), read_arrow),
    Form("excel", (".xlsx", ".xlsm"), read_excel),
    Form("gift", (".gift",), read_gift, write_gift, True, "further columns"),
    Form("moodle", (".xml",), _read_xml, write_moodle, True, "further columns"),
    Form("aiken", (".aiken",), read_aiken, write_aiken, True, "ids, further columns and line ends"),
    Form("text", (".txt",), _read_text),
    Form("qti", (".zip", ".imscc", ".imscp"), read_qti),
)
BY_ENDING = {ending: form for form in FORMS for ending in form.endings}
TEXT_FORMS = ("csv", "jsonl", "gift", "moodle", "aiken", "text")
"""The forms whose files are texts: they can be pasted."""
WRITTEN = {form.name: form for form in FORMS if form.write is not None}


def read_table(path: Path, what: str, encoding: str | None = None, skips_bad: bool = False) -> Table:
    """The table in a file of any form (gzipped where its name ends in .gz), or in a folder of Arrow or parquet files.

    Args:
        what: names the file in messages ("the question file").
        skips_bad: parts of the file that cannot be read are left out and told.

    Raises:
        UserError: an unknown ending; see `read_bytes` and `decode`; or the content is not of its form.
    """
    if path.is_dir():
        with _refuses_damage(path, what):
            return read_folder(path, what)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    ending = suffixes[-1] if suffixes else ""
    if not ending and path.is_file() and _begins_trivia(path):
        ending = ".txt"  # OpenTriviaQA's own files have no ending
    if ending not in BY_ENDING:
        raise UserError(
            f"{path}: unknown file type {ending or '(none)'!r}; use {', '.join(BY_ENDING)}, or one with .gz"
        )
    with _refuses_damage(path, what):
        return BY_ENDING[ending].read(read_bytes(path, what), Source(path, what, encoding, skips_bad))


@contextmanager
def _refuses_damage(path: Path, what: str) -> Iterator[None]:
    """Make one message of whatever a form's reader raises on a damaged file: its libraries know no end of kinds.

    Raises:
        UserError: anything was raised that has no message of its own.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = shown(str(error), 200)
        raise UserError(
            f"{what} cannot be read: {path} is damaged, or of a kind that is not known ({type(error).__name__}"
            f"{': ' if reason else ''}{reason}). Save it again, or in another form (docs/formats.md); "
            "SOLUTION_TRACEBACK=1 shows where reading it failed."
        ) from error


def read_items(path: Path, what: str, reading: Reading) -> tuple[list[Item], Columns, Table]:
    """The questions of a file as they stand in it, with the columns that were recognised; see `items_of`."""
    table = read_table(path, what, reading.encoding, reading.skip_bad_rows)
    return table_items(table, reading, str(path))


def table_items(table: Table, reading: Reading, source: str) -> tuple[list[Item], Columns, Table]:
    """The questions of a table; see `items_of`.

    Args:
        source: its name, for messages.
    """
    with _refuses_damage(Path(source), "the question file"):
        return _items_of(table, reading, source)


def _items_of(table: Table, reading: Reading, source: str) -> tuple[list[Item], Columns, Table]:
    try:
        return *items_of(table, reading, source), table
    except UserError:
        # MMLU's own CSV files have no header: their first line is a question.
        may_be = table.has_header and not reading.columns
        rows = mmlu_rows(headless(table)) if may_be else None
        if rows is None or reading.needs_id:
            raise
    note = "it has no header: question, options, letter of the answer"
    table = Table(list(rows[0]), rows, table.form, [note], is_headless=True)
    return *items_of(table, reading, source), table


def read_given_items(data: bytes, name: str, reading: Reading) -> tuple[list[Item], Columns, Table]:
    """The questions of a text that was pasted, or of a text file that was sent; see `items_of`.

    Args:
        name: the file's; its ending tells the form. Without an ending of a text's form the text itself does, and then
            it may be a single row without a header, too.

    Raises:
        UserError: the text is not of its form, or of none.
    """
    source = Source(Path(name), "the questions", reading.encoding, reading.skip_bad_rows)
    form = BY_ENDING.get(Path(name).suffix.lower())
    with _refuses_damage(Path(name), "the questions"):
        if form is not None and form.name in TEXT_FORMS and form.name != "text":
            return _items_of(form.read(data, source), reading, name)
        text = decode(data, str(source), source.encoding)
        if root_name(data) in ("quiz", "question", "questestinterop", "assessmentItem"):
            return _items_of(_read_xml(data, source), reading, name)
        try:
            return _items_of(_read_text(data, source), reading, name)
        except UserError as error:
            row = read_row(text, source)
            if row is None and isinstance(error, NoQuestionColumns):
                raise UserError(
                    "no question with options is recognised. Write the question, and its options behind letters: "
                    "A) ... B) ...; or give a text in a form of docs/formats.md"
                ) from None
            if row is None:
                raise
        return _items_of(row, reading, name)
