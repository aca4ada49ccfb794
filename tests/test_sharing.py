"""push and pull: what is shared and what never is, a folder and the hub's API, and answers from what was pulled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import TOKEN, Hub
from pipeline import run

from solution import models
from solution.errors import UserError
from solution.files import read_json, write_json, write_manifest
from solution.questions import read_questions
from solution.sharing.place import ENSEMBLE, repository
from solution.sharing.pull import pull_ensemble
from solution.sharing.push import Wishes, push_ensemble
from solution.weights import EXAMPLES
from solution.workdir import Workdir

NAME = "some-one/exam-ensemble"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, and this process set to talk to it."""
    from huggingface_hub import constants

    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    models._unreachable.cache_clear()
    yield server
    models._unreachable.cache_clear()
    server.close()


def test_a_lost_network_is_no_missing_file(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    manifest = json.dumps({"kind": ENSEMBLE, "files": {"weights/ensemble.json": ""}}).encode()
    hub.repositories[NAME] = {"manifest.json": manifest, "weights/ensemble.json": b"{}"}
    download = huggingface_hub.hf_hub_download

    def download_and_lose(*args: Any, **kwargs: Any) -> str:
        path = download(*args, **kwargs)
        hub.is_lost = True
        return path

    assert models.hub_problem() is None
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download_and_lose)
    for _ in ("lost behind the first file", "lost before it"):
        with pytest.raises(UserError, match=f"{NAME}: the connection to the hub failed .* the same command again"):
            pull_ensemble(NAME, tmp_path / "pulled")
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def pushed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pushed") / "ensemble"
    assert push_ensemble(Workdir(finished), str(folder), Wishes(index=True, licence="apache-2.0")) > 1000
    return folder


def test_a_place_is_a_repository_unless_it_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert repository("some-one/exam") == "some-one/exam"
    assert [repository(place) for place in ("./some-one/exam", "/a/b", "exam", "a/b/c", "../b")] == [None] * 5
    (tmp_path / "some-one" / "exam").mkdir(parents=True)
    assert repository("some-one/exam") is None


def test_the_questions_are_never_shared(pushed: Path, finished: Path) -> None:
    there = {str(path.relative_to(pushed)) for path in pushed.rglob("*") if path.is_file()}
    assert {"README.md", "manifest.json", "weights/ensemble.json", "weights/similarity/fold_0/ranker.json"} <= there
    assert "weights/tiny/fold_2/adapter_model.safetensors" in there
    assert not [name for name in there if "questions" in name or name.startswith(("oof", "cache/contexts", "logs"))]
    shared = b"".join(path.read_bytes() for path in pushed.rglob("*") if path.is_file())
    for question in read_questions(finished / "questions.csv").prompts:
        assert question.encode() not in shared


def test_the_card_says_how_well_it_does_and_what_it_was_made_from(pushed: Path, finished: Path) -> None:
    text = (pushed / "README.md").read_text()
    record = read_json(finished / "weights" / "ensemble.json", "", "")
    assert text.startswith("---\n") and "license: apache-2.0" in text and "library_name: peft" in text
    for row in record["table"]:
        assert f"{row['name']}" in text and f"| {row['map3']:.4f} |" in text
    assert "| 95 % interval |" in text and "`corpus.csv`" in text and record["questions"] in text
    # The path to a model of this machine is nobody's business.
    assert "tiny.model=/path/to/bert" in text and str(finished) not in text


def test_what_was_pulled_answers_as_what_was_pushed(finished: Path, tmp_path: Path) -> None:
    questions = str(finished / "test.csv")
    for command in (
        ("push", str(finished), "./shared", "--with-index"),
        ("pull", "./shared", "pulled"),
        ("submit", "--workdir", "pulled", "--questions", questions),
    ):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "submission.csv").read_bytes() == (finished / "submission.csv").read_bytes()
    report = json.loads((tmp_path / "submission.report.json").read_text())
    assert [each["state"] for each in report["rankers"]] == ["finished", "finished"]
    assert not list((tmp_path / "shared").glob("cache/contexts-*"))


def test_a_repository_of_the_hub(hub: Hub, finished: Path, pushed: Path, tmp_path: Path) -> None:
    push_ensemble(Workdir(finished), NAME, Wishes(index=True))
    assert hub.commits == 1 and hub.private[NAME]
    files = hub.repositories[NAME]
    assert {path for path in files if path.startswith("weights")} == {
        str(path.relative_to(pushed)) for path in (pushed / "weights").rglob("*") if path.is_file()
    }
    files["weights/old/fold_0/metrics.json"] = b"{}"
    files["malicious.py"] = b"print()"
    workdir = pull_ensemble(NAME, tmp_path / "pulled")
    assert not (workdir.root / "malicious.py").exists() and not (workdir.root / ".cache").exists()
    for path in workdir.root.rglob("*"):
        if path.is_file() and path.name not in ("README.md", "manifest.json"):
            assert path.read_bytes() == (pushed / path.relative_to(workdir.root)).read_bytes()
    # What an earlier push had, and this one has not, is taken away.
    push_ensemble(Workdir(finished), NAME, Wishes())
    assert "weights/old/fold_0/metrics.json" not in files and not [each for each in files if each.startswith("cache")]


def test_what_the_hub_refuses_is_told(
    hub: Hub, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="the hub has no no-one/nothing"):
        pull_ensemble("no-one/nothing", tmp_path / "pulled")
    hub.repositories["some-one/other"] = {"config.json": b"{}"}
    with pytest.raises(UserError, match="is no pushed ensemble: it has no manifest.json"):
        pull_ensemble("some-one/other", tmp_path / "pulled")
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    with pytest.raises(UserError, match="hf auth login"):
        push_ensemble(Workdir(finished), NAME, Wishes())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="switched off.*as ./some-one/exam-ensemble"):
        pull_ensemble(NAME, tmp_path / "pulled")
    assert list(tmp_path.iterdir()) == []


def changed(pushed: Path, folder: Path, name: str, content: str) -> Path:
    """A copy of what was pushed with another file in it, listed in its manifest."""
    shutil.copytree(pushed, folder)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    (folder / "manifest.json").unlink()
    write_manifest(folder, ENSEMBLE)
    return folder


def test_what_is_no_whole_ensemble_is_refused(pushed: Path, tmp_path: Path) -> None:
    source = changed(pushed, tmp_path / "pickle", "weights/tiny/fold_0/adapter_model.bin", "x")
    with pytest.raises(UserError, match="adapter_model.bin, which is no file of weights"):
        pull_ensemble(str(source), tmp_path / "pulled")
    manifest = read_json(source / "manifest.json", "", "")
    write_json(source / "manifest.json", manifest | {"files": {"../../secret.json": "0"}})
    with pytest.raises(UserError, match="secret.json"):
        pull_ensemble(str(source), tmp_path / "pulled")
    source = changed(pushed, tmp_path / "other", "README.md", "a card")
    (source / "README.md").write_text("another card")
    with pytest.raises(UserError, match="README.md is not the file that was written"):
        pull_ensemble(str(source), tmp_path / "pulled")
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match="manifest of the trained ensemble not found"):
            pull_ensemble(str(folder), tmp_path / "pulled")
    with pytest.raises(UserError, match="give a new folder"):
        pull_ensemble(str(pushed), source)
    with pytest.raises(UserError, match="--revision is for a repository"):
        pull_ensemble(str(pushed), tmp_path / "pulled", "main")
    assert not (tmp_path / "pulled").exists()


def test_questions_in_a_prompt_and_other_folders_are_refused(finished: Path, pushed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished / "weights", copy / "weights")
    fold = copy / "weights" / "tiny" / "fold_0"
    (fold / EXAMPLES).write_text('[{"prompt": "a question of the exam"}]')
    key = read_json(fold / "manifest.json", "", "")["key"]
    (fold / "manifest.json").unlink()
    write_manifest(fold, "fold's weights", key=key)
    with pytest.raises(UserError, match="tiny: the prompt shows questions of the exam.*--with-examples"):
        push_ensemble(Workdir(copy), str(tmp_path / "shared"), Wishes())
    push_ensemble(Workdir(copy), str(tmp_path / "shared"), Wishes(examples=True))
    assert (tmp_path / "shared" / "weights" / "tiny" / "fold_0" / EXAMPLES).exists()
    push_ensemble(Workdir(finished), str(tmp_path / "shared"), Wishes())
    assert not (tmp_path / "shared" / "weights" / "tiny" / "fold_0" / EXAMPLES).exists()
    with pytest.raises(UserError, match="give a new folder|Give a new folder"):
        push_ensemble(Workdir(finished), str(copy), Wishes())
    assert (copy / "weights" / "ensemble.json").exists()
