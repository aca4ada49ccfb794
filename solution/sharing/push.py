"""`push`: a trained ensemble written to a folder, or to a repository of the hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from solution import __version__
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.files import atomic_folder, read_manifest, write_manifest, write_text
from solution.inference.trained import TrainedRanker
from solution.kaggle.items import Item
from solution.kaggle.parts import check_room, index_items, put, reranker_items, trained_rankers, weight_items
from solution.progress import say
from solution.sharing.card import card
from solution.sharing.place import ENSEMBLE, hub_errors, repository
from solution.weights import EXAMPLES
from solution.workdir import Workdir


@dataclass(frozen=True)
class Wishes:
    """What goes along with the weights, and who may see it.

    Attributes:
        index: the indexes with their passages.
        examples: questions of the exam that rankers show in their prompts.
        licence: an identifier of the hub's list.
        public: a repository that is made is one that everybody sees.
    """

    index: bool = False
    examples: bool = False
    licence: str | None = None
    public: bool = False


def push_ensemble(workdir: Workdir, target: str, wishes: Wishes) -> int:
    """Write adapters, heads, settings, ensemble.json, a model card and a manifest; never the exam's questions.

    Args:
        target: a folder (what an earlier push wrote there is replaced), or OWNER/NAME: a repository of the hub, made
            where it is not there.

    Returns:
        The number of bytes.

    Raises:
        UserError: the ensemble is not whole, rankers show the exam's questions, the folder holds something else, or
            the hub does not take it.
    """
    name = repository(target)
    folder = Path(target)
    if name is None:
        _check_folder(folder)
    rankers = trained_rankers(workdir)
    items = weight_items(workdir, rankers) + reranker_items(workdir, rankers)
    _refuse_examples(items, wishes)
    if wishes.index:
        items += index_items(workdir, rankers)
    if name is None:
        check_room(items, folder)
        with atomic_folder(folder) as temporary:
            _write(temporary, target, workdir, rankers, items, wishes)
    else:
        with tempfile.TemporaryDirectory(prefix="push-") as place, hub_errors(name):
            _write(Path(place), target, workdir, rankers, items, wishes)
            _upload(Path(place), name, wishes.public)
    return sum(item.source.stat().st_size for item in items)


def _check_folder(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    read_manifest(folder, ENSEMBLE, "Give a new folder: this one is there and is not one that push wrote.", False)


def _refuse_examples(items: Sequence[Item], wishes: Wishes) -> None:
    shown = sorted({item.target.split("/")[1] for item in items if item.source.name == EXAMPLES})
    if shown and not wishes.examples:
        raise UserError(
            f"{', '.join(shown)}: the prompt shows questions of the exam as examples, and they would be published. "
            "Allow it with --with-examples, or train without (prompt.few_shot=0)"
        )


def _write(
    folder: Path, target: str, workdir: Workdir, rankers: Sequence[TrainedRanker], items: Sequence[Item], wishes: Wishes
) -> None:
    put(items, folder)
    write_text(folder / "README.md", card(target, load_ensemble(workdir), rankers, wishes.licence, wishes.index))
    write_manifest(folder, ENSEMBLE, program=__version__)


def _upload(folder: Path, name: str, public: bool) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(name, private=not public, exist_ok=True)
    # One commit, which takes away what an earlier push had and this one has not.
    done = api.upload_folder(
        repo_id=name,
        folder_path=folder,
        commit_message=f"llm-science-exam {__version__}: push",
        delete_patterns=["weights/**", "cache/**"],
    )
    say(f"{done.commit_url}")
