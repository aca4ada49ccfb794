"""The doctor on the working folder: whether settings, exam, models, indexes, weights and OOF files fit together."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solution import oof
from solution.config import ContextView, RankerConfig, RetrievalConfig, Run, needs_contexts
from solution.config_files import load_run
from solution.doctor.examined import Examined, trained_rankers
from solution.doctor.report import Finding, guarded
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.exam import context_key
from solution.files import read_json, read_manifest
from solution.folds import already_parted, exam_with_folds_hash
from solution.kaggle.base_models import hub_folder
from solution.models import locate_model
from solution.oof import load_oof, part_hash
from solution.questions import read_questions
from solution.retrieval import index, lexical
from solution.retrieval.contexts.build import contexts_key
from solution.retrieval.corpus import look_at_corpus
from solution.suggestions import suggest
from solution.weights import FoldRecord, check_folder, read_record, record_path
from solution.workdir import Workdir


def settings(examined: Examined) -> Iterator[Finding]:
    if not examined.configs.is_dir() and examined.workdir.ensemble.exists():
        yield Finding(
            "settings",
            str(examined.configs),
            "warning",
            "is not there; it is needed to train, not to submit",
            "--configs",
        )
        return
    run = load_run(examined.configs, examined.overrides, corpus=examined.corpus)
    names = ", ".join(ranker.name for ranker in run.rankers)
    yield Finding(
        "settings", str(examined.configs), "ok", f"{len(run.rankers)} rankers ({names}), {run.ensemble.folds} folds"
    )


def exam(examined: Examined) -> Iterator[Finding]:
    path, folds = examined.workdir.root / "questions.csv", examined.workdir.folds
    if path.exists():
        exam = read_questions(path)
        lacking = int((exam.answers < 0).sum())
        yield Finding(
            "exam",
            str(path),
            "error" if lacking else "ok",
            f"{len(exam)} questions, {lacking or 'none'} without an answer",
            "Fill the column 'answer', or leave those rows out." if lacking else "",
        )
        if folds.exists():
            known = already_parted(exam, folds)
            new = len(exam) - known
            yield Finding(
                "exam",
                str(folds),
                "warning" if new else "ok",
                f"parts {known} of the {len(exam)} questions",
                f"{new} are new or have changed: training adds them, and trains again" if new else "",
            )
    else:
        done = examined.workdir.ensemble.exists()
        yield Finding(
            "exam",
            str(path),
            "ok" if done else "warning",
            "is not there; it is needed to train, not to submit",
            "" if done else "To train, put it there, or name another: --questions",
        )
    if examined.questions is not None or examined.test.exists():
        wrong: list[str] = []
        questions = read_questions(examined.test, wrong)
        yield Finding(
            "exam",
            str(examined.test),
            "warning" if wrong else "ok",
            f"{len(questions)} questions to answer",
            f"Rows are wrong, and are ranked all the same: {'; '.join(wrong[:3])}" if wrong else "",
        )
    else:
        yield Finding("exam", str(examined.test), "warning", "is not there", "submit.py needs it, or --questions FILE")


def models(examined: Examined) -> Iterator[Finding]:
    wanted: dict[tuple[str, str | None], dict[str, None]] = {}
    for config, retrieval in examined.pairs:
        if config.has_model:
            wanted.setdefault((config.model, config.revision), {})[config.name] = None
        if retrieval is not None and retrieval.embedder.strip() and retrieval.source != "none":
            wanted.setdefault((retrieval.embedder, None), {})["retrieval"] = None
            if retrieval.reranker is not None:
                wanted.setdefault((retrieval.reranker.model, retrieval.reranker.revision), {})["reranker"] = None
    for (spec, revision), users in wanted.items():
        yield from guarded("models", spec, functools.partial(_model, spec, revision, ", ".join(users)))


def _model(spec: str, revision: str | None, users: str) -> Iterator[Finding]:
    found = locate_model(spec, revision)
    if isinstance(found, Path):
        yield Finding("models", spec, "ok", f"on this machine, for {users}")
    elif hub_folder(spec, revision) is not None:
        yield Finding("models", spec, "ok", f"in the hub's cache, for {users}")
    else:
        yield Finding(
            "models",
            spec,
            "warning",
            f"not in the hub's cache, for {users}: it is fetched when it is first used",
            f"hf download {spec}" + (f" --revision {revision}" if revision else ""),
        )


def indexes(examined: Examined) -> Iterator[Finding]:
    root = examined.workdir.root
    seen: set[Path] = set()
    for config, retrieval in examined.pairs:
        if retrieval is None or retrieval.source != "index":
            continue
        embedder = examined.embedder(retrieval.embedder)
        for view in config.contexts:
            own = retrieval.view(view)
            places = []
            if own.uses_vectors:
                places.append((index.locate_index(own, root, embedder).folder, index.KIND))
            if "lexical" in own.retrievers:
                places.append((lexical.locate_lexical(own, root, embedder).folder, lexical.KIND))
            for folder, kind in places:
                if folder not in seen:
                    seen.add(folder)
                    yield from guarded("index", folder.name, functools.partial(_index, folder, kind, retrieval))


def _index(folder: Path, kind: str, retrieval: RetrievalConfig) -> Iterator[Finding]:
    if folder.is_dir():
        manifest = read_manifest(folder, kind, f"Delete {folder} and run `{suggest('index')}`.")
        files = ", ".join(manifest["files"])
        found = f"{kind} of {manifest['passages']} passages, hashes checked: {files}"
        yield Finding("index", folder.name, "ok", found)
        return
    look_at_corpus(retrieval.corpus)
    yield Finding(
        "index", folder.name, "warning", f"the {kind} of {retrieval.corpus} is not built yet", suggest("index")
    )


def weights(examined: Examined) -> Iterator[Finding]:
    for name in examined.by_name:
        yield from guarded("weights and OOF", name, functools.partial(_ranker, examined.workdir, examined.run, name))


def _ranker(workdir: Workdir, run: Run | None, name: str) -> Iterator[Finding]:
    """Weights and OOF files of one ranker: all there, whole, made together, and with the settings of today."""
    again = suggest("train_fold", "--all-folds", "--ranker", name)
    config = next((each for each in run.rankers if each.name == name), None) if run is not None else None
    now: dict[str, Any] = {}
    if run is not None and config is not None:
        places = list(range(run.ensemble.folds))
        now = config.model_dump(mode="json")
        if needs_contexts(config, run.retrieval):
            now["retrieval"] = run.retrieval.model_dump(mode="json")
    else:
        places = [int(path.name.removeprefix("fold_")) for path in sorted((workdir.weights / name).glob("fold_*"))]
    there = [fold for fold in places if workdir.fold_weights(name, fold).is_dir()]
    others: dict[str, list[int]] = {}  # what is set otherwise now -> the folds
    if not there:
        yield Finding("weights and OOF", name, "warning", "not trained yet", again)
        return
    kept = ("questions", "contexts", "config")
    files: dict[str, None] = {}
    for fold in there:
        folder = workdir.fold_weights(name, fold)
        files |= dict.fromkeys(check_folder(folder, f"Train it again: {again}"))
        stored = read_record(folder, f"Train it again: {again}")
        if now and now != _settings_of(stored):
            changed = _changed(_settings_of(stored), now)
            others.setdefault(", ".join(changed[:3]) + (" ..." if len(changed) > 3 else ""), []).append(fold)
        elif config is not None and stored["about"]["config"] != config.hash():
            others.setdefault("this version of the program has more of them", []).append(fold)
        part = workdir.oof_part(name, fold)
        if not part.is_file():
            if workdir.oof.is_dir():  # without any it is a place to submit from
                yield Finding("weights and OOF", name, "warning", f"fold {fold} has weights and no OOF file", again)
            continue
        told = oof.read_oof(part).about
        other = [key for key in kept if told[key] != stored["about"][key]]
        if other:
            found = f"fold {fold}: weights and OOF file were made with other {', '.join(other)}"
            yield Finding("weights and OOF", name, "error", found, again)
    for settings, folds in others.items():
        found = f"fold {', '.join(map(str, folds))}: trained with other settings than those of now: {settings}"
        yield Finding("weights and OOF", name, "warning", found, f"To train again: {again}")
    lacking = [fold for fold in places if fold not in there]
    yield Finding(
        "weights and OOF",
        name,
        "warning" if lacking else "ok",
        f"{len(there)} of {len(places)} folds trained, hashes checked: {', '.join(files)} in each fold_* of "
        f"{workdir.weights / name}",
        again if lacking else "",
    )


def _settings_of(stored: FoldRecord) -> dict[str, Any]:
    """A fold's settings; one that its version of this program did not know is what it is by default."""
    made = RankerConfig.model_validate(stored["config"]).model_dump(mode="json")
    if stored["retrieval"] is not None:
        made["retrieval"] = RetrievalConfig.model_validate(stored["retrieval"]).model_dump(mode="json")
    return made


def _changed(before: Any, now: Any, prefix: str = "") -> list[str]:
    """The dotted names of settings that differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [prefix.removesuffix(".")]
    names = sorted({*before, *now})
    return [each for name in names for each in _changed(before.get(name), now.get(name), f"{prefix}{name}.")]


def oof_files(examined: Examined) -> Iterator[Finding]:
    import numpy as np

    workdir, exam = examined.workdir, examined.exam
    if not any(workdir.oof.glob("*/fold_*.parquet")):
        return  # told with each ranker
    table = load_oof(workdir)
    yield Finding(
        "weights and OOF", "all OOF files", "ok", f"{', '.join(table.probabilities)}: of the same questions and folds"
    )
    if exam is None or not workdir.folds.exists():
        return
    stored = read_json(workdir.folds, "the folds file", "")
    fold_of = stored.get("fold") if isinstance(stored, dict) else None
    if not isinstance(fold_of, dict):
        raise UserError(f"the folds file is corrupt: {workdir.folds}. Delete it (and the OOF files beside it).")
    made_of = next(iter(table.about.values()))["questions"]
    if all(id_ in fold_of for id_ in exam.ids):
        folds = np.array([fold_of[id_] for id_ in exam.ids], dtype=np.int64)
        if exam_with_folds_hash(exam, folds) == made_of:
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
    """Whether the rankers would read from today's index and settings what they were trained with."""
    exam, workdir = examined.exam, examined.workdir
    keys: dict[tuple[str, ContextView], str] = {}
    for name, (config, retrieval) in examined.by_name.items():
        folder = workdir.fold_weights(name, 0)
        if exam is None or retrieval is None or retrieval.source != "index" or not record_path(folder).is_file():
            continue
        for view in config.contexts:
            if (retrieval.hash(), view) not in keys:
                embedder = examined.embedder(retrieval.embedder)
                keys[retrieval.hash(), view] = contexts_key(exam, retrieval.view(view), workdir.root, embedder)
        own = [keys[retrieval.hash(), view] for view in config.contexts]
        now = context_key(own)
        trained = read_record(folder, "")["about"]["contexts"]
        same = now == trained
        yield Finding(
            "contexts",
            name,
            "ok" if same else "warning",
            "of questions.csv they are those it was trained with"
            if same
            else f"were {trained} in training and are {now} now: another index, exam or retrieval setting",
            "" if same else f"Set it back, or train again: {suggest('train_fold', '--all-folds', '--ranker', name)}",
        )


def ensemble_file(examined: Examined) -> Iterator[Finding]:
    workdir = examined.workdir
    if not workdir.ensemble.exists():
        yield Finding(
            "ensemble", str(workdir.ensemble), "warning", "not tuned yet: submit.py would stop", suggest("tune")
        )
        return
    ensemble = load_ensemble(workdir)
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in ensemble["weights"].items() if weight > 0)
    estimate = ensemble["estimate"]
    told = (
        f"{ensemble['choice']}: {weights}; MAP@3 {estimate['map3']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
    )
    yield Finding("ensemble", str(workdir.ensemble), "ok", told)
    files = {name: workdir.oof / name for name in ensemble["oof_files"]}
    changed = [n for n, path in files.items() if path.is_file() and part_hash(path) != ensemble["oof_files"][n]]
    if changed:
        yield Finding("ensemble", "OOF files", "warning", f"{changed[0]} has changed since tuning", suggest("tune"))
    elif not all(path.is_file() for path in files.values()):
        yield Finding("ensemble", "OOF files", "ok", "not all here; they are needed to tune, not to submit")
    trained_rankers(workdir, examined.submit_overrides)  # raises what submit.py would refuse
