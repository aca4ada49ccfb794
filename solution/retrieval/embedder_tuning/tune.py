"""The tuning of an embedder: a model folder for `retrieval.embedder`, and what it gains on questions held out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import EmbedderTuning, RetrievalConfig
from solution.errors import UserError
from solution.exam import passage_text
from solution.files import (
    MANIFEST,
    atomic_folder,
    content_hash,
    read_json,
    read_manifest,
    sweep_leftovers,
    write_manifest,
)
from solution.progress import say
from solution.questions import SOURCE, Questions
from solution.retrieval.embedder_tuning.pairs import SourcedQuestion, Texts, mine, option_columns, part, passage_columns
from solution.retrieval.embedder_tuning.training import check_packages, train
from solution.retrieval.embedding import Embedder
from solution.retrieval.gold import Gold, judge
from solution.retrieval.search import Indexes
from solution.workdir import Workdir

TUNED = "tuned embedder"
"""The kind of manifest of a model folder that is written here."""
_TEXTS = (".json", ".txt", ".model")  # settings and tokenizers


def tune_embedder(
    questions: Questions, config: RetrievalConfig, workdir: Workdir, output: Path, settings: EmbedderTuning
) -> dict[str, Any]:
    """Train the embedder of the settings on questions made from the corpus, and write it to `output`, whole or not at
    all. A folder that holds the same training already is kept.

    The exam must not be among the questions: the contexts of a question would be made by a model that has seen it.

    Returns:
        The manifest: `before` and `after`, see `gold.judge`, of the questions held out among `pool` passages.

    Raises:
        UserError: the questions do not fit the corpus (see `pairs.mine`), a package is missing, or `output` holds
            something else.
    """
    check_output(output)
    check_packages()
    indexes = Indexes(config, workdir.root)
    key = content_hash(
        indexes.dense_place.key, questions.content_hash(), list(map(str, questions.extra.get(SOURCE, []))),
        config.query, settings.model_dump(mode="json"),
    )  # fmt: skip
    stored = _stored(output)
    if stored is not None and stored.get("key") == key:
        say(f"{output}: tuned already, nothing has changed")
        return stored

    found = mine(questions, config, indexes, settings)
    learnt, held_out = part(found, questions, settings)
    columns: dict[str, Texts] = {"passages": passage_columns(learnt, questions, config, indexes)}
    options = option_columns(learnt, questions, indexes, settings.seed) if settings.options else None
    if options is not None:
        columns["options"] = options

    trial = _HeldOut(questions, config, indexes, held_out)
    before = trial.judged(indexes.embedder)
    model = indexes.embedder.model
    losses = train(model, columns, settings)
    if not np.isfinite(losses).all():
        raise UserError("the loss is not a number: give a lower --learning-rate")
    after = trial.judged(indexes.embedder)
    facts = {
        "key": key,
        "base": {"name": Path(config.embedder).name, "fingerprint": indexes.embedder.fingerprint},
        "settings": settings.model_dump(mode="json"),
        "learnt": len(learnt),
        "held_out": len(held_out),
        "pool": len(trial.pool),
        "before": before,
        "after": after,
        "loss": [round(float(np.mean(part)), 4) for part in (losses[:20], losses[-20:])],
    }
    with atomic_folder(output) as temporary:
        _write_model(indexes.embedder, temporary)
        write_manifest(temporary, TUNED, **facts)
    return facts


def _write_model(embedder: Embedder, folder: Path) -> None:
    """Write the base model's own files with the weights as they are now.

    A model that the library saves by itself has another tokenizer file: ours was mended, and cut at fewer tokens.
    """
    base, model = embedder.folder(), embedder.model
    for place, module in zip(embedder.modules(), model, strict=True):
        (folder / place).mkdir(parents=True, exist_ok=True)
        if any((base / place).glob("*.safetensors")):
            with tempfile.TemporaryDirectory() as scratch:
                module.save(scratch)
                for path in sorted(Path(scratch).glob("*.safetensors*")):
                    shutil.copyfile(path, folder / place / path.name)
    for place in {"", *embedder.modules()}:
        for path in (base / place).glob("*"):
            if path.is_file() and path.suffix in _TEXTS and not path.name.endswith(".safetensors.index.json"):
                shutil.copyfile(path, folder / place / path.name)


def check_output(output: Path) -> None:
    """Raise `UserError` where the folder to write is there and holds anything but a tuned embedder."""
    if output.parent.is_dir():
        sweep_leftovers(output.parent, output.name)
    if output.exists() and not (output.is_dir() and (not any(output.iterdir()) or _is_tuned(output))):
        raise UserError(f"--output {output} is there and is not a tuned embedder; name another folder")


def _is_tuned(folder: Path) -> bool:
    try:
        manifest = read_json(folder / MANIFEST, "", "")
    except (UserError, OSError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == TUNED


def _stored(folder: Path) -> dict[str, Any] | None:
    """The manifest of a whole tuned embedder; None where it is not there or not whole."""
    try:
        return read_manifest(folder, TUNED, "")
    except UserError:
        return None


class _HeldOut:
    """The questions held out, and the passages among which each is to find its source.

    Attributes:
        pool: rows of the index: the sources, and the passages that the untuned embedder puts highest.
    """

    def __init__(
        self, questions: Questions, config: RetrievalConfig, indexes: Indexes, held_out: Sequence[SourcedQuestion]
    ):
        self._questions = questions.subset([question.row for question in held_out])
        self._config, self._indexes = config, indexes
        self.pool = sorted({row for question in held_out for row in (question.source, *question.near)})
        self._gold = Gold(self._questions, SOURCE)
        self._queries = passage_columns(held_out, questions, config, indexes)["anchor"]

    def judged(self, embedder: Embedder) -> dict[str, Any]:
        """Recall and MRR, see `gold.judge`, of an embedder as it is now."""
        passages = self._indexes.dense.passages.take(self.pool)
        prefix, batch = embedder.prefix(query=True), self._config.batch_size
        queries = embedder.encode([query.removeprefix(prefix) for query in self._queries], batch, query=True)
        vectors = embedder.encode([passage_text(passage) for passage in passages], batch)
        order = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :10]  # [questions, 10]
        return judge(self._gold, [[passages[place] for place in places] for places in order.tolist()])
