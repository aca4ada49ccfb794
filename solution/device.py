"""The one place that decides where models run and in which number format; torch loads when it is first asked."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from solution.errors import UserError, lacks_memory
from solution.gpu import gpu_works, warn_of_gpu_problem

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Device:
    """A place and a number format to compute in.

    Attributes:
        kind: "cuda" or "cpu".
        compute: the dtype of matrix products.
    """

    kind: str
    compute: torch.dtype

    @property
    def torch(self) -> torch.device:
        import torch

        return torch.device(self.kind)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Products in `compute`, sums and norms in float32; nothing to do when `compute` is float32."""
        import torch

        if self.compute == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.kind, dtype=self.compute)

    @property
    def scales_loss(self) -> bool:
        """float16 gradients underflow unless the loss is scaled."""
        import torch

        return self.compute == torch.float16

    @property
    def may_overflow(self) -> bool:
        """float16 ends at 65504; what a model trained in bfloat16 computes may lie beyond."""
        import torch

        return self.compute == torch.float16

    def __str__(self) -> str:
        return f"{self.kind} in {str(self.compute).removeprefix('torch.')}"


def choose_device(precision: str = "auto") -> Device:
    """The device and number format of this machine.

    A GPU is used where a product on it gives the right result. `auto` is bfloat16 where the hardware multiplies it
    (Ampere and later; CPUs with AVX512-BF16 or AMX), else float16 on CUDA (T4, P100) and float32 on a CPU.

    Raises:
        UserError: float16 asked for on a CPU.
    """
    import torch

    warn_of_gpu_problem()
    cuda = gpu_works()
    kind = "cuda" if cuda else "cpu"
    if precision == "float16" and not cuda:
        raise UserError("precision float16 needs a GPU; on a CPU use auto, bfloat16 or float32")
    if precision != "auto":
        return Device(kind, getattr(torch, precision))
    if cuda:
        return Device(kind, torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16)
    return Device(kind, torch.bfloat16 if cpu_has_bfloat16() else torch.float32)


def cpu_has_bfloat16() -> bool:
    """True where this CPU multiplies bfloat16 in hardware."""
    import torch

    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(check()) for check in checks if check is not None)


def free_memory() -> None:
    """Give back what a dropped model held."""
    import gc

    import torch

    gc.collect()
    if gpu_works():
        torch.cuda.empty_cache()
    trim_memory()


def trim_memory() -> None:
    """Give freed memory back to the system: glibc keeps it for the process until it is asked."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def out_of_memory(error: BaseException) -> bool:
    """True for an error that says that memory could not be had, on a GPU or for a tensor on the CPU."""
    import torch

    # On a CPU PyTorch and its libraries raise plain RuntimeErrors: only their words tell.
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, (RuntimeError, MemoryError)) and lacks_memory(error)
    )
