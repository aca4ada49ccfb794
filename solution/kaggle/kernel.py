"""Kaggle's folders: where a kernel finds its bundle and its questions, and where it may write.

A kernel reads what is attached to it below `/kaggle/input`: a data set as `input/SLUG` or `input/datasets/USER/SLUG`,
a competition's files as `input/NAME` or `input/competitions/NAME`. It may write to `/kaggle/working`, which is kept as
its output, and to `/kaggle/temp`, which is not.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.files import MANIFEST, content_hash, read_json, read_manifest
from solution.suggestions import program
from solution.workdir import Workdir

BUNDLE = "Kaggle bundle"
ROOT = "SOLUTION_KAGGLE_ROOT"
"""The environment variable that names another folder than /kaggle."""
COMPETITION = "kaggle-llm-science-exam"
TEST = "test.csv"
"""The competition's file of questions."""
_DEPTH = 4


def kernel_root() -> Path | None:
    """The folder with `input/`, `working/` and `temp/`; None outside of a kernel."""
    root = Path(os.environ.get(ROOT) or "/kaggle")
    return root if (root / "input").is_dir() else None


def _below(folder: Path, name: str) -> Iterator[Path]:
    """Files of this name a few folders deep: data sets may hold very many files, so the search stops there."""
    for depth in range(1, _DEPTH + 1):
        yield from sorted(folder.glob("/".join([*"*" * depth, name])))


def is_bundle(folder: Path) -> bool:
    try:
        manifest = read_json(folder / MANIFEST, "", "")
    except (UserError, OSError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == BUNDLE


def find_bundle(root: Path) -> Path | None:
    """The bundle among the data sets that are attached to a kernel.

    Raises:
        UserError: there are several.
    """
    bundles = [path.parent for path in _below(root / "input", MANIFEST) if is_bundle(path.parent)]
    if len(bundles) > 1:
        names = ", ".join(map(str, bundles))
        raise UserError(f"several bundles are attached: {names}. Name one with --workdir, or detach the others")
    return bundles[0] if bundles else None


def find_questions(root: Path, bundle: Path, competition: str) -> Path:
    """The competition's test.csv.

    Raises:
        UserError: there is none, or several and not one of that competition.
    """
    files = [path for path in _below(root / "input", TEST) if bundle not in path.parents]
    candidates = [path for path in files if competition in path.parts] or files
    if len(candidates) != 1:
        what = f"several {TEST} ({', '.join(map(str, candidates))})" if candidates else f"no {TEST}"
        raise UserError(
            f"{what} in {root / 'input'}: attach the competition {competition} as the kernel's input, or name the "
            "questions with --questions FILE"
        )
    return candidates[0]


@dataclass(frozen=True)
class Place:
    """The files and folders that a submission reads and writes, and its settings.

    Attributes:
        questions: None: the one that was asked for, or WORKDIR/test.csv.
        overrides: `key.path=value` texts, the bundle's own before those asked for.
        public_hash: in a kernel, `public.public_hash` of the competition's public questions; None: not known.
    """

    workdir: Workdir
    questions: Path | None
    output: Path
    overrides: list[str]
    public_hash: str | None = None


def find_place(workdir: Path | None, questions: Path | None, output: Path | None, overrides: Sequence[str]) -> Place:
    """Fill in what was not asked for: in a kernel from the bundle and the competition, elsewhere by the defaults.

    A kernel without `--workdir` uses its bundle, unless it stands in a folder that holds an ensemble of its own.

    Raises:
        UserError: several bundles, no questions, or a model that the bundle lacks.
    """
    root = kernel_root()
    bundle = workdir if workdir is not None and is_bundle(workdir) else None
    if root is not None and workdir is None and not Workdir(Path()).ensemble.exists():
        bundle = find_bundle(root)
    if bundle is None:
        return Place(Workdir.existing(workdir or Path()), questions, output or Path("submission.csv"), list(overrides))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all that is needed is there: nothing waits for a hub
    bundle = bundle.resolve()
    manifest = read_bundle(bundle, verify=False)
    settings = model_settings(bundle, manifest, overrides)
    if root is not None:
        questions = questions or find_questions(root, bundle, manifest["competition"])
        output = output or root / "working" / "submission.csv"
    elif questions is None:
        questions = bundle / "sample.csv"
    scratch = root / "temp" if root is not None else Path(tempfile.gettempdir()) / f"llm-science-exam-{os.getuid()}"
    return Place(
        writable_workdir(bundle, scratch),
        questions,
        output or Path("submission.csv"),
        [*settings, *overrides],
        manifest.get("public") if root is not None else None,
    )


def read_bundle(bundle: Path, verify: bool = True) -> dict[str, Any]:
    """A bundle's manifest.

    Raises:
        UserError: see `files.read_manifest`; or an entry is missing or of another form than a bundle's.
    """
    remedy = f"Make the bundle again: {program()} bundle, and upload it again."
    manifest = read_manifest(bundle, BUNDLE, remedy, verify)
    try:
        names = [manifest[key] for key in ("name", "user", "competition")]
        whole = all(re.fullmatch(r"[\w-]+", name) for name in names)
        whole = whole and all(map(_inside, [*manifest["models"].values(), *manifest["missing"]]))
        whole = whole and re.fullmatch(r"3\.\d+", manifest["python"] or "3.0") is not None
        whole = whole and all(isinstance(name, str) for name in manifest["skipped"])
        # An older version of this program kept none.
        whole = whole and re.fullmatch(r"[0-9a-f]{16}", manifest.get("public") or "0" * 16) is not None
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UserError(f"the manifest of {bundle} is corrupt. {remedy}")
    return manifest


def _inside(place: object) -> bool:
    """Whether a path of the manifest stays inside the bundle."""
    return isinstance(place, str) and not Path(place).is_absolute() and ".." not in Path(place).parts


def model_settings(bundle: Path, manifest: dict[str, Any], overrides: Sequence[str] = ()) -> list[str]:
    """The settings that lead to the bundle's own models, but those that are among `overrides`.

    Raises:
        UserError: a model is not there.
    """
    typed = {text.partition("=")[0].strip() for text in overrides}
    settings = []
    for key, place in manifest["models"].items():
        if key in typed:
            continue
        if not (bundle / place / "config.json").is_file():
            how = manifest["missing"].get(place)
            fetch = f"where there is a network run `{how}` in the bundle's folder, and upload it again" if how else ""
            raise UserError(
                f"the bundle {bundle} lacks the model {place}: {fetch or 'make it again'}; or give its folder as a "
                f"setting: {key}=/path/to/the/model"
            )
        settings.append(f"{key}={json.dumps(str(bundle / place))}")
    return settings


def writable_workdir(bundle: Path, scratch: Path) -> Workdir:
    """A working folder in `scratch` whose weights and indexes are the bundle's, which is only read.

    The bundle's folders are linked; the contexts that a submission makes are written beside the links. The same bundle
    gets the same folder again, so a submission that was killed goes on.
    """
    workdir = Workdir(scratch / f"{bundle.name}-{content_hash(str(bundle), read_json(bundle / MANIFEST, '', ''))}")
    workdir.cache.mkdir(parents=True, exist_ok=True)
    links = {workdir.weights: bundle / "weights"}
    links |= {workdir.cache / path.name: path for path in (bundle / "cache").glob("*") if path.is_dir()}
    for link, target in links.items():
        if not link.is_symlink():
            link.symlink_to(target, target_is_directory=True)
    return workdir
