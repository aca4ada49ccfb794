"""The doctor's check of the questions that rankers are pretrained on."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from solution.config import PretrainingSettings
from solution.doctor.examined import Examined
from solution.doctor.report import Finding, guarded
from solution.questions import Questions
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
