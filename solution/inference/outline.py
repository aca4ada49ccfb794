"""The memory that a ranker will take, planned before any model loads.

A ranker is built with all its modules and no weights (on PyTorch's meta device, from the model's config), and scores
its longest questions with fake tensors: every operation gives a tensor of the right shape, dtype and device without
memory behind it, and what the living ones would take is added up. So the figures come from the code that will run.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from solution.config import RankerConfig
from solution.device import free_memory
from solution.errors import UserError
from solution.exam import Exam
from solution.inference.memory_plan import SAMPLE, SLACK, MemoryPlan, text_sizes, too_large
from solution.learning.batches import MAX_PADDING, budget_batches
from solution.memory import MIB
from solution.models import empty_model, resolve_model, stored_quantized
from solution.rankers.causal import CausalRanker
from solution.rankers.families import make_ranker
from solution.rankers.generative import GenerativeRanker
from solution.rankers.neural import NeuralRanker

HEAP = 24 * MIB  # of freed small tensors that glibc keeps on a CPU, in the environment of `child.MEMORY` (measured)
CLOSE = 0.05  # a batch is searched for until it is this near to the largest that fits


def plan_memory(
    config: RankerConfig, exams: Sequence[Exam], folders: Sequence[Path], cache: Path, available: int, questions: int
) -> MemoryPlan:
    """The memory that a ranker will take, with the largest batch that fits; raises nothing, see the plan's `problem`.

    Args:
        exams: its longest questions with each of its contexts.
        folders: of its folds.
        cache: where converted models are kept.
        available: bytes, see `available_memory`.
        questions: how many it is asked at once.
    """
    problem = unknown = None
    try:
        plan = plan_ranker(config, exams, folders[0], cache, available, questions)
        return replace(plan, folds=len(folders))
    except UserError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - an unusual model must not stop an answer that may well fit
        unknown = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        free_memory()
    batch = config.predict_tokens_per_batch
    return MemoryPlan(config.name, 0, 0, 0, 0, batch, available, problem, unknown, len(folders))


def plan_ranker(
    config: RankerConfig,
    exams: Sequence[Exam],
    folder: Path,
    cache: Path,
    available: int,
    questions: int | None = None,
) -> MemoryPlan:
    """The plan of `plan_memory`, for a ranker whose memory can be known.

    Args:
        folder: of a trained fold.
        questions: how many it is asked at once; None: those of the exams.

    Raises:
        UserError: the model cannot be found or its settings do not fit it.
    """
    outline = Outline(config, cache, folder, exams, questions)
    setting = config.predict_tokens_per_batch
    fixed = outline.weights + outline.adapters

    def fits(activations: int) -> bool:
        return max(fixed + activations, outline.loading) * SLACK <= available

    batch = setting
    activations = outline.activations(batch)
    if not fits(activations):
        # Search between one question at a time and all questions at once: beyond that a batch grows no more.
        low, high = min(setting, min(outline.lengths)), min(setting, len(outline.lengths) * max(outline.lengths))
        activations = outline.activations(low)
        if fits(activations):
            while high - low > CLOSE * low:
                middle = (low + high) // 2
                tried = outline.activations(middle)
                if fits(tried):
                    low, activations = middle, tried
                else:
                    high = middle
        batch = low
    sizes = (outline.weights, outline.adapters, activations, outline.loading)
    plan = MemoryPlan(config.name, *sizes, batch, available, host=outline.host)
    return plan if fits(activations) else replace(plan, problem=too_large(config, plan))


def gpu_workspace() -> int:
    """Bytes that cuBLAS takes from PyTorch's allocator with its first product: 32 MiB on Hopper and later, else 8."""
    return (32 if torch.cuda.get_device_capability()[0] >= 9 else 8) * MIB


class Outline:
    """A ranker with all its modules and no weights.

    Attributes:
        weights, adapters, loading, host: see `MemoryPlan`.
        lengths: tokens of the exam's longest parts (see `NeuralRanker.parts`), the longest first.
    """

    def __init__(
        self,
        config: RankerConfig,
        cache: Path,
        folder: Path,
        exams: Sequence[Exam],
        questions: int | None = None,
    ):
        self._config = config
        source = resolve_model(config.model, cache, config.revision)
        if stored_quantized(source, config.revision):
            raise ValueError("its checkpoint is stored quantized")
        self._ranker = empty_ranker(config, cache)
        if config.prompt.few_shot and isinstance(self._ranker, GenerativeRanker):
            self._ranker.load_examples(folder)
        self.host = 0
        self.weights, self.adapters, self.loading = self._sizes()
        self._parts = self._longest(exams)
        self.lengths = [self._ranker.length(part) for part in self._parts]
        self._questions = (questions or len(exams[0])) * len(exams) * config.rotations
        self._mode = self._without_memory()

    def _sizes(self) -> tuple[int, int, int]:
        config, ranker = self._config, self._ranker
        cpu = ranker.device.kind == "cpu"
        sizes: dict[int, tuple[int, bool]] = {}
        largest = 0
        for module in ranker.modules:
            for parameter in module.parameters():
                adapted = module is not ranker.model or (parameter.requires_grad and config.lora is not None)
                sizes[id(parameter)] = (parameter_bytes(parameter), adapted)
                # As stored, while it is converted; of a 4-bit weight a CPU makes several copies in float32 besides.
                width = 16 if cpu and hasattr(parameter, "quant_type") else 4
                largest = max(largest, parameter.numel() * width)
            for buffer in module.buffers():
                sizes[id(buffer)] = (buffer.nbytes, False)
        weights = sum(size for size, adapted in sizes.values() if not adapted)
        adapters = sum(size for size, adapted in sizes.values() if adapted)
        # On the way to a GPU all weights lie in main memory, but those that the GPU rounds to 4 bits, one by one.
        self.host = 2 * largest if config.quantization else weights + adapters + largest
        if config.stream:
            weights = self._streamed_weights()
            self.host = largest = 0
        # A fold's file is read whole, and its tensors are copied into the model's.
        copied = (adapters if config.lora is not None else weights) if cpu and config.trains else 0
        return weights, adapters, weights + max(largest, adapters + copied)

    def _streamed_weights(self) -> int:
        """Bytes of the weights that are in memory together: those that stay, one stage's, and those of the next one,
        which are being read."""
        ranker = self._ranker
        assert isinstance(ranker, CausalRanker)  # no other family streams
        bare = ranker.bare_model
        output, embedding = bare.get_output_embeddings(), bare.get_input_embeddings()
        frozen = [p for p in ranker.model.parameters() if not (p.requires_grad and self._config.lora is not None)]
        size = {id(p): parameter_bytes(p) for p in frozen}

        def take(module: Any) -> int:
            return 0 if module is None else sum(size.pop(id(p), 0) for p in module.parameters())

        layers = [take(layer) for layer in ranker.backbone.layers]
        stages = [take(embedding), *layers, take(output)]
        kept = stages[0] if output is not None and output.weight is embedding.weight else 0
        return sum(size.values()) + kept + max(a + b for a, b in zip(stages, stages[1:], strict=False))

    def _longest(self, exams: Sequence[Exam]) -> list[Any]:
        """The longest parts of the exam: enough of them to fill any batch twice, if there are so many."""
        ranker, config = self._ranker, self._config
        longest: list[Any] = []
        for exam in exams:
            sizes = text_sizes(config, exam)
            rows = sorted(range(len(sizes)), key=lambda row: -sizes[row])[:SAMPLE]  # noqa: B023
            tokens = 0
            for start in range(0, len(rows), 8):
                _, items = ranker.items(exam.subset(rows[start : start + 8]))
                parts = [part for item in items for part in ranker.parts(item)]
                longest += parts
                tokens += sum(map(ranker.length, parts))
                if tokens > 2 * config.predict_tokens_per_batch:
                    break
        return sorted(longest, key=lambda part: -ranker.length(part))

    def _without_memory(self) -> Any:
        """Put fake tensors in the place of all parameters and buffers."""
        from torch._subclasses import fake_tensor

        fake_tensor.log.setLevel("CRITICAL")  # an operation that it does not know is reported by the plan
        mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)
        kind = self._ranker.device.kind
        fakes: dict[int, nn.Parameter] = {}  # id of a parameter -> the one in its place; tied ones stay tied

        def fake(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=kind)

        with mode:
            for module in [part for whole in self._ranker.modules for part in whole.modules()]:
                if hasattr(module._parameters.get("weight"), "quant_type"):
                    module.forward = four_bit_product(module)
                    module._parameters["weight"] = None
                for name, parameter in module._parameters.items():
                    if parameter is None:
                        continue
                    if id(parameter) not in fakes:
                        fakes[id(parameter)] = nn.Parameter(fake(parameter), requires_grad=parameter.requires_grad)
                    module._parameters[name] = fakes[id(parameter)]
                for name, buffer in module._buffers.items():
                    if buffer is not None:
                        module._buffers[name] = fake(buffer)
        return mode

    def activations(self, tokens: int) -> int:
        """Bytes, at the highest, while the batches of `tokens` tokens are scored."""
        ranker = self._ranker
        batches = budget_batches(self.lengths, tokens, max_padding=MAX_PADDING)
        widest = max(batches, key=lambda batch: len(batch) * self.lengths[batch[0]])
        held = [tensor for module in ranker.modules for tensor in (*module.parameters(), *module.buffers())]
        peak = 0
        # The first batch has the longest sequences, whose attention takes most; another one may have more tokens.
        for batch in [batches[0]] if widest is batches[0] else [batches[0], widest]:
            with torch.no_grad(), self._mode, LivingTensors(held) as living, ranker.device.autocast():
                ranker.scores([self._parts[i] for i in batch])
            peak = max(peak, living.peak)
        peak += min(peak, HEAP) if ranker.device.kind == "cpu" else gpu_workspace()
        return peak + (self._streamed_states() if self._config.stream else 0)

    def _streamed_states(self) -> int:
        """Bytes that wait between two layers: a state, a mask's row and a rotation for each token of a group."""
        ranker, longest = self._ranker, self._parts[0].encoded
        assert isinstance(ranker, CausalRanker)
        tokens = min(self._config.stream_tokens, self._questions * self.lengths[0])
        config = ranker.bare_model.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        values = config.hidden_size + 2 * head
        return tokens * (values * ranker.base_dtype.itemsize + sum(map(len, longest.options)))


def empty_ranker(config: RankerConfig, cache: Path) -> NeuralRanker:
    """A built ranker all of whose parameters are on the meta device."""
    changes: dict[str, Any] = {"stream": False}
    if config.attention == "flashdeberta":  # its kernels need a GPU's memory; the exact way takes no less
        changes["attention"] = "auto"
    ranker = make_ranker(config.model_copy(update=changes), cache)
    assert isinstance(ranker, NeuralRanker)  # only rankers with a model have memory to plan
    ranker.pretrained_model = empty_model  # type: ignore[method-assign]
    device = ranker.device
    ranker.device = replace(device, kind="meta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a saved head is copied into nothing
        ranker.build()
    ranker.device = device
    return ranker


def parameter_bytes(parameter: torch.Tensor) -> int:
    """Bytes of a parameter in memory; of a 4-bit one, still in its logical shape, with all that belongs to it.

    See `adapters.bits_per_parameter`, which measures them.
    """
    if not hasattr(parameter, "quant_type"):
        return parameter.nbytes
    kind: Any = parameter
    blocks = -(-parameter.numel() // (kind.blocksize or 64))
    levels = 16 * 4
    if not kind.compress_statistics:
        return -(-parameter.numel() // 2) + 4 * blocks + levels
    return -(-parameter.numel() // 2) + blocks + 4 * -(-blocks // 256) + 257 * 4 + levels


def four_bit_product(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """A forward pass that makes what a 4-bit layer makes: its scales in float32, and its whole matrix."""
    shape, compute, bias = tuple(module.weight.shape), module.compute_dtype, module.bias is not None
    blocks = -(-module.weight.numel() // 64)

    def forward(x: torch.Tensor) -> torch.Tensor:
        given, x = x.dtype, x.to(compute)
        scales = torch.empty(blocks, dtype=torch.float32, device=x.device)
        matrix = torch.empty(shape, dtype=compute, device=x.device)
        product = nn.functional.linear(x, matrix, module.bias.to(compute) if bias else None).to(given)
        del scales, matrix
        return product

    return forward


class LivingTensors(TorchDispatchMode):
    """Adds up the memory of all tensors made inside it, as long as they live.

    A model that asks a fake tensor for a value gets 0 or False. To the question whether all tokens are attended to
    that means no, so the model makes its masks.

    Attributes:
        peak: bytes, the highest so far.

    Args:
        held: tensors that were there before, and are not counted.
    """

    def __init__(self, held: Sequence[torch.Tensor]):
        super().__init__()
        self.peak = self._now = 0
        self._held = held
        self._known: dict[int, Any] = {tensor.untyped_storage()._cdata: None for tensor in held}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default):
            return False if args[0].dtype == torch.bool else 0
        if func is torch.ops.aten.bincount.default:  # as long as its largest value
            length = args[2] if len(args) > 2 else kwargs.get("minlength", 0)
            result = torch.empty(length or args[0].numel(), dtype=torch.int64, device=args[0].device)
        else:
            result = func(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        if func is torch.ops.aten.logsumexp.default:  # its kernel holds the exponentials besides
            self.peak = max(self.peak, self._now + args[0].nbytes)
        return result

    def _note(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known[key] = weakref.ref(storage, partial(self._gone, key, size))
        self._now += size
        self.peak = max(self.peak, self._now)

    def _gone(self, key: int, size: int, reference: Any) -> None:
        del self._known[key]
        self._now -= size
