"""Texts without markup: prose, Markdown, and files with a sentence a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from solution.retrieval.readers.packing import lines
from solution.retrieval.readers.rows import Row
from solution.sentences import ends_a_sentence

BLOCK = 1 << 18  # characters of a text file that become one document
MARKDOWN = (".md", ".markdown")
_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_IMAGE_OR_LINK = re.compile(r"!?\[([^\]\[]*)\]\([^()\s]*(?:\s+\"[^\"]*\")?\)")
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_SHARE_OF_SENTENCES = 0.8


def is_a_sentence_a_line(head: str, is_whole: bool) -> bool:
    """Whether a text is a list of sentences or paragraphs, one a line: no empty lines, and most end like a sentence.

    Args:
        head: the beginning of the text.
        is_whole: it is all of it.
    """
    parts = head.rstrip().split("\n") if is_whole else head.split("\n")[:-1]
    if len(parts) < 2 or not all(part.strip() for part in parts):
        return False
    ended = sum(ends_a_sentence(part.rstrip()) for part in parts)
    return ended >= _SHARE_OF_SENTENCES * len(parts)


def line_rows(path: Path, encoding: str | None) -> Iterator[Row]:
    """A text file with a document a line; they have no titles."""
    for number, line in enumerate(lines(path, encoding), 1):
        if line.strip():
            yield Row(path, f"line {number}", {"text": line})


def file_title(path: Path, name: str, ending: str) -> str:
    """The title of a file that has none: its name without endings."""
    return Path(name.removesuffix(path.suffix) if ending != path.suffix.lower() else name).stem


def text_rows(path: Path, name: str, ending: str, encoding: str | None) -> Iterator[Row]:
    """A text file, or the sections of a Markdown file. The title is a Markdown file's first heading, else its name.

    Blocks of more than `BLOCK` characters are cut at the next empty line (or at a line's end after as many again).

    Args:
        name: of the file in the corpus: its id.
        ending: of the unpacked file.
    """
    is_markdown = ending in MARKDOWN
    title = file_title(path, name, ending)
    headings: list[tuple[int, str]] = []
    titled = in_fence = False
    waiting: list[str] = []
    size = written = number = 0

    def block() -> Iterator[Row]:
        nonlocal size, written
        text = "".join(waiting).strip()
        waiting.clear()
        size = 0
        if text:
            if is_markdown:
                text = _IMAGE_OR_LINK.sub(r"\1", _COMMENT.sub("", text))
            path_of_headings = [heading for _, heading in headings if heading != title]
            cells = {"id": f"{name}/{written}" if written else name, "title": title, "text": text}
            yield Row(path, f"before line {number}", {**cells, "section": " > ".join(path_of_headings)})
            written += 1

    for line in lines(path, encoding):
        number += 1
        if is_markdown:
            in_fence ^= bool(_FENCE.match(line))
            heading = None if in_fence else _HEADING.match(line)
            if heading and heading[2]:
                if not titled:
                    title, titled = heading[2], True
                yield from block()
                level = len(heading[1])
                headings = [(other, text) for other, text in headings if other < level] + [(level, heading[2])]
                continue
        if size > BLOCK and (not line.strip() or size > 2 * BLOCK):
            yield from block()
        waiting.append(line)
        size += len(line)
    yield from block()
