"""What goes between a submission and its processes, as JSON: jobs one way, events the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np

from solution.config import ContextView
from solution.exam import ContextPassage, Exam, is_question
from solution.questions import Questions
from solution.rankers.alike import Alike
from solution.retrieval.sources import FileHash

# --- questions and exams -------------------------------------------------------------------


class QuestionsRecord(TypedDict):
    """Questions without their answers; of the other columns `is_question` and `context`, where they are given."""

    ids: list[str]
    prompts: list[str]
    options: list[list[str]]
    extra: dict[str, list[Any]]


class ViewRecord(TypedDict):
    """One of the contexts of n questions: n lists of passages, and name -> n lists of option scores or signals."""

    passages: list[list[dict[str, Any]]]
    option_scores: dict[str, list[list[float]]]
    signals: dict[str, list[list[float]]]


class ExamRecord(TypedDict):
    questions: QuestionsRecord
    views: list[ViewRecord]


def exam_record(exams: Sequence[Exam]) -> ExamRecord:
    """The same questions with each of their contexts; of the other columns only `is_question` matters to a ranker."""
    first = exams[0]
    return {
        "questions": questions_record(first.questions, [is_question(first, row) for row in range(len(first))]),
        "views": [
            {
                "passages": [[vars(passage) for passage in passages] for passages in exam.passages],
                "option_scores": {kind: table.tolist() for kind, table in exam.option_scores.items()},
                "signals": {name: table.tolist() for name, table in exam.signals.items()},
            }
            for exam in exams
        ],
    }


def read_exam_record(record: ExamRecord) -> list[Exam]:
    """The exams of `exam_record`, the same to the bit."""
    questions = read_questions_record(record["questions"])
    return [
        Exam(
            questions,
            [[ContextPassage(**values) for values in passages] for passages in view["passages"]],
            {kind: np.array(table, dtype=np.float32) for kind, table in view["option_scores"].items()},
            {name: np.array(table, dtype=np.float32) for name, table in view["signals"].items()},
        )
        for view in record["views"]
    ]


def questions_record(
    questions: Questions, is_question: Sequence[bool] | None = None, contexts: Sequence[Any] | None = None
) -> QuestionsRecord:
    extra = {"is_question": is_question, "context": contexts}
    return {
        "ids": questions.ids,
        "prompts": questions.prompts,
        "options": questions.options,
        "extra": {name: list(values) for name, values in extra.items() if values is not None},
    }


def read_questions_record(record: QuestionsRecord) -> Questions:
    unknown = np.full(len(record["ids"]), -1, dtype=np.int64)
    return Questions(record["ids"], record["prompts"], record["options"], unknown, record["extra"])


def json_cell(value: Any) -> Any:
    """A cell as JSON holds it."""
    return value if isinstance(value, (str, int, float, bool, list, dict, type(None))) else str(value)


# --- jobs ----------------------------------------------------------------------------------


class RetrieveJob(TypedDict):
    """Make contexts.

    `command`: the arguments of the running command, for messages; `verify`: compare hashes; `corpus_hashes`: of corpus
    files, which earlier jobs have made; `signal_seconds`: what the signals may take, None: as long as it takes.
    """

    kind: Literal["retrieve"]
    command: dict[str, Any]
    workdir: str
    retrieval: dict[str, Any]
    views: list[ContextView]
    verify: bool
    questions: QuestionsRecord
    corpus_hashes: list[FileHash]
    signal_seconds: float | None


class LookJob(TypedDict):
    """Look which GPUs there are."""

    kind: Literal["look"]
    command: dict[str, Any]


class BatchRecord(TypedDict):
    """A batch to answer: a line that follows an `AnswerJob`.

    `number`: comes back with the answer; `rows`: positions in the exam; `alive`: for each the options that are shown.
    """

    number: int
    fold: int
    rows: list[int]
    alive: list[list[bool]]


class PlanRequest(TypedDict):
    """Plan a ranker's memory. `questions`: how many it may be asked at once; `exam`: the longest of them."""

    config: dict[str, Any]
    folders: list[str]
    questions: int
    exam: ExamRecord


class AnswerJob(TypedDict):
    """Answer batches of an exam with a ranker's folds; they come as lines, until stdin ends.

    `memory`: bytes that may be used, None: what is free; `held`: of these the submission holds itself; `fold`: is
    loaded before the first batch comes; `on_gpu`: the CPU must not take a GPU's place, since other GPUs are at work;
    `plan`: of the ranker's memory, None: it is made first, with those of all of `to_plan`.
    """

    kind: Literal["answer"]
    command: dict[str, Any]
    config: dict[str, Any]
    cache: str
    memory: int | None
    held: int
    folders: list[str]
    fold: int
    on_gpu: bool
    plan: dict[str, Any] | None
    to_plan: list[PlanRequest]
    exam: NotRequired[ExamRecord]


# --- events --------------------------------------------------------------------------------


class BeatEvent(TypedDict):
    """Work goes on."""

    event: Literal["beat"]


class RetrievedEvent(TypedDict):
    """The contexts are in the cache.

    `keys`: view -> `Contexts.key`; `model_seconds`: of the embedder; `float32_passages`: see `Reranker`;
    `corpus_hashes`: for the next job.
    """

    event: Literal["retrieved"]
    keys: dict[ContextView, str]
    model_seconds: float
    float32_passages: int
    corpus_hashes: list[FileHash]


class GpusEvent(TypedDict):
    """The fields of each GPU that is visible, see `gpu.VisibleGpu`."""

    event: Literal["gpus"]
    gpus: list[tuple[int, str, str | None]]


class PlanningEvent(TypedDict):
    """The memory of this ranker is being planned."""

    event: Literal["planning"]
    ranker: str


class PlansEvent(TypedDict):
    """Memory plans, the ranker's own first. `seconds`: that the others took."""

    event: Literal["plans"]
    plans: list[dict[str, Any]]
    seconds: float


class DeviceEvent(TypedDict):
    """The device of this process. `problem`: why it is not the GPU that the machine seems to have."""

    event: Literal["device"]
    computed_on: str
    problem: str | None


class LoadedEvent(TypedDict):
    """The first fold is loaded: batches may come."""

    event: Literal["loaded"]


class PartEvent(TypedDict):
    """A batch is answered.

    `number`: the batch's; `table`: little-endian float32 [rows, width] in base 64; `float32_rows`: the positions
    of the questions that overflowed in float16, and were scored again in float32; `alike`: the options that the ranker
    could not tell apart.
    """

    event: Literal["part"]
    number: int
    table: str
    seconds: float
    model_seconds: float
    peak_mib: int | None
    alike: Alike
    float32_rows: list[int]


class GivenBackEvent(TypedDict):
    """The model is gone. See `memory.Watch`."""

    event: Literal["given_back"]
    used_mib: int | None
    kept_mib: int
    summary: str


class ErrorEvent(TypedDict):
    event: Literal["error"]
    reason: str


class DoneEvent(TypedDict):
    """The job is done."""

    event: Literal["done"]


class EndEvent(TypedDict):
    """The process has ended; told by `child.Child`, not by the process."""

    event: Literal["end"]
    code: int


Event = (
    BeatEvent
    | RetrievedEvent
    | GpusEvent
    | PlanningEvent
    | PlansEvent
    | DeviceEvent
    | LoadedEvent
    | PartEvent
    | GivenBackEvent
    | ErrorEvent
    | DoneEvent
    | EndEvent
)
