"""The whole pipeline on a folder of your own: passages and, if there are any, questions."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from solution.answers_file import read_answers
from solution.config import RetrievalConfig, Run
from solution.config_files import load_run
from solution.ensemble.record import load_ensemble
from solution.ensemble.rows import ScoreRow
from solution.errors import UserError, check_together
from solution.folds import already_parted, taken_back_when_refused, whole_folds_file
from solution.formats.items import Reading
from solution.generation.exam import Wish
from solution.inference.outputs import Outputs
from solution.pipeline.estimate import estimate, in_words
from solution.pipeline.finished import Finished
from solution.pipeline.folder import QuestionFile, Sources, choose, link_corpus, look_through
from solution.pipeline.plan import Plan, make_plan, rankers_for, typed_names, without_vain_pretraining
from solution.pipeline.run import Clock, Job, report_of, run_pipeline
from solution.progress import say
from solution.questions import Questions, letter, read_questions, write_questions
from solution.rankers.families import check_models
from solution.report.plots import require_matplotlib
from solution.retrieval.corpus import look_at_corpus
from solution.suggestions import remember_exam, suggest
from solution.training.extra import ExtraFiles
from solution.workdir import Workdir

ANSWERS = "answers"
"""The folder that is written inside the user's folder."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        folder: holds the user's files.
        questions, test, corpus: files that take the place of what would be recognised.
        workdir: the folder to write; None: `answers` in the user's folder.
        configs: the folder of the settings.
        all_rankers: take also those that are slow without a GPU.
        count: of the questions that are made where there are too few.
    """

    folder: Path
    questions: Path | None
    test: Path | None
    corpus: str | None
    workdir: Path | None
    configs: Path
    overrides: Sequence[str]
    reading: Reading
    all_rankers: bool
    count: int


def run_exam(request: Request) -> None:
    """Everything from the files of a folder to answers and a report; what is finished is not done again.

    Raises:
        UserError: the folder's files do not fit or could be meant in several ways, see `folder.choose`; there is
            nothing to learn from, see `plan.make_plan`; or see the steps.
    """
    clock = Clock()
    sources = _sources(request)
    workdir = Workdir(request.workdir or request.folder / ANSWERS)
    _refuse_strange(workdir)
    require_matplotlib()
    # The settings are checked with a corpus before anything is written; the links to it lie in the working folder.
    corpus = sources.corpus if isinstance(sources.corpus, str) else str(next(iter(sources.corpus.values())))
    run, slow = _settings(request, corpus)
    check_together("the training cannot start", lambda: check_models(run.rankers), lambda: ExtraFiles().check(run))
    look_at_corpus(corpus, run.retrieval.encoding)

    for line in sources.lines:
        say(line)
    if slow:
        say(f"without a GPU {', '.join(slow)} would take long and is left out; --all-rankers takes it in")
    with _removed_when_refused(workdir):
        if not isinstance(sources.corpus, str):
            run = _with_corpus(run, link_corpus(sources.corpus, workdir.corpus))
        remember_exam(str(workdir.root), run.retrieval.corpus)
        typed, wish = typed_names(request.overrides), Wish(request.count)
        plan, is_new = _keep_folds(make_plan(run, sources.exam, sources.test, wish, workdir, typed), workdir, typed)
        plan = replace(plan, run=without_vain_pretraining(plan.run, plan.train, workdir))
        _tell(plan, clock)
        test = None if plan.test is None else plan.test.questions
        say(in_words(estimate(plan.run, plan.train, test, workdir, is_new)))
    job = _job(plan, workdir, str(request.configs))
    with taken_back_when_refused(workdir):
        rows = run_pipeline(job, clock)
    _write_head(plan, rows, workdir)
    page = report_of(job, clock)
    _tell_results(plan, job, rows, page, clock)


# --- before the run ------------------------------------------------------------------------


def _sources(request: Request) -> Sources:
    """The files to work on: those that the command line names, and of the rest those that are recognised.

    Raises:
        UserError: see `folder.look_through` and `folder.choose`.
    """
    if request.reading.columns and request.questions is None:
        raise UserError("--columns names the columns of one file: name it too, with --questions FILE")
    exam, test = (_named(path, request) for path in (request.questions, request.test))
    corpus = None if request.corpus is None else _place(Path(request.corpus), request.folder)
    known = [file.path for file in (exam, test) if file is not None] + ([corpus] if corpus is not None else [])
    found = look_through(
        request.folder, replace(request.reading, columns={}, expects_answers=False), known, _corpus_encoding(request)
    )
    spec = None if request.corpus is None else str(corpus) if corpus is not None else request.corpus
    return choose(found, exam, test, spec)


def _corpus_encoding(request: Request) -> str | None:
    """The encoding of texts that are not UTF-8: --encoding holds for the whole folder, unless the setting is typed."""
    typed = [text.partition("=")[2] for text in request.overrides if text.startswith("retrieval.encoding=")]
    return typed[-1] if typed else request.reading.encoding


def _named(path: Path | None, request: Request) -> QuestionFile | None:
    """A file of questions that the command line names.

    Raises:
        UserError: see `read_questions`.
    """
    if path is None:
        return None
    place = _place(path, request.folder) or path
    notes: list[str] = []
    is_exam = path == request.questions
    reading = request.reading if is_exam else replace(request.reading, columns={}, expects_answers=False)
    return QuestionFile(place, read_questions(place, None, reading, notes), notes)


def _place(path: Path, folder: Path) -> Path | None:
    """Where a file lies that may be named as seen from here or from the folder; None: it is not there."""
    return next((place for place in (path, folder / path) if place.exists()), None)


def _refuse_strange(workdir: Workdir) -> None:
    """Refuse to write into a folder that holds other things.

    Raises:
        UserError: see above.
    """
    if workdir.root.exists() and not workdir.root.is_dir():
        raise UserError(f"{workdir.root} is a file; name a folder to write with --workdir")
    if workdir.root.exists() and any(workdir.root.iterdir()) and not workdir.exam.exists():
        raise UserError(
            f"{workdir.root} holds files that this command has not written; name another folder with --workdir"
        )


@contextlib.contextmanager
def _removed_when_refused(workdir: Workdir) -> Iterator[None]:
    """Make the folder to write, and know it from now on; remove it where it is new and the block ends in an error."""
    is_new = not workdir.exam.exists()
    try:
        workdir.root.mkdir(parents=True, exist_ok=True)
        Finished(workdir.exam).write()
    except OSError as error:
        raise UserError(
            f"{workdir.root} cannot be written ({error.strerror}); name another folder with --workdir"
        ) from None
    say(f"all that is written goes into {workdir.root}; your files stay as they are")
    try:
        yield
    except UserError:
        if is_new:
            shutil.rmtree(workdir.root, ignore_errors=True)
        raise


def _settings(request: Request, corpus: str) -> tuple[Run, list[str]]:
    """The settings with this corpus, and the rankers that are left out since they are slow here."""
    encoding = _corpus_encoding(request)
    overrides = [*request.overrides, *([f"retrieval.encoding={encoding}"] if encoding else [])]
    run = load_run(request.configs, overrides, corpus=corpus)
    if run.retrieval.source != "index":
        raise UserError(f"retrieval.source is {run.retrieval.source!r}: this command searches the corpus, so set index")
    if request.all_rankers or "ensemble.rankers" in typed_names(request.overrides):
        return run, []
    return rankers_for(run)


def _with_corpus(run: Run, corpus: str) -> Run:
    """The settings with another corpus for the default retrieval, and for the others that search the same one."""

    def moved(retrieval: RetrievalConfig) -> RetrievalConfig:
        is_same = retrieval.corpus == run.retrieval.corpus
        return retrieval.model_copy(update={"corpus": corpus}) if is_same else retrieval

    further = {name: moved(retrieval) for name, retrieval in run.retrievals.items()}
    return run.model_copy(update={"retrieval": moved(run.retrieval), "retrievals": further})


def _keep_folds(plan: Plan, workdir: Workdir, typed: Sequence[str]) -> tuple[Plan, bool]:
    """The plan with the folds and the group column of an earlier run, and whether its questions are new.

    Folds of questions that were made, and are others now, are dropped with what was trained on them.
    """
    finished = Finished(workdir.exam)
    before, now = finished.plan, plan.train.content_hash()
    if workdir.folds.exists() and before.get("made") and before.get("questions") != now:
        say("the questions made from the corpus are others than before: the folds and what they taught are made anew")
        shutil.rmtree(workdir.oof)
        shutil.rmtree(workdir.weights, ignore_errors=True)
    if workdir.folds.exists():
        stored = whole_folds_file(workdir.folds)["settings"]
        names = [name for name in ("folds", "group_column") if f"ensemble.{name}" not in typed]
        if already_parted(plan.train, workdir.folds):
            ensemble = plan.run.ensemble.model_copy(update={name: stored[name] for name in names})
            plan = replace(plan, run=plan.run.model_copy(update={"ensemble": ensemble}))
    finished.plan = {"made": plan.made, "questions": now}
    finished.notes = list(plan.notes)
    finished.write()
    return plan, before.get("questions") != now


def _tell(plan: Plan, clock: Clock) -> None:
    for note in plan.notes:
        say(f"note: {note}")
    ensemble = plan.run.ensemble
    together = f", questions of one `{ensemble.group_column}` together" if ensemble.group_column else ""
    asked = f", {len(plan.test.questions)} to answer" if plan.test is not None else ""
    made = " made from the corpus" if plan.made else ""
    names = ", ".join(config.name for config in plan.run.rankers)
    what = "learn from" if plan.trained else "score"
    clock.step(f"{len(plan.train)} questions{made} to {what}{asked}; {ensemble.folds} folds{together}; {names}")


def _job(plan: Plan, workdir: Workdir, configs: str) -> Job:
    root = workdir.root
    outputs = Outputs(workdir.submission, root / "ranked.jsonl", root / "probabilities.csv")
    test = None if plan.test is None else plan.test.questions
    scored = "" if plan.test is None else f"The questions of {plan.test.name}, that nothing was trained or tuned on"
    return Job(plan.run, workdir, plan.train, test, outputs, scored, configs)


# --- after the run -------------------------------------------------------------------------


def _write_head(plan: Plan, rows: Sequence[ScoreRow], workdir: Workdir) -> None:
    """Put what must be known of the scores into the head of the report: also the score of questions kept aside."""
    finished = Finished(workdir.exam)
    finished.notes = list(plan.notes)
    best = next((row for row in rows if row["shipped"]), None)
    if best is not None and plan.test is not None:
        finished.notes.append(
            f"On the {len(plan.test.questions)} questions of {plan.test.name}, that nothing was trained or tuned "
            f"on, the answers scored MAP@3 {best['map3']:.3f} [{best['low']:.3f}, {best['high']:.3f}], and "
            f"{best['precision1']:.0%} of the first answers were right."
        )
    finished.write()


def _tell_results(plan: Plan, job: Job, rows: Sequence[ScoreRow], page: Path, clock: Clock) -> None:
    if plan.test is not None:
        answered = job.workdir.root / "answered.csv"
        write_answered(answered, plan.test.questions, job.outputs)
        say(f"{answered}: the questions with our answers, and how sure each is")
    if plan.made:
        write_questions(job.workdir.root / "practice.gift", plan.train, "gift")
        say(f"{job.workdir.questions}: the practice questions; practice.gift beside it: the same for Moodle")
        command = suggest("serve", "--workdir", str(job.workdir.root), "--generate", "10")
        say(f"to practise on a page: {command}")
    clock.step("done")
    print()
    for line in _in_plain_words(plan, job, rows):
        print(line)
    print(f"{page}: the report")


def _in_plain_words(plan: Plan, job: Job, rows: Sequence[ScoreRow]) -> list[str]:
    """How often the first answer is right, and how often a guess would be, for readers who do not know MAP@3."""
    lines = []
    for row in rows:
        if row["shipped"] and plan.test is not None:
            what = f"Of the {len(plan.test.questions)} questions of {plan.test.name}, which nothing was learnt from"
            lines.append(_right(what, row, plan.test.questions))
    what = "the practice questions made from the corpus" if plan.made else "the questions learnt from"
    what = f"Of {what}, each answered by models that had not seen it"
    if not plan.trained:
        what = f"Of the {len(plan.train)} questions with answers, which no ranker was trained on"
    shipped = next(row for row in load_ensemble(job.workdir)["table"] if row["shipped"])
    return [*lines, _right(what, shipped, plan.train)]


def _right(what: str, row: ScoreRow, questions: Questions) -> str:
    chance = float((1 / questions.exists().sum(axis=1)).mean())
    right = f"the first answer is right for {row['precision1']:.0%} (guessing: {chance:.0%})"
    return f"{what}, {right}; MAP@3 {row['map3']:.3f}"


def write_answered(path: Path, questions: Questions, outputs: Outputs) -> None:
    """Write the questions with the ensemble's answers, and the probability that it gives each.

    Args:
        questions: an answer that is known goes into the column `right_answer`.
        outputs: those of the submission, with the probabilities.
    """
    assert outputs.probabilities is not None
    table = read_answers(outputs.probabilities, questions)
    exists = questions.exists(table.shape[1])
    chosen = np.where(exists, table, -1.0).argmax(axis=1)
    sure = table[np.arange(len(questions)), chosen]
    extra = {**questions.extra, "probability": [f"{value:.2f}" for value in sure]}
    if (questions.answers >= 0).any():
        extra["right_answer"] = ["" if answer < 0 else letter(answer) for answer in questions.answers]
    write_questions(path, replace(questions, answers=chosen.astype(np.int64), extra=extra))
