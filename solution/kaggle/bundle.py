"""A folder to upload to Kaggle: all that a kernel without a network needs to install this program and to submit."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import solution
from solution.demo.exam import EXAM
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.files import atomic_folder, link_or_copy, read_manifest, write_json, write_manifest
from solution.files import write_text as write
from solution.inference.trained import imported_rankers, read_ensemble
from solution.kaggle.base_models import base_models
from solution.kaggle.items import Item, folder_items
from solution.kaggle.kernel import BUNDLE, COMPETITION, is_bundle
from solution.kaggle.upload import SUBMIT, dataset_metadata, kernel_metadata, notebook, readme
from solution.kaggle.wheels import Wheels, download, needed_packages, wheel_files
from solution.packages import faiss_extra, requirements
from solution.progress import say
from solution.questions import Questions, read_questions, write_questions
from solution.retrieval import index, lexical
from solution.retrieval.reranker.trained import NAME as RERANKER
from solution.retrieval.reranker.trained import Reranker
from solution.workdir import Workdir

NAME, USER = "science-exam-bundle", "your-kaggle-name"
SAMPLE = 20
# www.kaggle.com/docs/datasets, technical specifications: 200 GB a data set, and as much for all private ones together.
DATASET_BYTES = 200 * 10**9
_SLUG = re.compile(r"[a-z0-9](-?[a-z0-9])*")
_NAME_LENGTHS = range(6, 51)  # of a data set's title and slug, by its metadata's documentation


def make_bundle(
    workdir: Workdir,
    output: Path,
    configs: Path,
    wheels: Wheels,
    name: str = NAME,
    user: str = USER,
    competition: str = COMPETITION,
    with_models: bool = True,
) -> dict[str, int]:
    """Write the bundle of the ensemble in `workdir`, whole or not at all.

    Args:
        output: the folder to write; a bundle that is there is replaced.
        configs: its YAML files are put in, when it is there (what a kernel runs was stored when it was trained).
        name: the slug of the data set and of the kernel.
        user: their owner on Kaggle.
        with_models: False: the base models are left out, and come to the kernel on another way.

    Returns:
        The bytes of each part.

    Raises:
        UserError: no ensemble, weights or index that fit together, a model that cannot be found, a name that Kaggle
            does not take, a folder that would be overwritten, wheels that cannot be had, or a full disk.
    """
    _check_names(name, user, competition, wheels)
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not is_bundle(output))):
        raise UserError(f"--output {output} is there and is not a bundle; give another folder")
    rankers = _trained_rankers(workdir)
    needed = None if wheels.left_out or wheels.folder else needed_packages(wheels)
    items = _weights(workdir, rankers) + _reranker(workdir, rankers) + _indexes(workdir, rankers) + _code(configs)
    if wheels.folder is not None:
        items += wheel_files(wheels.folder)
    models = base_models(workdir, rankers, with_models)
    items += models.items
    _check_room(items, output)
    with atomic_folder(output) as temporary:
        for item in items:
            target = temporary / item.target
            if item.link:
                link_or_copy(item.source.resolve(), target)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(item.source, target)
        if needed is not None:
            download(needed, wheels, temporary / "wheels")
        write_questions(temporary / "sample.csv", _sample(workdir))
        write(temporary / "submit.py", SUBMIT)
        write(temporary / "requirements.txt", "".join(f"{each}\n" for each in requirements(faiss_extra())))
        write(temporary / "README.md", readme(output, name, user, competition, models, wheels))
        write_json(temporary / "submission.ipynb", notebook())
        write_manifest(
            temporary,
            BUNDLE,
            program=solution.__version__,
            name=name,
            user=user,
            competition=competition,
            python=None if wheels.left_out else wheels.python,
            skipped=sorted(needed.skipped) if needed else [],
            models=models.places,
            missing=models.missing,
        )
        # Kaggle's tool reads these two and uploads neither, so the manifest does not list them.
        write_json(temporary / "dataset-metadata.json", dataset_metadata(name, user))
        write_json(temporary / "kernel-metadata.json", kernel_metadata(name, user, competition))
        sizes = _sizes(temporary)
    for place, command in models.missing.items():
        say(f"note: {place} is not in the bundle. Before the upload run, in {output}: {command}")
    total = sum(sizes.values())
    if total > DATASET_BYTES:
        say(
            f"warning: {total / 1e9:.0f} GB, and Kaggle takes {DATASET_BYTES / 1e9:.0f} GB a data set (and for all "
            "private ones together): leave the models out with --no-models, upload them as data sets of their own, and "
            "name their folders as settings in the notebook (RANKER.model=/kaggle/input/...)"
        )
    if user == USER:
        say(f"note: {USER} stands for your name on Kaggle in the two metadata files; give it with --user")
    return sizes


def _check_names(name: str, user: str, competition: str, wheels: Wheels) -> None:
    if not _SLUG.fullmatch(name) or len(name) not in _NAME_LENGTHS:
        raise UserError(
            f"--name {name!r}: Kaggle takes {_NAME_LENGTHS.start} to {_NAME_LENGTHS.stop - 1} small letters and "
            "digits, with single hyphens between them"
        )
    for option, text in (("--user", user), ("--competition", competition)):
        if not _SLUG.fullmatch(text.lower()):
            raise UserError(f"{option} {text!r}: give the name as it stands in its address on Kaggle")
    if not re.fullmatch(r"3\.\d+", wheels.python):
        raise UserError(f"--python {wheels.python!r}: give the kernel's version as 3.12")
    if wheels.left_out and (wheels.folder or wheels.skip):
        raise UserError("--no-wheels leaves all packages out; give neither --wheels nor --skip with it")
    if wheels.folder and wheels.skip:
        raise UserError("--skip says what is not downloaded, and --wheels that nothing is; give one of them")


def _trained_rankers(workdir: Workdir) -> list[Any]:
    """The rankers that the ensemble uses (`inference.submit.TrainedRanker`), their weights checked."""
    imported = imported_rankers(load_ensemble(workdir))
    if imported:
        say(
            f"note: the ensemble uses {', '.join(imported)}, imported from another program: in the kernel its answers "
            f"are needed as --add {imported[0]}=FILE (edit the notebook)"
        )
    return read_ensemble(workdir, [], imported)[1]


def _weights(workdir: Workdir, rankers: Sequence[Any]) -> list[Item]:
    items = [Item(workdir.ensemble, "weights/ensemble.json")]
    for ranker in rankers:
        for folder in ranker.folders:
            items += folder_items(folder, f"weights/{ranker.name}/{folder.name}", link=False)
    return items


def _reranker(workdir: Workdir, rankers: Sequence[Any]) -> list[Item]:
    """The trained folds of the reranker, where one is used."""
    folders: dict[Path, None] = {}
    for ranker in rankers:
        if ranker.retrieval is not None and ranker.retrieval.reranker is not None:
            folders |= dict.fromkeys(Reranker(ranker.retrieval.reranker, workdir.root).folders)
    return [item for each in folders for item in folder_items(each, f"weights/{RERANKER}/{each.name}", link=False)]


def _indexes(workdir: Workdir, rankers: Sequence[Any]) -> list[Item]:
    """The indexes that the rankers' settings lead to, each checked."""
    found: dict[Path, str] = {}
    for ranker in rankers:
        if ranker.retrieval is None or ranker.retrieval.source != "index":
            continue
        embedder = index.find_embedder(ranker.retrieval, workdir.root)
        for view in ranker.config.contexts:
            config = ranker.retrieval.view(view)
            if config.uses_vectors:
                found[index.locate_index(config, workdir.root, embedder).folder] = index.KIND
            if "lexical" in config.retrievers:
                found[lexical.locate_lexical(config, workdir.root, embedder).folder] = lexical.KIND
    items = []
    for folder, kind in found.items():
        read_manifest(folder, kind, "Make it: python -m solution index, with the --configs of its rankers.")
        items += folder_items(folder, f"cache/{folder.name}", link=True)
    return items


def _code(configs: Path) -> list[Item]:
    package = Path(solution.__file__).parent
    files = [path for path in sorted(package.rglob("*")) if path.suffix in (".py", ".csv") and path.is_file()]
    items = [Item(path, f"solution/{path.relative_to(package).as_posix()}") for path in files]
    items += [
        Item(path, path.name) for path in (package.parent / "setup.cfg", package.parent / "LICENSE") if path.is_file()
    ]
    return items + [Item(path, f"configs/{path.name}") for path in sorted(configs.glob("*.yaml"))]


def _sample(workdir: Workdir) -> Questions:
    """A few questions without their answers, to try the bundle on: the exam's own where it is there."""
    places = [workdir.root / "test.csv", workdir.root / "questions.csv", EXAM]
    questions = read_questions(next(path for path in places if path.is_file()))
    return questions.subset(range(min(SAMPLE, len(questions)))).without_answers()


def _check_room(items: Sequence[Item], output: Path) -> None:
    place = next(folder for folder in output.resolve().parents if folder.exists())
    device = place.stat().st_dev
    needed = sum(
        item.source.stat().st_size for item in items if not item.link or item.source.resolve().stat().st_dev != device
    )
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(f"the bundle needs {needed / 1e9:.1f} GB and {place} has {free / 1e9:.1f} GB free")


def _sizes(folder: Path) -> dict[str, int]:
    """The bytes of each folder of the bundle; the program and what stands beside it is one part."""
    sizes = dict.fromkeys(("wheels", "models", "cache", "weights", "configs", "program"), 0)
    for path in folder.rglob("*"):
        if path.is_file():
            part = path.relative_to(folder).parts[0]
            sizes[part if part in sizes else "program"] += path.stat().st_size
    return sizes
