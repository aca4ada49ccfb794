"""The files of an ensemble, each checked where it lies: what a bundle holds, and what is shared with others."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.files import link_or_copy, read_manifest
from solution.inference.trained import TrainedRanker, imported_rankers, read_rankers
from solution.kaggle.items import Item, folder_items
from solution.progress import say
from solution.retrieval.places import find_embedder, locate_all
from solution.retrieval.reranker.trained import Reranker
from solution.suggestions import program
from solution.workdir import Workdir


def trained_rankers(workdir: Workdir) -> list[TrainedRanker]:
    """The rankers that the ensemble uses, their weights checked."""
    ensemble = load_ensemble(workdir)
    imported = imported_rankers(ensemble)
    if imported:
        say(
            f"note: the ensemble uses {', '.join(imported)}, imported from another program, which does not come along: "
            f"where it is to answer, submit needs its answers as --add {imported[0]}=FILE (in a Kaggle kernel: edit "
            "the notebook)"
        )
    return read_rankers(workdir, ensemble, [], imported)


def weight_items(workdir: Workdir, rankers: Sequence[TrainedRanker]) -> list[Item]:
    """The ensemble file and the rankers' folds."""
    items = [Item(workdir.ensemble, "weights/ensemble.json")]
    for ranker in rankers:
        for folder in ranker.folders:
            items += folder_items(folder, f"weights/{ranker.name}/{folder.name}", link=False)
    return items


def reranker_items(workdir: Workdir, rankers: Sequence[TrainedRanker]) -> list[Item]:
    """The trained folds of the rerankers that are used."""
    folders: dict[Path, None] = {}
    for ranker in rankers:
        for retrieval in ranker.retrievals.values():
            if retrieval.reranker is not None:
                folders |= dict.fromkeys(Reranker(retrieval.reranker, workdir.root).folders)
    return [
        item for fold in folders for item in folder_items(fold, f"weights/{fold.parent.name}/{fold.name}", link=False)
    ]


def index_items(workdir: Workdir, rankers: Sequence[TrainedRanker]) -> list[Item]:
    """The indexes that the rankers' settings lead to, each checked."""
    kind_by_folder: dict[Path, str] = {}
    for ranker in rankers:
        for retrieval in ranker.retrievals.values():
            if retrieval.source != "index":
                continue
            embedder = find_embedder(retrieval, workdir.root)
            for view in ranker.config.contexts:
                for place in locate_all(retrieval, view, workdir.root, embedder):
                    kind_by_folder[place.folder] = place.kind.name
    items = []
    for folder, kind in kind_by_folder.items():
        read_manifest(folder, kind, f"Make it: {program()} index, with the --configs of its rankers.")
        items += folder_items(folder, f"cache/{folder.name}", link=True)
    return items


def put(items: Sequence[Item], folder: Path) -> None:
    """Link or copy each file to its place in the folder."""
    for item in items:
        target = folder / item.target
        if item.link:
            link_or_copy(item.source.resolve(), target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(item.source, target)


def check_room(items: Sequence[Item], output: Path) -> None:
    """Raise `UserError` where the files that must be copied do not fit on the output's disk."""
    place = next(folder for folder in output.resolve().parents if folder.exists())
    device = place.stat().st_dev
    needed = sum(
        item.source.stat().st_size for item in items if not item.link or item.source.resolve().stat().st_dev != device
    )
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(f"the files need {needed / 1e9:.1f} GB and {place} has {free / 1e9:.1f} GB free")
