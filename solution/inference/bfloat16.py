"""Rankers trained in bfloat16 that a GPU without it will compute in float16, where they may overflow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from solution.config import RankerConfig
from solution.errors import UserError
from solution.models import hub_cache_folder, locate_model
from solution.weights import has_metrics, read_metrics

WITHOUT = "a GPU without bfloat16 (T4, P100)"
_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}  # as safetensors calls them


def overflow_warning(config: RankerConfig, folders: Sequence[Path], where: str = WITHOUT) -> str | None:
    """The warning of a ranker that was trained in bfloat16; None where float16 is no danger to it, or is not used.

    Args:
        folders: of its trained folds.
        where: the place that computes in float16.
    """
    by_itself = config.precision == "auto" and config.traits.float16
    if not config.has_model or not (by_itself or config.precision == "float16"):
        return None
    if stored_format(config.model, config.revision) == "bfloat16":
        reason = f"{config.model} is stored in bfloat16"
    elif any(" in bfloat16" in place for place in _computed_on(folders)):
        reason = "it was trained here in bfloat16"
    else:
        return None
    return (
        f"{reason}: on {where} it computes in float16, whose largest number is 65504, and may overflow. Questions that "
        f"do are scored again in float32, which takes longer; training stops with an error ({config.name}.precision="
        "float32 trains it all the same)"
    )


def stored_format(spec: str, revision: str | None = None) -> str | None:
    """The number format in which a model's files are stored, such as "bfloat16"; None where that cannot be read here.

    config.json tells it, by today's name or by the former one; where it does not, most of the stored tensors do.
    """
    try:
        place = locate_model(spec, revision)
        folder = place if isinstance(place, Path) else hub_cache_folder(spec, revision)
        if folder is None or not folder.is_dir():
            return None
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for part in (config, config.get("text_config") or {}):
            if name := part.get("dtype") or part.get("torch_dtype"):
                return str(name).removeprefix("torch.")
        return _format_of_tensors(folder)
    except (UserError, OSError, ValueError, AttributeError):
        return None  # the checks of the models tell what is wrong with their files


def _format_of_tensors(folder: Path) -> str | None:
    """The most frequent number format in the header of the first safetensors file."""
    for path in sorted(folder.glob("*.safetensors"))[:1]:
        with open(path, "rb") as stream:
            header: dict[str, Any] = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        kinds = Counter(about["dtype"] for name, about in header.items() if name != "__metadata__")
        known = [kind for kind, _ in kinds.most_common() if kind in _NAMES]
        return _NAMES[known[0]] if known else None
    return None


def _computed_on(folders: Sequence[Path]) -> Iterator[str]:
    """What each fold was trained on, such as "cuda in bfloat16"."""
    for folder in folders:
        if has_metrics(folder):
            yield str(read_metrics(folder, "").get("computed_on", ""))
