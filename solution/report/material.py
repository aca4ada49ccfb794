"""The material of a report, read and checked; `Material.missing` says why a part is not there."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from solution import oof
from solution.ensemble.record import EnsembleRecord, load_ensemble
from solution.ensemble.tune import nested_answers
from solution.errors import UserError
from solution.exam import Contexts, context_key
from solution.families import FAMILIES
from solution.files import read_json
from solution.folds import exam_with_folds_hash
from solution.learning.log import LOG
from solution.questions import Questions
from solution.retrieval.contexts.cache import stored_contexts, stored_keys
from solution.retrieval.contexts.column import own_contexts
from solution.suggestions import suggest
from solution.weights import has_metrics, read_metrics
from solution.workdir import Workdir


@dataclass
class Curve:
    """The course of one fold's training.

    Attributes:
        loss: of each step from 1.
        map3: step -> MAP@3 of the validation questions.
    """

    loss: list[float]
    map3: dict[int, float]


@dataclass
class Read:
    """Contexts, in the order of the OOF table, and the names of the rankers that read them."""

    rankers: list[str]
    contexts: Contexts


@dataclass
class Material:
    """All that the sections are made from.

    Attributes:
        record: `weights/ensemble.json`.
        oof: n questions.
        blended: float32 [n, width]: the shipped blend, each fold by weights that were fitted without it.
        questions: in the order of the OOF table; None when there is no question file.
        reads: the contexts that are still stored.
        curves: ranker -> fold -> the course of its training.
        facts: ranker -> the records of its folds' metrics.json.
        notes: sentences for the head of the page, of the verb `exam`.
        missing: a part that is not there ("questions", "curves", "contexts") -> why.
    """

    record: EnsembleRecord
    oof: oof.Oof
    blended: np.ndarray
    questions: Questions | None
    reads: list[Read] = field(default_factory=list)
    curves: dict[str, dict[int, Curve]] = field(default_factory=dict)
    facts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def rankers(self) -> list[str]:
        return list(self.record["rankers"])

    @property
    def everyone(self) -> list[str]:
        """Rankers, then baselines."""
        return [*self.rankers, *self.oof.baselines]


def gather(workdir: Workdir, questions: Questions | None) -> Material:
    """Read everything of a tuned working folder.

    Args:
        questions: the exam that the OOF files are of; None: there is no question file.

    Raises:
        UserError: no or a corrupt ensemble, OOF files that are missing, corrupt or not those that it was tuned on,
            or another exam.
    """
    record = load_ensemble(workdir)
    table = oof.load_oof(workdir, sorted(record["about"]))
    if table.files != record["oof_files"]:
        names = sorted(set(table.files) ^ set(record["oof_files"]))
        names += [name for name in table.files if table.files[name] != record["oof_files"].get(name)]
        raise UserError(
            f"the OOF files have changed since {workdir.ensemble} was tuned on them ({names[0]}). "
            f"Tune again: {suggest('tune')}"
        )
    material = Material(record, table, nested_answers(workdir, record, table), None)
    if questions is None:
        material.missing["questions"] = f"no question file: {workdir.questions} (or give --questions FILE)"
    else:
        material.questions = _in_order(questions, table, record)
    material.notes = _notes(workdir, questions)
    _read_training(workdir, material)
    _read_contexts(workdir, material)
    return material


def _notes(workdir: Workdir, questions: Questions | None) -> list[str]:
    """What the verb `exam` has to say of the questions that were learnt from, see `pipeline.finished`.

    None where another command has trained on other questions since.
    """
    if not workdir.exam.exists():
        return []
    stored = read_json(workdir.exam, "the record of the verb exam", f"Delete {workdir.exam}.")
    if not isinstance(stored, dict) or "plan" not in stored:
        return []  # a user's own exam.json
    learnt = stored["plan"].get("questions")
    is_other = questions is not None and learnt != questions.content_hash()
    return [] if is_other else [str(note) for note in stored.get("notes", [])]


def _in_order(questions: Questions, table: oof.Oof, record: EnsembleRecord) -> Questions:
    """The exam in the order of the OOF table.

    Raises:
        UserError: it is another one.
    """
    row_of = {id_: row for row, id_ in enumerate(questions.ids)}
    strange = [id_ for id_ in table.ids if id_ not in row_of]
    if not strange and len(questions) == len(table.ids):
        ordered = questions.subset([row_of[id_] for id_ in table.ids])
        # As `train_fold` wrote it into the OOF files: ids, texts, answers and folds.
        if exam_with_folds_hash(ordered, table.folds) == record["questions"]:
            return ordered
    what = (
        f"{len(strange)} ids of the OOF files are not in it, first {strange[0]}" if strange else "its content differs"
    )
    raise UserError(
        f"the question file is not the exam that the OOF files were made on ({len(questions)} questions and "
        f"{len(table.ids)}; {what}). Give the file that was trained on with --questions."
    )


# --- training ------------------------------------------------------------------------------


def _read_training(workdir: Workdir, material: Material) -> None:
    lacking = []
    folds = sorted(set(material.oof.folds.tolist()))
    for name in material.everyone:
        material.facts[name] = [
            read_metrics(folder, "Train that fold again.")
            for folder in (workdir.fold_weights(name, fold) for fold in folds)
            if has_metrics(folder)
        ]
        curves = {fold: curve for fold in folds if (curve := _curve(workdir, name, fold)) is not None}
        if curves:
            material.curves[name] = curves
        elif name in material.rankers and not _has_no_steps(material, name):
            lacking.append(name)
    if not material.curves:
        material.missing["curves"] = (
            f"no {LOG} of {', '.join(lacking)}: they were not trained here, or their weights moved"
            if lacking
            else "no ranker of the ensemble is trained in steps"
        )


def _has_no_steps(material: Material, name: str) -> bool:
    """True for a ranker that has no loss to draw: it has no model, or its model answers as it is (`epochs: 0`)."""
    family = FAMILIES.get(str(material.record["about"][name].get("family")))
    facts = material.facts[name]
    return (family is not None and not family.has_model) or (
        bool(facts) and all(not each.get("loss") for each in facts)
    )


def _curve(workdir: Workdir, name: str, fold: int) -> Curve | None:
    """From `log.csv`, or from the losses that `metrics.json` keeps too; None when the ranker was not trained."""
    folder = workdir.fold_weights(name, fold)
    for path in (folder / LOG, workdir.logs(name, fold) / LOG):
        if path.is_file() and (curve := _read_log(path)).loss:
            return curve
    facts = read_metrics(folder, "Train that fold again.") if has_metrics(folder) else {}
    if not facts.get("loss"):
        return None
    return Curve(list(facts["loss"]), {int(step): float(score) for step, score in facts.get("evaluations", [])})


def _read_log(path: Path) -> Curve:
    """The curve in a `log.csv`.

    Raises:
        UserError: it is corrupt.
    """
    curve = Curve([], {})
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            for line in csv.DictReader(stream):
                curve.loss.append(float(line["loss"]))
                if line["map3"]:
                    curve.map3[int(line["step"])] = float(line["map3"])
    except (ValueError, KeyError, TypeError, csv.Error):
        raise UserError(
            f"the log {path} is corrupt at line {len(curve.loss) + 2}. Train that fold again, or delete the file."
        ) from None
    return curve


# --- contexts ------------------------------------------------------------------------------


def _read_contexts(workdir: Workdir, material: Material) -> None:
    """Read the stored contexts of the keys in the OOF files.

    The key of a ranker that reads several contexts is made of their keys, see `exam.context_key`. Where a ranker's
    contexts are not stored, the question file's column `context` takes their place, if it is there.
    """
    keys = {name: material.oof.about[name]["contexts"] for name in material.everyone}
    keys = {name: key for name, key in keys.items() if key != "none"}
    if not keys:
        material.missing["contexts"] = "no ranker reads contexts (or those that do were imported)"
        return
    stored = stored_keys(workdir.root)
    readers: dict[str, list[str]] = {}
    for name, key in keys.items():
        for part in [key] if key in stored else _parts(key, stored):
            readers.setdefault(part, []).append(name)
    served: set[str] = set()
    for key, names in readers.items():
        contexts = stored_contexts(workdir.root, key, material.oof.ids)
        if contexts is not None:
            served.update(names)
            if not contexts.signals:  # signals come without passages
                material.reads.append(Read(names, contexts))
    rest = [name for name in keys if name not in served]
    if rest and material.questions is not None and "context" in material.questions.extra:
        material.reads.append(Read(rest, own_contexts(material.questions)))
    if not material.reads:
        material.missing["contexts"] = (
            f"the contexts of {', '.join(rest)} are not in {workdir.cache} any more (or were made elsewhere)"
            if rest
            else "no ranker reads passages"
        )


def _parts(key: str, stored: Sequence[str]) -> tuple[str, ...]:
    """Those of the stored contexts' keys of which, two or three together, this key is made."""
    for count in (2, 3):
        for parts in itertools.permutations(stored, count):
            if context_key(parts) == key:
                return parts
    return ()
