"""A folder to upload to Kaggle: all that a kernel without a network needs to install this program and to submit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import solution
from solution.demo.exam import EXAM
from solution.errors import UserError
from solution.files import (
    MANIFEST,
    atomic_folder,
    read_json,
    write_json,
    write_manifest,
    write_text,
)
from solution.inference.bfloat16 import overflow_warning
from solution.inference.trained import TrainedRanker
from solution.kaggle.base_models import Models, base_models
from solution.kaggle.items import Item
from solution.kaggle.kernel import BUNDLE, is_bundle
from solution.kaggle.parts import check_room, index_items, put, reranker_items, trained_rankers, weight_items
from solution.kaggle.public import public_hash
from solution.kaggle.upload import (
    ANSWER,
    SUBMIT,
    USER,
    Address,
    Contents,
    dataset_metadata,
    kernel_metadata,
    notebook,
    readme,
)
from solution.kaggle.wheels import Wheels, download, lacking_packages, needed_packages, torch_build, wheel_files
from solution.packages import Closure, requirements
from solution.progress import say
from solution.questions import Questions, read_questions, write_questions
from solution.shipped_configs import configs_folder, has_configs
from solution.workdir import Workdir

SAMPLE = 20
"""Questions to try a bundle on."""
# www.kaggle.com/docs/datasets, technical specifications: 200 GB a data set, and as much for all private ones together.
DATASET_BYTES = 200 * 10**9


def make_bundle(
    workdir: Workdir,
    output: Path,
    configs: Path,
    wheels: Wheels,
    address: Address,
    with_models: bool = True,
    public: Questions | None = None,
) -> dict[str, int]:
    """Write the bundle of the ensemble in `workdir`, whole or not at all.

    Args:
        output: the folder to write; a bundle that is there is replaced.
        configs: its YAML files are put in, when it is there (what a kernel runs was stored when it was trained).
        with_models: False: the base models are left out, and come to the kernel on another way.
        public: the competition's public questions, on which a kernel only proves every ranker; None: those of the
            bundle that is replaced, where it is of the same competition.

    Returns:
        The bytes of each part.

    Raises:
        UserError: no ensemble, weights or index that fit together, a model that cannot be found, a name that Kaggle
            does not take, a folder that would be overwritten, wheels that cannot be had, or a full disk.
    """
    # What is asked for, before anything large is read.
    address.check()
    wheels.check()
    _check_output(output)

    # The parts, each checked where it lies.
    rankers = trained_rankers(workdir)
    packages = None if wheels.left_out or wheels.folder else needed_packages(wheels)
    items = (
        weight_items(workdir, rankers)
        + reranker_items(workdir, rankers)
        + index_items(workdir, rankers)
        + _code(configs)
    )
    if wheels.folder is not None:
        items += wheel_files(wheels.folder)
    models = base_models(workdir, rankers, with_models)
    items += models.items
    check_room(items, output)

    known = hash_before(output, address) if public is None else public_hash(public)

    # The folder, under another name until it is whole.
    with atomic_folder(output) as folder:
        put(items, folder)
        if packages is not None:
            download(packages, wheels, folder / "wheels")
        write_questions(folder / "sample.csv", _sample(workdir))
        write_text(folder / "submit.py", SUBMIT)
        write_text(folder / "answer.py", ANSWER)
        write_text(folder / "requirements.txt", "".join(f"{line}\n" for line in requirements(wheels.faiss)))
        contents = _contents(folder, wheels, models, packages, known)
        write_text(folder / "README.md", readme(output.name, address, contents))
        write_json(folder / "submission.ipynb", notebook())
        _write_manifest(folder, address, contents)
        # Kaggle's tool reads these two and uploads neither, so the manifest does not list them.
        write_json(folder / "dataset-metadata.json", dataset_metadata(address))
        write_json(folder / "kernel-metadata.json", kernel_metadata(address))
        sizes = _sizes(folder)
    _tell(output, address, contents, sum(sizes.values()))
    _tell_overflows(rankers)
    return sizes


def _tell_overflows(rankers: Sequence[TrainedRanker]) -> None:
    """Name the rankers that may overflow in the kernel's number format."""
    for ranker in rankers:
        if text := overflow_warning(ranker.config, ranker.folders):
            say(f"note: {ranker.name}: {text}")


def _check_output(output: Path) -> None:
    """Raise `UserError` where the folder to write holds anything but a bundle: it is replaced whole."""
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not is_bundle(output))):
        raise UserError(f"--output {output} is there and is not a bundle; give another folder")


def hash_before(output: Path, address: Address) -> str | None:
    """The hash of the public questions that the replaced bundle knows; None: none, or of another competition."""
    if not is_bundle(output):
        return None
    before = read_json(output / MANIFEST, "the manifest of the bundle that is replaced", f"Delete {output}.")
    known = before.get("public") if before.get("competition") == address.competition else None
    if known is not None:
        say(f"note: the public questions are those of the bundle that was in {output} (--public-test names others)")
    return str(known) if known is not None else None


def _contents(folder: Path, wheels: Wheels, models: Models, packages: Closure | None, known: str | None) -> Contents:
    """What there is to say of a bundle.

    Args:
        folder: with the wheels in it.
        packages: those that were downloaded; None: none were.
        known: the hash of the competition's public questions.
    """
    if packages is not None:
        skipped = sorted(packages.skipped)
    else:
        skipped = [] if wheels.left_out else lacking_packages(folder / "wheels", wheels)
    return Contents(wheels, models, skipped, torch_build(folder / "wheels"), known)


def _write_manifest(folder: Path, address: Address, contents: Contents) -> None:
    """Write what a kernel reads of its bundle (see `kernel.read_bundle`), and the hash of every file."""
    wheels, models = contents.wheels, contents.models
    write_manifest(
        folder,
        BUNDLE,
        program=solution.__version__,
        name=address.name,
        user=address.user,
        competition=address.competition,
        python=None if wheels.left_out else wheels.python,
        skipped=contents.skipped,
        models=models.places,
        missing=models.missing,
        public=contents.public_hash,
    )


def _tell(output: Path, address: Address, contents: Contents, size: int) -> None:
    """Say what is to be known before the upload.

    Args:
        size: bytes of the whole bundle.
    """
    for place, command in contents.models.missing.items():
        say(f"note: {place} is not in the bundle. Before the upload run, in {output}: {command}")
    if contents.torch is not None:
        say(f"note: {contents.torch}; with an older one the kernel computes on the CPU (`nvidia-smi` there shows it)")
    if contents.wheels.folder is not None and contents.skipped:
        say(f"note: {contents.wheels.folder} has no wheel of these, so the kernel must: {', '.join(contents.skipped)}")
    if contents.public_hash is None:
        say(
            "note: the competition's public questions are not known, so a kernel answers every file whole. With "
            '--public-test test.csv "Save and run all" proves every ranker on a sample of them, in minutes'
        )
    if size > DATASET_BYTES:
        say(
            f"warning: {size / 1e9:.0f} GB, and Kaggle takes {DATASET_BYTES / 1e9:.0f} GB a data set (and for all "
            "private ones together): leave the models out with --no-models, upload them as data sets of their own, and "
            "name their folders as settings in the notebook (RANKER.model=/kaggle/input/...)"
        )
    if address.user == USER:
        say(f"note: {USER} stands for your name on Kaggle in the two metadata files; give it with --user")


def _code(configs: Path) -> list[Item]:
    """This program, what installs it, and the settings."""
    package = Path(solution.__file__).parent
    files = [path for path in sorted(package.rglob("*")) if path.suffix in (".py", ".csv") and path.is_file()]
    items = [Item(path, f"solution/{path.relative_to(package).as_posix()}") for path in files]
    items += [
        Item(path, path.name) for path in (package.parent / "setup.cfg", package.parent / "LICENSE") if path.is_file()
    ]
    settings = sorted(configs_folder(configs).glob("*.yaml")) if has_configs(configs) else []
    return items + [Item(path, f"configs/{path.name}") for path in settings]


def _sample(workdir: Workdir) -> Questions:
    """A few questions without their answers, to try the bundle on: the exam's own where it is there."""
    places = [workdir.test, workdir.questions, EXAM]
    questions = read_questions(next(path for path in places if path.is_file()))
    return questions.subset(range(min(SAMPLE, len(questions)))).without_answers()


def _sizes(folder: Path) -> dict[str, int]:
    """The bytes of each folder of the bundle; the program and what stands beside it is one part."""
    sizes = dict.fromkeys(("wheels", "models", "cache", "weights", "configs", "program"), 0)
    for path in folder.rglob("*"):
        if path.is_file():
            part = path.relative_to(folder).parts[0]
            sizes[part if part in sizes else "program"] += path.stat().st_size
    return sizes
