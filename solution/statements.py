"""A question with one of its options as a statement, by English rules.

"What is the largest gland?" and "the liver" become "the liver is the largest gland". Texts of a corpus state: neither a
question word nor a question's order of words stands in their sentences. The statement need not be right English: an
embedder reads it, and nobody else.
"""

from __future__ import annotations

import re

VERSION = 1  # of the rules: contexts that were made with other ones are made anew
_LONGEST = 1000
"""Characters of a prompt. A longer one may be cut to what an embedder reads, and the option in it with it."""

_BLANK = re.compile(r"_{2,}")
_BE = r"(?:is|are|was|were)"
_MODAL = r"(?:can|could|would|will|should|may|might|must|has|have|had)"
_DO = r"(?:does|do|did)"
_PLACE = r"(?P<place>in|on|at|by|from|to|into|during|for|with|through|of|under|between|within|about|as)"
_OF_THESE = r"(?:which|what)(?: one)?(?: of (?:the following|these|those|them))?"
_LEAD = re.compile(
    r"^(?!(?:which|what|who|where|when|why|how)\b)(?P<lead>[^?]*?, )(?=(?:which|what|who|where|why|how)\b)", re.I
)
# "Which of these statements about bile is true?" -> "bile: OPTION"
_VERDICT = re.compile(
    rf"^{_OF_THESE}(?: (?:statements?|sentences?|descriptions?))?"
    rf"(?: (?:about|regarding|concerning|on|of|for|describing) (?P<topic>.+?))? (?:{_BE}|will be|would be|must be)"
    r"(?: not| always| most likely)* (?:true|false|correct|incorrect|valid|accurate)"
    r"(?: (?:statements? )?(?:about|regarding|concerning|for|of|in) (?P<rest>.+))?$",
    re.I,
)
_AMOUNT = re.compile(r"^how (?:many|much|long|far|old|large|fast|often)\b ?(?P<rest>.+)$", re.I)
_REASON = re.compile(rf"^(?:why|for what reason) (?P<auxiliary>{_BE}|{_MODAL}|{_DO}) (?P<rest>.+)$", re.I)
# "In which organ does it occur?" -> "it occur in OPTION"; "What does the liver make?" -> "the liver make OPTION"
_OBJECT = re.compile(rf"^(?:{_PLACE} )?(?:which|what|who|whom|where|when)\b.*? {_DO} (?!not\b)(?P<rest>.+)$", re.I)
_PLACED = re.compile(rf"^{_PLACE} (?:which|what)\b.*? (?P<auxiliary>{_BE}|{_MODAL}) (?P<rest>.+)$", re.I)
_ADVERB = re.compile(rf"^(?:where|when|how) (?P<auxiliary>{_BE}|{_MODAL}) (?P<rest>.+)$", re.I)
# "Which of the following cells is phagocytic?" -> "OPTION cells is phagocytic": without the noun less is found
_SUBJECT = re.compile(
    rf"^(?:{_OF_THESE}|who|whom)(?P<kind>(?: (?!(?:{_BE}|{_MODAL}|{_DO})\b)[\w-]+)*?)"
    rf" (?P<rest>(?:{_BE}|{_MODAL}|{_DO})\b.+)$",
    re.I,
)
_VERB = re.compile(rf"^(?:{_OF_THESE}|who) (?P<rest>.+)$", re.I)
# "It is classified as which type of joint?" -> "It is classified as OPTION"
_AT_THE_END = re.compile(
    r"\b(?:which|what)(?: of the following| of these)?(?: (?:type|kind|part|form)s? of)?(?: [\w-]+){0,3}$", re.I
)
_PARTICIPLE = re.compile(r"(?:ed|en|ing)$")


def statement(prompt: str, option: str) -> str | None:
    """The question with this option as a statement; None where no rule is known for it, or it is very long.

    Of several sentences the last one, which asks, is made into a statement behind the others. In a blank (two or more
    underscores; the first one) stands the option.
    """
    if len(prompt) > _LONGEST:
        return None
    if _BLANK.search(prompt):
        # A function: in a replacement text a backslash would have a meaning.
        return _BLANK.sub(lambda _: option, prompt, count=1)
    text = " ".join(prompt.split())
    cut = max((found.end() for found in re.finditer(r"[.?!:;]\s+(?=[A-Z])", text)), default=0)
    before, asked = text[:cut], text[cut:]
    if not asked.endswith("?"):
        return None
    question = asked[:-1].strip()
    lead = _LEAD.match(question)
    begin = lead.end() if lead else 0
    stated = _stated(question[begin:], option.strip().rstrip("."))
    return None if stated is None else f"{before}{question[:begin]}{stated}"


def _stated(question: str, option: str) -> str | None:
    if found := _VERDICT.match(question):
        topic = found["topic"] or found["rest"]
        return f"{topic}: {option}" if topic else option
    if found := _AMOUNT.match(question):
        return f"{option} {found['rest']}"
    if found := _REASON.match(question):
        return f"{_turned(found['auxiliary'], found['rest'])} because {option}"
    if found := _OBJECT.match(question):
        place = found["place"] or ("in" if question.lower().startswith(("where", "when")) else "")
        return " ".join(filter(None, [found["rest"], place, option]))
    if found := _PLACED.match(question):
        return f"{_turned(found['auxiliary'], found['rest'])} {found['place'].lower()} {option}"
    if found := _ADVERB.match(question):
        return f"{_turned(found['auxiliary'], found['rest'])} {option}"
    if found := _SUBJECT.match(question) or _VERB.match(question):
        kind = found.groupdict().get("kind") or ""
        return f"{option}{kind} {found['rest']}"
    if found := _AT_THE_END.search(question):
        return f"{question[: found.start()]}{option}"
    return None


def _turned(auxiliary: str, rest: str) -> str:
    """ "is" and "the liver located" -> "the liver is located", as far as words tell where the subject ends."""
    if auxiliary.lower() in ("does", "do", "did"):
        return rest
    words = rest.split()
    end = next((place for place, word in enumerate(words) if place and _PARTICIPLE.search(word)), len(words))
    return " ".join([*words[:end], auxiliary.lower(), *words[end:]])
