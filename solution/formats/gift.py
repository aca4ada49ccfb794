"""GIFT, Moodle's text form of questions (docs.moodle.org, "GIFT format"), and Aiken, its simplest one."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from solution.errors import UserError
from solution.files import write_text
from solution.formats.answers import Points
from solution.formats.html import clean_options, plain_text
from solution.formats.items import LETTERS, ExamToWrite, Source, Table
from solution.tables import Row, decode, shown

_TITLE = re.compile(r"::(.*?)::", re.DOTALL)
_MARKUP = re.compile(r"\[(html|moodle|plain|markdown)\]", re.IGNORECASE)
_ANSWER = re.compile(r"([=~])")
_WEIGHT = re.compile(r"%(-?\d+(?:\.\d+)?)%")
_SPECIAL = re.compile(r"([~=#{}:\\])")
# While a file is read, an escaped character is half of a pair of UTF-16, so that it marks nothing: no text has one.
_HIDDEN = 0xDC00


# --- GIFT ----------------------------------------------------------------------------------


def read_gift(data: bytes, source: Source) -> Table:
    """The questions of a GIFT file that have options; others (numbers, pairs, essays) are counted.

    Raises:
        UserError: no question with options.
    """
    text = decode(data, str(source), source.encoding).replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"\\([n~=#{}:\\])", lambda found: chr(_HIDDEN + ord(found[1])), text)
    lines = [line for line in text.split("\n") if not line.lstrip().startswith("//")]
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    category = ""
    points = Points()
    for block in re.split(r"\n[ \t]*(?:\n[ \t]*)+", "\n".join(lines)):
        if block.strip().startswith("$CATEGORY:"):
            line, _, block = block.strip().partition("\n")
            category = _unescaped(line.removeprefix("$CATEGORY:")).strip()
        if not block.strip():
            continue
        row = _gift_question(block.strip(), points)
        if isinstance(row, str):
            left_out[row] += 1
        else:
            rows.append(row | ({"category": category} if category else {}))
    notes = [f"{count} left out: {why}" for why, count in left_out.items()] + points.notes()
    if not rows:
        raise UserError(f"{source} has no GIFT question with options" + (f" ({', '.join(notes)})" if notes else ""))
    ids = [row["id"] for row in rows]
    names = ["id", "prompt", "options"]
    if len(set(ids)) < len(ids) or not all(ids):
        rows = [{"title": row.pop("id"), **row} for row in rows]
        names[0] = "title"
    names += ["category"] if any("category" in row for row in rows) else []
    return Table(names, rows, "GIFT", notes, is_plain=True)


def _gift_question(block: str, points: Points) -> Row | str:
    """A row, or why the block is none."""
    title = _TITLE.match(block)
    body = block[title.end() :].strip() if title else block
    markup = _MARKUP.match(body)
    body = body[markup.end() :] if markup else body
    before, opened, rest = body.partition("{")
    inside, closed, after = rest.partition("}")
    if not (opened and closed):
        return "no answers in braces"
    said = inside.partition("#")[0].strip().upper()
    if said in ("T", "TRUE", "F", "FALSE"):
        truth = said[0]
        options: list[dict[str, object]] = [{"text": w, "correct": truth == w[0]} for w in ("True", "False")]
    else:
        parts = _ANSWER.split(inside)
        if parts[0].strip() or len(parts) < 5 or "~" not in parts[1::2]:
            return "not multiple choice"
        read = [_gift_option(*pair, markup) for pair in zip(parts[1::2], parts[2::2], strict=True)]
        html = iter(clean_options([text for text, _, is_plain in read if not is_plain]))
        right = points.right([share for _, share, _ in read])
        options = [
            {"text": text if is_plain else next(html), "correct": is_right}
            for (text, _, is_plain), is_right in zip(read, right, strict=True)
        ]
    # A gap in the middle of a sentence is filled in by the answer.
    prompt = f"{before.rstrip()} _____ {after.strip()}" if after.strip() else before
    return {"id": _unescaped(title[1]).strip() if title else "", "prompt": _cleaned(prompt, markup), "options": options}


def _gift_option(mark: str, text: str, markup: re.Match[str] | None) -> tuple[str, float, bool]:
    """An option's text, what percentage of the points it gives, and whether it is no HTML."""
    text = text.partition("#")[0].strip()  # what follows is feedback
    weight = _WEIGHT.match(text)
    text = text[weight.end() :].strip() if weight else text
    inner = _MARKUP.match(text)
    text = _unescaped((text[inner.end() :] if inner else text).strip()).strip()
    return text, float(weight[1]) if weight else 100.0 * (mark == "="), _is_plain(inner or markup)


def _is_plain(markup: re.Match[str] | None) -> bool:
    return markup is not None and markup[1].lower() == "plain"


def _cleaned(text: str, markup: re.Match[str] | None) -> str:
    text = _unescaped(text.strip()).strip()
    return text if _is_plain(markup) else plain_text(text)


_SHOWN = {_HIDDEN + ord(character): character for character in "~=#{}:\\"} | {_HIDDEN + ord("n"): "\n"}


def _unescaped(text: str) -> str:
    return text.translate(_SHOWN)


def write_gift(path: Path, exam: ExamToWrite) -> None:
    """Write multiple-choice questions; ids become titles, line ends `\\n`."""
    blocks = []
    for row, id_ in enumerate(exam.ids):
        lines = [f"::{_escaped(id_)}::[plain]{_escaped(exam.prompts[row])} {{"]
        for place, option in enumerate(exam.options[row]):
            if option:
                lines.append(f"\t{'=' if place == exam.answers[row] else '~'}[plain]{_escaped(option)}")
        blocks.append("\n".join([*lines, "}", ""]))
    write_text(path, "\n".join(blocks))


def _escaped(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SPECIAL.sub(r"\\\1", text).replace("\n", "\\n")


# --- Aiken ---------------------------------------------------------------------------------

_OPTION = re.compile(r"\s*([A-Za-z])[.)]\s*(.*)")
_RIGHT = re.compile(r"\s*ANSWER\s*[:=]\s*([A-Za-z])\s*", re.IGNORECASE)


def is_aiken(text: str) -> bool:
    """Whether a text has lines of options and of answers as Aiken has them."""
    lines = text.split("\n")
    return any(map(_RIGHT.fullmatch, lines)) and any(re.match(r"\s*A[.)]\s", line) for line in lines)


def read_aiken(data: bytes, source: Source) -> Table:
    """Questions in lines: the prompt, the options behind their letters, `ANSWER: B`.

    Raises:
        UserError: a line that fits nowhere, or a question that does not end; names the line.
    """
    text = decode(data, str(source), source.encoding).replace("\r\n", "\n").replace("\r", "\n")
    rows: list[Row] = []
    prompt: list[str] = []
    options: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        option, right = _OPTION.fullmatch(line), _RIGHT.fullmatch(line)
        if prompt and right and len(options) >= 2:
            cells = dict(zip(LETTERS, options, strict=False))
            rows.append({"prompt": "\n".join(prompt), **cells, "answer": right[1].upper()})
            prompt, options = [], []
        elif prompt and option and len(options) < len(LETTERS) and option[1].upper() == LETTERS[len(options)]:
            options.append(option[2].strip())
        elif not options:
            prompt.append(line.strip())
        else:
            raise UserError(
                f"{source}, line {number}: {shown(line.strip())!r} is neither the option {LETTERS[len(options)]} nor "
                "ANSWER: and a letter"
            )
    if prompt or not rows:
        raise UserError(f"{source} ends within a question, or has none: Aiken ends each with ANSWER: and a letter")
    width = max(len(row) for row in rows) - 2
    # Moodle takes the texts of this form as they stand.
    return Table(["prompt", *LETTERS[:width], "answer"], rows, "Aiken", is_plain=True)


def write_aiken(path: Path, exam: ExamToWrite) -> None:
    """Write questions in lines; line ends within a text become spaces, ids are not written."""
    blocks = []
    for row, prompt in enumerate(exam.prompts):
        present = [place for place, option in enumerate(exam.options[row]) if option]
        lines = [" ".join(prompt.split())]
        lines += [f"{LETTERS[i]}. {' '.join(exam.options[row][place].split())}" for i, place in enumerate(present)]
        blocks.append("\n".join([*lines, f"ANSWER: {LETTERS[present.index(exam.answers[row])]}", ""]))
    write_text(path, "\n".join(blocks))
