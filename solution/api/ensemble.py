"""A trained ensemble, loaded: it ranks, explains and predicts."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from solution.api.evaluation import scores_of
from solution.api.inputs import ExamLike, Settings, read_exam, setting_texts
from solution.api.results import Answered, Ranking, Scores
from solution.api.wording import worded
from solution.formats.items import Reading
from solution.frames import ShownAsTable, frame
from solution.interactive.answers import Explanation
from solution.interactive.explaining import Explainer
from solution.interactive.loaded import LoadedEnsemble
from solution.interactive.question import one_question
from solution.memory import parse_memory

if TYPE_CHECKING:
    import pandas as pd


@worded
def load(
    workdir: str | Path,
    *,
    memory: str | int | None = None,
    rankers: Collection[str] | None = None,
    settings: Settings | None = None,
    warm: bool = True,
) -> Ensemble:
    """The ensemble of a working folder, its indexes opened and its models in memory.

    It answers as `submit` does; see `weights/ensemble.json` for which weights answer and how they are blended.

    Args:
        workdir: the working folder of `train` and `tune`, or of `demo` or `exam`.
        memory: how much may be used, of the GPU or else of the machine: "4GiB", or bytes. Rankers that do not fit
            together are loaded anew for each question. None: what is free.
        rankers: names of those that are asked; the weights of these keep their proportions. None: all.
        settings: settings of the rankers (NAME.key) and of retrieval that take the place of those that they were
            trained with, where they may.
        warm: answer a first question now, so that the next one does not wait for what libraries do only once.

    Raises:
        UserError: there is no ensemble, or no ranker of it can answer; a name or a setting is wrong.
    """
    size = parse_memory(str(memory)) if memory is not None else None
    return Ensemble(LoadedEnsemble.open(workdir, size, rankers, setting_texts(settings), warm))


class Ensemble(ShownAsTable):
    """An ensemble that answers questions; made by `load`. Calls from several threads wait for each other.

    It is a context manager: `with solution.load("demo_run") as ensemble:` gives its memory back at the end.
    """

    def __init__(self, loaded: LoadedEnsemble):
        self._loaded = loaded

    @functools.cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self._loaded)

    @property
    def rankers(self) -> tuple[str, ...]:
        """The names of the rankers that answer, and of those whose scores they read."""
        return tuple(ranker.name for ranker in self._loaded.trained)

    @worded
    def rank(self, prompt: str, options: Sequence[str], context: str | None = None) -> Ranking:
        """The options of a question, the best first.

        Args:
            options: 2 to 26 texts.
            context: the text to read, of an ensemble whose `retrieval.source` is `column`; others search for theirs.

        Raises:
            UserError: the question or an option is empty, there are too few or too many, or no ranker can answer.
        """
        question = one_question(prompt, options, context)
        return Ranking.of(question, self._loaded.ask(question).blended)

    @worded
    def explain(self, prompt: str, options: Sequence[str], context: str | None = None) -> Explanation:
        """The answer to a question with its reasons: what each ranker says, the passages with the sentences that
        decided, and how often the ensemble was right where it was about as sure.

        Arguments and errors as in `rank`.
        """
        return self._explainer.explain(prompt, options, context)

    @worded
    def predict(self, exam: ExamLike, reading: Reading | None = None) -> pd.DataFrame:
        """The answers to many questions: id, prediction ("B A D"), p_A, p_B, ...

        Args:
            exam: a DataFrame with the columns of a question file (prompt, A, B, ...; answers in it are not read), or a
                file in any form of docs/formats.md, whose rows have ids.
            reading: how it is to be read.

        Raises:
            UserError: a row is no question, or no ranker can answer.
        """
        questions = read_exam(exam, self._loaded.workdir, True, reading)
        return Answered(questions, self._loaded.ask(questions).blended).to_frame()

    @worded
    def evaluate(self, exam: ExamLike, reading: Reading | None = None) -> Scores:
        """The scores of the ensemble's answers to questions whose answers are known.

        They are too high on questions that it was trained or tuned on: `to_frame` and `tune` have the honest estimate.

        Raises:
            UserError: see `predict`; or a question has no answer.
        """
        questions = read_exam(exam, self._loaded.workdir, reading=reading)
        questions.require_answers("evaluating")
        return scores_of(self._loaded.ask(questions).blended, questions.answers, questions.exists())

    def to_frame(self) -> pd.DataFrame:
        """The rankers: name, family, weight (NaN: a stacker blends), the weights that answer, and whether their models
        stay loaded."""
        loaded = self._loaded
        weights = loaded.weights_of([ranker.name for ranker in loaded.trained if ranker.name in loaded.asked])
        tuned = loaded.schedule.ensemble["weights"]
        shown = {name: math.nan if weight is None else weight for name, weight in weights.items()}
        rows: list[dict[str, Any]] = [
            {
                "ranker": ranker.name,
                "family": ranker.config.family,
                "weight": shown.get(ranker.name, 0.0),
                "answers with": ranker.asked_text,
                "stays loaded": not ranker.config.has_model or ranker.name in loaded.pool.kept,
            }
            for ranker in loaded.trained
        ]
        return frame(sorted(rows, key=lambda row: (-tuned.get(row["ranker"], 0.0), row["ranker"])))

    def close(self) -> None:
        """Give back the memory of the models; the next question loads them again."""
        self._loaded.close()

    def __enter__(self) -> Ensemble:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Ensemble of {self._loaded.workdir.root}: {', '.join(self.rankers)}>"
