"""The stages of retrieval: index, index tune, contexts, reranker train, tune-embedder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solution.api.inputs import CONFIGS, ExamLike, Settings, chosen_retrievals, read_exam, read_settings
from solution.api.results import EmbedderGain, Gain, Rows
from solution.api.stage import stage
from solution.config import DEFAULT, SIGNALS, EmbedderTuning, RetrievalConfig, Run
from solution.config_files import retrieval_owner, settings_given
from solution.errors import UserError
from solution.exam import Contexts
from solution.folds import repeated_questions, taken_back_when_refused
from solution.formats.items import Reading
from solution.questions import Questions, read_questions
from solution.retrieval.contexts.build import build_contexts
from solution.retrieval.embedder_tuning.tune import check_output
from solution.retrieval.embedder_tuning.tune import tune_embedder as tune_on_questions
from solution.retrieval.index import build_index
from solution.retrieval.index_tuning import tune_index as try_kinds
from solution.retrieval.lexical import build_lexical
from solution.retrieval.reranker.training import gains, summary
from solution.retrieval.reranker.training import train_reranker as train_on_folds
from solution.retrieval.search import Indexes
from solution.workdir import Workdir


@stage
def index(
    configs: str | Path = CONFIGS,
    workdir: str | Path = ".",
    *,
    corpus: str | Path | None = None,
    retrieval: str | None = None,
    settings: Settings | None = None,
) -> Rows:
    """Cut the corpus into passages, embed them and build the indexes that the rankers need.

    Args:
        configs: the folder of the settings.
        workdir: the working folder, made when it is missing.
        corpus: a file or a folder of texts (docs/corpora.md), in place of that of the settings.
        retrieval: only the retrieval of this name; None: those that rankers read.
        settings: settings in place of those in the files.

    Returns:
        A row for each index: retrieval, index (dense, lexical, sentences), texts (their number).

    Raises:
        UserError: the settings are wrong, or the corpus cannot be read.
    """
    run = read_settings(configs, settings, corpus)
    chosen = searching(chosen_retrievals(run, retrieval))
    folder = Workdir.open(workdir).root
    rows = [
        {"retrieval": name, "index": kind, "texts": count}
        for name, config in chosen.items()
        for kind, count in _built(run, name, config, folder).items()
    ]
    return Rows(rows, ["retrieval", "index", "texts"])


def _built(run: Run, name: str, config: RetrievalConfig, folder: Path) -> dict[str, int]:
    """The indexes that the rankers need of a retrieval, built where they are missing: kind -> texts in it."""
    readers = [ranker for ranker in run.rankers if name in ranker.retrieval]
    wanted = set(config.retrievers).union(*(ranker.contexts for ranker in readers))
    built = {}
    if wanted & {"dense", SIGNALS} or config.uses_vectors:
        built["dense"] = len(build_index(config, folder).passages)
    if wanted & {"lexical", SIGNALS}:
        built["lexical"] = len(build_lexical(config, folder).passages)
    if SIGNALS in wanted:
        built["sentences"] = len(Indexes(config, folder).sentences)
    return built


def searching(retrievals: dict[str, RetrievalConfig]) -> dict[str, RetrievalConfig]:
    """Those of the retrievals that search an index.

    Raises:
        UserError: none does.
    """
    found = {name: each for name, each in retrievals.items() if each.source == "index"}
    if not found:
        name, other = next(iter(retrievals.items()))
        owner = retrieval_owner(name)
        raise UserError(f"{owner}.source is {other.source!r}: no index is used (set {owner}.source=index)")
    return found


# More than seven parameters: each is an option of the command.
@stage
def tune_index(
    configs: str | Path = CONFIGS,
    workdir: str | Path = ".",
    *,
    questions: ExamLike | None = None,
    queries: int = 1000,
    recall: float = 0.98,
    kinds: str | None = None,
    corpus: str | Path | None = None,
    retrieval: str | None = DEFAULT,
    settings: Settings | None = None,
    reading: Reading | None = None,
) -> Rows:
    """Try the kinds of dense index on the corpus's passages, and print what each finds, needs and takes.

    Args:
        questions: the exam whose questions are searched for; None: passages are.
        queries: how many of them.
        recall: what the settings must reach, 0 to 1.
        kinds: only these, separated by commas.
        configs, workdir, corpus, retrieval, settings: see `index`.

    Returns:
        A row for each way to search that was tried: retrieval, settings, recall, milliseconds, bytes_per_passage,
        build_seconds.

    Raises:
        UserError: an unknown kind, or the index cannot be built.
    """
    chosen = searching(chosen_retrievals(read_settings(configs, settings, corpus), retrieval))
    folder = Workdir.open(workdir)
    exam = None if questions is None else read_exam(questions, folder, reading=reading)
    rows = [
        {"retrieval": name, **vars(tried)}
        for name, config in chosen.items()
        for tried in try_kinds(config, folder, exam, queries, recall, kinds)
    ]
    figures = ["recall", "milliseconds", "bytes_per_passage", "build_seconds"]
    return Rows(rows, ["retrieval", "settings", *figures])


@stage
def contexts(
    configs: str | Path = CONFIGS,
    workdir: str | Path = ".",
    *,
    questions: ExamLike | None = None,
    corpus: str | Path | None = None,
    retrieval: str | None = None,
    settings: Settings | None = None,
    reading: Reading | None = None,
) -> Rows:
    """Retrieve the passages that the rankers will read.

    Args:
        questions: the exam; None: questions.csv of the working folder.
        configs, workdir, corpus, retrieval, settings: see `index`.

    Returns:
        A row for each passage: retrieval, id (of the question), place (from 1), passage, title, text, score, retriever.

    Raises:
        UserError: the settings or the exam are wrong, or the index cannot be built.
    """
    run = read_settings(configs, settings, corpus)
    chosen = chosen_retrievals(run, retrieval)
    exam = read_exam(questions, Workdir.at(workdir), reading=reading)
    made = exam_contexts(exam, chosen, Workdir.open(workdir))
    rows = [
        {"retrieval": name, "id": id_, "place": place, "passage": p.id, "title": p.title, "text": p.text}
        | {"score": p.score, "retriever": p.retriever}
        for name, each in made.items()
        for id_, passages in zip(each.ids, each.passages, strict=True)
        for place, p in enumerate(passages, 1)
    ]
    return Rows(rows, ["retrieval", "id", "place", "passage", "title", "text", "score", "retriever"])


def exam_contexts(exam: Questions, chosen: Mapping[str, RetrievalConfig], folder: Workdir) -> dict[str, Contexts]:
    """The contexts of an exam by each retrieval, from the cache or made anew."""
    return {name: build_contexts(exam, config, folder.root) for name, config in chosen.items()}


# More than seven parameters: each is an option of the command.
@stage
def train_reranker(
    configs: str | Path = CONFIGS,
    workdir: str | Path = ".",
    *,
    fold: int | None = None,
    questions: ExamLike | None = None,
    corpus: str | Path | None = None,
    retrieval: str | None = DEFAULT,
    settings: Settings | None = None,
    reading: Reading | None = None,
) -> Gain:
    """Train the reranker of each fold on the other folds' questions; what is finished is not done again.

    Args:
        fold: only that of this fold, from 0; None: all.
        configs, workdir, questions, corpus, retrieval, settings: see `contexts`.

    Returns:
        Its gain: passages (retrieved, reranked, difference), measure, value, low, high (its 95 % interval).

    Raises:
        UserError: the settings have no reranker, or the exam has questions without answers.
    """
    run = read_settings(configs, settings, corpus)
    (run,) = map(run.with_default, chosen_retrievals(run, retrieval))
    exam = read_exam(questions, Workdir.at(workdir), reading=reading)
    folder = Workdir.open(workdir)
    folds = range(run.ensemble.folds) if fold is None else [fold]
    with taken_back_when_refused(folder):
        train_on_folds(run, exam, folder, folds)
    assert run.retrieval.reranker is not None, "train_reranker refuses it"
    name = run.retrieval.reranker.name
    lines = list(summary(folder, folds, name))
    return Gain(gains(folder, folds, name), ["passages", "measure", "value", "low", "high"], lines)


# More than seven parameters: each is an option of the command.
@stage
def tune_embedder(
    questions: str | Path,
    output: str | Path,
    configs: str | Path = CONFIGS,
    workdir: str | Path = ".",
    *,
    exam: str | Path | None = None,
    corpus: str | Path | None = None,
    settings: Settings | None = None,
    **training: Any,
) -> EmbedderGain:
    """Train the embedder on questions made from the corpus; `retrieval.embedder` then names the folder that is written.

    Args:
        questions: with a column `passage`, as `generate` makes them.
        output: the model folder to write.
        exam: the exam, whose questions are refused; None: questions.csv of the working folder, if it is there.
        training: settings of the training: see `config.EmbedderTuning`.
        configs, workdir, corpus, settings: see `index`.

    Returns:
        What was learnt from, and the recall on questions held out, before and after.

    Raises:
        UserError: a setting is wrong, the output cannot be written, or a question is one of the exam's.
    """
    tuning = settings_given(EmbedderTuning, **training)
    config = read_settings(configs, settings, corpus).retrieval
    if config.source != "index":
        raise UserError(f"retrieval.source is {config.source!r}: no embedder searches (set retrieval.source=index)")
    check_output(Path(output))
    folder = Workdir.at(workdir)
    made = read_exam(questions, folder)
    refuse_exam(made, Path(questions), Path(exam or folder.questions), exam is not None)
    return EmbedderGain(tune_on_questions(made, config, Workdir.open(workdir), Path(output), tuning))


def refuse_exam(made: Questions, path: Path, exam: Path, named: bool) -> None:
    """Refuse to learn from an exam's questions: their contexts would be better than those of other questions.

    Args:
        path: of the questions to learn from.
        named: whether the exam must be there.

    Raises:
        UserError: one of them is a question of the exam.
    """
    if (named or exam.is_file()) and (same := repeated_questions(made, read_questions(exam))):
        raise UserError(
            f"{len(same)} questions of {path} (first: id {same[0]}) are questions of {exam}: the embedder would have "
            "seen them, and scores on them would be too high. Remove them (`generate --without` leaves them out)"
        )
