"""The model card of a pushed ensemble: what it is, how well it does, what it was made from, how to use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from solution import __version__
from solution.ensemble.record import EnsembleRecord
from solution.ensemble.rows import ScoreRow
from solution.inference.trained import TrainedRanker
from solution.models import may_be_hub_name

_LICENCE_NOTE = """\
An adapter is a change of its base model, whose licence holds for it too: see the pages of the base models above. The
questions and passages that it learnt from have licences of their own, which these weights may carry on."""


def card(
    name: str, record: EnsembleRecord, rankers: Sequence[TrainedRanker], licence: str | None, with_index: bool
) -> str:
    """The text of README.md, with the metadata that the hub reads.

    Args:
        name: how it is pulled: OWNER/NAME, or a folder.
        licence: an identifier of the hub's list; None: it is left open.
        with_index: whether the passages come along.
    """
    from huggingface_hub import ModelCardData

    models = {ranker.config.model: ranker.config for ranker in rankers if ranker.config.has_model}
    about = ModelCardData(
        base_model=sorted(model for model in models if may_be_hub_name(model)) or None,
        library_name="peft" if models else None,
        license=licence or "other",
        tags=["multiple-choice", "question-answering", "llm-science-exam"],
    )
    parts = [
        f"---\n{about.to_yaml()}\n---\n# {Path(name).name}",
        f"An ensemble of [LLM Science Exam](https://pypi.org/project/llm-science-exam/) {__version__} that ranks the "
        "options of multiple-choice questions. It answers with:",
        "\n".join(_ranker_line(ranker, record) for ranker in rankers),
        f"## Use\n\n```\n{_commands(name, rankers, with_index)}\n```",
        "## How well it does\n\nOut of fold: every question was answered by models that had not seen it. The intervals "
        f"are 95 % bootstrap intervals over questions. {record['reason']}",
        _table(record["table"]),
        f"## Data\n\n{_data(record, rankers, with_index)}",
        f"## Licence\n\n{_LICENCE_NOTE}",
    ]
    return "\n\n".join(parts) + "\n"


def shown_model(model: str) -> str:
    """A model's name; of a folder only the last part: the rest of the path tells nothing to others."""
    return model if may_be_hub_name(model) or ":" in model else Path(model).name


def _ranker_line(ranker: TrainedRanker, record: EnsembleRecord) -> str:
    config = ranker.config
    model = f", on {shown_model(config.model)}" if config.has_model else ""
    weight = record["weights"].get(ranker.name, 0.0)
    return f"- `{ranker.name}`: {config.family}{model}, {len(ranker.folders)} trained folders, weight {weight:.3f}"


def _commands(name: str, rankers: Sequence[TrainedRanker], with_index: bool) -> str:
    local = [
        f" {ranker.name}.model=/path/to/{shown_model(ranker.config.model)}"
        for ranker in rankers
        if ranker.config.has_model and shown_model(ranker.config.model) != ranker.config.model
    ]
    lines = [f"llm-science-exam pull {name} my_ensemble"]
    if any(retrieval.source == "index" for ranker in rankers for retrieval in ranker.retrievals.values()):
        lines += [] if with_index else ["# The rankers read passages: name their corpus as retrieval.corpus=FILE."]
    return "\n".join([*lines, f"llm-science-exam submit --workdir my_ensemble --questions test.csv{''.join(local)}"])


def _table(rows: Sequence[ScoreRow]) -> str:
    lines = ["| ranker or blend | MAP@3 | 95 % interval | first is right | log loss |", "|---|---|---|---|---|"]
    for row in rows:
        title = f"**{row['name']}** (this one)" if row["shipped"] else row["name"]
        span = "" if row["low"] is None or row["high"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        lines.append(f"| {title} | {row['map3']:.4f} | {span} | {row['precision1']:.3f} | {row['log_loss']:.3f} |")
    return "\n".join(lines)


def _data(record: EnsembleRecord, rankers: Sequence[TrainedRanker], with_index: bool) -> str:
    corpora = {
        Path(str(retrieval.corpus)).name
        for ranker in rankers
        for retrieval in ranker.retrievals.values()
        if retrieval.source == "index"
    }
    lines = [f"The questions are not part of it, only the hash of questions and folds: `{record['questions']}`."]
    if corpora:
        where = "their passages are in `cache/`" if with_index else "they are not part of it"
        lines.append(f"Corpora: {', '.join(f'`{name}`' for name in sorted(corpora))}; {where}.")
    return " ".join(lines)
