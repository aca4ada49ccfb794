"""Word documents (DOCX) and books (EPUB): their texts by section, read straight from the archives that they are.

Both are XML and HTML in a zip file. The libraries for DOCX (python-docx, mammoth) leave formulas out and hold the whole
document in memory; the one for EPUB has another licence.
"""

from __future__ import annotations

import contextlib
import errno
import posixpath
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from solution.errors import UserError
from solution.formats.html import formula, script
from solution.formats.xml import elements, parse, text_of
from solution.retrieval.readers.packing import LONGEST_LINE, REMEDY, seekable, too_long
from solution.retrieval.readers.pages import PageText, page_sections
from solution.retrieval.readers.prose import BLOCK, file_title
from solution.retrieval.readers.rows import Row

# OSError: a place in the file that cannot be.
DAMAGED_ARCHIVE = (
    zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError, OSError,
)  # fmt: skip
"""What reading a damaged archive may raise."""


@contextlib.contextmanager
def _archive(path: Path, form: str) -> Iterator[zipfile.ZipFile]:
    try:
        with seekable(path) as stream, zipfile.ZipFile(stream) as archive:
            yield archive
    except DAMAGED_ARCHIVE as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        message = str(error).strip("'\"") or type(error).__name__
        raise UserError(f"the corpus is not a whole {form} file: {path} ({message}). {REMEDY}") from None


def _parsed(archive: zipfile.ZipFile, name: str, path: Path) -> Element:
    """A file of the archive as XML.

    Raises:
        UserError: it is too long, or not XML.
    """
    if archive.getinfo(name).file_size > LONGEST_LINE:
        raise too_long(f"{path}: {name} within it")
    return parse(archive.read(name), f"the corpus {path}")


# --- DOCX ----------------------------------------------------------------------------------

_SKIPPED = frozenset(
    "pPr rPr del moveFrom delText instrText Fallback sectPr tblPr tcPr trPr commentReference footnoteReference "
    "endnoteReference fldData ctrlPr fPr radPr sSupPr sSubPr".split()
)
_MATH = {"sSup": "msup", "sSub": "msub", "sSubSup": "msubsup", "f": "mfrac"}


def docx_rows(path: Path, name: str) -> Iterator[Row]:
    """The sections of a Word document under its headings; rows of tables are lines.

    Args:
        name: of the file in the corpus: its id.

    Raises:
        UserError: while reading: not a whole Word document.
    """
    with _archive(path, "DOCX") as archive:
        title = _core_title(archive, path) or file_title(path, name, path.suffix.lower())
        levels = _heading_levels(archive, path)
        headings: list[tuple[int, str]] = []
        waiting: list[str] = []
        written = size = 0

        def section() -> Iterator[Row]:
            nonlocal written, size
            text = "\n".join(line for line in waiting if line.strip())
            waiting.clear()
            size = 0
            if text:
                id_ = f"{name}/{written}" if written else name
                cells = {"id": id_, "title": title, "section": " > ".join(heading for _, heading in headings)}
                yield Row(path, f"section {written + 1}", {**cells, "text": text})
                written += 1

        with archive.open("word/document.xml") as stream:
            for block in elements(stream, f"the corpus {path}", {"body"}, LONGEST_LINE):  # type: ignore[arg-type]
                level = _level(block, levels) if block.tag == "p" else None
                text = _block_text(block)
                if level is not None and text.strip():
                    yield from section()
                    headings = [(other, old) for other, old in headings if other < level]
                    headings.append((level, " ".join(text.split())))
                else:
                    waiting.append(text.strip("\n"))
                    size += len(text)
                    if size > BLOCK:
                        yield from section()
        yield from section()


def _core_title(archive: zipfile.ZipFile, path: Path) -> str:
    with contextlib.suppress(KeyError):
        return text_of(_parsed(archive, "docProps/core.xml", path).find(".//title"))
    return ""


def _heading_levels(archive: zipfile.ZipFile, path: Path) -> dict[str, int]:
    """The level of each style of headings, by the style's id, which depends on the language of Word; names do not."""
    levels: dict[str, int] = {}
    with contextlib.suppress(KeyError):
        for style in _parsed(archive, "word/styles.xml", path).iter("style"):
            named = style.find("name")
            name = (named.get("val", "") if named is not None else "").casefold()
            outline = style.find("./pPr/outlineLvl")
            if name.startswith("heading ") and name[8:].isdigit():
                levels[style.get("styleId", "")] = int(name[8:])
            elif outline is not None and outline.get("val", "9") < "9":
                levels[style.get("styleId", "")] = int(outline.get("val", "0")) + 1
    return levels


def _level(paragraph: Element, levels: dict[str, int]) -> int | None:
    outline, style = paragraph.find("./pPr/outlineLvl"), paragraph.find("./pPr/pStyle")
    if outline is not None and outline.get("val", "9") < "9":
        return int(outline.get("val", "0")) + 1
    return None if style is None else levels.get(style.get("val", ""))


def _block_text(block: Element) -> str:
    if block.tag == "tbl":
        rows = (" | ".join(" ".join(_text(cell).split()) for cell in row.iter("tc")) for row in block.iter("tr"))
        return "\n".join(rows)
    return _text(block)


def _text(element: Element) -> str:
    tag = element.tag
    if tag in _SKIPPED:
        return ""
    if tag == "t":
        return element.text or ""
    if tag in ("tab", "ptab"):
        return " "
    if tag in ("br", "cr"):
        return "\n"
    if tag == "noBreakHyphen":
        return "-"
    parts = [_text(child) for child in element]
    if tag in _MATH:
        return formula(
            _MATH[tag], [part for child, part in zip(element, parts, strict=True) if child.tag not in _SKIPPED]
        )
    if tag == "rad":
        degree, inner = (text_of(element.find("deg")), "".join(parts[-1:]))
        return f"{script(degree, 'sup')}√({inner})" if degree else f"√({inner})"
    text = "".join(parts)
    if tag == "r":
        raised = element.find("./rPr/vertAlign")
        place = raised.get("val") if raised is not None else None
        if text.strip() and place in ("superscript", "subscript"):
            return script(text, "sup" if place == "superscript" else "sub")
    return text + "\n" if tag == "p" else text


# --- EPUB ----------------------------------------------------------------------------------

_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")  # no protection of the text


def epub_rows(path: Path, name: str) -> Iterator[Row]:
    """The sections of a book in the order in which it is read, under the headings of its chapters.

    Args:
        name: of the file in the corpus: its id.

    Raises:
        UserError: while reading: not a whole EPUB file, or one that is protected against reading.
    """
    source = f"the corpus {path}"
    with _archive(path, "EPUB") as archive:
        if "META-INF/encryption.xml" in archive.namelist():
            ways = {part.get("Algorithm", "") for part in _parsed(archive, "META-INF/encryption.xml", path).iter()}
            if ways - {""} - set(_FONTS):
                raise UserError(f"{source} is protected against copying; give a copy without protection")
        rootfile = _parsed(archive, "META-INF/container.xml", path).find(".//rootfile")
        if rootfile is None or not rootfile.get("full-path"):
            raise UserError(f"{source} names no list of its chapters (META-INF/container.xml)")
        place = rootfile.get("full-path", "")
        package = _parsed(archive, place, path)
        title = text_of(package.find(".//metadata/title")) or file_title(path, name, path.suffix.lower())
        number = 0
        for chapter in _chapters(package, posixpath.dirname(place)):
            with archive.open(chapter) as stream:
                for of_chapter, headings, text in page_sections(stream, "utf-8-sig", PageText(), f"{path}, {chapter}"):  # type: ignore[arg-type]
                    # A chapter without headings is often named in its head alone.
                    names = headings or [of_chapter]
                    section = " > ".join(part for part in names if part and part != title)
                    cells = {"title": title, "section": section, "text": text}
                    yield Row(path, f"{chapter}", {"id": f"{name}/{number}" if number else name, **cells})
                    number += 1


def _chapters(package: Element, folder: str) -> Iterator[str]:
    """The names of the files of the text, in the order of reading, without the table of contents."""
    items = {item.get("id"): item for item in package.iter("item")}
    for reference in package.iter("itemref"):
        item = items.get(reference.get("idref"))
        if item is None or reference.get("linear") == "no" or "nav" in item.get("properties", "").split():
            continue
        if "html" in item.get("media-type", "html"):
            yield posixpath.normpath(posixpath.join(folder, urllib.parse.unquote(item.get("href", ""))))
