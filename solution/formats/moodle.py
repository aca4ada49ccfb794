"""Moodle XML: a question bank as Moodle exports and imports it (docs.moodle.org, "Moodle XML format")."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

from solution.errors import UserError
from solution.files import write_text
from solution.formats.answers import Points
from solution.formats.html import clean_options, plain_text
from solution.formats.items import ExamToWrite, Source, Table
from solution.formats.xml import parse, text_of, xml_text
from solution.tables import Row


def read_moodle(data: bytes, source: Source) -> Table:
    """The multiple-choice questions of a question bank; the others are counted.

    Its categories become a column of this name.

    Raises:
        UserError: not XML, or no question with options.
    """
    quiz = parse(data, str(source))
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    category = ""
    points = Points()
    for question in quiz.iter("question"):
        kind = question.get("type", "")
        if kind == "category":
            category = _text(question.find("category"))
        elif kind == "truefalse" or kind == "multichoice":
            rows.append(_row(question, category, points))
        else:
            left_out[kind or "no type"] += 1
    names = list(dict.fromkeys(name for row in rows for name in row))
    notes = [f"{count} questions of the type {kind} left out" for kind, count in left_out.items()] + points.notes()
    if not rows:
        raise UserError(f"{source} has no multiple-choice question" + (f" ({', '.join(notes)})" if notes else ""))
    # Questions of an export often share a name, and most have no idnumber.
    ids = [row["id"] for row in rows]
    if len(set(ids)) < len(ids) or not all(ids):
        rows = [{"title": row.pop("id"), **row} for row in rows]
        names[names.index("id")] = "title"
    return Table(names, rows, "Moodle XML", notes, is_plain=True)


def _row(question: Element, category: str, points: Points) -> Row:
    answers = question.findall("answer")
    if question.get("type") == "truefalse":
        texts = [_text(answer).capitalize() for answer in answers]
    else:
        html = iter(clean_options([_raw(answer) for answer in answers if not _is_plain(answer)]))
        texts = [_raw(answer) if _is_plain(answer) else next(html) for answer in answers]
    # Of several right answers Moodle gives each a share of the points; beside one with all, shares are consolation.
    right = points.right([_number(answer.get("fraction", "0")) for answer in answers])
    options = [{"text": text, "correct": is_right} for text, is_right in zip(texts, right, strict=True)]
    row: Row = {
        "id": text_of(question.find("idnumber")) or _text(question.find("name")),
        "prompt": _text(question.find("questiontext")),
        "options": options,
    }
    feedback = _text(question.find("generalfeedback"))
    return row | ({"explanation": feedback} if feedback else {}) | ({"category": category} if category else {})


def _text(element: Element | None) -> str:
    """The text of a name, a question text or an answer: of its child `text`, HTML unless the format says plain text."""
    if element is None:
        return ""
    return _raw(element) if _is_plain(element) else plain_text(_raw(element))


def _raw(element: Element) -> str:
    child = element.find("text")
    return text_of(child) if child is not None else text_of(element)


def _is_plain(element: Element) -> bool:
    return element.get("format") == "plain_text"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def write_moodle(path: Path, exam: ExamToWrite) -> None:
    """Write multiple-choice questions with one right answer; texts are plain, ids become names."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<quiz>"]
    for row, id_ in enumerate(exam.ids):
        lines += [
            '<question type="multichoice">',
            f'<name format="plain_text"><text>{xml_text(id_)}</text></name>',
            f'<questiontext format="plain_text"><text>{xml_text(exam.prompts[row])}</text></questiontext>',
            "<defaultgrade>1</defaultgrade><single>true</single><shuffleanswers>false</shuffleanswers>",
            "<answernumbering>ABCD</answernumbering>",
        ]
        for place, option in enumerate(exam.options[row]):
            if option:
                fraction = 100 if place == exam.answers[row] else 0
                lines.append(
                    f'<answer fraction="{fraction}" format="plain_text"><text>{xml_text(option)}</text></answer>'
                )
        lines.append("</question>")
    write_text(path, "\n".join([*lines, "</quiz>", ""]))
