"""Verbs about retrieval: index, index tune, contexts, reranker train."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from solution.api import retrieval as stages
from solution.api.inputs import chosen_retrievals, read_exam, read_settings
from solution.cli.options import (
    CONFIGS,
    HERE,
    ConfigsOption,
    CorpusOption,
    OverridesArgument,
    QuestionsOption,
    RetrievalOption,
    WorkdirOption,
    reads_exam,
)
from solution.command import command
from solution.config import DEFAULT
from solution.errors import UserError
from solution.exam import Contexts
from solution.formats.items import Reading
from solution.questions import Questions
from solution.retrieval.contexts.comparison import compare, table
from solution.retrieval.contexts.comparison import explain as explain_contexts
from solution.retrieval.gold import Gold
from solution.workdir import Workdir


# More than seven parameters: each is an option of the command line.
@command
def index(
    overrides: OverridesArgument = None,
    corpus: CorpusOption = None,
    questions: Annotated[Path | None, typer.Option(hidden=True)] = None,
    queries: Annotated[str | None, typer.Option(hidden=True)] = None,
    recall: Annotated[str | None, typer.Option(hidden=True)] = None,
    kinds: Annotated[str | None, typer.Option(hidden=True)] = None,
    retrieval: RetrievalOption = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Cut the corpus into passages, embed them and build the index; of several retrievals those that rankers read.

    `index tune` (see its --help) then measures the kinds of dense index on these passages.
    """
    del questions, queries, recall, kinds  # not used: scripts may give the options of `index tune` or `contexts` too
    table = stages.index(configs, workdir, corpus=corpus, retrieval=retrieval, settings=overrides)
    several = len({row["retrieval"] for row in table}) > 1
    for row in table:
        of = f" of {row['retrieval']}" if several else ""
        print(_BUILT[row["index"]].format(count=row["texts"], of=of))


_BUILT = {
    "dense": "{count} passages in the index{of}",
    "lexical": "{count} passages in the lexical index{of}",
    "sentences": "{count} sentences in the sentence index{of}",
}


@command
@reads_exam
def index_tune(
    overrides: OverridesArgument = None,
    corpus: CorpusOption = None,
    questions: Annotated[
        Path | None, typer.Option(help="The exam whose questions are searched for. Default: passages.")
    ] = None,
    queries: Annotated[int, typer.Option(help="How many of them.", min=1)] = 1000,
    recall: Annotated[float, typer.Option(help="What the settings must reach.", min=0, max=1)] = 0.98,
    kinds: Annotated[str | None, typer.Option(help="Only these kinds, separated by commas.")] = None,
    retrieval: RetrievalOption = DEFAULT,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
    *,
    reading: Reading,
) -> None:
    """Try the kinds of dense index on the corpus's passages and print what each finds, needs and takes.

    The index itself is built first where it is missing.
    """
    stages.tune_index(
        configs, workdir, questions=questions, queries=queries, recall=recall, kinds=kinds, corpus=corpus,
        retrieval=retrieval, settings=overrides, reading=reading,
    )  # fmt: skip


# More than seven parameters: each is an option of the command line.
@command
@reads_exam
def contexts(
    overrides: OverridesArgument = None,
    questions: QuestionsOption = None,
    corpus: CorpusOption = None,
    show: Annotated[int, typer.Option(help="Print the contexts of the first N questions.", min=0)] = 0,
    explain: Annotated[
        str | None, typer.Option(metavar="ID", help="Tell how the passages of one question were found.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Measure the recall of retrievers and query forms on this exam.")
    ] = False,
    gold: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="For --report: a column that begins the ids or titles of a question's right passages (a module, an "
            "article). Default: passages that contain the answer's text.",
        ),
    ] = None,
    retrieval: RetrievalOption = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
    *,
    reading: Reading,
) -> None:
    """Retrieve the passages that the rankers will read. --report compares the retrievals of the settings."""
    if gold is not None and not report:
        raise UserError("--gold says what --report judges by; give both")
    run = read_settings(configs, overrides, corpus)
    chosen = chosen_retrievals(run, retrieval)
    # Also those that no ranker reads yet: the comparison is to tell whether one should.
    compared = run.every_retrieval if report and retrieval is None else chosen
    if report:
        compared = stages.searching(compared)
    # To look at contexts needs a folder in which some were made: a wrong name is refused, not made a new folder.
    looks = show > 0 or report or explain is not None
    exam = read_exam(questions, Workdir.existing(workdir) if looks else Workdir.at(workdir), reading=reading)
    folder = Workdir.open(workdir)
    if explain is not None and explain not in exam.ids:
        raise UserError(f"--explain {explain}: no question has this id")
    if report:
        judged = Gold(exam, gold)
        rows = []
        for name, settings in compared.items():
            front = f"{name}: " if len(compared) > 1 else ""
            found = compare(exam, settings, judged, folder.root)
            rows += [{**row, "retriever": front + row["retriever"]} for row in found]
        _print_lines(table(rows, judged, len(exam)))
    for name, settings in chosen.items():
        of = f", retrieval {name}" if len(chosen) > 1 else ""
        if explain is not None:
            _print_lines(explain_contexts(exam, exam.ids.index(explain), settings, folder.root))
        # --report and --explain are answers of their own: contexts follow them only where --show asks for some.
        if show > 0 or not (report or explain is not None):
            _print_contexts(exam, stages.exam_contexts(exam, {name: settings}, folder)[name], show, of)


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _print_contexts(exam: Questions, contexts: Contexts, show: int, of: str) -> None:
    print(f"contexts of {len(exam)} questions{of}, {sum(map(len, contexts.passages)) / len(exam):.1f} passages each")
    for row in range(min(show, len(exam))):
        print(f"\n{exam.ids[row]}: {exam.prompts[row]}")
        for place, passage in enumerate(contexts.passages[row], 1):
            source = f"{passage.score:.3f} {passage.retriever} [{passage.id}] {passage.title}"
            print(f"  {place:2} {source}: {passage.text[:120]}")


@command
@reads_exam
def reranker_train(
    overrides: OverridesArgument = None,
    fold: Annotated[int | None, typer.Option(help="Only the reranker of this fold, from 0. Default: all.")] = None,
    questions: QuestionsOption = None,
    corpus: CorpusOption = None,
    retrieval: RetrievalOption = DEFAULT,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
    *,
    reading: Reading,
) -> None:
    """Train the reranker of each fold on the other folds' questions and passages retrieved for them; show its gain.

    What is finished is not done again; a run that was killed goes on from its last checkpoint.
    """
    _print_lines(
        stages.train_reranker(
            configs,
            workdir,
            fold=fold,
            questions=questions,
            corpus=corpus,
            retrieval=retrieval,
            settings=overrides,
            reading=reading,
        ).lines  # fmt: skip
    )
