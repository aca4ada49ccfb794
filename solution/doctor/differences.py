"""The settings that trained weights were made with, compared with those of now."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from solution.config import RankerConfig, RetrievalConfig, Run
from solution.errors import UserError
from solution.training.prepared import retrievals_hash
from solution.weights import FoldRecord, read_record, read_retrievals, trained_folders
from solution.workdir import Workdir


def settings_difference(record: FoldRecord, config: RankerConfig, run: Run) -> str:
    """The names of the first settings of now that differ from those of a trained fold; "" where none does."""
    same = record["about"]["config"] == config.hash()
    if same and record["about"].get("retrieval") == retrievals_hash(run.reads(config)):
        return ""
    changed = _changed(_settings_of(record), _with_retrievals(config, run.reads(config)))
    if changed:
        return ", ".join(changed[:3]) + (" ..." if len(changed) > 3 else "")
    return "" if same else "this version of the program has more of them"


def _settings_of(record: FoldRecord) -> dict[str, Any]:
    """A fold's settings; one that its version of this program did not know has its default."""
    return _with_retrievals(RankerConfig.model_validate(record["config"]), read_retrievals(record))


def _with_retrievals(config: RankerConfig, retrievals: Mapping[str, RetrievalConfig]) -> dict[str, Any]:
    """The settings that a ranker's answers depend on, those of the retrievals that it reads in the place of their
    names."""
    values = config.counting_values()
    dumped = {name: each.model_dump(mode="json") for name, each in retrievals.items()}
    if len(dumped) == 1:
        values["retrieval"] = next(iter(dumped.values()))  # its name decides nothing
    elif dumped:
        values |= {"retrieval": list(dumped), "retrievals": dumped}
    return values


def _changed(before: Any, now: Any, prefix: str = "") -> list[str]:
    """The dotted names of settings that differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [prefix.removesuffix(".")]
    names = sorted({*before, *now})
    return [path for name in names for path in _changed(before.get(name), now.get(name), f"{prefix}{name}.")]


def with_lora_of_folds(record: FoldRecord, workdir: Workdir, config: RankerConfig) -> FoldRecord:
    """The record of the mean of a ranker's folds with the LoRA settings of the folds: those of the mean have a higher
    rank."""
    lora = config.model_dump(mode="json")["lora"]
    for folder in trained_folders(workdir, config.name):  # they need not be there
        with contextlib.suppress(UserError, OSError, KeyError, TypeError):
            fold = read_record(folder, "")
            if fold["about"]["config"] == record["about"]["config"]:
                lora = fold["config"]["lora"]
                break
    return {**record, "config": {**record["config"], "lora": lora}}
