"""Choice items of QTI 1.2, 2.1 and 3 (1EdTech's Question and Test Interoperability): an item, or a package of items."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from xml.etree.ElementTree import Element, tostring

from solution.errors import UserError
from solution.formats.html import clean_options, is_known_tag, plain_text
from solution.formats.items import Source, Table
from solution.formats.qti1 import qti1_rows
from solution.formats.xml import parse, root_name, text_of
from solution.tables import Row, refuse_large, shown

_DAMAGED = (zlib.error, lzma.LZMAError, ValueError)  # of what a zip archive holds, and of places outside it
_XML_ENDINGS = (".xml", ".dat")  # Blackboard's items are called .dat


def read_qti(data: bytes, source: Source) -> Table:
    """The choice items of an XML file or of a zip package; other items are counted.

    Raises:
        UserError: not XML or no zip archive, or no choice item in it.
    """
    notes: list[str] = []
    roots = _package(data, source, notes) if data.startswith(b"PK") else [parse(data, str(source))]
    rows: list[Row] = []
    left_out = 0
    for root in roots:
        if root.tag == "questestinterop":
            found, others = qti1_rows(root)
            rows, left_out = rows + found, left_out + others
            continue
        _plain_names(root)
        for item in root.iter("assessmentItem"):
            choices = list(item.iter("choiceInteraction"))
            if len(choices) == 1:
                try:
                    rows.append(_row(item, choices[0]))
                except RecursionError:
                    name = shown(item.get("identifier", ""))
                    raise UserError(f"{source}: the item {name!r} nests its elements too deeply to be read") from None
            else:
                left_out += 1
    notes += [f"{left_out} items that are no single choice left out"] if left_out else []
    if not rows:
        names = {root.tag for root in roots}
        # The manifest of a package is in all of them.
        told = notes or [f"the root of its XML is {shown(', '.join(sorted(names)))}"]
        raise UserError(
            f"{source} has no choice item of QTI 1.2, 2.1 or 3, and is no question bank of Moodle ({'; '.join(told)})"
        )
    ids = [row["id"] for row in rows]
    if len(set(ids)) < len(ids) or not all(ids):
        rows = [{"item": row.pop("id"), **row} for row in rows]
    names_of = list(dict.fromkeys(name for row in rows for name in row))
    return Table(names_of, rows, "QTI", notes, is_plain=True)


def _package(data: bytes, source: Source, notes: list[str]) -> list[Element]:
    """The roots of the XML files of a package, whatever they are; what is not whole is told."""
    roots = []
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            refuse_large(archive.infolist(), source)
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if not info.filename.lower().endswith(_XML_ENDINGS):
                    continue
                member = archive.read(info)
                if info.filename.lower().endswith(".dat") and not root_name(member):
                    continue
                try:
                    roots.append(parse(member, f"{source} ({info.filename})"))
                except UserError as error:
                    if not source.skips_bad:
                        raise UserError(f"{error}. To go on without it: --skip-bad-rows") from None
                    notes.append(f"{shown(info.filename)} left out, which is not whole XML")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, *_DAMAGED) as error:
        raise UserError(f"{source} is not a whole zip archive ({error})") from None
    return roots


def _plain_names(root: Element) -> None:
    """QTI 3's names (qti-choice-interaction, response-identifier) as those of QTI 2 (choiceInteraction)."""
    for element in root.iter():
        element.tag = _camel(element.tag.removeprefix("qti-"))
        element.attrib = {_camel(name): value for name, value in element.attrib.items()}


def _camel(name: str) -> str:
    first, *others = name.split("-")
    return first + "".join(part.capitalize() for part in others)


def _row(item: Element, choice: Element) -> Row:
    response = choice.get("responseIdentifier")
    declarations = [each for each in item.iter("responseDeclaration") if each.get("identifier") == response]
    right = {text_of(value) for each in declarations for value in each.iterfind("correctResponse/value")}
    choices = list(choice.iter("simpleChoice"))
    texts = clean_options([_fragment(option, set()) for option in choices])
    options = [
        {"text": text, "correct": option.get("identifier") in right}
        for option, text in zip(choices, texts, strict=True)
    ]
    # The question is the interaction's own prompt; what stands before it in the body belongs to it.
    body = item.find("itemBody")
    around = "" if body is None else _content(body, {"choiceInteraction", "feedbackBlock", "rubricBlock"})
    prompt = choice.find("prompt")
    asked = "" if prompt is None else _content(prompt, set())
    id_ = item.get("identifier", "")
    return {"id": id_, "prompt": "\n".join(part for part in (around, asked) if part), "options": options}


def _content(element: Element, left_out: set[str]) -> str:
    """The text of an element, its HTML cleaned; without elements of the names `left_out` and feedback to answers."""
    return plain_text(_fragment(element, left_out))


def _fragment(element: Element, left_out: set[str]) -> str:
    copy = _html(element, left_out | {"feedbackInline", "modalFeedback"})
    copy.tail = None
    return tostring(copy, encoding="unicode", short_empty_elements=False)


def _html(element: Element, left_out: set[str]) -> Element:
    """A copy in which QTI's own elements are HTML's `div`, which changes nothing but the lines."""
    copy = Element(element.tag if is_known_tag(element.tag) else "div", element.attrib)
    copy.text, copy.tail = element.text, element.tail
    for child in element:
        if child.tag not in left_out:
            copy.append(_html(child, left_out))
        elif len(copy):
            copy[-1].tail = (copy[-1].tail or "") + (child.tail or "")
        else:
            copy.text = (copy.text or "") + (child.tail or "")
    return copy
