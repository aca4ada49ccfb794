"""The doctor's checks of the questions that rankers learn from beside the exam's."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from solution.config import PretrainingSettings, RankerConfig
from solution.doctor.examined import Examined
from solution.doctor.report import Finding, guarded
from solution.questions import Questions
from solution.training.extra import ExtraFiles, extra_questions, folds_near, told
from solution.training.pretraining import PretrainingExams


def pretraining(examined: Examined) -> Iterator[Finding]:
    run = examined.run.value
    if run is None:
        return
    exam = examined.exam.value
    # Without the exam there is nothing that the questions could repeat.
    known = exam if exam is not None else Questions([], [], [], np.zeros(0, dtype=np.int64))
    exams = PretrainingExams(run.retrieval, known, examined.workdir)
    for config in run.rankers:
        if config.pretraining is not None:
            check = functools.partial(_questions, config.name, config.pretraining, exams)
            yield from guarded("pretraining", config.name, check)


def _questions(name: str, settings: PretrainingSettings, exams: PretrainingExams) -> Iterator[Finding]:
    if not settings.is_generated:
        questions = exams.of(settings)
        yield Finding("pretraining", name, "ok", f"{len(questions)} questions of {settings.questions}, all answered")
        return
    place = exams.place(settings)
    if place.is_made:
        yield Finding("pretraining", name, "ok", f"{len(place.read())} questions made from the corpus, in {place.path}")
    else:
        found = f"up to {settings.generated_count} questions are made from the corpus when it is trained first"
        yield Finding("pretraining", name, "ok", found)


def extra(examined: Examined) -> Iterator[Finding]:
    run = examined.run.value
    files = ExtraFiles()
    for config in run.rankers if run is not None else ():
        if config.training.extra:
            yield from guarded("extra questions", config.name, functools.partial(_extra, config, examined, files))


def _extra(config: RankerConfig, examined: Examined, files: ExtraFiles) -> Iterator[Finding]:
    for settings in config.training.extra:
        found = f"{len(files.of(settings))} questions of {settings.questions}, weight {settings.weight:g}"
        yield Finding("extra questions", config.name, "ok", found)
    run, exam = examined.run.value, examined.exam.value
    if run is not None and exam is not None:
        questions, _ = extra_questions(config, files)
        near = folds_near(questions, exam, np.zeros(len(exam), dtype=np.int64), run.ensemble)
        yield Finding("extra questions", config.name, "ok", told(config, questions, near))
