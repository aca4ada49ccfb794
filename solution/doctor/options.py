"""The doctor's check of the exam's options: those that a ranker's tokenizer cannot tell apart."""

from __future__ import annotations

from collections.abc import Iterator

from solution.config import RankerConfig
from solution.doctor.examined import Examined
from solution.doctor.report import Finding
from solution.errors import UserError
from solution.exam import Exam
from solution.models import ready_model
from solution.questions import Questions
from solution.rankers.alike import by_letters, described


def read_alike(examined: Examined) -> Iterator[Finding]:
    """Count, for each ranker whose model is here, the questions of which it reads different options alike."""
    exams = [questions for questions in (examined.exam.value, (examined.test.value or [None])[0]) if questions]
    for config, _ in examined.by_name.values():
        if not exams or not config.has_model:
            continue
        try:
            ready = ready_model(config.model, examined.workdir.cache, config.revision)
        except UserError:
            continue  # `folder.models` tells it
        if ready is not None:
            yield from _of_ranker(config, exams, examined)


def _of_ranker(config: RankerConfig, exams: list[Questions], examined: Examined) -> Iterator[Finding]:
    # Imported here: it loads torch, and the doctor's other checks must also run where torch is broken.
    from solution.inference.outline import empty_ranker

    try:
        ranker = empty_ranker(config, examined.workdir.cache)
        found = [by_letters(exam, ranker.find_alike(Exam.join(exam, None))) for exam in exams]
    except Exception as error:  # noqa: BLE001 - a model that cannot be built is one line, and the other checks go on
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        yield Finding("models", config.name, "warning", f"it is not known whether its tokenizer fits the exam: {text}")
        return
    for exam, alike in zip(exams, found, strict=True):
        if alike:
            yield Finding(
                "models",
                config.name,
                "warning",
                described(alike, len(exam)),
                "A ranker whose tokenizer keeps capitals and symbols apart would decide them.",
            )
