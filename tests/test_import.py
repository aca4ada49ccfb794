"""Answers that another program made: what joins the blend, what is refused, and how a submission takes them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline import run

from solution import metrics
from solution.answers_file import read_answers
from solution.ensemble.imported import import_oof
from solution.errors import UserError
from solution.inference.trained import read_ensemble
from solution.oof import load_oof, write_oof
from solution.questions import Questions
from solution.workdir import Workdir

COUNTS = [4, 3, 2, 4, 3, 4]
FOLDS = np.array([0, 1, 0, 1, 0, 1])


def exam(prefix: str = "q") -> Questions:
    options = [[f"option {c}" for c in range(count)] for count in COUNTS]
    answers = np.array([row % count for row, count in enumerate(COUNTS)])
    return Questions([f"{prefix}{row}" for row in range(6)], [f"prompt {row}" for row in range(6)], options, answers)


def rows(**changes: dict[str, object]) -> list[dict[str, object]]:
    """A file's rows, in another order than the exam's; `changes` are merged into the rows of these ids."""
    rng = np.random.default_rng(0)
    made: list[dict[str, object]] = []
    for row, count in enumerate(COUNTS):
        values = rng.dirichlet(np.ones(count)).tolist() + [""] * (4 - count)
        made.append({"id": f"q{row}", **dict(zip(("p_A", "p_B", "p_C", "p_D"), values, strict=True)), "note": "x"})
        made[-1].update(changes.get(f"q{row}", {}))
    return made[::-1]


def write(path: Path, records: list[dict[str, object]]) -> Path:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


def test_answers_are_read_in_the_order_of_the_exam(tmp_path: Path) -> None:
    table = read_answers(write(tmp_path / "a.csv", rows()), exam())
    by_id = {record["id"]: record for record in rows()}
    assert table.shape == (6, 4) and table.dtype == np.float32 and np.allclose(table.sum(axis=1), 1)
    for row, count in enumerate(COUNTS):
        wanted = [float(by_id[f"q{row}"][name]) for name in ("p_A", "p_B", "p_C", "p_D")[:count]]  # type: ignore[arg-type]
        assert np.allclose(table[row], wanted + [0] * (4 - count))


def test_plain_letters_parquet_and_numbers_as_ids(tmp_path: Path) -> None:
    table = {name[2:]: pa.array([0.5, 0.25]) for name in ("p_A", "p_B")} | {"C": pa.array([0.0, 0.5])}
    pq.write_table(pa.table({"id": pa.array([7, 8]), **table}), tmp_path / "a.parquet")
    questions = Questions(["8", "7"], ["p", "q"], [["a", "b", "c"], ["a", "b"]], np.array([0, 1]))
    assert read_answers(tmp_path / "a.parquet", questions).tolist() == [[0.25, 0.25, 0.5], [0.5, 0.5, 0]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: made.append(made[0]), "id q5 stands more than once"),
        (lambda made: made.pop(), "1 of 6 questions are missing (first: id q0)"),
        (lambda made: made[0].update(id="other"), "1 ids are not in the exam (first: id other)"),
        (lambda made: [row.update(id=f"x{row['id']}") for row in made], "is of other questions"),
        (lambda made: made[0].update(p_A="nan"), "id q5: p_A is NaN, and"),
        (lambda made: made[0].update(p_A=""), "id q5: p_A is empty, and"),
        (lambda made: made[0].update(p_A="inf"), "id q5: p_A is inf, and"),
        (lambda made: made[0].update(p_A="much"), "'much', not a number"),
        (lambda made: made[0].update(p_A=-0.5), "a probability is not negative"),
        (lambda made: made[0].update(p_A=3), "the probabilities sum to 3.4"),
        (lambda made: made[3].update(p_D=0.1), "id q2: one option too many: p_D is 0.1"),
        (lambda made: [row.update(p_E=0.1) for row in made], "one option too many: p_E is 0.1"),
        (lambda made: [row.pop("p_D") for row in made], "column p_D missing"),
        (lambda made: [row.pop("id") for row in made], "id and one column an option"),
        (lambda made: [row.update(fold=0) for row in made], "id q5 is of fold 0 there and of fold 1 here"),
        (
            lambda made: [row.update(answer="A") for row in made],
            "contradicts the exam for 4 of 6 questions (id q5, q4, ",
        ),
        (lambda made: [row.update(p_A=9, fold="x") for row in made], "(12 problems)"),
        (lambda made: [row.update(p_A=9, fold="x") for row in made], "... and 4 more"),
    ],
)
def test_what_does_not_belong_is_refused_by_name(tmp_path: Path, change, said: str) -> None:
    made = rows()
    change(made)
    workdir = Workdir.open(tmp_path / "exam")
    with pytest.raises(UserError) as error:
        import_oof("theirs", write(tmp_path / "a.csv", made), exam(), FOLDS, 2, workdir, False)
    assert said in str(error.value)
    assert not workdir.oof.exists()


def test_an_answer_of_any_form_may_agree(tmp_path: Path) -> None:
    forms = {"q0": "A", "q1": "b", "q2": "0", "q3": "3.0", "q4": "option 1", "q5": ""}
    made = [record | {"answer": forms[str(record["id"])]} for record in rows()]
    assert read_answers(write(tmp_path / "a.csv", made), exam()).shape == (6, 4)


def test_sums_are_normalised_on_request_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows(q0={"p_A": 3, "p_B": 1, "p_C": 0, "p_D": 0}))
    with pytest.raises(UserError, match="--normalize"):
        read_answers(path, exam())
    assert np.allclose(read_answers(path, exam(), normalize=True)[0], [0.75, 0.25, 0, 0])
    with pytest.raises(UserError, match="sum to 0"):
        read_answers(write(tmp_path / "b.csv", rows(q2={"p_A": 0, "p_B": 0})), exam(), normalize=True)


def test_imported_answers_are_oof_parts(tmp_path: Path) -> None:
    workdir = Workdir.open(tmp_path / "exam")
    path = write(tmp_path / "a.csv", [record | {"fold": FOLDS[int(str(record["id"])[1:])]} for record in rows()])
    table = import_oof("theirs", path, exam(), FOLDS, 2, workdir, False)
    stored = load_oof(workdir)
    assert stored.rankers == ["theirs"] and stored.about["theirs"]["family"] == "imported"
    order = [0, 2, 4, 1, 3, 5]
    assert np.allclose(stored.probabilities["theirs"], table[order], atol=1e-6)
    assert stored.answers.tolist() == exam().answers[order].tolist()
    import_oof("theirs", path, exam(), FOLDS, 2, workdir, False)  # again: takes its own place
    write_oof(workdir.oof_part("ours", 0), exam(), table, stored.about["theirs"] | {"family": "causal", "fold": 0})
    with pytest.raises(UserError, match="trained here"):
        import_oof("ours", path, exam(), FOLDS, 2, workdir, False)
    with pytest.raises(UserError, match="--name 'The Irs'"):
        import_oof("The Irs", path, exam(), FOLDS, 2, workdir, False)


def test_the_commands_with_an_imported_ranker(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    with open(folder / "questions.csv", newline="") as stream:
        right = {row["id"]: row["answer"] for row in csv.DictReader(stream)}
    records: list[dict[str, object]] = [
        {"id": id_, **{name: 0.8 if name == letter else 0.1 for name in "ABC"}} for id_, letter in right.items()
    ]
    write(folder / "theirs.csv", records)
    done = run("import-oof", "theirs.csv", "--name", "theirs", cwd=folder)
    assert done.returncode == 0 and "theirs: 9 questions imported, MAP@3 1.0000" in done.stdout, done.stderr
    done = run("tune", "tune.choose=equal", cwd=folder)
    assert done.returncode == 0 and "imported and used too: theirs" in done.stderr, done.stderr
    assert json.loads((folder / "weights" / "ensemble.json").read_text())["weights"]["theirs"] == pytest.approx(1 / 3)
    workdir = Workdir.open(folder)
    with pytest.raises(UserError, match="--add theirs=FILE"):
        read_ensemble(workdir, [])
    with pytest.raises(UserError, match="--add other: .*it uses: theirs"):
        read_ensemble(workdir, [], ["other", "theirs"])
    done = run("submit", "--add", "theirs=theirs.csv", "--probabilities", "p.csv", cwd=folder)
    assert done.returncode == 0, done.stderr
    with open(folder / "p.csv", newline="") as stream:
        table = np.array([[float(row[f"p_{name}"]) for name in "ABC"] for row in csv.DictReader(stream)])
    assert metrics.map_at_k(table, np.array(["ABC".index(letter) for letter in right.values()])) > 0.9
