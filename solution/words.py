"""Words of a text in any language: what search, near-duplicates, fusion, gold labels, signals and folds compare.

A word is a run of letters, digits and underscores in lower case, with the marks that belong to its letters (vowel
signs of Hindi, of vocalised Arabic, ...). Texts are compared in the Unicode form NFC; soft hyphens, joiners and other
characters without a shape are left out. Chinese, Japanese, Thai and other scripts without blanks between words, and
Korean, whose blanks part phrases, are read by their characters and, for a search, by pairs of neighbouring characters
(Nie, Gao, Zhang and Zhou 2000: On the Use of Words and N-grams for Chinese Information Retrieval). A character of Thai
or Lao is a consonant with its vowels (Theeramunkong et al. 2000: Character Cluster Based Thai Information Retrieval).

Most texts have none of this: one regular expression splits them.
"""

from __future__ import annotations

import functools
import operator
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

_runs = re.compile(r"\w+").findall
_unusual = re.compile(
    # Usual are ASCII, letters of Latin, IPA, Greek, Cyrillic and Armenian, punctuation, signs of currencies and
    # mathematics. Unusual among them: superscripts, ligatures and other characters that stand for plain ones, what has
    # no shape, and the capital I with a dot, whose lower case is two characters.
    "[^\x00-\xa9\xab\xac\xae-\xb1\xb4\xb6-\xb8\xbb\xbf-\u012f\u0131\u0134-\u013e\u0141-\u0148\u014a-\u017e"
    "\u0180-\u01c3\u01cd-\u01f0\u01f4-\u02af\u0370-\u0373\u0375-\u0377\u037b-\u037d\u037f\u0384-\u0386\u0388-\u03cf"
    "\u03d7-\u03ef\u03f3\u03f7\u03f8\u03fa-\u0482\u048a-\u052f\u0531-\u0556\u0561-\u0586\u1e00-\u1e99\u1ea0-\u1eff"
    "\u2010-\u2027\u2030-\u205e\u20a0-\u20c0\u2190-\u23ff\u2500-\u27bf]"
).search
_UNWRITTEN = re.compile("[\u0591-\u05c7\u0640\u064b-\u0652\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]")
"""Vowel points of Hebrew and Arabic, which most texts leave out, and the stroke that lengthens Arabic letters."""
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー]"
_CHARACTERS_OF_WORD = 2  # in prose of a script without blanks
SCRIPTS_VERSION = "1"
"""Of the rules for texts of `other_scripts`; another one makes what was made of such texts anew."""
_SAMPLE_CHARACTERS = 1 << 16
_OTHER_SHARE = 0.02


def words(text: str) -> list[str]:
    """The words of a text in lower case, as they are written, in order; without blanks, each character is a word."""
    if _is_usual(text):
        return _runs(text.lower())
    found: list[str] = []
    for word in _patterns().word.findall(_cleaned(text)):
        found += _characters(word) if is_unspaced(word[0]) else [word]
    return found


def search_words(text: str) -> list[str]:
    """The words by which a text is found and compared with others, in order.

    A word that has a plainer form is followed by that: CO₂ gives co₂ and co2, Ca²⁺ also ca2, a vocalised Arabic word
    also the one without vowels. Digits above or below a number have no plainer form: 10³ is not 103. A run of
    characters without blanks gives its pairs of neighbours, then each Chinese and Korean character.
    """
    if _is_usual(text):
        return _runs(text.lower())
    text = _cleaned(text)
    folds = not unicodedata.is_normalized("NFKC", text) or _UNWRITTEN.search(text) is not None
    found: list[str] = []
    for word in _patterns().word.findall(text):
        if word.isascii():
            found.append(word)
        elif is_unspaced(word[0]):
            found += _pairs(_characters(word))
        else:
            found.append(word)
            if folds:
                found += _plainer(word)
    return found


def word_count(text: str) -> int:
    """How many words of prose a text has: pieces between blanks, and where there are none, one for two characters."""
    count = len(text.split())
    if not _is_usual(text):
        count += len(_patterns().unspaced.findall(text)) // _CHARACTERS_OF_WORD
    return count


def in_word(character: str) -> bool:
    """Whether a character (or none: "") is a letter, a digit, or a mark that belongs to a letter."""
    return character.isalnum() or (character != "" and unicodedata.category(character).startswith("M"))


def is_unspaced(character: str) -> bool:
    """Whether a character (or none: "") is of a script that puts no blank between words, or is Korean."""
    return not character.isascii() and _patterns().unspaced.match(character) is not None


def mentions(phrase: str, text: str) -> int:
    """How often a text holds a phrase exactly as it is written, as words of its own."""
    return sum(
        _parts(text[found.start() - 1 : found.start()], phrase[:1]) and _parts(text[found.end() :][:1], phrase[-1:])
        for found in re.finditer(re.escape(phrase), text)
    )


def _parts(beside: str, edge: str) -> bool:
    """Whether the character beside a phrase is not of the same word as the phrase's first or last one."""
    return not (in_word(beside) or beside == "_") or (is_unspaced(beside) and is_unspaced(edge))


def other_scripts(texts: Iterable[str]) -> bool:
    """Whether texts have other words than runs of letters and digits, or other sentence ends than full stops.

    True where at least 2 of 100 letters among the first 65,536 characters are of a script without blanks, Korean or
    Arabic, or are marks of their own.
    """
    others = letters = 0
    left = _SAMPLE_CHARACTERS
    for text in texts:
        part = text[:left]
        letters += sum(map(in_word, part))
        others += 0 if _is_usual(part) else len(_patterns().other.findall(part))
        left -= len(part)
        if not left:
            break
    return others > 0 and others >= _OTHER_SHARE * letters


# --- unusual texts -------------------------------------------------------------------------


def _is_usual(text: str) -> bool:
    return text.isascii() or _unusual(text) is None


class _Patterns:
    """Regular expressions by properties of Unicode; the library for them is loaded for unusual texts only.

    Attributes:
        word: a run of letters, digits and marks of one kind of script. Raised and lowered signs belong to what stands
            before them: Ca²⁺, 10⁻³.
        unspaced: a letter of a script without blanks.
        character: such a letter with its marks, with the consonants that Khmer and Burmese put under it, and with the
            vowels that Thai and Lao write before and behind it.
        syllable, syllables: a letter that is a syllable or a word by itself, Chinese or Korean; several.
        shapeless: a character without a shape.
        other: what `other_scripts` counts.
    """

    def __init__(self) -> None:
        import regex

        def compiled(pattern: str) -> Any:
            return regex.compile(pattern, regex.V1)

        unspaced = rf"[{_UNSPACED}&&[\p{{L}}\p{{Nl}}]]"
        spaced = rf"[\p{{L}}\p{{N}}_--{unspaced}]"
        below = r"(?:(?<=[\u17d2\u1039])\p{L}\p{M}*)*"
        self.word = compiled(rf"(?:{unspaced}\p{{M}}*)+|{spaced}(?:{spaced}|[\p{{M}}⁺⁻₊₋])*")
        self.unspaced = compiled(unspaced)
        self.character = compiled(rf"[เ-ไເ-ໄ]?[\p{{L}}\p{{Nl}}]\p{{M}}*{below}[ะาๅະາ]*")
        self.syllable = compiled(r"[\p{Han}\p{Hangul}]")
        self.syllables = compiled(r"[\p{Han}\p{Hangul}]+")
        self.shapeless = compiled(r"\p{Default_Ignorable_Code_Point}+")
        self.other = compiled(rf"[{unspaced}\p{{M}}[\p{{Arabic}}&&\p{{L}}]]")


@functools.cache
def _patterns() -> _Patterns:
    return _Patterns()


def _cleaned(text: str) -> str:
    """The text in lower case and NFC, without characters that have no shape."""
    shaped = unicodedata.normalize("NFC", _patterns().shapeless.sub("", text))
    return shaped.replace("İ", "i").lower()


def _characters(run: str) -> list[str]:
    """The characters of a run without blanks; forms of half and full width are the same."""
    run = unicodedata.normalize("NFKC", run)
    if _patterns().syllables.fullmatch(run):
        return list(run)  # the pattern would find the same in ten times the time
    found: list[str] = _patterns().character.findall(run)
    return found


def _pairs(characters: list[str]) -> list[str]:
    if len(characters) < 2:
        return characters
    pairs = list(map(operator.add, characters, characters[1:]))
    return pairs + _patterns().syllable.findall("".join(characters))


@functools.lru_cache(1 << 16)
def _plainer(word: str) -> tuple[str, ...]:
    """The words of a word's plainer form; none where it has no such form."""
    plain = _UNWRITTEN.sub("", unicodedata.normalize("NFKC", word)).lower()
    return () if plain == word or _has_bare_number(word) else tuple(_patterns().word.findall(plain))


def _has_bare_number(word: str) -> bool:
    """Whether raised or lowered digits follow a number (10³), or stand alone (the ² of a bracket)."""
    raised = [unicodedata.decomposition(character).startswith(("<super>", "<sub>")) for character in word]
    return (
        not any(map(str.isalpha, word))
        and any(raised)
        or any(is_raised and before.isdecimal() for before, is_raised in zip(word, raised[1:], strict=False))
    )
