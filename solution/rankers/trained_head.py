"""Whether a checkpoint holds the head that a ranker would use as it is: its tensors are looked at by name and shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solution.config import RankerConfig
from solution.errors import UserError
from solution.gguf_models import is_gguf
from solution.models import empty_model, hub_cache_folder, locate_model, weight_files

# The parts of multiple-choice models that a pretrained encoder does not bring, or brings without the rest of a head:
# those of BERT, DeBERTa, RoBERTa, MPNet, DistilBERT, ELECTRA, XLNet.
NEW = ("classifier", "pooler", "pre_classifier", "sequence_summary", "logits_proj")
_BIN = "pytorch_model.bin"

Shapes = dict[str, tuple[int, ...]]


def stored_shapes(folder: Path) -> Shapes:
    """The shapes of a checkpoint's tensors, by name. Of safetensors files the headers are read; PyTorch's own are
    opened without their numbers where their form allows it.

    Raises:
        UserError: a file is missing or corrupt.
    """
    if list(folder.glob("model*.safetensors")):
        # Imported here: `stored_weights` loads torch, and this module is imported before a command is checked.
        from solution.rankers.stored_weights import Weights

        return Weights.of_model(str(folder), None).shapes
    index = folder / f"{_BIN}.index.json"
    shapes: Shapes = {}
    for name in weight_files(index) if index.is_file() else [_BIN]:
        shapes |= {key: tuple(value.shape) for key, value in _opened(folder / name).items() if hasattr(value, "shape")}
    return shapes


def _opened(path: Path) -> Mapping[str, Any]:
    import torch

    for mapped in (True, False):  # files of old versions cannot be mapped
        try:
            return torch.load(path, map_location="meta" if mapped else "cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # noqa: BLE001 - torch raises many kinds for a file that it cannot read
            problem = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(f"the weights {path} are missing or corrupt ({problem}); fetch the model again")


def missing_head(source: str, revision: str | None, auto_class: str = "AutoModelForMultipleChoice") -> list[str]:
    """The tensors of the head that the checkpoint does not hold, or holds in another shape.

    Args:
        source: the model's folder, or a hub name in the hub's cache.
        auto_class: the transformers class by which the model is loaded.

    Raises:
        UserError: the checkpoint cannot be read, or transformers knows no such model of its architecture.
    """
    import torch
    import transformers

    folder = Path(source) if Path(source).is_dir() else hub_cache_folder(source, revision)
    if folder is None:
        raise UserError(f"the model {source} is not in the hub's cache")
    if not (list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))):
        raise UserError(f"the model folder {folder} is incomplete: it has no weights. Fetch the model again.")
    stored = stored_shapes(folder)
    try:
        options = {"revision": revision} if revision and not Path(source).is_dir() else {}
        model = empty_model(getattr(transformers, auto_class), source, dtype=torch.float32, **options)
    except (OSError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())[:300]
        raise UserError(f"the model {source} has no form with a head for multiple choice ({text})") from None
    head = {name: tuple(value.shape) for name, value in model.state_dict().items() if set(NEW) & set(name.split("."))}
    # A checkpoint may have been saved with or without the name of the body in front.
    prefix = f"{model.base_model_prefix}."
    return [
        name for name, shape in head.items() if shape not in (stored.get(name), stored.get(name.removeprefix(prefix)))
    ]


def check_head(config: RankerConfig) -> None:
    """Refuse a ranker that is not trained and would answer at random, since its head is new.

    A hub model that is not in the hub's cache yet is looked at when it is loaded.

    Raises:
        UserError: its head is new; or the model cannot be found or read.
    """
    if config.trains or config.merged or not config.has_model:
        return
    if config.generative:
        if config.head == "last_token":
            raise UserError(
                "head last_token is new, and with training.epochs=0 it would answer at random; set training.epochs to "
                "1 or more, or head to likelihood (zero-shot)"
            )
        return
    place = locate_model(config.model, config.revision)
    if is_gguf(Path(place)):
        return  # a decoder: it is refused when it is loaded
    if isinstance(place, str) and hub_cache_folder(place, config.revision) is None:
        return
    if missing := missing_head(str(place), config.revision):
        raise UserError(
            f"{config.model} has no trained head for multiple choice (it would be new: {', '.join(missing)}), and with "
            "training.epochs=0 it would answer at random; set training.epochs to 1 or more, or name a model that was "
            "trained for multiple choice"
        )
