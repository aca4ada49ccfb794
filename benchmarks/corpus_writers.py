"""Writers of big corpora in every form that `index` reads, for benchmarks/ingestion.py.

Each takes a file to write, a stream of articles without end (dicts of id, title, text) and the bytes of text wanted.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import html
import itertools
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Articles = Iterator[dict[str, Any]]
Writer = Callable[[Path, Articles, float], None]
_ROWS = 1000


def _enough(articles: Articles, wanted: float) -> Articles:
    """Articles until their texts have so many bytes."""
    size = 0.0
    while size < wanted:
        article = next(articles)
        size += len(article["text"])
        yield article


def _paragraphs(article: dict[str, Any]) -> list[str]:
    return [part for part in article["text"].split("\n") if part.strip()]


def write_cirrus(file: Path, articles: Articles, wanted: float) -> None:
    with gzip.open(file, "wb", compresslevel=1) as packed:
        size = 0
        while size < wanted:
            article = next(articles)
            flat = article["text"].replace("\n", " ")
            about = {
                "title": article["title"], "text": flat, "source_text": article["text"], "namespace": 0,
                "redirect": [], "heading": [], "category": ["Physics"], "opening_text": flat[:500],
            }  # fmt: skip
            action = {"index": {"_type": "page", "_id": article["id"]}}
            data = f"{json.dumps(action)}\n{json.dumps(about)}\n".encode()
            packed.write(data)
            size += len(data)


def write_parquet(file: Path, articles: Articles, wanted: float) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in ("id", "url", "title", "text")])
    with pq.ParquetWriter(file, schema, compression="snappy") as writer:
        rows = ({**a, "url": f"https://en.wikipedia.org/wiki/{a['id']}"} for a in _enough(articles, wanted))
        while batch := list(itertools.islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def write_arrow(file: Path, articles: Articles, wanted: float) -> None:
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in ("id", "title", "text")])
    rows = _enough(articles, wanted)
    with pa.ipc.new_stream(str(file), schema) as writer:
        while batch := list(itertools.islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def write_text(file: Path, articles: Articles, wanted: float) -> None:
    with open(file, "w", encoding="utf-8") as stream:
        stream.writelines(f"{a['title']}\n\n{a['text']}\n\n" for a in _enough(articles, wanted))


def write_lines(file: Path, articles: Articles, wanted: float) -> None:
    with open(file, "w", encoding="utf-8") as stream:
        for article in _enough(articles, wanted):
            stream.write("".join(f"{sentence}.\n" for sentence in article["text"].replace("\n", " ").split(". ")))


def write_tsv(file: Path, articles: Articles, wanted: float) -> None:
    with open(file, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["id", "text", "title"])
        writer.writerows([a["id"], a["text"], a["title"]] for a in _enough(articles, wanted))


def write_json(file: Path, articles: Articles, wanted: float) -> None:
    with open(file, "w", encoding="utf-8") as stream:
        for number, article in enumerate(_enough(articles, wanted)):
            stream.write(("[" if number == 0 else ",\n") + json.dumps(article))
        stream.write("]")


def write_jsonl(file: Path, articles: Articles, wanted: float) -> None:
    with open(file, "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"_id": a["id"], "title": a["title"], "contents": a["text"]}) + "\n"
                          for a in _enough(articles, wanted))  # fmt: skip


def write_extractor(file: Path, articles: Articles, wanted: float) -> None:
    with open(file, "w", encoding="utf-8") as stream:
        for a in _enough(articles, wanted):
            about = (
                f'id="{a["id"]}" url="https://en.wikipedia.org/wiki?curid={a["id"]}" title="{html.escape(a["title"])}"'
            )
            stream.write(f"<doc {about}>\n{a['title']}\n\n{html.escape(a['text'], quote=False)}\n</doc>\n\n")


def write_mediawiki(file: Path, articles: Articles, wanted: float) -> None:
    """Every paragraph has links, a reference, templates and a formula, as in an article on physics."""
    with bz2.open(file, "wt", compresslevel=1, encoding="utf-8") as stream:
        stream.write("<mediawiki><siteinfo><dbname>enwiki</dbname></siteinfo>\n")
        for a in _enough(articles, wanted):
            markup = a["text"]
            if not markup.startswith("#"):
                markup = "\n\n".join(_marked_up(part, number) for number, part in enumerate(_paragraphs(a)))
            page = f"<title>{html.escape(a['title'])}</title><ns>0</ns><id>{a['id']}</id>"
            stream.write(f"<page>{page}<revision><text>{html.escape(markup)}</text></revision></page>\n")
        stream.write("</mediawiki>\n")


def _marked_up(text: str, number: int) -> str:
    words = text.split(" ")
    for place in range(5, len(words), 12):
        words[place] = f"[[{words[place]}]]" if place % 2 else f"''{words[place]}''"
    heading = f"== Section {number} ==\n" if number else "{{Infobox x | name = y | mass = {{val|1.2|e=3|u=kg}}}}\n"
    source = "<ref>{{cite journal |last=A |title=On [[this]] |journal=B |volume=1 |year=2001 |doi=10.1/x}}</ref>"
    body = " ".join(words)
    return f"{heading}{body}{source} It is {{{{convert|{number}|km|mi}}}} or <math>E=mc^2</math>, 10<sup>3</sup>."


def _sections(articles: Articles, wanted: float) -> Iterator[str]:
    for a in _enough(articles, wanted):
        body = "".join(f"<p>{html.escape(part)} H<sub>2</sub>O</p>\n" for part in _paragraphs(a))
        yield f"<h2>{html.escape(a['title'])}</h2>\n{body}"


def write_html(file: Path, articles: Articles, wanted: float) -> None:
    with open(file, "w", encoding="utf-8") as stream:
        stream.write("<!doctype html><html><head><title>Big</title></head><body><nav>Menu</nav>\n")
        stream.writelines(_sections(articles, wanted))
        stream.write("</body></html>\n")


def write_epub(file: Path, articles: Articles, wanted: float) -> None:
    names: list[str] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        sections = _sections(articles, wanted)
        while chapter := list(itertools.islice(sections, 50)):
            names.append(f"c{len(names)}.xhtml")
            archive.writestr(names[-1], f"<html><head><title>x</title></head><body>{''.join(chapter)}</body></html>")
        items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in names)
        spine = "".join(f'<itemref idref="{name}"/>' for name in names)
        archive.writestr("b.opf", f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>")
        archive.writestr("META-INF/container.xml", '<container><rootfile full-path="b.opf"/></container>')


def write_docx(file: Path, articles: Articles, wanted: float) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("word/styles.xml", '<styles><style styleId="h"><name val="heading 1"/></style></styles>')
        with archive.open("word/document.xml", "w", force_zip64=True) as stream:
            stream.write(b"<w:document xmlns:w='w'><w:body>")
            for a in _enough(articles, wanted):
                heading = (
                    f"<w:p><w:pPr><w:pStyle w:val='h'/></w:pPr><w:r><w:t>{html.escape(a['title'])}</w:t></w:r></w:p>"
                )
                runs = "".join(f"<w:p><w:r><w:t>{html.escape(part)}</w:t></w:r></w:p>" for part in _paragraphs(a))
                stream.write((heading + runs).encode())
            stream.write(b"</w:body></w:document>")


def write_pdf(file: Path, articles: Articles, wanted: float) -> None:
    """Pages of 45 lines of 90 characters, with a running head and a number."""
    places: list[int] = []
    text = (line for a in _enough(articles, wanted) for line in _wrapped(a["text"]))
    count = 0
    with open(file, "wb") as stream:

        def put(number: int, body: bytes) -> None:
            places.extend([0] * (number + 1 - len(places)))
            places[number] = stream.tell()
            stream.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))

        def put_parent(number: int, parent: str, kids: range, pages: int) -> None:
            listed = " ".join(f"{kid} 0 R" for kid in kids)
            put(number, f"<< /Type /Pages {parent}/Kids [{listed}] /Count {pages} >>".encode())

        # Hundred pages a node, as programs write long files: a node, and for each of its pages the page and its text.
        step = 1 + 2 * 100
        stream.write(b"%PDF-1.4\n")
        put(3, b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
        while lines := list(itertools.islice(text, 45)):
            shown = "".join(f"({line}) Tj T*\n" for line in ["A running head", *lines, str(count + 1)])
            content = f"BT /F1 10 Tf 14 TL 50 780 Td\n{shown}ET".encode("latin-1", "replace")
            parent = 4 + count // 100 * step
            number = parent + 1 + 2 * (count % 100)
            put(number + 1, b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
            put(number, b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
                        b"/Contents %d 0 R >>" % (parent, number + 1))  # fmt: skip
            count += 1
        parents = range(4, 4 + -(-count // 100) * step, step)
        for row, parent in enumerate(parents):
            pages = min(100, count - 100 * row)
            put_parent(parent, "/Parent 2 0 R ", range(parent + 1, parent + 1 + 2 * pages, 2), pages)
        put_parent(2, "", parents, count)
        put(1, b"<< /Type /Catalog /Pages 2 0 R >>")
        start = stream.tell()
        table = "".join(f"{place:010} 00000 n \n" for place in places[1:])
        end = f"xref\n0 {len(places)}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(places)} /Root 1 0 R >>\n"
        stream.write(f"{end}startxref\n{start}\n%%EOF\n".encode())


def _wrapped(text: str) -> Iterator[str]:
    line = ""
    for word in text.replace("\\", " ").replace("(", "[").replace(")", "]").split():
        if len(line) + len(word) > 90:
            yield line
            line = ""
        line += f"{word} "
    yield line


WRITERS: dict[str, tuple[str, Writer]] = {
    "cirrus": ("dump.json.gz", write_cirrus),
    "parquet": ("dump.parquet", write_parquet),
    "arrow": ("dump.arrow", write_arrow),
    "text": ("dump.txt", write_text),
    "lines": ("lines.txt", write_lines),
    "tsv": ("dump.tsv", write_tsv),
    "json": ("dump.json", write_json),
    "jsonl": ("dump.jsonl", write_jsonl),
    "extractor": ("wiki_00", write_extractor),
    "mediawiki": ("pages-articles.xml.bz2", write_mediawiki),
    "html": ("big.html", write_html),
    "epub": ("big.epub", write_epub),
    "docx": ("big.docx", write_docx),
    "pdf": ("big.pdf", write_pdf),
}
"""The name of the file and its writer, by form."""
