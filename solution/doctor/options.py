"""The doctor's checks of the exam's options: those that name others, and those that a tokenizer cannot tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solution.config import RankerConfig, RetrievalConfig
from solution.doctor.examined import Examined
from solution.doctor.report import Finding
from solution.errors import UserError
from solution.exam import Exam
from solution.models import ready_model
from solution.option_references import naming_others
from solution.questions import Questions
from solution.rankers.alike import Alike, Groups, alike_options, by_letters, described


def named(examined: Examined) -> Iterator[Finding]:
    """Count the questions of which an option names others ("All of the above", "Both A and C")."""
    for path, exam in _exams(examined):
        if rows := naming_others(exam.options):
            yield Finding(
                "exam",
                str(path),
                "ok",
                f"{len(rows)} of {len(exam)} questions have an option that names others (first: id "
                f"{exam.ids[rows[0]]}); it keeps its place where options are shuffled or rotated",
            )


def _exams(examined: Examined) -> list[tuple[Path, Questions]]:
    """The exam to train on and the questions to answer, those of them that can be read."""
    to_answer = (examined.test.value or [None])[0]
    both = [(examined.workdir.questions, examined.exam.value), (examined.test_path, to_answer)]
    return [(path, questions) for path, questions in both if questions]


def read_alike(examined: Examined) -> Iterator[Finding]:
    """Count, for each ranker whose model is here, the questions of which it reads different options alike.

    A ranker that takes retrieval's scores reads with the embedder.
    """
    exams = [questions for _, questions in _exams(examined)]
    for config, retrievals in examined.by_name.values():
        if exams and config.traits.reads == "scores":
            for retrieval in retrievals.values():
                if retrieval.embedder.strip():
                    yield from _of_embedder(config, retrieval, exams, examined)
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
    yield from _told(config, exams, found)


def _of_embedder(
    config: RankerConfig, retrieval: RetrievalConfig, exams: list[Questions], examined: Examined
) -> Iterator[Finding]:
    try:
        tokenizer = examined.embedder(retrieval).tokenizer
        found = [by_letters(exam, _same_tokens(exam, tokenizer)) for exam in exams]
    except Exception:  # noqa: BLE001 - the checks of models tell what is wrong with the embedder
        return
    yield from _told(config, exams, found)


def _same_tokens(exam: Questions, tokenizer: Any) -> Groups:
    """The options of each question that are the same tokens to an embedder, see `alike_options`."""
    groups: Groups = {}
    for row, texts in enumerate(exam.options):
        there = [i for i, text in enumerate(texts) if text]
        ids = (
            tokenizer([texts[i] for i in there], add_special_tokens=False, verbose=False)["input_ids"] if there else []
        )
        if same := alike_options(texts, dict(zip(there, map(tuple, ids), strict=True))):
            groups[row] = same
    return groups


def _told(config: RankerConfig, exams: list[Questions], found: list[Alike]) -> Iterator[Finding]:
    for exam, alike in zip(exams, found, strict=True):
        if alike:
            yield Finding(
                "models",
                config.name,
                "warning",
                described(alike, len(exam)),
                "A ranker whose tokenizer keeps capitals and symbols apart would decide them.",
            )
