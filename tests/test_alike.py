"""Options that a ranker's tokenizer cannot tell apart: found, told, and ordered by other signals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_config
from pipeline import built_once, run, tiny_ranker, write_configs
from tiny_models import bert

from solution.config import RankerConfig
from solution.exam import ContextPassage, Exam
from solution.oof import read_oof
from solution.questions import Questions
from solution.rankers.alike import alike_options, by_letters, parted, settle
from solution.rankers.families import make_ranker
from solution.rankers.untrained import SimilarityRanker
from solution.workdir import Workdir

ALIKE = ["iron AA", "iron Aa", "iron aa", "gold"]


def exam_of(options: list[list[str]], text: str = "", scores: list[list[float]] | None = None) -> Exam:
    count = len(options)
    ids, prompts = [f"q{row}" for row in range(count)], [f"which water is {row}?" for row in range(count)]
    passages = [[ContextPassage("p", "", text, 1.0, "column")] if text else [] for _ in options]
    table = {} if scores is None else {"sentence": np.array(scores, dtype=np.float32)}
    return Exam(Questions(ids, prompts, options, np.zeros(count, dtype=np.int64)), passages, table)


CONFIG = RankerConfig(name="some", family="similarity")


# --- the rule ------------------------------------------------------------------------------


def test_options_of_one_text_are_not_counted() -> None:
    assert alike_options(["Co", "CO", "Cu"], {0: (1,), 1: (1,), 2: (2,)}) == [[0, 1]]
    assert alike_options(["Co", "Co", "Cu"], {0: (1,), 1: (1,), 2: (2,)}) == []  # truly equal
    assert alike_options(["Co", "Co", "CO"], {0: (1,), 1: (1,), 2: (1,)}) == [[0, 1, 2]]
    assert alike_options(["a", "", "b"], {0: (1,), 2: (1,)}) == [[0, 2]]


def test_values_within_the_tolerance_stay_together() -> None:
    assert parted([0, 1, 2, 3], [0.5, 0.7, 0.5004, 0.1], 1e-3) == [[1], [0, 2], [3]]


@pytest.mark.parametrize(
    ("text", "scores", "order"),
    [
        ("", [0.2, 0.5, 0.2, 0.9], [1, 0, 2]),  # option scores first; A and C by their letters
        ("Here Aa is not AA: Aa.", [0.2, 0.2, 0.2004, 0.9], [1, 0, 2]),  # rounding tells nothing: the text does
        ("Here aaaa is no aa.", [0.4, 0.4, 0.4, 0.9], [2, 0, 1]),
        ("", [0.4, 0.4, 0.4, 0.9], [0, 1, 2]),  # equal
    ],
)
def test_ties_are_broken_by_the_best_signal(text: str, scores: list[float], order: list[int]) -> None:
    exam = exam_of([["AA", "Aa", "aa", "gold"]], text, [scores])
    table = np.array([[0.2, 0.21, 0.19, 0.4]], dtype=np.float32)  # alike, but for rounding
    settled = settle(table, exam, {0: [[0, 1, 2]]}, CONFIG)
    assert np.argsort(-settled[0, :3], kind="stable").tolist() == order
    assert settled[0, 3] == table[0, 3]
    assert settled[0, :3].sum() == pytest.approx(0.6, abs=1e-6)
    np.testing.assert_allclose(settled[0, :3], 0.2, rtol=2e-4)  # another ranker outweighs it


def test_the_longer_of_two_is_first_where_nothing_else_is_known() -> None:
    exam = exam_of([["10³", "103", "10⁻³", "gold"]])
    settled = settle(np.full((1, 4), 0.25, dtype=np.float32), exam, {0: [[0, 2]]}, CONFIG)
    assert settled[0, 2] > settled[0, 0]
    assert settled[0, 0] + settled[0, 2] == pytest.approx(0.5)


def test_options_that_no_signal_tells_apart_are_exactly_equal() -> None:
    exam = exam_of([["AA", "aa", "gold"]])
    table = np.array([[0.3, 0.3001, 0.3999]], dtype=np.float32)
    settled = settle(table, exam, {0: [[0, 1]]}, CONFIG)
    assert settled[0, 0] == settled[0, 1]


def test_a_prior_that_tells_them_apart_is_the_rankers_own_answer() -> None:
    config = RankerConfig(name="some", family="multiple_choice", model="m", retrieval_prior=True)
    exam = exam_of([["AA", "Aa", "aa"]], "aa", [[0.5, 0.2, 0.2]])
    table = np.array([[0.6, 0.2, 0.2]], dtype=np.float32)
    settled = settle(table, exam, {0: [[0, 1, 2]]}, config)
    assert settled[0, 0] == table[0, 0]
    assert settled[0, 2] > settled[0, 1]


def test_nothing_changes_without_such_options() -> None:
    table = np.array([[0.25, 0.25, 0.5]], dtype=np.float32)
    assert settle(table, exam_of([["AA", "aa", "gold"]]), {}, CONFIG) is table


def test_similarity_tells_what_its_embedder_reads_alike() -> None:
    ranker = SimilarityRanker(CONFIG, Path())
    options = [["AA", "Aa", "gold"], ["stone", "tree", "leaf"], ["same", "same", "gold"]]
    exam = exam_of(options, "Aa", [[0.3, 0.3, 0.1], [0.0, 0.0, 0.0], [0.3, 0.3, 0.1]])
    table = ranker.predict(exam)
    assert ranker.alike == {"q0": ["AB"]}  # where nothing was retrieved all scores are 0, and one text is no tie
    assert table[0, 1] > table[0, 0] > table[0, 2]
    assert table[2, 0] == table[2, 1]


# --- rankers with a tokenizer --------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "model", "changes"),
    [
        ("multiple_choice", "bert", {"training": {"epochs": 1}}),
        ("multiple_choice", "bert", {"training": {"epochs": 1}, "show_options": True}),
        ("causal", "llama", {"head": "likelihood", "training": {"epochs": 0}}),
        ("causal", "llama", {"head": "letters", "training": {"epochs": 0}, "rotations": 2}),
        ("seq2seq", "t5", {"head": "likelihood", "training": {"epochs": 0}}),
    ],
)
def test_what_a_family_reads_alike(tiny: Any, tmp_path: Path, family: str, model: str, changes: dict[str, Any]) -> None:
    ranker: Any = make_ranker(tiny_config(family, tiny(model), max_tokens=64, **changes), tmp_path)
    ranker.build()
    # An uncased tokenizer reads the first like it; one with unknown tokens the second.
    unknown = ["₈₉", "⁶⁷", "gold"]
    # The toy vocabulary of the Llama holds every byte: nothing is alike to it, but for a normaliser.
    if model == "llama":
        from tokenizers import normalizers

        backend = ranker.tokenizer.backend_tokenizer
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *filter(None, [backend.normalizer])])
    exam = exam_of([ALIKE, ["stone", "tree", "leaf"], unknown, ["fish", "fish", "bird"]], "iron Aa")
    table = ranker.predict(exam)
    wanted = {"q0": ["ABC"]} if model in ("bert", "llama") else {}
    if model != "llama":
        wanted["q2"] = ["AB"]
    assert ranker.alike == wanted == by_letters(exam.questions, ranker.find_alike(exam))
    if "q0" in wanted:
        assert np.argmax(table[0, :3]) == 1
        assert table[0, 0] == table[0, 2]
    np.testing.assert_allclose(table.sum(axis=1), 1.0, atol=1e-6)


# --- the commands --------------------------------------------------------------------------

QUESTIONS = [
    ("q0", "Which genotype is heterozygous?", "AA", "Aa", "gold", "B", "A carrier is Aa."),
    ("q1", "Which symbol is that of cobalt?", "CO", "Co", "Cu", "B", "Co is cobalt. Co is a metal."),
    ("q2", "Which unit is mega?", "m", "M", "k", "B", "Mega is M."),
    ("q3", "Which star is near?", "the moon", "the star", "a leaf", "B", "The star."),
    ("q4", "Which leaf is green?", "the wave", "the tree", "a fish", "B", "The tree."),
    ("q5", "Which stone is heavy?", "the rain", "iron", "a bird", "B", "It is iron."),
]


def _finish(folder: Path) -> None:
    for name in ("questions.csv", "test.csv"):
        with open(folder / name, "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([["id", "prompt", *"ABC", "answer", "context"], *QUESTIONS])
    ranker = tiny_ranker("tiny", bert(folder / "bert"))
    write_configs(folder / "configs", {"tiny": ranker}, folds=2, source="column", option_scores=[])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_once(tmp_path_factory, "alike", _finish)


def test_every_command_tells_it_and_uses_one_rule(built: Path) -> None:
    done = run("train", "--all-folds", cwd=built)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "cannot tell options apart" in line]
    assert len(lines) == 1
    assert "tiny cannot tell options apart in 3 of 6 questions" in lines[0]

    workdir, stored = Workdir(built), {}
    for fold in range(2):
        stored |= json.loads((workdir.fold_weights("tiny", fold) / "metrics.json").read_text())["options_read_alike"]
        part = read_oof(workdir.oof_part("tiny", fold))
        for id_, row in zip(part.ids, part.probabilities, strict=True):
            if id_ in ("q0", "q1", "q2"):
                assert row[1] > row[0]  # the passage holds B as it is written
    assert stored == {"q0": ["AB"], "q1": ["AB"], "q2": ["AB"]}

    for command in ("tune", "submit"):
        done = run(command, cwd=built)
        assert done.returncode == 0, done.stderr
    assert done.stderr.count("tiny cannot tell options apart in 3 of 6 questions (first: id q0, options A, B)") == 1
    report = json.loads((built / "submission.report.json").read_text())
    assert report["rankers"][0]["options_read_alike"] == {"questions": 3, "first": stored}
    lines = (built / "submission.csv").read_text().splitlines()[1:]
    answers = {id_: letters.split() for id_, letters in (line.split(",") for line in lines)}
    assert all(answers[id_].index("B") < answers[id_].index("A") for id_ in stored)

    # From the journal alone the count is the same.
    done = run("submit", cwd=built)
    report = json.loads((built / "submission.report.json").read_text())["rankers"][0]
    assert report["from_journal"] == 12
    assert report["options_read_alike"] == {"questions": 3, "first": stored}

    found = json.loads(run("doctor", "--json", cwd=built).stdout)["findings"]
    alike = [finding for finding in found if "cannot tell options apart" in finding["found"]]
    assert [finding["subject"] for finding in alike] == ["tiny", "tiny"]  # of questions.csv and of test.csv
    assert {finding["state"] for finding in alike} == {"warning"}

    done = run("report", cwd=built)
    assert done.returncode == 0, done.stderr
    page = (built / "report" / "index.html").read_text()
    assert "Options that a ranker cannot tell apart" in page
    assert "tiny: question q" in page


def test_doctor_tells_what_the_embedder_of_a_similarity_reads_alike(tmp_path: Path) -> None:
    for name in ("questions.csv", "test.csv"):
        with open(tmp_path / name, "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([["id", "prompt", *"ABC", "answer", "context"], *QUESTIONS])
    similarity = {"name": "similarity", "family": "similarity"}
    write_configs(
        tmp_path / "configs", {"similarity": similarity}, folds=2, source="column", option_scores=["sentence"]
    )
    found = json.loads(run("doctor", "--json", cwd=tmp_path).stdout)["findings"]
    alike = [finding for finding in found if "cannot tell options apart" in finding["found"]]
    assert [(finding["subject"], finding["state"]) for finding in alike] == [("similarity", "warning")] * 2
    assert "in 3 of 6 questions (first: id q0, options AB)" in alike[0]["found"].replace("A, B", "AB")
