"""Training on other questions before the folds: once for a ranker, shared by its folds."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solution.config import PretrainingSettings, RankerConfig, RetrievalConfig, Run
from solution.device import free_memory
from solution.errors import UserError
from solution.exam import Exam, context_key
from solution.files import atomic_folder, content_hash
from solution.folds import repeated_questions
from solution.generation.exam import Wish
from solution.generation.stored import StoredExam
from solution.learning import distributed
from solution.learning.checkpoint import drop_checkpoint
from solution.learning.log import LOG, drop_log
from solution.progress import say
from solution.questions import SOURCE, Questions, read_questions
from solution.rankers.families import make_ranker
from solution.retrieval.contexts.build import build_views
from solution.tables import cell_text
from solution.training.unwatched import unwatched_settings
from solution.weights import PRETRAINED, close_folder, key_of_whole_folder, write_metrics
from solution.workdir import Workdir


@dataclass(frozen=True)
class Pretrained:
    """Weights that folds start from.

    Attributes:
        key: a hash of the settings, questions and contexts that they were trained with.
        folder: see `Ranker.save`.
    """

    key: str
    folder: Path


class PretrainingExams:
    """The questions of the rankers' pretraining, each file read once.

    Args:
        exam: the questions of the folds. One of them among those of the pretraining would make its OOF score too high.
    """

    def __init__(self, retrieval: RetrievalConfig, exam: Questions, workdir: Workdir):
        self._retrieval, self._exam, self._workdir = retrieval, exam, workdir
        self._read: dict[str, Questions] = {}

    def check(self, run: Run) -> None:
        """Raise one `UserError` for the questions of all rankers, before anything is made, retrieved or loaded."""
        problems = []
        for config in run.rankers:
            if config.pretraining is not None:
                try:
                    if config.pretraining.is_generated:
                        self.place(config.pretraining)
                    else:
                        _hidden(config, config.pretraining, _trained_on(config, run), self.of(config.pretraining))
                except UserError as error:
                    problems.append(f"{config.name}: {error}")
        if problems:
            raise UserError.join(problems, "pretraining cannot start")

    def place(self, settings: PretrainingSettings) -> StoredExam:
        """The place of generated questions. None of them is nearly one of the exam.

        Raises:
            UserError: there is no corpus.
        """
        if self._retrieval.source != "index":
            raise UserError(
                f"pretraining.questions=generated makes questions from the corpus, and retrieval.source is "
                f"{self._retrieval.source!r}: set it to index, or name a file of questions"
            )
        return StoredExam.of(self._retrieval, Wish(settings.generated_count, without=self._exam), self._workdir.cache)

    def of(self, settings: PretrainingSettings) -> Questions:
        """The questions of a pretraining; generated ones are made now where they are not there.

        Raises:
            UserError: they cannot be read or made, lack answers, or are questions of the exam.
        """
        name = str(self.place(settings).path) if settings.is_generated else settings.questions
        if name not in self._read:
            self._read[name] = self._generated(settings) if settings.is_generated else self._file(name)
        return self._read[name]

    def _generated(self, settings: PretrainingSettings) -> Questions:
        questions = distributed.main_first(self.place(settings).read)
        if len(questions) < settings.generated_count:
            say(f"note: {self._retrieval.corpus} gives {len(questions)} questions, not {settings.generated_count}")
        return questions

    def _file(self, name: str) -> Questions:
        questions = read_questions(Path(name))
        questions.require_answers(f"pretraining ({name})")
        if same := repeated_questions(questions, self._exam):
            raise UserError(
                f"{len(same)} questions of {name} (first: id {same[0]}) are questions of the exam, whose OOF scores "
                "would be too high. Remove them from the file"
            )
        return questions


def _trained_on(config: RankerConfig, run: Run) -> RetrievalConfig | None:
    """The retrieval whose contexts a ranker is trained on: the first that it reads; None: it reads none."""
    return next(iter(run.reads(config).values()), None)


def pretrained(config: RankerConfig, run: Run, workdir: Workdir, exams: PretrainingExams) -> Pretrained | None:
    """The weights that a ranker's folds start from, trained now where they are not there; None without pretraining.

    Raises:
        UserError: see `PretrainingExams.of`; the questions lack the column that `hide_source` needs; or see
            `Ranker.fit`.
    """
    settings = config.pretraining
    if settings is None:
        return None

    # The questions and what is retrieved for them. Some do not find the document that they were made from.
    questions, retrieval = exams.of(settings), _trained_on(config, run)
    hidden = _hidden(config, settings, retrieval, questions)
    contexts, views = None, config.contexts[:1]  # a ranker with several contexts is trained on the first
    if retrieval is not None:
        contexts = distributed.main_first(
            lambda: build_views(questions, retrieval, views, workdir.root, hidden),
        )
    exam = Exam.join(questions, None if contexts is None else contexts[views[0]])

    # What is trained already with the same settings and on the same texts is kept.
    stage = stage_settings(config, settings)
    keys = [context.key for context in (contexts or {}).values()] or ["none"]
    key = content_hash(stage.hash(), questions.content_hash(), context_key(keys))
    folder = workdir.pretrained(config.name)
    if distributed.from_main(lambda: key_of_whole_folder(folder, PRETRAINED)) == key:
        say(f"{config.name} pretraining: done already, nothing has changed")
    else:
        _train(stage, exam, workdir, key)
    return Pretrained(key, folder)


def _hidden(
    config: RankerConfig, settings: PretrainingSettings, retrieval: RetrievalConfig | None, questions: Questions
) -> list[str] | None:
    """See `hidden_sources`; None also where nothing is searched for the ranker."""
    searches = retrieval is not None and retrieval.source == "index"
    return hidden_sources(questions, settings, config.seed) if searches else None


def stage_settings(config: RankerConfig, settings: PretrainingSettings) -> RankerConfig:
    """The ranker's settings with those of the pretraining in the place of the folds' own."""
    learning_rate = settings.learning_rate or config.training.learning_rate
    training = unwatched_settings(config).training.model_copy(
        update={
            "epochs": settings.epochs,
            "learning_rate": learning_rate,
            "awp": None,
            "extra": [],
            "soft_labels": None,
        }
    )
    return config.model_copy(update={"training": training, "pretraining": None})


def hidden_sources(questions: Questions, settings: PretrainingSettings, seed: int) -> list[str] | None:
    """For each question the document to hide from its search, or ""; None where none is hidden.

    Raises:
        UserError: documents are to be hidden, and the file does not name them.
    """
    if settings.hide_source == 0:
        return None
    if SOURCE not in questions.extra:
        raise UserError(
            f"the questions of the pretraining, {settings.questions}, have no column `{SOURCE}` that names the "
            "document each was made from, so that this cannot be hidden: add the column, or set "
            "pretraining.hide_source to 0"
        )
    drawn = np.random.default_rng([seed, 11]).random(len(questions)) < settings.hide_source
    return [cell_text(source) if hide else "" for source, hide in zip(questions.extra[SOURCE], drawn, strict=True)]


def _train(stage: RankerConfig, exam: Exam, workdir: Workdir, key: str) -> None:
    """Train, and write the weights whole or not at all."""
    name = stage.name
    checkpoint, logs = workdir.pretraining_checkpoint(name), workdir.pretraining_logs(name)
    free_memory()
    ranker = make_ranker(stage, workdir.cache)
    facts = ranker.fit(exam, exam.subset([]), checkpoint, logs)
    if distributed.rank() == 0:
        with atomic_folder(workdir.pretrained(name)) as temporary:
            ranker.save(temporary)
            shutil.copyfile(logs / LOG, temporary / LOG)
            write_metrics(temporary, {"questions": len(exam), **facts})
            close_folder(temporary, key, PRETRAINED)
        drop_checkpoint(checkpoint)
        drop_log(logs)
    distributed.from_main(lambda: None)  # the other processes read what the first has written
    losses = facts["loss"][-20:]
    say(
        f"{name} pretraining: {len(exam)} questions, {facts['steps']} steps, {facts['train_seconds']:.0f} s, loss "
        f"{sum(losses) / len(losses):.3f} at the end"
    )


def start_from(ranker: object, weights: Pretrained | None, share: float | None = None) -> None:
    """Have a training go on from pretrained weights.

    Args:
        share: see `NeuralRanker.trained_share`; None: as it is.
    """
    if weights is None and share is None:
        return
    # Imported here: it loads torch, and a command checks its arguments and files first.
    from solution.rankers.neural import NeuralRanker

    if isinstance(ranker, NeuralRanker):
        if weights is not None:
            ranker.start = weights.folder
        if share is not None:
            ranker.trained_share = share
    else:
        assert weights is None
