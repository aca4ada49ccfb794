"""The plan of a ranker's memory and how it is shown; `inference.outline` makes the plans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from solution.config import RankerConfig
from solution.exam import Exam
from solution.families import FAMILIES
from solution.memory import MIB
from solution.progress import console

RESERVE = 512 * MIB  # what a process takes for itself: libraries, questions, a GPU's context
SLACK = 1.05  # allocators keep a little more than is asked of them
GPU_PROCESS = 2 * RESERVE  # main memory that a process with a GPU takes beside a model's weights
SAMPLE = 256  # questions: at most this many of an exam's longest ones are looked at


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that one ranker takes, in bytes; all 0 where that is not known.

    Attributes:
        ranker: its name.
        weights: of the base model, as they lie in memory.
        adapters: of one fold: LoRA, head, and modules trained whole.
        activations: at the highest, while the largest batch is scored.
        loading: at the highest while the model is loaded, weights and adapters included.
        batch: tokens of a batch.
        available: see `memory.available_memory`.
        problem: why it cannot run; None: it fits, or its memory is not known.
        unknown: why its memory is not known.
        folds: how many, whose adapters come in turn.
        host: of main memory at the highest while the model is loaded onto a GPU.
        host_available: of main memory for processes with a GPU, before the first of them loads; 0: not known, or there
            is no GPU.
    """

    ranker: str
    weights: int
    adapters: int
    activations: int
    loading: int
    batch: int
    available: int
    problem: str | None = None
    unknown: str | None = None
    folds: int = 1
    host: int = 0
    host_available: int = 0

    @property
    def steady(self) -> int:
        """Once the model is loaded."""
        return self.weights + self.adapters + self.activations

    @property
    def peak(self) -> int:
        return max(self.steady, self.loading)

    def apply(self, config: RankerConfig) -> RankerConfig:
        """The ranker's settings with the batch that fits."""
        return config.model_copy(update={"predict_tokens_per_batch": self.batch})


@dataclass(frozen=True)
class Room:
    """The place for a ranker's processes side by side, each with its own copy of the model.

    Attributes:
        processes: how many; 0: not one.
        together: whether they may load at the same time, or one after the other.
        reason: why there are fewer than devices; empty: there are not.
    """

    processes: int
    together: bool = True
    reason: str = ""


def room_for(plan: MemoryPlan, devices: int, on_gpus: bool) -> Room:
    """The processes that the main memory has room for, each on one of the devices.

    On a CPU a model lies in main memory. A GPU has its own memory, of which each process sees to it that it is enough;
    but the weights go through main memory on their way there. A copy takes the batch that was planned for one, so that
    its answers are the same.
    """
    if plan.problem:
        return Room(0, reason=plan.problem)
    if devices == 1:
        return Room(1)
    if not plan.peak:  # not known
        return Room(devices, together=False) if on_gpus else Room(1, reason="the memory of a second copy is not known")
    steady, loading, each = (0, plan.host, GPU_PROCESS) if on_gpus else (plan.steady, plan.peak, RESERVE)
    available = plan.host_available - each if on_gpus else plan.available
    if on_gpus and not plan.host_available:
        return Room(devices, together=False)
    # Of the first process its own memory is off `available` already.
    for count in range(devices, 1, -1):
        others = (count - 1) * each
        if count * max(steady, loading) * SLACK + others <= available:
            return Room(count, reason=_too_few(count, devices, plan))
        if ((count - 1) * steady + max(steady, loading)) * SLACK + others <= available:
            return Room(count, together=False, reason=_too_few(count, devices, plan))
    missing = (steady + max(steady, loading)) * SLACK + each - available
    return Room(1, reason=f"{shown(missing)} more main memory would be needed for a second copy of the model")


def _too_few(count: int, devices: int, plan: MemoryPlan) -> str:
    return "" if count == devices else f"the main memory has no room for more copies of {shown(plan.peak)}"


def too_large(config: RankerConfig, plan: MemoryPlan) -> str:
    """The message on a ranker that does not fit with one question at a time."""
    fixed = plan.weights + plan.adapters
    needed = plan.peak * SLACK
    # The process's own memory differs by some MiB from run to run: with a little more it surely fits.
    missing = math.ceil((needed - plan.available) / (16 * MIB) + 0.5) * 16 * MIB
    ways = []
    if config.quantization is None:
        ways.append(f"4-bit weights ({config.name}.quantization={{kind: nf4}}, trained with it)")
    if FAMILIES[config.family].streamed is not None and not config.stream:
        ways.append(f"{config.name}.stream=true")
    if fixed < plan.available:
        ways.append(f"fewer tokens ({config.name}.max_tokens below {config.max_tokens})")
    return (
        f"{config.name} needs {shown(needed)} even for one question at a time ({shown(fixed)} of it "
        f"for weights), and {shown(max(plan.available, 0))} are there. Try "
        f"{' or '.join(ways) or 'a smaller model'}, give it {shown(missing)} more by --memory (what the program holds "
        f"itself and {shown(RESERVE)} for libraries come off it), or tune without it"
    )


def shown(size: float) -> str:
    """Bytes as a person reads them."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / MIB:.0f} MiB"


def text_sizes(config: RankerConfig, exam: Exam) -> list[int]:
    """Of each question about how many characters the ranker reads."""
    questions = exam.questions
    contexts = [sum(len(p.text) for p in passages[: config.passages]) for passages in exam.passages]
    texts = zip(questions.prompts, questions.options, contexts, strict=True)
    # A context fills the room at most; a token seldom has more than six characters.
    room = 6 * config.max_tokens
    return [min(len(prompt) + context, room) + sum(map(len, options)) for prompt, options, context in texts]


def print_plans(plans: Sequence[MemoryPlan], copies: Sequence[int] = ()) -> None:
    """Show the plans as a table on stderr, a line for each ranker.

    Args:
        copies: how many devices hold each ranker at once; empty: there is one device.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if console.quiet or not plans:
        return
    title = "memory (total: the peak predicted, loading included)"
    table = Table(box=box.SIMPLE, title=title, title_justify="left")
    table.add_column("ranker", no_wrap=True)
    if copies:
        table.add_column("devices", justify="right", no_wrap=True)
    for name in ("folds", "batch, tokens", "weights", "adapters", "activations, cache", "total", "budget", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for number, plan in enumerate(plans):
        sizes = (plan.weights, plan.adapters, plan.activations, plan.peak)
        cells = [shown(size) if plan.peak else "?" for size in sizes]
        fits = "cannot run" if plan.problem else ""
        cells = [*([str(copies[number])] if copies else []), str(plan.folds), str(plan.batch), *cells]
        table.add_row(plan.ranker, *cells, shown(max(plan.available, 0)), fits)
    # A log has no width of its own: rich would take 80 columns.
    Console(file=console.file, width=None if console.is_terminal else 120, highlight=False).print(table)
