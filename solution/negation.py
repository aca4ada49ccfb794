"""Questions that ask for what is NOT so ("Which of these is not a metal?", "All are metals except"), by English rules.

Of their options the right one fits the corpus least: a score that says what is true puts it last.
"""

from __future__ import annotations

import re

# "not" with a capital only at its beginning stands in a title: "the film Do Not Forget Me".
_NOT = r"(?:not|NOT)"
_BE = r"(?:is|are|was|were|be|been|being)"
_AUXILIARY = rf"(?:{_BE}|does|do|did|has|have|had|can|could|would|will|should|shall|may|might|must)"
_CONTRACTED = r"(?:is|are|was|were|does|do|did|has|have|had|ca|could|would|wo|should|must)n['’]?t"
_FALSE = r"(?:false|untrue|incorrect|incorrectly|inaccurate|invalid|wrong|mistaken)"
_STATED = (
    r"(?:statements?|sentences?|options?|answers?|choices?|pair(?:ing)?s?|match(?:es)?|assertions?|claims?"
    r"|descriptions?|definitions?|combinations?|equations?|formulas?|names?|terms?)"
)
_LIKELY = (
    r"(?:likely|able|probable|apt|accurate|appropriate|important|characteristic|useful|helpful|effective|typical"
    r"|representative|consistent|(?:closely )?(?:related|associated)|supported|expected)"
)
_ONLY = r"(?! (?:only|just|merely|simply|solely|gates?|operators?)\b)"

_QUOTED = re.compile(r"“[^”]*”|\"[^\"]*\"|«[^»]*»|‘[^’]*’(?!\w)")
_ASKS = re.compile(
    r"\b(?:which|what|who|whom|where)\b|\bthe following\b|\b(?:select|choose|find|identify|mark|pick)\b", re.I
)
# What asks for a reason or an amount asks for the truth about what is not so.
_OTHERWISE = re.compile(r"\b(?:why|how|reasons?)\b", re.I)
# What stands behind these speaks of the thing asked for, or of a condition: "a reflex that does not reach the brain".
_ASIDE = re.compile(
    r"\b(?:that|who|whom|whose|if|unless|when|whenever|because|since|although|though|while|whereas|and|or|so"
    r"|but(?! (?:for|not)\b))\b|[,;:(–—] ?(?=which\b|but\b|and\b|because\b|although\b|if\b)"
)
_NEGATION = re.compile(
    rf"\b{_AUXILIARY}(?: [\w'’()-]+){{0,6}}? {_NOT}\b{_ONLY}|\bcannot\b(?! help\b){_ONLY}|\b{_CONTRACTED}\b{_ONLY}"
)
_SHOUTED = re.compile(r"\b(?:NOT|EXCEPT|FALSE|INCORRECT|LEAST|CANNOT|UNTRUE|WRONG)\b(?! (?:gate|operator))")
_EXCEPTED = re.compile(
    r"\b(?:except|excepting|excluding|other than|but|with the exception of)(?: for| in| that| to)?[\s:.…?_-]*$"
    r"|\b(?:all|each|any|every)\b.*\bexcept\b|,? except(?: for)?,? _{2,}"
    r"|\bis (?:the|an) exception(?! because| since)\b|\bodd one out\b|\bdoes not belong\b",
    re.I,
)
_STATED_FALSE = re.compile(
    rf"\b{_BE}(?: (?:an?|the))? {_FALSE}"
    rf"(?=[\s:.?_]*$| (?:{_STATED}|about|regarding|concerning|of|for|with|in)\b)|\b{_FALSE} {_STATED}\b",
    re.I,
)
_LEAST = re.compile(rf"\b(?:{_BE}|seems?)(?: the)? (?:least {_LIKELY}|(?:most )?unlikely)\b", re.I)
_OF_THE_BLANK = re.compile(rf"_{{2,}} (?:{_AUXILIARY} not|{_CONTRACTED})\b")
_UNDONE = re.compile(rf"(?:\b{_NOT}|n['’]t) (?:{_FALSE}|unlikely|an? exception)\b", re.I)


def is_negated(prompt: str) -> bool:
    """Whether the right option is the one that is not so, as far as rules can tell; no for other languages.

    Quoted words do not count, nor does "not" in a side clause or a condition ("if it is not treated, which ...").
    """
    text = " ".join(_QUOTED.sub(" ", prompt).split())
    asked = _question(text)
    if _UNDONE.search(asked):
        return False  # "which is not incorrect?"
    if _EXCEPTED.search(asked) or _OF_THE_BLANK.search(asked):
        return True
    begin = _ASKS.search(asked)
    if begin is None or _OTHERWISE.search(asked[begin.start() :]):
        return False
    asked = asked[begin.start() :]
    if _SHOUTED.search(asked) or _STATED_FALSE.search(asked) or _LEAST.search(asked):
        return True
    aside = _ASIDE.search(asked, 1)
    return _NEGATION.search(asked[: aside.start()] if aside else asked) is not None


def _question(text: str) -> str:
    """The last sentence that asks something, else the last sentence."""
    parts = [part for part in re.split(r"(?<=[.?!:])\s+(?=[A-Z_(])", text) if part.strip()]
    asking = [part for part in parts if _ASKS.search(part) or "__" in part]
    return (asking or parts or [""])[-1]
