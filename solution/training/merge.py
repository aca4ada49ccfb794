"""A trained fold as a stand-alone model: LoRA added to the base weights; tokenizer, head and settings beside it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import ValidationError

from solution.config import RankerConfig
from solution.config_files import apply_overrides, parse_overrides
from solution.demo.exam import EXAM
from solution.device import Device, free_memory
from solution.errors import UserError
from solution.exam import Exam
from solution.files import atomic_folder, read_json, read_manifest, sweep_leftovers, write_manifest
from solution.folds import question_prints, same_print
from solution.frames import ShownAsTable, frame
from solution.models import MERGED
from solution.progress import say
from solution.questions import Questions, read_questions
from solution.rankers.families import check_models, make_ranker
from solution.suggestions import suggest
from solution.training.extra import ExtraFiles
from solution.weights import NOT_THE_MODEL, check_folder, read_record
from solution.workdir import Workdir

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from solution.rankers.neural import NeuralRanker

Dtype = Literal["float32", "bfloat16"]
BYTES = {"float32": 4, "bfloat16": 2}
PROBES = 4
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
"""The most that an option's probability may move between adapter and merged model: rounding, and no more."""


@dataclass(frozen=True, repr=False)
class Merged(ShownAsTable):
    """A merged model on disk.

    Attributes:
        folder: loadable by transformers' AutoModel classes.
        settings: the ranker's YAML in it.
        size: bytes.
        difference: the largest difference of an option's probability from the adapter's, on the probes.
    """

    folder: Path
    settings: Path
    size: int
    difference: float

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return frame([{**vars(self), "folder": str(self.folder), "settings": str(self.settings)}])


def merge_fold(
    workdir: Workdir, name: str, fold: int, output: Path, dtype: Dtype = "float32", overrides: Sequence[str] = ()
) -> Merged:
    """Write the ranker of one trained fold as a model of its own, and check that it answers as the adapter did.

    It is merged on the CPU, in `dtype`. 4-bit base weights (QLoRA) are taken back to `dtype` as they
    are, rounding included: the adapter was trained on them and makes up for their rounding.

    Args:
        output: a folder that is not there yet.
        overrides: `key.path=value` texts for the settings that the fold was trained with (a model that moved).

    Raises:
        UserError: the fold is not trained or not with LoRA, `output` exists, the base model cannot be
            had, the disk is too small, or the merged model says something else.
    """
    changes = parse_overrides(overrides)
    if output.exists():
        raise UserError(f"the output {output} exists already; give a folder that is not there yet")
    folder = workdir.fold_weights(name, fold)
    train = suggest("train_fold", "--ranker", name, "--fold", str(fold))
    if not folder.is_dir():
        raise UserError(f"the ranker {name} has no trained fold {fold} in {workdir.weights}. Train it first: {train}")
    remedy = f"Train it again: {train}"
    check_folder(folder, remedy)
    record = read_record(folder, remedy)
    config = _checked_settings(name, apply_overrides(record["config"], changes), folder)
    check_models([config])
    return _merge(config, record["about"], folder, output, dtype, workdir)


def _checked_settings(name: str, values: dict[str, Any], folder: Path) -> RankerConfig:
    """The settings of a trained fold; raises `UserError` where there is no adapter to merge."""
    try:
        config = RankerConfig.model_validate(values)
    except ValidationError as error:
        text = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(f"the settings of the ranker {name} are wrong: {text}") from None
    if not config.trains:
        raise UserError(f"the ranker {name} is not trained (family {config.family}): there is nothing to merge")
    if config.lora is None:
        raise UserError(
            f"the ranker {name} was trained without lora: its whole weights are in {folder / 'model.safetensors'}, "
            "and there is nothing to merge"
        )
    if config.likelihood_prior != "none":
        raise UserError(
            f"the ranker {name} takes out what its model finds likely without the adapter (likelihood_prior), and a "
            f"merged model is none without it. The adapter in {folder} can be used as it is."
        )
    return config


def _merge(
    config: RankerConfig, about: dict[str, Any], folder: Path, output: Path, dtype: Dtype, workdir: Workdir
) -> Merged:
    """See `merge_fold`; `about` is of the fold in `folder`."""
    # A stuck or killed merge leaves only temporary folders behind.
    if output.parent.is_dir():
        sweep_leftovers(output.parent, output.name)

    # The adapter's answers to a few questions, and the model with LoRA's products added to its weights.
    probes = probe_exam(config)
    ranker = _cpu_ranker(config, dtype, workdir)
    ranker.merging = True
    ranker.load(folder)
    say(f"{config.name}: merging in {dtype} on the CPU")
    before = ranker.predict(probes)  # [probes, options]
    model = ranker.model.merge_and_unload().to(_torch_dtype(dtype))
    _check_disk(output, sum(p.numel() for p in model.parameters()) * BYTES[dtype])

    with atomic_folder(output) as temporary:
        _write_model(model, ranker, folder, temporary)
        del model, ranker  # two models in memory would be one too many
        free_memory()
        merged = _merged_settings(config, output)
        settings = temporary / f"{merged.name}.yaml"
        settings.write_text(_yaml(merged, output, about), encoding="utf-8")
        write_manifest(temporary, MERGED, ranker=config.name, about=about, seen=_seen(config, workdir, about["fold"]))

        # Read back from disk, it must answer as the adapter did; else nothing is left of it.
        after = _cpu_ranker(merged.model_copy(update={"model": str(temporary)}), dtype, workdir).predict(probes)
        difference = float(np.abs(after - before).max())
        if not difference <= TOLERANCE[dtype]:
            raise UserError(
                f"the merged model does not say what the adapter says: an option's probability differs by "
                f"{difference:.2g}, and rounding explains {TOLERANCE[dtype]:g}. Nothing was written. The adapter in "
                f"{folder} can be used as it is."
            )
        size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
    free_memory()
    return Merged(output, output / settings.name, size, difference)


def _torch_dtype(dtype: Dtype) -> torch.dtype:
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def _cpu_ranker(config: RankerConfig, dtype: Dtype, workdir: Workdir) -> NeuralRanker[Any]:
    """The ranker of the settings, not loaded yet, that computes on the CPU in `dtype`."""
    # Imported here: it loads torch, and settings and files are checked before that.
    from solution.rankers.neural import NeuralRanker

    ranker = make_ranker(config, workdir.cache)
    assert isinstance(ranker, NeuralRanker)
    ranker.device = Device("cpu", _torch_dtype(dtype))
    return ranker


def _write_model(model: Any, ranker: NeuralRanker[Any], folder: Path, target: Path) -> None:
    """Write a merged model and its tokenizer, with the head and whatever else the fold keeps beside its adapter."""
    model.save_pretrained(target)
    ranker.tokenizer.save_pretrained(target)
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("adapter_") and path.name not in NOT_THE_MODEL:
            shutil.copy(path, target)


def _merged_settings(config: RankerConfig, output: Path) -> RankerConfig:
    """The settings with which the merged model in `output` is a ranker: scored, and not trained."""
    return config.model_copy(
        update={
            "name": f"{config.name[:57]}_merged",
            "model": str(output.resolve()),
            "revision": None,
            "merged": True,
            "lora": None,
            "quantization": None,
            "pretraining": None,
            "training": config.training.model_copy(update={"epochs": 0, "extra": [], "soft_labels": None}),
        }
    )


def probe_exam(config: RankerConfig) -> Exam:
    """The built-in exam's first questions, closed-book, with option scores of 0 where the ranker asks for some."""
    questions = read_questions(EXAM).subset(range(PROBES))
    zeros = np.zeros(questions.exists().shape, dtype=np.float32)
    return Exam(questions, [[] for _ in range(PROBES)], {config.option_score: zeros}).hidden()


def _check_disk(output: Path, needed: int) -> None:
    place = next(parent for parent in output.resolve().parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"the merged model needs about {needed / 2**30:.1f} GiB, and {place} has {free / 2**30:.1f} GiB free. "
            "Give another --output, or --dtype bfloat16."
        )


def _yaml(config: RankerConfig, output: Path, about: dict[str, Any]) -> str:
    values = config.model_dump(mode="json") | {"training": {"epochs": 0}}
    return (
        f"# python train_fold.py --config {output.resolve() / config.name}.yaml --fold {about['fold']}\n"
        f"# The ranker {about['ranker']}, trained without fold {about['fold']} of {about['folds']}, as a model of its "
        "own. It is scored and not trained. Questions that it was trained on are refused.\n"
        + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)
    )


def _seen(config: RankerConfig, workdir: Workdir, fold: int) -> dict[str, Any]:
    """The column by which questions were grouped, and the prints of those that the fold's ranker was trained on."""
    column, prints = None, []
    if workdir.folds.is_file():
        stored = read_json(workdir.folds, "the folds file", "Bring it back, or remove it.")
        column = stored["settings"]["group_column"]
        prints = [stored["print"][id_] for id_, its in sorted(stored["fold"].items()) if its != fold]
    else:
        say(f"note: {workdir.folds} is not there, so that the merged model cannot know which questions it has seen")
    for settings in config.training.extra:
        try:
            prints += question_prints(ExtraFiles().of(settings), column).values()
        except UserError as error:
            say(f"note: the merged model cannot know which questions of {settings.questions} it has seen: {error}")
    return {"group_column": column, "prints": prints}


def refuse_seen(config: RankerConfig, questions: Questions) -> None:
    """Raise `UserError` where a merged ranker would be scored on questions that it was trained on."""
    manifest = read_manifest(Path(config.model), MERGED, "", verify=False)
    seen = manifest["seen"]
    known = set(seen["prints"])
    prints = question_prints(questions, seen["group_column"])
    rows = [id_ for id_, print_ in prints.items() if same_print(print_, known)]
    if rows:
        raise UserError(
            f"{config.name}: {config.model} was trained on {len(rows)} of these {len(questions)} questions "
            f"(first: id {rows[0]}), so that their OOF scores would flatter. Of its own exam it may score fold "
            f"{manifest['about']['fold']} only; another exam it may score whole."
        )
