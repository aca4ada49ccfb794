"""The ensemble of a working folder as the page asks it, and exams from its corpus."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from solution.api.ensemble import load
from solution.config import RetrievalConfig
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.generation.exam import Wish
from solution.generation.stored import StoredExam, with_fewer_options
from solution.interactive.answers import Explanation
from solution.progress import heard_by, say
from solution.questions import Questions
from solution.web.answerer import About, Tell
from solution.web.exams import ComingExam
from solution.workdir import Workdir

GENERATED = "Questions made from the corpus"
"""The title of an exam that is made from the corpus."""


class EnsembleAnswerer:
    """An ensemble whose rankers stay loaded as far as the memory allows; see `load`.

    Raises:
        UserError: see `load`.
    """

    def __init__(self, workdir: Workdir, memory: int | None, rankers: Collection[str] | None, tell: Tell):
        tell("the ensemble is being opened")
        estimate = load_ensemble(workdir)["estimate"]
        with heard_by(tell):
            self._ensemble = load(workdir.root, memory=memory, rankers=rankers)
        # The estimate is that of the whole ensemble.
        map3 = (estimate["map3"], estimate["low"], estimate["high"]) if rankers is None else None
        self._about = About(self._ensemble.rankers, map3)

    def about(self) -> About:
        """Names of the rankers, and the honest estimate of all of them."""
        return self._about

    def explain(self, prompt: str, options: Sequence[str], tell: Tell) -> Explanation:
        """See `Ensemble.explain`."""
        with heard_by(tell):
            return self._ensemble.explain(prompt, options)


def generated_exam(workdir: Workdir, count: int) -> ComingExam:
    """An exam of at most `count` questions from the corpus that the ensemble reads, made once.

    Raises:
        UserError: the ensemble reads no corpus.
    """
    record = load_ensemble(workdir).get("retrieval")
    corpus = RetrievalConfig.model_validate(record) if record else None
    if corpus is None or corpus.source != "index":
        raise UserError(
            "--generate: the ensemble of this working folder reads no corpus; name an exam with --exam FILE"
        )

    def make() -> Questions:
        return practice_exam(lambda wish: StoredExam.of(corpus, wish, workdir.cache).read(), count)

    return ComingExam(GENERATED, make)


def practice_exam(make: Callable[[Wish], Questions], count: int) -> Questions:
    """At most `count` questions; where there are fewer, a note tells it.

    Raises:
        UserError: no question can be made.
    """
    exam = with_fewer_options(make, Wish(count))
    if 0 < len(exam) < count:
        say(f"note: the corpus gives {len(exam)} questions to practise with, not {count}; more text gives more")
    return exam
