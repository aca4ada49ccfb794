"""HTML pages: their texts by section, without menus, scripts and other frames.

Libraries that find the text of a page (trafilatura, resiliparse) make 103 of 10<sup>3</sup>; here the text is made as
in the cells of an exam, and only what a page itself names as its frame is left out.
"""

from __future__ import annotations

import codecs
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from solution.encodings import text_codec
from solution.errors import UserError
from solution.formats.html import TextCollector
from solution.retrieval.readers.packing import (
    BROKEN,
    HEAD,
    LONGEST_LINE,
    broken,
    not_utf8,
    open_unpacked,
    text_encoding,
    too_long,
)
from solution.retrieval.readers.prose import BLOCK, file_title
from solution.retrieval.readers.rows import Row
from solution.tables import shown

_FRAME = frozenset(
    "nav script style noscript template svg canvas iframe object audio video dialog select button textarea datalist "
    "footer menu".split()
)
_FRAME_OUTSIDE = frozenset(("header", "aside"))  # within an article they belong to it
_FRAME_ROLES = frozenset("navigation banner contentinfo search menu menubar dialog".split())
# Words of `class` and `id`, as old pages and encyclopedias name their frames.
_FRAME_NAMES = frozenset(
    "nav navbar navigation menu mainmenu sidebar side-bar breadcrumb breadcrumbs footer toc navbox mw-editsection "
    "catlinks printfooter noprint cookie-banner advertisement mw-jump-link skip-link hatnote reflist".split()
)
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_LONGEST_HEADING = 200
_LONGEST_TITLE = 1000
_LONGEST_UNCLOSED = 1 << 16  # characters at the end of a page
_LINK, _LINK_END = "\ue000", "\ue001"  # of Unicode's private use: they stand for <a> and </a> until a section is whole
_LINKED = re.compile(f"{_LINK}[^{_LINK_END}]*{_LINK_END}")
_FEWEST_LINKS = 3  # in lines of mere links, that are then a menu
_MAIN = re.compile(rb"<main[\s>]|role=[\"']?main\b", re.IGNORECASE)
_CHARSET = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)|<\?xml[^>]{0,80}encoding=[\"']([\w.:-]+)", re.I
)
_FORMULA_IN_IMAGE = re.compile(r"[\\^_=]")


class PageText(TextCollector):
    """Collects the sections of a page that is fed to it piece by piece.

    Attributes:
        title: what <title> says.
        ready: sections that are whole: the headings that they stand under, and their text. Take them out.
        waiting: the number of characters that are kept: those of the open section, and what is not parsed yet.

    Args:
        only_main: take nothing outside the element that holds the page's main text.
        takes_frames: leave out scripts alone.
    """

    def __init__(self, only_main: bool = False, takes_frames: bool = False) -> None:
        super().__init__()
        self.title = ""
        self.ready: list[tuple[list[str], str]] = []
        self._headings: list[tuple[int, str]] = []
        self._level = 0  # of the heading that is open
        self._left_out: list[str] = []  # the element that is left out, and elements of its name within it
        self._only_main, self._takes_frames = only_main, takes_frames
        self._main: list[str] = []  # the same for the main element
        self._articles = 0
        self._in_title = False
        self._size = 0
        self._formula_size = 0

    @property
    def waiting(self) -> int:
        return self._size + self._formula_size + len(self.rawdata)

    def finish(self) -> None:
        """Take what is left as the last section."""
        self.close()
        self._end_section()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = {name: value or "" for name, value in attrs}
        if self._left_out and not (tag == "p" and self._left_out[0] == "p"):  # a paragraph needs no end
            self._left_out += [tag] if tag == self._left_out[0] else []
            return
        self._left_out.clear()
        if tag == "title" and not self._math:
            self._in_title = True
        if self._is_frame(tag, about):
            self._left_out += [tag] if tag not in _VOID else []
            return
        if self._main:
            self._main += [tag] if tag == self._main[0] else []
        elif tag == "main" or about.get("role") == "main":
            self._main.append(tag)
        self._articles += tag == "article"
        if tag in _HEADINGS:
            self._end_section()
            self._level = int(tag[1])
        elif tag == "a":
            self._put(_LINK)
        elif tag == "script":
            return  # what it holds is read
        elif tag == "img" and not _FORMULA_IN_IMAGE.search(about.get("alt", "")):
            return  # a picture's description is no text of the page; a formula's picture is
        super().handle_starttag(tag, attrs)
        self._formula_size += len(tag) if self._math else 0

    def _is_frame(self, tag: str, about: dict[str, str]) -> bool:
        if tag in ("html", "body", "main", "article") or (self._takes_frames and tag not in ("script", "style")):
            return False
        if tag == "script":  # MathJax keeps formulas in scripts
            return "math/tex" not in about.get("type", "")
        outside = tag in _FRAME_OUTSIDE and not self._main and not self._articles
        names = {*about.get("class", "").split(), about.get("id", "")}
        return (
            tag in _FRAME
            or outside
            or about.get("role") in _FRAME_ROLES
            or "hidden" in about
            or about.get("aria-hidden") == "true"
            or not names.isdisjoint(_FRAME_NAMES)
            # An encyclopedia's marks of references; elsewhere these are words like others.
            or (tag == "sup" and "reference" in names)
            or (tag == "ol" and "references" in names)
        )

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._left_out and tag in _VOID:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._left_out:
            if tag == self._left_out[0]:
                self._left_out.pop()
            return
        if tag == "title":
            self._in_title = False
        if self._main and tag == self._main[0]:
            if len(self._main) == 1:
                self._end_section()  # still inside: what it holds counts
            self._main.pop()
        self._articles = max(0, self._articles - (tag == "article"))
        if tag == "a":
            self._put(_LINK_END)
        elif tag in _HEADINGS and self._level:
            self._end_heading()
        super().handle_endtag(tag)
        if self._size > BLOCK and len(self._open) == 1 and tag in ("p", "div", "tr", "li", "pre"):
            self._end_section()

    def handle_data(self, data: str) -> None:
        if self._in_title and not self._left_out:
            if len(self.title) < _LONGEST_TITLE:  # it may be never closed
                self.title = " ".join((self.title + data).split())
        elif not self._left_out:
            self._formula_size += len(data) if self._math else 0
            super().handle_data(data)

    def _put(self, text: str) -> None:
        if self._main or not self._only_main:
            self._size += len(text)
            super()._put(text)

    def _take(self) -> str:
        text = self.result()
        self._open, self._math, self._size, self._formula_size = [("", [])], [], 0, 0
        return _without_menus(text)

    def _end_heading(self) -> None:
        level, self._level = self._level, 0
        heading = " ".join(self._take().split())
        if len(heading) > _LONGEST_HEADING:
            self._put(heading + "\n")
        elif heading:
            self._headings = [(other, text) for other, text in self._headings if other < level] + [(level, heading)]
            if not self.title or level == 1 and self.title.casefold().startswith(heading.casefold()):
                self.title = heading  # the page's title often has the site's name behind it

    def _end_section(self) -> None:
        if self._level:  # a heading that was not closed
            self._end_heading()
        elif text := self._take():
            self.ready.append(([heading for _, heading in self._headings], text))


def _without_menus(text: str) -> str:
    """The text without runs of lines that are nothing but links, and without lines that are little else."""
    if _LINK not in text and _LINK_END not in text:
        return text
    kept: list[str] = []
    for is_menu, run in itertools.groupby(text.split("\n"), _is_menu):
        lines = list(run)
        if not is_menu or sum(line.count(_LINK) for line in lines) < _FEWEST_LINKS:
            kept += lines
    return "\n".join(kept).replace(_LINK, "").replace(_LINK_END, "").strip()


def _is_menu(line: str) -> bool:
    count = line.count(_LINK)
    if not count:
        return False
    rest = sum(c.isalnum() for c in _LINKED.sub("", line))
    # "Next: Heat, Previous: Ice, Up: Water" is a menu too.
    most = sum(c.isalnum() for c in line) / 3 if count >= _FEWEST_LINKS else 0
    return rest <= most


def html_rows(path: Path, name: str, ending: str, encoding: str | None) -> Iterator[Row]:
    """The sections of an HTML page. The title is the page's own, else the file's name.

    Args:
        name: of the file in the corpus: its id.
        ending: of the unpacked file.

    Raises:
        UserError: while reading: a text that is not of its encoding, or a damaged packed file.
    """
    try:
        declared = text_encoding(path, None)
        with open_unpacked(path) as stream:
            found = _CHARSET.search(stream.read(HEAD))
        with open_unpacked(path) as stream:
            only_main = _holds(stream, _MAIN)
        declared = declared or (_known_charset((found[1] or found[2]).decode()) if found else None)
        declared = declared or text_encoding(path, encoding) or "utf-8-sig"
        number = 0
        # A page whose frame is never closed would be empty: then all of it is taken.
        for page in (PageText(only_main), PageText(takes_frames=True)):
            with open_unpacked(path) as stream:
                for title, section, text in page_sections(stream, declared, page, str(path)):
                    cells = {"title": title or file_title(path, name, ending), "text": text}
                    cells["section"] = " > ".join(heading for heading in section if heading != title)
                    yield Row(path, f"section {number + 1}", {"id": f"{name}/{number}" if number else name, **cells})
                    number += 1
            if number:
                break
    except BROKEN as error:
        raise broken(path, "", error) from None


def _holds(stream: BinaryIO, pattern: re.Pattern[bytes]) -> bool:
    tail = b""
    while block := stream.read(1 << 20):
        if pattern.search(tail + block):
            return True
        tail = block[-20:]
    return False


def _known_charset(name: str) -> str | None:
    """The encoding that browsers take for a declared one; None: they ignore it."""
    known = text_codec(name)
    # What could be read as ASCII is no UTF-16 and no UTF-32.
    if known is None or known.startswith(("utf-16", "utf-32")):
        return None
    if known == "utf-8":
        return "utf-8-sig"
    return "cp1252" if known in ("iso8859-1", "ascii") else known


def page_sections(stream: BinaryIO, encoding: str, page: PageText, source: str) -> Iterator[tuple[str, list[str], str]]:
    """The title, the headings and the text of each section of a page.

    Args:
        page: that is not fed yet.
        source: the file, for messages.

    Raises:
        UserError: while reading: the text is not UTF-8, and said to be nothing else; a section or a tag of more than
            32 MiB; a tag or a comment that is never closed.
    """
    # An encoding that the page has declared itself may have gaps (cp1252 has five).
    is_utf8 = encoding.startswith("utf-8")
    decoder = codecs.getincrementaldecoder(encoding)("strict" if is_utf8 else "replace")
    unread = io.StringIO()
    while block := stream.read(1 << 16):
        try:
            unread.write(decoder.decode(block).replace("\0", ""))
        except UnicodeDecodeError as error:
            sample = block + stream.read(1 << 20)
            raise not_utf8(source, error, sample) from None
        # The parser begins anew at an unclosed tag with each piece: pieces as long as that tag keep the time linear.
        if unread.tell() >= len(page.rawdata):
            page.feed(unread.getvalue())
            unread = io.StringIO()
        if page.waiting + unread.tell() > LONGEST_LINE:
            raise too_long(f"{source}: a section, a tag or a script of it")
        yield from ((page.title, *section) for section in page.ready)
        page.ready.clear()
    page.feed(unread.getvalue())
    # The parser looks for the end of each tag within it to the page's end. An unclosed script it drops.
    if len(page.rawdata) > _LONGEST_UNCLOSED and page.cdata_elem is None:
        raise UserError(f"the corpus {source} has a tag or a comment that is not closed: {shown(page.rawdata, 60)!r}")
    page.finish()
    yield from ((page.title, *section) for section in page.ready)
