"""Files on disk: written whole or not at all, and known by the hash of their content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from solution.errors import UserError

SCHEMA: Final = 1
MANIFEST = "manifest.json"
_hashing: ContextVar[bool] = ContextVar("hashing", default=True)


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values (sorted keys, no spaces)."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def content_hash(*parts: Any) -> str:
    """A 16-digit hexadecimal SHA-256 prefix of JSON-able values or bytes; their order counts."""
    digest = hashlib.sha256()
    for part in parts:
        raw = isinstance(part, bytes)
        data = part if raw else canonical_json(part).encode()
        digest.update((b"b" if raw else b"j") + len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """The 16-digit SHA-256 prefix of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error on a temporary name beside `path` name `path`: the user knows no other."""
    try:
        yield
    except OSError as error:
        failed = Path(error.filename) if isinstance(error.filename, (str, os.PathLike)) else Path()
        for hidden in (failed, *failed.parents):
            if hidden.name.startswith(f".{path.name}.") and hidden.suffix in (".part", ".old"):
                error.filename, error.filename2 = str(path / failed.relative_to(hidden)), None
        raise


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it there when the block ends without an error.

    A symbolic link stays, and what it leads to is written anew.

    Raises:
        UserError: `path` is a device or a pipe: it would be replaced.
    """
    path = Path(path)
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is a device or a pipe: name a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _named(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; put it in the place of `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _named(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
        try:
            yield temporary
            os.chmod(temporary, 0o755)
            for file in temporary.rglob("*"):
                if file.is_file() and file.stat().st_nlink == 1:  # some libraries write files for their owner only
                    os.chmod(file, 0o644)
            if path.exists():
                old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
                os.replace(path, old / "old")
                os.replace(temporary, path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name of the same file where the file system has that, for files that are never written again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sweep_leftovers(folder: Path, name: str = "*") -> None:
    """Remove the temporary files and folders that a killed run left in `folder` for `name` (a glob pattern).

    An old folder that was moved aside for a new one, which the kill then prevented, is put back.
    """
    for pattern in (f".{name}.*.part", f".{name}.*.old"):
        for path in Path(folder).glob(pattern):
            target = path.parent / path.name[1:].rsplit(".", 2)[0]
            if path.suffix == ".old" and (path / "old").is_dir() and not target.exists():
                os.replace(path / "old", target)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path, what: str, remedy: str) -> Any:
    """Read a JSON file of ours; `what` names it in the singular ("the folds file").

    Raises:
        UserError: it is missing or not JSON; the message has `what` and `remedy` in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        value = json.loads(text)
        if "\\ud" in text.lower():
            canonical_json(value).encode()  # half of a character could not be hashed
        return value
    except FileNotFoundError:
        raise UserError(f"{what} not found: {path}. {remedy}") from None
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise UserError(f"{what} is corrupt: {path} ({error}). {remedy}") from None


def write_manifest(folder: Path, kind: str, **content: Any) -> None:
    """Write `manifest.json`: the kind, the settings and inputs given, and the hash of every file in `folder`."""
    folder = Path(folder)
    files = {
        str(path.relative_to(folder)): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    write_json(folder / MANIFEST, {"schema": SCHEMA, "kind": kind, "files": files, **content})


@contextlib.contextmanager
def without_hashing() -> Iterator[None]:
    """Inside it, `read_manifest` checks that files are there, and not their content."""
    token = _hashing.set(False)
    try:
        yield
    finally:
        _hashing.reset(token)


def hashing() -> bool:
    """True where `read_manifest` checks the content of files."""
    return _hashing.get()


def read_manifest(folder: Path, kind: str, remedy: str, verify: bool = True) -> dict[str, Any]:
    """Read a folder's manifest and check its files against it.

    Raises:
        UserError: the folder or manifest is missing, of another kind or schema, names a file
            outside the folder, or a file is missing or changed.
    """
    folder = Path(folder)
    verify = verify and _hashing.get()
    manifest = read_json(folder / MANIFEST, f"the manifest of the {kind}", remedy)
    if not isinstance(manifest, dict) or manifest.get("kind") != kind or manifest.get("schema") != SCHEMA:
        raise UserError(f"{folder} holds no {kind} of schema {SCHEMA}. {remedy}")
    if not isinstance(manifest.get("files"), dict):
        raise UserError(f"the manifest of {folder} is corrupt: it does not list its files. {remedy}")
    for name, expected in manifest["files"].items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"the manifest of {folder} names a file outside its folder: {name}. {remedy}")
        if not path.is_file():
            raise UserError(f"{folder} ({kind}) is incomplete: {name} is missing. {remedy}")
        if verify and file_hash(path) != expected:
            raise UserError(f"{folder} ({kind}) is corrupt: {name} is not the file that was written. {remedy}")
    return manifest
