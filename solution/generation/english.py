"""Rules of English: function words, sentences that stand alone, definitions, plurals."""

from __future__ import annotations

import re
import sys

from solution.sentences import BULLETS, ends_a_sentence

TOKEN = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*|[^\w\s]")
"""A word (hyphens and apostrophes inside it are part of it) or a mark."""
BLANK = "_____"

ARTICLES = frozenset("a an the".split())
DETERMINERS = ARTICLES | frozenset(
    "each every its their his her our your my another any some no these those this that".split()
)
PREPOSITIONS = frozenset(
    "about above across after against along among around as at before behind below beneath beside between "
    "beyond by despite down during except for from in inside into like near of off on onto out outside over per "
    "since than through throughout to toward towards under unlike until up upon versus via with within without".split()
)
_PRONOUNS = frozenset(
    "i he she it we you they me him them us who whom whose which what itself themselves himself herself "
    "ourselves one ones both either neither all most many much more few fewer less least several others other "
    "such same own something anything nothing everything someone".split()
)
BE = frozenset("is are was were".split())
AUXILIARIES = frozenset(
    "am is are was were be been being has have had having do does did doing done can could may might must shall "
    "should will would become becomes became called known named termed".split()
)
_OTHERS = frozenset(
    "and or but nor so yet if then else when while where why how because although though whether unless whereas "
    "not only also very too just even still often usually generally typically commonly always never sometimes "
    "again once here there now thus therefore hence however moreover furthermore instead rather quite almost "
    "about well even ever already perhaps e g i eg ie etc first second third last next two three four five six "
    "seven eight nine ten".split()
)
FUNCTION_WORDS = DETERMINERS | PREPOSITIONS | _PRONOUNS | AUXILIARIES | _OTHERS
BEFORE_VERBS = frozenset(
    "to can could may might must shall should will would which that they we you it who not".split()
)
BEFORE_ADJECTIVES = frozenset("is are was were be been being very more most less so too quite become becomes".split())
AFTER_ADJECTIVES = frozenset("and or , - –".split())
AFTER_VERBS = ARTICLES | frozenset("it its them their his her".split())
_NO_ANSWERS = frozenset(
    "example number way type kind part amount form case use result addition order term word name thing person "
    "people time day year figure table section chapter introduction summary problem question answer equation "
    "value fact point end top bottom side one two three group set series variety range role lot rest use study "
    "work process percent degree degrees unit units key important different similar large small glossary "
    "concepts preface exercise image photo credit author authors page book video website student students we "
    "you".split()
)
"""Words that say too little to be asked for alone."""

GENERAL_NOUNS = _NO_ANSWERS | frozenset(
    "ability absence access account accumulation achievement action activity addition advance advantage affect age "
    "aid aim appearance application approach area argument arrangement aspect assumption astronomer astronomers "
    "attempt attention author average back base basis beginning behavior behaviour being belief benefit billion bit "
    "body branch breakdown bulk capability capacity care category cause center centre century chance change character "
    "characteristic child children choice circumstance city claim class collection color colour combination community "
    "comparison completion component composition concept concern conclusion condition conduct connection consequence "
    "consideration contact container containers content context contribution control core cost country course "
    "creation damage data date decade decline decrease definition degree depth description design detail detection "
    "determination development device devices difference difficulty dimension direction discovery discussion distance "
    "distinction distribution diversity division doctor doctors east effect effort element emphasis environment "
    "equivalent error essence establishment estimate event everyone evidence evolution examination exception exchange "
    "existence experience experiment expert experts explanation extent factor failure family fashion feature female "
    "females field figure finding flow focus following force formation fraction friend front function future gain "
    "goal growth half hand help history hold home host hour human hundred idea impact implication importance "
    "improvement increase indication individual influence information instance instrument instruments intensity "
    "interaction interest interior interpretation introduction investigation issue item job journey kilometer "
    "kilometers kind knowledge lack layer left length lesson level life limit line link list location look loss lot "
    "maintenance majority male males man manner mass material matter maximum meaning means measure measurement member "
    "men meters method metres middle miles million minimum minority minute model modification moment month movement "
    "nation nature need neighborhood neighbourhood next none north note notion object observation occurrence opening "
    "operation opinion opportunity opposite option organization origin outcome outside pair paper path patient "
    "patients pattern peak percentage performance period perspective phase phenomenon picture piece place plan plane "
    "population portion position possibility potential power practice presence present pressure prevalence principle "
    "priority procedure product production program project property proportion purpose quality quantity range rate "
    "ratio reader reason recent recognition record reduction reference region relation relationship release remainder "
    "remains removal report reports representation requirement research researcher researchers resource response "
    "responsibility right rise risk room rooms rule sample samples scale scenario science scientist scientists second "
    "sense sequence shape share shift sign significance similarity site situation size society sort source south "
    "space speed spite spread stage standard start state statement step story strategy strength structure stuff "
    "subject success sum supply support surface survey survival system tank task team teams technique technology "
    "tendency test text theory thought thousand today total town treatment trend trip truth understanding use "
    "variation variety version view village volume way week weight west whole width woman women worker workers world "
    "yield".split()
)
"""Nouns that stand in every text: alone, or with an adjective, they say too little to be asked for."""
GENERAL_ADJECTIVES = frozenset(
    "able abroad active actual additional alone apart available average away bad basic best better big billion "
    "certain clear close common complete complex considerable constant corresponding current deep different difficult "
    "direct discussing distinct dominant due early easy effective eighth elsewhere enormous entire equal essential "
    "exact excess existing extra extreme famous far fast female fifth final forward fourth fragile frequent full "
    "fundamental further future general given good great greater greatest growing half high higher highest huge human "
    "hundred immense important increased increasing individual initial interesting key known large larger largest "
    "last late later latest latter left less little local long longer low lower lowest main major male mature maximum "
    "mean million minor modern modern-day more most multiple native natural near nearby necessary new newer next "
    "ninth normal notable obvious old older only open opposite original other overall particular past poor popular "
    "possible potential powerful precise present present-day previous primary principal prominent proper rapid rare "
    "real recent regular related relative remaining resulting rich right same separate serious seventh several severe "
    "sharp short significant similar simple single sixth slight slow small smaller smallest so-called soon special "
    "specific strong sudden sufficient suitable surrounding tenth thick thin thousand tiny together total true "
    "typical underlying unique unknown unusual upper useful usual various vast very vital weak whole wide widespread "
    "worldwide worst young".split()
)
"""Adjectives that make no term of the noun behind them."""
ADJECTIVE_ENDS = ("al", "ic", "ous", "ive", "ary", "able", "ible", "ed", "ar", "ior", "less", "ful")
_ABSTRACT = ("tion", "sion", "ment", "ness", "ity", "ance", "ence", "ism", "ing")
ABSTRACT_ENDS = tuple(end + plural for end in _ABSTRACT for plural in ("", "s"))
"""Endings of nouns of actions and properties."""

# --- sentences that stand alone ------------------------------------------------------------

_LEANS = re.compile(
    r"(?:It|Its|This|That|These|Those|They|Their|Theirs|He|She|His|Her|Hers|We|Our|You|Your|I|My|Here|There|Such|Both|"
    r"Another|Others?|Also|And|But|Or|So|Yet|Thus|Hence|Therefore|However|Moreover|Furthermore|Instead|Similarly|"
    r"Likewise|Then|Next|Again|Finally|Afterwards?|Later|Consequently|Accordingly|Nevertheless|Nonetheless|Conversely|"
    r"Alternatively|Additionally|Meanwhile|Otherwise|Still|Indeed|Overall|Some|Many|Several|Most|Each|Either|Neither|"
    r"One|Two|Three|Four|Five|First|Second|Third|Now|Today|Even|Only|Rather|What|Which|Who|How|Why|When|Where|"
    r"Remarkably|Interestingly|Unfortunately|Fortunately|"
    r"Let|Note|Recall|Notice|Consider|Suppose|See|Remember|Imagine|Assume|Control|Use|Find|Calculate|Review|Explain|"
    r"Describe|Discuss|Compare|Draw|Determine|Identify|List|Define|Think|Try|Look|Take|Put|Place|Click|Visit|Watch|"
    r"Explore|Check|Ask|Have|Point|Show|Give|Write|Read|Make|Start|Begin|Remind|Tell|Emphasize|Encourage|Demonstrate|"
    r"Students?|Teachers?|"
    r"(?:Because of|At|From|By|With|Like|Unlike|In|For) (?:this|that|these|those|other|others|such|each|both|all|some)|"
    r"For (?:example|instance)|In (?:addition|contrast|fact|short|general|summary|turn|our|particular)|By contrast|"
    r"As (?:a result|we|you|this|such|with the|it|they)|On the (?:other|one)|To (?:this|these|do this)|"
    r"The (?:latter|former|first|second|third|fourth|last|next|others?|two|three|four|five|same|following|previous|"
    r"above|results?|process|method|model|resulting|new|term|name|word|reason|answer|example|idea|only|book|study|"
    r"image|figure|graph|table|equation|problem|solution|remaining|rest|final|phrase|question|device|effect|opposite|"
    r"quantity|objects?|value|system|force|disease|patient|infection|condition|procedure))\b"
)
"""Beginnings that point to a sentence before."""
POINTERS = frozenset(
    "figure figures fig table tables equation equations eq eqs example examples chapter chapters section "
    "sections exercise exercises module modules appendix below above shown discussed described mentioned "
    "previous previously following earlier later aforementioned respectively this these those we us our ours "
    "you your i me my let's he she him her his here see latter former illustrate illustrates illustrated depict "
    "depicts photo credit image graph diagram animation video textbook learn recall introduced".split()
)
"""Words that point outside the sentence."""
_ALL_OF_US = frozenset("we us our ours".split())
_HOLES = re.compile(
    r"\(\s*\)|\(\s*[a-z]\s*\)|\s[.,;:)]|\b(?:in|see|and|from|by|of|to|at)\s*[.,;)]|\.\.|[.!?] [a-z]|"
    r"[=≈<>≤≥→∝√∑∫\[\]{}|\\*#]"
)
"""What a figure's number or a formula leaves behind when it is taken out, and formulas."""
_LOOSE = re.compile(
    r"\b(?:such as|for example|for instance|e\.g|including|includes?|some|examples?|sometimes|may|might|could|among|"
    r"can|like|similar|various|many|several|other|another|also|one of|type of|types of|kind of|kinds of)\b",
    re.IGNORECASE,
)
"""Words of statements that are true of other things too."""
_VERY_LOOSE = re.compile(
    r"\b(?:such as|for example|for instance|e\.g|including|includes?|some|examples?|sometimes|among|various|other|"
    r"others|another|one of|types? of|kinds? of|forms? of|most cases|many cases)\b|year-old\b|"
    r"^(?:If|When|As|Because|While|Although|Though|Since|After|Before|Once) (?:it|they|he|she|their|its|his|her)\b",
    re.IGNORECASE,
)
_PINS = re.compile(
    r"\b(?:is|are|was|were) (?:called|known as|termed|named|defined as|referred to as|an?|the)\b", re.IGNORECASE
)
_ABBREVIATION_END = re.compile(r"\b(?:[A-Z]|Dr|Mr|Mrs|Ms|St|Jr|Sr|Mt|Prof|Fig|No|vs|ca|al|approx)\.$")
WORDS_OF_SENTENCE = range(8, 41)
_LETTERS_SHARE = 0.7


def ends_with_abbreviation(sentence: str) -> bool:
    """True where the full stop may be that of an initial or a short title: the sentence may go on."""
    return bool(_ABBREVIATION_END.search(sentence))


_REFERENCES = re.compile(
    r"\s*(?:\((?:[Ss]ee |[Cc]f\.? )?(?:also )?(?:[Ff]igs?|[Ff]igures?|[Tt]ables?|[Ee]qs?|[Ee]quations?|[Ss]ections?|"
    r"[Cc]hapters?|Box|Appendix|pp?)\b[^()\d]{0,3}\d[^()]{0,30}\)"
    r"|\((?:[A-Z][^\W\d_]+(?:,| et al\.?,?| (?:and|&) [A-Z][^\W\d_]+,?) (?:1[89]|20)\d\d[a-z]?(?:; )?)+\)"
    r"|\[\d+(?:\s?[,–-]\s?\d+)*\])"
)


def without_references(sentence: str) -> str:
    """The sentence without "(Figure 3)", "[12]" and "(Smith and Jones, 2010)", which point to other places."""
    return _REFERENCES.sub("", sentence)


def without_bullet(line: str) -> str:
    """The text of a bullet of a list, with the full stop that lecturers leave out; another line as it is."""
    text = _BULLET.sub("", line)
    return text if text == line or ends_a_sentence(text) else f"{text}."


def stands_alone(sentence: str, tokens: list[str], is_short: bool = False) -> bool:
    """True for a statement of 8 to 40 words that can be understood without the text around it.

    Args:
        tokens: its words and marks in lower case.
        is_short: of a short text, which may say "our Galaxy".
    """
    if not sentence[:1].isupper() or not sentence.endswith(".") or ends_with_abbreviation(sentence):
        return False
    pointers = POINTERS - _ALL_OF_US if is_short else POINTERS
    if len(sentence.split()) not in WORDS_OF_SENTENCE or not pointers.isdisjoint(tokens) or _LEANS.match(sentence):
        return False
    letters = sum(map(str.isalpha, sentence)) + sentence.count(" ")
    if letters < _LETTERS_SHARE * len(sentence) or sentence.count("(") != sentence.count(")"):
        return False
    if sentence.count('"') % 2 or sentence.count("“") != sentence.count("”"):
        return False
    return not _HOLES.search(sentence)


def looseness(sentence: str, is_short: bool = False) -> int:
    """Signs that a statement is true of other things too, less signs that it defines something.

    Args:
        is_short: of a short text: what something can do, or does also, is no such sign.
    """
    return len((_VERY_LOOSE if is_short else _LOOSE).findall(sentence)) - 2 * len(_PINS.findall(sentence))


# --- definitions ---------------------------------------------------------------------------

_ENTRY = re.compile(
    r"(?P<term>[^\W_][^:;.?!\n]{1,60}?)\s*(?:\((?P<alias>[^()]{1,30})\)\s*)?(?::|\s[–—])\s+(?P<text>[^\n]+)"
)
_ASIDE = re.compile(r"^\((?:(?:also|or|abbreviated)[,:]?\s*(?:called|known as)?\s*)?(?P<alias>[^()]{1,40})\)[,;]?\s*")
_SUBJECT = re.compile(
    r"(?:(?:The|An?)\s)?(?P<term>[^\W_][^.;:?!()]{1,60}?)(?:,? (?:also|or)\b[^.;:?!()]{1,60},)?"
    r"(?:\s?\((?:[^()]|\([^()]*\))*\))?,? (?P<verb>is|are|was|were) (?P<text>(?:an?|the) [^\n]+)\.$"
)


def glossary_entry(text: str) -> tuple[str, str, list[str]] | None:
    """The term, its definition and other names of it, where a whole text is "term: definition"."""
    found = _ENTRY.fullmatch(text.strip())
    if found is None or len(found["term"].split()) > 5:
        return None
    term, definition = found["term"].strip(), found["text"].strip()
    names = [found["alias"]] if found["alias"] else []
    aside = _ASIDE.match(definition)
    if aside:
        names.append(aside["alias"])
        definition = definition[aside.end() :]
    definition = definition.rstrip(". ")
    return (term, definition, names) if definition else None


_BULLET = re.compile(rf"^(?:[-*–—]|{BULLETS}|\d{{1,3}}[.)])\s+")
_EMPHASIS = re.compile(r"\*\*|__")
_LEAST_ENTRIES = 3
_LEAST_SHARE = 2 / 3


def glossary_lines(text: str) -> tuple[list[str], str]:
    """The entries of a text of which most lines are "term: definition", and its other lines; else no entry.

    Such is the glossary of a chapter. Bullets and Markdown's emphasis are taken away.
    """
    lines = [_EMPHASIS.sub("", _BULLET.sub("", line.strip())) for line in text.split("\n") if line.strip()]
    entries = [line for line in lines if glossary_entry(line)]
    if len(entries) < max(_LEAST_ENTRIES, _LEAST_SHARE * len(lines)):
        return [], text
    return entries, "\n".join(line for line in lines if not glossary_entry(line))


def is_a_sentence(sentence: str) -> tuple[str, str, str] | None:
    """Subject, verb and predicate (with its article) of "X is a ..."."""
    found = _SUBJECT.fullmatch(sentence)
    if found is None or len(found["term"].split()) > 6:
        return None
    return found["term"].strip(), found["verb"], found["text"].strip()


NOT_OF_NOUNS = frozenset(
    "describes describe describing described refers referring relating related pertaining having being able to "
    "of in on not when where with toward towards if containing consisting capable lacking occurring".split()
)
"""First words of definitions of adjectives and verbs."""


def definition_head(tokens: list[str]) -> list[str]:
    """What a definition says a term is: its words up to "of", "that", "in", ...; the last is the noun."""
    head: list[str] = []
    for token in tokens:
        if head and token in FUNCTION_WORDS and token not in ("and", "or"):
            break
        if is_word(token) and token not in FUNCTION_WORDS:
            head.append(token)
    while len(head) > 1 and head[-1].endswith(("ed", "ing")):
        head.pop()
    return head


# --- words ---------------------------------------------------------------------------------

_NOT_PLURAL = ("ss", "us", "is", "ics", "’s", "'s", "sis", "as", "os")
_LATIN_PLURALS = (
    "ae",
    "bacteria",
    "mitochondria",
    "phenomena",
    "nuclei",
    "fungi",
    "alveoli",
    "cocci",
    "bacilli",
    "data",
)


def looks_plural(word: str) -> bool:
    """Judged by the end of a word in lower case."""
    if word.endswith(_LATIN_PLURALS):
        return True
    return len(word) > 3 and word.endswith("s") and not word.endswith(_NOT_PLURAL)


def tokens_of(text: str) -> list[str]:
    """Words and marks as written."""
    return TOKEN.findall(text)


def lowered(text: str) -> list[str]:
    """Words and marks in lower case; equal ones are one object."""
    return [sys.intern(token) for token in TOKEN.findall(text.lower())]


def is_word(token: str) -> bool:
    return token[0].isalnum()


def can_be_asked(words: list[str]) -> bool:
    """False for terms of function words, numbers, adverbs and words that say too little."""
    if not words or any(word in FUNCTION_WORDS for word in (words[0], words[-1])):
        return False
    if not all(is_word(word) or word in "-'" for word in words):
        return False
    last = words[-1]
    if len(words) == 1 and (
        last in _NO_ANSWERS or last.removesuffix("s") in _NO_ANSWERS or len(last) < 3 or last.endswith("ly")
    ):
        return False
    if any(word.replace("-", "").isdigit() for word in words):
        return False
    return any(len(word) > 2 for word in words)
