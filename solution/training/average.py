"""One set of weights from a ranker's folds: their mean, which answers in their place (`answer_with: average`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solution.config import RankerConfig, Run
from solution.errors import UserError
from solution.files import atomic_folder, content_hash
from solution.progress import say
from solution.suggestions import suggest, typed_settings
from solution.weights import (
    FoldRecord,
    close_folder,
    key_of_checked_folder,
    key_of_whole_folder,
    mean_metrics,
    own_files,
    read_record,
    write_metrics,
    write_record,
)
from solution.workdir import Workdir

_SAFETENSORS = ".safetensors"


def average_folds(run: Run, workdir: Workdir, rank: int | None = None) -> None:
    """Write the mean of each ranker's folds beside them. No model is loaded.

    The mean of LoRA's changes is exact, with a rank as many times higher as there are folds; heads and whole weights
    are averaged. Rankers that are not trained as one model (no weights, trees) are left out.

    Args:
        rank: bring LoRA's changes to this rank; None: leave them as they are.

    Raises:
        UserError: a fold is not trained or not whole, the folds were made from different inputs, or the weights
            cannot be averaged (DoRA, files that differ: examples in the prompt).
    """
    for config in run.rankers:
        if not config.trains:
            say(f"{config.name}: has no weights that can be averaged, and answers with its folds")
        elif rank is not None and config.lora is None:
            raise UserError(f"{config.name} is trained whole (lora: null): --rank is for LoRA's changes")
        else:
            _average(config, run.ensemble.folds, workdir, rank)


def _average(config: RankerConfig, folds: int, workdir: Workdir, rank: int | None) -> None:
    name = config.name
    folders = [workdir.fold_weights(name, fold) for fold in range(folds)]
    again = suggest("train_fold", "--all-folds", "--ranker", name, *typed_settings(name))
    for fold, folder in enumerate(folders):
        if not folder.is_dir():
            raise UserError(f"{name}: fold {fold} of {folds} is not trained. Train all folds first: {again}")
    keys = [key_of_checked_folder(folder, f"Train it again: {again}") for folder in folders]
    records = [read_record(folder, f"Train it again: {again}") for folder in folders]
    if records[0]["about"].get("config") != config.hash():
        raise UserError(f"{name}: the folds were trained with other settings than those of now. Train again: {again}")
    about = _shared(records, name, again)
    if about["folds"] != folds:
        raise UserError(
            f"{name} was trained with {about['folds']} folds, and ensemble.folds is {folds}: set ensemble.folds to "
            f"{about['folds']}, or train again: {again}"
        )

    folder = workdir.average_weights(name)
    key = content_hash("average", about, records[0].get("retrievals"), rank, keys)
    if key_of_whole_folder(folder) == key:
        say(f"{name}: its {folds} folds are averaged already, nothing has changed")
        return
    with atomic_folder(folder) as temporary:
        settings, told = _write_mean(config, folders, temporary, rank)
        record: FoldRecord = {**records[0], "about": about, "config": settings}
        write_record(temporary, record)
        write_metrics(temporary, mean_metrics(folders))
        close_folder(temporary, key)
    say(f"{name}: {folds} folds averaged{told}")


def _shared(records: Sequence[FoldRecord], name: str, again: str) -> dict[str, Any]:
    """What all folds were made from."""
    abouts = [{key: value for key, value in record["about"].items() if key != "fold"} for record in records]
    if any(about != abouts[0] for about in abouts):
        raise UserError(
            f"{name}: its folds were made from different questions, contexts or settings. Train again: {again}"
        )
    return abouts[0]


def _write_mean(
    config: RankerConfig, folders: Sequence[Path], target: Path, rank: int | None
) -> tuple[dict[str, Any], str]:
    """Write the mean of the folders' weights.

    Returns:
        The settings that the weights are loaded with, as JSON holds them; what was lost, for a message.
    """
    # Imported here: both load torch, and settings and files are checked before that.
    from solution.learning import adapters, averaging

    settings, told = config.model_dump(mode="json"), ""
    for file in own_files(folders[0]):
        paths = [folder / file for folder in folders]
        if file == adapters.ADAPTER:
            lora, told = _write_adapter(config, paths, target / file, rank)
            settings["lora"] = lora
            _write_adapter_config(folders[0], target, lora)
        elif file.endswith(_SAFETENSORS):
            _save(averaging.mean_tensors([adapters.read_tensors(path) for path in paths]), target / file)
        elif file != "adapter_config.json":
            if len({path.read_bytes() for path in paths}) > 1:
                raise UserError(
                    f"{config.name}: its folds cannot be averaged, since {file} differs between them (examples in the "
                    "prompt are of a fold's own questions). Let the folds answer, or train on all questions: --full"
                )
            shutil.copyfile(paths[0], target / file)
    return settings, told


def _write_adapter(
    config: RankerConfig, paths: Sequence[Path], target: Path, rank: int | None
) -> tuple[dict[str, Any], str]:
    """Write the mean adapter; returns its LoRA settings and what was lost, for a message."""
    # Imported here: both load torch, as in `_write_mean`.
    from solution.learning import adapters, averaging

    assert config.lora is not None, "an adapter is of LoRA"
    adapter = averaging.mean_adapter([adapters.read_tensors(path) for path in paths])
    lora = averaging.widened(config.lora, len(paths))
    told = f", LoRA of rank {lora.r}"
    if rank is not None:
        if config.lora.rank_pattern or rank > lora.r:
            raise UserError(
                f"{config.name}: --rank must be at most {lora.r}, that of the exact mean, and goes with no "
                "lora.rank_pattern"
            )
        adapter, lost = averaging.compressed(adapter, rank)
        scale = (rank / lora.r) ** (0.5 if lora.use_rslora else 1)
        alphas = {name: alpha * scale for name, alpha in lora.alpha_pattern.items()}
        lora = lora.model_copy(update={"r": rank, "lora_alpha": lora.lora_alpha * scale, "alpha_pattern": alphas})
        told = f", LoRA brought to rank {rank}: {lost:.1%} of the length of its changes is lost"
    _save(adapter, target)
    values: dict[str, Any] = lora.model_dump(mode="json")
    return values, told


def _write_adapter_config(source: Path, target: Path, lora: dict[str, Any]) -> None:
    """PEFT's file of the adapter, for those who load it without this package."""
    values = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    values |= {name: lora[name] for name in ("r", "lora_alpha", "rank_pattern", "alpha_pattern")}
    (target / "adapter_config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")


def _save(tensors: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path)
