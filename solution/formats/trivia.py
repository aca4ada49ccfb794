"""The form of the OpenTriviaQA collection: `#Q` and the question, `^` and the right answer, options behind letters."""

from __future__ import annotations

import re

from solution.errors import UserError
from solution.formats.items import LETTERS, Source, Table
from solution.tables import Row, decode

_OPTION = re.compile(r"([A-Z])\s+(\S.*)")


def is_trivia(text: str) -> bool:
    """Whether a text begins with a question of this form."""
    return re.match(r"\s*#Q\s[^^]*\n\^\s", text) is not None


def read_trivia(data: bytes, source: Source) -> Table:
    """Questions in lines; a line that is neither an answer nor an option goes on with the one above it.

    Raises:
        UserError: no question.
    """
    rows: list[Row] = []
    for block in re.split(r"(?m)^#Q\s", decode(data, str(source), source.encoding))[1:]:
        row: Row = {"prompt": ""}
        last = "prompt"
        for line in map(str.strip, block.splitlines()):
            option = _OPTION.fullmatch(line)
            if line.startswith("^"):
                last, line = "answer", line[1:].strip()
            elif "answer" in row and option and option[1] == LETTERS[len(row) - 2]:
                last, line = option[1], option[2]
            row[last] = f"{row.get(last, '')}\n{line}".strip()
        rows.append(row)
    if not rows:
        raise UserError(f"{source} has no question")
    width = max(len(row) for row in rows) - 2
    return Table(["prompt", *LETTERS[: max(width, 2)], "answer"], rows, "OpenTriviaQA", is_plain=True)
