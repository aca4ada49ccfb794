"""Tiny documents, written by hand: PDF, DOCX and EPUB as programs write them, and a dump as MediaWiki writes it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

WORDS = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
FORMULAS = "http://schemas.openxmlformats.org/officeDocument/2006/math"


def pdf(pages: Sequence[Sequence[str]], title: str = "", bookmarks: Mapping[str, int] | None = None) -> bytes:
    """A PDF with a line of text in Helvetica for each string (of ASCII).

    Args:
        bookmarks: their names, with the pages' indexes.
    """
    marks = list((bookmarks or {}).items())
    first = 4 + 2 * len(pages)  # the number of the first bookmark
    kids = " ".join(f"{4 + 2 * k} 0 R" for k in range(len(pages)))
    outlines = f"/Outlines {first + len(marks)} 0 R " if marks else ""
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {outlines}>>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        shown = "".join(f"({_escaped(line)}) Tj T*\n" for line in lines)
        content = f"BT /F1 10 Tf 14 TL 50 780 Td\n{shown}ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    for number, (name, page) in enumerate(marks):
        after = f"/Next {first + number + 1} 0 R " if number + 1 < len(marks) else ""
        objects.append(
            f"<< /Title ({_escaped(name)}) /Parent {first + len(marks)} 0 R {after}/Dest [{4 + 2 * page} 0 R /Fit] >>"
        )
    if marks:
        objects.append(f"<< /First {first} 0 R /Last {first + len(marks) - 1} 0 R /Count {len(marks)} >>")
    objects.append(f"<< /Title ({_escaped(title)}) >>")
    data, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{text}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end += (
        f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\nstartxref\n{len(data)}\n%%EOF\n"
    )
    return data + end.encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def zipped(files: Mapping[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return stream.getvalue()


def docx(body: str, title: str = "") -> bytes:
    """A Word document with this XML as its body; its styles "Kop1" and "Kop2" are headings, as in Dutch Word."""
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="Kop{level}"><w:name w:val="heading {level}"/></w:style>'
        for level in (1, 2)
    )
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": f'<?xml version="1.0"?><w:document xmlns:w="{WORDS}" xmlns:m="{FORMULAS}">'
            f"<w:body>{body}</w:body></w:document>",
            "word/styles.xml": f'<w:styles xmlns:w="{WORDS}">{styles}</w:styles>',
            "docProps/core.xml": f'<cp:p xmlns:cp="c" xmlns:dc="d"><dc:title>{title}</dc:title></cp:p>',
        }
    )


def paragraph(text: str, style: str = "") -> str:
    named = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{named}<w:r><w:t>{text}</w:t></w:r></w:p>"


def epub(chapters: Sequence[str], title: str, more: Mapping[str, str] | None = None) -> bytes:
    """A book; its chapters are the bodies of pages. `more`: further files."""
    items = "".join(
        f'<item id="c{k}" href="text/ch%20{k}.xhtml" media-type="application/xhtml+xml"/>' for k in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{k}"/>' for k in range(len(chapters)))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>{title}</dc:title></metadata><manifest>{items}"
        '<item id="n" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/></manifest>'
        f'<spine><itemref idref="n"/>{spine}</spine></package>'
    )
    page = '<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{}</title></head><body>{}</body></html>'
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container><rootfile full-path="OEBPS/book.opf"/></container>',
            "OEBPS/book.opf": package,
            "OEBPS/nav.xhtml": page.format("Contents", "<p>Chapter list</p>"),
            **{f"OEBPS/text/ch {k}.xhtml": page.format(f"Part {k}", text) for k, text in enumerate(chapters)},
            **(more or {}),
        }
    )


def mediawiki(pages: Sequence[str], base: str = "https://de.wikipedia.org/wiki/Hauptseite") -> bytes:
    """A dump of these <page> elements' contents, of a wiki whose files are "Datei"."""
    about = (
        f"<siteinfo><sitename>W</sitename><dbname>{base.partition('//')[2][:2]}wiki</dbname><base>{base}</base><namespaces>"
        '<namespace key="0"/><namespace key="6">Datei</namespace><namespace key="14">Kategorie</namespace></namespaces>'
        "</siteinfo>"
    )
    body = "".join(f"<page>{page}</page>\n" for page in pages)
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">'
    return f"{head}\n{about}\n{body}</mediawiki>\n".encode()


def wiki_page(title: str, id_: int, markup: str, namespace: int = 0, more: str = "") -> str:
    """The content of a <page> with one revision. `more`: elements that stand before it."""
    escaped = markup.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f"<title>{title}</title><ns>{namespace}</ns><id>{id_}</id>{more}<revision><id>99{id_}</id><contributor><id>5</id>"
        f'</contributor><model>wikitext</model><text bytes="1">{escaped}</text></revision>'
    )
