"""Which form a corpus file has: its first bytes decide, and only where they say nothing its name."""

from __future__ import annotations

import importlib.util
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from solution.errors import UserError
from solution.retrieval.readers import documents, dumps, packing, pages, pdf, prose, tables
from solution.retrieval.readers.rows import NotCorpus, Row
from solution.tables import marked_encoding

Kind = Literal[
    "csv", "jsonl", "json", "parquet", "arrow", "cirrus", "mediawiki", "extractor", "html", "pdf", "docx", "epub",
    "text", "lines",
]  # fmt: skip
TABLES: tuple[Kind, ...] = ("csv", "jsonl", "json", "parquet", "arrow", "cirrus", "mediawiki", "extractor")
TEXTS: tuple[Kind, ...] = ("text", "lines")
KNOWN = (
    "CSV, TSV, JSONL, a JSON array, parquet, Arrow, a dump of a wiki (MediaWiki's XML, CirrusSearch, WikiExtractor), "
    "HTML, PDF, DOCX, EPUB, .txt or .md"
)
_NAMED: dict[str, Kind] = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".txt": "text", ".text": "text", ".rst": "text", ".md": "text", ".markdown": "text",
    ".html": "html", ".htm": "html", ".xhtml": "html",
}  # fmt: skip
_SHOWN_BY_BYTES = {".pdf": "PDF", ".docx": "DOCX", ".epub": "EPUB", ".arrow": "Arrow", ".feather": "Arrow"}
_PACKED_ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zstd")
_OF_PAGES = (".html", ".htm", ".xhtml", ".php", ".asp", ".aspx", ".txt", ".text", ".md", "")
_HTML = re.compile(r"(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*(?:<!doctype\s+html|<html[\s>])", re.IGNORECASE | re.DOTALL)
_MEDIAWIKI = re.compile(r"(?:<\?xml[^>]*>\s*|<!--.*?-->\s*|<!DOCTYPE.*?>\s*(?:\]>\s*)?)*<mediawiki[\s>]", re.DOTALL)
# First bytes of what holds no text that is read -> why, and what to do.
_REFUSED = {
    b"\xd0\xcf\x11\xe0": "an old Word or Excel file: save it as DOCX or CSV",
    b"{\\rtf": "an RTF document: save it as DOCX",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"ZIM\x04": "a ZIM archive: unpack it (zimdump dump --dir=FOLDER FILE) and give the folder",
    b"SQLite format 3": "an SQLite database: export its texts as CSV or JSONL",
}
_LIBRARIES = {"pdf": "pypdf", "mediawiki": "mwparserfromhell"}


def ending_of(path: Path) -> str:
    """The ending of the unpacked file's name, in lower case."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED_ENDINGS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def file_kind(path: Path) -> Kind:
    """The form of a file.

    Raises:
        NotCorpus: a whole file that is none of these.
        UserError: an empty or a damaged file, a Git LFS pointer, or a page of HTML that has the name of a table.
    """
    ending = ending_of(path)
    if path.stat().st_size == 0:
        named = _NAMED.get(ending)
        if named == "text":
            return named
        raise (UserError if named or ending in _SHOWN_BY_BYTES else NotCorpus)(f"the corpus is empty: {path}")
    try:
        head = packing.head_of(path)
    except packing.BROKEN as error:
        raise packing.broken(path, "", error) from None
    if head.startswith(b"version https://git-lfs.github.com/"):
        raise UserError(f"the corpus {path} is a pointer of Git LFS, not the file itself; run: git lfs pull")
    kind = _kind_of_bytes(path, head) or _kind_of_text(path, head, ending) or _NAMED.get(ending)
    if kind is not None:
        return kind
    if ending in _SHOWN_BY_BYTES:
        raise UserError(f"the corpus is not a whole {_SHOWN_BY_BYTES[ending]} file: {path}. {packing.REMEDY}")
    packed = packing.packing_of(head)
    what = f" ({packed} within {packing.packing(path)})" if packed else ""
    raise NotCorpus(f"the corpus {path}: unknown file type {ending or '(none)'!r}{what}; use {KNOWN}")


def _kind_of_bytes(path: Path, head: bytes) -> Kind | None:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    if b"%PDF-" in head[:1024] and (head.startswith(b"%PDF-") or b"\0" in head or ending_of(path) == ".pdf"):
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    for mark, what in _REFUSED.items():
        if head.startswith(mark):
            raise NotCorpus(f"the corpus {path} is {what}")
    if head[257:262] == b"ustar":
        raise NotCorpus(f"the corpus {path} is a tar archive: unpack it")
    return None


def _kind_of_zip(path: Path) -> Kind:
    try:
        with packing.seekable(path) as stream, zipfile.ZipFile(stream) as archive:
            names = set(archive.namelist())
            is_book = "META-INF/container.xml" in names
    except documents.DAMAGED_ARCHIVE as error:
        if form := _SHOWN_BY_BYTES.get(ending_of(path)):
            raise UserError(f"the corpus is not a whole {form} file: {path} ({error}). {packing.REMEDY}") from None
        form = "Excel" if ending_of(path).startswith(".xls") else "zip"
        raise NotCorpus(f"the corpus {path} is not a whole {form} file") from None
    if is_book:
        return "epub"
    if "word/document.xml" in names:
        return "docx"
    if "xl/workbook.xml" in names:
        raise NotCorpus(f"the corpus {path} is an Excel file: save it as CSV")
    raise NotCorpus(f"the corpus {path} is a zip archive with {len(names)} files: unpack it")


def _kind_of_text(path: Path, head: bytes, ending: str) -> Kind | None:
    """The form that a text shows; None: it may be any."""
    is_whole = len(head) < packing.HEAD
    # Without a mark, whatever the encoding, these forms begin with ASCII. The last character may be cut.
    text = head.decode(marked_encoding(head) or "utf-8", "replace").removeprefix("\ufeff").lstrip()
    named = _NAMED.get(ending)
    first, _, rest = text.partition("\n")
    if text.startswith("{"):
        return _kind_of_object(first, bool(rest.strip()), named)
    if re.match(r"\[\s*\{\s*\"", text) or (text.startswith("[") and ending == ".json"):
        return "json"
    if first.startswith("<doc ") and "=" in first:
        return "extractor"
    if _MEDIAWIKI.match(text):
        return "mediawiki"
    if _HTML.match(text):
        if ending in _OF_PAGES:
            return "html"
        raise UserError(
            f"the corpus {path} is a page of HTML, though its name says {ending}: perhaps what a server answered in "
            f"the place of the file. {packing.REMEDY}"
        )
    if named == "text" and "\0" not in text:
        if ending not in prose.MARKDOWN and tables.is_table(_first_lines(text, is_whole)):
            return "csv"
        if ending in (".txt", ".text") and prose.is_a_sentence_a_line(text, is_whole):
            return "lines"
    return None


def _first_lines(text: str, is_whole: bool) -> list[str]:
    lines = text.split("\n", 20)
    return lines if is_whole and len(lines) <= 20 else lines[:-1]


def _kind_of_object(first: str, goes_on: bool, named: Kind | None) -> Kind | None:
    """The form of a text that begins with "{"; None: no JSON."""
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        if named in ("text", "csv"):
            return None
        # A first line that is not whole here is that of a long article.
        return "json" if goes_on and named is None else "jsonl"
    return "cirrus" if dumps.is_action(row) else "jsonl"


def lacking_library(kind: Kind) -> str | None:
    """The package that this form needs and that is not installed."""
    library = _LIBRARIES.get(kind)
    return library if library and importlib.util.find_spec(library) is None else None


def read_rows(path: Path, kind: Kind, name: str, encoding: str | None = None) -> Iterator[Row]:
    """The rows of a file in order.

    Args:
        name: of the file in the corpus: the id of a text or a document.
        encoding: of texts that are not UTF-8 and do not tell theirs.

    Raises:
        UserError: while reading: a text that is not of its encoding, a damaged file, a broken row, a line of more than
            32 MiB, no text column in the head of a table; the message names the line.
    """
    readers: dict[Kind, Callable[[], Iterator[Row]]] = {
        "csv": lambda: tables.csv_rows(path, encoding),
        "jsonl": lambda: tables.jsonl_rows(path, encoding),
        "json": lambda: tables.json_rows(path, encoding),
        "parquet": lambda: tables.parquet_rows(path),
        "arrow": lambda: tables.arrow_rows(path),
        "cirrus": lambda: dumps.cirrus_rows(path),
        "mediawiki": lambda: dumps.mediawiki_rows(path),
        "extractor": lambda: dumps.extractor_rows(path, encoding),
        "html": lambda: pages.html_rows(path, name, ending_of(path), encoding),
        "pdf": lambda: pdf.pdf_rows(path, name),
        "docx": lambda: documents.docx_rows(path, name),
        "epub": lambda: documents.epub_rows(path, name),
        "text": lambda: prose.text_rows(path, name, ending_of(path), encoding),
        "lines": lambda: prose.line_rows(path, encoding),
    }
    return readers[kind]()
