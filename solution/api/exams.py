"""Exams: converted from other programs' files, made from a corpus, answered."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from solution.api.inputs import CONFIGS, ExamLike, Settings, read_exam, read_settings, setting_texts
from solution.api.results import Answered, ExamTable
from solution.api.stage import stage
from solution.errors import UserError
from solution.files import without_hashing
from solution.formats.forms import BY_ENDING, WRITTEN
from solution.formats.items import Reading
from solution.generation.drafts import KINDS, Kind
from solution.generation.exam import Wish, generate_exam
from solution.generation.stored import no_question
from solution.inference.devices import parse_devices
from solution.inference.limits import Limits, parse_duration
from solution.inference.outputs import Outputs
from solution.inference.submit import run_submission
from solution.kaggle.kernel import find_place
from solution.kaggle.public import sample_to_prove
from solution.memory import parse_memory
from solution.progress import say
from solution.questions import Questions, read_questions, write_questions
from solution.retrieval.articles import article_rules
from solution.retrieval.corpus import read_corpus
from solution.retrieval.sources import corpus_files
from solution.workdir import Workdir


@stage
def convert(
    source: ExamLike, output: str | Path | None = None, *, to: str | None = None, reading: Reading | None = None
) -> ExamTable:
    """Read an exam in any form of docs/formats.md, and write it in another form.

    Args:
        output: the file to write; its ending tells the form. None: nothing is written.
        to: another form than by the ending.
        reading: how a file is to be read.

    Returns:
        The exam: id, prompt, A, B, ..., answer, and its further columns.

    Raises:
        UserError: the exam cannot be read, or the output cannot be written.
    """
    form = None if output is None else _form_to_write(Path(output), to, source)
    questions = read_exam(source, Workdir(Path(".")), reading=reading)
    if output is not None and form is not None:
        write_questions(Path(output), questions, form)
        _tell_drops(Path(output), questions, form)
    return ExamTable(questions)


def _form_to_write(output: Path, to: str | None, source: ExamLike) -> str:
    if to is None:
        by_ending = BY_ENDING.get(output.suffix.lower())
        to = by_ending.name if by_ending is not None else ""
    if to not in WRITTEN:
        raise UserError(f"{output}: name the form to write with --to {', '.join(WRITTEN)}")
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a file")
    if isinstance(source, (str, Path)) and output.exists() and output.resolve() == Path(source).resolve():
        raise UserError(f"{output} is the file that is read; give another name")
    return to


def _tell_drops(output: Path, questions: Questions, form: str) -> None:
    """Tell what a form does not hold."""
    gaps = sum("" in options for options in questions.options)
    drops = WRITTEN[form].drops
    if drops:
        say(f"note: {output}: this form does not hold {drops}")
        if gaps:
            say(f"note: {output}: {gaps} questions have a gap among their options; the letters behind it move up")


# More than seven parameters: each is an option of the command.
@stage
def generate(
    count: int,
    output: str | Path | None = None,
    configs: str | Path = CONFIGS,
    *,
    corpus: str | Path | None = None,
    options: int = 5,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    without: str | Path | None = None,
    at_most: bool = False,
    settings: Settings | None = None,
) -> ExamTable:
    """Make an exam from the passages of an English corpus, without a model: see docs/generated_exams.md.

    Args:
        count: questions to make.
        output: the exam to write; its ending tells the form. None: nothing is written.
        configs: the folder of the settings; corpus: in place of theirs.
        options: of a question, 2 to 26.
        kinds: of questions: cloze, term, definition.
        seed: another one draws other questions.
        without: an exam; near-duplicates of its questions are left out.
        at_most: take what there is where the corpus has not enough questions.
        settings: settings in place of those in the files.

    Returns:
        The exam; its columns `passage`, `title` and `kind` tell what each question was made from.

    Raises:
        UserError: the corpus cannot be read, or gives too few questions.
    """
    chosen = chosen_kinds(kinds)
    retrieval = read_settings(configs, settings, corpus).retrieval
    excluded = Path(without) if without is not None else None
    sources = [*corpus_files(retrieval.corpus).values(), *([excluded] if excluded else [])]
    form = None if output is None else _check_output(Path(output), sources)
    old = read_questions(excluded) if excluded is not None else None
    documents = read_corpus(retrieval.corpus, article_rules(retrieval), encoding=retrieval.encoding)
    exam = generate_exam(documents, Wish(count, options, chosen, seed, old))
    _check_count(exam, count, at_most, retrieval.corpus)
    if output is not None and form is not None:
        write_questions(Path(output), exam, form)
    return ExamTable(exam)


def chosen_kinds(names: Sequence[str]) -> list[Kind]:
    """The kinds of questions that are named, in the order of `KINDS`.

    Raises:
        UserError: an unknown name, or none.
    """
    unknown = sorted(set(names).difference(KINDS))
    if unknown or not names:
        raise UserError(f"--kinds {','.join(names)!r}: give one or more of {', '.join(KINDS)}")
    return [kind for kind in KINDS if kind in names]


def _check_output(output: Path, sources: list[Path]) -> str:
    """The form to write. An output that cannot be written, or that is one of the command's own sources, is refused.

    Raises:
        UserError: see above.
    """
    form = BY_ENDING.get(output.suffix.lower())
    if form is None or form.name not in WRITTEN:
        endings = [ending for written in WRITTEN.values() for ending in written.endings]
        raise UserError(f"--output {output}: give a name that ends in one of {', '.join(endings)}")
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; name a file")
    if output.exists() and any(source.exists() and output.samefile(source) for source in sources):
        raise UserError(f"--output {output} is what the questions are made from; name another file")
    return form.name


def _check_count(exam: Questions, count: int, at_most: bool, corpus: str) -> None:
    """Tell that the corpus gave fewer questions than asked for.

    Raises:
        UserError: none, or fewer without `at_most`.
    """
    if not len(exam):
        raise UserError(f"{no_question(corpus)}. Give a larger corpus, or fewer --options (3, or 2)")
    if len(exam) < count:
        if not at_most:
            raise UserError(
                f"{corpus} gives {len(exam)} questions, not {count}. Ask for no more (--count {len(exam)}), take what "
                "there is with --at-most, or give more text, fewer --options or more --kinds"
            )
        say(f"note: {corpus} gives {len(exam)} questions, not {count}")


# More than seven parameters: each is an option of the command.
@stage
def submit(
    workdir: str | Path | None = None,
    questions: ExamLike | None = None,
    output: str | Path | None = None,
    *,
    ranked: str | Path | None = None,
    probabilities: str | Path | None = None,
    add: Mapping[str, str | Path] | None = None,
    deadline: str | None = None,
    ranker_timeout: str = "30m",
    strict: bool = False,
    memory: str | int | None = None,
    devices: str = "auto",
    verify: bool = True,
    full_run: bool = False,
    settings: Settings | None = None,
    reading: Reading | None = None,
) -> Answered:
    """Answer every question with the ensemble of a working folder, one model in memory at a time.

    An answer is in `output` from the first second on and gets better; a call that was killed goes on when it is made
    again. For single questions, or many calls: `load`.

    Args:
        workdir: the working folder, or a bundle; None: this folder, in a Kaggle kernel its bundle.
        questions: None: test.csv of the working folder, in a kernel the competition's.
        output: Kaggle's file, id,prediction; None: submission.csv.
        ranked, probabilities: further files: every option in order as JSON lines; id and p_A, p_B, ... as CSV or
            parquet.
        add: imported ranker -> the file of its probabilities for these questions.
        deadline: when to end with the best answer so far: 8h30m, 90m, 45s or seconds.
        ranker_timeout: a ranker that finishes no batch for so long is left out.
        strict: whether a ranker that is left out is an error; the answer is written all the same.
        memory: how much may be used, as "16GiB".
        devices: those that share each ranker's questions: auto (all GPUs, else the CPU), "cuda:0,cuda:1", a number, or
            "cpu,cpu".
        verify: compare weights and indexes with their hashes.
        full_run: answer a competition's public questions whole in a kernel, not a sample.
        settings: settings in place of the stored ones.
        reading: how the file is to be read.

    Returns:
        id, prediction ("B A D"), p_A, p_B, ...

    Raises:
        UserError: there is no ensemble, the questions or an output are not usable, or no ranker answered.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if reading is not None and reading.skip_bad_rows:
        raise UserError("--skip-bad-rows: a submission answers every row; those that are wrong are told")
    limits = Limits(
        parse_duration(deadline, "--deadline") if deadline is not None else None,
        parse_duration(ranker_timeout, "--ranker-timeout"),
        strict,
        None if memory is None else parse_memory(str(memory)),
        parse_devices(devices),
    )
    named = Path(questions) if isinstance(questions, (str, Path)) else None
    given = None if workdir is None else Path(workdir)
    place = find_place(given, named, None if output is None else Path(output), setting_texts(settings))
    folder = place.workdir
    outputs = Outputs(place.output, _path(ranked), _path(probabilities))
    exam = read_exam(place.questions if named or questions is None else questions, folder, True, reading)
    source = (place.questions or folder.test).resolve()
    for path in outputs.answers:
        if path.resolve() == source:
            raise UserError(f"{path} is the question file; give another output")
    added = {name: Path(file) for name, file in (add or {}).items()}
    with contextlib.nullcontext() if verify else without_hashing():
        sample = None if full_run else sample_to_prove(exam, place.public_hash)
        blended, _ = run_submission(folder, exam, outputs, place.overrides, added, limits, sample)
    return Answered(exam, blended)


def _path(file: str | Path | None) -> Path | None:
    return None if file is None else Path(file)
