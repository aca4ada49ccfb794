"""Which columns of a table are question, options and answer: by the names that this package and benchmarks use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from solution.errors import UserError
from solution.formats.answers import index_of, is_missing, truth_pair
from solution.formats.items import LETTERS, PLAIN, TEXT_FORMAT, Item, Reading, Table
from solution.formats.names import ANSWERS, CONTEXTS, IDS, LISTS, PROMPTS, by_key, key_of, names_answer
from solution.formats.options import (
    OptionColumns,
    Options,
    all_without_letters,
    are_marks,
    as_written,
    find_options,
    letter_columns,
    mark_between,
    parsed,
    without_letters,
)
from solution.suggestions import program
from solution.tables import Row, cell_text, listed, shown

_OWN = ("id", "prompt", "answer", "context", "options", "choices")
"""Names that `--columns` may give beside those of the letters."""


class NoQuestionColumns(UserError):
    """A table has no columns of a prompt and its options."""


@dataclass
class Columns:
    """What the columns of a table are; None: it has no such column.

    Attributes:
        is_own: they are the columns of this package, and nothing had to be recognised.
        start: what the form's numbers count from, where it is known.
    """

    prompt: str
    options: OptionColumns
    answer: str | None = None
    id: str | None = None
    context: str | None = None  # of another name than "context"
    is_own: bool = False
    start: int | None = None
    notes: list[str] = field(default_factory=list)


def items_of(table: Table, reading: Reading, source: str) -> tuple[list[Item], Columns]:
    """The questions of a table as they stand in its rows.

    Args:
        source: begins the messages: the file's path.

    Raises:
        UserError: no columns of prompt and options are known, a column that `--columns` names is not there, or the
            ids that a submission needs are missing.
    """
    table = _exploded(table)
    columns = _recognised(table, reading, source)
    columns.id = columns.id or _id_column(table, columns, reading, source)
    make_whole(table.rows, [columns.prompt, columns.answer, columns.id, *columns.options.names])
    ids = _ids(table, columns)
    marks_plain = {cell_text(row.get(TEXT_FORMAT)) for row in table.rows} in ({PLAIN}, {PLAIN, ""})
    kept = _kept(table, columns, {TEXT_FORMAT} if marks_plain else set())
    start = columns.start if reading.answers_from is None else reading.answers_from
    cells = [row.get(columns.answer) for row in table.rows if columns.answer]
    are_from_0 = start == 0 or any(index_of(cell) == 0 for cell in cells)
    items = []
    truths = 0
    asked = _all_asked(table, columns, marks_plain)
    for number, (row, id_, (prompt, options)) in enumerate(zip(table.rows, ids, asked, strict=True), 1):
        answer = row.get(columns.answer) if columns.answer else None
        if isinstance(answer, dict) and len(answer) == 1:
            answer = next(iter(answer.values()))
        if not columns.is_own and not any(map(cell_text, options.cells)) and (pair := truth_pair(answer)):
            options, answer, truths = Options(list(pair)), cell_text(answer).lower().capitalize(), truths + 1
        answer = _without_letter(answer, options)
        # "1. argon", "2. helium" and the answer 0: the answers do not count as the texts do.
        labels = None if options.is_counted and are_from_0 else options.labels
        if options.right is not None:
            labels = list(LETTERS[: len(options.cells)])
            answer = [labels[place] for place in options.right if place < len(labels)]
        names = columns.options.names if columns.options.kind == "columns" else [f"option {x}" for x in LETTERS]
        extra = {ours: row.get(name) for name, ours in kept.items()}
        if columns.context:
            extra["context"] = row.get(columns.context)
        is_plain = marks_plain and cell_text(row.get(TEXT_FORMAT)) == PLAIN
        item = Item(number, id_, prompt, options.cells, names, answer, labels, extra, is_plain)
        if options.problem:
            item.options, item.names = [], [f"the column {columns.options.names[0]!r} {options.problem}"]
        items.append(item)
    tells = reading.expects_answers and not reading.needs_id
    if columns.answer is None and tells and all(item.answer is None for item in items):
        columns.notes.append("no column of right answers is known (--columns answer=NAME)")
    if truths:
        columns.notes.append(f"{truths} without options are true or false")
    return items, columns


def _all_asked(table: Table, columns: Columns, marks_plain: bool) -> list[tuple[Any, Options]]:
    """The prompt and the options of each row, without letters in front of the options; how many had some is noted.

    Args:
        marks_plain: rows may say that their texts stand as they are.
    """
    asked = [_asked(row, columns) for row in table.rows]
    every = [options for _, options in asked]
    if marks_plain:
        plain = [cell_text(row.get(TEXT_FORMAT)) == PLAIN for row in table.rows]
        every = [
            as_written(options) if is_plain else without_letters(options)
            for options, is_plain in zip(every, plain, strict=True)
        ]
    elif not table.is_plain and columns.options.kind != "right":
        every = all_without_letters([without_letters(options) for options in every])
    if lettered := sum(options.written is not None for options in every):
        columns.notes.append(
            f"the letters or numbers in front of the options of {lettered} question{'s' if lettered > 1 else ''} are "
            "left out"
        )
    return [(prompt, options) for (prompt, _), options in zip(asked, every, strict=True)]


def _without_letter(answer: Any, options: Options) -> Any:
    """An answer that is an option as it is written, with its letter in front, without that letter."""
    text = cell_text(answer) if options.written and isinstance(answer, str) else ""
    written = [cell_text(cell) for cell in options.written or []]
    return options.cells[written.index(text)] if text and text in written else answer


def _asked(row: Row, columns: Columns) -> tuple[Any, Options]:
    """The prompt and the options of a row. One that cannot be read has none: a submission goes on with it."""
    prompt, nested = row.get(columns.prompt), None
    value = None if columns.is_own else parsed(prompt)
    if isinstance(value, dict):  # ARC, CommonsenseQA: {"stem": ..., "choices": [...]}
        nested = {key_of(key): part for key, part in value.items()}
        texts = [part for part in nested.values() if isinstance(part, str)]
        named = (nested[key] for key in ("stem", "text", "question") if key in nested)
        prompt = next(named, texts[0] if len(texts) == 1 else prompt)
    try:
        name = next((key for key in LISTS if nested and key in nested), None)
        if nested and name:
            return prompt, OptionColumns("list", [name], "").read(nested, cell_text(prompt))
        return prompt, columns.options.read(row, cell_text(prompt))
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        return prompt, Options([], problem=f"cannot be read ({type(error).__name__})")


def _kept(table: Table, columns: Columns, understood: set[str]) -> dict[str, str]:
    """The further columns, and the names under which they are kept: none of this package's, which mean something else.

    A file of which the user says `--columns prompt=question` may have a `prompt` too. What is renamed, or left out
    since it is empty, goes into the notes.
    """
    known = {columns.prompt, columns.answer, columns.id, columns.context, *columns.options.names, *understood}
    ours = {"id", "prompt", "answer", *LETTERS, *(["context"] if columns.context else [])}
    taken = {*table.names, *ours}
    kept = {}
    for name in table.names:
        if name in known:
            continue
        kept[name] = name
        if columns.is_own and columns.context is None or name.strip() not in ours:
            continue
        if not any(cell_text(row.get(name)) for row in table.rows):
            del kept[name]
            columns.notes.append(f"the column {shown(name)!r} is empty and left out")
            continue
        kept[name] = next(new for i in range(1, len(taken) + 2) if (new := f"{name.strip()}_{i}") not in taken)
        taken.add(kept[name])
        columns.notes.append(f"the column {shown(name)!r} is kept as {shown(kept[name])!r}")
    return kept


def _shown_mark(mark: str) -> str:
    return {"\n": "line ends", "letters": "their letters"}.get(mark, repr(mark))


def _exploded(table: Table) -> Table:
    """RACE's own files hold an article a row, with lists of questions, options and answers: a row a question."""
    if not {"questions", "options", "answers"} <= set(table.names):
        return table
    rows: list[Row] = []
    for row in table.rows:
        parts = [row.get(name) for name in ("questions", "options", "answers")]
        if not all(isinstance(part, list) for part in parts) or len({len(part) for part in parts if part}) > 1:
            return table
        rest = {name: cell for name, cell in row.items() if name not in ("questions", "options", "answers")}
        for place, (question, options, answer) in enumerate(zip(*(part or [] for part in parts), strict=False)):
            id_ = {"id": f"{cell_text(rest['id'])}-{place}"} if cell_text(rest.get("id")) else {}
            rows.append({**rest, **id_, "question": question, "options": options, "answer": answer})
    names = [name for name in table.names if name not in ("questions", "options", "answers")]
    return Table([*names, "question", "options", "answer"], rows, table.form, table.notes, is_plain=table.is_plain)


# --- which column is what ------------------------------------------------------------------


def _recognised(table: Table, reading: Reading, source: str) -> Columns:
    given = _given(table.names, reading, source)
    if not given and {"prompt", "A", "B"} <= set(table.names):
        return _own_columns(table, source)
    keys = by_key(table.names)
    prompt = given.get("prompt") or next((keys[key] for key in PROMPTS if key in keys), None)
    letters = [given[letter] for letter in LETTERS if letter in given]
    options = OptionColumns("columns", letters, "the columns named") if letters else None
    named = given.get("options") or given.get("choices")
    if named:
        options = OptionColumns("list", [named], f"a list {named}")
    answer = given.get("answer")
    taken = {name for name in (*given.values(), prompt) if name is not None}
    options = options or find_options(table.names, taken)
    if prompt is not None and options is None and _is_nested(table.rows, prompt):
        options = OptionColumns("list", [prompt], "the question's own choices")
    if prompt is None or options is None:
        raise _unknown(table.names, prompt, options, source)
    if not letters:
        _refuse_gap({name.strip().upper(): name for name in table.names}, options.names, source)
    if answer is None:
        # The first that holds anything: AGIEval has both `label` and an empty `answer`.
        known = dict.fromkeys(
            [keys[key] for key in ANSWERS if key in keys] + [keys[key] for key in keys if names_answer(key)]
        )
        there = [name for name in known if name not in (*options.names, prompt)]
        full = [name for name in there if any(not is_missing(row.get(name)) for row in table.rows[:1000])]
        answer = next(iter(full or there), None)
    if options.kind == "list" and (mark := mark_between([row.get(options.names[0]) for row in table.rows])):
        options = replace(options, mark=mark, form=f"{options.form} (in one text, parted by {_shown_mark(mark)})")
    if options.kind == "list" and not any(answer and not is_missing(row.get(answer)) for row in table.rows):
        options = replace(options, are_marked=are_marks([row.get(options.names[0]) for row in table.rows]))
    context = given.get("context") or (None if "context" in table.names else keys.get("context"))
    columns = Columns(prompt, options, answer, given.get("id"), context)
    columns.start = _known_start(keys, options)
    columns.is_own = not given and {prompt, *options.names} <= {"prompt", *LETTERS}
    if table.is_plain:
        columns.notes.append(f"{len(table.rows)} question{'s' if len(table.rows) > 1 else ''}")
    elif not columns.is_own:
        parts = [f"prompt is {shown(prompt)!r}", f"options are {options.form}"]
        parts += [f"answer is {shown(answer)!r}"] if answer else []
        columns.notes.append(", ".join(parts))
        texts = [keys[key] for key in CONTEXTS if key in keys]
        support = next((name for name in texts if any(cell_text(row.get(name)) for row in table.rows[:100])), None)
        if context is None and "context" not in table.names and support is not None:
            columns.notes.append(f"{support!r} can be the context: --columns context={support}")
    return columns


def _own_columns(table: Table, source: str) -> Columns:
    """This package's columns, which have gone before all others since its first version."""
    names = table.names
    letters = letter_columns(names, names)
    _refuse_gap({name: name for name in names}, letters, source)
    cased = {name.casefold(): name for name in reversed(names)}
    answer, id_ = (name if name in names else cased.get(name) for name in ("answer", "id"))
    columns = Columns("prompt", OptionColumns("columns", letters, "its letters"), answer, id_, is_own=True)
    others = [name for name in names if name in LETTERS and name not in letters]
    if others:
        columns.notes.append(
            f"{', '.join(others)} {'is no option' if len(others) == 1 else 'are no options'}, since there is no column "
            f"{LETTERS[len(letters)]}"
        )
    return columns


def _refuse_gap(spelled: dict[str, str], options: Sequence[str], source: str) -> None:
    """Refuse columns of options behind a letter that is missing, and behind Z.

    A single letter far behind the options (T beside A to D) is some other column.

    Args:
        spelled: the names of all columns, by what a letter is looked for as.

    Raises:
        UserError: names the columns.
    """
    # "Option A", "choice_A": what stands before the letter stands before all letters.
    before = options[0].strip().upper().removesuffix("A")
    if [name.strip().upper() for name in options] != [before + letter for letter in LETTERS[: len(options)]]:
        return
    later = LETTERS[len(options) :] if len(options) >= 8 else LETTERS[len(options) : 8]
    if gap := next((spelled[before + letter] for letter in later if before + letter in spelled), None):
        missing = options[0].strip()[:-1] + LETTERS[len(options)]
        raise UserError(f"{source}: option column {missing} missing while {gap} is there")
    if len(options) == len(LETTERS) and (beyond := spelled.get(f"{before}AA")):
        raise UserError(f"{source} has the option column {beyond} behind Z: at most {len(LETTERS)} options are read")


def _given(names: Sequence[str], reading: Reading, source: str) -> dict[str, str]:
    """The columns that the user named, by this package's names."""
    given = {}
    for own, name in reading.columns.items():
        role = own if own in LETTERS else own.lower()
        if role not in _OWN and role not in LETTERS:
            raise UserError(f"--columns {own}={name}: {own} is none of {', '.join(_OWN)}, A to Z")
        match = name if name in names else next((other for other in names if key_of(other) == key_of(name)), None)
        if match is None:
            raise UserError(f"--columns {own}={name}: {source} has no column {shown(name)}; it has {listed(names)}")
        given[role] = match
    letters = "".join(sorted(letter for letter in given if letter in LETTERS))
    if letters and (len(letters) < 2 or not LETTERS.startswith(letters)):
        raise UserError(f"--columns names the options {', '.join(letters)}: give A, B, ... without a gap")
    return given


def _is_nested(rows: Sequence[Row], prompt: str) -> bool:
    cell = parsed(rows[0].get(prompt)) if rows else None
    return isinstance(cell, dict) and any(key_of(key) in LISTS for key in cell)


def _known_start(keys: dict[str, str], options: OptionColumns) -> int | None:
    """What numbers count from in forms whose authors say so: MMLU, SWAG and HellaSwag."""
    mmlu = {"question", "subject", "choices", "answer"} <= set(keys)
    endings = key_of(options.names[0]).startswith("ending")
    return 0 if mmlu or endings else None


def _unknown(names: Sequence[str], prompt: str | None, options: OptionColumns | None, source: str) -> UserError:
    parts = [*(["prompt"] if prompt is None else []), *(["A", "B"] if options is None else [])]
    if options is None and "A" in names:
        parts.remove("A")
    missing = f"column{'s' if len(parts) > 1 else ''} {', '.join(parts)} missing"
    return NoQuestionColumns(
        f"{source}: {missing}; it has {listed(names)}. A question file has the columns id,prompt,A,B,...,answer, or "
        "those of a known benchmark (docs/formats.md); name others with --columns prompt=NAME,A=NAME,B=NAME,answer=NAME"
    )


# --- ids and numbers -----------------------------------------------------------------------


def _id_column(table: Table, columns: Columns, reading: Reading, source: str) -> str | None:
    """The column of the ids: `id` in any case, or another that may be it and tells all rows apart; None: there is none.

    Raises:
        UserError: there is no `id`, and the file is one to answer.
    """
    keys = by_key(table.names)
    if "id" in keys and keys["id"] not in columns.options.names:
        # Of other people's files the ids may be missing, or begin anew with each part.
        cells = [row.get(keys["id"]) for row in table.rows]
        texts = [cell_text(cell) for cell in cells]
        if columns.is_own or reading.needs_id or (all(texts) and len(set(texts)) == len(texts)):
            return keys["id"]
        what = "is empty" if not any(texts) else "does not tell its rows apart"
        columns.notes.append(f"its column {shown(keys['id'])!r} {what}")
    elif reading.needs_id:
        raise UserError(
            f"{source}: column id missing; it has {listed(table.names)}. The answers of a submission need the ids of "
            f"the questions: name their column (--columns id=NAME), or number the rows ({program()} convert)"
        )
    for key in IDS:
        if (
            key in keys
            and keys[key] not in (columns.prompt, columns.answer, *columns.options.names)
            and _are_ids([row.get(keys[key]) for row in table.rows])
        ):
            columns.notes.append(f"the ids are the column {shown(keys[key])!r}")
            return keys[key]
    return None


def _ids(table: Table, columns: Columns) -> list[Any]:
    """The ids of all rows: those of their column, of a first column without name, or the rows' numbers from 0."""
    if columns.id is not None:
        return [row.get(columns.id) for row in table.rows]
    if table.index is not None and _are_ids(table.index):
        columns.notes.append("it has no column id: its first column, which has no name, is taken for it")
        return table.index
    columns.notes.append("it has no ids: its rows are numbered from 0")
    return [str(row) for row in range(len(table.rows))]


def _are_ids(cells: Sequence[Any]) -> bool:
    """Whether cells are texts or numbers, none empty and no two equal."""
    texts = [cell_text(cell) for cell in cells if isinstance(cell, (str, int, float))]
    return len(texts) == len(cells) and all(texts) and len(set(texts)) == len(texts)


def make_whole(rows: Sequence[Row], names: Sequence[str | None]) -> None:
    """Numbers that pandas made floats, since a cell of their column is missing, become whole again: 2.0 is "2".

    A column with a true fraction stays as it is. Those of text files are texts, and stay as they stand.
    """
    for name in names:
        cells = [row.get(name) for row in rows] if name is not None else []
        if all(isinstance(cell, str) for cell in cells):
            continue
        numbers = [part for cell in cells for part in (cell if isinstance(cell, list) else [cell])]
        if not any(isinstance(cell, float) for cell in numbers) or not all(map(_is_whole, numbers)):
            continue
        for row in rows:
            cell = row.get(name)  # type: ignore[arg-type]
            row[name] = [_whole(part) for part in cell] if isinstance(cell, list) else _whole(cell)  # type: ignore[index]


def _is_whole(cell: Any) -> bool:
    """True of missing cells, whole numbers, and floats that stand for one exactly."""
    if cell is None or cell_text(cell) == "" or (isinstance(cell, int) and not isinstance(cell, bool)):
        return True
    return isinstance(cell, float) and abs(cell) < 2**53 and cell == int(cell)


def _whole(cell: Any) -> Any:
    return int(cell) if isinstance(cell, float) and cell == cell else cell


def is_inexact(cell: Any) -> bool:
    """True of a number so large that a float holds it and its neighbours alike: it is no id."""
    return isinstance(cell, float) and cell == cell and abs(cell) != float("inf") and abs(cell) >= 2**53
