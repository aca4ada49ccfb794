"""The GPU of this machine: torch is believed to compute on it when a product has been tried.

`torch.cuda.is_available()` says yes of a GPU that this build of torch has no code for (a P100 under the builds for
newer CUDA versions), and the first operation then fails. And it says no, without a word, of a GPU whose driver is older
than the CUDA version that torch was built for.
"""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from solution.progress import say

if TYPE_CHECKING:
    import torch

_DRIVER = Path("/proc/driver/nvidia/version")


def gpu_works() -> bool:
    """True where torch computes on a GPU."""
    import torch

    return torch.cuda.is_available() and _failure() is None


class GpuFault(NamedTuple):
    """The reason why torch cannot use the GPU that this machine seems to have, and what to do about it."""

    reason: str
    advice: str


def gpu_fault() -> GpuFault | None:
    """What keeps torch from this machine's GPU; None where torch can use it, or there is none."""
    import torch

    built = f"torch {torch.__version__}" + (f" (for CUDA {torch.version.cuda})" if torch.version.cuda else "")
    if torch.cuda.is_available():
        failure = _failure()
        if failure is None:
            return None
        return GpuFault(
            f"{built} cannot compute on this machine's GPU ({failure})",
            "Install a build of torch that has code for it: pytorch.org lists which compute capabilities each build "
            "knows",
        )
    if not may_have_gpus():
        return None
    advice = "Install a newer driver, or a build of torch for the CUDA version that `nvidia-smi` shows"
    if torch.version.cuda is None:
        advice = "Install a build of torch for the CUDA version that `nvidia-smi` shows"
    return GpuFault(f"this machine has an NVIDIA driver, and {built} sees no GPU", advice)


def gpu_problem() -> str | None:
    """`gpu_fault` in one text."""
    fault = gpu_fault()
    return None if fault is None else ". ".join(fault)


def _has_driver() -> bool:
    return _DRIVER.exists() or shutil.which("nvidia-smi") is not None


@functools.cache
def _failure() -> str | None:
    return product_failure("cuda")


class VisibleGpu(NamedTuple):
    """A GPU that this process sees.

    Attributes:
        number: N of "cuda:N".
        model: its name and compute capability: two with the same one compute the same bits.
        failure: why it cannot compute; None: it can.
    """

    number: int
    model: str
    failure: str | None


def visible_gpus() -> list[VisibleGpu]:
    """The GPUs that torch sees, each of them tried."""
    import torch

    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(number)
        model = f"{about.name} (compute capability {about.major}.{about.minor})"
        found.append(VisibleGpu(number, model, product_failure(f"cuda:{number}")))
    return found


def may_have_gpus() -> bool:
    """False where this machine has no NVIDIA driver, or its GPUs are hidden; torch is not loaded."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1") and _has_driver()


def product_failure(device: str, dtype: torch.dtype | None = None) -> str | None:
    """The first line of the error that a small product on the device raises; None where its result is right.

    Args:
        dtype: of the numbers; None: float32.
    """
    import torch

    try:
        ones = torch.ones(16, 16, dtype=dtype, device=device)
        return None if bool(((ones @ ones).float() == 16).all()) else "a product is wrong"
    except Exception as error:  # noqa: BLE001 - drivers and builds fail in many ways
        return (str(error) or type(error).__name__).splitlines()[0]


@functools.cache
def warn_of_gpu_problem() -> None:
    """Say once that the work goes on on the CPU although this machine seems to have a GPU."""
    problem = gpu_problem()
    if problem is not None:
        say(f"WARNING: the CPU is used: {problem}")
