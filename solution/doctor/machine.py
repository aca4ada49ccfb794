"""The doctor's checks of the machine: Python, memory, disk, GPU, number formats, packages."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator

from solution.device import choose_device, cpu_has_bfloat16
from solution.doctor.examined import Examined
from solution.doctor.report import Finding, State
from solution.gpu import gpu_fault, product_failure
from solution.memory import main_memory
from solution.packages import installed, python_range, requirements

GIB = 1 << 30
_LITTLE_MEMORY, _LITTLE_DISK, _NO_DISK = 4 * GIB, 5 * GIB, GIB // 2


def machine(examined: Examined) -> Iterator[Finding]:
    allowed, here = python_range(), platform.python_version()
    fits = allowed.contains(here)
    yield Finding(
        "machine",
        "Python",
        "ok" if fits else "error",
        f"{here}, allowed is {allowed}",
        "" if fits else "Install one of these and run `make` again.",
    )
    yield _memory_finding()
    folder = examined.workdir.root
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    state: State = "error" if free < _NO_DISK else "warning" if free < _LITTLE_DISK else "ok"
    yield Finding(
        "machine",
        "disk",
        state,
        f"{free / GIB:.1f} GiB free in {folder}",
        "" if state == "ok" else "Make room, or use a --workdir on another disk.",
    )
    if not folder.is_dir():
        yield Finding(
            "machine", "working folder", "warning", f"{folder} is not there", "It is made when training begins."
        )
    elif not os.access(folder, os.W_OK):
        yield Finding("machine", "working folder", "error", f"{folder} is read-only", "Use another --workdir.")


def _memory_finding() -> Finding:
    memory = main_memory()
    if memory is None:
        return Finding("machine", "memory", "ok", "this system does not tell how much is available")
    little = memory.available < _LITTLE_MEMORY
    return Finding(
        "machine",
        "memory",
        "warning" if little else "ok",
        f"{max(memory.available, 0) / GIB:.1f} of {memory.total / GIB:.1f} GiB available",
        "End other programs, or lower predict_tokens_per_batch and tokens_per_batch." if little else "",
    )


def device_found(examined: Examined) -> Iterator[Finding]:
    import torch

    device = choose_device()
    if device.kind == "cpu":
        native = "bfloat16 in hardware" if cpu_has_bfloat16() else "no bfloat16 in hardware"
        found = (
            f"no GPU; {os.cpu_count()} CPU cores, {native}, computes in {str(device.compute).removeprefix('torch.')}"
        )
        if fault := gpu_fault():
            yield Finding("machine", "GPU", "warning", fault.reason, f"{fault.advice}.")
            return
        yield Finding("machine", "GPU", "ok", found)
    for number in range(torch.cuda.device_count() if device.kind == "cuda" else 0):
        gpu = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        name = f"{gpu.name} (compute capability {gpu.major}.{gpu.minor}, CUDA {torch.version.cuda})"
        yield Finding("machine", f"GPU {number}", "ok", f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    works: list[str] = []
    fails: list[str] = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        (works if product_failure(device.kind, dtype) is None else fails).append(name)
    needed = str(device.compute).removeprefix("torch.")
    yield Finding(
        "machine",
        "number formats",
        "error" if needed in fails else "ok",
        f"{', '.join(works) or 'none'} work; {needed} is used" + (f"; {', '.join(fails)} do not" if fails else ""),
        "This build of torch has no code for this GPU: install another." if needed in fails else "",
    )


def devices(examined: Examined) -> Iterator[Finding]:
    """The devices among which `submit.py` would share a ranker's questions."""
    used, remarks = examined.devices.get()
    found = f"submit.py uses {', '.join(device.name for device in used)}"
    if len(used) > 1:
        found += f": each of the {len(used)} answers a part of a ranker's questions"
    remedy = "Name those that are to be used: submit.py --devices" if remarks else ""
    yield Finding("machine", "devices", "warning" if remarks else "ok", "; ".join([found, *remarks]), remedy)


def four_bit(examined: Examined) -> Iterator[Finding]:
    users = sorted({config.name for config, _ in examined.pairs if config.quantization is not None})
    state: State = "error" if users else "warning"
    who = f"for {', '.join(users)}" if users else "no ranker here needs them"
    try:
        import bitsandbytes
        import torch

        device = choose_device()
        weights = torch.linspace(-1, 1, 4096, dtype=torch.float32, device=device.torch).reshape(64, 64)
        packed, how = bitsandbytes.functional.quantize_4bit(weights, quant_type="nf4")
        off = float((bitsandbytes.functional.dequantize_4bit(packed, how) - weights).abs().max())
    except (ImportError, RuntimeError, OSError, ValueError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        yield Finding(
            "machine", "4-bit weights", state, f"do not work ({reason}); {who}", "pip install -U bitsandbytes"
        )
        return
    if off > 0.2:  # NF4's steps around -1 to 1 are at most 0.3 wide
        yield Finding(
            "machine", "4-bit weights", state, f"NF4 is off by {off:.2g}; {who}", "pip install -U bitsandbytes"
        )
        return
    yield Finding(
        "machine", "4-bit weights", "ok", f"bitsandbytes {bitsandbytes.__version__} works on {device.kind}; {who}"
    )


def packages(examined: Examined) -> Iterator[Finding]:
    fitting = 0
    for requirement in requirements():
        version = installed(requirement.name)
        if version is not None and requirement.specifier.contains(version, prereleases=True):
            fitting += 1
            continue
        found = f"{version} is not {requirement.specifier}" if version else "is not installed"
        yield Finding("packages", requirement.name, "error", found, f"pip install '{requirement}'")
    faiss = [name for name in ("faiss-cpu", "faiss-gpu") if installed(name)]
    if len(faiss) == 1:
        fitting += 1
    elif faiss:
        yield Finding(
            "packages",
            "faiss",
            "warning",
            "faiss-cpu and faiss-gpu are both installed, into the same folder",
            "Uninstall both, then install one.",
        )
    else:
        yield Finding("packages", "faiss", "error", "is not installed", "pip install faiss-cpu (or faiss-gpu)")
    yield Finding("packages", "all others", "ok", f"{fitting} packages, within the versions that setup.cfg allows")
