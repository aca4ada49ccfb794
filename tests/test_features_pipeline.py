"""The ranker of signals through all commands: trained, tuned, reported, examined, bundled and asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pipeline import HEADER, ROWS, built_once, run, write_configs

from solution.config import RankerConfig, RetrievalConfig
from solution.inference.jobs import OutOfTime, Patience, run_job
from solution.inference.limits import Limits
from solution.inference.trained import TrainedRanker, context_requests

FEATURES = {
    "name": "features",
    "family": "features",
    "retrieval": ["default", "notes"],
    "signals": {"trees": 5, "forests": 2, "options_per_leaf": 1},
    "signals_from": ["longest"],  # a ranker that is not listed in ensemble.yaml
}
RANKERS = {
    "features": FEATURES,
    "similarity": {"name": "similarity", "family": "similarity"},
    "noted": {"name": "noted", "family": "similarity", "retrieval": "notes"},
}
STRANGE = "q9,只有汉字?,一,二,,A\nq10,Same?,same,same,,A\nq11,Which is near the Sun?,planet Mercury,moon of Pluto,,A\n"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_once(tmp_path_factory, "features", _build)


def _build(folder: Path) -> None:
    (folder / "questions.csv").write_text(HEADER + ROWS)
    (folder / "test.csv").write_text(HEADER + ROWS + STRANGE)
    words = [line.split(",")[2] for line in ROWS.splitlines()]
    corpus = "".join(
        f"Page {i},The {word} is body number {i} from the Sun. It is round.\n" for i, word in enumerate(words)
    )
    (folder / "corpus.csv").write_text("title,text\n" + corpus)
    notes = "".join(f"n{i},Note {i},Of {word} no moon is known.\n" for i, word in enumerate(words))
    (folder / "notes.csv").write_text("id,title,text\n" + notes)
    further = {"notes": {"corpus": "notes.csv", "passage_prefix": "note: "}}
    write_configs(folder / "configs", RANKERS, source="index", corpus="corpus.csv", top_k=2, retrievals=further)
    (folder / "configs" / "longest.yaml").write_text("name: longest\nfamily: longest\nrole: baseline\n")
    for command in (("train", "--all-folds"), ("tune", "tune.choose=equal")):
        done = run(*command, cwd=folder)
        assert done.returncode == 0, done.stderr


def test_a_fold_keeps_its_models_and_figures(built: Path) -> None:
    folder = built / "weights" / "features" / "fold_1"
    names = {path.name for path in folder.iterdir()}
    trees = {f"{prefix}forest_{number}.txt" for prefix in ("", "without_scores_") for number in range(2)}
    fewer = {f"fewer_signals_{number}_forest_0.txt" for number in range(4)}
    assert names == {*trees, *fewer, "signals.json", "metrics.json", "ranker.json", "manifest.json"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0 < metrics["signal_seconds_per_question"] < 60  # of both retrievals together
    figures = metrics["signals"]
    assert {"pmi_mean", "ranker_longest"} < set(figures) and set(figures["pmi_mean"]) == {"map3", "linear", "trees"}
    again = run("train", "--all-folds", cwd=built)
    assert again.stderr.count("already trained, nothing has changed") == 12
    # Another name of the same retrieval changes nothing for a ranker that reads it alone; signals have it in front.
    assert "notes:pmi_mean" in figures and "notes:length" not in figures
    record = json.loads((folder / "ranker.json").read_text())
    assert {name: each["corpus"] for name, each in record["retrievals"].items()} == {
        "default": "corpus.csv", "notes": "notes.csv",
    }  # fmt: skip
    noted = json.loads((built / "weights" / "noted" / "fold_1" / "ranker.json").read_text())
    assert noted["retrieval"]["corpus"] == "notes.csv" and "retrievals" not in noted


def test_tune_refuses_scores_that_have_changed(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, work := tmp_path / "work")
    done = run("train", "--all-folds", "--ranker", "longest", "longest.temperature=0.2", cwd=work)
    assert done.returncode == 0, done.stderr
    done = run("tune", cwd=work)
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert "features learnt from the scores of longest, and these have changed since. Train features again" in told


def test_it_answers_every_question_with_all_of_its_folds(built: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(built, work)
    done = run("submit", "--ranked", "ranked.jsonl", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "note: 2 of 12 questions or their options have no word that the corpus knows (first: id q9)" in (
        " ".join(done.stderr.split())
    )
    report = json.loads((work / "submission.report.json").read_text())
    (features,) = [ranker for ranker in report["rankers"] if ranker["ranker"] == "features"]
    assert features["state"] == "finished" and features["answered"] == 12 and features["folds"] == 3, features
    (longest,) = [ranker for ranker in report["rankers"] if ranker["ranker"] == "longest"]
    assert longest["answered"] == 12 and not longest["blended"] and features["without_scores_of"] == {}
    (recipe,) = report["recipes"]
    assert sorted(recipe["rankers"]) == ["features", "noted", "similarity"] and recipe["questions"] == 12
    # Without the scores that it reads it answers all the same, and the report tells.
    shutil.rmtree(work / "weights" / "longest")
    done = run("submit", cwd=work)
    told = " ".join(done.stderr.split())
    assert done.returncode == 0 and "the ranker longest is left out" in told, done.stderr
    assert "WARNING: features: 12 of 12 questions answered without the scores of longest" in told
    warnings = json.loads((work / "submission.report.json").read_text())["warnings"]
    assert "features: 12 of 12 questions answered without the scores of longest" in warnings
    assert len((work / "submission.csv").read_text().splitlines()) == 13
    # Damaged weights leave it out, and the others answer.
    (work / "weights" / "features" / "fold_0" / "signals.json").write_text("{}")
    (work / "weights" / "features" / "fold_1" / "forest_0.txt").unlink()
    shutil.rmtree(work / "weights" / "features" / "fold_2")
    done = run("submit", cwd=work)
    assert done.returncode == 0 and "WARNING: the ranker features is left out" in done.stderr, done.stderr


def test_no_other_ranker_waits_for_signals(tmp_path: Path) -> None:
    retrieval = RetrievalConfig()
    rankers = [
        TrainedRanker(name, RankerConfig(name=name, family=name), [tmp_path], {"default": retrieval})
        for name in ("features", "similarity", "longest")
    ]
    rankers[2].retrievals = {}
    rankers[0].retrievals["notes"] = rankers[1].retrievals["notes"] = RetrievalConfig(corpus="notes.csv")
    requests = context_requests(rankers)
    assert [(request.readers, request.views, request.config.corpus) for request in requests] == [
        (["similarity"], ["fused"], ""),
        (["similarity"], ["fused"], "notes.csv"),
        (["features"], ["signals"], ""),
        (["features"], ["signals"], "notes.csv"),
    ]
    # A job that takes longer than it may is ended, whatever the deadline.
    with pytest.raises(OutOfTime):
        run_job(b"{", lambda event: None, Limits(), Patience(60, "it was silent for", longest=0.0))


def test_doctor_report_and_bundle_know_it(built: Path, tmp_path: Path) -> None:
    done = run("doctor", "--json", cwd=built)
    found = json.loads(done.stdout)
    assert {record["ranker"]: record["folds"] for record in found["plan"]} == {
        "longest": 1, "similarity": 1, "noted": 1, "features": 3,
    }  # fmt: skip
    assert not [finding for finding in found["findings"] if finding["state"] == "error"], found
    told = {finding["subject"]: finding["found"] for finding in found["findings"] if finding["area"] == "submission"}
    assert [name for name, text in told.items() if "its signals take" in text] == ["features"]
    assert "to start, load and score, " in told["time"] and "of it to make signals, without searching" in told["time"]
    of = [finding for finding in found["findings"] if finding["area"] in ("contexts", "index")]
    assert len([finding for finding in of if finding["subject"].startswith("sentences-")]) == 2
    assert {finding["subject"] for finding in of if finding["area"] == "contexts"} == set(RANKERS)
    assert {finding["state"] for finding in of} == {"ok"}, of
    done = run("report", "--output", str(tmp_path / "report"), cwd=built)
    assert done.returncode == 0, done.stderr
    page = next((tmp_path / "report").glob("*.html")).read_text().replace("<wbr>", "")
    assert "Signals of features" in page and "cosine_sentence_best" in page
    done = run("bundle", "--output", str(tmp_path / "bundle"), "--no-wheels", cwd=built)
    assert done.returncode == 0, done.stderr
    there = {str(path.relative_to(tmp_path / "bundle")) for path in (tmp_path / "bundle").rglob("*") if path.is_file()}
    assert {"weights/features/fold_2/forest_1.txt", "weights/longest/fold_0/ranker.json"} < there
    indexes = sorted({name.split("/")[1].partition("-")[0] for name in there if name.startswith("cache/")})
    assert indexes == ["index", "lexical", "sentences"]
    assert len({name.split("/")[1] for name in there if name.startswith("cache/")}) == 6  # those of both retrievals
    models = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["models"]
    assert models["retrieval.embedder"] == models["retrievals.notes.embedder"]
