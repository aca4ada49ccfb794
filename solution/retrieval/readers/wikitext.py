"""The text of an article in MediaWiki's markup: the markup is parsed by mwparserfromhell.

That library's own way to text leaves out what stands in templates and takes sub- and superscripts for plain digits:
"{{val|1.67|e=-27|u=kg}}" would be nothing, and 10<sup>3</sup> would be 103. So its tree is read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from solution.formats.html import script

# References are up to half of an article, none of its text, and parsing is what takes the time.
_REFERENCE = re.compile(r"<ref\b[^<>]*/>|<ref\b[^<>]*(?<!/)>.*?</ref\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_DISAMBIGUATION = re.compile(
    r"\{\{\s*(?:[\w -]{0,40}\bdisamb(?:ig(?:uation)?)?\b(?! needed)[\w -]{0,40}|dab|hndis|geodis|schooldis|mathdab|"
    r"numberdis|begriffsklärung|homonymie|desambiguación|disambigua|desambiguação)\s*[|}]",
    re.IGNORECASE,
)
_HIDDEN_TAGS = frozenset(
    "ref references gallery graph imagemap inputbox score section templatedata timeline templatestyles categorytree "
    "hiero maplink mapframe indicator".split()
)
_BLOCK_TAGS = frozenset("p div br blockquote center li dd dt tr ul ol dl hr pre syntaxhighlight source".split())
_FRAME_CLASSES = re.compile(r"infobox|navbox|sidebar|metadata|ambox|mbox|noprint|toccolours")
_OTHER_WIKI = re.compile(r"[a-z]{2,3}(-[a-z]+)?:\S")
_CHEMICAL_COUNT = re.compile(r"(?<=[A-Za-z)\]])\d+")
_NUMBER = re.compile(r"[-−+]?[\d.,⁄/ ]*\d[\d.,⁄/]*%?$")
FILES_AND_CATEGORIES = frozenset(("file", "image", "media", "category"))

Handler = Callable[[list[str], dict[str, str]], str]


def is_disambiguation(markup: str) -> bool:
    """Whether an article says of itself that it only lists others of like names."""
    return _DISAMBIGUATION.search(markup) is not None


def article_text(markup: str, hidden_namespaces: Collection[str] = FILES_AND_CATEGORIES) -> str:
    """The text of an article: headings marked with "==", formulas as LaTeX, numbers and their units as they are read.

    Args:
        hidden_namespaces: whose links are no text, in lower case: files and categories.
    """
    import mwparserfromhell
    from mwparserfromhell.parser import ParserError

    markup = _REFERENCE.sub("", markup)
    try:
        return _Text(hidden_namespaces).of(mwparserfromhell.parse(markup))
    except (ParserError, RecursionError):  # as it stands: a page among millions must not end the reading
        return markup


class _Text:
    """Makes text of the nodes of a parsed article."""

    def __init__(self, hidden_namespaces: Collection[str]):
        self._hidden_namespaces = hidden_namespaces

    def of(self, code: Any) -> str:
        """The text of a piece of markup, or of None."""
        if code is None:
            return ""
        return "".join(getattr(self, "_" + type(node).__name__.lower(), _nothing)(node) for node in code.nodes)

    def _text(self, node: Any) -> str:
        return node.value

    def _htmlentity(self, node: Any) -> str:
        return node.normalize()

    def _heading(self, node: Any) -> str:
        marks = "=" * max(2, node.level)
        return f"\n\n{marks} {' '.join(self.of(node.title).split())} {marks}\n"

    def _externallink(self, node: Any) -> str:
        return self.of(node.title) if node.brackets else str(node.url)

    def _wikilink(self, node: Any) -> str:
        title = str(node.title).strip()
        if title.partition(":")[0].strip().casefold() in self._hidden_namespaces:
            return ""
        if node.text is not None:
            return self.of(node.text)
        return "" if _OTHER_WIKI.match(title) else title.lstrip(":")

    def _tag(self, node: Any) -> str:
        name = str(node.tag).strip().lower()
        if node.wiki_markup and node.wiki_markup[0] in "*#:;":  # an entry of a list: its text stands behind it
            return "* " if node.wiki_markup[0] in "*#" else ""
        if node.contents is None or name in ("br", "hr"):
            return "\n" if name in ("br", "hr") else ""
        if name in _HIDDEN_TAGS or (name in ("table", "div", "span") and _is_frame(node)):
            return ""
        if name in ("math", "ce", "chem"):
            text = str(node.contents).strip()
            return chemical([text], {}) if name != "math" else " ".join(text.split())
        text = self.of(node.contents)
        if name in ("sub", "sup"):
            return script(text, name)
        if name in ("td", "th"):
            return f"{' '.join(text.split())} | "
        if name == "tr":
            return f"\n{text}\n"
        if name == "table":
            rows = (" ".join(row.split()).removesuffix("|").rstrip() for row in text.split("\n"))
            return "\n{}\n".format("\n".join(row for row in rows if row))
        return f"\n{text}\n" if name in _BLOCK_TAGS else text

    def _template(self, node: Any) -> str:
        name = " ".join(str(node.name).replace("_", " ").split()).casefold()
        if name.startswith(("formatnum:", "lc:", "uc:")):
            return str(node.name).partition(":")[2].strip()
        handler = _TEMPLATES.get(name)
        if handler is None:
            return ""
        cells: list[str] = []
        named: dict[str, str] = {}
        for parameter in node.params:
            value = self.of(parameter.value)
            key = str(parameter.name).strip()
            if not parameter.showkey:
                cells.append(value)
            elif key.isdigit() and int(key) == len(cells) + 1:  # "1=" is the same as none
                cells.append(value.strip())
            else:
                named[key] = value.strip()
        return handler(cells, named)


def _nothing(node: Any) -> str:
    return ""


def _is_frame(node: Any) -> bool:
    return any(
        str(attribute.name).strip().lower() == "class" and _FRAME_CLASSES.search(str(attribute.value))
        for attribute in node.attributes
    )


# --- templates that stand in the text ------------------------------------------------------


def _cell(place: int) -> Handler:
    return lambda cells, named: cells[place] if cells and -len(cells) <= place < len(cells) else ""


def _always(text: str) -> Handler:
    return lambda cells, named: text


def _joined(mark: str) -> Handler:
    return lambda cells, named: mark.join(cell for cell in cells if cell.strip())


def chemical(cells: list[str], named: dict[str, str]) -> str:
    """A formula of chemistry with its counts as subscripts: {{chem|H|2|O}}, {{chem2|H2O}}."""
    return _CHEMICAL_COUNT.sub(lambda match: script(match[0], "sub"), "".join(cells).replace("_", ""))


def _fraction(cells: list[str], named: dict[str, str]) -> str:
    if len(cells) == 3:
        return f"{cells[0]} {cells[1]}/{cells[2]}"
    return "/".join(cells) if len(cells) == 2 else f"1/{cells[0]}" if cells else ""


def _power_of_ten(cells: list[str], named: dict[str, str]) -> str:
    return f"×10{script(cells[0], 'sup')}" if cells else ""


def _value(cells: list[str], named: dict[str, str]) -> str:
    """{{val|1.67|(5)|e=-27|u=kg}}: a number, its uncertainty, a power of ten and a unit."""
    text = cells[0] if cells else ""
    for cell in cells[1:2]:
        text += cell if cell.startswith("(") else f"±{cell}"
    if power := named.get("e"):
        text += _power_of_ten([power], {})
    unit = named.get("u") or named.get("ul") or ""
    below = named.get("up") or named.get("upl")
    unit += f"/{below}" if below else ""
    return f"{text} {unit}".strip()


_BETWEEN = {"-": "–", "–": "–", "to": " to ", "and": " and ", "or": " or ", "by": " by ", "x": " × ", "×": " × ",
            "*": " × ", "+/-": " ± ", "±": " ± ", "to(-)": " to ", ",": ", "}  # fmt: skip
_UNITS = {"C": "°C", "F": "°F", "R": "°R", "sqkm": "km²", "km2": "km²", "m2": "m²", "m3": "m³",
          "sqmi": "sq mi", "sqft": "sq ft",
          "cm3": "cm³", "g/cm3": "g/cm³", "kg/m3": "kg/m³", "m/s2": "m/s²", "cuft": "cu ft", "km3": "km³"}  # fmt: skip


def _converted(cells: list[str], named: dict[str, str]) -> str:
    """{{convert|10|–|20|km|mi}}: the quantity as it was written; what it was converted to follows from it."""
    text, place = "", 0
    cells = [cell.strip() for cell in cells]
    while place < len(cells) and _NUMBER.match(cells[place]):
        text += (" " if text and text[-1].isalnum() else "") + cells[place]
        place += 1
        while place + 1 < len(cells) and cells[place] in _BETWEEN and _NUMBER.match(cells[place + 1]):
            text += _BETWEEN[cells[place]] + cells[place + 1]
            place += 2
        if place < len(cells):
            text += f" {_UNITS.get(cells[place], cells[place])}"
            place += 1
    return text


_FIRST = (
    "nowrap nobr nobreak math mvar var em strong small big bigmath tmath abbr tooltip vanchor ill code kbd mono tt "
    "bold italic i b q quote blockquote center serif larger smaller"
)
_LAST = "lang langx transl transliteration color"
_TEMPLATES: dict[str, Handler] = {
    **dict.fromkeys(_FIRST.split(), _cell(0)),
    **dict.fromkeys(_LAST.split(), _cell(-1)),
    **dict.fromkeys(("visible anchor", "interlanguage link", "block indent"), _cell(0)),
    "sub": lambda cells, named: script("".join(cells[:1]), "sub"),
    "sup": lambda cells, named: script("".join(cells[:1]), "sup"),
    **dict.fromkeys(("chem", "chem2", "ce"), chemical),
    **dict.fromkeys(("frac", "sfrac", "fraction", "tfrac"), _fraction),
    **dict.fromkeys(("convert", "cvt"), _converted),
    **dict.fromkeys(("val", "value"), _value),
    **dict.fromkeys(("e", "x10^", "×10^", "10^"), _power_of_ten),
    **dict.fromkeys(("sqrt", "radic"), lambda cells, named: f"√({cells[0]})" if cells else ""),
    "abs": lambda cells, named: f"|{cells[0]}|" if cells else "",
    **dict.fromkeys(("circa", "c."), lambda cells, named: " ".join(["c.", *cells[:1]])),
    "as of": lambda cells, named: " ".join(["As of", *cells]),
    **dict.fromkeys(("unbulleted list", "ubl", "plainlist", "flatlist", "hlist", "bulleted list"), _joined("\n")),
    **dict.fromkeys(("gaps", "linktext"), _joined("")),
    **dict.fromkeys(("ndash", "endash", "–"), _always("–")),
    **dict.fromkeys(("mdash", "emdash", "em dash", "—"), _always("—")),
    **dict.fromkeys(("snd", "spnd", "spaced ndash", "spaced en dash"), _always(" – ")),
    **dict.fromkeys(("nbsp", "space", "thinsp", "spaces", "thin space", "zwsp"), _always(" ")),
    "=": _always("="), "!": _always("|"), "pi": _always("π"), "minus": _always("−"), "times": _always("×"),
    "increment": _always("∆"), "hbar": _always("ħ"), "ohm": _always("Ω"), "prime": _always("′"),
}  # fmt: skip
