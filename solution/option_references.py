"""Options that name other options ("All of the above", "Both A and C", "None of these"), recognised by rules.

English only. An option names others only where its whole text does so: "vitamins A and D" and "hepatitis A and B" do
not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ReferenceKind = Literal["all", "none", "several"]
ReferenceForm = Literal["letters", "above", "words"]


@dataclass(frozen=True)
class OptionReference:
    """What an option says about other options of its question.

    Attributes:
        kind: `all` of the named options are right (or any of them is), `none` of them is, or `several` of them are.
        places: positions of the named options in ascending order; never empty, and never the option's own.
        form: how they are named: by `letters` ("Both A and C": means the same only while these options keep their
            letters), as those `above` (means the same only while they stand above it), or in other `words` ("none of
            these", or by their texts: means the same in any order).
    """

    kind: ReferenceKind
    places: tuple[int, ...]
    form: ReferenceForm


def option_references(options: Sequence[str]) -> list[OptionReference | None]:
    """For each option of a question what it says about the others; None where it is an answer of its own.

    Args:
        options: the texts in the order of their letters; an empty text is no option, and keeps its letter.
    """
    readings = [_read(text, len(options)) if text.strip() else None for text in options]
    plain = [place for place, text in enumerate(options) if text.strip() and readings[place] is None]
    texts = {_plain_text(options[place]): place for place in plain}
    references = [_by_texts(options[place], place, texts) if place in plain else None for place in range(len(options))]
    plain = [place for place in plain if references[place] is None]
    for place, reading in enumerate(readings):
        if reading is not None:
            references[place] = _resolved(reading, place, plain, options)
    return references


def fixed_places(options: Sequence[str]) -> frozenset[int]:
    """Positions of the options that must keep their places when a question's options are put into another order.

    Those that name others, so that the others stay above them, and those that they name by letters. The rest may change
    places among themselves.
    """
    fixed: set[int] = set()
    for place, reference in enumerate(option_references(options)):
        if reference is not None:
            fixed.add(place)
            if reference.form == "letters":
                fixed.update(reference.places)
    return frozenset(fixed)


def naming_others(questions: Sequence[Sequence[str]]) -> list[int]:
    """The rows of the questions, each given by its options, of which an option names others."""
    return [row for row, options in enumerate(questions) if fixed_places(options)]


@dataclass(frozen=True)
class _Reading:
    """What the words of one option say, before it is known which options there are.

    Attributes:
        letters: positions that it names by letters; of the form `above` or `words` those that it excepts.
        bare: a single word ("None", "Both"), which may be an answer of its own.
        pair: it speaks of exactly two others ("both", "neither").
    """

    kind: ReferenceKind
    form: ReferenceForm
    letters: frozenset[int] = frozenset()
    bare: bool = False
    pair: bool = False


_THINGS = r"(?:answers?|options?|choices?|responses?|alternatives?|statements?)"
_SET = (
    rf"(?:(?:of )?(?:the )?(?P<above>above|(?:above|preceding|previous|foregoing) {_THINGS}|{_THINGS} (?:given )?above)"
    rf"|of (?:these|those|them)(?: {_THINGS})?|(?:of )?(?:these|those|the|the other|the given|the listed) {_THINGS}"
    rf"|(?:other )?{_THINGS})(?: (?:here|given|listed))?"
)
_LABEL = r"[(\[]?[a-z](?:[)\].]|(?![a-z]))"
_AND = r"(?:, ?(?:and |or |nor |& ?)?| ?& ?| (?:and|or|nor|as well as) )"
_LABELS = rf"(?:{_THINGS} )?{_LABEL}(?:{_AND}(?:{_THINGS} )?{_LABEL})*"
_NONE = r"none|neither(?: one)?|not any|no"
_ALL = r"(?:any|each|every)(?: one)?|all(?: (?:two|three|four|five))?|both|either"
_SEVERAL = r"(?:only )?two|three|more than one|at least two|two or more|several"
_QUANTITY = rf"(?:(?P<none>{_NONE})|(?P<all>{_ALL})|(?P<several>{_SEVERAL}))"

_OF_A_SET = re.compile(rf"{_QUANTITY} {_SET}(?: (?:except|but)(?: for)? (?P<spared>{_LABELS}))?")
_OF_LETTERS = re.compile(
    r"(?:only )?(?:(?P<none>neither|none of|not) |(?:both|either|all of|both of|either of) )?"
    rf"(?P<letters>{_LABELS})(?: only)?"
)
_ALONE = re.compile(_QUANTITY)
# Behind "above" there can only be a verdict, or the reason for it: "none of the above: the P wave hides it".
_ABOVE_WITH_REASON = re.compile(
    rf"{_QUANTITY} (?:of )?the (?:{_THINGS} )?above"
    r"(?: ?[:;,(–—] ?| - |,? (?:are|is|can|could|may|might|will|have|has|since|because) ).+"
)
_VERDICT = re.compile(
    r" (?:(?:are|is|were|was|could be|can be|may be)(?: all| both| equally)?(?: the)?"
    rf" (?:(?P<wrong>false|incorrect|wrong|untrue)|true|correct|right|valid|accurate|possible|acceptable|applicable)"
    rf"(?: {_THINGS})?|appl(?:y|ies))$"
)
_JOINED = re.compile(r"(?:(?P<none>neither)|both|either)? ?(?P<texts>.+)")
_AMOUNT = re.compile(r"(?:zero|one|two|three|four|five|some|most|many|few|half|only|\d)\b")


def _read(text: str, count: int) -> _Reading | None:
    words = _words(text)
    verdict = _VERDICT.search(words)
    stated = words[: verdict.start()] if verdict else words
    if found := _OF_A_SET.fullmatch(stated):
        spared = _letters(found["spared"] or "", count)
        form: ReferenceForm = "above" if found["above"] else "words"
        if spared is None or (spared and found["all"] is None):
            return None
        reading = _Reading(_kind(found), form, spared, pair=_speaks_of_two(stated))
    elif found := _ABOVE_WITH_REASON.fullmatch(words):
        return _Reading(_kind(found), "above", pair=_speaks_of_two(words))
    elif found := _ALONE.fullmatch(stated):
        if found["several"] or (verdict is None and stated not in ("none", "all", "both", "neither")):
            return None
        reading = _Reading(_kind(found), "words", bare=verdict is None, pair=_speaks_of_two(stated))
    elif found := _OF_LETTERS.fullmatch(stated):
        letters = _letters(found["letters"], count)
        # A letter alone is an answer: a point in a figure, a vitamin, a blood group.
        if not letters or (len(letters) == 1 and verdict is None and "only" not in stated.split()):
            return None
        reading = _Reading("none" if found["none"] else "all", "letters", letters)
    else:
        return None
    turned: dict[ReferenceKind, ReferenceKind] = {"all": "none", "none": "all"}
    if verdict is None or verdict["wrong"] is None:
        return reading
    return _Reading(turned.get(reading.kind, reading.kind), reading.form, reading.letters, reading.bare, reading.pair)


def _kind(found: re.Match[str]) -> ReferenceKind:
    return "none" if found["none"] else "all" if found["all"] else "several"


def _speaks_of_two(words: str) -> bool:
    return words.split()[0] in ("both", "neither", "either")


def _letters(labels: str, count: int) -> frozenset[int] | None:
    """The positions of "a, (b) and c"; None where a letter is that of no option."""
    bare = re.sub(rf"\b(?:{_THINGS}|and|or|nor|as well as)\b", " ", labels)
    places = frozenset(ord(letter) - ord("a") for letter in re.findall(r"[a-z]", bare))
    return places if all(place < count for place in places) else None


def _resolved(reading: _Reading, place: int, plain: Sequence[int], options: Sequence[str]) -> OptionReference | None:
    """The reference of the option at `place`; None where the options that it would name are not there.

    Args:
        plain: positions of the options that name no others.
    """
    if reading.form == "letters":
        # "B and D" among "A and C", "A and D": the letters are those of vitamins, not of options.
        named = sorted(reading.letters)
        clear = place not in named and len(plain) > 1
        clear &= all(options[other].strip() and not _is_other_letter(options[other], other) for other in named)
        return OptionReference(reading.kind, tuple(named), "letters") if clear else None
    if reading.bare and any(_AMOUNT.match(_words(options[other])) for other in plain):
        return None  # "None" among "One", "Two" is a number
    # Also "the above" are all others: where an answer stands below, the options were shuffled after they were written.
    named = [other for other in plain if other not in reading.letters]
    if len(named) < 1 or (reading.pair and len(named) != 2):
        return None
    form = "letters" if reading.letters else reading.form
    return OptionReference(reading.kind, tuple(named), form)


def _is_other_letter(text: str, place: int) -> bool:
    """Whether an option is a single letter that is not its own."""
    bare = _words(text).strip("()[].")
    return len(bare) == 1 and bare.isalpha() and ord(bare) - ord("a") != place


def _by_texts(text: str, place: int, texts: dict[str, int]) -> OptionReference | None:
    """The reference of "both X and Y", where other options are X and Y."""
    found = _JOINED.fullmatch(_words(text))
    if found is None:
        return None
    parts = [_plain_text(part) for part in re.split(r", (?:and |or |nor )?| (?:and|or|nor) ", found["texts"])]
    named = sorted({texts[part] for part in parts if part in texts and texts[part] != place})
    if len(parts) < 2 or len(named) != len(parts):
        return None
    return OptionReference("none" if found["none"] else "all", tuple(named), "words")


def _words(text: str) -> str:
    """The text in lower case, with single spaces, without its last full stop."""
    return " ".join(text.lower().split()).rstrip(".!").rstrip()


def _plain_text(text: str) -> str:
    return re.sub(r"^(?:an?|the) ", "", _words(text))
