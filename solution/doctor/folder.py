"""The doctor's checks of the working folder: settings, exam, models, indexes, weights, OOF files, ensemble."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from solution import oof
from solution.config import AnswerWith, ContextView, RankerConfig, RetrievalConfig, Run
from solution.device import choose_device
from solution.doctor.differences import settings_difference, with_lora_of_folds
from solution.doctor.examined import Examined
from solution.doctor.report import Finding, guarded
from solution.errors import UserError
from solution.exam import context_key
from solution.files import read_manifest
from solution.folds import already_parted, exam_with_folds_hash, whole_folds_file
from solution.gguf_models import hub_file, is_gguf
from solution.inference.bfloat16 import overflow_warning
from solution.inference.trained import training_command
from solution.kaggle.base_models import hub_folder
from solution.models import fetch_command, layers_without_masks, locate_model, ready_model
from solution.oof import load_oof, part_hash
from solution.questions import Questions
from solution.rankers.trained_head import check_head
from solution.retrieval.contexts.build import contexts_key
from solution.retrieval.corpus import look_at_corpus
from solution.retrieval.places import locate_all
from solution.retrieval.prefixes import Prefixes, unset_prefixes
from solution.shipped_configs import has_configs
from solution.suggestions import suggest
from solution.weights import (
    FoldRecord,
    check_folder,
    deployed_folders,
    differing_folds,
    differing_inputs,
    read_record,
    record_path,
    trained_folders,
)
from solution.workdir import Workdir


def settings(examined: Examined) -> Iterator[Finding]:
    if not has_configs(examined.configs) and examined.workdir.ensemble.exists():
        yield Finding(
            "settings",
            str(examined.configs),
            "warning",
            "is not there; it is needed to train, not to submit",
            "--configs",
        )
        return
    run = examined.run.get()
    names = ", ".join(ranker.name for ranker in run.rankers)
    if not has_configs(examined.configs):
        found = f"is not there: the shipped settings `full` are used ({names})"
        yield Finding("settings", str(examined.configs), "warning", found, "--configs demo for small models on a CPU")
        return
    yield Finding(
        "settings", str(examined.configs), "ok", f"{len(run.rankers)} rankers ({names}), {run.ensemble.folds} folds"
    )


def exam(examined: Examined) -> Iterator[Finding]:
    yield from _exam_to_train_on(examined)
    yield from _questions_to_answer(examined)


def _exam_to_train_on(examined: Examined) -> Iterator[Finding]:
    path, folds = examined.workdir.questions, examined.workdir.folds
    if path.exists():
        exam = examined.exam.get()
        lacking = int((exam.answers < 0).sum())
        yield Finding(
            "exam",
            str(path),
            "error" if lacking else "ok",
            f"{len(exam)} questions, {lacking or 'none'} without an answer",
            "Fill the column 'answer', or leave those rows out." if lacking else "",
        )
        if folds.exists():
            yield from guarded("exam", str(folds), functools.partial(_folds_file, exam, folds))
    else:
        done = examined.workdir.ensemble.exists()
        yield Finding(
            "exam",
            str(path),
            "ok" if done else "warning",
            "is not there; it is needed to train, not to submit",
            "" if done else "To train, put it there, or name another: --questions",
        )


def _folds_file(exam: Questions, path: Path) -> Iterator[Finding]:
    whole_folds_file(path)
    known = already_parted(exam, path)
    new = len(exam) - known
    yield Finding(
        "exam",
        str(path),
        "warning" if new else "ok",
        f"parts {known} of the {len(exam)} questions",
        f"{new} are new or have changed: training adds them, and trains again" if new else "",
    )


def _questions_to_answer(examined: Examined) -> Iterator[Finding]:
    path = examined.test_path
    if examined.questions is not None or path.exists():
        questions, wrong = examined.test.get()
        yield Finding(
            "exam",
            str(path),
            "warning" if wrong else "ok",
            f"{len(questions)} questions to answer",
            f"Rows are wrong, and are ranked all the same: {'; '.join(wrong[:3])}" if wrong else "",
        )
    else:
        yield Finding("exam", str(path), "warning", "is not there", "submit.py needs it, or --questions FILE")


def models(examined: Examined) -> Iterator[Finding]:
    wanted: dict[tuple[str, str | None], dict[str, None]] = {}
    for config, retrieval in examined.pairs:
        if config.has_model:
            wanted.setdefault((config.model, config.revision), {})[config.name] = None
        if retrieval is not None and retrieval.embedder.strip() and retrieval.source != "none":
            wanted.setdefault((retrieval.embedder, None), {})["retrieval"] = None
            if retrieval.reranker is not None:
                wanted.setdefault((retrieval.reranker.model, retrieval.reranker.revision), {})["reranker"] = None
    cache = examined.workdir.cache
    for (spec, revision), users in wanted.items():
        rankers = [config for config, _ in examined.pairs if (config.model, config.revision) == (spec, revision)]
        yield from guarded("models", spec, functools.partial(_model, spec, revision, ", ".join(users), cache, rankers))
    for config in {config.name: config for config, _ in examined.pairs if config.family == "causal"}.values():
        yield from guarded("models", config.model, functools.partial(_layers, config, cache))
    yield from _number_formats(examined)
    yield from _unset_prefixes(examined)


def _layers(config: RankerConfig, cache: Path) -> Iterator[Finding]:
    """Tell that a decoder's options cannot share one prefix, where its settings are on this machine."""
    place = locate_model(config.model, config.revision)
    if isinstance(place, Path):
        place = ready_model(config.model, cache, config.revision) or ""  # "": a GGUF that is not converted yet
    else:
        place = hub_folder(config.model, config.revision) or ""
    kinds = layers_without_masks(str(place)) if place else []
    if kinds:
        found = f"has layers that are not attention ({', '.join(kinds)}): {config.name} reads each option by itself"
        advice = "About the number of options times the time of a decoder of attention layers only."
        if config.stream:
            advice = f"stream works with attention layers only: {config.name}.stream=false"
        yield Finding("models", config.model, "error" if config.stream else "warning", found, advice)


def _number_formats(examined: Examined) -> Iterator[Finding]:
    """Rankers that may overflow in float16: a warning where this machine computes in it, else a line to know."""
    device = choose_device()
    here = device.kind == "cuda" and device.may_overflow
    where = {"where": "this GPU, which has no bfloat16,"} if here else {}
    for name, (config, _) in examined.by_name.items():
        if text := overflow_warning(config, trained_folders(examined.workdir, name), **where):
            yield Finding("models", name, "warning" if here else "ok", text)


def _unset_prefixes(examined: Examined) -> Iterator[Finding]:
    """Name the settings of prefixes that an embedder needs and does not have."""
    retrievals = [each for _, each in examined.pairs if each is not None and each.source != "none"]
    unset = {(each.embedder, unset_prefixes(each.embedder, Prefixes.of(each))) for each in retrievals}
    for spec, missing in sorted(unset):
        if missing:
            found = "its authors put a prefix in front of its texts, and the settings name none"
            yield Finding("models", spec, "warning", found, missing)


def _model(
    spec: str, revision: str | None, users: str, cache: Path, rankers: Sequence[RankerConfig]
) -> Iterator[Finding]:
    found = locate_model(spec, revision)
    if isinstance(found, Path):
        later = ""
        if is_gguf(found) and ready_model(spec, cache, revision) is None:
            later = f": it is converted into {cache / 'models'} when it is first used"
        yield Finding("models", spec, "ok", f"on this machine, for {users}{later}")
    elif hub_file(spec) is None and hub_folder(spec, revision) is not None:
        yield Finding("models", spec, "ok", f"in the hub's cache, for {users}")
    else:
        yield Finding(
            "models",
            spec,
            "warning",
            f"not in the hub's cache, for {users}: it is fetched when it is first used",
            fetch_command(spec, revision),
        )
    for config in rankers:
        check_head(config)


def indexes(examined: Examined) -> Iterator[Finding]:
    root = examined.workdir.root
    seen: set[Path] = set()
    for config, retrieval in examined.pairs:
        if retrieval is None or retrieval.source != "index":
            continue
        embedder = examined.embedder(retrieval)
        for view in config.contexts:
            for place in locate_all(retrieval, view, root, embedder):
                if place.folder not in seen:
                    seen.add(place.folder)
                    check = functools.partial(_index, place.folder, place.kind.name, retrieval)
                    yield from guarded("index", place.folder.name, check)


def _index(folder: Path, kind: str, retrieval: RetrievalConfig) -> Iterator[Finding]:
    if folder.is_dir():
        manifest = read_manifest(folder, kind, f"Delete {folder} and run `{suggest('index')}`.")
        files = ", ".join(manifest["files"])
        found = f"{kind} of {manifest['passages']} passages, hashes checked: {files}"
        yield Finding("index", folder.name, "ok", found)
        return
    look_at_corpus(retrieval.corpus, retrieval.encoding)
    yield Finding(
        "index", folder.name, "warning", f"the {kind} of {retrieval.corpus} is not built yet", suggest("index")
    )


def weights(examined: Examined) -> Iterator[Finding]:
    for name in examined.by_name:
        yield from guarded(
            "weights and OOF", name, functools.partial(_ranker, examined.workdir, examined.run.value, name)
        )


def _ranker(workdir: Workdir, run: Run | None, name: str) -> Iterator[Finding]:
    """Weights and OOF files of one ranker: all there, whole, made together, and with the settings of today."""
    again = training_command(workdir, name)
    config = next((ranker for ranker in run.rankers if ranker.name == name), None) if run is not None else None
    if run is not None and config is not None:
        wanted = list(range(run.ensemble.folds))
    else:
        wanted = [int(path.name.removeprefix("fold_")) for path in sorted((workdir.weights / name).glob("fold_*"))]
    trained = [fold for fold in wanted if workdir.fold_weights(name, fold).is_dir()]
    others: tuple[AnswerWith, ...] = ("full", "average")
    for kind in others:
        yield from _other_weights(workdir, run, config, name, kind)
    if not trained:
        if not any(deployed_folders(workdir, name, kind) for kind in others):  # else this is a place to submit from
            yield Finding("weights and OOF", name, "warning", "not trained yet", again)
        return
    files: dict[str, None] = {}
    folds_by_difference: dict[str, list[int]] = {}
    for fold in trained:
        folder, remedy = workdir.fold_weights(name, fold), f"Train it again: {again}"
        files |= dict.fromkeys(check_folder(folder, remedy))
        record = read_record(folder, remedy)
        if run is not None and config is not None and (difference := settings_difference(record, config, run)):
            folds_by_difference.setdefault(difference, []).append(fold)
        yield from _oof_part(workdir, name, fold, record, again)
    for difference, folds in folds_by_difference.items():
        found = f"fold {', '.join(map(str, folds))}: trained with other settings than those of now: {difference}"
        yield Finding("weights and OOF", name, "warning", found, f"To train again: {again}")
    complete = len(trained) == len(wanted)
    yield Finding(
        "weights and OOF",
        name,
        "ok" if complete else "warning",
        f"{len(trained)} of {len(wanted)} folds trained, hashes checked: {', '.join(files)} in each fold_* of "
        f"{workdir.weights / name}",
        "" if complete else again,
    )


def _other_weights(
    workdir: Workdir, run: Run | None, config: RankerConfig | None, name: str, kind: AnswerWith
) -> Iterator[Finding]:
    """Check a ranker's weights that are not of a fold: whole, and with the settings of today.

    Args:
        kind: those of the training on all questions, or the mean of the folds.
    """
    folders = deployed_folders(workdir, name, kind)
    again = training_command(workdir, name, kind)
    if len(folders) > 1:
        again += f" --seeds {len(folders)}"
    answers = config is not None and config.answers_with == kind
    if not folders:
        if answers:
            found = f"answer_with is {kind}, and there are no such weights"
            yield Finding("weights and OOF", name, "warning", found, again)
        return
    differences = []
    for folder in folders:
        remedy = f"Train it again: {again}"
        check_folder(folder, remedy)
        record = read_record(folder, remedy)
        if run is not None and config is not None:
            compared = with_lora_of_folds(record, workdir, config) if kind == "average" else record
            difference = settings_difference(compared, config, run)
            differences.append(difference and f"settings than those of now: {difference}")
        differences.append(unlike_folds(workdir, name, record))
    found = f"trained on all questions from {len(folders)} seeds" if kind == "full" else "the mean of its folds"
    found += ", hashes checked"
    if any(differences):
        found += f"; made with other {next(filter(None, differences))}"
    elif config is not None and not answers:
        found += f"; not used (answer_with: {config.answers_with})"
    yield Finding("weights and OOF", name, "warning" if any(differences) else "ok", found, again * any(differences))


def unlike_folds(workdir: Workdir, name: str, record: FoldRecord) -> str:
    """The inputs that weights were made from otherwise than the first fold or OOF file that differs; "" where none
    does.

    The weights of every fold that is here are compared, and the OOF files, which need not have weights beside them.
    """
    for fold, inputs in differing_folds(workdir, name, record).items():
        return f"{', '.join(inputs)} than fold {fold} was"
    for path in sorted(workdir.oof_part(name, 0).parent.glob("fold_*.parquet")):
        if inputs := differing_inputs(record, oof.read_about(path)):
            return f"{', '.join(inputs)} than {path.name} was"
    return ""


def _oof_part(workdir: Workdir, name: str, fold: int, record: FoldRecord, again: str) -> Iterator[Finding]:
    """Check that a trained fold has its OOF file, made of the same questions, contexts and settings."""
    path = workdir.oof_part(name, fold)
    if not path.is_file():
        if workdir.oof.is_dir():  # without any it is a place to submit from
            yield Finding("weights and OOF", name, "warning", f"fold {fold} has weights and no OOF file", again)
        return
    about = oof.read_oof(path).about
    compared = ("questions", "contexts", "config", oof.SOURCES)
    other = [key for key in compared if about.get(key) != record["about"].get(key)]
    if other:
        found = f"fold {fold}: weights and OOF file were made with other {', '.join(other)}"
        yield Finding("weights and OOF", name, "error", found, again)


def oof_files(examined: Examined) -> Iterator[Finding]:
    import numpy as np

    workdir, exam = examined.workdir, examined.exam.value
    if not any(workdir.oof.glob("*/fold_*.parquet")):
        return  # each ranker's own check tells this
    table = load_oof(workdir)
    yield Finding(
        "weights and OOF", "all OOF files", "ok", f"{', '.join(table.probabilities)}: of the same questions and folds"
    )
    for reader, name in oof.changed_sources(table.about, table):
        found = f"learnt from the scores of {name}, and these have changed since: tune refuses it"
        again = suggest("train_fold", "--all-folds", "--ranker", reader)
        yield Finding("weights and OOF", reader, "error", found, again)
    if exam is None or not workdir.folds.exists():
        return
    try:
        fold_of = whole_folds_file(workdir.folds)["fold"]
    except UserError:
        return  # the exam's check tells it
    trained_on = next(iter(table.about.values()))["questions"]
    if all(id_ in fold_of for id_ in exam.ids):
        folds = np.array([fold_of[id_] for id_ in exam.ids], dtype=np.int64)
        if exam_with_folds_hash(exam, folds) == trained_on:
            yield Finding(
                "weights and OOF", "questions", "ok", "the OOF files are of questions.csv and its folds as they are"
            )
            return
    yield Finding(
        "weights and OOF",
        "questions",
        "warning",
        "the OOF files are of other questions or folds than questions.csv and oof/folds.json hold now",
        suggest("train_fold", "--all-folds"),
    )


def contexts(examined: Examined) -> Iterator[Finding]:
    """Compare the contexts that the rankers would read with today's index and settings with those of their training."""
    exam, workdir = examined.exam.value, examined.workdir
    keys: dict[tuple[str, ContextView], str] = {}
    for name, (config, retrievals) in examined.by_name.items():
        folder = workdir.fold_weights(name, 0)
        searches = retrievals and all(retrieval.source == "index" for retrieval in retrievals.values())
        if exam is None or not searches or not record_path(folder).is_file():
            continue
        own = [(retrieval, view) for retrieval in retrievals.values() for view in config.contexts]
        for retrieval, view in own:
            if (retrieval.hash(), view) not in keys:
                embedder = examined.embedder(retrieval)
                keys[retrieval.hash(), view] = contexts_key(exam, retrieval, view, workdir.root, embedder)
        now = context_key([keys[retrieval.hash(), view] for retrieval, view in own])
        trained = read_record(folder, "")["about"]["contexts"]
        same = now == trained
        yield Finding(
            "contexts",
            name,
            "ok" if same else "warning",
            "of questions.csv they are those it was trained with"
            if same
            else f"were {trained} in training and are {now} now: another index, exam or retrieval setting",
            "" if same else f"Set it back, or train again: {training_command(workdir, name)}",
        )


def ensemble_file(examined: Examined) -> Iterator[Finding]:
    workdir = examined.workdir
    if not workdir.ensemble.exists():
        yield Finding(
            "ensemble", str(workdir.ensemble), "warning", "not tuned yet: submit.py would stop", suggest("tune")
        )
        return
    ensemble = examined.ensemble.get()
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in ensemble["weights"].items() if weight > 0)
    estimate = ensemble["estimate"]
    interval = f"[{estimate['low']:.3f}, {estimate['high']:.3f}]"
    found = f"{ensemble['choice']}: {weights}; MAP@3 {estimate['map3']:.3f} {interval}"
    yield Finding("ensemble", str(workdir.ensemble), "ok", found)
    files = {name: workdir.oof / name for name in ensemble["oof_files"]}
    changed = [n for n, path in files.items() if path.is_file() and part_hash(path) != ensemble["oof_files"][n]]
    if changed:
        yield Finding("ensemble", "OOF files", "warning", f"{changed[0]} has changed since tuning", suggest("tune"))
    elif not all(path.is_file() for path in files.values()):
        yield Finding("ensemble", "OOF files", "ok", "not all here; they are needed to tune, not to submit")
    examined.trained.get()  # raises what submit.py would refuse
