"""Several processes that train one ranker together, started by `accelerate launch` or `torchrun`.

Each optimizer step's questions are dealt out over the processes, and their gradients are summed, so
that every process makes the update that one process alone would make. Only the first process (rank
0) speaks and writes; all read the same working folder. With FSDP the frozen layers are sharded
besides. Without a launcher nothing here does anything.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from solution.errors import UserError
from solution.gpu import gpu_works
from solution.learning.batches import budget_batches
from solution.progress import console

if TYPE_CHECKING:
    import torch
    from torch import nn

T = TypeVar("T")

_BUCKET = 2**25  # gradients that are summed in one go, 128 MiB in float32
_FAILED, _LEFT = "failed", "left"  # keys of the store: how many processes have failed, and how many have left
_GRACE_SECONDS = 5.0

_store: Any = None  # a torch.distributed store; None: this process works alone
_calls = itertools.count()


def start() -> None:
    """Join the processes that a launcher started (it sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).

    Raises:
        UserError: the processes do not find each other, there are more than GPUs, or the launcher was asked
            for something that is not supported.
    """
    global _store
    environment = os.environ
    if int(environment.get("WORLD_SIZE", "1")) < 2:
        # Without several GPUs (and with --cpu) accelerate starts a single process, whatever --num_processes says.
        if "WORLD_SIZE" not in environment and {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= environment.keys():
            raise UserError(
                "accelerate was asked for several processes and has started one. Add --multi_gpu to accelerate "
                "launch (it serves CPUs too), or use: torchrun --nproc-per-node N train_fold.py ..."
            )
        return
    import torch
    import torch.distributed as dist

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    try:
        store, _, _ = next(dist.rendezvous("env://"))
        _store = dist.PrefixStore("solution", store)
        console.quiet = rank() > 0
        _check_launch(gpus)
        if gpus is not None:
            # From here on "cuda" means this process's own GPU.
            torch.cuda.set_device(int(environment["LOCAL_RANK"]))
        cuda = gpu_works()  # asked of that one
        # Else transformers would leave new weights empty on all but one process, for accelerate to send them.
        environment["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        group = dist.PrefixStore("group", store)
        dist.init_process_group("nccl" if cuda else "gloo", store=group, rank=rank(), world_size=size())
    except (ValueError, RuntimeError, KeyError) as error:
        text = " ".join(str(error).split())[:300]
        raise UserError(f"process {environment.get('RANK')} cannot join the others: {text}") from None


def _check_launch(gpus: int | None) -> None:
    """Raise `UserError` where the launcher was asked for something that is not supported."""
    for name, what in (
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
        ("FSDP_OFFLOAD_PARAMS", "FSDP's offload to the CPU"),
    ):
        if _switched_on(name):
            raise UserError(f"{what} is not supported: launch with --multi_gpu, or with --use_fsdp and no offload")
    if gpus is not None and int(os.environ["LOCAL_RANK"]) >= gpus:
        raise UserError(f"there are more processes than GPUs on this machine ({gpus}): start one process a GPU")


def _switched_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")


def size() -> int:
    """The number of processes that work together; 1 without a launcher."""
    return 1 if _store is None else int(os.environ["WORLD_SIZE"])


def rank() -> int:
    """The number of this process; the one with 0 speaks and writes."""
    return 0 if _store is None else int(os.environ["RANK"])


# --- waiting for each other, and ending together -------------------------------------------


class GroupEnded(UserError):
    """Another process has ended. It says why itself; this message is for the case that it had no time to."""

    def __init__(self) -> None:
        super().__init__(
            f"process {rank()} has lost the others: one of them ended. "
            "What was finished is kept; run the same command again to go on"
        )


def from_main(work: Callable[[], T]) -> T:
    """The result of `work` (JSON-able), which runs on the first process alone; the others wait for it.

    They wait as long as it takes, unlike at a barrier: building an index can take hours.

    Raises:
        GroupEnded: another process failed.
    """
    if _store is None:
        return work()
    key = f"from_main/{next(_calls)}"
    if rank() == 0:
        value = work()
        _store.set(key, json.dumps(value))
        return value
    try:
        while not _store.check([key]):
            if _store.check([_FAILED]):
                raise GroupEnded
            time.sleep(0.05)
        return json.loads(_store.get(key))
    except RuntimeError:  # the first process, which keeps the store, is gone
        raise GroupEnded from None


def main_first(work: Callable[[], T]) -> T:
    """`work` on the first process, and then on the others, who find the files that the first has made."""
    if rank() > 0:
        from_main(lambda: None)
        return work()
    result = work()
    from_main(lambda: None)
    return result


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Work as if there were no other process: within `main_first` the others wait, and take no share of the work."""
    global _store
    store, _store = _store, None
    try:
        yield
    finally:
        _store = store


def first_to_fail() -> bool:
    """True where no other process has failed before: this one then shows its error, and the others stay silent."""
    try:
        return _store is None or _store.add(_FAILED, 1) == 1
    except RuntimeError:
        return True


def leave() -> None:
    """Part from the others; waits a little for them, since a launcher kills the rest when the first process ends."""
    global _store
    if _store is None:
        return
    import torch.distributed as dist

    try:
        # Processes that wait for this one learn of its end. (NCCL's own end could wait for them in turn.)
        if dist.is_initialized() and (dist.get_backend() == "gloo" or not _store.check([_FAILED])):
            dist.destroy_process_group()
        gone = _store.add(_LEFT, 1)
        deadline = time.monotonic() + _GRACE_SECONDS
        while gone < size() and time.monotonic() < deadline:
            time.sleep(0.02)
            gone = _store.add(_LEFT, 0)
    except RuntimeError:
        pass  # the process that keeps the store has left already
    _store = None


def finish() -> None:
    """The end of a command that went well: wait until the first process has written everything.

    Raises:
        GroupEnded: it failed at that.
    """
    from_main(lambda: None)
    leave()


# --- shares of the work, and their sums ----------------------------------------------------


def balanced_parts(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Positions dealt out, the longest first, each to the part with the fewest tokens so far."""
    dealt: list[list[int]] = [[] for _ in range(parts)]
    tokens = [0] * parts
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        part = tokens.index(min(tokens))
        dealt[part].append(position)
        tokens[part] += lengths[position]
    return dealt


def own_batches(lengths: Sequence[int], budget: int, max_padding: float = 1.0) -> list[list[int]]:
    """This process's batches of `budget_batches` (alone: all of them).

    Every process makes at least one pass, and with FSDP, where the processes gather each layer together, all make
    the same number. A process with too few batches gets empty ones: it makes a pass whose result counts nothing.
    """
    if _store is None or not lengths:
        return budget_batches(lengths, budget, max_padding=max_padding)
    parts = [budget_batches(lengths, budget, part, max_padding) for part in balanced_parts(lengths, size())]
    batches = parts[rank()]
    passes = max(map(len, parts)) if shards() else 1
    return batches + [[] for _ in range(passes - len(batches))]


def sum_gradients(parameters: Sequence[nn.Parameter], loss: float) -> float:
    """Sum the parameters' gradients over the processes, in place, and the loss, which is returned.

    A parameter without a gradient on every process is left without one.
    """
    if _store is None:
        return loss
    import torch

    # The loss, and on how many processes each parameter has a gradient, in one sum.
    has_gradient = [float(parameter.grad is not None) for parameter in parameters]
    sums = torch.tensor([loss, *has_gradient], dtype=torch.float64, device=parameters[0].device)
    _sum(sums)
    total, *counts = sums.tolist()
    trained = [parameter for parameter, count in zip(parameters, counts, strict=True) if count]

    # The gradients, many small ones laid end to end: a sum has a cost of its own, however short it is.
    for bucket in _buckets(trained):
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([part.reshape(-1) for part in parts])
        _sum(flat)
        for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = part.view_as(parameter)
    return total


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in groups of about `_BUCKET` numbers."""
    bucket: list[nn.Parameter] = []
    numbers = 0
    for parameter in parameters:
        bucket.append(parameter)
        numbers += parameter.numel()
        if numbers >= _BUCKET:
            yield bucket
            bucket, numbers = [], 0
    if bucket:
        yield bucket


def sum_tables(table: np.ndarray) -> np.ndarray:
    """The sum over the processes of their tables, float [n, width]; each has filled its own rows, others are 0."""
    if _store is None:
        return table
    import torch
    import torch.distributed as dist

    tensor = torch.from_numpy(table).to("cuda" if dist.get_backend() == "nccl" else "cpu")
    _sum(tensor)
    return tensor.cpu().numpy()


def _sum(tensor: torch.Tensor) -> None:
    """Sum a tensor over the processes, in place."""
    import torch.distributed as dist

    try:
        dist.all_reduce(tensor)
    except RuntimeError:
        raise GroupEnded from None


def same_start(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the first one's values: random numbers may differ between kinds of machines."""
    if _store is None:
        return
    import torch.distributed as dist

    for parameter in parameters:
        dist.broadcast(parameter.data, 0)


# --- FSDP ----------------------------------------------------------------------------------


def shards() -> bool:
    """True where `accelerate launch --use_fsdp` asked for sharded weights."""
    return _store is not None and _switched_on("ACCELERATE_USE_FSDP")


def shard(model: nn.Module) -> None:
    """Shard the frozen weights of the model's layers over the processes (PyTorch's FSDP2), in place.

    Each layer is gathered when it is used and given back after it. Weights that are trained (LoRA, new heads) stay
    whole on every process, are summed by `sum_gradients`, and are saved as ever. A layer is moved to the GPU only
    to be cut, so the GPU never holds the whole model.

    Raises:
        UserError: the model has no list of layers.
    """
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    stacks: list[str] = []
    for name, module in model.named_modules():
        # Lists inside a layer (T5's sublayers, experts) belong to the layer.
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{stack}.") for stack in stacks):
            stacks.append(name)
    if not stacks:
        raise UserError("FSDP: the model has no list of layers to shard; launch without --use_fsdp")
    mesh = init_device_mesh("cuda" if gpu_works() else "cpu", (size(),))
    for name in stacks:
        layers: Any = model.get_submodule(name)
        for layer in layers:
            fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
        # Embeddings and norms outside the layers stay whole (an output layer may be tied to them). Their module
        # is wrapped without parameters, so that its layers fetch ahead of each other.
        owner = model.get_submodule(name.rpartition(".")[0])
        kind = type(owner)
        fully_shard(owner, mesh=mesh, ignored_params=set(model.parameters()))
        # transformers looks up by the class which hidden states it is to keep; the hooks are the instance's own.
        owner.__class__ = kind


def describe_processes(modules: Iterable[nn.Module]) -> str:
    """Words to follow the device's name: how many processes work together, and the share of the weights that each
    holds; nothing for a single process."""
    if _store is None:
        return ""
    text = f" on {size()} processes"
    if shards():
        parameters = [parameter for module in modules for parameter in module.parameters()]
        local = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in parameters)
        text += f", each with {local / sum(p.numel() for p in parameters):.0%} of the weights"
    return text
