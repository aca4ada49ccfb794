"""PDF documents: their texts by page, with paragraphs joined again.

A PDF knows no paragraphs: only where letters stand. So running heads and page numbers are seen by their repetition,
words that were parted at a line's end are joined, and so are lines.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.retrieval.readers.packing import REMEDY, seekable
from solution.retrieval.readers.prose import file_title
from solution.retrieval.readers.rows import Row
from solution.sentences import BULLETS

_PAGES_AT_ONCE = 64  # in which repeated lines are looked for
_EDGE = 3  # lines at a page's top and bottom that may be running ones
_FEWEST = 3  # pages on which a line must stand to be one
_BULLET = re.compile(rf"\s*(?:[–—*-]|{BULLETS}|\(?\d{{1,3}}[.)]|\(?[a-z][.)])\s")
_ENTRY = re.compile(r"[^\W\d_][^.:;!?]{1,60}: \S")  # "term: definition"
_LEAST_ENTRIES = 3
_ENDED = re.compile(r"[.!?:;。！？][\"'”’)\]]*$")
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)\]]*(?=\s|$)")
_PARTED = re.compile(r"(\w*[^\W\d_])[-\u00ad\u2010]\n\s*([^\W\d_]\w*)")
_LONGEST_TAIL = 600  # characters of a sentence that are moved to the page on which it begins
_CAPITALS = 3 / 4  # of a heading's long words
_BEGINNING = re.compile(
    r"\s*(?:The|An?|In|On|At|By|For|From|With|When|While|If|As|Although|Because|This|These|Those|It|They|We|There)"
    r" [^\W\d_]"
)
_SHORT = 0.7  # of a full line: a line that ends a paragraph


def pdf_rows(path: Path, name: str) -> Iterator[Row]:
    """The pages of a PDF; the title is the document's, the section its bookmark's and the page's number.

    Args:
        name: of the file in the corpus; a page's id is "NAME/p12".

    Raises:
        UserError: while reading: not a whole PDF file, or one that asks for a password.
    """
    import pypdf

    # It tells of every small fault of a file, and reads on.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    with seekable(path) as stream:
        try:
            reader = pypdf.PdfReader(stream)
            if reader.is_encrypted and not reader.decrypt(""):
                raise UserError(f"the corpus {path} asks for a password; save it without one")
            title = _title(reader) or file_title(path, name, path.suffix.lower())
            bookmarks = _bookmarks(reader)
            count = len(reader.pages)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged file has many faces
            raise _not_whole(path, "", error) from None
        bookmark = ""
        for number, text in enumerate(_joined_pages(_page_texts(reader, path, count)), 1):
            bookmark = bookmarks.get(number - 1, bookmark)
            if text is None:
                continue
            section = f"{bookmark} > page {number}" if bookmark else f"page {number}"
            cells = {"id": f"{name}/p{number}", "title": title, "section": section, "text": text}
            yield Row(path, f"page {number}", cells)


def _not_whole(path: Path, where: str, error: Exception) -> UserError:
    if type(error).__name__ == "DependencyError":
        return UserError(
            f"the corpus {path} is encrypted, which needs the package cryptography: pip install cryptography"
        )
    message = (str(error) or type(error).__name__).splitlines()[0]
    if type(error).__name__ == "LimitReachedError":
        return UserError(f"the corpus {path}{where} is larger than pypdf reads ({message[:200]}): part it into files")
    return UserError(f"the corpus is not a whole PDF file: {path}{where} ({message[:200]}). {REMEDY}")


def _title(reader: Any) -> str:
    title = str((reader.metadata or {}).get("/Title") or "").strip()
    # Programs write the name of the file that was printed.
    file_names = r"\.(docx?|tex|dvi|indd|qxd|pdf|pptx?|html?)$|^untitled|^microsoft word"
    return "" if re.search(file_names, title, re.I) else title


def _bookmarks(reader: Any) -> dict[int, str]:
    """The bookmark that begins on a page, by the page's index; the first of several."""
    found: dict[int, str] = {}

    def walk(entries: Any, above: list[str]) -> None:
        last = above
        for entry in entries:
            if isinstance(entry, list):
                walk(entry, last)
                continue
            last = [*above, " ".join(str(entry.title).split())]
            page = reader.get_destination_page_number(entry)
            if page is not None and page >= 0:
                found.setdefault(page, " > ".join(part for part in last if part))

    try:
        walk(reader.outline, [])
    except Exception:  # noqa: BLE001 - bookmarks are often broken, and the text does without them
        return {}
    return found


def _page_texts(reader: Any, path: Path, count: int) -> Iterator[str]:
    for number in range(count):
        try:
            text = reader.pages[number].extract_text()
        except Exception as error:  # noqa: BLE001 - a damaged file has many faces
            raise _not_whole(path, f", page {number + 1}", error) from None
        # What it has read stays in memory for ever otherwise.
        reader.resolved_objects.clear()
        yield text.encode("utf-8", "ignore").decode().replace("\0", "")


# --- from lines to paragraphs --------------------------------------------------------------


def _joined_pages(pages: Iterator[str]) -> Iterator[str | None]:
    """The texts of pages without running lines, in paragraphs; a sentence stays on the page on which it begins.

    None: all of a page went to the one before it.
    """
    before: str | None = None
    is_first = True
    for text in _paragraph_pages(pages):
        tail = _tail(text) if before and not _ENDED.search(before) else ""
        if not is_first:
            yield f"{before} {tail}" if before and tail else before
        rest = text[len(tail) :].lstrip()
        before, is_first = (None if tail and not rest else rest), False
    if not is_first:
        yield before


def _tail(text: str) -> str:
    """The rest of a sentence with which a page begins; "" where it begins with a new one."""
    end = _SENTENCE_END.search(text, 0, _LONGEST_TAIL)
    return text[: end.end()] if text[:1].islower() and end else ""


def _paragraph_pages(pages: Iterator[str]) -> Iterator[str]:
    running: Counter[str] = Counter()
    while batch := [text.splitlines() for text in itertools.islice(pages, _PAGES_AT_ONCE)]:
        batch = [[line.rstrip() for line in lines if line.strip()] for lines in batch]
        for lines in batch:
            running.update({_pattern(line) for line in _edges(lines)})
        words = Counter(re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)?", "\n".join(line for lines in batch for line in lines)))
        for lines in batch:
            yield paragraphs(_without_running(lines, running), words)
        running = Counter({line: count for line, count in running.items() if count >= _FEWEST})


def _edges(lines: list[str]) -> list[str]:
    return lines[:_EDGE] + lines[_EDGE:][-_EDGE:]


def _pattern(line: str) -> str:
    """A line as it repeats: page numbers differ."""
    return re.sub(r"\d+|\b[ivxlc]+\b", "#", " ".join(line.split()).casefold())


def _without_running(lines: list[str], running: Counter[str]) -> list[str]:
    start, end = 0, len(lines)
    while start < min(_EDGE, end) and running[_pattern(lines[start])] >= _FEWEST:
        start += 1
    while end > start and len(lines) - end < _EDGE and running[_pattern(lines[end - 1])] >= _FEWEST:
        end -= 1
    return lines[start:end]


def _is_heading(line: str) -> bool:
    """True where nearly all long words of a line have capitals, and no mark ends it."""
    long = re.findall(r"[^\W\d_]{4,}", line)
    capitals = sum(word[0].isupper() for word in long)
    return len(long) > 1 and capitals >= _CAPITALS * len(long) and not re.search(r"\d{3}|[.!?:;,]$", line.rstrip())


def _begins(before: str, line: str) -> bool:
    """True where an English sentence begins though none ended before it: behind a heading or a bullet without a mark.

    "The", "When", ... have a capital there only; but not behind a line that goes on ("Bank of / The Hague").
    """
    goes_on = re.search(r"(?:[,(–—-]|\b(?:and|or|of|the|a|an|in|at|to|for|by|with|from|is|are))$", before.rstrip())
    return _BEGINNING.match(line) is not None and not goes_on


def paragraphs(lines: list[str], words: Counter[str]) -> str:
    """Lines joined to paragraphs, and words that were parted at a line's end.

    Args:
        words: of the document: a word that stands in it with its hyphen keeps it.
    """
    if not lines:
        return ""
    full = sorted(map(len, lines))[len(lines) * 3 // 4]
    entries = sum(_ENTRY.match(line) is not None for line in lines)
    # Of a glossary every third line at least begins an entry; its terms have small letters, and its lines are full.
    is_glossary = entries >= _LEAST_ENTRIES and 3 * entries >= len(lines)
    parts = [lines[0]]
    in_heading = _is_heading(lines[0])
    for before, line in itertools.pairwise(lines):
        is_short = len(before) < _SHORT * full
        is_capital = line.lstrip()[:1].isupper()
        is_ended = _ENDED.search(before) is not None
        ends = (is_short or in_heading) and (is_ended or is_capital)
        begins = _BULLET.match(line) or (is_glossary and _ENTRY.match(line)) or (not is_ended and _begins(before, line))
        in_heading = (is_ended or in_heading) and _is_heading(line)
        opens = is_ended and in_heading and len(line) < _SHORT * full
        parts.append("\n\n" if ends or begins or opens else "\n")
        parts.append(line)

    def whole(match: re.Match[str]) -> str:
        front, back = match[1], match[2]
        with_hyphen = f"{front}-{back}"
        is_compound = back[0].isupper() or (words[with_hyphen] > 0 and words[with_hyphen] >= words[front + back])
        if not words[front + back] and min(len(front), len(back)) > 3:  # both are words of the text elsewhere too
            is_compound = is_compound or min(words[front], words[back]) > 1
        return with_hyphen if is_compound else front + back

    text = _PARTED.sub(whole, "".join(parts))
    return re.sub(r"[ \t]+", " ", re.sub(r"(?<!\n)\n(?!\n)", " ", text)).replace("\n\n", "\n").strip()
