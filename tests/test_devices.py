"""Several devices answer one ranker's questions: which devices, who gets which batches, and what a failure changes."""

from __future__ import annotations

import queue
import re
import time
from typing import Any

import numpy as np
import pytest

from solution.doctor import machine
from solution.doctor.examined import ReadOnce
from solution.ensemble.blend import Recipe
from solution.ensemble.cascade import Stage
from solution.errors import UserError
from solution.gpu import VisibleGpu
from solution.inference import devices as devices_module
from solution.inference import shared_batches, worker
from solution.inference.devices import (
    DEFAULT_DEVICE,
    ComputeDevice,
    available_devices,
    devices_on_cpu,
    find_devices,
    parse_devices,
    speed_of,
)
from solution.inference.jobs import Fault, OutOfTime, Patience
from solution.inference.limits import Limits, WantedDevices
from solution.inference.memory_plan import GPU_PROCESS, RESERVE, MemoryPlan, Room, room_for
from solution.inference.schedule import expected_seconds, fitting, shared_seconds
from solution.inference.shared_batches import SharedBatches, Sharing
from solution.inference.turns import Turn

GIB = 1 << 30

# --- which devices -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("auto", WantedDevices()),
        ("2", WantedDevices(count=2)),
        ("cpu", WantedDevices(cpus=1)),
        ("CPU, cpu", WantedDevices(cpus=2)),
        ("cuda:1", WantedDevices(gpus=(1,))),
        ("cuda:0,cuda:1", WantedDevices(gpus=(0, 1))),
    ],
)
def test_devices_are_read(text: str, wanted: WantedDevices) -> None:
    assert parse_devices(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "0", "65", "-1", "gpu", "cuda", "cuda:0,cuda:0", "cuda:0,cpu", "cpu,", "auto,cpu"]
)
def test_what_names_no_devices_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--devices .* give auto"):
        parse_devices(text)


T4, P100 = "Tesla T4 (compute capability 7.5)", "Tesla P100 (compute capability 6.0)"


@pytest.mark.parametrize(
    ("text", "gpus", "visible", "names", "variables", "remark"),
    [
        ("auto", [], None, ["cpu"], [{}], ""),
        ("2", [], None, ["cpu:0", "cpu:1"], [{"CUDA_VISIBLE_DEVICES": ""}] * 2, ""),
        ("cpu,cpu", [T4, T4], None, ["cpu:0", "cpu:1"], [{"CUDA_VISIBLE_DEVICES": ""}] * 2, ""),
        ("auto", [T4], None, ["cuda:0"], [{}], ""),
        ("auto", [T4, T4], None, ["cuda:0", "cuda:1"], ["0", "1"], ""),
        ("auto", [T4, T4], "3, GPU-ab", ["cuda:0", "cuda:1"], ["3", "GPU-ab"], ""),
        ("1", [T4, T4], None, ["cuda:0"], ["0"], ""),
        ("cuda:1", [T4, T4], None, ["cuda:1"], ["1"], ""),
        ("cuda:0,cuda:1", [T4], None, ["cuda:0"], [{}], "cuda:1 is not there"),
        ("2", [T4], None, ["cuda:0"], [{}], "2 devices were asked for"),
        ("cuda:3", [], None, ["cpu"], [{}], "cuda:3 is not there"),
        ("auto", [T4, P100], None, ["cuda:0"], ["0"], "cuda:1, a Tesla P100 .* stays idle"),
        ("auto", [None, T4], None, ["cuda:1"], ["1"], r"cuda:0 cannot compute \(no kernel\)"),
        ("auto", [None, None], None, ["cpu"], [{}], r"cuda:0 cannot compute"),
    ],
)
def test_the_devices_that_are_there(
    text: str, gpus: list[str | None], visible: str | None, names: list[str], variables: list[Any], remark: str
) -> None:
    """`gpus`: the model of each, None for one that does not work."""
    there = [VisibleGpu(i, model or T4, None if model else "no kernel") for i, model in enumerate(gpus)]
    devices, remarks = available_devices(parse_devices(text), there, visible)
    assert [device.name for device in devices] == names
    wanted = [each if isinstance(each, dict) else {"CUDA_VISIBLE_DEVICES": each} for each in variables]
    assert [device.variables for device in devices] == wanted
    assert bool(remarks) == bool(remark)
    if remark:
        assert re.search(remark, " ".join(remarks))
    assert devices[0].is_gpu == names[0].startswith("cuda")


def test_the_gpus_are_counted_in_a_process_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_job(job: bytes, take: Any, *more: Any) -> None:
        assert b'"kind": "look"' in job
        take({"event": "gpus", "gpus": [[0, T4, None], [1, T4, None], [2, T4, "no kernel"]]})

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices_module, "run_job", run_job)
    monkeypatch.setattr(devices_module, "may_have_gpus", lambda: False)
    assert find_devices(Limits()) == ([DEFAULT_DEVICE], [])
    monkeypatch.setattr(devices_module, "may_have_gpus", lambda: True)
    found, remarks = find_devices(Limits())
    assert [device.name for device in found] == ["cuda:0", "cuda:1"]
    told = capsys.readouterr().err
    assert "devices: cuda:0, cuda:1; each answers" in told
    assert remarks == ["cuda:2 cannot compute (no kernel); the rankers use cuda:0, cuda:1"] and remarks[0] in told

    class Seen:
        devices = ReadOnce(lambda: (found, remarks))

    (finding,) = machine.devices(Seen())  # type: ignore[arg-type]
    assert finding.state == "warning" and "each of the 2 answers a part" in finding.found


# --- who gets which batches ------------------------------------------------------------------


def test_batches_are_handed_out_in_their_order_and_the_last_ones_one_by_one() -> None:
    batches = SharedBatches(6)
    assert batches.hand_out("a", 2) == [0, 1] and batches.hand_out("b", 2) == [2, 3]
    assert batches.hand_out("a", 2) == []
    batches.answered("a", 0)
    assert batches.hand_out("a", 2) == [4]  # two are waiting for two devices
    batches.answered("b", 2)
    assert batches.hand_out("b", 2) == []  # the last one is for whoever has nothing
    batches.answered("b", 3)
    assert batches.hand_out("b", 2) == [5] and batches.open == 3


def test_what_a_failed_device_has_comes_first() -> None:
    batches = SharedBatches(8)
    assert (batches.hand_out("a", 2), batches.hand_out("b", 2)) == ([0, 1], [2, 3])
    batches.answered("a", 0)
    assert batches.take_back("a") == [1] and batches.first == 1 and batches.take_back("c") == []
    batches.answered("b", 2)
    assert batches.hand_out("b", 1) == [1] and batches.in_hand("b") == [3, 1]
    assert batches.open == 6


class FakeChild:
    """A process that answers at once; `faults`: device -> after how many batches what becomes of it."""

    faults: dict[str, tuple[int, str]] = {}
    started: list[str] = []

    def __init__(self, job: bytes, variables: dict[str, str], inbox: queue.Queue[Any]):
        self.name, self.inbox, self.count = job.decode(), inbox, 0
        self.started.append(self.name)
        self.tell(event="plans")
        self.tell(event="loaded")
        self._fail(0)

    def tell(self, **event: Any) -> None:
        self.inbox.put((self, event))

    def _fail(self, count: int) -> None:
        after, what = self.faults.get(self.name, (-1, ""))
        if count == after and what == "killed":
            self.tell(event="end", code=-9)
        elif count == after and what == "error":
            self.tell(event="error", reason="CUDA error: device-side assert")
            self.tell(event="end", code=1)

    def send(self, line: bytes) -> None:
        after, _ = self.faults.get(self.name, (99, ""))
        if self.count < after:
            self.tell(event="part", number=int(line))
        self.count += 1
        self._fail(self.count)

    def finish(self) -> None:
        self.tell(event="given_back")
        self.tell(event="done")

    def end(self) -> None:
        pass


class FakeRanker:
    """A ranker that notes what it hears."""

    def __init__(self, room: Room | None = None):
        self.heard: list[tuple[str, int]] = []
        self.left: dict[str, tuple[str, int]] = {}
        self.ended: list[str] = []
        self._room, self._planned = room or Room(2), False

    def job(self, device: ComputeDevice, number: int) -> bytes:
        return device.name.encode()

    def line(self, number: int) -> bytes:
        return str(number).encode()

    def take(self, device: ComputeDevice, event: Any) -> None:
        self._planned |= event["event"] == "plans"
        if event["event"] == "part":
            self.heard.append((device.name, event["number"]))
        if event["event"] == "given_back":
            self.ended.append(device.name)

    def room(self, devices: int) -> Room | None:
        return self._room if self._planned else None

    def starts_again(self, error: str) -> bool:
        return False

    def hand_over(self, device: ComputeDevice, error: str, batches: int) -> None:
        self.left[device.name] = (error, batches)


def shared(
    monkeypatch: pytest.MonkeyPatch,
    faults: dict[str, tuple[int, str]],
    count: int = 12,
    room: Room | None = None,
    limits: Limits | None = None,
) -> tuple[FakeRanker, list[str]]:
    monkeypatch.setattr(shared_batches, "Child", FakeChild)
    monkeypatch.setattr(FakeChild, "faults", faults)
    monkeypatch.setattr(FakeChild, "started", started := [])
    asked = FakeRanker(room)
    Sharing(asked, count, devices_on_cpu(2), limits or Limits(), Patience(0.2, "silent for")).run()
    assert sorted(number for _, number in asked.heard) == list(range(count))  # each once
    return asked, started


def test_two_devices_answer_everything_once_and_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, started = shared(monkeypatch, {})
    assert {name for name, _ in asked.heard} == {"cpu:0", "cpu:1"} and not asked.left
    assert sorted(asked.ended) == sorted(started) == ["cpu:0", "cpu:1"]


@pytest.mark.parametrize(
    ("device", "what", "error"),
    [
        ("cpu:0", "killed", "SIGKILL"),
        ("cpu:1", "killed", "SIGKILL"),
        ("cpu:1", "error", "CUDA error"),
        ("cpu:1", "hangs", "silent for 0.2 s"),
    ],
)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_device_that_fails_hands_its_questions_over(
    monkeypatch: pytest.MonkeyPatch, device: str, what: str, error: str, after: int
) -> None:
    asked, _ = shared(monkeypatch, {device: (after, what)})
    assert list(asked.left) == [device] and error in asked.left[device][0]
    assert device not in asked.ended


def test_one_batch_needs_one_device_and_so_does_a_model_with_room_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared(monkeypatch, {}, count=1)[1] == ["cpu:0"]
    assert shared(monkeypatch, {}, room=Room(1))[1] == ["cpu:0"]
    # The second device takes the place of the first.
    asked, started = shared(monkeypatch, {"cpu:0": (1, "killed")}, room=Room(1))
    assert started == ["cpu:0", "cpu:1"] and "cpu:0" in asked.left


def test_where_all_devices_fail_the_ranker_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Fault, match=r"^its process was ended by SIGKILL"):
        shared(monkeypatch, {"cpu:0": (0, "killed"), "cpu:1": (1, "killed")})
    with pytest.raises(Fault, match=r"^cpu:0: its process was ended .*; cpu:1: CUDA error"):
        shared(monkeypatch, {"cpu:0": (1, "killed"), "cpu:1": (1, "error")})
    with pytest.raises(Fault, match="too large"):
        shared(monkeypatch, {}, room=Room(0, reason="too large"))
    late = Limits(deadline=0.6, started=time.monotonic() - 1)
    with pytest.raises(OutOfTime):
        shared(monkeypatch, {}, limits=late)


# --- memory and time -------------------------------------------------------------------------


def plan_of(available: float, host: float = 0.0, loading: float = 4.0, peak: float = 4.0, **more: Any) -> MemoryPlan:
    """GiB: `peak` when it answers."""
    sizes = (0, 0, round(peak * GIB), round(loading * GIB))
    return MemoryPlan("a", *sizes, 4096, round(available * GIB), host=round(host * GIB), **more)


@pytest.mark.parametrize(
    ("plan", "on_gpus", "processes", "together"),
    [
        (plan_of(9), False, 2, True),  # 2 * 4 * 1.05 + 0.5
        (plan_of(8.8), False, 1, True),
        (plan_of(11, loading=6), False, 2, False),  # side by side both would not load
        (plan_of(10.9, loading=6), False, 1, True),
        (plan_of(99, peak=0, loading=0), False, 1, True),  # not known
        (plan_of(15, host=12, host_available=29 * GIB), True, 2, True),  # Kaggle's machine with two T4
        (plan_of(15, host=14, host_available=29 * GIB), True, 2, False),
        (plan_of(15, host=27, host_available=29 * GIB), True, 1, True),
        (plan_of(15, host=27), True, 2, False),  # the system does not tell
        (plan_of(15, peak=0, loading=0, host_available=29 * GIB), True, 2, False),
        (plan_of(9, problem="too large"), False, 0, True),
    ],
)
def test_how_many_copies_have_room(plan: MemoryPlan, on_gpus: bool, processes: int, together: bool) -> None:
    room = room_for(plan, 2, on_gpus)
    assert (room.processes, room.together) == (processes, together)
    assert bool(room.reason) == (processes < 2)
    assert room_for(plan, 1, on_gpus).processes == min(processes, 1)
    assert RESERVE < GPU_PROCESS < 2 * GIB


def test_a_gpu_without_room_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "available_memory", lambda *_: GIB)
    monkeypatch.setattr(worker, "_ROOM_SECONDS", 0.0)
    with pytest.raises(UserError, match=r"has room for 1.00 GiB, and 4.20 GiB are needed"):
        worker._await_room({"memory": None, "held": 0}, plan_of(9))  # type: ignore[typeddict-item]


def test_of_three_devices_two_may_have_room() -> None:
    room = room_for(plan_of(10), 3, False)
    assert (room.processes, room.together) == (2, True) and "no room for more copies of 4.00 GiB" in room.reason


def test_the_estimate_knows_how_many_devices_work() -> None:
    assert shared_seconds(100, 1, 20) == 100 and shared_seconds(100, 2, 20) == 60 and shared_seconds(9, 2, 20) == 9
    stages = [Stage("a", Recipe({"a": 1.0}), seconds_per_question=1.0, load_seconds=2.0)]
    stages += [Stage("b", Recipe({"a": 1.0}), seconds_per_question=4.0, share=0.5)]
    point = {"seconds_per_question": 3.0, "load_seconds": 2.0, "map3": 0.7}
    assert expected_seconds(point, stages, 1000) == 8 + 2 + 3000
    assert expected_seconds(point, stages, 1000, {"b": 2}) == 8 + 2 + 1000 + 1000 + 10
    assert expected_seconds({**point, "seconds_per_question": 2.4}, stages, 1000) == 8 + 2 + 2400  # options dropped
    least = ({**point, "seconds_per_question": 0.0, "map3": 0.1}, stages[:1])
    assert fitting([least, (point, stages)], 1000, 2500) == 0
    assert fitting([least, (point, stages)], 1000, 2500, {"a": 2, "b": 2}) == 1
    assert speed_of(devices_on_cpu(2)) == 1 and speed_of([ComputeDevice("cuda:0"), ComputeDevice("cuda:1")]) == 2
    assert speed_of([DEFAULT_DEVICE]) == 1


def test_the_order_of_the_devices_answers_changes_no_bit() -> None:
    """Sums of three numbers hang on their order; devices answer in any."""
    rng = np.random.default_rng(0)
    tables = [(10.0 ** rng.uniform(-30, 0, (50, 4))).astype(np.float32).astype(np.float64) for _ in range(3)]
    exists = np.ones((50, 4), dtype=bool)
    totals = []
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        turn = Turn.waiting(exists, 3)
        for fold in order:
            turn.of_fold(fold)[:] += tables[fold]
        totals.append(turn.total)
    assert all((total == totals[0]).all() for total in totals)
    assert (totals[0] == (tables[0] + tables[1]) + tables[2]).all()
    assert (totals[0] != (tables[2] + tables[1]) + tables[0]).any()  # as it would be in another order
