"""The store of trained folds: `weights/<ranker>/fold_k/` and its files. No other module opens them.

A fold's folder holds the ranker's adapter and head, `log.csv` of its training, and two files of this module:
`ranker.json` (what the fold was made from and the settings it was trained with) and `metrics.json` (what its
training measured).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from solution.config import DEFAULT, AnswerWith, RankerConfig, RetrievalConfig
from solution.errors import UserError
from solution.files import MANIFEST, read_json, read_manifest, sweep_leftovers, write_json, write_manifest
from solution.learning.log import LOG
from solution.progress import say
from solution.workdir import Workdir

_FOLD_WEIGHTS = "fold's weights"  # the kind of manifest
_RECORD, _METRICS = "ranker.json", "metrics.json"
EXAMPLES = "examples.json"
"""Questions of the training folds that a ranker's prompt shows."""
PRETRAINED = "pretrained weights"
"""The kind of manifest of the weights that a ranker's folds start from."""
SIGNAL_SECONDS = "signal_seconds_per_question"
"""In a fold's metrics: what making its signals takes in a submission, beside its scoring."""
TIMINGS = (_METRICS, LOG)
"""Files that do not change a fold's answers: answers are stored by the hashes of the other files."""
NOT_THE_MODEL = (MANIFEST, _METRICS, _RECORD)
"""Files that say how a fold was trained: `merge` does not copy them into the model that it writes."""


class FoldRecord(TypedDict):
    """`ranker.json` of a fold.

    `about`: ranker, family, role, fold, folds, and the hashes of questions, contexts, settings and wording; `config`
    and `retrieval`: the settings, as JSON holds them (`retrieval` is None where the ranker reads no contexts);
    `retrievals`: where it reads several, those of all by name (`retrieval` is then the first).
    """

    about: dict[str, Any]
    config: dict[str, Any]
    retrieval: dict[str, Any] | None
    retrievals: NotRequired[dict[str, dict[str, Any]]]


def fold_record(config: RankerConfig, retrievals: Mapping[str, RetrievalConfig], about: dict[str, Any]) -> FoldRecord:
    """The record of a ranker that was trained with these settings.

    Args:
        retrievals: those that it reads, by name.
    """
    dumped = {name: each.model_dump(mode="json") for name, each in retrievals.items()}
    first = next(iter(dumped.values()), None)
    record: FoldRecord = {"about": about, "config": config.model_dump(mode="json"), "retrieval": first}
    if len(dumped) > 1:
        record["retrievals"] = dumped
    return record


def stored_retrievals(record: FoldRecord) -> dict[str, dict[str, Any]]:
    """The settings of the retrievals that a ranker read, by name, in its order.

    Raises:
        KeyError, TypeError, IndexError: the record is damaged.
    """
    if "retrievals" in record:
        return dict(record["retrievals"])
    if record["retrieval"] is None:
        return {}
    # A version of the program that knew only one retrieval wrote no name.
    return {record["config"].get("retrieval", [DEFAULT])[0]: record["retrieval"]}


def read_retrievals(record: FoldRecord) -> dict[str, RetrievalConfig]:
    """`stored_retrievals` as settings; one that the record's version of this program did not know has its default.

    Raises:
        ValueError, KeyError, TypeError, IndexError: the record is damaged.
    """
    return {name: RetrievalConfig.model_validate(values) for name, values in stored_retrievals(record).items()}


def trained_folders(workdir: Workdir, ranker: str) -> list[Path]:
    """The folders of a ranker's folds that have a record, in the order of their names."""
    return [path.parent for path in sorted((workdir.weights / ranker).glob(f"fold_*/{_RECORD}"))]


def full_folders(workdir: Workdir, ranker: str) -> list[Path]:
    """The folders of a ranker that was trained on all questions: of its first seed, its second, ..."""
    folders: list[Path] = []
    while (folder := workdir.full_weights(ranker, len(folders))).is_dir():
        folders.append(folder)
    return folders


def deployed_folders(workdir: Workdir, ranker: str, answer_with: AnswerWith) -> list[Path]:
    """The folders that are there of the weights that answer in the place of the folds."""
    if answer_with == "full":
        return full_folders(workdir, ranker)
    folder = workdir.average_weights(ranker)
    return [folder] if folder.is_dir() else []


def is_of_a_fold(folder: Path) -> bool:
    """Whether the weights have an OOF file beside them, which `tune` compares them with."""
    return folder.name.startswith("fold_")


def differing_inputs(record: FoldRecord, about: Mapping[str, Any]) -> list[str]:
    """The names of the inputs that weights were made from otherwise than OOF files (`about`) were."""
    inputs = ("questions", "contexts", "config", "pretrained", "extra", "soft_labels", "signals_from")
    return [name for name in inputs if record["about"].get(name) != about.get(name)]


def differing_folds(workdir: Workdir, ranker: str, record: FoldRecord) -> dict[int, list[str]]:
    """The ranker's trained folds that were made from other inputs than its other weights, see `differing_inputs`.

    Args:
        record: of the weights that are no fold's.

    Raises:
        UserError: a fold's record is missing or not JSON.
    """
    differing = {}
    for folder in trained_folders(workdir, ranker):
        names = differing_inputs(record, read_record(folder, "Train that fold again.")["about"])
        if names:
            differing[int(folder.name.rpartition("_")[2])] = names
    return differing


def answering_folders(workdir: Workdir, ranker: str, answer_with: AnswerWith, folds: int) -> list[Path]:
    """The folders of the weights that answer in a submission, whether they are there or not (see `AnswerWith`)."""
    if answer_with == "full":
        return full_folders(workdir, ranker) or [workdir.full_weights(ranker, 0)]
    if answer_with == "average":
        return [workdir.average_weights(ranker)]
    return [workdir.fold_weights(ranker, fold) for fold in range(folds)]


def record_path(folder: Path) -> Path:
    """`ranker.json` of a fold, for messages about its settings."""
    return folder / _RECORD


def read_record(folder: Path, remedy: str) -> FoldRecord:
    """`ranker.json` of a fold.

    Raises:
        UserError: it is missing or not JSON.
    """
    record: FoldRecord = read_json(record_path(folder), "the file of the ranker's settings", remedy)
    return record


def has_metrics(folder: Path) -> bool:
    return (folder / _METRICS).is_file()


def read_metrics(folder: Path, remedy: str) -> dict[str, Any]:
    """`metrics.json` of a fold: score, seconds, memory, losses.

    Raises:
        UserError: it is missing or not JSON.
    """
    metrics: dict[str, Any] = read_json(folder / _METRICS, "the fold's metrics", remedy)
    return metrics


def mean_metrics(folders: Sequence[Path]) -> dict[str, Any]:
    """What is measured of all of these weights, averaged: seconds and memory of the mean of them."""
    measured = [read_metrics(folder, "") for folder in folders]
    names = ("score_seconds_per_question", SIGNAL_SECONDS, "load_seconds", "peak_memory_mib")
    return {
        name: round(sum(facts[name] for facts in measured) / len(measured), 4)
        for name in names
        if all(isinstance(facts.get(name), int | float) for facts in measured)
    }


def own_files(folder: Path) -> list[str]:
    """The names of the files that make the ranker's answers, without what says how it was trained."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in (*NOT_THE_MODEL, LOG))


def write_record(folder: Path, record: FoldRecord) -> None:
    write_json(record_path(folder), record)


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    write_json(folder / _METRICS, metrics)


def close_folder(folder: Path, key: str, kind: str = _FOLD_WEIGHTS) -> None:
    """Write the manifest of a ranker's fold, whose other files are all written; `key` names what it was made from."""
    write_manifest(folder, kind, key=key)


def check_folder(folder: Path, remedy: str) -> Sequence[str]:
    """The names of a ranker's files in a fold's folder.

    Raises:
        UserError: the folder or a file is missing or changed.
    """
    return list(read_manifest(folder, _FOLD_WEIGHTS, remedy)["files"])


def key_of_checked_folder(folder: Path, remedy: str) -> str:
    """The key that a ranker's folder was closed with.

    Raises:
        UserError: see `check_folder`.
    """
    return str(read_manifest(folder, _FOLD_WEIGHTS, remedy).get("key"))


def key_of_whole_folder(folder: Path, kind: str = _FOLD_WEIGHTS) -> str | None:
    """The key that a fold's folder was closed with; None where it is missing, or not whole (which is said).

    What a killed run left beside it is removed.
    """
    if folder.parent.is_dir():
        sweep_leftovers(folder.parent, folder.name)
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return str(read_manifest(folder, kind, "").get("key"))
    except UserError as error:
        say(f"{error} -> training it again")
        return None
