"""HTML in the cells of an exam, as learning platforms write it, cleaned to text."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from html.parser import HTMLParser

# A pair of tags, a tag that stands alone, or an entity with its semicolon: less may be mathematics (a<b, R&D).
_INLINE = "a|abbr|b|big|code|del|em|font|i|ins|kbd|mark|q|s|small|span|strike|strong|sub|sup|tt|u|var"
_BLOCK = (
    "article|blockquote|body|caption|center|dd|div|dl|dt|figcaption|figure|footer|h[1-6]|header|html|li|main|ol|p|pre|"
    "section|table|tbody|td|tfoot|th|thead|tr|ul"
)
_OTHER = "math|m[a-z]+|semantics|annotation|script|style|head|title|svg|audio|video|iframe|object"
_ALONE = "br|hr|img|wbr|input|source"
_PAIR = re.compile(rf"<({_INLINE}|{_BLOCK}|{_OTHER})(\s[^<>]*)?>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_SINGLE = re.compile(rf"<({_ALONE})(\s[^<>]*)?/?>|^\s*<p(\s[^<>]*)?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.IGNORECASE)
# What looks like a tag and is none: the parser would take "a<b and c" for one.
_NO_TAG = re.compile(rf"<(?!/?(?:{_INLINE}|{_BLOCK}|{_OTHER}|{_ALONE})[\s/>]|!--)", re.IGNORECASE)
_BLOCKS = re.compile(_BLOCK)
_KNOWN = re.compile(f"{_INLINE}|{_BLOCK}|{_OTHER}|{_ALONE}")
_HIDDEN = ("script", "style", "head", "annotation")
_MOST_PASSES = 4  # an export may escape what was escaped before

_SUPERSCRIPTS = dict(zip(
    "0123456789+-−=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVWαβγδθφχ",
    "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂᵅᵝᵞᵟᶿᵠᵡ", strict=True
))  # fmt: skip
_SUBSCRIPTS = dict(zip(
    "0123456789+-−=()aehijklmnoprstuvxβγρφχ",
    "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ", strict=True
))  # fmt: skip


def is_html(text: str) -> bool:
    """Whether a text has tags or entities of HTML in it."""
    if _has_tags(text):
        return True
    return "&" in text and any(html.unescape(entity[0]) != entity[0] for entity in _ENTITY.finditer(text))


def _has_tags(text: str) -> bool:
    return "<" in text and bool(_SINGLE.search(text) or ("</" in text and _PAIR.search(text)))


def is_known_tag(name: str) -> bool:
    """Whether `plain_text` takes an element of this name for HTML or MathML."""
    return _KNOWN.fullmatch(name.lower()) is not None


def plain_text(text: str) -> str:
    """The text of an HTML fragment; sub- and superscripts become characters where Unicode has them, else `_(...)` and
    `^(...)`; an image becomes its alternative text. A text without HTML stays as it is.
    """
    for _ in range(_MOST_PASSES):
        if not is_html(text):
            break
        had_tags = _has_tags(text)
        parser = TextCollector()
        parser.feed(_NO_TAG.sub("&lt;", text))
        parser.close()
        text = parser.result()
        if had_tags:
            # What looks like a tag now was escaped between tags, and so is what the text is about.
            return _ENTITY.sub(_unescaped_letter, text)
    return text


def _unescaped_letter(entity: re.Match[str]) -> str:
    """The character of an entity that was escaped twice, but for those that HTML itself consists of."""
    character = html.unescape(entity[0])
    return entity[0] if character in "<>&\"'" else character.replace("\xa0", " ")


def clean_options(texts: Sequence[str]) -> list[str]:
    """The plain texts of a question's options; as they stand where one would become empty, or equal to another."""
    plain = [plain_text(text) for text in texts]
    if sum(map(bool, plain)) < sum(map(bool, texts)) or len(set(plain)) < len(set(texts)):
        return list(texts)
    return plain


class TextCollector(HTMLParser):
    """Collects the text; `_open` holds the parts of the scripts that are open, the whole text at its bottom."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[tuple[str, list[str]]] = [("", [])]
        self._math: list[tuple[str, list[str]]] = []  # the elements of a formula that are open, with their parts
        self._hidden = 0

    def result(self) -> str:
        while self._math:
            self._close_math()
        while len(self._open) > 1:
            self._close(self._open[-1][0])
        text = "".join(self._open[0][1]).replace("\xa0", " ")
        lines = (line.strip(" ") for line in re.sub(r"[ \t]+", " ", text).split("\n"))
        return re.sub(r"\n{2,}", "\n", "\n".join(lines)).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag == "math" or self._math:
            self._math.append((tag, []))
        elif tag in ("sub", "sup"):
            self._open.append((tag, []))
        elif tag == "img":
            self._put(dict(attrs).get("alt") or "")
        elif tag in ("br", "hr") or _BLOCKS.fullmatch(tag):
            self._put(" " if tag in ("td", "th") else "\n")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("br", "hr", "img"):
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif self._math:
            if self._math[-1][0] == tag:
                self._close_math()
        elif tag in ("sub", "sup"):
            self._close(tag)
        elif _BLOCKS.fullmatch(tag) and tag not in ("td", "th"):
            self._put("\n")

    def handle_data(self, data: str) -> None:
        # A line's end in HTML is a space: lines come from tags alone.
        if self._hidden:
            return
        if self._math:
            self._math[-1][1].extend([" ".join(data.split())] if data.strip() else [])
        else:
            self._put(re.sub(r"[\r\n\t]+", " ", data))

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """The end of `<![...`; of one that the parser does not know as browsers take it: a comment."""
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return self.parse_bogus_comment(i)

    def _close_math(self) -> None:
        text = formula(*self._math.pop())
        if self._math:
            self._math[-1][1].append(text)
        else:
            self._put(text)

    def _put(self, text: str) -> None:
        self._open[-1][1].append(text)

    def _close(self, tag: str) -> None:
        if self._open[-1][0] == tag and len(self._open) > 1:
            _, parts = self._open.pop()
            self._put(script("".join(parts), tag))


def script(text: str, tag: str) -> str:
    """A sub- or superscript in characters; `^(...)` or `_(...)` where one of them is none."""
    characters = _SUPERSCRIPTS if tag == "sup" else _SUBSCRIPTS
    text = text.strip()
    if all(character in characters or character == " " for character in text):
        return "".join(characters.get(character, " ") for character in text)
    return ("^" if tag == "sup" else "_") + (text if len(text) == 1 else f"({text})")


def formula(tag: str, parts: list[str]) -> str:
    """An element of MathML in characters: powers, indexes, roots and fractions must not be lost."""
    if tag in ("msup", "msub") and len(parts) == 2:
        return parts[0] + script(parts[1], tag[1:])
    if tag == "msubsup" and len(parts) == 3:
        return parts[0] + script(parts[1], "sub") + script(parts[2], "sup")
    if tag == "mfrac" and len(parts) == 2:
        return "/".join(part if len(part) == 1 or part.isalnum() else f"({part})" for part in parts)
    if tag == "mroot" and len(parts) == 2:
        return f"{script(parts[1], 'sup')}√({parts[0]})"
    text = "".join(parts).strip() if tag != "math" else " ".join("".join(parts).split())
    if tag == "mo" and text in ("=", "<", ">", "≤", "≥", "≠", "≈", "+", "-", "−", "×", "→"):
        return f" {text} "
    return f"√({text})" if tag == "msqrt" else text
