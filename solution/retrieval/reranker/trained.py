"""A trained reranker as it lies on disk, and its order of the passages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from solution.config import RERANKER, RerankerSettings, RetrievalConfig
from solution.device import free_memory
from solution.errors import UserError
from solution.exam import ContextPassage
from solution.files import MANIFEST, content_hash, read_json, read_manifest
from solution.folds import known_folds
from solution.learning import distributed
from solution.questions import Questions
from solution.retrieval.embedding import Embedder
from solution.retrieval.reranker.candidates import Candidates, in_order
from solution.suggestions import suggest
from solution.workdir import Workdir

RERANKER_WEIGHTS = "reranker's weights"
FACTS = "reranker.json"


class Reranker:
    """The trained models of all folds, or one cross-encoder that others have trained.

    Attributes:
        key: names the weights.
        float32_passages: how often in this process a passage's score overflowed in float16, and was computed again in
            float32.

    Raises:
        UserError: a fold is missing, corrupt, or was trained with other settings, folds or another base model.
    """

    float32_passages: ClassVar[int] = 0

    def __init__(self, settings: RerankerSettings, root: Path):
        self.settings = settings
        self._workdir = Workdir(Path(root))
        self._base = Embedder(settings.model, self._workdir.cache).fingerprint
        self.folders: list[Path] = []
        self._seen: list[frozenset[str]] = []
        if settings.trains:
            self._open()
        manifests = [(folder / MANIFEST).read_text(encoding="utf-8") for folder in self.folders]
        self.key = content_hash(settings.trained_hash(), self._base, manifests)

    def _open(self) -> None:
        """Check and take the folders of all folds; the first says how many there are."""
        remedy = f"Train it: {suggest(RERANKER, 'train')}"
        count = 1
        first: dict[str, Any] | None = None
        while len(self.folders) < count:
            folder = self._workdir.fold_weights(self.settings.name, len(self.folders))
            read_manifest(folder, RERANKER_WEIGHTS, remedy)
            facts = read_json(folder / FACTS, "the file of the reranker's settings", remedy)
            count = facts["about"]["folds"]
            self._check(folder, facts, remedy)
            made_of = {name: value for name, value in facts["about"].items() if name != "fold"}
            if made_of != (first := first or made_of):
                raise UserError(
                    f"the rerankers in {folder} and {self.folders[0]} were not trained on the same questions, "
                    f"folds and passages. {remedy}"
                )
            self.folders.append(folder)
            self._seen.append(frozenset(facts["seen"]))

    def _check(self, folder: Path, facts: dict[str, Any], remedy: str) -> None:
        now, then = self.settings.trained(), facts["settings"]
        if now != then:
            differences = ", ".join(
                f"{name} {then.get(name)!r} there and {now.get(name)!r} now"
                for name in sorted(now.keys() | then.keys())
                if now.get(name) != then.get(name)
            )
            raise UserError(f"the reranker in {folder} was trained with other settings: {differences}. {remedy}")
        if self._base != facts["about"]["base"]:
            raise UserError(
                f"the reranker in {folder} was trained on another base model than {self.settings.model} "
                f"({facts['about']['base']}, and this is {self._base}). {remedy}"
            )

    def models(self, questions: Questions) -> list[tuple[int, ...]]:
        """The folds whose models may rerank each question: those that were not trained on it.

        Raises:
            UserError: the folds have changed since the training, so that no model may.
        """
        if not self.folders:
            return [()] * len(questions)
        models = []
        folds = known_folds(questions, self._workdir.folds).tolist()
        for id_, print_, fold in zip(questions.ids, text_prints(questions), folds, strict=True):
            unseen = tuple(k for k, seen in enumerate(self._seen) if print_ not in seen)
            if fold >= 0:
                unseen = (fold,) if fold in unseen else ()
            if not unseen:
                raise UserError(
                    f"no reranker is left for question {id_}: "
                    f"{'the one of its fold' if fold >= 0 else 'every one'} was trained on it (the folds in "
                    f"{self._workdir.folds} have changed since). Train it again: {suggest(RERANKER, 'train')}"
                )
            models.append(unseen)
        return models

    def about(self, questions: Questions) -> dict[str, Any]:
        """All that decides the order of these questions' candidates, beside the candidates."""
        return {
            "weights": self.key,
            "candidates": self.settings.candidates,
            "keep_threshold": self.settings.keep_threshold,
            "models": content_hash(sorted(zip(questions.ids, self.models(questions), strict=True))),
        }

    def rerank(self, questions: Questions, candidates: Sequence[Candidates], cache: Path) -> list[list[ContextPassage]]:
        """The candidates of each question in the models' order, those below the threshold left out.

        A passage's new score is its share of the softmax over the question's candidates.
        """
        # Imported here: it loads torch, and whoever only asks for the key needs none.
        from solution.retrieval.reranker.cross_encoder import CrossEncoder

        lists = [question.read() for question in candidates]
        totals = [np.zeros(len(question.passages)) for question in candidates]
        model = CrossEncoder(self.settings, cache)
        models = self.models(questions)
        folders: list[Path | None] = [*self.folders] or [None]
        with distributed.alone():
            for fold, folder in enumerate(folders):
                rows = [row for row, allowed in enumerate(models) if fold in allowed or folder is None]
                if not rows:
                    continue
                if folder is not None:
                    model.load(folder)
                for row, scores in zip(rows, model.score([lists[row] for row in rows]), strict=True):
                    totals[row] += scores / max(1, len(models[row]))
        Reranker.float32_passages += model.float32_pairs
        del model
        free_memory()
        return [
            in_order(question.passages, scores, self.settings.keep_threshold)
            for question, scores in zip(candidates, totals, strict=True)
        ]


def rerankers_key(retrievals: Iterable[RetrievalConfig], root: Path) -> str | None:
    """A name of the weights of all rerankers of these retrievals; None where they have none.

    Raises:
        UserError: see `Reranker`.
    """
    settings = [each.reranker for each in retrievals if each.source == "index" and each.reranker is not None]
    keys = [Reranker(each, root).key for each in settings]
    if len(keys) > 1:
        return content_hash(keys)
    return keys[0] if keys else None


def text_prints(questions: Questions) -> list[str]:
    """A short hash of each question's text, whatever its id."""
    return [
        content_hash(prompt, options)[:12] for prompt, options in zip(questions.prompts, questions.options, strict=True)
    ]
