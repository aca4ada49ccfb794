"""XML read to a tree without entities of its own: a file cannot grow in memory, nor name other files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from html.entities import html5
from typing import BinaryIO
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape

from solution.errors import UserError
from solution.tables import shown

_SIZE_OF_TAG = 32  # what an element takes in memory is several times as much, like a character
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def parse(data: bytes, source: str) -> Element:
    """The root element, its tags and attributes without their namespaces.

    Raises:
        UserError: not XML, or it declares entities.
    """
    builder = TreeBuilder()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(local(tag), {local(name): value for name, value in attributes.items()})

    def end(tag: str) -> None:
        builder.end(local(tag))

    with _told(source):
        try:
            _parser(source, start, end, builder.data).Parse(data, True)
        except expat.ExpatError as error:
            if error.code != expat.errors.codes[expat.errors.XML_ERROR_UNDEFINED_ENTITY]:
                raise
            known = _HTML_ENTITY.sub(_numbered, data)
            if known == data:
                raise
            return parse(known, source)  # XML itself has no &nbsp;
    return builder.close()


def _parser(
    source: str, start: Callable[[str, dict[str, str]], None], end: Callable[[str], None], data: Callable[[str], None]
) -> expat.XMLParserType:
    """A parser that refuses entities of the file's own."""
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def refuse(name: str, *_: object) -> None:
        raise UserError(f"{source} declares the XML entity {name!r}, which is not read: write the text itself")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = data
    parser.EntityDeclHandler = refuse
    return parser


@contextlib.contextmanager
def _told(source: str) -> Iterator[None]:
    try:
        yield
    except expat.ExpatError as error:
        raise UserError(f"{source} is not whole XML ({error})") from None
    except (ValueError, LookupError, RecursionError) as error:
        raise UserError(f"{source} cannot be read as XML ({error})") from None


# Within CDATA an entity is text.
_HTML_ENTITY = re.compile(rb"<!\[CDATA\[.*?\]\]>|&([A-Za-z][A-Za-z0-9]{1,31});", re.DOTALL)


def _numbered(entity: re.Match[bytes]) -> bytes:
    """An entity of HTML as a number, which XML knows too."""
    name = (entity[1] or b"").decode()
    if not name or name in ("lt", "gt", "amp", "quot", "apos") or name + ";" not in html5:
        return entity[0]
    return "".join(f"&#{ord(character)};" for character in html5[name + ";"]).encode()


def root_name(data: bytes) -> str:
    """The name of the root element; "" where it is no XML."""
    names: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, _: names.append(local(tag))
    for place in range(0, len(data), 4096):
        try:
            parser.Parse(data[place : place + 4096], False)
        except (expat.ExpatError, ValueError, LookupError):
            break
        if names:
            break
    return names[0] if names else ""


def local(name: str) -> str:
    """A name without the prefix of its namespace."""
    return name.rpartition(":")[2]


def text_of(element: Element | None) -> str:
    """The text within an element, stripped; "" where there is no element."""
    return "" if element is None else "".join(element.itertext()).strip()


def xml_text(text: str) -> str:
    """A text as it stands between tags.

    Raises:
        UserError: it has a character that XML cannot hold.
    """
    if wrong := _FORBIDDEN.search(text):
        raise UserError(
            f"XML cannot hold the character {wrong[0]!r} in {shown(text)!r}; remove it, or choose another form"
        )
    # A reader of XML makes a line feed of a carriage return that is not written as a number.
    return escape(text, {"\r": "&#13;"})


def elements(stream: BinaryIO, source: str, parents: AbstractSet[str], longest: int) -> Iterator[Element]:
    """The children of all elements with these names, each when it is whole, and then those elements without them.

    What was given is dropped, so that memory does not grow with the file.

    Args:
        longest: characters of one of these elements; a tag counts as `_SIZE_OF_TAG`.

    Raises:
        UserError: while reading: not XML, it declares entities, or an element is too long.
    """
    builder = TreeBuilder()
    opened: list[Element] = []
    whole: list[Element] = []
    size = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal size
        size += _SIZE_OF_TAG + sum(map(len, attributes.values()))
        opened.append(builder.start(local(tag), {local(name): value for name, value in attributes.items()}))

    def text(data: str) -> None:
        nonlocal size
        size += len(data)
        builder.data(data)

    def end(tag: str) -> None:
        nonlocal size
        element = builder.end(local(tag))
        opened.pop()
        if element.tag in parents or (opened and opened[-1].tag in parents):
            whole.append(element)
            size = 0
            if opened:
                del opened[-1][-1]

    parser = _parser(source, start, end, text)
    read = 0
    while True:
        block = stream.read(1 << 16)
        read += len(block)
        with _told(source):
            parser.Parse(block, not block)
        # The parser keeps a tag that is not closed.
        if size + read - parser.CurrentByteIndex > longest:
            raise UserError(f"{source} has an element of more than {longest >> 20} MiB")
        yield from whole
        whole.clear()
        if not block:
            return
