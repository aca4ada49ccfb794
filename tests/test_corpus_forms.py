"""Every form of corpus file: told by its first bytes, read right, left out with a reason, or refused with a remedy."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import struct
from collections import Counter
from pathlib import Path

import documents
import pyarrow as pa
import pyarrow.feather as feather
import pytest
from pypdf.errors import LimitReachedError

from solution.config.retrieval import RetrievalConfig
from solution.errors import UserError
from solution.files import content_hash, file_hash
from solution.formats.items import Source as FormSource
from solution.formats.tabular import read_arrow
from solution.retrieval.articles import ArticleRules
from solution.retrieval.corpus import Document, read_corpus
from solution.retrieval.readers import documents as office
from solution.retrieval.readers import packing, pages
from solution.retrieval.readers.pages import PageText
from solution.retrieval.readers.pdf import _not_whole, paragraphs
from solution.retrieval.readers.wikitext import article_text, is_disambiguation
from solution.retrieval.sources import corpus_fingerprint
from solution.tables import decode

PROSE = "Water is a molecule of two hydrogen atoms and one oxygen atom; it boils at 373.15 K at one bar of pressure."
ROWS = [{"id": "a", "title": "Ice", "text": "Ice floats."}, {"id": "b", "title": "", "text": "Salt, «NaCl», é."}]
READ = [Document("a", "Ice", "Ice floats."), Document("b", "", "Salt, «NaCl», é.")]


def read(path: Path, **how) -> list[Document]:
    return list(read_corpus(str(path), ArticleRules(), Counter(), **how))


def stream(rows: list[dict]) -> bytes:
    """An Arrow stream in batches, as Hugging Face's library saves data sets."""
    sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    return sink.getvalue().to_pybytes()


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def tsv(rows: list[dict], separator: str = "\t") -> str:
    return "".join(
        separator.join(row) + "\r\n"
        for row in [["id", "text", "title"], *([r["id"], f'"{r["text"]}"', r["title"]] for r in rows)]
    )


# --- tables --------------------------------------------------------------------------------

TABLES = {
    "psgs.tsv": tsv(ROWS).encode(),
    "tabs.txt": tsv(ROWS).encode(),
    "semicolons.csv": tsv(ROWS, ";").encode(),
    "excel.csv": b"sep=;\r\n" + tsv(ROWS, ";").encode(),
    "case.csv": tsv(ROWS, ",").replace("id,text,title", "ID, Text ,Title").encode(),
    "beir.jsonl": lines(
        [{"_id": r["id"], "metadata": {}, **{k: r[k] for k in ("title", "text")}} for r in ROWS]
    ).encode(),
    "pyserini.jsonl": lines([{"id": r["id"], "title": r["title"], "contents": r["text"]} for r in ROWS]).encode(),
    "lines.txt": lines(ROWS).encode(),
    "array.json": json.dumps(ROWS).encode(),
    "indented.jsonl": json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "stream.arrow": stream(ROWS),
    "gzipped.csv": gzip.compress(lines(ROWS).encode()),
    "not_gzipped.jsonl.gz": lines(ROWS).encode(),
    "xz.jsonl.xz": lzma.compress(lines(ROWS).encode()),
    "packed.arrow.bz2": bz2.compress(stream(ROWS)),
    "utf16.csv": tsv(ROWS, ",").encode("utf-16"),
    "returns.csv": tsv(ROWS, ",").replace("\r\n", "\r").encode(),
}


@pytest.mark.parametrize("name", [*TABLES, "feather.arrow", "zstd.jsonl.zst"])
def test_tables_in_every_form_give_the_same_documents(tmp_path, name):
    path = tmp_path / name
    if name == "feather.arrow":
        feather.write_feather(pa.Table.from_pylist(ROWS), path)
    elif name == "zstd.jsonl.zst":
        with pa.output_stream(str(path), compression="zstd") as packed:
            packed.write(lines(ROWS).encode())
    else:
        path.write_bytes(TABLES[name])
    assert read(path) == READ


def test_a_table_with_ids_in_front_and_no_header(tmp_path):
    (tmp_path / "collection.tsv").write_text('0\tThe "moon.\n\n1\tA tab\tstays.\n')
    assert read(tmp_path / "collection.tsv") == [Document("0", "", 'The "moon.'), Document("1", "", "A tab\tstays.")]


def test_an_array_is_read_entry_by_entry(tmp_path):
    """Entries over many blocks; the first comes before the fault at the end is seen."""
    rows = [{"id": str(k), "text": "word \\ ] , " * (k % 700 + 1)} for k in range(1, 900)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, indent=1))
    assert [(d.id, d.text) for d in read(path)] == [(row["id"], row["text"].strip()) for row in rows]
    path.write_text(json.dumps(rows)[:-1] + ", nonsense]")
    found = read_corpus(str(path))
    assert next(found).id == "1"
    with pytest.raises(UserError, match=r"a.json, entry 900 is not JSON"):
        list(found)


def test_a_damaged_arrow_file_is_refused_and_crashes_nothing(tmp_path):
    whole = stream([{"text": "Ice floats."}])
    torn = whole.replace(struct.pack("<ii", 0, 11), struct.pack("<ii", 0, 1 << 30))
    assert torn != whole
    (tmp_path / "a.arrow").write_bytes(torn)
    with pytest.raises(UserError, match="not a whole Arrow file: .*a.arrow"):
        read(tmp_path / "a.arrow")
    with pytest.raises(UserError, match="not a whole Arrow file: .*a.arrow"):
        read_arrow(torn, FormSource(tmp_path / "a.arrow", "the exam"))


ARRAYS = {
    b"[]": "holds no text",
    b'[{"text": "a"} {"text": "b"}]': "entry 2 is not JSON .a comma was expected",
    b'[{"text": "a"}': "entry 2 is not JSON",
    b'[{"text": "a"}] x': "more behind its JSON array",
    b'[{"text": "a"}, 3]': "entry 2 is no JSON object",
    b'[{"title": "a"}]': "entry 1: no column text",
}


@pytest.mark.parametrize("data", ARRAYS)
def test_arrays_that_are_none(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(UserError, match=ARRAYS[data]):
        read(tmp_path / "a.json")


# --- texts ---------------------------------------------------------------------------------


def test_a_sentence_a_line(tmp_path):
    path = tmp_path / "ARC_Corpus.txt"
    path.write_text("Heat flows.\nIs ice cold?\nThe moon “orbits.”\n水は冷たい。\nNo end\n")
    assert [(d.id, d.title, d.text) for d in read(path)][:2] == [("0", "", "Heat flows."), ("1", "", "Is ice cold?")]
    assert len(read(path)) == 5
    for text in ("Prose that was\nwrapped by hand\nat every line.\n", "One.\n\nTwo.\nThree.\n", "Alone."):
        path.write_text(text)
        assert [d.id for d in read(path)] == [path.name]


def test_texts_that_look_like_tables(tmp_path):
    path = tmp_path / "t.txt"
    for text in ("Figures, text, and tables\nare in this file.\n", "1\tHeat\nwhich flows\n", "text,id\n\nProse.\n"):
        path.write_text(text)
        assert [(d.id, d.text) for d in read(path)] == [("t.txt", text.strip())]


def test_one_json_object_over_several_lines(tmp_path):
    for name, value in {"a.json": ROWS[0], "b.json": {"about": 1, "data": ROWS[1:]}, "c.json": {"a": 1}}.items():
        (tmp_path / name).write_text(json.dumps(value, indent=1))
    assert read(tmp_path) == READ
    with pytest.raises(UserError, match="c.json, entry 1: no column text"):
        read(tmp_path / "c.json")
    (tmp_path / "c.json").write_text('{\n"a": 1')
    with pytest.raises(UserError, match="c.json is one JSON object, and not whole"):
        read(tmp_path / "c.json")


def test_encodings(tmp_path):
    path, text = tmp_path / "notes.txt", "Naïve “quotes” – 37 °C.\nThe façade.\n"
    path.write_bytes(text.encode("cp1252"))
    with pytest.raises(
        UserError, match=r"not UTF-8: .*notes.txt, line 1, byte 0xef.*retrieval.encoding=cp1252"
    ) as told:
        read(path)
    assert "Naïve “quotes”" in str(told.value) or "The façade" in str(told.value)
    assert "iconv" not in str(told.value)
    assert [d.text for d in read(path, encoding="cp1252")] == text.splitlines()
    (tmp_path / "other.txt").write_text("Déjà vu.\nIt is UTF-8.")  # beside it, and read as what it is
    assert "Déjà vu." in [d.text for d in read(tmp_path, encoding="cp1252")]
    assert corpus_fingerprint(str(path)) == corpus_fingerprint(str(path), "cp1252")  # the setting is in the index's key


# --- pages ---------------------------------------------------------------------------------

PAGE = r"""<!DOCTYPE html><html><head><title>Heat - My site</title><meta charset="CHARSET"><style>p {}</style></head>
<body><header><p>Logo</p></header><nav>Home</nav><div class="sidebar menu"><div>Deep</div> Ads</div>
<script>var a = "<p>";</script>
<ul><li><a href="1">One</a></li><li><a href="2">Two</a></li><li><a>Three</a></li></ul>
<h1>Heat</h1><p>H<sub>2</sub>O at 10<sup>3</sup> Pa;
<a class="reference" href="x">linked</a>&nbsp;text<sup class="reference">[1]</sup>, caf&eacute; é.
<h2>Units<span class="mw-editsection">[edit]</span></h2><p>E<script type="math/tex">=mc^2</script>
<img alt="A photo"><img alt="x^2 + y"></p><p aria-hidden="true">no</p><table><tr><td>1</td><td>2</td></tr></table>
<footer>2024</footer></body></html>"""


def test_html_without_its_frame(tmp_path):
    expected = [
        Document("p.html", "Heat", "H₂O at 10³ Pa; linked text, café é."),
        Document("p.html/1", "Heat > Units", "E=mc^2 x^2 + y\n1 2"),
    ]
    for charset, encoding in (("utf-8", "utf-8"), ("iso-8859-1", "cp1252")):
        (tmp_path / "p.html").write_bytes(PAGE.replace("CHARSET", charset).encode(encoding))
        assert read(tmp_path / "p.html") == expected
    main = "<main><article><header><h1>A</h1></header>Text.</article></main>"
    (tmp_path / "p.html").write_text(f"<html><body><div>Frame</div>{main}After.</body></html>")
    assert read(tmp_path / "p.html") == [Document("p.html", "A", "Text.")]
    (tmp_path / "p.html").write_text("<html><p hidden>no<p>Yes.<div class=menu>Never closed.")
    assert read(tmp_path / "p.html") == [Document("p.html", "p", "Yes.")]
    (tmp_path / "p.html").write_text("<html><body><div class=menu>Never closed.<script>no</script>")
    assert read(tmp_path / "p.html") == [Document("p.html", "p", "Never closed.")]
    (tmp_path / "p.html").rename(tmp_path / "p.csv")
    with pytest.raises(UserError, match="p.csv is a page of HTML, though its name says .csv"):
        read(tmp_path / "p.csv")


ODD_CHARSETS = (
    "utf-16 utf-16le utf_32 idna undefined rot13 hex base64 zlib bz2 uu quopri punycode unicode_escape "
    "raw_unicode_escape no-such"
).split()


def test_a_charset_that_no_page_can_have_is_ignored(tmp_path):
    path = tmp_path / "p.html"
    for charset in ODD_CHARSETS:
        for head in (f'<meta charset="{charset}">', f'<?xml version="1.0" encoding="{charset}"?>'):
            path.write_text(f"{head if head[1] == '?' else ''}<html>{head if head[1] == 'm' else ''}<p>Café 水.</html>")
            assert [d.text for d in read(path)] == ["Café 水."]
    path.write_bytes("<html><meta charset=ascii><p>Café.".encode("utf-16"))
    assert [d.text for d in read(path)] == ["Café."]


@pytest.mark.parametrize("name", ["hex", "idna", "undefined", "no-such", "a\0", "\ud800"])
def test_an_encoding_of_no_text_is_refused(name):
    with pytest.raises(ValueError, match="knows no encoding of texts"):
        RetrievalConfig(encoding=name)
    with pytest.raises(UserError, match="no such encoding of texts"):
        decode(b"id,prompt", "the exam", name)
    assert RetrievalConfig(encoding="mac_roman").encoding == "mac_roman"


def test_markup_that_is_never_closed_takes_no_quadratic_time(tmp_path):
    """Of each a page of 4 MB would take minutes."""
    path = tmp_path / "p.html"
    for start, more in (("<p ", "y "), ("<!--", "<!"), ("<![", "<!["), ("</p ", "</"), ('<p a="', "<p ")):
        path.write_text("<html>Before." + start + more * (1_000_000 // len(more)))
        with pytest.raises(UserError, match="p.html has a tag or a comment that is not closed: '<"):
            read(path)
    path.write_text("<html>Before.<!--" + "-" * 200_000 + f"--><p>After.<script>{'<p>' * 50_000}</script> End")
    assert [d.text for d in read(path)] == ["Before.\nAfter. End"]
    path.write_text("<html>Before <![foo[ it ]]>and after.<p>End <![CDATA[ a > b ]]>")
    assert [d.text for d in read(path)] == ["Before and after.\nEnd"]


def test_what_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    limit = 1 << 18
    for module in (packing, pages, office):
        monkeypatch.setattr(module, "LONGEST_LINE", limit)
    long = "word " * (limit // 4)
    files = {
        "text.docx": documents.docx(documents.paragraph(long)),
        "tags.docx": documents.docx(f"<w:p>{'<w:br/>' * (limit // 16)}</w:p>"),
        "tag.docx": documents.docx(f'<w:p a="{long}"/>'),
        "title.docx": documents.docx("", long),
        "b.epub": documents.epub([f"<p>{long}</p>"], "Book"),
        "text.html": f"<html>{long}".encode(),
        "tags.html": f"<html>{'<br>' * limit} {long}".encode(),
        "math.html": f"<html><math><mi>{long}".encode(),
        "tag.html": f'<html><p a="{long}">'.encode(),
        "zipped.html.gz": gzip.compress(f"<html>{long}".encode()),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=rf"{name}.* (longer|more) than 0 MiB"):
            read(tmp_path / name)
    (tmp_path / "many.docx").write_bytes(documents.docx(documents.paragraph("word " * 5000) * 15))
    assert sum(len(d.text.split()) for d in read(tmp_path / "many.docx")) == 75_000


def test_a_page_in_any_pieces_gives_the_same_sections():
    whole = PageText()
    whole.feed(PAGE)
    whole.finish()
    for size in (1, 7, 64):
        page = PageText()
        for start in range(0, len(PAGE), size):
            page.feed(PAGE[start : start + size])
        page.finish()
        assert (page.title, page.ready) == (whole.title, whole.ready)


# --- documents -----------------------------------------------------------------------------

HEAD = "A Book of Heat"
BOOK = [
    [HEAD, "Heat is energy in transfer between bodies of different tempera-", "tures. It was long thought to be a",
     "fluid called caloric, a well-", "known error.", "A new paragraph goes on to the end of the page", "1"],
    [HEAD, "and on to the next one. Water boils at 373.15 K.", "The well-known law forbids", "2"],
    [HEAD, "a machine that only turns heat into work.", "3"],
    [HEAD, "Last page.", "4"],
]  # fmt: skip


def test_pdf(tmp_path):
    (tmp_path / "b.pdf").write_bytes(documents.pdf(BOOK, "On heat", {"First": 0, "Second": 2}))
    assert read(tmp_path / "b.pdf") == [
        Document("b.pdf/p1", "On heat > First > page 1", "Heat is energy in transfer between bodies of different "
                 "temperatures. It was long thought to be a fluid called caloric, a well-known error.\nA new "
                 "paragraph goes on to the end of the page and on to the next one."),
        Document("b.pdf/p2", "On heat > First > page 2", "Water boils at 373.15 K. The well-known law forbids a "
                 "machine that only turns heat into work."),
        Document("b.pdf/p4", "On heat > Second > page 4", "Last page."),
    ]  # fmt: skip
    (tmp_path / "b.pdf").write_bytes(documents.pdf([[], []]))
    with pytest.raises(UserError, match=r"2 x PDF page without text.*ocrmypdf"):
        read(tmp_path / "b.pdf")
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4\nnothing")
    with pytest.raises(UserError, match="not a whole PDF file: .*b.pdf"):
        read(tmp_path / "b.pdf")
    error = _not_whole(tmp_path / "b.pdf", ", page 3", LimitReachedError("Reached maximum array element count."))
    assert re.fullmatch(r"the corpus .*b.pdf, page 3 is larger than pypdf reads \(.*\): part it into files", str(error))


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("photo-\nsynthesis is\nquick", {}, "photosynthesis is quick"),
        ("a well-\nknown law", {"well-known": 1}, "a well-known law"),
        ("the Debye-\nHückel law", {}, "the Debye-Hückel law"),
        ("pages 10-\n20 and", {}, "pages 10- 20 and"),
        ("a list of the things:\n• ice\n• salt", {}, "a list of the things:\n• ice\n• salt"),
        (
            "atom: smallest part of an element\nbase (alkali): what takes protons from an\nacid\ncell: unit of life",
            {},
            "atom: smallest part of an element\nbase (alkali): what takes protons from an acid\ncell: unit of life",
        ),
        (
            "the law says: no\nmachine does it and none\nwill be known to",
            {},
            "the law says: no machine does it and none will be known to",
        ),
    ],
)
def test_lines_of_a_page_are_joined(text, words, expected):
    assert paragraphs(text.split("\n"), Counter(words)) == expected


FORMULA = (
    "<m:oMath><m:r><m:t>E=m</m:t></m:r><m:sSup><m:e><m:r><m:t>c</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup>"
    "</m:sSup></m:oMath>"
)


def test_docx(tmp_path):
    raised = '<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:t>3</w:t></w:r>'
    cells = "".join(f"<w:tc>{documents.paragraph(text)}</w:tc>" for text in ("0", "0.6"))
    body = (
        documents.paragraph("Before.")
        + documents.paragraph("Energy", "Kop1")
        + f"<w:p><w:r><w:t>Mass: </w:t></w:r>{FORMULA}<w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        + f"<w:r><w:tab/><w:t>10</w:t></w:r>{raised}</w:p><w:tbl><w:tr>{cells}</w:tr></w:tbl>"
        + documents.paragraph("Units", "Kop2")
        + documents.paragraph("Joule.")
    )
    (tmp_path / "n.docx").write_bytes(documents.docx(body, "Notes"))
    assert read(tmp_path / "n.docx") == [
        Document("n.docx", "Notes", "Before."),
        Document("n.docx/1", "Notes > Energy", "Mass: E=mc² 10³\n0 | 0.6"),
        Document("n.docx/2", "Notes > Energy > Units", "Joule."),
    ]
    (tmp_path / "n.docx").write_bytes(documents.docx(body)[:-40])
    with pytest.raises(UserError, match="not a whole DOCX file: .*n.docx"):
        read(tmp_path / "n.docx")


def test_epub(tmp_path):
    chapters = ["<h1>One</h1><p>First&#160;text.</p><h2>Sub</h2><p>10<sup>3</sup></p>", "<p>No heading.</p>"]
    (tmp_path / "b.epub").write_bytes(documents.epub(chapters, "Salt"))
    assert read(tmp_path / "b.epub") == [
        Document("b.epub", "Salt > One", "First text."),
        Document("b.epub/1", "Salt > One > Sub", "10³"),
        Document("b.epub/2", "Salt > Part 1", "No heading."),
    ]
    locked = {
        "META-INF/encryption.xml": '<e><EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/></e>'
    }
    (tmp_path / "b.epub").write_bytes(documents.epub(chapters, "Salt", locked))
    with pytest.raises(UserError, match="protected against copying"):
        read(tmp_path / "b.epub")


# --- dumps ---------------------------------------------------------------------------------


def test_a_dump_of_mediawiki(tmp_path):
    markup = f"'''Wasser''' [[Datei:X.jpg|thumb|no]] {PROSE} See 10<sup>3</sup>.<ref>no</ref>\n== Use ==\n{PROSE}"
    markup += "\n== See also ==\nIce"
    history = documents.wiki_page("H", 8, f"{PROSE} New.").replace(
        "<revision>", f"<revision><text>Old {PROSE}</text></revision><revision>"
    )
    dump = documents.mediawiki(
        [
            documents.wiki_page("Wasser", 7, markup),
            documents.wiki_page("Talk:Wasser", 1, PROSE, 1),
            documents.wiki_page("Eau", 2, "#WEITERLEITUNG [[Wasser]]", 0, '<redirect title="Wasser"/>'),
            documents.wiki_page("Hg", 3, f"{PROSE} {{{{Disambiguation}}}}"),
            history,
        ]
    )
    (tmp_path / "dewiki-pages-articles.xml.bz2").write_bytes(bz2.compress(dump[:300]) + bz2.compress(dump[300:]))
    dropped: Counter[str] = Counter()
    assert list(read_corpus(str(tmp_path), ArticleRules(), dropped)) == [
        Document("7", "Wasser", f"Wasser {PROSE} See 10³."),
        Document("7/1", "Wasser > Use", PROSE),
        Document("8", "H", f"{PROSE} New."),
    ]
    assert dropped == {"talk, user or other page": 1, "redirect": 1, "disambiguation page": 1}
    (tmp_path / "simplewiki.xml").write_bytes(
        documents.mediawiki([documents.wiki_page("Water", 7, PROSE)], "https://simple.x/")
    )
    assert [d.id for d in read(tmp_path)] == [
        *(f"dewiki-pages-articles.xml.bz2/{k}" for k in ("7", "7/1", "8")),
        "simplewiki.xml/7",
    ]
    (tmp_path / "simplewiki.xml").write_bytes(dump[:-30])
    with pytest.raises(UserError, match="simplewiki.xml is not whole XML"):
        read(tmp_path / "simplewiki.xml")
    (tmp_path / "simplewiki.xml").write_bytes(
        dump.replace(b"<mediawiki", b'<!DOCTYPE m [<!ENTITY a "b">]><mediawiki', 1)
    )
    with pytest.raises(UserError, match="declares the XML entity"):
        read(tmp_path / "simplewiki.xml", encoding=None)


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        (
            "an [[ion]], [[ion|ions]], [[w:Ion|one]] [http://x.org link] [[fr:Eau]][[Category:X]]",
            "an ion, ions, one link ",
        ),
        ("{{convert|100|C|F}}, {{cvt|5|ft|10|in|m}}, {{convert|1|-|2|km|mi}}", "100 °C, 5 ft 10 in, 1–2 km"),
        ("{{val|1.67|(5)|e=-27|u=kg}} {{val|3|0.1|ul=m|up=s}}", "1.67(5)×10⁻²⁷ kg 3±0.1 m/s"),
        ("{{chem2|H2SO4}} <chem>CO2</chem> {{chem|H|2|O}} x<sub>i,j</sub>", "H₂SO₄ CO₂ H₂O x_(i,j)"),
        ("<math>E = mc^2</math> {{math|''x''{{sup|2}} {{=}} 4}} {{frac|1|2}} {{sqrt|2}}", "E = mc^2 x² = 4 1/2 √(2)"),
        ("a<!-- no --> b<ref name=x /> {{Infobox|a=b}}{{lang|de|Eis}} &alpha;", "a b Eis α"),
        ("{|\n! T !! p\n|-\n| 0 || 0.6\n|}", "\nT | p\n0 | 0.6\n"),
        ("* one\n# two\n: three", "*  one\n*  two\n three"),
        ("<pre>f(x)</pre><nowiki>[[a]]</nowiki> {{nowrap|5 km}} {{formatnum:1000}}", "\nf(x)\n[[a]] 5 km 1000"),
        ("an {{open template and [[an open link", "an {{open template and [[an open link"),
    ],
)
def test_markup_becomes_text(markup, expected):
    assert article_text(markup) == expected


def test_pages_that_only_list_others():
    assert all(
        map(
            is_disambiguation,
            ["{{disambig}}", "x {{Airport disambiguation|a}}", "{{ hndis |name=x}}", "{{Begriffsklärung}}"],
        )
    )
    assert not any(map(is_disambiguation, ["{{Disambiguation needed}}x", "disambiguation", "{{about|disambig}}"]))


# --- folders -------------------------------------------------------------------------------


def test_a_folder_with_everything(tmp_path, capsys):
    files = {
        "README.md": b"# My corpus\n\nFetched in 2024.",
        "notes.md": b"# Ice\nIt floats.",
        "arc.txt": b"Heat flows.\nIce melts.\n",
        "p.html": b"<html><body>A page.</body></html>",
        "sub/b.pdf": documents.pdf([["One page."]]),
        "sub/n.docx": documents.docx(documents.paragraph("A note.")),
        "sub/b.epub": documents.epub(["<p>A book.</p>"], "Book"),
        "alone/README.md": b"A text of its own.",
        "picture.png": b"\x89PNG\r\n\x1a\n\0",
        "old.doc": b"\xd0\xcf\x11\xe0\0",
        "kiwix.zim": b"ZIM\x04\0",
        "torn.xlsx": b"PK\x03\x04 torn",
        "table.xlsx": documents.zipped({"xl/workbook.xml": "<x/>"}),
        ".git/config.txt": b"hidden",
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert [(d.id, d.text) for d in read(tmp_path)] == [
        ("alone/README.md", "A text of its own."), ("arc.txt/0", "Heat flows."), ("arc.txt/1", "Ice melts."),
        ("notes.md", "It floats."), ("p.html", "A page."), ("sub/b.epub", "A book."), ("sub/b.pdf/p1", "One page."),
        ("sub/n.docx", "A note."),
    ]  # fmt: skip
    told = capsys.readouterr().err
    assert told.startswith("6 files of the corpus folder left out: README.md (about the others); ")
    for part in (
        "kiwix.zim (a ZIM archive: unpack it",
        "old.doc (an old Word",
        "picture.png (no known form)",
        "table.xlsx (an Excel",
        "torn.xlsx (not a whole Excel file)",
    ):
        assert part in told
    # Tables among them: texts are then about the tables.
    (tmp_path / "passages.jsonl").write_text('{"text": "A row."}\n')
    (tmp_path / "index.csv").write_text("id,file\n1,x\n")
    (tmp_path / "info.json").write_text('{\n "a": 1\n}')
    assert [d.text for d in read(tmp_path)] == ["A page.", "A row.", "A book.", "One page.", "A note."]
    told = capsys.readouterr().err
    assert "README.md, alone/README.md, arc.txt, notes.md (a text beside tables)" in told
    assert "index.csv, info.json (no column of texts)" in told


def test_data_sets_as_others_lay_them_out(tmp_path, capsys):
    def write(name: str, data: bytes | str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    write("hf/train/state.json", '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    write("hf/train/dataset_info.json", '{"features": {}}')
    write("hf/train/cache-12.arrow", stream([{"text": "cached"}]))
    write("hf/train/data-00000-of-00001.arrow", stream([{"text": "saved"}]))
    assert read(tmp_path / "hf") == [Document("train/data-00000-of-00001.arrow/0", "", "saved")]
    for corpus, queries in (("beir/corpus.jsonl", "beir/queries.jsonl"), ("hub/corpus/c.jsonl", "hub/queries/q.jsonl")):
        write(corpus, '{"_id": "d1", "title": "", "text": "A passage."}\n')
        write(queries, '{"_id": "q1", "text": "A question?"}\n')
        write(f"{corpus.partition('/')[0]}/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\n")
        assert read(tmp_path / corpus.partition("/")[0]) == [Document("d1", "", "A passage.")]
    capsys.readouterr()
    for wiki in ("en", "simple"):
        write(
            f"wikis/{wiki}/1.jsonl",
            lines([{"id": "308", "url": f"https://{wiki}.wikipedia.org/wiki/A", "text": PROSE}]),
        )
    assert [d.id for d in read(tmp_path / "wikis")] == ["en/308", "simple/308"]
    assert capsys.readouterr().err.count("stand before") == 1
    for part in ("a", "b"):
        write(f"parts/{part}/x.jsonl", '{"id": 0, "text": "one"}\n{"id": 1, "text": "two"}\n')
    assert [d.id for d in read(tmp_path / "parts")] == ["a/0", "a/1", "b/0", "b/1"]


def test_all_bad_files_are_told_at_once(tmp_path):
    files = {
        "1.jsonl": b'{"text": "fine"}\n', "2.jsonl": b'{"text": "a"}\n{"text": \n', "3.csv": b"text\na\nb,c\n",
        "4.jsonl": b'{"text": "fine too"}\n', "5.html": b"<html>caf\xe9</html>", "6.pdf": b"%PDF-1.4",
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match="4 problems") as told:
        read(tmp_path)
    assert all(part in str(told.value) for part in ("2.jsonl, line 2", "3.csv, line 3", "5.html, byte 0xe9", "6.pdf"))
    # What the beginnings show is told before anything is read.
    (tmp_path / "7.parquet").write_bytes(b"")
    (tmp_path / "8.jsonl").write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n")
    with pytest.raises(UserError, match="(?s)2 problems.*7.parquet.*8.jsonl is a pointer of Git LFS.*git lfs pull"):
        read_corpus(str(tmp_path))


def test_a_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.txt")
    try:
        (tmp_path / name).write_text("Ice floats.")
    except OSError:
        pytest.skip("this file system takes no such names")
    for path in (tmp_path, tmp_path / name):
        for way in (lambda p: corpus_fingerprint(str(p)), read):
            with pytest.raises(UserError, match=r"names are not UTF-8: rename caf\\xe9.txt$"):
                way(path)


def test_a_library_that_is_not_installed_is_named(tmp_path, monkeypatch):
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / name).write_bytes(documents.pdf([["x"]]))
    (tmp_path / "w.xml").write_bytes(documents.mediawiki([]))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"a.pdf, .*b.pdf.*w.xml. Run: pip install pypdf mwparserfromhell"):
        read_corpus(str(tmp_path))


def test_corpora_of_the_first_forms_keep_their_fingerprint(tmp_path):
    """Else every index of a version before would be made again; and one that is read otherwise gets another."""

    def plain(*names: str) -> str:
        return content_hash({name: file_hash(tmp_path / name) for name in sorted(names)})

    (tmp_path / "a.md").write_text("# Ice\nfloats")
    (tmp_path / "b.txt").write_text("Prose in\nlines without an end")
    assert corpus_fingerprint(str(tmp_path)) == plain("a.md", "b.txt")
    (tmp_path / "c.jsonl").write_text('{"id": 1, "text": "x"}\n')
    (tmp_path / "README.md").write_text("x")
    assert corpus_fingerprint(str(tmp_path)) == plain("a.md", "b.txt", "c.jsonl", "README.md")
    assert corpus_fingerprint(str(tmp_path / "c.jsonl")) == file_hash(tmp_path / "c.jsonl")
    before = {"c.jsonl": '{"_id": 1, "text": "x"}\n', "b.txt": "One.\nTwo.\n"}
    for name, text in before.items():
        (tmp_path / name).write_text(text)
        assert corpus_fingerprint(str(tmp_path / name)) != file_hash(tmp_path / name)
    for name in ("b.txt", "c.jsonl"):
        (tmp_path / name).unlink()
    assert corpus_fingerprint(str(tmp_path)) != plain("a.md", "README.md")  # once a README was read too
