"""What a folder of your own holds: question files and a corpus, told apart by the readers of both."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from solution.errors import UserError
from solution.formats.columns import NoQuestionColumns
from solution.formats.forms import BY_ENDING, read_items
from solution.formats.items import Reading
from solution.near_questions import question_key
from solution.questions import Questions, joined, read_questions
from solution.retrieval.readers.forms import Kind
from solution.retrieval.readers.rows import NoTextColumn
from solution.retrieval.sources import corpus_files, kind_of_corpus, texts_about_others
from solution.tables import listed
from solution.workdir import Workdir

_LARGEST_EXAM = 64 * 2**20
"""Bytes, of a packed file an eighth. The readers of questions take a file into memory as a whole: a larger file is a
corpus, or named by hand."""
_ONLY_TABLES_OR_QUESTIONS = (".csv", ".tsv", ".tab", ".parquet", ".xlsx", ".xlsm", ".gift", ".aiken")
"""Endings of files that are refused when no reader can read them. Files of other endings may be of any program."""
_MOST_LINES = 8
_TO_ANSWER = re.compile(r"(?<![a-z])test(?![a-z])", re.IGNORECASE)
"""In the name of a file among others: its questions are answered and scored, and not learnt from."""


@dataclass(frozen=True)
class QuestionFile:
    """A file that holds questions, or several whose questions were put together.

    Attributes:
        path: the (first) file.
        notes: what was recognised in it, see `read_questions`.
        more: the other files.
    """

    path: Path
    questions: Questions
    notes: list[str]
    more: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The names of the files, without their folders."""
        return " and ".join(filter(None, [", ".join(path.name for path in self.paths[:-1]), self.paths[-1].name]))

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.path, *self.more

    @property
    def answered(self) -> int:
        """The number of questions with an answer."""
        return int((self.questions.answers >= 0).sum())

    def described(self) -> str:
        count, known = len(self.questions), self.answered
        answers = {0: "none with its answer", count: "with answers"}.get(known, f"{known} of them with an answer")
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{self.name}: {count} question{'s' if count > 1 else ''}, {answers}{notes}"


@dataclass
class Folder:
    """The files of a folder, and of the folders in it, by what they are.

    Attributes:
        corpus: name in the folder -> path of each file of the corpus.
        left_out: name -> why the file is not used.
    """

    path: Path
    exams: list[QuestionFile] = field(default_factory=list)
    corpus: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sources:
    """What a run works on.

    Attributes:
        exam: the questions to learn from; None: there are none.
        test: the questions to answer; None: there are none.
        corpus: the corpus that was named, or the files of the folder that are one, by their names.
        lines: what each file is taken for, in words.
    """

    exam: QuestionFile | None
    test: QuestionFile | None
    corpus: str | dict[str, Path]
    lines: list[str]


def look_through(
    folder: Path, reading: Reading, known: Sequence[Path] = (), corpus_encoding: str | None = None
) -> Folder:
    """Try the readers on every file: first that of questions, then that of a corpus.

    Names that begin with `.` or `_` are left out, and so are working folders.

    Args:
        known: files that are not tried, since the command line says what they are.
        corpus_encoding: of texts that are not UTF-8.

    Raises:
        UserError: the folder is not there or empty, or a file is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is {'a file' if folder.exists() else 'not there'}; name the folder of your exam")
    found = Folder(folder)
    done = {path.resolve() for path in known}
    kinds: dict[str, Kind] = {}
    for name, path in corpus_files(str(folder)).items():
        if path.resolve() in done or _in_working_folder(path, folder):
            continue
        exam, why_not = _as_questions(path, reading)
        if exam is not None:
            found.exams.append(exam)
            continue
        kind = _as_corpus(path, name, why_not, found.left_out, corpus_encoding)
        if kind is not None:
            kinds[name], found.corpus[name] = kind, path
    exams = [file.path.relative_to(folder).as_posix() for file in found.exams]
    for name, reason in texts_about_others(kinds, exams).items():
        del found.corpus[name]
        found.left_out[name] = reason
    return found


def _in_working_folder(path: Path, folder: Path) -> bool:
    """True inside a folder that a command of this package has written."""
    inside = path.parents[: len(path.relative_to(folder).parents) - 1]
    return any(Workdir(parent).exam.exists() or Workdir(parent).folds.exists() for parent in inside)


def _as_questions(path: Path, reading: Reading) -> tuple[QuestionFile | None, UserError | None]:
    """The file as questions; None, and why it is none. A file of wrong questions is refused, not taken for another.

    Raises:
        UserError: it has the columns of questions, and rows of it are wrong.
    """
    endings = [ending.lower() for ending in path.suffixes if ending.lower() != ".gz"]
    largest = _LARGEST_EXAM // (8 if path.suffix.lower() == ".gz" else 1)
    if not endings or endings[-1] not in BY_ENDING or not 0 < path.stat().st_size <= largest:
        return None, None
    try:
        items, _, _ = read_items(path, "the file", reading)
    except UserError as error:
        return None, error
    texts = sum(len(str(cell)) for item in items for cell in (item.prompt, *item.options))
    if not items or endings[-1] == ".txt" and texts < 0.5 * path.stat().st_size:  # prose with a question in it
        return None, None
    notes: list[str] = []
    reading = replace(reading, expects_answers=False)  # its line says how many have one
    return QuestionFile(path, read_questions(path, None, reading, notes), notes), None


def _as_corpus(
    path: Path, name: str, why_not: UserError | None, left_out: dict[str, str], encoding: str | None
) -> Kind | None:
    """The format of a file of a corpus; None where it is none, and `left_out` says why.

    Args:
        why_not: what the reader of questions said.

    Raises:
        UserError: no reader can read the file, and it looks like one that is meant.
    """
    try:
        kind = kind_of_corpus(path, name, encoding)
    except NoTextColumn:
        left_out[name] = "a table without texts and without questions"
        return None
    except UserError as error:
        if not isinstance(why_not, NoQuestionColumns):
            raise UserError(f"{error} (Or move the file out of the folder.)") from None
        left_out[name] = str(error)
        return None
    if kind is not None:
        return kind
    if path.stat().st_size == 0:
        left_out[name] = "is empty"
    elif isinstance(why_not, NoQuestionColumns):
        left_out[name] = "a table without texts and without questions"
    elif why_not is not None and path.suffix.lower() in _ONLY_TABLES_OR_QUESTIONS:
        raise UserError(f"{why_not} (Or move the file out of the folder.)")
    elif why_not is not None:
        left_out[name] = "no questions that can be read"
    else:
        left_out[name] = "a form that is not read (docs/corpora.md)"
    return None


def choose(
    folder: Folder, exam: QuestionFile | None = None, test: QuestionFile | None = None, corpus: str | None = None
) -> Sources:
    """Which files are learnt from, answered and searched. What the command line names goes before the folder's files.

    Raises:
        UserError: several files could be meant, or there is no corpus.
    """
    learnt = [file for file in folder.exams if file.answered]
    asked = [file for file in folder.exams if not file.answered]
    if exam is None:
        named_test = [file for file in learnt if _TO_ANSWER.search(file.path.stem)]
        if test is None and not asked and 0 < len(named_test) < len(learnt):
            learnt, asked = [file for file in learnt if file not in named_test], named_test
        exam = _joined(learnt)
    if test is None:
        test = _only(asked, "questions without answers", "--test FILE names the questions to answer")
    if exam is not None and 0 < exam.answered < len(exam.questions):
        if test is not None:
            raise UserError(
                f"{exam.name} has {len(exam.questions) - exam.answered} questions without an answer, and "
                f"{test.name} is a file of questions to answer. Fill the answers, leave these rows out, or put "
                "them into the other file"
            )
        exam, test = _parted(exam)
    files = folder.corpus if corpus is None else {}
    if corpus is None and not files:
        raise UserError(_no_corpus(folder))
    lines = [f"questions:   {exam.described()}"] if exam is not None else []
    lines += [f"to answer:   {test.described()}"] if test is not None else []
    if corpus is None:
        more = f"{len(files)} files, the first: " if len(files) > 1 else ""
        lines.append(f"corpus:      {more}{next(iter(files))}")
    else:
        lines.append(f"corpus:      {corpus}")
    used = {path for file in (exam, test) if file is not None for path in file.paths}
    unused = {file.path.name: "another file is named" for file in folder.exams if file.path not in used}
    lines += [f"not used:    {name}: {why}" for name, why in [*unused.items(), *folder.left_out.items()]][:_MOST_LINES]
    rest = len(unused) + len(folder.left_out) - _MOST_LINES
    return Sources(exam, test, files or str(corpus), lines + ([f"not used:    {rest} more files"] if rest > 0 else []))


def _only(files: Sequence[QuestionFile], what: str, remedy: str) -> QuestionFile | None:
    if len(files) > 1:
        names = listed([file.path.name for file in files])
        raise UserError(f"{len(files)} files hold {what}: {names}. {remedy}")
    return files[0] if files else None


def _joined(files: Sequence[QuestionFile]) -> QuestionFile | None:
    """The questions of all files as one exam. A question that stands twice with the same answer is taken once."""
    if len(files) < 2:
        return files[0] if files else None
    every = joined([file.questions for file in files])
    counts = Counter(every.ids)
    rows: list[int] = []
    seen: set[tuple[object, str | None]] = set()
    for row, (prompt, options, answer) in enumerate(zip(every.prompts, every.options, every.answers, strict=True)):
        key = question_key(prompt, options), options[answer] if answer >= 0 else None
        if key not in seen:
            seen.add(key)
            rows.append(row)
    names = [file.path.name for file in files for _ in file.questions.ids]
    ids = [id_ if counts[id_] == 1 else f"{name}-{id_}" for name, id_ in zip(names, every.ids, strict=True)]
    whole = replace(every, ids=ids).subset(rows)
    twice = len(every) - len(rows)
    notes = [f"{twice} that stand twice taken once"] if twice else []
    notes += [note for file in files for note in file.notes]
    return QuestionFile(files[0].path, whole, list(dict.fromkeys(notes)), tuple(file.path for file in files[1:]))


def _parted(file: QuestionFile) -> tuple[QuestionFile, QuestionFile]:
    """A file of which some questions have no answer, as one to learn from and one to answer."""
    known = file.questions.answers >= 0
    learnt = QuestionFile(file.path, file.questions.subset(np.flatnonzero(known)), file.notes)
    return learnt, QuestionFile(file.path, file.questions.subset(np.flatnonzero(~known)), [])


def _no_corpus(folder: Folder) -> str:
    parts = [f"{file.path.name}: questions" for file in folder.exams]
    parts += [f"{name}: {why}" for name, why in folder.left_out.items()]
    there = "; ".join(parts[:_MOST_LINES]) or "nothing else"
    return (
        f"no corpus in {folder.path} ({there}). Put the texts that answer the questions there: PDF, DOCX, EPUB, "
        "HTML, .txt or .md files, or a CSV, JSONL or parquet file with a column `text` (docs/corpora.md). Or name "
        "them: --corpus FILE"
    )


def link_corpus(files: Mapping[str, Path], folder: Path) -> str:
    """The corpus of these files for `retrieval.corpus`: the one file, or a folder of links to them.

    Where the file system has no links the files are copied.
    """
    if len(files) == 1:
        return str(next(iter(files.values())))
    wanted = {name: os.path.relpath(path.resolve(), (folder / name).parent.resolve()) for name, path in files.items()}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink()}
    if there != set(wanted) or any(os.readlink(folder / name) != target for name, target in wanted.items()):
        shutil.rmtree(folder, ignore_errors=True)
        for name, target in wanted.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                (folder / name).symlink_to(target)
            except OSError:
                shutil.copyfile(files[name], folder / name)
    return str(folder)
