"""The OOF store: one parquet for each ranker and fold, with the hashes of what it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import MAX_FOLDS
from solution.errors import UserError
from solution.files import SCHEMA, atomic_file, content_hash
from solution.questions import LETTERS, Questions
from solution.suggestions import suggest
from solution.workdir import Workdir

_METADATA_KEY = b"solution"
_COLUMNS = [f"p_{letter}" for letter in LETTERS]
_ABOUT = ("ranker", "role", "fold", "folds", "questions", "contexts", "config")
_HASH = "rows"
SOURCES = "signals_from"
"""In the `about` of a ranker that learns from other rankers' scores: see `signal_sources`."""
IMPORTED = "imported"
"""In the place of a ranker's family: another program made its answers."""


@dataclass
class OofPart:
    """One ranker's answers to one fold that it was not trained on.

    Attributes:
        ids: n strings.
        answers: int64 [n].
        probabilities: float32 [n, width], NaN where the option does not exist.
        about: ranker, family, role, fold, folds, questions, contexts, config (hashes).
    """

    ids: list[str]
    answers: np.ndarray
    probabilities: np.ndarray
    about: dict[str, Any]

    @property
    def hash(self) -> str:
        """Of the rows and of `about`; what parquet adds, such as statistics, does not count."""
        return content_hash(self.about, _rows_hash(self.ids, self.answers, self.probabilities))


def write_oof(path: Path, questions: Questions, probabilities: np.ndarray, about: dict[str, Any]) -> None:
    """Write one part.

    Args:
        questions: the fold's questions, n of them.
        probabilities: float32 [n, max_options], rows summing to 1 over the options that exist.
        about: see `OofPart.about`; `fold` is also a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    width = probabilities.shape[1]
    table = np.where(questions.exists(width), probabilities.astype(np.float32), np.nan)
    columns: dict[str, Any] = {
        "id": pa.array(questions.ids, pa.string()),
        "fold": pa.array(np.full(len(questions), about["fold"], dtype=np.int16)),
        "answer": pa.array(questions.answers.astype(np.int16)),
    }
    columns |= {name: pa.array(table[:, i].astype(np.float32)) for i, name in enumerate(_COLUMNS[:width])}
    rows = _rows_hash(questions.ids, questions.answers, table)
    metadata = {_METADATA_KEY: json.dumps({"schema": SCHEMA, **about, _HASH: rows}, sort_keys=True).encode()}
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary)


def _rows_hash(ids: Sequence[str], answers: np.ndarray, table: np.ndarray) -> str:
    """A hash that shows a flipped bit, which parquet does not check for: the value may still be a probability."""
    values = np.nan_to_num(table.astype("<f4"), nan=-1.0)
    return content_hash(list(ids), answers.astype("<i8").tobytes(), values.tobytes())


def read_oof(path: Path) -> OofPart:
    """Read and check one part.

    Raises:
        UserError: missing, corrupt, not one of ours, repeated ids, NaN or negative probabilities
            of existing options, rows that do not sum to 1, an answer that is no option, or rows that are not those
            that were written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    remedy = "Train that fold again (or delete the file)."
    # The columns; the metadata says that it is one of ours.
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(use_threads=False)
        about = json.loads((table.schema.metadata or {})[_METADATA_KEY])
        ids = table.column("id").to_pylist()
        answers = table.column("answer").cast(pa.int64()).fill_null(-1).to_numpy()
        folds = table.column("fold").cast(pa.int64()).to_pylist()
        missing = [key for key in _ABOUT if key not in about]
        names = [name for name in _COLUMNS if name in table.column_names]
        missing += [name for name in _COLUMNS[: len(names)] if name not in names]
        values = np.column_stack([table.column(name).to_numpy() for name in names]).astype(np.float32)
    except FileNotFoundError:
        raise UserError(f"OOF file not found: {path}") from None
    except KeyError as error:
        raise UserError(f"{path} is not an OOF file of this program ({error} missing). {remedy}") from None
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"the OOF file {path} is corrupt ({str(error).splitlines()[0]}). {remedy}") from None
    if missing:
        raise UserError(f"{path} is not an OOF file of this program ({', '.join(missing)} missing). {remedy}")

    # Values that cannot be, of the metadata and of the rows; then rows that are not those that were written.
    wrong = [key for key in _ABOUT if not isinstance(about[key], int if key in ("fold", "folds") else str)]
    if wrong or not 0 <= about["fold"] < about["folds"] <= MAX_FOLDS or not all(isinstance(id_, str) for id_ in ids):
        raise UserError(f"the OOF file {path} is corrupt (what it says of itself cannot be). {remedy}")
    if about.get("schema") != SCHEMA or len(ids) == 0 or set(folds) != {about.get("fold")}:
        raise UserError(f"{path} is not an OOF file of schema {SCHEMA}, or holds no or another fold's rows. {remedy}")
    check_probabilities(values, answers, ids, str(path))
    if about.pop(_HASH, None) not in (None, _rows_hash(ids, answers, values)):
        raise UserError(f"the OOF file {path} is corrupt (its rows are not those that were written). {remedy}")
    return OofPart(ids, answers, values, about)


def part_hash(path: Path) -> str | None:
    """See `OofPart.hash`; None for a part that cannot be read (`read_oof` says why)."""
    try:
        return read_oof(path).hash
    except UserError:
        return None


def read_about(path: Path) -> dict[str, Any]:
    """`OofPart.about` without reading the rows, `{}` when it cannot be read (`read_oof` says why)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return dict(json.loads((pq.read_schema(path).metadata or {})[_METADATA_KEY]))
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def check_probabilities(values: np.ndarray, answers: np.ndarray, ids: Sequence[str], where: str) -> None:
    """Refuse repeated ids, impossible probabilities and answers.

    Args:
        values: float [n, width], NaN where an option does not exist.
        answers: int [n].
        ids: n strings.
        where: they stand, for the message.

    Raises:
        UserError: the first fault, with its first row's id and the number of rows.
    """

    def refuse(rows: np.ndarray, fault: str) -> None:
        if len(rows):
            raise UserError(f"{where}: {fault} (id {ids[int(rows[0])]}, {len(rows)} rows)")

    seen: set[str] = set()
    repeated = [i for i, id_ in enumerate(ids) if id_ in seen or seen.add(id_)]  # type: ignore[func-returns-value]
    refuse(np.array(repeated), "an id stands more than once")
    exists = ~np.isnan(values)
    refuse(np.flatnonzero(exists.sum(axis=1) < 2), "fewer than two options have a probability (NaN)")
    refuse(np.flatnonzero(((values < 0) | (values > 1 + 1e-4)).any(axis=1)), "a value is no probability")
    off = np.abs(np.nansum(values, axis=1) - 1) > 1e-3
    refuse(np.flatnonzero(off & exists.all(axis=1)), "the probabilities do not sum to 1")
    refuse(np.flatnonzero(off), "a probability is NaN, and the others do not sum to 1")
    bad = (answers < 0) | (answers >= values.shape[1])
    bad |= ~exists[np.arange(len(answers)), np.where(bad, 0, answers)]
    refuse(np.flatnonzero(bad), "the answer is not an option with a probability (NaN or missing)")


@dataclass
class Oof:
    """The whole OOF table of one exam.

    Attributes:
        ids: n strings, sorted by fold and then as written.
        folds: int [n].
        answers: int64 [n].
        exists: bool [n, width].
        probabilities: ranker name -> float32 [n, width], 0 where the option does not exist.
        about: ranker name -> the `about` of its parts (without the fold).
        files: path relative to the OOF folder -> hash.
    """

    ids: list[str]
    folds: np.ndarray
    answers: np.ndarray
    exists: np.ndarray
    probabilities: dict[str, np.ndarray]
    about: dict[str, dict[str, Any]]
    files: dict[str, str]

    @property
    def rankers(self) -> list[str]:
        """The names that may be blended, in alphabetical order."""
        return [name for name in sorted(self.probabilities) if self.about[name]["role"] == "ranker"]

    @property
    def baselines(self) -> list[str]:
        return [name for name in sorted(self.probabilities) if self.about[name]["role"] == "baseline"]

    def parts_hash(self, ranker: str) -> str:
        """A name of all parts of a ranker."""
        return content_hash({file: part for file, part in self.files.items() if file.split("/")[0] == ranker})


def signal_sources(about: Mapping[str, Any]) -> dict[str, str]:
    """The rankers whose scores are among the signals of a ranker, each with the `Oof.parts_hash` that it learnt from.

    Args:
        about: of the ranker's OOF files.
    """
    return dict(about.get(SOURCES) or {})


def changed_sources(about: Mapping[str, Mapping[str, Any]], stored: Oof) -> list[tuple[str, str]]:
    """Rankers that learnt from other scores than are stored now, each with the name of the ranker that gave them.

    Args:
        about: ranker -> of its OOF files.
        stored: with the parts of all rankers whose scores were learnt from.
    """
    read = [(reader, name, parts) for reader in about for name, parts in signal_sources(about[reader]).items()]
    return [(reader, name) for reader, name, parts in read if stored.parts_hash(name) != parts]


def load_oof(workdir: Workdir, rankers: Sequence[str] | None = None) -> Oof:
    """Read every part in the OOF folder (or those of the rankers named) and check that they belong together.

    Raises:
        UserError: no part, a missing fold, parts of other questions, folds, contexts or configs,
            a corrupt part. The message names both sides and the command that mends it.
    """
    names = sorted(rankers or (p.name for p in workdir.oof.glob("*") if p.is_dir() and any(p.glob("fold_*.parquet"))))
    if not names:
        raise UserError(f"no OOF file in {workdir.oof}. Make some first: {suggest('train_fold', '--all-folds')}")

    # Each ranker's parts belong to one run, and every ranker's to the first one's exam.
    first: tuple[str, list[OofPart]] | None = None
    probabilities: dict[str, np.ndarray] = {}
    about: dict[str, dict[str, Any]] = {}
    files: dict[str, str] = {}
    for name in names:
        paths = sorted((workdir.oof / name).glob("fold_*.parquet"))
        if not paths:
            raise UserError(
                f"no OOF file of the ranker {name} in {workdir.oof / name}. "
                f"Make it: {suggest('train_fold', '--all-folds', '--ranker', name)}"
            )
        part_of = {path: read_oof(path) for path in paths}
        parts = sorted(part_of.values(), key=lambda part: part.about["fold"])
        _check_same_run(name, parts)
        if first is None:
            first = (name, parts)
        else:
            _check_same_exam(first[0], first[1], name, parts)
        probabilities[name] = np.nan_to_num(np.concatenate([part.probabilities for part in parts]))
        about[name] = {key: value for key, value in parts[0].about.items() if key != "fold"}
        files |= {str(path.relative_to(workdir.oof)): part.hash for path, part in part_of.items()}
    assert first is not None

    # Ids, answers and options are those of any ranker's parts; a question may stand in one fold only.
    parts = first[1]
    ids = [id_ for part in parts for id_ in part.ids]
    answers = np.concatenate([part.answers for part in parts])
    table = np.concatenate([part.probabilities for part in parts])
    check_probabilities(table, answers, ids, f"the OOF parts of {first[0]} together")
    return Oof(
        ids=ids,
        folds=np.concatenate([np.full(len(part.ids), part.about["fold"]) for part in parts]),
        answers=answers,
        exists=~np.isnan(table),
        probabilities=probabilities,
        about=about,
        files=files,
    )


def _check_same_run(name: str, parts: list[OofPart]) -> None:
    """Refuse parts of one ranker that miss a fold, are another ranker's, or were made with other inputs or settings."""
    wanted = parts[0].about["folds"]
    stored = [part.about["fold"] for part in parts]
    missing = [fold for fold in range(wanted) if fold not in stored]
    if missing:
        raise UserError(
            f"the ranker {name} has no OOF part of fold {', '.join(map(str, missing))} (of {wanted}). "
            f"Make it: {suggest('train_fold', '--ranker', name, '--fold', str(missing[0]))}"
        )
    strange = [part.about["ranker"] for part in parts if part.about["ranker"] != name]
    if strange:
        raise UserError(
            f"the OOF folder of the ranker {name} holds a file of the ranker {strange[0]}. "
            f"Remove it, or train again: {suggest('train_fold', '--all-folds', '--ranker', name)}"
        )
    for part in parts[1:]:
        for key, what in (
            ("questions", "questions"),
            ("contexts", "contexts"),
            ("config", "settings"),
            ("folds", "number of folds"),
            ("pretrained", "pretrained weights"),  # of rankers with `pretraining` alone
            ("extra", "training-only questions"),  # of rankers with `training.extra` alone
            ("soft_labels", "soft labels"),  # of rankers with `training.soft_labels` alone
            (SOURCES, "scores of other rankers"),  # of rankers with `signals_from` alone
        ):
            if part.about.get(key) != parts[0].about.get(key):
                raise UserError(
                    f"the OOF parts of the ranker {name} were made with other {what}: fold {parts[0].about['fold']} "
                    f"with {parts[0].about.get(key)}, fold {part.about['fold']} with {part.about.get(key)}. "
                    "Train one of them again: "
                    + suggest("train_fold", "--ranker", name, "--fold", str(part.about["fold"]))
                )
        if part.probabilities.shape[1] != parts[0].probabilities.shape[1]:
            raise UserError(f"the OOF parts of the ranker {name} differ in their number of option columns")


def _check_same_exam(first: str, parts: list[OofPart], name: str, others: list[OofPart]) -> None:
    """Refuse the parts of two rankers that are not of the same questions, answers, options and folds."""
    a, b = parts[0].about, others[0].about
    if a["questions"] != b["questions"]:
        raise UserError(
            f"the OOF files of {first} and {name} are of other questions ({first}: {a['questions']}, "
            f"{name}: {b['questions']}). Use one --workdir for each exam, or train {name} again."
        )
    for part, other in zip(parts, others, strict=False):
        same = (
            part.ids == other.ids
            and np.array_equal(part.answers, other.answers)
            and np.array_equal(np.isnan(part.probabilities), np.isnan(other.probabilities))
        )
        if not same or len(parts) != len(others):
            raise UserError(
                f"the OOF files of {first} and {name} disagree on fold {part.about['fold']}: other questions, "
                f"answers or options. Train {name} again on the same questions and folds."
            )
