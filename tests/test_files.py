"""Files are written whole or not at all, and known by their content; how a command ends on an error."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from solution.command import command
from solution.errors import UserError, explanation
from solution.files import (
    atomic_file,
    atomic_folder,
    canonical_json,
    content_hash,
    file_hash,
    read_json,
    read_manifest,
    sweep_leftovers,
    write_json,
    write_manifest,
    write_text,
)


class Stop(BaseException):
    """Like KeyboardInterrupt: no Exception."""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- atomic writing ------------------------------------------------------------------------


def test_atomic_file_writes_and_replaces(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    for text in ("one", "two"):
        with atomic_file(target) as temporary:
            assert temporary.parent == target.parent  # a rename within one file system
            temporary.write_text(text)
        assert target.read_text() == text
    assert names(target.parent) == ["a.txt"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [ValueError, Stop])
def test_atomic_file_keeps_the_old_content_on_an_error(tmp_path, error):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(error), atomic_file(target) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_atomic_file_shows_nothing_before_the_end(tmp_path):
    target = tmp_path / "a.txt"
    with atomic_file(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()


def test_atomic_folder_replaces_the_whole_folder(tmp_path):
    target = tmp_path / "weights"
    with atomic_folder(target) as temporary:
        (temporary / "old.bin").write_text("old")
    with atomic_folder(target) as temporary:
        (temporary / "new.bin").write_text("new")
        assert names(target) == ["old.bin"]
    assert names(target) == ["new.bin"]
    assert names(tmp_path) == ["weights"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [ValueError, Stop])
@pytest.mark.parametrize("existed", [True, False])
def test_atomic_folder_keeps_the_old_folder_on_an_error(tmp_path, error, existed):
    target = tmp_path / "weights"
    if existed:
        with atomic_folder(target) as temporary:
            (temporary / "old.bin").write_text("old")
    with pytest.raises(error), atomic_folder(target) as temporary:
        (temporary / "new.bin").write_text("ne")
        raise error
    assert names(tmp_path) == (["weights"] if existed else [])
    if existed:
        assert (target / "old.bin").read_text() == "old"


def test_what_cannot_be_written_is_told_by_its_own_name():
    for path in (Path("/proc/a.csv"), Path("/proc/weights")):  # no one may write there, root neither
        with pytest.raises(OSError) as caught, (atomic_file if path.suffix else atomic_folder)(path):
            pass
        assert explanation(caught.value).endswith(f": {path}") and ".part" not in str(caught.value)


def test_what_fails_inside_a_folder_is_told_without_its_temporary_name(tmp_path):
    with pytest.raises(OSError) as caught, atomic_folder(tmp_path / "weights") as temporary:
        (temporary / "deep" / "a.bin").write_text("no such folder")
    assert caught.value.filename == str(tmp_path / "weights" / "deep" / "a.bin")


def test_leftovers_of_a_killed_run_are_swept_and_nothing_else(tmp_path):
    # A kill leaves what the block had made: enter and never leave.
    unfinished = [atomic_file(tmp_path / "a.txt"), atomic_folder(tmp_path / "weights")]
    for manager in unfinished:
        manager.__enter__()
    (tmp_path / "report.part").write_text("the user's own")
    assert len(names(tmp_path)) == 3
    sweep_leftovers(tmp_path)
    assert names(tmp_path) == ["report.part"]
    sweep_leftovers(tmp_path / "not there")


def test_json_round_trip(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": "é\u2028漢"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json", "the thing", "") == value


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1} trailing'])
def test_broken_json_names_what_it_is_and_the_remedy(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="the folds file is corrupt: .*x.json.*Delete it"):
        read_json(path, "the folds file", "Delete it.")


def test_missing_json_names_what_it_is_and_the_remedy(tmp_path):
    with pytest.raises(UserError, match="the folds file not found: .*x.json. Make it"):
        read_json(tmp_path / "x.json", "the folds file", "Make it.")


# --- hashes --------------------------------------------------------------------------------


def test_content_hash_is_stable():
    # SHA-256 of a kind byte, the length and the canonical JSON: a change makes every stored hash useless.
    assert content_hash({"b": 1, "a": [0.5, None, "é"]}) == "81a03e93ad1b7c5e"
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash((1, 2)) == content_hash([1, 2])


def test_content_hash_tells_values_apart():
    values = [
        (),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (["ab", "c"],),
        ("",),
        ("", ""),
        (None,),
        (0,),
        (False,),
        ("0",),
        ([],),
        ({},),
        (b"",),
        (b'"abc"',),
        (b"abc",),
        ("c", "ab"),
        ({"a": {"b": 1}},),
        ({"a": 1, "b": 1},),
    ]
    hashes = [content_hash(*value) for value in values]
    assert len(set(hashes)) == len(values)
    assert all(len(h) == 16 and int(h, 16) >= 0 for h in hashes)


def test_canonical_json_has_one_form():
    assert canonical_json({"b": [1, "é"], "a": {}}) == '{"a":{},"b":[1,"é"]}'


def test_file_hash_is_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert file_hash(path) == "ba7816bf8f01cfea"  # FIPS 180-4's example
    path.write_bytes(b"x" * (2 << 20) + b"y")
    whole = file_hash(path)
    path.write_bytes(b"x" * (2 << 20) + b"z")
    assert file_hash(path) != whole


# --- manifests -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "fold_0"
    (folder / "adapter").mkdir(parents=True)
    (folder / "weights.bin").write_text("w")
    (folder / "adapter" / "manifest.json").write_text("a file of the same name, deeper")
    write_manifest(folder, "fold's weights", settings={"epochs": 2})
    return folder


def read(folder):
    return read_manifest(folder, "fold's weights", "Train it again.")


def change(folder, **content):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **content}))


def test_manifest_round_trip(folder):
    manifest = read(folder)
    assert manifest["settings"] == {"epochs": 2}
    assert sorted(manifest["files"]) == ["adapter/manifest.json", "weights.bin"]


def refused(folder, message):
    with pytest.raises(UserError, match=message) as caught:
        read(folder)
    assert str(caught.value).endswith("Train it again.")


def test_a_missing_file_is_refused(folder):
    (folder / "weights.bin").unlink()
    refused(folder, r"fold_0 \(fold's weights\) is incomplete: weights.bin is missing")


@pytest.mark.parametrize("name", ["weights.bin", "adapter/manifest.json"])
def test_a_changed_file_is_refused(folder, name):
    (folder / name).write_text("v")
    refused(folder, f"corrupt: {name} is not the file that was written")
    assert read_manifest(folder, "fold's weights", "", verify=False)


@pytest.mark.parametrize("name", ["../secret", "adapter/../../secret", "ABSOLUTE"])
def test_a_file_outside_the_folder_is_refused(folder, name):
    secret = folder.parent / "secret"
    secret.write_text("s")
    name = str(secret) if name == "ABSOLUTE" else name
    change(folder, files={name: file_hash(secret)})
    refused(folder, "names a file outside its folder")


@pytest.mark.parametrize("content", [{"kind": "index"}, {"schema": 99}])
def test_another_kind_or_schema_is_refused(folder, content):
    change(folder, **content)
    refused(folder, "holds no fold's weights of schema 1")


@pytest.mark.parametrize("files", [None, [], "weights.bin"])
def test_a_manifest_that_lists_no_files_is_refused(folder, files):
    change(folder, files=files)
    refused(folder, "does not list its files")


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_a_manifest_that_is_no_mapping_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    refused(folder, "holds no fold's weights")


def test_a_missing_or_broken_manifest_is_refused(folder):
    (folder / "manifest.json").write_text("{")
    refused(folder, "the manifest of the fold's weights is corrupt")
    (folder / "manifest.json").unlink()
    refused(folder, "the manifest of the fold's weights not found")


# --- errors --------------------------------------------------------------------------------


def test_join_lists_every_problem():
    assert str(UserError.join(["one"], "title")) == "one"
    text = str(UserError.join(iter(["one", "two"]), "the settings are wrong"))
    assert text.splitlines() == ["the settings are wrong (2 problems):", "  - one", "  - two"]


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (UserError("the corpus is empty"), "error: the corpus is empty\n", 2),
        (OSError(28, "No space left on device", "oof/a"), "error: No space left on device: oof/a\n", 2),
        (OSError("odd"), "error: odd\n", 2),
        (RuntimeError("write error in x.faiss: No space left on device"), "error: write error in x.faiss: No space", 2),
        (MemoryError(), "error: the memory is not enough. What was finished is kept. Free memory, or lower what", 2),
        (RuntimeError("CUDA out of memory. Tried\nmore"), "error: the memory is not enough (CUDA out of memory.", 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: x"), "error: the memory is not enough (Default", 2),
        (KeyboardInterrupt(), "interrupted: what was finished is kept; run the same command again to go on\n", 130),
    ],
)
def test_a_command_ends_with_one_message(error, message, code, capsys, monkeypatch):
    monkeypatch.delenv("SOLUTION_TRACEBACK", raising=False)

    @command
    def verb():
        raise error

    with pytest.raises(SystemExit) as ended:
        verb()
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message) and err.count("\n") == 1


def test_a_command_shows_the_traceback_when_asked_and_for_bugs(monkeypatch):
    @command
    def verb(error):
        raise error

    with pytest.raises(KeyError):
        verb(KeyError("a bug is no user error"))
    with pytest.raises(RuntimeError):
        verb(RuntimeError("nor is this"))
    monkeypatch.setenv("SOLUTION_TRACEBACK", "1")
    with pytest.raises(UserError):
        verb(UserError("x"))


def test_a_command_returns_what_it_returns():
    assert command(lambda value: value + 1)(1) == 2


def test_a_sweep_keeps_to_its_name_and_puts_back_what_a_killed_exchange_took_away(tmp_path):
    other = tmp_path / ".fold_1.abc.part"
    other.mkdir()
    taken = tmp_path / ".fold_0.abc.old" / "old"
    taken.mkdir(parents=True)
    (taken / "weights").write_text("finished")
    (tmp_path / ".fold_0.xyz.part").mkdir()
    sweep_leftovers(tmp_path, "fold_0")
    assert (tmp_path / "fold_0" / "weights").read_text() == "finished"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fold_1.abc.part", "fold_0"]
    sweep_leftovers(tmp_path, "fold_0")
    assert (tmp_path / "fold_0").is_dir()


def test_a_link_stays_and_a_pipe_is_refused(tmp_path):
    target, link = tmp_path / "folder" / "target.csv", tmp_path / "link.csv"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    with atomic_file(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink() and target.read_text() == "new"
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match=r"pipe.csv is a device or a pipe"), atomic_file(tmp_path / "pipe.csv"):
        pytest.fail("a pipe is never written")
    assert stat.S_ISFIFO((tmp_path / "pipe.csv").stat().st_mode)
