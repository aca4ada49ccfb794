"""What stages are given: an exam as a file, a table or questions; settings; which retrievals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from solution.api.wording import worded
from solution.config import DEFAULT, RetrievalConfig, Run
from solution.config_files import load_run
from solution.errors import UserError
from solution.files import canonical_json, write_json
from solution.formats.items import Reading
from solution.frames import ShownAsTable
from solution.learning import distributed
from solution.progress import say
from solution.questions import Questions, repeated_options, table_questions
from solution.questions import read_questions as read_file
from solution.suggestions import exam_arguments
from solution.tables import shown, summary
from solution.workdir import Workdir

if TYPE_CHECKING:
    import pandas as pd

CONFIGS, DEMO = "configs", "configs/demo"
"""Folders of settings: those of a checkout. `full` and `demo` are the same, shipped with the package."""
ExamLike: TypeAlias = Union[str, Path, "pd.DataFrame", Questions, ShownAsTable]
"""Questions: a file in any form of docs/formats.md, a table with the columns of such a file, or what was read."""
Settings: TypeAlias = Mapping[str, object] | Sequence[str]
"""Settings that take the place of those in the files: {"smollm2.lora.r": 8} or ["smollm2.lora.r=8"]."""

read_questions = worded(read_file)


def setting_texts(settings: Settings | None) -> list[str]:
    """Settings as a command line has them: `key.path=value`.

    Raises:
        UserError: one text stands in the place of several.
    """
    if settings is None:
        return []
    if isinstance(settings, str):
        raise UserError(f"settings are {settings!r}: give a list of such texts, or a dictionary")
    if isinstance(settings, Mapping):
        return [f"{name}={_yaml_text(value)}" for name, value in settings.items()]
    return list(settings)


def _yaml_text(value: object) -> str:
    import yaml

    # JSON is YAML: true, null, [1, 2]. Of texts only those that YAML would read as something else need its quotes.
    if isinstance(value, str):
        try:
            return value if yaml.safe_load(value) == value else canonical_json(value)
        except yaml.YAMLError:
            return canonical_json(value)
    return canonical_json(value)


def check_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    """Raise `UserError` where an argument is none of the texts that it may be: Python does not check its type."""
    if value not in choices:
        raise UserError(f"{argument} is {value!r}: give one of {', '.join(choices)}")


def read_settings(
    configs: str | Path,
    settings: Settings | None = None,
    corpus: str | Path | None = None,
    ranker: str | None = None,
    config: Path | None = None,
) -> Run:
    """The settings of a stage; see `load_run`."""
    named = None if corpus is None else str(corpus)
    return load_run(Path(configs), setting_texts(settings), ranker=ranker, ranker_file=config, corpus=named)


def read_exam(
    exam: ExamLike | None, workdir: Workdir, to_answer: bool = False, reading: Reading | None = None
) -> Questions:
    """The exam of a stage, by default the working folder's, with notes on what is odd in it.

    Args:
        to_answer: the questions are to be answered: every row of a file that can be ranked is, and a warning tells
            which are wrong; answers in a table are not read.
        reading: how the user wants a file to be read.

    Raises:
        UserError: it is not there, or see `read_questions`.
    """
    if isinstance(exam, Questions):
        return exam
    if exam is None:
        exam = workdir.test if to_answer else workdir.questions
        if not exam.exists():
            raise UserError(f"no question file: {exam} is not there; name one with --questions FILE")
    mended: list[str] = []
    notes: list[str] = []
    if isinstance(exam, (str, Path)):
        name, questions = str(exam), read_questions(exam, mended if to_answer else None, reading, notes)
    else:
        name, questions = "the table", frame_questions(exam, reading, notes, not to_answer)
    tell_notes(name, notes)
    if mended:
        say(summary(f"WARNING: {name} is answered all the same, though rows are wrong", mended))
    if repeated := repeated_options(questions):
        first = ", ".join(map(shown, repeated[:5])) + (", ..." if len(repeated) > 5 else "")
        count = f"{len(repeated)} of {len(questions)} questions"
        say(f"note: {count} repeat an option, and equal ones cannot be told apart: {first}")
    return questions


def frame_questions(
    table: pd.DataFrame | ShownAsTable,
    reading: Reading | None = None,
    notes: list[str] | None = None,
    with_answers: bool = True,
) -> Questions:
    """The questions of a table with the columns of a question file.

    Without a column `id` its index names the questions where that tells them apart.

    Args:
        with_answers: False: answers in it are not read.

    Raises:
        UserError: it is no DataFrame, or see `read_questions`.
    """
    if isinstance(table, ShownAsTable):
        table = table.to_frame()
    if not hasattr(table, "columns") or not hasattr(table, "to_dict"):
        raise UserError(f"a {type(table).__name__} is no exam: give a file's name, a DataFrame or Questions")
    names = [str(name) for name in table.columns]
    cells = table.astype(object).where(table.notna(), None)
    rows = [
        {name: _plain_cell(cell) for name, cell in zip(names, row, strict=True)}
        for row in cells.itertuples(index=False, name=None)
    ]
    numbered = table.index.equals(type(table.index)(range(len(table)))) or not table.index.is_unique
    index = None if numbered else table.index.tolist()
    return table_questions(names, rows, index, reading, notes, with_answers)


def _plain_cell(cell: Any) -> Any:
    """A cell as JSON holds it: numpy's numbers and arrays are plain ones."""
    return _plain_cell(cell.tolist()) if hasattr(cell, "tolist") else cell


def keep_exam_arguments(workdir: Workdir) -> None:
    """Keep what this command was told of its exam beside the folds: other commands suggest it."""
    if workdir.folds.exists() and distributed.rank() == 0:
        write_json(workdir.exam_arguments, exam_arguments())


def read_noted(path: Path, reading: Reading) -> Questions:
    """The questions of a file; what was recognised in it and left out is told."""
    notes: list[str] = []
    questions = read_questions(path, None, reading, notes)
    tell_notes(path, notes)
    return questions


def tell_notes(name: str | Path, notes: list[str]) -> None:
    """Tell what was recognised in a question file and left out of it."""
    for note in notes:
        say(f"note: {name}: {note}")


def chosen_retrievals(run: Run, name: str | None) -> dict[str, RetrievalConfig]:
    """The retrieval of a name; without one those that rankers of the run read, and the default one where there are
    none.

    Raises:
        UserError: there is no retrieval of this name.
    """
    every = run.every_retrieval
    if name is not None:
        if name not in every:
            raise UserError(f"--retrieval {name}: there is no such retrieval (there are: {', '.join(every)})")
        return {name: every[name]}
    read = {each for ranker in run.rankers for each in run.reads(ranker)}
    return {each: every[each] for each in every if each in read} or {DEFAULT: run.retrieval}
