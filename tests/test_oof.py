"""The OOF store: what is written comes back, and what does not belong together is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from solution.errors import UserError
from solution.oof import load_oof, part_hash, read_oof, write_oof
from solution.questions import Questions
from solution.workdir import Workdir

N, FOLDS = 12, 3


def exam(prefix="q", counts=(5, 4, 3)):
    counts = [counts[row % len(counts)] for row in range(N)]
    options = [[f"option {c}" for c in range(count)] for count in counts]
    return Questions(
        [f"{prefix}{row}" for row in range(N)],
        [f"prompt {row}" for row in range(N)],
        options,
        np.array([row % count for row, count in enumerate(counts)]),
    )


def answered(questions, seed=0):
    exists = questions.exists(5)
    scores = np.random.default_rng(seed).random(exists.shape) * exists
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def about(questions, name="a", fold=0, **changes):
    base = {"ranker": name, "family": "causal", "role": "ranker", "fold": fold, "folds": FOLDS}
    return base | {"questions": questions.content_hash(), "contexts": "c", "config": "d"} | changes


def rows_of(fold):
    return np.arange(fold, N, FOLDS)


def write_ranker(workdir, name="a", questions=None, seed=0, folds=range(FOLDS), **changes):
    questions = questions or exam()
    table = answered(questions, seed)
    for fold in folds:
        part = questions.subset(rows_of(fold))
        write_oof(workdir.oof_part(name, fold), part, table[rows_of(fold)], about(questions, name, fold, **changes))
    return table


def write_spoilt(workdir, fold=0, name="a", table=None, rows=None, **changes):
    """One part with something wrong in it (the writer checks nothing)."""
    exam_ = exam()
    table = answered(exam_) if table is None else table
    rows = rows_of(fold) if rows is None else rows
    write_oof(workdir.oof_part(name, fold), exam_.subset(rows), table[rows], about(exam_, name, fold) | changes)


def rewrite(path, change):
    """Change a part's pyarrow table."""
    pq.write_table(change(pq.read_table(path)), path)


def replaced(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.fixture
def workdir(tmp_path):
    return Workdir.open(tmp_path / "exam")


def refused(workdir, *said, rankers=None):
    with pytest.raises(UserError) as error:
        load_oof(workdir, rankers)
    for text in said:
        assert text in str(error.value), str(error.value)


def test_round_trip(workdir):
    questions = exam()
    tables = {"b": write_ranker(workdir, "b", seed=1), "a": write_ranker(workdir, "a"), "z": None}
    tables["z"] = write_ranker(workdir, "z", seed=2, role="baseline")
    oof = load_oof(workdir)
    order = np.concatenate([rows_of(fold) for fold in range(FOLDS)])
    assert oof.ids == [questions.ids[row] for row in order]
    assert oof.folds.tolist() == (order % FOLDS).tolist()
    assert np.array_equal(oof.answers, questions.answers[order])
    assert np.array_equal(oof.exists, questions.exists(5)[order])
    for name, table in tables.items():
        assert np.array_equal(oof.probabilities[name], table[order])
    assert oof.rankers == ["a", "b"] and oof.baselines == ["z"]
    assert oof.about["z"]["role"] == "baseline" and "fold" not in oof.about["z"]
    assert len(oof.files) == 3 * FOLDS and "a/fold_0.parquet" in oof.files


def test_missing_options_are_nan_in_the_file(workdir):
    write_ranker(workdir)
    values = pq.read_table(workdir.oof_part("a", 2)).column("p_E").to_numpy()
    assert np.isnan(values).all()  # the rows of fold 2 have three options
    assert np.isnan(read_oof(workdir.oof_part("a", 2)).probabilities[:, 3:]).all()


def test_rewriting_a_part_changes_its_hash_only(workdir):
    write_ranker(workdir)
    before = load_oof(workdir).files
    write_spoilt(workdir, 1, table=answered(exam(), 7))
    after = load_oof(workdir).files
    assert {key for key in before if before[key] != after[key]} == {"a/fold_1.parquet"}


def test_nothing_there(workdir):
    refused(workdir, "no OOF file", "train_fold.py --all-folds")
    write_ranker(workdir)
    refused(workdir, "ranker b", "--ranker b", rankers=["a", "b"])
    with pytest.raises(UserError, match="not found"):
        read_oof(workdir.oof_part("a", 9))


def test_missing_fold_names_the_command(workdir):
    write_ranker(workdir, folds=(0, 2))
    refused(workdir, "fold 1", "train_fold.py --ranker a --fold 1")


def test_other_questions(workdir):
    write_ranker(workdir, "a")
    write_ranker(workdir, "b", exam(prefix="other"))
    refused(workdir, "a and b", exam().content_hash(), exam(prefix="other").content_hash(), "--workdir")


@pytest.mark.parametrize("key", ["questions", "contexts", "config"])
def test_parts_of_other_runs(workdir, key):
    write_ranker(workdir)
    write_spoilt(workdir, 2, **{key: "changed"})
    refused(workdir, "changed", "--ranker a --fold 2")


def test_other_number_of_folds(workdir):
    write_ranker(workdir)
    write_spoilt(workdir, 2, folds=5)
    refused(workdir, "number of folds")


def test_other_fold_assignment(workdir):
    write_ranker(workdir, "a")
    for fold in range(FOLDS):
        write_spoilt(workdir, fold, "b", rows=rows_of((fold + 1) % FOLDS))
    refused(workdir, "a and b", "fold 0")


def test_same_hash_but_other_answers(workdir):
    write_ranker(workdir, "a")
    write_ranker(workdir, "b")
    changed = exam()
    changed.answers[1] = 2
    part = changed.subset(rows_of(1))
    write_oof(workdir.oof_part("b", 1), part, answered(changed)[rows_of(1)], about(exam(), "b", 1))
    refused(workdir, "a and b", "fold 1")


def test_a_file_of_another_ranker(workdir):
    write_ranker(workdir)
    write_spoilt(workdir, 1)
    workdir.oof_part("b", 0).parent.mkdir()
    for fold in range(FOLDS):
        workdir.oof_part("b", fold).write_bytes(workdir.oof_part("a", fold).read_bytes())
    refused(workdir, "ranker b", "ranker a")


def test_repeated_ids_within_a_part_and_between_parts(workdir):
    write_ranker(workdir)
    write_spoilt(workdir, 0, rows=np.array([0, 3, 6, 6]))
    refused(workdir, "more than once", "q6")
    write_spoilt(workdir, 0, rows=np.array([0, 3, 6, 1]))  # q1 is fold 1's
    refused(workdir, "more than once", "q1")


def test_impossible_probabilities(workdir):
    good = answered(exam())
    for row, values, said in [
        (3, [0.25, 0.25, 0.5, np.nan, np.nan], "answer is not an option"),  # D
        (3, [0.5, 0.5, 0.5, 0.5, 0.5], "do not sum to 1"),
        (3, [0.1, 0.1, 0.1, 0.1, 0.1], "do not sum to 1"),
        (3, [np.nan, 0.1, 0.1, 0.1, 0.1], "a probability is NaN, and the others do not sum to 1"),
        (3, [-0.5, 0.5, 0.5, 0.5, 0], "no probability"),
        (3, [np.inf, 0, 0, 0, 0], "no probability"),
        (3, [np.nan] * 5, "fewer than two"),
    ]:
        write_ranker(workdir)
        table = good.copy()
        table[row] = values
        write_spoilt(workdir, 0, table=table)
        refused(workdir, said, "q3")


@pytest.mark.parametrize("answer", [-1, 5, 200])
def test_an_answer_that_is_no_option(workdir, answer):
    write_ranker(workdir)
    rewrite(workdir.oof_part("a", 0), lambda t: replaced(t, "answer", np.full(t.num_rows, answer, dtype=np.int16)))
    refused(workdir, "answer is not an option")


def test_rows_of_another_fold(workdir):
    write_ranker(workdir)
    rewrite(workdir.oof_part("a", 0), lambda t: replaced(t, "fold", np.full(t.num_rows, 1, dtype=np.int16)))
    refused(workdir, "another fold")


def test_corrupt_files(workdir):
    write_ranker(workdir)
    path = workdir.oof_part("a", 1)
    whole = path.read_bytes()
    for spoilt in (b"", b"not parquet", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(spoilt)
        refused(workdir, "corrupt", str(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns(["id"]), "id"),
        (lambda t: t.drop_columns(["answer"]), "answer"),
        (lambda t: t.drop_columns(["p_B"]), "p_B"),
        (lambda t: t.replace_schema_metadata(None), "not an OOF file"),
        (lambda t: t.replace_schema_metadata({b"solution": b"{"}), "corrupt"),
        (lambda t: t.replace_schema_metadata({b"solution": b"[]"}), "not an OOF file"),
        (lambda t: t.replace_schema_metadata({b"solution": b'{"schema": 1, "fold": 1}'}), "questions"),
        (lambda t: replaced(t, "p_A", ["x"] * t.num_rows), "corrupt"),
        (lambda t: replaced(t, "p_A", [None] * t.num_rows), "do not sum to 1"),
        (lambda t: replaced(t, "p_A", [[0.1]] * t.num_rows), "corrupt"),
        (lambda t: t.slice(0, 0), "no or another fold"),
    ],
)
def test_files_that_are_not_ours(workdir, change, said):
    write_ranker(workdir)
    path = workdir.oof_part("a", 1)
    rewrite(path, change)
    refused(workdir, said, str(path))


def test_rows_that_are_not_those_that_were_written(workdir):
    """A bit of a number has turned over: it is a probability still, and the rows sum to 1 as far as is asked."""
    write_ranker(workdir)
    path = workdir.oof_part("a", 0)
    values = pq.read_table(path).column("p_A").to_numpy().copy()
    values.view(np.uint32)[0] ^= 1
    rewrite(path, lambda table: table.set_column(3, "p_A", pa.array(values)))
    refused(workdir, "fold_0.parquet is corrupt", "not those that were written")
    rewrite(path, lambda table: replaced(table, "answer", table.column("answer").to_pylist()[::-1]))
    refused(workdir, "fold_0.parquet")


def test_a_part_is_known_by_its_content(workdir):
    """What parquet keeps beside the rows is no part of it; each row and what it says of itself are."""
    write_ranker(workdir)
    before = load_oof(workdir).files
    path = workdir.oof_part("a", 0)
    pq.write_table(pq.read_table(path), path, compression="none", write_statistics=False)
    assert load_oof(workdir).files == before
    write_ranker(workdir, seed=1, folds=[0])
    after = load_oof(workdir).files
    assert [name for name in before if before[name] != after[name]] == ["a/fold_0.parquet"]
    assert load_oof(workdir).files == {name: part_hash(workdir.oof / name) for name in after}
    path.write_bytes(b"")
    assert part_hash(path) is None


def test_another_schema(workdir):
    write_ranker(workdir)
    path = workdir.oof_part("a", 1)
    table = pq.read_table(path)
    meta = json.loads(table.schema.metadata[b"solution"]) | {"schema": 99}
    rewrite(path, lambda t: t.replace_schema_metadata({b"solution": json.dumps(meta).encode()}))
    refused(workdir, "schema")
