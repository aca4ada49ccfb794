"""The devices that share the questions of a ranker: what `--devices` asks for, and which of them are there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from solution.errors import UserError
from solution.gpu import VisibleGpu, may_have_gpus, visible_gpus
from solution.inference.jobs import Fault, Patience, job_text, run_job
from solution.inference.limits import Limits, WantedDevices
from solution.inference.wire import Event
from solution.progress import say
from solution.suggestions import running_arguments

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_MOST = 64
_LOOK_SECONDS = 120.0  # a driver may take long to answer for the first time


def parse_devices(text: str) -> WantedDevices:
    """What `--devices` asks for: `auto`, a number, `cuda:0,cuda:1`, `cpu` or `cpu,cpu`.

    Raises:
        UserError: it is none of these.
    """
    names = [name.strip().lower() for name in text.split(",")]
    if names == ["auto"]:
        return WantedDevices()
    if len(names) == 1 and re.fullmatch(r"\d{1,3}", names[0]) and 1 <= int(names[0]) <= _MOST:
        return WantedDevices(count=int(names[0]))
    if set(names) == {"cpu"} and len(names) <= _MOST:
        return WantedDevices(cpus=len(names))
    numbers = [re.fullmatch(r"cuda:(\d{1,3})", name) for name in names]
    gpus = tuple(int(number[1]) for number in numbers if number)
    if len(gpus) == len(names) == len(set(gpus)):
        return WantedDevices(gpus=gpus)
    raise UserError(
        f"--devices {text!r}: give auto (all GPUs, else one process on the CPU), a number of devices up to {_MOST}, "
        "different GPUs as in cuda:0,cuda:1, or cpu,cpu for two processes on the CPU"
    )


@dataclass(frozen=True)
class ComputeDevice:
    """A device that answers questions, in a process of its own.

    Attributes:
        name: "cuda:1", "cpu" or, of several processes on the CPU, "cpu:1".
        variables: of its process's environment, by which it sees nothing but its device.
    """

    name: str
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def is_gpu(self) -> bool:
        return self.name.startswith("cuda")


def speed_of(devices: Sequence[ComputeDevice]) -> int:
    """How many times as fast as one of them they are: processes on the CPU share its cores."""
    return len(devices) if devices[0].is_gpu else 1


DEFAULT_DEVICE = ComputeDevice("cpu")
"""Without a GPU that can be used. Its process sees what this one sees, and says why it computes on the CPU."""


def devices_on_cpu(count: int) -> list[ComputeDevice]:
    """So many processes on the CPU, from which GPUs are hidden."""
    names = ["cpu"] if count == 1 else [f"cpu:{number}" for number in range(count)]
    return [ComputeDevice(name, {_VISIBLE: ""}) for name in names]


def available_devices(
    wanted: WantedDevices, gpus: Sequence[VisibleGpu], visible: str | None = None
) -> tuple[list[ComputeDevice], list[str]]:
    """The devices that a submission uses, at least one, and a line for each that it cannot use.

    Only GPUs of one model are used together: others compute other last bits, and a question's answer would hang on who
    answers it.

    Args:
        gpus: those that are visible.
        visible: CUDA_VISIBLE_DEVICES of this process; None: it is not set.
    """
    if wanted.cpus or (wanted.count and not gpus):
        return devices_on_cpu(wanted.cpus or wanted.count or 1), []
    remarks = [f"cuda:{number} is not there" for number in wanted.gpus if number >= len(gpus)]
    asked = [gpu for gpu in gpus if not wanted.gpus or gpu.number in wanted.gpus]
    remarks += [f"cuda:{gpu.number} cannot compute ({gpu.failure})" for gpu in asked if gpu.failure is not None]
    working = [gpu for gpu in asked if gpu.failure is None]
    alike = [gpu for gpu in working if gpu.model == working[0].model]
    remarks += [
        f"cuda:{gpu.number}, a {gpu.model}, stays idle: it computes other last bits than cuda:{working[0].number}, a "
        f"{working[0].model}"
        for gpu in working
        if gpu not in alike
    ]
    if wanted.count and len(alike) < wanted.count:
        remarks.append(f"{wanted.count} devices were asked for")
    if not alike:
        return [DEFAULT_DEVICE], remarks
    devices = [ComputeDevice(f"cuda:{gpu.number}", _only(gpu.number, visible)) for gpu in alike[: wanted.count or None]]
    # Where there is nothing to hide, the process sees what this one sees.
    return ([ComputeDevice(devices[0].name)] if len(gpus) == 1 else devices), remarks


def _only(number: int, visible: str | None) -> dict[str, str]:
    """The environment in which one of the visible GPUs is the only one."""
    names = [name.strip() for name in (visible or "").split(",") if name.strip()]
    return {_VISIBLE: names[number] if number < len(names) else str(number)}


def find_devices(limits: Limits) -> tuple[list[ComputeDevice], list[str]]:
    """`available_devices` on this machine, told where there are several or fewer than wanted.

    A process looks at the GPUs, and ends: in this one torch is not loaded. Without a driver it is not started.
    """
    wanted = limits.devices
    gpus = _look(limits) if not wanted.cpus and may_have_gpus() else []
    devices, remarks = available_devices(wanted, gpus, os.environ.get(_VISIBLE))
    names = ", ".join(device.name for device in devices)
    remarks = [f"{remark}; the rankers use {names}" for remark in remarks]
    for remark in remarks:
        say(f"WARNING: --devices: {remark}")
    if len(devices) > 1:
        say(f"devices: {names}; each answers a part of a ranker's questions, with its own copy of the model")
    return devices, remarks


def devices_seen_here() -> tuple[list[ComputeDevice], list[str]]:
    """`available_devices` by default, for a process that has loaded torch and uses the GPUs itself."""
    return available_devices(WantedDevices(), visible_gpus(), os.environ.get(_VISIBLE))


def _look(limits: Limits) -> list[VisibleGpu]:
    """The GPUs that are visible; none where looking fails, which the first ranker's process then tells."""
    gpus: list[VisibleGpu] = []

    def take(event: Event) -> None:
        if event["event"] == "gpus":
            gpus.extend(VisibleGpu(*fields) for fields in event["gpus"])

    try:
        job = job_text({"kind": "look", "command": running_arguments()})
        run_job(job, take, limits, Patience(_LOOK_SECONDS, "looking at the GPUs took more than"))
    except Fault as error:
        say(f"WARNING: the GPUs could not be counted: {error}")
    return gpus
