"""An embedder that learns from questions made from its corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hub_encoders import bert_embedder
from hub_models import science_texts

from solution.api.retrieval import refuse_exam
from solution.config import EmbedderTuning, RetrievalConfig
from solution.errors import UserError
from solution.files import MANIFEST
from solution.questions import Questions, write_questions
from solution.retrieval.embedder_tuning.pairs import SourcedQuestion, mine, option_columns, part, passage_columns
from solution.retrieval.embedder_tuning.tune import check_output, tune_embedder
from solution.retrieval.embedding import Embedder
from solution.retrieval.search import Indexes
from solution.workdir import Workdir

SETTINGS = EmbedderTuning(batch_size=4, negatives=2, mined=5, max_tokens=32, held_out=0.3, learning_rate=1e-3)
SIZE = 24


@pytest.fixture(scope="module")
def questions() -> Questions:
    """Questions of two to four options, each made from the document of its number."""
    texts = list(science_texts(SIZE))
    options = [[texts[row][:30], "other", *["third", "fourth"][: row % 3]] for row in range(SIZE)]
    prompts = [f"Which is number {row}?" for row in range(SIZE)]
    return Questions(
        [f"q{row}" for row in range(SIZE)], prompts, options, np.zeros(SIZE, dtype=np.int64),
        {"passage": [f"d{row}" for row in range(SIZE)]},
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Indexes:
    folder = tmp_path_factory.mktemp("tune")
    texts = [text.replace('"', "") for text in science_texts(SIZE + 6)]
    rows = "".join(f'd{row},Page {row},"Number {row}. {text}"\n' for row, text in enumerate(texts))
    (folder / "corpus.csv").write_text("id,title,text\n" + rows)
    model = bert_embedder(folder / "models" / "base")
    config = RetrievalConfig(
        corpus=str(folder / "corpus.csv"), embedder=str(model), passage_prefix="text: ", passage_tokens=100
    )
    return Indexes(config, folder)


def test_the_nearest_passages_of_other_documents_are_wrong(questions: Questions, built: Indexes) -> None:
    found = mine(questions, built._config, built, SETTINGS.model_copy(update={"margin": 1.0}))
    passages = built.dense.passages
    assert [question.row for question in found] == list(range(SIZE))
    mined = 0
    for question in found:
        assert passages[question.source].id == f"d{question.row}"
        assert len(set(question.wrong)) == 2 and question.source not in question.wrong
        if question.source in question.near:
            below = question.near[question.near.index(question.source) + 1 :]
            assert question.wrong[: len(below)] == below[:2]
            mined += len(below) > 1
    assert mined > 2
    # Whatever comes near to the source's cosine may be right too: with a margin that nothing keeps, others are drawn.
    drawn = mine(questions, built._config, built, SETTINGS.model_copy(update={"margin": 1e-6}))
    assert [each.wrong for each in drawn] != [each.wrong for each in found]
    assert all(each.source not in each.wrong and len(set(each.wrong)) == 2 for each in drawn)
    elsewhere = Questions(["q"], ["Which?"], [["a", "b"]], np.array([0]), {"passage": ["nowhere"]})
    for wrong, said in (
        (elsewhere, "no document"),
        (Questions(["q"], ["p"], [["a", "b"]], np.array([0])), "no column"),
    ):
        with pytest.raises(UserError, match=said):
            mine(wrong, built._config, built, SETTINGS)


def test_no_document_is_learnt_from_and_held_out(questions: Questions) -> None:
    twice = questions.subset([*range(SIZE), *range(SIZE)])
    found = [SourcedQuestion(row, 0, [], []) for row in range(2 * SIZE)]
    learnt, held_out = part(found, twice, SETTINGS)
    sides = [{twice.extra["passage"][question.row] for question in side} for side in (learnt, held_out)]
    assert len(learnt) + len(held_out) == 2 * SIZE and not sides[0] & sides[1] and len(held_out) > 4
    with pytest.raises(UserError, match="too few"):
        part(found[:3], twice, SETTINGS)


def test_what_is_learnt(questions: Questions, built: Indexes) -> None:
    found = mine(questions, built._config, built, SETTINGS)
    columns = passage_columns(found, questions, built._config, built)
    assert list(columns) == ["anchor", "positive", "negative_1", "negative_2"]
    assert columns["anchor"][3] == f"Which is number 3? {' '.join(questions.options[3])}"
    assert columns["positive"][3].startswith("text: Page 3. Number 3.")
    answered = questions.subset(range(SIZE))
    answered.answers[:3] = [-1, 1, 0]
    options = option_columns(found, answered, built, 0)
    assert options is not None and list(options) == ["anchor", "positive", "negative_1"]  # some have two options only
    assert len(options["anchor"]) == SIZE - 1 and options["positive"][0] == "Which is number 1? other"
    assert options["anchor"][4].startswith("text: Page 5: ")
    answered.answers[:] = -1
    assert option_columns(found, answered, built, 0) is None


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    check_output(tmp_path / "new")
    (tmp_path / "mine").mkdir()
    check_output(tmp_path / "mine")
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="not a tuned embedder"):
        check_output(tmp_path / "mine")


def test_questions_of_the_exam_are_refused(questions: Questions, tmp_path: Path) -> None:
    write_questions(tmp_path / "exam.csv", questions.subset([3, 5]))
    with pytest.raises(UserError, match=r"2 questions of made.csv \(first: id q3\)"):
        refuse_exam(questions, Path("made.csv"), tmp_path / "exam.csv", named=False)
    refuse_exam(questions.subset([0, 1]), Path("made.csv"), tmp_path / "exam.csv", named=True)
    refuse_exam(questions, Path("made.csv"), tmp_path / "none.csv", named=False)


def test_it_is_trained_and_kept(questions: Questions, built: Indexes, tmp_path: Path, capsys) -> None:  # noqa: ANN001
    pytest.importorskip("datasets", reason="the trainer needs it: pip install datasets")
    config, workdir, output = built._config, Workdir(built.workdir), tmp_path / "tuned"
    facts = tune_embedder(questions, config, workdir, output, SETTINGS)
    assert facts["learnt"] + facts["held_out"] == SIZE and facts["loss"][1] > 0
    assert set(facts["before"]) == set(facts["after"]) == {"recall@1", "recall@3", "recall@5", "recall@10", "mrr@10"}
    base, tuned = Embedder(config.embedder, tmp_path), Embedder(str(output), tmp_path)
    texts = ["iron is a metal", "Which star?"]
    vectors = tuned.encode(texts, 2)
    assert np.abs(vectors - base.encode(texts, 2)).max() > 0.01
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    names = {path.name for path in output.rglob("*") if path.is_file()} - {MANIFEST}
    kept = {path.name for path in Path(config.embedder).rglob("*") if path.suffix in (".json", ".txt", ".safetensors")}
    assert names == kept
    assert (output / "tokenizer.json").read_bytes() == (Path(config.embedder) / "tokenizer.json").read_bytes()
    # The same training is not done again.
    assert tune_embedder(questions, config, workdir, output, SETTINGS)["key"] == facts["key"]
    assert "tuned already" in capsys.readouterr().err
