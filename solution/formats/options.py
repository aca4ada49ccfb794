"""The options of a question in the forms in which files give them: columns, a list, objects, right and wrong ones."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from solution.formats.items import LETTERS
from solution.formats.names import LISTS, RIGHT, WRONG, WRONG_LISTS, by_key, key_of, numbered, short_key
from solution.tables import Row, cell_text

# In front of an option, with its letter: "(A)" and "a)" say enough by themselves; "A. " may begin a name (A. niger),
# and "A:T" is a pair of bases.
_BRACKETED = r"\s*[(\[]?{}[.:]?[)\]]+[.:]*\s*(?=\S)"
_DOTTED = r"\s*{}[.:]+\s+(?=\S)"
# With its number, always with white space: "1.0 A" is a decimal, "1:1" and "1: 1" are ratios.
_COUNTED = r"\s*[(\[]?{}[)\].]+\s+(?=\S)"
_FEWEST_DOTTED = 3  # options: a run A, B, C is hardly one of names
_FEWEST_QUESTIONS = 3  # of a file in which all of them have letters
_TEXT_KEYS = (
    *("text", "answer_text", "option_text", "choice_text", "para", "content", "option", "value", "body", "answer"),
    *("choice", "sentence", "title", "description", "texto", "texte", "текст"),
)
_TEXT_OR_LABEL = ("option", "choice", "answer")
_LABEL_KEYS = ("label", "key", "letter", "id", "identifier", "index")
_RIGHT_KEYS = ("correct", "is_correct", "iscorrect", "right", "is_answer", "is_right", "is_true", "correcta", "richtig")


@dataclass
class Options:
    """The options of one question.

    Attributes:
        cells: their texts, not yet checked.
        labels: the file's own names of them.
        right: the positions that the form itself marks as right; None: it marks none.
        problem: why they cannot be read.
        is_counted: the labels are numbers that stood in front of the texts; the answers may count otherwise.
        written: the cells as the file has them, where letters or numbers in front of them were left out.
    """

    cells: list[Any]
    labels: list[str] | None = None
    right: list[int] | None = None
    problem: str | None = None
    is_counted: bool = False
    written: list[Any] | None = None


@dataclass(frozen=True)
class OptionColumns:
    """Where the options stand in a table.

    Attributes:
        kind: `columns`, one an option; `list`, one column; `right`, the right option and the wrong ones.
        names: of the columns; of `right`, the right option's column first.
        form: what it is called in messages.
        are_marked: an object of numbers is one of texts with marks (TruthfulQA), 1 where a text is right.
        mark: what parts the options in a text that holds them all; "" where none does.
    """

    kind: str
    names: list[str]
    form: str
    labels: list[str] = field(default_factory=list)
    are_marked: bool = False
    mark: str = ""

    def read(self, row: Row, prompt: str) -> Options:
        """The options in a row; `prompt` decides the order of right and wrong ones, which stand apart in the file."""
        if self.kind == "columns":
            return Options([row.get(name) for name in self.names], list(self.labels) or None)
        if self.kind == "list":
            cell = row.get(self.names[0])
            return listed_options(parted(cell, self.mark) if self.mark else cell, self.are_marked)
        wrong: list[Any] = []
        for name in self.names[1:]:
            cell = row.get(name)
            wrong += parsed(cell) if isinstance(parsed(cell), list) else [cell]
        right = parsed(row.get(self.names[0]))
        rights = [cell for cell in right if cell_text(cell)] if isinstance(right, list) else [row.get(self.names[0])]
        return shuffled(prompt, rights, [cell for cell in wrong if cell_text(cell)])


def shuffled(prompt: str, right: Sequence[Any], wrong: Sequence[Any]) -> Options:
    """Right and wrong options in an order that tells nothing and is always the same: by a hash of prompt and option."""
    cells = [*((cell, True) for cell in right), *((cell, False) for cell in wrong)]
    cells.sort(key=lambda pair: hashlib.sha256(f"{prompt}\n{cell_text(pair[0])}".encode()).digest())
    return Options([cell for cell, _ in cells], right=[place for place, (_, is_right) in enumerate(cells) if is_right])


def letter_columns(names: Sequence[str], spelled: Sequence[str]) -> list[str]:
    """Those of `names` that are `spelled` A, B, ... without a gap, from the first on."""
    found: list[str] = []
    for letter in LETTERS:
        if letter not in spelled:
            break
        found.append(names[spelled.index(letter)])
    return found


def find_options(names: Sequence[str], taken: set[str]) -> OptionColumns | None:
    """The columns in which the options stand; `taken` are known to be something else."""
    free = [name for name in names if name not in taken]
    keys = [key_of(name) for name in free]
    for prefix in ("", "option ", "choice "):
        columns = letter_columns(free, [name.strip().upper().removeprefix(prefix.upper()) for name in free])
        if len(columns) >= 2:
            return OptionColumns("columns", columns, "columns of options")
    groups: dict[str, dict[str, str]] = {}
    for name, key in zip(free, keys, strict=True):
        if parts := numbered(key) or numbered(short_key(name)):
            groups.setdefault(parts[0], {})[parts[1]] = name
    for stem, members in groups.items():
        for order in (LETTERS.lower(), [str(i) for i in range(1, 27)], [str(i) for i in range(26)]):
            run = [members[mark] for mark in order[: len(members)] if mark in members]
            if len(run) >= 2 and len(run) == len(members):
                return OptionColumns("columns", run, f"columns {stem}...", [key_of(name) for name in run])
    known = by_key(free)
    wrong = [name for name, key in zip(free, keys, strict=True) if key in WRONG_LISTS or WRONG.fullmatch(key)]
    lists = [known[key] for key in LISTS if key in known and known[key] not in wrong]
    if lists:
        return OptionColumns("list", lists[:1], f"a list {key_of(lists[0])}")
    every = by_key(names)
    right = next((every[key] for key in RIGHT if key in every), None)
    if wrong and right is not None:
        wrong.sort(key=lambda name: key_of(name))
        return OptionColumns("right", [right, *wrong], "the right answer and wrong ones")
    return None


def are_marks(cells: Sequence[Any]) -> bool:
    """Whether a column of objects holds texts with marks (TruthfulQA), and not numbers as the options A, B, ...

    All objects must agree: one alone, as {"a": 0, "b": 1}, may be either.
    """
    objects = [cell for cell in map(parsed, cells) if isinstance(cell, dict)]
    return bool(objects) and all(
        set(_marks(cell).values()) in ({1}, {0, 1}) and not _is_run(list(_marks(cell))) for cell in objects
    )


def _marks(cell: dict[str, Any]) -> dict[str, Any]:
    """An object without the keys of other rows, which parquet fills; None stands for what is no number."""
    return {key: mark if isinstance(mark, (int, float)) else None for key, mark in cell.items() if mark is not None}


def listed_options(cell: Any, are_marked: bool = False) -> Options:
    """The options in a list of texts, a list of objects with text and label, or an object of labels or of lists.

    Args:
        are_marked: an object of numbers is one of texts with marks; see `are_marks`.
    """
    cell = parsed(cell)
    if isinstance(cell, dict):
        columns = {key_of(key): part for key, part in cell.items() if isinstance(part, list)}
        if text := _text_key([*columns], columns):  # {"text": [...], "label": [...]}
            return _option_columns(text, columns)
        if are_marked:
            marks = _marks(cell)
            return Options(list(marks), right=[place for place, mark in enumerate(marks.values()) if mark])
        return without_letters(Options(list(cell.values()), list(cell)))
    if isinstance(cell, list) and cell and all(isinstance(part, dict) for part in cell):
        return _option_objects(cell)
    if isinstance(cell, list) and cell and all(isinstance(part, list) and len(part) == 2 for part in cell):
        return _option_pairs(cell)
    if isinstance(cell, list):
        return without_letters(Options(cell))
    return Options([], problem="holds no list of options" if cell_text(cell) else "is empty")


def _option_pairs(pairs: Sequence[list[Any]]) -> Options:
    """Of pairs of a text and whether it is right, or of a letter and a text."""
    first, second = ([pair[place] for pair in pairs] for place in (0, 1))
    if all(isinstance(mark, bool) for mark in second):
        return Options(first, right=[place for place, mark in enumerate(second) if mark])
    return Options(second, [cell_text(name) for name in first]) if _is_run(first) else Options(list(pairs))


_MARKS = ("\n", "|", ";", "；", "、", "，", ",")
# Letters in one line: "A. argon B. helium C. neon".
_LETTERED = "letters"
_LETTER_HEAD = re.compile(r"(?:^|(?<=[\s;；,，。.]))[(（\[]?([A-Z])\s?[.．、:：)）\]]")


def parted(cell: Any, mark: str) -> Any:
    """The options in a text that holds them all; another cell as it is."""
    if not isinstance(cell, str) or not isinstance(parsed(cell), str):
        return cell
    if mark == _LETTERED:
        heads = list(_LETTER_HEAD.finditer(cell))
        if not heads or heads[0].start() or "".join(head[1] for head in heads) != LETTERS[: len(heads)]:
            return [cell]
        ends = [*(head.start() for head in heads[1:]), len(cell)]
        return [cell[head.end() : end].strip(" \t\r\n;；,，") for head, end in zip(heads, ends, strict=True)]
    return [part.strip() for part in cell.strip().strip(mark).split(mark) if part.strip()]


def mark_between(cells: Sequence[Any]) -> str:
    """What parts the options in the texts of a column: letters in a row, a line's end, `|`, `;` or a comma.

    It must part every text into at least two, and a comma, which may stand within an option, all into as many.
    "" where nothing does, or where the texts spell lists.
    """
    texts = [cell.strip() for cell in cells if isinstance(cell, str) and cell.strip()]
    if len(texts) < len([cell for cell in cells if cell_text(cell)]) or any(text != parsed(text) for text in texts):
        return ""
    for mark in (_LETTERED, *_MARKS):
        counts = {len(parted(text, mark)) for text in texts}
        if texts and min(counts) >= 2 and (mark not in ("、", "，", ",") or len(counts) == 1):
            return mark
    return ""


def _option_objects(parts: Sequence[dict[str, Any]]) -> Options:
    rows = [{key_of(key): value for key, value in part.items()} for part in parts]
    shared = [key for key in rows[0] if all(key in row for row in rows)]
    columns = {key: [row[key] for row in rows] for key in shared}
    text = _text_key(shared, columns)
    if text is None or text == "choices":
        return Options([], problem="holds objects without a text")
    label = _label_key(text, columns)
    right = next((key for key in _RIGHT_KEYS if key != text and any(key in row for row in rows)), None)
    marks = None if right is None else [cell_text(row.get(right)).lower() in ("true", "1") for row in rows]
    return Options(
        [_text_within(row[text]) for row in rows],
        None if label is None else [cell_text(row[label]) for row in rows],
        None if marks is None else [place for place, is_right in enumerate(marks) if is_right],
    )


def _text_within(cell: Any) -> Any:
    """The text of an object that says how it is written ({"format": "html", "text": "..."}); else the cell."""
    return cell["text"] if isinstance(cell, dict) and isinstance(cell.get("text"), str) else cell


def _option_columns(text: str, columns: dict[str, list[Any]]) -> Options:
    """The options of an object of lists; `text` is the key of their texts."""
    texts = columns[text]
    label = _label_key(text, columns) or ("labels" if "labels" in columns else None)
    names = [cell_text(name) for name in columns[label]] if label else []
    # Marks, not names: TruthfulQA's on the hub.
    if label == "labels" and set(names) <= {"0", "1"} and (len(set(names)) < len(names) or text == "choices"):
        return Options(texts, right=[place for place, mark in enumerate(names) if mark == "1"])
    return Options(texts, names if label and len(names) == len(texts) else None)


def _text_key(keys: Sequence[str], columns: dict[str, list[Any]]) -> str | None:
    """The key under which the options' texts stand; `option` may be that of their letters, beside another one."""
    there = [key for key in (*_TEXT_KEYS, "choices") if key in keys]
    texts = [key for key in there if key not in _TEXT_OR_LABEL or not _is_run(columns[key])]
    return next(iter(texts or there), None)


def _label_key(text: str, columns: dict[str, list[Any]]) -> str | None:
    letters = [key for key in _TEXT_OR_LABEL if key in columns and key != text and _is_run(columns[key])]
    return next((key for key in (*letters, *_LABEL_KEYS) if key in columns and key != text), None)


def _is_run(cells: Sequence[Any]) -> bool:
    """Whether cells are the letters A, B, ... or the numbers from 0 or 1, in any order: names of options."""
    names = sorted((cell_text(cell).upper() for cell in cells), key=lambda name: (len(name), name))
    starts = (list(LETTERS), [str(i) for i in range(1, 27)], [str(i) for i in range(26)])
    return bool(names) and names in [start[: len(names)] for start in starts]


def without_letters(options: Options, dotted_pairs: bool = False) -> Options:
    """The options without the letters or numbers that the file wrote in front of every one of them.

    Args:
        dotted_pairs: also those of two options alone that are set off by a dot ("A. yes", "B. no").
    """
    cells = {place: cell for place, cell in enumerate(options.cells) if cell_text(cell)}
    are_texts = all(isinstance(cell, str) for cell in cells.values())
    if options.written is not None or not are_texts or not 1 < len(cells) <= len(options.cells) <= len(LETTERS):
        return options
    is_dotted = dotted_pairs or len(cells) >= _FEWEST_DOTTED
    lettered = f"(?:{_BRACKETED}|{_DOTTED})" if is_dotted else _BRACKETED
    for names, form in ((list(LETTERS), lettered), ([str(i + 1) for i in range(len(LETTERS))], _COUNTED)):
        cut: dict[int, str] = {}
        for place, cell in cells.items():
            head = re.match(form.replace("{}", names[place]), cell, re.IGNORECASE)
            if head is None:
                break
            cut[place] = cell[head.end() :]
        # "(1) only", "(2) only": the numbers are what tells the options apart.
        if len(cut) == len(cells) and len(set(cut.values())) == len(set(cells.values())):
            labels = options.labels or names[: len(options.cells)]
            texts = [cut.get(place, cell) for place, cell in enumerate(options.cells)]
            is_counted = not options.labels and form is _COUNTED
            return Options(texts, labels, options.right, is_counted=is_counted, written=options.cells)
    return options


def as_written(options: Options) -> Options:
    """The options with the letters or numbers that were left out."""
    if options.written is None:
        return options
    labels = None if options.is_counted else options.labels
    return replace(options, cells=options.written, labels=labels, is_counted=False, written=None)


def has_letters(texts: Sequence[str]) -> bool:
    """Whether options begin with letters or numbers that may be left out when they are read."""
    return without_letters(Options(list(texts)), dotted_pairs=True).written is not None


def all_without_letters(every: list[Options]) -> list[Options]:
    """The options of a file's questions, also without dotted letters of two options where every question has letters.

    In two options alone "A. niger", "B. subtilis" may be names.
    """
    loose = [without_letters(options, dotted_pairs=True) for options in every]
    return loose if len(every) >= _FEWEST_QUESTIONS and all(options.written for options in loose) else every


def parsed(cell: Any) -> Any:
    """The list or object that a cell of text spells, in JSON, in Python or as numpy prints it; else the cell.

    Keys of objects are texts. What holds anything but texts, numbers, lists and objects, or half of a character, is no
    list and no object.
    """
    if not isinstance(cell, str) or not cell.strip().startswith(("[", "{")):
        return cell
    try:
        value = _plain(_evaluated(cell.strip()))
        json.dumps(value, ensure_ascii=False).encode()  # "\\ud800" could not be written
    # What Python raises on its own language is many things: {[1]: 2} is a TypeError, a tower of brackets a MemoryError.
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError):
        return cell
    return value


def _plain(value: Any) -> Any:
    """A value of JSON's kinds.

    Raises:
        TypeError: it is, or holds, another (`...`, a set, bytes).
    """
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"{value!r} is no text and no number")


def _evaluated(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    # numpy within an object: {'text': array(['a', 'b'], dtype=object)}
    text = re.sub(r"\barray\((\[.*?\])(?:,\s*dtype=\w+)?\)", r"\1", text, flags=re.DOTALL)
    # numpy parts its texts with spaces, and Python would make one text of two that stand side by side.
    tokens = list(tokenize.generate_tokens(io.StringIO(text.replace("\n", " ")).readline))
    parts: list[str] = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if before is not None and before.type == token.type == tokenize.STRING:
            parts.append(",")
        if token.type not in (tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.NL):
            parts.append(token.string)
    return ast.literal_eval(" ".join(parts))
