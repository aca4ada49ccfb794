"""Questions as people write them: a prompt with options behind letters, in lines or in one line; and single rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from solution.errors import UserError
from solution.formats.items import LETTERS, Source, Table
from solution.tables import Row, decode

_HEAD = r"[(\[]?{}(?:[.:]?[)\]]|[.:])\s*"
_ANSWER = re.compile(
    r"\s*(?:the\s+)?(?:correct\s+|right\s+)?answer\s*(?:is\b)?\s*[:=]?\s*[(\[]?([A-Z])[)\].]*\s*", re.IGNORECASE
)
_NUMBER = re.compile(r"\s*(?:question\s*)?\(?\d{1,4}\s*[.):]\s+(?=\S)", re.IGNORECASE)
_FEWEST = 2  # options of a question
_MOST_LINES, _MOST_CHARACTERS = 200, 100_000  # of a question: so that no text takes long


def is_written_out(text: str) -> bool:
    """Whether a text begins with a prompt, and options behind the letters A, B, ... follow."""
    return bool(_questions(text))


def read_written_out(data: bytes, source: Source) -> Table:
    """The questions of a text: a prompt, options behind letters, and a line `Answer: B` where the answer is known.

    Raises:
        UserError: no question.
    """
    rows = _questions(decode(data, str(source), source.encoding))
    if not rows:
        raise UserError(f"{source} has no question with options behind the letters A, B, ...")
    width = max(sum(name in row for name in LETTERS) for row in rows)
    return Table(["prompt", *LETTERS[:width], "answer"], rows, "text with lettered options", is_plain=True)


def _questions(text: str) -> list[Row]:
    """One row a question; none where any part of the text is no question."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")
    rows: list[Row] = []
    block: list[str] = []
    for line in [*lines, None]:
        if block and (line is None or _begins(line, block)):
            row = _question(block)
            if row is None:
                return []
            rows.append(row)
            block = []
        if line is not None and (block or line.strip()):
            block.append(line)
        if len(block) > _MOST_LINES or sum(map(len, block)) > _MOST_CHARACTERS:
            return []
    return rows


def _begins(line: str, block: Sequence[str]) -> bool:
    """Whether a line begins another question: the block above it is whole, and ends in an answer or an empty line, or
    both begin with a number."""
    above = block[-1].strip()
    is_parted = not above or _ANSWER.fullmatch(above) or (_NUMBER.match(line) and _NUMBER.match(block[0]))
    row = _question(block) if is_parted and line.strip() and not _ANSWER.fullmatch(line) else None
    if row is None:
        return False
    head = LETTERS[sum(name in row for name in LETTERS) % len(LETTERS)]
    return re.match(r"\s*" + _HEAD.replace("{}", head), line, re.IGNORECASE) is None


def _question(lines: Sequence[str]) -> Row | None:
    """The prompt, the options and the answer that lines hold; None where they hold none."""
    kept = list(lines)
    answer = None
    while kept and (not kept[-1].strip() or (answer is None and _ANSWER.fullmatch(kept[-1]))):
        found = _ANSWER.fullmatch(kept.pop())
        answer = found[1].upper() if found else answer
    text = "\n".join(kept)
    # Letters at the beginning of lines say more than those within one: "the genus A. niger".
    parts = _parts(text, r"(?:^|\n)[ \t]*") or _parts(text, r"(?:^|(?<=\s))")
    if parts is None or len(re.findall(r"(?m)^\s*" + _HEAD.replace("{}", "[Aa]"), text)) > 1:
        return None
    prompt, *options = parts
    row: Row = {"prompt": _NUMBER.sub("", prompt, count=1), **dict(zip(LETTERS, options, strict=False))}
    return row if answer is None else row | {"answer": answer}


def _parts(text: str, before: str) -> list[str] | None:
    """The prompt and the options, parted at the letters from A on, each the first behind the one before."""
    ends, starts = [], []
    place = 0
    for letter in LETTERS:
        found = re.compile(before + _HEAD.replace("{}", f"[{letter}{letter.lower()}]")).search(text, place)
        if found is None:
            break
        ends.append(found.start())
        starts.append(found.end())
        place = found.end()
    if len(starts) < _FEWEST or not text[: ends[0]].strip():
        return None
    bounds = zip([0, *starts], [*ends, len(text)], strict=True)
    parts = [text[start:end].strip().strip(";") for start, end in bounds]
    return parts if all(parts) else None


def read_row(text: str, source: Source) -> Table | None:
    """A single question in cells without a header, as a line of a CSV file or of a spreadsheet has it.

    The cells are an id where the first is a number, the prompt, the options, and a letter where the answer is known.
    None where there are more rows than one, or too few cells.
    """
    separator = next((mark for mark in ("\t", ";", ",") if mark in text), ",")
    try:
        rows = [row for row in csv.reader(text.strip().splitlines(), delimiter=separator, strict=True) if any(row)]
    except csv.Error:
        return None
    cells = [cell.strip() for cell in rows[0]] if len(rows) == 1 else []
    cells = cells[1:] if cells and re.fullmatch(r"\d+", cells[0]) else cells
    answer = cells.pop() if len(cells) > _FEWEST + 1 and _is_letter(cells[-1], len(cells) - 2) else None
    prompt, options = cells[0] if cells else "", [cell for cell in cells[1:] if cell]
    if not prompt or not _FEWEST <= len(options) <= len(LETTERS):
        return None
    row: Row = {"prompt": prompt, **dict(zip(LETTERS, options, strict=False)), "answer": answer}
    return Table(["prompt", *LETTERS[: len(options)], "answer"], [row], "one row without a header", is_headless=True)


def _is_letter(cell: str, options: int) -> bool:
    return len(cell) == 1 and cell in LETTERS[:options]
