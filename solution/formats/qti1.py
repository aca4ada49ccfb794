"""Choice items of QTI 1.2 (IMS Question and Test Interoperability), as Canvas, Blackboard and WebCT export them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from solution.formats.html import clean_options, plain_text
from solution.formats.xml import text_of
from solution.tables import Row


def qti1_rows(root: Element) -> tuple[list[Row], int]:
    """The items with one choice among several, and how many others there are."""
    rows = []
    items = list(root.iter("item"))
    for item in items:
        presentation = item.find("presentation")
        asked = [] if presentation is None else [e for e in presentation.iter() if e.tag.startswith("response_")]
        responses = [element for element in asked if element.tag not in ("response_label",)]
        if presentation is not None and [element.tag for element in responses] == ["response_lid"]:
            row = _row(item, presentation, responses[0])
            if len(row["options"]) >= 2:
                rows.append(row)
    return rows, len(items) - len(rows)


def _row(item: Element, presentation: Element, response: Element) -> Row:
    labels = list(response.iter("response_label"))
    right = _right(item, response.get("ident"))
    texts = clean_options([_text(label) for label in labels])
    options: list[dict[str, Any]] = [
        {"text": text or label.get("ident", ""), "correct": label.get("ident") in right}
        for label, text in zip(labels, texts, strict=True)
    ]
    prompt = "\n".join(part for part in _parts(presentation) if part)
    return {
        "id": item.get("ident", ""),
        "title": item.get("title", ""),
        "prompt": plain_text(prompt),
        "options": options,
    }


def _right(item: Element, response: str | None) -> set[str]:
    """The names of the options that a condition with points asks for."""
    right: set[str] = set()
    for condition in item.iter("respcondition"):
        if _points(condition) > 0:
            for part in condition.iterfind("conditionvar"):
                right |= {text_of(equal) for equal in _asked_for(part) if equal.get("respident") in (response, None)}
    return right


def _asked_for(element: Element) -> Iterator[Element]:
    """The `varequal` within an element that are not negated."""
    for child in element:
        if child.tag == "varequal":
            yield child
        elif child.tag != "not":
            yield from _asked_for(child)


def _points(condition: Element) -> float:
    """What a condition adds to the score, or sets it to; Blackboard writes the most there is as `SCORE.max`."""
    points = 0.0
    for change in condition.iterfind("setvar"):
        text = text_of(change)
        try:
            points += float(text) if change.get("action", "Set").lower() != "subtract" else -float(text)
        except ValueError:
            points += text.upper().endswith(".MAX")
    return points


def _parts(element: Element) -> Iterator[str]:
    """The texts of the question: those outside the response."""
    for child in element:
        if child.tag == "material":
            yield _text(child)
        elif not child.tag.startswith("response_"):
            yield from _parts(child)


def _text(element: Element) -> str:
    """The texts within an element, which may be HTML whatever `texttype` says."""
    texts = []
    for part in element.iter():
        if part.tag in ("mattext", "mat_formattedtext"):
            texts.append(text_of(part))
        elif part.tag == "matbreak":
            texts.append("\n")
    return "".join(texts).strip()
