"""Dumps of wikis: MediaWiki's XML, CirrusSearch, and WikiExtractor's <doc> elements."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.formats.xml import elements
from solution.retrieval.articles import is_redirect
from solution.retrieval.readers.packing import BROKEN, LONGEST_LINE, REMEDY, broken, lines, open_unpacked
from solution.retrieval.readers.rows import Row
from solution.retrieval.readers.wikitext import FILES_AND_CATEGORIES, article_text, is_disambiguation
from solution.tables import json_objects

# --- MediaWiki -----------------------------------------------------------------------------

_HIDDEN_KEYS = ("6", "14")  # of the namespaces of files and categories, whatever their names
_MARKUP = ("wikitext", "")  # the only models of content that are articles; others are programs and data


def mediawiki_rows(path: Path) -> Iterator[Row]:
    """The pages of a dump as MediaWiki exports it; of a page with a history, the last version.

    Memory is that of one page. Only articles are parsed: other namespaces and redirects are known without.

    Raises:
        UserError: while reading: not whole XML, or a damaged packed file.
    """
    hidden = set(FILES_AND_CATEGORIES)
    base = ""
    about: dict[str, str] = {}
    number = 0
    try:
        with open_unpacked(path) as stream:
            for element in elements(stream, f"the corpus {path}", {"siteinfo", "page"}, LONGEST_LINE):
                if element.tag == "namespaces":
                    names = [names for names in element if names.get("key") in _HIDDEN_KEYS]
                    hidden |= {(name.text or "").casefold() for name in names} - {""}
                elif element.tag == "base":
                    base = (element.text or "").strip()
                elif element.tag == "page":
                    number += 1
                    yield Row(path, f"page {number}", _page_cells(about, base, hidden), is_article=True)
                    about = {}
                elif element.tag == "revision":
                    about |= {"text": "", "model": ""} | {
                        part.tag: part.text or "" for part in element if part.tag != "id"
                    }
                else:  # of a page: title, ns, id, redirect
                    about[element.tag] = element.text or ""
    except BROKEN as error:
        raise broken(path, f", after page {number}", error) from None


def _page_cells(about: dict[str, str], base: str, hidden: set[str]) -> dict[str, Any]:
    is_article = about.get("ns", "0").strip() in ("0", "") and about.get("model", "").strip() in _MARKUP
    cells: dict[str, Any] = {"title": about.get("title", ""), "namespace": 0 if is_article else -1, "url": base}
    if about.get("id", "").strip():
        cells["id"] = about["id"].strip()
    markup = about.get("text", "")
    if "redirect" in about or is_redirect(markup):
        cells["text"] = "#REDIRECT"
    elif is_article:
        cells["template"] = ["Template:Disambiguation"] if is_disambiguation(markup) else []
        cells["text"] = article_text(markup, hidden)
    else:
        cells["text"] = markup[:100]
    return cells


# --- CirrusSearch --------------------------------------------------------------------------


def is_action(row: Any) -> bool:
    """Whether this is a line of an Elasticsearch bulk file that tells the id of the document in the next one."""
    return isinstance(row, dict) and list(row) == ["index"] and isinstance(row["index"], dict) and "_id" in row["index"]


def cirrus_rows(path: Path) -> Iterator[Row]:
    """A CirrusSearch dump: pairs of an action line and a document line. Headings are no part of its texts."""
    action: tuple[int, str] | None = None
    for number, row in json_objects(lines(path), f"the corpus {path}"):
        if action is None:
            if not is_action(row):
                raise UserError(
                    f'the corpus {path}, line {number}: an action line ({{"index": {{"_id": ...}}}}) was expected; '
                    "in a CirrusSearch dump one stands before each document"
                )
            action = (number, str(row["index"]["_id"]))
            continue
        names = ("title", "text", "namespace", "category", "template", "wiki")
        cells = {"text": "", **{name: row[name] for name in names if name in row}, "id": action[1]}
        yield Row(path, f"line {number}", cells, is_article=True)
        action = None
    if action is not None:
        raise UserError(f"the corpus {path} ends after the action line {action[0]}, without its document. {REMEDY}")


# --- WikiExtractor -------------------------------------------------------------------------

_DOC = re.compile(r"\s*<doc\s+(.*?)>\s*$")
_ATTRIBUTE = re.compile(r"(\w+)=\"([^\"]*)\"")


def extractor_rows(path: Path, encoding: str | None) -> Iterator[Row]:
    """WikiExtractor's output without --json: <doc id="12" url="..." title="...">, the title, an empty line, the text.

    Raises:
        UserError: while reading: text outside of a <doc> element, or one that is not closed.
    """
    about: dict[str, str] | None = None
    text: list[str] = []
    begun = number = 0
    for number, line in enumerate(lines(path, encoding), 1):
        if about is None:
            if start := _DOC.match(line):
                about, text, begun = (
                    {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(start[1])},
                    [],
                    number,
                )
            elif line.strip():
                raise UserError(f"the corpus {path}, line {number}: <doc id=...> was expected")
        elif line.strip() == "</doc>":
            if text and text[0].strip() == about.get("title", "").strip():
                del text[0]
            yield Row(path, f"line {begun}", {**about, "text": html.unescape("".join(text))}, is_article=True)
            about = None
        else:
            text.append(line)
    if about is not None:
        raise UserError(f"the corpus {path} ends within the article of line {begun}. {REMEDY}")
