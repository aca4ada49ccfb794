"""The verbs of `python -m solution`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from solution import __version__
from solution.cli.options import (
    APP_SETTINGS,
    CONFIGS,
    HERE,
    ConfigsOption,
    CorpusOption,
    Overrides,
    QuestionsOption,
    WorkdirOption,
    named_values,
    positive,
    read_exam,
    read_settings,
)
from solution.command import EXIT_USER_ERROR, command
from solution.doctor.examine import examine
from solution.doctor.report import print_report
from solution.ensemble.imported import import_oof as add
from solution.ensemble.table import print_cascade, print_rankers, print_search, print_table
from solution.ensemble.tune import rankers_with_oof, run_tune
from solution.errors import UserError
from solution.folds import exam_folds, taken_back_when_refused
from solution.kaggle.bundle import COMPETITION, NAME, USER, make_bundle
from solution.kaggle.check import check_bundle
from solution.kaggle.wheels import PLATFORM, PYTHON, Wheels
from solution.metrics import bootstrap_interval, credit_at_k
from solution.pipeline import run_demo
from solution.progress import say
from solution.questions import LETTERS
from solution.report.run import write_report
from solution.retrieval.contexts.build import build_contexts
from solution.retrieval.contexts.comparison import compare, table
from solution.retrieval.contexts.comparison import explain as lines_of
from solution.retrieval.gold import Gold
from solution.retrieval.index import build_index
from solution.retrieval.index_tuning import tune_index
from solution.retrieval.lexical import build_lexical
from solution.retrieval.reranker.training import summary, train_reranker
from solution.suggestions import suggest
from solution.training.merge import merge_fold
from solution.workdir import Workdir

_HELP = """LLM Science Exam: rank the options of science questions.

Two steps are scripts of their own: python train_fold.py (between folds and tune) and python submit.py (after tune);
each has --help too.
"""
app = typer.Typer(help=_HELP, no_args_is_help=True, **APP_SETTINGS)  # type: ignore[arg-type]
reranker_app = typer.Typer(help="The cross-encoder that puts retrieved passages into order.", no_args_is_help=True)
app.add_typer(reranker_app, name="reranker")


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
@command
def index(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="key.path=value",
            help="Settings that take the place of those in the files; the word tune before them: see above.",
        ),
    ] = None,
    corpus: CorpusOption = None,
    questions: Annotated[
        Path | None, typer.Option(help="For tune: the exam whose questions are searched for. Default: passages.")
    ] = None,
    queries: Annotated[int, typer.Option(help="For tune: how many of them.", min=1)] = 1000,
    recall: Annotated[float, typer.Option(help="For tune: what the settings must reach.", min=0, max=1)] = 0.98,
    kinds: Annotated[str | None, typer.Option(help="For tune: only these kinds, separated by commas.")] = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Cut the corpus into passages, embed them and build the index.

    With the word tune (`index tune`) it then tries the kinds of dense index on these passages and prints what each
    finds, needs and takes.
    """
    tune = (overrides or [])[:1] == ["tune"]
    overrides = overrides[1:] if overrides and tune else overrides
    run = read_settings(configs, overrides, corpus)
    if run.retrieval.source != "index":
        raise UserError(f"retrieval.source is {run.retrieval.source!r}: no index is used (set retrieval.source=index)")
    folder = Workdir.open(workdir)
    if tune:
        exam = None if questions is None else read_exam(questions, folder)
        tune_index(run.retrieval, folder, exam, queries, recall, kinds)
        return
    wanted = set(run.retrieval.retrievers).union(*(ranker.contexts for ranker in run.rankers))
    if "dense" in wanted or run.retrieval.uses_vectors:
        built = build_index(run.retrieval, folder.root)
        print(f"{len(built.passages)} passages in the index")
    if "lexical" in wanted:
        print(f"{len(build_lexical(run.retrieval, folder.root).passages)} passages in the lexical index")


@app.command()
@command
def contexts(
    overrides: Overrides = None,
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
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Retrieve the passages that the rankers will read."""
    if gold is not None and not report:
        raise UserError("--gold says what --report judges by; give both")
    run = read_settings(configs, overrides, corpus)
    if report and run.retrieval.source != "index":
        raise UserError(f"--report compares searches, and retrieval.source is {run.retrieval.source!r}")
    looks = show > 0 or report or explain is not None
    exam = read_exam(questions, Workdir.existing(workdir) if looks else Workdir.at(workdir))
    folder = Workdir.open(workdir)
    if explain is not None and explain not in exam.ids:
        raise UserError(f"--explain {explain}: no question has this id")
    if report:
        judged = Gold(exam, gold)
        for line in table(compare(exam, run.retrieval, judged, folder.root), judged, len(exam)):
            print(line)
        if not show and explain is None:
            return
    if explain is not None:
        for line in lines_of(exam, exam.ids.index(explain), run.retrieval, folder.root):
            print(line)
        if not show:
            return
    made = build_contexts(exam, run.retrieval, folder.root)
    print(f"contexts of {len(exam)} questions, {sum(map(len, made.passages)) / len(exam):.1f} passages each")
    for row in range(min(show, len(exam))):
        print(f"\n{exam.ids[row]}: {exam.prompts[row]}")
        for place, passage in enumerate(made.passages[row], 1):
            found = f"{passage.score:.3f} {passage.retriever} [{passage.id}] {passage.title}"
            print(f"  {place:2} {found}: {passage.text[:120]}")


@app.command()
@command
def folds(
    overrides: Overrides = None,
    questions: QuestionsOption = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Part the questions into folds and show their balance."""
    run = read_settings(configs, overrides)
    exam = read_exam(questions, Workdir.at(workdir))
    folder = Workdir.open(workdir)
    import numpy as np

    fold_of = exam_folds(exam, run.ensemble, folder.folds)
    lacking = int((exam.answers < 0).sum())
    if lacking:
        say(f"note: {lacking} of {len(exam)} questions have no answer: this exam cannot be trained on")
    letters = LETTERS[: exam.max_options]
    print("fold  questions  " + "  ".join(f"{name:>4}" for name in letters))
    for k in range(run.ensemble.folds):
        inside = exam.answers[fold_of == k]
        counts = np.bincount(inside[inside >= 0], minlength=len(letters))
        print(f"{k:4}  {len(inside):9}  " + "  ".join(f"{count:4}" for count in counts))


@reranker_app.callback()
def _reranker() -> None:
    pass


@reranker_app.command(short_help="Train the reranker of each fold; show its gain.")
@command
def train(
    overrides: Overrides = None,
    fold: Annotated[int | None, typer.Option(help="Only the reranker of this fold, from 0. Default: all.")] = None,
    questions: QuestionsOption = None,
    corpus: CorpusOption = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Train the reranker of each fold on the other folds' questions and passages retrieved for them; show its gain.

    What is finished is not done again; a run that was killed goes on from its last checkpoint.
    """
    run = read_settings(configs, overrides, corpus)
    exam = read_exam(questions, Workdir.at(workdir))
    folder = Workdir.open(workdir)
    folds = range(run.ensemble.folds) if fold is None else [fold]
    with taken_back_when_refused(folder):
        train_reranker(run, exam, folder, folds)
    for line in summary(folder, folds):
        print(line)


@app.command(short_help="Find the ensemble's weights from the OOF files.")
@command
def tune(
    overrides: Overrides = None,
    seconds_per_question: Annotated[
        float | None,
        typer.Option(min=0, help="What a submission may take: costly rankers read only the questions that need them."),
    ] = None,
    seconds: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=S", help="A ranker's seconds a question in a submission, where training differs."),
    ] = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Find the ensemble's weights from the OOF files alone and write WORKDIR/weights/ensemble.json."""
    run = read_settings(configs, overrides)
    folder = Workdir.existing(workdir)
    speeds = {name: positive(value, f"--seconds {name}") for name, value in named_values(seconds, "--seconds").items()}
    names = rankers_with_oof(folder, run)
    tuning, groups = run.ensemble.tune, run.ensemble.groups
    record = run_tune(folder, tuning, names, groups, speeds, seconds_per_question, str(configs))
    print_table(record["table"])
    print_rankers(record)
    print_cascade(record)
    print_search(record)
    print(record["reason"])


@app.command(short_help="Write what tune found as one HTML page.")
@command
def report(
    questions: QuestionsOption = None,
    output: Annotated[Path | None, typer.Option(help="The folder to write. Default: WORKDIR/report.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Show MAP@3 by this column. Default: by every further column of 2 to 40 values."
        ),
    ] = None,
    gold: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="A column that begins the ids or titles of a question's right passages; see contexts.",
        ),
    ] = None,
    workdir: WorkdirOption = HERE,
) -> None:
    """Write what `tune` found as one HTML page and PNGs: scores, weights, calibration, the worst questions."""
    folder = Workdir.existing(workdir)
    given = questions is not None or (folder.root / "questions.csv").exists()
    exam = read_exam(questions, folder) if given else None
    files = write_report(folder, exam, output or folder.root / "report", by or (), gold)
    print(f"{files[0]} and {len(files) - 1} plots beside it")


@app.command("import-oof", short_help="Add another program's out-of-fold probabilities.")
@command
def import_oof(
    file: Annotated[Path, typer.Argument(help="id and p_A,p_B,... or A,B,...: CSV, JSONL or parquet.")],
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="The ranker's name in the ensemble.")] = "",
    normalize: Annotated[bool, typer.Option("--normalize", help="Divide each row by its sum.")] = False,
    questions: QuestionsOption = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Add the out-of-fold probabilities that another program made: they join the blend of `tune`.

    Each must come from a model that was not trained on its question. For submit.py, give the same program's
    probabilities for the questions to answer with --add NAME=FILE.
    """
    if not name:
        raise UserError("give the ranker a name with --name NAME")
    run = read_settings(configs, overrides)
    exam = read_exam(questions, Workdir.at(workdir))
    folder = Workdir.open(workdir)
    with taken_back_when_refused(folder):
        fold_of = exam_folds(exam, run.ensemble, folder.folds)
        table = add(name, file, exam, fold_of, run.ensemble.folds, folder, normalize)
    credits = credit_at_k(table, exam.answers)
    low, high = bootstrap_interval(credits)
    print(f"{name}: {len(exam)} questions imported, MAP@3 {credits.mean():.4f} [{low:.3f}, {high:.3f}]")


@app.command(short_help="Write a trained fold as a stand-alone model.")
@command
def merge(
    ranker: Annotated[str, typer.Option(help="A ranker that was trained with LoRA or QLoRA.")],
    fold: Annotated[int, typer.Option(help="Which of its trained folds, from 0.")],
    output: Annotated[Path, typer.Option(help="The folder to write; it must not be there yet.")],
    overrides: Overrides = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of the merged weights; bfloat16 takes half the room.")
    ] = "float32",
    workdir: WorkdirOption = HERE,
) -> None:
    """Write a trained fold as a stand-alone model: LoRA added to the base weights, with tokenizer, head and settings.

    The settings are those that the fold was trained with; `model=FOLDER` tells where a base model is that has moved.
    """
    folder = Workdir.existing(workdir)
    merged = merge_fold(folder, ranker, fold, output, dtype, overrides or ())
    print(f"{merged.folder}: {merged.size / 1e6:.1f} MB, {dtype}")
    print(f"its probabilities differ from the adapter's by {merged.difference:.1g} at most")
    print(f"as a ranker: {suggest('train_fold', '--config', str(merged.settings), '--fold', str(fold))}")
    print("(other folds of the exam that it was trained on are refused; another exam takes --all-folds)")
    print("elsewhere: transformers' AutoModel classes load the folder")


@app.command(short_help="Make a folder with all that a Kaggle kernel needs.")
@command
def bundle(
    output: Annotated[Path | None, typer.Option(help="The folder to write.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Only try a bundle: install it and submit, in a new environment, offline."),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the data set and the kernel, as in their addresses.")] = "",
    user: Annotated[str, typer.Option(help="Your name on Kaggle.")] = "",
    competition: Annotated[str, typer.Option(help="Whose test.csv the kernel answers.")] = "",
    wheels: Annotated[Path | None, typer.Option(help="A folder with the packages' wheels, in place of pip.")] = None,
    no_wheels: Annotated[bool, typer.Option("--no-wheels", help="The kernel has all packages.")] = False,
    skip: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="Packages that the kernel has, with what only they need: torch.")
    ] = "",
    python: Annotated[str, typer.Option(help="The kernel's Python. Default: 3.12, Kaggle's.")] = "",
    platform: Annotated[str, typer.Option(help="The kernel's platform tag. Default: manylinux_2_35_x86_64.")] = "",
    no_models: Annotated[bool, typer.Option("--no-models", help="Leave the base models out.")] = False,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Put all that a Kaggle kernel without a network needs into a folder: wheels, program, weights, index, models.

    Its README says how to upload it. Packages come in the versions that are installed here.
    """
    if (output is None) == (check is None):
        raise UserError("give either --output DIR (make a bundle) or --check DIR (try one)")
    if check is not None:
        for step, seconds in check_bundle(check).seconds.items():
            print(f"{step:24} {seconds:7.1f} s")
        print(f"{check}: installed without a network, and all questions of its sample answered")
        return
    skipped = [part.strip() for part in skip.split(",") if part.strip()]
    packages = Wheels(wheels, no_wheels, skipped, python or PYTHON, platform or PLATFORM)
    folder = Workdir.existing(workdir)
    assert output is not None
    names = (name or NAME, user or USER, competition or COMPETITION)
    sizes = make_bundle(folder, output, configs, packages, *names, with_models=not no_models)
    for part, size in sizes.items():
        if size:
            print(f"{part:10} {size / 1e6:12,.1f} MB")
    print(f"{'together':10} {sum(sizes.values()) / 1e6:12,.1f} MB in {output}; its README.md says how to upload it")


@app.command(short_help="Tell whether machine and working folder are fit.")
@command
def doctor(
    overrides: Overrides = None,
    questions: Annotated[
        Path | None, typer.Option(help="The questions to answer. Default: WORKDIR/test.csv where there is one.")
    ] = None,
    corpus: CorpusOption = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object in place of the table.")] = False,
) -> None:
    """Tell whether this machine, its packages and the working folder are fit, and what submit.py would do.

    Changes nothing. Ends with exit code 2 when something is wrong (warnings are not).
    """
    Workdir.existing(workdir)
    report = examine(workdir, configs, questions, corpus, overrides or ())
    print_report(report, json_)
    if report.state == "error":
        raise typer.Exit(EXIT_USER_ERROR)


@app.command(short_help="Run the whole pipeline on the built-in exam.")
@command
def demo(
    overrides: Overrides = None,
    workdir: WorkdirOption = Path("demo_run"),
    configs: ConfigsOption = CONFIGS / "demo",
) -> None:
    """The whole pipeline on the built-in exam: index, folds, training, tuning, submission, score."""
    run = read_settings(configs, overrides)
    run_demo(run, Workdir.open(workdir), str(configs))
