"""Where sentences end, in any script: passages, the sentence index and similarities cut texts there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

_MARKS = "。！？｡؟۔।॥։።፧។။"  # Chinese and Japanese, Arabic, Urdu, Indic, Armenian, Ethiopic, Khmer, Burmese
_CLEAR = rf"(?:[{_MARKS}]+|．(?!\d))[\"'”’)\]»」』）】〉》]*"
CLOSING_MARKS = f".!?:;,…：；，、،؛{_MARKS}"
"""Characters with which a sentence or a part of it ends, and a heading does not."""
BULLETS = "[•◦▪‣●○■□➢❖►▶✓\uf0b7\uf0a7\uf0d8\uf0fc\uf076]"
"""Marks in front of a list's entries, as a regular expression; the last ones are those of office programs' fonts."""
_ANY_MARK = re.compile(f"[{_MARKS}．]")
_POINT = r"[.!?][\"'”’)\]]*\s+(?=\S)|\n"
_PLAIN_END, _END = re.compile(_POINT), re.compile(rf"{_POINT}|(?P<clear>{_CLEAR})")
_AT_END = re.compile(rf"(?:[.!?…][\"'”’»)\]]*|{_CLEAR})$")


def sentence_ends(text: str) -> Iterator[int]:
    """The places behind the ends of sentences: behind the mark, what is closed with it, and the blanks after that."""
    # Most texts have none of the other marks, and are searched for the common ones in half the time.
    end = _PLAIN_END if text.isascii() or not _ANY_MARK.search(text) else _END
    for match in end.finditer(text):
        after = text[match.end() : match.end() + 1]
        if match.lastgroup == "clear" or not (after.islower() or after.isdigit()):  # "e.g. a", "Fig. 3"
            yield match.end()


def sentences(text: str) -> list[str]:
    """The sentences of a text, stripped, none of them empty."""
    cuts = [0, *sentence_ends(text), len(text)]
    pieces = (text[begin:end].strip() for begin, end in itertools.pairwise(cuts))
    return [piece for piece in pieces if piece]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where the `sentences` of a text begin and end: `text[begin:end]` is the sentence."""
    spans, place = [], 0
    for sentence in sentences(text):
        begin = text.index(sentence, place)
        place = begin + len(sentence)
        spans.append((begin, place))
    return spans


def ends_a_sentence(text: str) -> bool:
    """Whether a text without blanks behind it ends as a sentence does."""
    return _AT_END.search(text) is not None
