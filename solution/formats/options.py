"""The options of a question in the forms in which files give them: columns, a list, objects, right and wrong ones."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import tokenize
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from solution.formats.items import LETTERS
from solution.tables import Row, cell_text

LISTS = (
    *("choices", "options", "option", "answer_choices", "endings", "candidates", "alternatives", "mc1_targets"),
    "answers",
)
RIGHT = ("correct_answer", "correct", "right_answer", "answer")
WRONG_LISTS = ("incorrect_answers", "wrong_answers", "distractors", "incorrect")
_WRONG = re.compile(r"(?:distractors?|incorrect(?:_answer)?|wrong(?:_answer)?)_?(\d{1,2})")
_NUMBERED = re.compile(
    r"(options?|opt|op|choices?|answers?|ans|endings?|sol|solution|alternative|variant)_?([a-z]|\d{1,2})"
)
# "A. ", "(A) " or "a) " in front of an option, with its own letter or number.
_IN_FRONT = r"\s*[(\[]?{}[)\].:]+\s*(?=\S)"
_TEXT_KEYS = ("text", "para", "content", "option", "value", "body", "answer", "choice", "sentence")
_LABEL_KEYS = ("label", "key", "letter", "id", "identifier", "index")
_RIGHT_KEYS = ("correct", "is_correct", "iscorrect", "right", "is_answer", "is_right")


def key_of(name: str) -> str:
    """A column's name without what differs from file to file: case, spaces, hyphens, characters that are not seen."""
    seen = "".join(character for character in name if unicodedata.category(character) != "Cf")
    return re.sub(r"[\s_\-]+", "_", seen.strip().casefold()).strip("_")


@dataclass
class Options:
    """The options of one question.

    Attributes:
        cells: their texts, not yet checked.
        labels: the file's own names of them.
        right: the positions that the form itself marks as right; None: it marks none.
        problem: why they cannot be read.
    """

    cells: list[Any]
    labels: list[str] | None = None
    right: list[int] | None = None
    problem: str | None = None


@dataclass(frozen=True)
class OptionColumns:
    """Where the options stand in a table.

    Attributes:
        kind: `columns`, one an option; `list`, one column; `right`, the right option and the wrong ones.
        names: of the columns; of `right`, the right option's column first.
        form: what it is called in messages.
    """

    kind: str
    names: list[str]
    form: str
    labels: list[str] = field(default_factory=list)

    def read(self, row: Row, prompt: str) -> Options:
        """The options in a row; `prompt` decides the order of right and wrong ones, which stand apart in the file."""
        if self.kind == "columns":
            return Options([row.get(name) for name in self.names], list(self.labels) or None)
        if self.kind == "list":
            return listed_options(row.get(self.names[0]))
        wrong: list[Any] = []
        for name in self.names[1:]:
            cell = row.get(name)
            wrong += parsed(cell) if isinstance(parsed(cell), list) else [cell]
        return shuffled(prompt, row.get(self.names[0]), [cell for cell in wrong if cell_text(cell)])


def shuffled(prompt: str, right: Any, wrong: Sequence[Any]) -> Options:
    """Right and wrong options in an order that tells nothing and is always the same: by a hash of prompt and option."""
    cells = sorted([right, *wrong], key=lambda cell: hashlib.sha256(f"{prompt}\n{cell_text(cell)}".encode()).digest())
    return Options(cells, right=[next(place for place, cell in enumerate(cells) if cell is right)])


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
        if match := _NUMBERED.fullmatch(key):
            groups.setdefault(match[1], {})[match[2]] = name
    for stem, members in groups.items():
        for order in (LETTERS.lower(), [str(i) for i in range(1, 27)], [str(i) for i in range(26)]):
            run = [members[mark] for mark in order[: len(members)] if mark in members]
            if len(run) >= 2 and len(run) == len(members):
                return OptionColumns("columns", run, f"columns {stem}...", [key_of(name) for name in run])
    for key in LISTS:
        if key in keys:
            return OptionColumns("list", [free[keys.index(key)]], f"a list {key}")
    wrong = [name for name, key in zip(free, keys, strict=True) if key in WRONG_LISTS or _WRONG.fullmatch(key)]
    right = next((names[i] for key in RIGHT for i, name in enumerate(names) if key_of(name) == key), None)
    if wrong and right is not None:
        wrong.sort(key=lambda name: key_of(name))
        return OptionColumns("right", [right, *wrong], "the right answer and wrong ones")
    return None


def listed_options(cell: Any) -> Options:
    """The options in a list of texts, a list of objects with text and label, or an object of labels or of lists."""
    cell = parsed(cell)
    if isinstance(cell, dict):
        keys = {key_of(key): key for key in cell}
        texts = next((cell[keys[key]] for key in (*_TEXT_KEYS, "choices") if key in keys), None)
        if isinstance(texts, list):  # {"text": [...], "label": [...]}
            labels = next((cell[keys[key]] for key in (*_LABEL_KEYS, "labels") if key in keys), None)
            names = [cell_text(label) for label in labels] if isinstance(labels, list) else None
            if isinstance(labels, list) and "labels" in keys and set(names or ()) <= {"0", "1"}:  # marks, not names
                return Options(texts, right=[place for place, mark in enumerate(names or ()) if mark == "1"])
            return Options(texts, names if names is not None and len(names) == len(texts) else None)
        # TruthfulQA: an object of the options' texts, each with 1 where it is right and 0 where it is not.
        marks = {key: mark for key, mark in cell.items() if mark is not None}
        if all(mark in (0, 1) for mark in marks.values()) and 1 in marks.values():
            return Options(list(marks), right=[place for place, mark in enumerate(marks.values()) if mark])
        return _without_letters(Options(list(cell.values()), [str(key) for key in cell]))
    if isinstance(cell, list) and cell and all(isinstance(part, dict) for part in cell):
        return _option_objects(cell)
    if isinstance(cell, list):
        return _without_letters(Options(cell))
    return Options([], problem="holds no list of options" if cell_text(cell) else "is empty")


def _option_objects(parts: Sequence[dict[str, Any]]) -> Options:
    rows = [{key_of(key): value for key, value in part.items()} for part in parts]
    text = next((key for key in _TEXT_KEYS if all(key in row for row in rows)), None)
    if text is None:
        return Options([], problem="holds objects without a text")
    label = next((key for key in _LABEL_KEYS if key != text and all(key in row for row in rows)), None)
    right = next((key for key in _RIGHT_KEYS if key != text and any(key in row for row in rows)), None)
    marks = None if right is None else [cell_text(row.get(right)).lower() in ("true", "1") for row in rows]
    return Options(
        [row[text] for row in rows],
        None if label is None else [cell_text(row[label]) for row in rows],
        None if marks is None else [place for place, is_right in enumerate(marks) if is_right],
    )


def _without_letters(options: Options) -> Options:
    """The options without the letters that the file wrote in front of every one of them."""
    cells = [cell if isinstance(cell, str) else "" for cell in options.cells]
    for names in (LETTERS, [str(i) for i in range(1, 27)]):
        marks = [re.compile(_IN_FRONT.format(name), re.IGNORECASE) for name in names[: len(cells)]]
        if len(cells) > 1 and len(marks) == len(cells):
            heads = [mark.match(cell) for mark, cell in zip(marks, cells, strict=True)]
            if all(heads):
                cut = [cell[head.end() :] for cell, head in zip(cells, heads, strict=True) if head]
                return Options(cut, options.labels or list(names[: len(cells)]), options.right)
    return options


def parsed(cell: Any) -> Any:
    """The list or object that a cell of text spells, in JSON, in Python or as numpy prints it; else the cell."""
    if not isinstance(cell, str) or not cell.strip().startswith(("[", "{")):
        return cell
    text = cell.strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    # numpy within an object: {'text': array(['a', 'b'], dtype=object)}
    text = re.sub(r"\barray\((\[.*?\])(?:,\s*dtype=\w+)?\)", r"\1", text, flags=re.DOTALL)
    # numpy parts its texts with spaces, and Python would make one text of two that stand side by side.
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text.replace("\n", " ")).readline))
        parts: list[str] = []
        for before, token in zip([None, *tokens], tokens, strict=False):
            if before is not None and before.type == token.type == tokenize.STRING:
                parts.append(",")
            if token.type not in (tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.NL):
                parts.append(token.string)
        return ast.literal_eval(" ".join(parts))
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError, IndentationError):
        return cell
