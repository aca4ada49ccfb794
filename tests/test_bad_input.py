"""Malformed files, made by `malformed.py` and by hypothesis: each is read right, or refused in words."""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
import re
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed import ANSWERS, CORPUS, ENDINGS, EXAM, Case, cases, encode
from pipeline import HEADER, LONGEST, ROWS, run, write_configs

from solution.answers_file import read_answers
from solution.config import Run, TuneSettings
from solution.config_files import load_run
from solution.ensemble.blend import apply_recipe
from solution.ensemble.record import load_ensemble, read_recipe
from solution.ensemble.tune import run_tune
from solution.errors import UserError
from solution.inference.outputs import write_probabilities, write_ranked, write_submission
from solution.oof import load_oof, write_oof
from solution.questions import LETTERS, Questions, read_questions
from solution.retrieval.corpus import read_corpus
from solution.retrieval.sources import corpus_fingerprint
from solution.tables import cell_text
from solution.workdir import Workdir

SECONDS = 10  # many times what the slowest file takes
CASES = cases()
KINDS = sorted({case.kind for case in CASES})
FUZZ = settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@contextmanager
def time_limit() -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


EXAM_OF_ANSWERS = Questions(
    ["q1", "q2", "q3"], ["p1", "p2", "p3"], [["a", "b", "c"], ["a", "b"], ["a", "b", "c"]], np.array([0, 1, 2])
)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the OOF files of two rankers, and their ensemble."""
    root = tmp_path_factory.mktemp("tuned")
    workdir = Workdir.open(root)
    rng = np.random.default_rng(0)
    exam = Questions(
        [f"q{row}" for row in range(12)], ["p"] * 12, [["a", "b", "c"]] * 12, np.array([row % 3 for row in range(12)])
    )
    for name in ("a", "b"):
        table = rng.dirichlet(np.ones(3), 12)
        for fold in range(2):
            about = {"ranker": name, "family": "causal", "role": "ranker", "fold": fold, "folds": 2}
            about |= {"questions": "q", "contexts": "c", "config": "d"}
            rows = np.arange(fold, 12, 2)
            write_oof(workdir.oof_part(name, fold), exam.subset(rows), table[rows], about)
    run_tune(workdir, TuneSettings(trials=0, bootstrap_samples=100, candidates=["equal", "single"]))
    return root


def place_of(case: Case, tmp_path: Path, tuned: Path) -> Path:
    """The folder prepared for a case, and in it the file's path."""
    folder = tmp_path / "place"
    if case.kind == "configs":
        write_configs(folder, {"ranker": LONGEST | {"name": "ranker"}})
        (folder / case.file).unlink()
    elif case.kind in ("ensemble", "oof"):
        shutil.copytree(tuned, folder)
    else:
        folder.mkdir()
    return {"ensemble": folder / "weights", "oof": folder / "oof" / "a"}.get(case.kind, folder) / case.file


def read(kind: str, path: Path) -> Any:
    """What the reader of this kind makes of a file, in a form that compares with a case's `content`."""
    if kind == "questions":
        return read_questions(path)
    if kind == "answers":
        return read_answers(path, EXAM_OF_ANSWERS)
    if kind == "corpus":
        corpus_fingerprint(str(path))
        return list(read_corpus(str(path)))
    if kind == "configs":
        return load_run(path.parent)
    workdir = Workdir.open(path.parents[1] if kind == "ensemble" else path.parents[2])
    return load_ensemble(workdir) if kind == "ensemble" else load_oof(workdir)


def check_content(kind: str, found: Any, content: Any) -> None:
    if kind == "questions":
        names = [name for name in LETTERS if name in content[0]]
        for row, record in enumerate(content):
            cells = {name: cell_text(record.get(name)) for name in ("id", "prompt", "answer", *names)}
            assert (found.ids[row], found.prompts[row]) == (cells["id"], cells["prompt"])
            padded = found.options[row] + [""] * (len(names) - len(found.options[row]))
            assert padded == [cells[name] for name in names]
            assert found.answers[row] == (LETTERS.index(cells["answer"].upper()) if cells["answer"] else -1)
        assert len(found) == len(content)
    elif kind == "answers":
        by_id = {cell_text(record["id"]): list(record.values())[1:4] for record in content}
        wanted = [[float(cell or 0) for cell in by_id[id_]] for id_ in EXAM_OF_ANSWERS.ids]
        assert found.tolist() == wanted
    elif kind == "corpus":
        wanted = [tuple(record[name].strip() for name in ("id", "title", "text")) for record in content]
        assert [(document.id, document.title, document.text) for document in found] == wanted
    elif kind == "configs":
        assert [config.name for config in found.rankers] == ["ranker"]


def everything(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_the_corpus_is_large_and_the_same_each_time() -> None:
    assert len(CASES) >= 200
    assert [(case.kind, case.name) for case in cases()] == [(case.kind, case.name) for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}-{case.name}-{case.file}" for case in CASES])
def test_a_malformed_file_is_read_right_or_refused(case: Case, tmp_path: Path, tuned: Path) -> None:
    path = place_of(case, tmp_path, tuned)
    case.make(path)
    before = everything(tmp_path)
    with time_limit():
        if case.said is None:
            check_content(case.kind, read(case.kind, path), case.content)
        else:
            with pytest.raises(UserError) as refusal:
                found = read(case.kind, path)
                if case.kind == "corpus":  # a reader may know a form that these cases take for noise
                    check_content(case.kind, found, case.content)
                    pytest.skip("read right")
            message = str(refusal.value)
            assert path.name in message or str(path.parent) in message, message
            assert re.search(case.said, message, re.S), message
            assert len(message) < 3000 and message.replace("\n", "").isprintable(), message[:3000]
    assert everything(tmp_path) == before


COMMANDS = {
    ("questions", "a pipe", "file.csv"): "folds --questions",
    ("questions", "a device without end", "file.csv"): "folds --questions",
    ("questions", "a key twice", "file.jsonl"): "folds --questions",
    ("questions", "a date that is no date", "file.parquet"): "folds --questions",
    ("questions", "an id that steers a terminal", "file.csv"): "folds --questions",
    ("answers", "beyond a double together", "file.csv"): "import-oof --name theirs --normalize",
    ("configs", "aliases without end", "ranker.yaml"): "folds --configs",
    ("configs", "bool of a word", "ranker.yaml"): "folds --configs",
    ("configs", "a pipe", "ranker.yaml"): "folds --configs",
    ("ensemble", "deep nesting", "ensemble.json"): "submit",
    ("oof", "lists as folds", "fold_0.parquet"): "tune ensemble.folds=2",
    ("corpus", "a pipe", "file.csv"): "index retrieval.source=index --corpus",
}


def test_the_real_commands_refuse_them_too(tmp_path: Path, tuned: Path) -> None:
    by_name = {(case.kind, case.name, case.file): case for case in CASES}

    def refusal(item: tuple[tuple[str, str, str], str]) -> tuple[int, str]:
        key, command = item
        folder = tmp_path / "-".join(key).replace(" ", "_")
        folder.mkdir()
        path = place_of(by_name[key], folder, tuned)
        by_name[key].make(path)
        if key[0] != "configs":
            write_configs(folder / "configs", {"longest": LONGEST})
        exam = HEADER + (ROWS if key[0] != "answers" else "q1,p,a,b,c,A\nq2,o,a,b,,A\nq3,n,a,b,c,A\n")
        (folder / "questions.csv").write_text(exam)
        words = command.split()
        if key[0] in ("ensemble", "oof"):
            words += ["--workdir", "place", *(["--questions", "questions.csv"] if key[0] == "ensemble" else [])]
        else:
            words.append(str((path.parent if key[0] == "configs" else path).relative_to(folder)))
        done = run(*words, cwd=folder)
        return done.returncode, done.stderr

    with ThreadPoolExecutor(2) as pool:
        for item, (code, said) in zip(COMMANDS.items(), pool.map(refusal, COMMANDS.items()), strict=True):
            assert code == 2 and "Traceback" not in said, (item, said)
            assert said.startswith("error: ") and said.count("\nerror: ") == 0, (item, said)
            assert item[0][2] in said, (item, said)


# --- properties ------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
FILLED = TEXT.map(str.strip).filter(bool)
# Numbers as they stand in a text: their own forms and those of other programs.
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | TEXT
    | st.sampled_from(["A", "B", "q1", "1e400", "nan", " ", "\u200b"])
)
JSON_VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)


@FUZZ
@given(
    rows=st.lists(
        st.fixed_dictionaries({"id": FILLED, "prompt": FILLED, "A": FILLED, "B": FILLED, "C": TEXT.map(str.strip)}),
        min_size=1,
        max_size=4,
        unique_by=lambda row: row["id"],
    ),
    ending=st.sampled_from(ENDINGS),
    packed=st.booleans(),
)
def test_every_format_gives_the_same_questions(tmp_path: Path, rows: Any, ending: str, packed: bool) -> None:
    path = tmp_path / f"exam.{ending}{'.gz' if packed else ''}"
    # Python before 3.13 leaves a carriage return without quotes.
    rows = [{name: cell.replace("\r", " ").strip() or "x" for name, cell in row.items()} for row in rows]
    if len({row["id"] for row in rows}) < len(rows):
        return
    data = encode(rows, ending)
    path.write_bytes(gzip.compress(data) if packed else data)
    check_content("questions", read_questions(path), rows)


GOOD = {"questions": EXAM, "answers": ANSWERS, "corpus": CORPUS}


@FUZZ
@given(
    kind=st.sampled_from(sorted(GOOD)),
    ending=st.sampled_from(ENDINGS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.sampled_from("rdi"), st.binary(max_size=4)), min_size=1, max_size=4),
    packed=st.booleans(),
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, kind: str, ending: str, edits: Any, packed: bool) -> None:
    """Bytes of a good file replaced, removed and put in, before or after it is gzipped."""
    data = encode(GOOD[kind], ending)
    data = gzip.compress(data) if packed else data
    for where, how, new in edits:
        place = int(where * len(data))
        data = data[:place] + (new if how != "d" else b"") + data[place + (0 if how == "i" else len(new)) :]
    path = tmp_path / f"file.{ending}{'.gz' if packed else ''}"
    path.write_bytes(data)
    with time_limit():
        try:
            found = read(kind, path)
        except UserError as error:
            assert path.name in str(error)
            return
    check_sound(kind, found)


def check_sound(kind: str, found: Any) -> None:
    """What holds of everything that was read, whatever it was."""
    if kind == "questions":
        assert len(set(found.ids)) == len(found) and all(found.ids) and all(found.prompts)
        exists = found.exists()
        assert (exists.sum(axis=1) >= 2).all()
        answered = np.flatnonzero(found.answers >= 0)
        assert exists[answered, found.answers[answered]].all()
        assert all(isinstance(text, str) for row in found.options for text in row)
        found.content_hash()
    elif kind == "answers":
        assert np.isfinite(found).all() and (found >= 0).all()
        assert np.allclose(found.sum(axis=1), 1, atol=1e-5) and found[1, 2] == 0
    elif kind == "corpus":
        assert found and len({document.id for document in found}) == len(found)
        assert all(document.text for document in found)


@FUZZ
@given(
    kind=st.sampled_from(sorted(GOOD)),
    changes=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["id", "prompt", "A", "C", "answer", "p_A", "p_C", "text", "title"]),
            JSON_VALUES,
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_any_json_values_are_read_or_refused(tmp_path: Path, kind: str, changes: Any) -> None:
    rows = [dict(row) for row in GOOD[kind]]
    for place, name, value in changes:
        rows[place][name] = value
    path = tmp_path / "file.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        check_sound(kind, read(kind, path))
    except UserError as error:
        assert path.name in str(error)


SETTING = st.sampled_from(
    "seed contexts max_tokens lora lora.r lora.rank_pattern training training.epochs training.awp prompt prompt.option "
    "quantization temperature model role rotations stream".split()
)


@FUZZ
@given(values=st.dictionaries(SETTING, JSON_VALUES, max_size=3), noise=st.lists(st.integers(0, 10**6), max_size=2))
def test_any_settings_are_read_or_refused(tmp_path: Path, values: dict[str, Any], noise: list[int]) -> None:
    raw: dict[str, Any] = {"name": "ranker", "family": "longest"}
    for name, value in values.items():
        outer, _, inner = name.partition(".")
        if inner and isinstance(raw.setdefault(outer, {}), dict):
            raw[outer][inner] = value
        else:
            raw[outer] = value
    text = yaml.safe_dump(raw)
    for place in noise:  # a character that YAML has a use for
        at = place % (len(text) + 1)
        text = text[:at] + "{}[]&*!|>'\"%@`,:-?#\n"[place % 20] + text[at:]
    write_configs(tmp_path / "configs", {"ranker": LONGEST})
    (tmp_path / "configs" / "ranker.yaml").write_text(text)
    with time_limit():
        try:
            found: Run = load_run(tmp_path / "configs")
        except UserError as error:
            assert "ranker.yaml" in str(error)
            return
    assert found.rankers[0].hash() and json.dumps(found.rankers[0].model_dump(mode="json"))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, key)
        yield from places(each, (*path, key))


@FUZZ
@given(seed=st.integers(0, 10**6), value=JSON_VALUES, remove=st.booleans())
def test_any_value_in_the_ensemble_file_gives_an_answer_or_is_refused(
    tuned: Path, tmp_path: Path, seed: int, value: Any, remove: bool
) -> None:
    record = json.loads((tuned / "weights" / "ensemble.json").read_text())
    del record["hash"]  # without it a file may be changed by hand
    path = random.Random(seed).choice(list(places(record)))
    inner = record
    for part in path[:-1]:
        inner = inner[part]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    workdir = Workdir.open(tmp_path / "exam")
    workdir.weights.mkdir(exist_ok=True)
    workdir.ensemble.write_text(json.dumps(record))
    try:
        loaded = load_ensemble(workdir)
    except UserError as error:
        assert "ensemble.json" in str(error)
        return
    recipe = read_recipe(loaded)
    exists = np.ones((2, 3), dtype=bool)
    table = np.full((2, 3), 1 / 3, dtype=np.float32)
    blended = apply_recipe(recipe, {name: table for name in recipe.weights if recipe.weights[name] > 0}, exists)
    assert np.allclose(blended.sum(axis=1), 1, atol=1e-5)


@FUZZ
@given(
    ids=st.lists(FILLED, min_size=1, max_size=4, unique=True),
    counts=st.lists(st.integers(2, 8), min_size=4, max_size=4),
    values=st.lists(st.floats(0, 1) | st.just(math.nan), min_size=32, max_size=32),
    ties=st.booleans(),
)
def test_whatever_the_numbers_a_submission_is_complete(
    tmp_path: Path, ids: list[str], counts: list[int], values: list[float], ties: bool
) -> None:
    questions = Questions(
        ids, ["p"] * len(ids), [["x"] * counts[row] for row in range(len(ids))], np.full(len(ids), -1)
    )
    exists = questions.exists()
    table = np.array(values, dtype=np.float32).reshape(4, 8)[: len(ids), : exists.shape[1]]
    table = np.full_like(table, 0.5) if ties else table
    for name, write in (("s.csv", write_submission), ("r.jsonl", write_ranked), ("p.csv", write_probabilities)):
        write(tmp_path / name, questions, table)
    with open(tmp_path / "s.csv", newline="", encoding="utf-8") as stream:
        answers = {row["id"]: row["prediction"].split() for row in csv.DictReader(stream)}
    ranked = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == ids
    assert list(answers) == ids == [row["id"] for row in ranked]
    for row, record in enumerate(ranked):
        letters = record["ranked"]
        assert sorted(letters) == list(LETTERS[: counts[row]]) and letters[:3] == answers[record["id"]]
        numbers = [table[row, LETTERS.index(letter)] for letter in letters]
        known = [number for number in numbers if not math.isnan(number)]
        assert known == sorted(known, reverse=True) and known == numbers[: len(known)]
