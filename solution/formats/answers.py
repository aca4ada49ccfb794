"""The right answer in the forms in which files give it: a letter in any dress, an index from 0 or 1, a text."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from solution.formats.items import LETTERS
from solution.formats.names import key_of
from solution.tables import cell_text, shown

UNKNOWN = -1
TEXT = "text"
_ALL_POINTS = 99.99  # per cent; Moodle writes thirds as 33.33333
_NAME = r"(?:(?:the )?(?:correct |right )?(?:option|choice|answer|opt|ans|op|ending|sol)[\s_:.#-]*(?:is\s+)?)?"
# A letter or a number with what people put around it: (B), B., [B], Option B, Answer: (B), option_2.
_DRESSED = re.compile(rf"{_NAME}[(\[{{]?\s*([A-Za-z]|\d{{1,2}})\s*[)\]}}.:]*", re.IGNORECASE)
_LETTER_AND_TEXT = re.compile(rf"{_NAME}[(\[{{]?([A-Za-z])[)\]}}.:]+\s*(.+)", re.IGNORECASE | re.DOTALL)
_BETWEEN = re.compile(r"\s*(?:[,;/&+|]|\band\b|\s)\s*")
_NUMBER = re.compile(r"-?\d{1,4}(?:\.0+)?")


class Points:
    """The right options of questions whose options give percentages of the points, as Moodle's do.

    Attributes:
        partial: the questions so far in which one option gives all points, and another some of them.
    """

    def __init__(self) -> None:
        self.partial = 0

    def right(self, points: Sequence[float]) -> list[bool]:
        """Which options are right: those that give all points, or, where none does, those that give some."""
        full = [share >= _ALL_POINTS for share in points]
        some = [share > 0 for share in points]
        self.partial += sum(full) == 1 and sum(some) > 1
        return full if any(full) else some

    def notes(self) -> list[str]:
        if not self.partial:
            return []
        one = "1 question has one option" if self.partial == 1 else f"{self.partial} questions have one option"
        return [f"{one} with 100 % of the points and others with a part of them: that with 100 % is the right one"]


class Refused(ValueError):
    """An answer that names no option, or more than one; the text says why."""


# Answers of a file repeat: a few letters, or numbers.
@functools.lru_cache(maxsize=4096)
def undressed(text: str) -> str | None:
    """The letter, as a capital, or the number that a text consists of; None where it says more, or something else."""
    match = _DRESSED.fullmatch(unicodedata.normalize("NFKC", text).strip())
    return match[1].upper() if match else None


def index_of(cell: Any) -> int | None:
    """The whole number that a cell is; None where it is none (True is no number here)."""
    if isinstance(cell, bool):
        return None
    if isinstance(cell, (int, float)):
        return int(cell) if cell == cell and abs(cell) < 1e4 and cell == int(cell) else None
    return _number_in(cell_text(cell))


@functools.lru_cache(maxsize=4096)
def _number_in(text: str) -> int | None:
    if _NUMBER.fullmatch(text):
        return int(float(text))
    number = undressed(text)
    return int(number) if number is not None and number.isdigit() else None


def comparable(text: str) -> str:
    """A text without what does not count where an answer is compared with the options: case, spaces, a last dot."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".")


def is_missing(cell: Any) -> bool:
    """True for what stands for an unknown answer: nothing, an empty list, -1 (as in test sets of benchmarks)."""
    return cell in ([], {}, ()) or cell_text(cell) == "" or index_of(cell) == -1


_TRUTHS = (("True", "False"), ("对", "错"), ("對", "錯"), ("正确", "错误"), ("正確", "錯誤"), ("√", "×"), ("是", "否"))


def truth_pair(cell: Any) -> tuple[str, str] | None:
    """The two options of a statement that has none and whose answer is one of them: true and false."""
    text = cell_text(cell).capitalize()
    return next((pair for pair in _TRUTHS if text in pair), None)


class AnswerColumn:
    """The answers of one file, read alike.

    Args:
        cells: of all rows.
        options: of all rows, their texts; "" where there is none.
        labels: the file's own names of the options of each row, or None.
        start: what numbers count from, where it is known: 0 or 1.

    Attributes:
        counted: how many answers are numbers.
        ways: how they are read, `0` and `1` (what they count from) and `TEXT` (an option's text is a number): those
            in which the fewest do not fit. Of several, all must lead to the same option.
    """

    def __init__(
        self,
        cells: Sequence[Any],
        options: Sequence[Sequence[str]],
        labels: Sequence[Sequence[str] | None],
        start: int | None = None,
    ):
        texts = [cell_text(cell) for cell in cells if not isinstance(cell, (list, tuple, dict))]
        self._has_texts = any(text and undressed(text) is None and index_of(text) is None for text in texts)
        numbers = [
            (part, row)
            for row, cell in enumerate(cells)
            for part in (cell if isinstance(cell, (list, tuple)) else [cell])
            if not is_missing(part) and index_of(part) is not None and not _has_label(part, labels[row])
        ]
        self.counted = len(numbers)
        self.ways: list[int | str] = [start] if start is not None else []
        if numbers and start is None:
            misfits: dict[int | str, int] = {
                way: sum(_place(way, part, options[row]) is None for part, row in numbers) for way in (0, 1, TEXT)
            }
            self.ways = [way for way, count in misfits.items() if count == min(misfits.values())]

    def read(self, cell: Any, options: Sequence[str], labels: Sequence[str] | None) -> int:
        """The position of the right option; -1: the file does not say.

        Raises:
            Refused: it names none of the options, several, or may mean two of them.
        """
        if isinstance(cell, (list, tuple)):
            places = {self.read(part, options, labels) for part in cell} - {UNKNOWN}
            if len({options[place] for place in places}) > 1:
                raise Refused(f"the answer {shown(str(list(cell)))} names several options, and one must be right")
            return min(places, default=UNKNOWN)
        text = cell_text(cell)
        if is_missing(cell) and (not text or text not in options):
            return UNKNOWN
        if labels is not None and _has_label(cell, labels):
            return _filled(labels.index(_label(cell, labels)), options)
        if index_of(cell) is not None:
            return self._numbered(cell, options)
        name = undressed(text)
        if name is not None:
            return self._lettered(name, text, options)
        return _written(text, options)

    def _lettered(self, name: str, text: str, options: Sequence[str]) -> int:
        place = LETTERS.index(name)
        # Where other answers are texts, "C" may be carbon.
        others = [other for other, option in enumerate(options) if self._has_texts and option == text]
        if others and others != [place]:
            if place >= len(options) or not options[place]:
                return others[0]
            raise Refused(f"the answer {shown(text)!r} is the letter of one option and the text of another")
        return _filled(place, options)

    def _numbered(self, cell: Any, options: Sequence[str]) -> int:
        text = shown(cell_text(cell))
        places = {way: place for way in self.ways if (place := _place(way, cell, options)) is not None}
        if not places:
            counted = f" (numbers count from {self.ways[0]} here)" if self.ways in ([0], [1]) else ""
            raise Refused(f"the answer {text!r} is none of its options{counted}")
        if len(set(places.values())) > 1:
            meanings = [f"{LETTERS[place]} {_MEANINGS[way]}" for way, place in places.items()]
            raise Refused(f"the answer {text!r} is {', '.join(meanings)}: say which with --answers-from 0 or 1")
        return next(iter(places.values()))


_MEANINGS = {0: "counted from 0", 1: "counted from 1", TEXT: "by its text"}


def _place(way: int | str, cell: Any, options: Sequence[str]) -> int | None:
    """The option that a number names; None where it names none."""
    if isinstance(way, str):
        text = cell_text(cell)
        return options.index(text) if text in options else None
    index = index_of(cell)
    return index - way if index is not None and _exists(options, index - way) else None


def _exists(options: Sequence[str], place: int) -> bool:
    return 0 <= place < len(options) and options[place] != ""


def _label(cell: Any, labels: Sequence[str]) -> str:
    """The option's label that a cell is: as it stands, or without its dress."""
    text = cell_text(cell)
    if text in labels:
        return text
    key = _cached_key(text)
    return key if key in labels else undressed(text) or text


_cached_key = functools.lru_cache(maxsize=4096)(key_of)


def _has_label(cell: Any, labels: Sequence[str] | None) -> bool:
    return labels is not None and not isinstance(cell, (list, dict)) and _label(cell, labels) in labels


def _filled(place: int, options: Sequence[str]) -> int:
    if not _exists(options, place):
        raise Refused(f"the answer is {LETTERS[place]}, and that option is empty")
    return place


def _written(text: str, options: Sequence[str]) -> int:
    """The option whose text an answer is, or whose letter and text; the first where equal options are."""
    for compare in (str, comparable):
        places = [place for place, option in enumerate(options) if option and compare(option) == compare(text)]
        if len({options[place] for place in places}) == 1:
            return places[0]
        if places:
            raise Refused(f"the answer {shown(text)!r} is the text of several options that differ in little")
    both = _LETTER_AND_TEXT.fullmatch(text)
    if both:
        place = LETTERS.index(both[1].upper())
        if _exists(options, place) and comparable(options[place]) == comparable(both[2]):
            return place
    names = [undressed(part) or "" for part in _BETWEEN.split(unicodedata.normalize("NFKC", text))]
    known = LETTERS[: len(options)]
    if text.isupper() and text.isalpha() and list(text) == sorted(set(text)) and set(text) <= set(known):
        names = list(text)
    if len(names) > 1 and all(name and (name.isdigit() or name in LETTERS) for name in names):
        texts = {options[known.index(name)] if name in known else name for name in names}
        if len(texts) == 1 and names[0] in known:
            return known.index(names[0])
        raise Refused(f"the answer {shown(text)!r} names several options, and one must be right")
    raise Refused(
        f"the answer {shown(text)!r} is none of its options: a letter from A to {known[-1]}, a number or an option's "
        "text is read"
    )
