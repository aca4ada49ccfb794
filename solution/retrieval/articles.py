"""Encyclopedia articles: which are left out, how their text is cleaned, and where their sections begin.

The words of the rules are those of the English Wikipedia.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from solution.config import RetrievalConfig
from solution.sentences import CLOSING_MARKS
from solution.words import word_count

_WIKI_URL = re.compile(r"https?://[\w.-]*\bwik(?:ipedia|ibooks|iversity|isource|tionary|inews|iquote|ivoyage)\.org/")
_REDIRECT = re.compile(r"\s*#\s*redirect\b", re.IGNORECASE)
_MAY_REFER = re.compile(
    r".{0,160}?\b(?:(?:may|can|could|might)(?: \w+)? refer|(?:commonly|usually|often) refers) to\b[^.\n]{0,60}:",
    re.DOTALL,
)
_CATEGORIES = frozenset(["Disambiguation pages", "All disambiguation pages", "All article disambiguation pages"])
_TEMPLATES = frozenset(["Template:Disambiguation", "Template:Disambig", "Template:Dmbox"])
_STYLE = re.compile(r"\{\\(?:display|text|script)style\b\s*")
_LONGEST_FORMULA = 4000
_EMPTY_BRACKETS = re.compile(r"[(\[][\s,;:]*[)\]]")
_EDIT_MARKS = re.compile(r"\[(?:edit|citation needed)\]")
_SPACES = re.compile(r"[ \t\xa0]{2,}")
_LINES = re.compile(r"\n{3,}")
# They hold no sentences that answer a question.
_NO_CONTENT = frozenset(
    ["references", "external links", "see also", "further reading", "notes", "footnotes", "citations",
     "notes and references", "references and notes", "sources", "works cited"]
)  # fmt: skip
_LONGEST_HEADING = 80
_MOST_HEADINGS = 3  # in a row; more are a list
STUB = "stub"
_MARKED_HEADING = re.compile(r"Section::::(.+?)\.?$|={2,6}\s*([^=].*?)\s*={2,6}$|#{2,6}\s+(.+)$")


@dataclass(frozen=True)
class ArticleRules:
    """Rules for articles of a CirrusSearch dump, of `wikimedia/wikipedia` and of WikiExtractor.

    Attributes:
        stub_words: an article of fewer words is left out.
        disambiguations: keep pages that only list articles of like names.
        sections: cut articles into sections, where the text shows them, and leave out those of mere references.
    """

    stub_words: int = 20
    disambiguations: bool = False
    sections: bool = True


def article_rules(config: RetrievalConfig) -> ArticleRules:
    """The rules that the settings ask for."""
    return ArticleRules(config.stub_words, config.disambiguations, config.sections)


def is_wiki_url(url: Any) -> bool:
    """Whether a row's url says that it is a page of a Wikimedia project."""
    return isinstance(url, str) and _WIKI_URL.match(url) is not None


def is_redirect(text: str) -> bool:
    """Whether an article only leads to another one, by its text as it was read."""
    return _REDIRECT.match(text) is not None


def left_out(cells: Mapping[str, Any], title: str, text: str, rules: ArticleRules) -> str | None:
    """Why an article is left out ("stub"), or None.

    Args:
        cells: of its row; `namespace`, `category` and `template` are looked at where they are there.
        text: as it was read.
    """
    if cells.get("namespace") not in (None, 0, "0"):
        return "talk, user or other page"
    if is_redirect(text):
        return "redirect"
    if not rules.disambiguations and (
        title.lower().endswith("(disambiguation)")
        or not _CATEGORIES.isdisjoint(_strings(cells.get("category")))
        or not _TEMPLATES.isdisjoint(_strings(cells.get("template")))
        or _MAY_REFER.match(text[:400])
    ):
        return "disambiguation page"
    # A long text is no stub, and need not be split to see it.
    if len(text) < 100 * rules.stub_words and word_count(text) < rules.stub_words:
        return STUB
    return None


def _strings(value: Any) -> list[str]:
    return [part for part in value if isinstance(part, str)] if isinstance(value, list) else []


def clean(text: str) -> str:
    """The text without the traces of its markup: numbers, formulas and lists stay.

    LaTeX inside "{\\displaystyle ...}" is kept and its wrapping dropped; brackets that an extractor emptied, "[edit]"
    marks, and runs of spaces and of empty lines go.
    """
    text = _without_empty_brackets(_EDIT_MARKS.sub("", _unwrapped(text)))
    # To look for these two first is ten times as quick: most texts have none.
    if any(blanks in text for blanks in ("  ", "\t", "\xa0")):
        text = _SPACES.sub(" ", text)
    return (_LINES.sub("\n\n", text) if "\n\n\n" in text else text).strip()


def _without_empty_brackets(text: str) -> str:
    """Without those that stand behind a blank (so "main()" stays), and that blank."""
    parts, done = [], 0
    for match in _EMPTY_BRACKETS.finditer(text):
        if text[match.start() - 1 : match.start()].isspace():
            parts.append(text[done : match.start()].rstrip())
            done = match.end()
    return "".join([*parts, text[done:]])


def _unwrapped(text: str) -> str:
    parts, done = [], 0
    match = _STYLE.search(text)
    while match is not None:
        depth, end = 1, match.end()
        limit = min(len(text), match.end() + _LONGEST_FORMULA)
        while depth and end < limit:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if depth:  # not closed: left as it is
            parts.append(text[done : match.end()])
            done = match.end()
        else:
            parts += [text[done : match.start()], text[match.end() : end - 1].strip()]
            done = end
        match = _STYLE.search(text, done)
    return "".join([*parts, text[done:]])


def sections(text: str) -> Iterator[tuple[str, str]]:
    """The sections of an article as pairs of heading ("" for what comes before the first) and text.

    A heading is a line marked as one (Section::::, ==, ##), or a short one (up to 80 characters) after an empty line
    that does not end like a sentence and is followed by an empty line, by the blank that extractors leave at a
    heading's end, or by a long line. Two or three in a row are joined by " > "; more are taken for a list. What was
    taken for a heading by mistake is still read, as it stands in front of the passages. Sections of mere references
    (see also, external links, ...) are left out.
    """
    path: list[str] = []
    body: list[str] = []
    for headings, line in _grouped(text.split("\n")):
        if headings:
            yield from _section(path, body)
            path, body = headings, []
        body.append(line)
    yield from _section(path, body)


def _grouped(lines: list[str]) -> Iterator[tuple[list[str], str]]:
    """Each line of the text with the headings that stand before it."""
    waiting: list[tuple[str, str]] = []
    for row, line in enumerate(lines):
        heading = _heading(lines, row)
        if heading is not None:
            waiting.append((heading, line.rstrip()))
        elif line.strip() and waiting:
            few = len(waiting) <= _MOST_HEADINGS
            if not few:
                yield [], "\n".join(whole for _, whole in waiting)
            yield [heading for heading, _ in waiting] if few else [], line.rstrip()
            waiting = []
        elif not waiting:
            yield [], line.rstrip()
    # At the end they head nothing.
    if waiting and waiting[-1][0].lower() not in _NO_CONTENT:
        yield [], "\n".join(whole for _, whole in waiting)


def _section(path: list[str], body: list[str]) -> Iterator[tuple[str, str]]:
    text = "\n".join(body).strip()
    if text and not (path and path[-1].lower() in _NO_CONTENT):
        yield " > ".join(path), text


def _heading(lines: list[str], row: int) -> str | None:
    """The heading that a line is."""
    line = lines[row]
    stripped = line.strip()
    if not stripped or len(stripped) > _LONGEST_HEADING:
        return None
    marked = _MARKED_HEADING.match(stripped)
    if marked:
        return next(part for part in marked.groups() if part).strip()
    if row == 0 or lines[row - 1].strip() or row + 1 == len(lines) or line[0].isspace():
        return None
    if not (stripped[0].isalnum() or stripped[0] in "\"'“") or stripped[0].islower() or stripped[-1] in CLOSING_MARKS:
        return None
    after = lines[row + 1]
    if line[-1] == " " or not after.strip() or len(after) > _LONGEST_HEADING or after.rstrip().endswith("."):
        return stripped
    return None
