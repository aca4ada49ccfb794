"""Answer an exam with the trained ensemble: one base model in memory at a time, every fold's adapter on it in turn."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import Overrides, RankerConfig, RetrievalConfig, check_settings, parse_overrides
from solution.errors import UserError
from solution.files import atomic_file, read_json, read_manifest
from solution.folds import already_parted
from solution.metrics import bootstrap_interval, credit_at_k
from solution.progress import say
from solution.questions import LETTERS, Questions, file_format, kaggle_prediction, ranked_options, write_csv
from solution.suggestions import suggest
from solution.workdir import Workdir


class TrainedRanker:
    """One ranker of the ensemble as it lies on disk: its settings and the folders of its folds."""

    def __init__(self, workdir: Workdir, name: str, about: dict[str, Any], overrides: Overrides):
        self.name = name
        remedy = f"Train it again: {suggest('train_fold', '--all-folds', '--ranker', name)}"
        folds = int(about["folds"])
        self.folders = [workdir.fold_weights(name, fold) for fold in range(folds)]
        stored = []
        for folder in self.folders:
            from solution.training.run import KIND

            read_manifest(folder, KIND, remedy)
            facts = read_json(folder / "ranker.json", "the file of the ranker's settings", remedy)
            if facts["about"]["config"] != about["config"] or facts["about"]["contexts"] != about["contexts"]:
                raise UserError(
                    f"the weights in {folder} (settings {facts['about']['config']}, contexts "
                    f"{facts['about']['contexts']}) are not those that the ensemble was tuned with (settings "
                    f"{about['config']}, contexts {about['contexts']}). Run again, with the --configs of its rankers: "
                    f"{suggest('tune')}"
                )
            stored.append(facts)
        values, retrieval = stored[0]["config"], stored[0]["retrieval"]
        source = self.folders[0] / "ranker.json"

        def typed(owner: str) -> Overrides:
            return [(path[1:], value) for path, value in overrides if path[0] == owner and len(path) > 1]

        self.config: RankerConfig = check_settings(RankerConfig, values, source, name, typed(name))
        self.retrieval: RetrievalConfig | None = None
        if retrieval is not None:
            self.retrieval = check_settings(RetrievalConfig, retrieval, source, "retrieval", typed("retrieval"))


def read_ensemble(
    workdir: Workdir, overrides: Sequence[str], added: Collection[str] = ()
) -> tuple[dict[str, Any], list[TrainedRanker]]:
    """The ensemble file and its rankers of positive weight, everything checked before a model loads.

    Args:
        added: imported rankers whose answers are given.

    Raises:
        UserError: no ensemble, missing or changed weights, an override of a ranker that is not there, an imported
            ranker whose answers are not given.
    """
    from solution.ensemble.imported import FAMILY
    from solution.ensemble.tune import load_ensemble

    ensemble = load_ensemble(workdir)
    changes = parse_overrides(overrides)
    used = [name for name in ensemble["rankers"] if ensemble["weights"][name] > 0]
    unknown = [".".join(path) for path, _ in changes if path[0] not in (*used, "retrieval") or len(path) < 2]
    if unknown:
        raise UserError(
            f"unknown setting {unknown[0]}; here a setting begins with retrieval. or a ranker's name "
            f"({', '.join(used)}), as in {used[0]}.predict_tokens_per_batch=8192"
        )
    imported = [name for name in used if ensemble["about"][name].get("family") == FAMILY]
    lacking = [name for name in imported if name not in added]
    if lacking:
        raise UserError(
            f"the ranker {lacking[0]} was imported, and nothing here can answer for it: give its probabilities for "
            f"these questions with --add {lacking[0]}=FILE, or tune without it (remove {workdir.oof / lacking[0]})"
        )
    strange = sorted(set(added) - set(imported))
    if strange:
        there = ", ".join(imported) or "none"
        raise UserError(f"--add {strange[0]}: the ensemble uses no imported ranker of that name (it uses: {there})")
    trained = [name for name in used if name not in imported]
    return ensemble, [TrainedRanker(workdir, name, ensemble["about"][name], changes) for name in trained]


def run_submission(
    workdir: Workdir,
    questions: Questions,
    output: Path,
    ranked: Path | None = None,
    probabilities: Path | None = None,
    overrides: Sequence[str] = (),
    added: Mapping[str, Path] | None = None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Answer `questions` and write the files asked for.

    Args:
        added: imported ranker -> the file of its answers to these questions, see `imported.read_answers`.

    Returns:
        The blended probabilities, float32 [n, max_options], and those of each ranker used.

    Raises:
        UserError: the ensemble, its weights, the index or an output path is not usable.
    """
    for path in (output, ranked, probabilities):
        if path is not None and path.is_dir():
            raise UserError(f"the output {path} is a folder; give a file")
    if probabilities is not None and file_format(probabilities) not in (".csv", ".parquet"):
        raise UserError(f"--probabilities {probabilities}: use .csv or .parquet")
    outputs = [path.resolve() for path in (output, ranked, probabilities) if path is not None]
    if len(set(outputs)) < len(outputs):
        raise UserError("two of --output, --ranked and --probabilities are the same file; give each its own")
    from solution.ensemble.imported import read_answers

    ensemble, rankers = read_ensemble(workdir, overrides, added or {})
    answers = {name: read_answers(path, questions) for name, path in (added or {}).items()}
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)  # what cannot be written is told now, not after hours
    trained_on = already_parted(questions, workdir.folds)
    if trained_on:
        say(
            f"note: the rankers were trained on {trained_on} of these {len(questions)} questions ({workdir.folds}): "
            "a score on them is too high; the table of `tune` has the honest one"
        )
    from solution.ensemble.blend import apply_recipe
    from solution.ensemble.tune import read_recipe

    exists = questions.exists()
    recipe = read_recipe(ensemble)
    exams = ranker_exams(rankers, questions, workdir)
    if answers:
        blended = apply_recipe(recipe, answers, exists)
        write_submission(output, questions, blended)
    for ranker in rankers:
        answers[ranker.name] = predict_folds(ranker, exams[ranker.name], workdir)
        # A complete file exists from the first ranker on; each further one makes it better.
        blended = apply_recipe(recipe, answers, exists)
        write_submission(output, questions, blended)
    if ranked is not None:
        write_ranked(ranked, questions, blended)
    if probabilities is not None:
        write_probabilities(probabilities, questions, blended)
    say(f"{output}: {len(questions)} questions answered by {', '.join(answers)}")
    if (questions.answers >= 0).all():
        credits = credit_at_k(blended, questions.answers)
        low, high = bootstrap_interval(credits)
        say(f"the question file has the answers: MAP@3 {credits.mean():.4f} [{low:.3f}, {high:.3f}]")
    return blended, answers


def ranker_exams(rankers: Sequence[TrainedRanker], questions: Questions, workdir: Workdir) -> dict[str, list[Any]]:
    """For each ranker the exams (`rankers.base.Exam`, answers hidden) that it reads, one for each of its contexts.

    Raises:
        UserError: an index cannot be made or opened.
    """
    from solution.rankers.base import Exam
    from solution.retrieval.contexts import build_views

    views: dict[str, list[Any]] = {}
    settings = {ranker.retrieval.hash(): ranker.retrieval for ranker in rankers if ranker.retrieval is not None}
    for ranker in rankers:
        if ranker.retrieval is not None:
            views.setdefault(ranker.retrieval.hash(), []).extend(ranker.config.contexts)
    made = {key: build_views(questions, settings[key], names, workdir.root) for key, names in views.items()}
    return {
        ranker.name: [
            exam.hidden()
            for exam in Exam.views(
                ranker.config, questions, None if ranker.retrieval is None else made[ranker.retrieval.hash()]
            )
        ]
        for ranker in rankers
    }


def predict_folds(ranker: TrainedRanker, exams: Sequence[Any], workdir: Workdir) -> np.ndarray:
    """The mean of what a ranker's folds say, float32 [n, max_options]; the base model is loaded once and freed.

    Args:
        exams: the questions with each of the ranker's contexts, see `ranker_exams`.
    """
    from solution.device import free_memory
    from solution.rankers.base import predict_contexts
    from solution.rankers.families import make_ranker

    model = make_ranker(ranker.config, workdir.cache)
    folders = ranker.folders if ranker.config.folds_differ else ranker.folders[:1]
    total = np.zeros(exams[0].questions.exists().shape, dtype=np.float64)
    for folder in folders:
        model.load(folder)
        total += predict_contexts(model, exams)
    del model
    free_memory()
    return (total / len(folders)).astype(np.float32)


def write_submission(path: Path, questions: Questions, probabilities: np.ndarray) -> None:
    """Kaggle's file: `id,prediction` with the three most probable letters, `B A D`."""
    ranked = ranked_options(probabilities, questions.exists())
    write_csv(path, ["id", "prediction"], zip(questions.ids, map(kaggle_prediction, ranked), strict=True))


def write_ranked(path: Path, questions: Questions, probabilities: np.ndarray) -> None:
    """JSON lines `{"id": ..., "ranked": ["B", "A", "D", "C"]}`: every option, most probable first."""
    ranked = ranked_options(probabilities, questions.exists())
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for id_, letters in zip(questions.ids, ranked, strict=True):
            stream.write(json.dumps({"id": id_, "ranked": letters}, ensure_ascii=False) + "\n")


def write_probabilities(path: Path, questions: Questions, probabilities: np.ndarray) -> None:
    """`id,p_A,p_B,...` as CSV or parquet; empty where an option does not exist."""
    width = probabilities.shape[1]
    names = ["id", *(f"p_{letter}" for letter in LETTERS[:width])]
    exists = questions.exists(width)
    if file_format(path) == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = np.where(exists, probabilities, np.nan).astype(np.float32)
        columns = [pa.array(questions.ids, pa.string()), *(pa.array(column, from_pandas=True) for column in table.T)]
        with atomic_file(path) as temporary:
            pq.write_table(pa.table(columns, names=names), temporary)
        return
    rows = (
        [id_, *(f"{value:.6f}" if there else "" for value, there in zip(row, mask, strict=True))]
        for id_, row, mask in zip(questions.ids, probabilities, exists, strict=True)
    )
    write_csv(path, names, rows)
