"""The training loop, its batches and checkpoints, and the folds' weights, metrics and OOF parts on disk."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_exam
from hypothesis import given, settings
from hypothesis import strategies as st

from solution.config import EnsembleConfig, RankerConfig, RetrievalConfig, Run, TrainingSettings
from solution.errors import UserError
from solution.learning.batches import budget_batches, epoch_windows
from solution.learning.gradient import listwise_loss
from solution.learning.optimizer import learning_rate_factor, make_optimizer
from solution.learning.stuck import StuckWatch
from solution.oof import load_oof, read_oof
from solution.rankers.causal import CausalRanker
from solution.rankers.families import make_ranker
from solution.training.run import train_folds
from solution.workdir import Workdir

torch.set_num_threads(1)
TESTS = Path(__file__).parent


# --- batches -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_budget_batches(lengths, budget):
    batches = budget_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    # Greedy and sorted: the next batch's longest would not have fitted.
    for one, other in zip(batches, batches[1:], strict=False):
        assert (len(one) + 1) * lengths[one[0]] > budget
        assert lengths[one[-1]] >= lengths[other[0]]


def test_budget_batches_of_some():
    assert budget_batches([5, 9, 1, 7], 14, order=[0, 3, 2]) == [[3, 0], [2]]
    assert budget_batches([], 10) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60), st.sampled_from([0.0, 0.05, 0.3]))
def test_budget_batches_pad_little(lengths, share):
    batches = budget_batches(lengths, 160, max_padding=share)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        padded, used = len(batch) * lengths[batch[0]], sum(lengths[i] for i in batch)
        assert len(batch) == 1 or padded <= 20 or (padded <= 160 and used >= (1 - share) * padded - 1e-9)


def training_steps(lengths, per_step, seed, epoch):
    """The steps of an epoch, as rows."""
    windows = epoch_windows(len(lengths), per_step, seed, epoch)
    return [
        [window.rows[place] for place in step]
        for window in windows
        for step in window.steps([lengths[row] for row in window.rows], per_step)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=70), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_training_steps(lengths, per_step, seed, epoch):
    steps = training_steps(lengths, per_step, seed, epoch)
    assert sorted(i for step in steps for i in step) == list(range(len(lengths)))
    assert max(map(len, steps)) <= per_step
    assert len(steps) == math.ceil(len(lengths) / per_step)
    assert steps == training_steps(lengths, per_step, seed, epoch)


def test_training_steps_differ_between_epochs_and_seeds():
    lengths = list(range(40))
    steps = {json.dumps(training_steps(lengths, 4, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(steps) == 9


def test_training_steps_are_alike_in_length():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 1000, 256).tolist()
    parts = [[lengths[i] for i in step] for step in training_steps(lengths, 8, 0, 0)]
    spread = [max(part) - min(part) for part in parts]
    assert np.mean(spread) < 120  # unsorted it would be about 780


# --- learning rate, loss, stuck ------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_learning_rate_factor(schedule):
    values = TrainingSettings(warmup_share=0.2, schedule=schedule)
    factors = [learning_rate_factor(step, 50, values) for step in range(50)]
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 11)
    assert factors[10] == 1.0
    if schedule == "constant":
        assert set(factors[10:]) == {1.0}
        return
    assert all(one > other for one, other in zip(factors[10:], factors[11:], strict=False))
    middle = learning_rate_factor(30, 50, values)
    assert middle == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.03


def test_learning_rate_factor_without_and_with_only_warmup():
    assert learning_rate_factor(0, 10, TrainingSettings(warmup_share=0)) == 1.0
    assert learning_rate_factor(9, 10, TrainingSettings(warmup_share=1)) == 10 / 11
    assert learning_rate_factor(0, 1, TrainingSettings(warmup_share=0.1)) == 1.0


def test_listwise_loss():
    scores = torch.tensor([[1.0, 2.0, -math.inf], [0.0, 0.0, 0.0]], requires_grad=True)
    loss = listwise_loss(scores, torch.tensor([1, 2]))
    assert float(loss.detach()) == pytest.approx(math.log(1 + math.exp(-1)) + math.log(3), rel=1e-6)
    loss.backward()
    assert torch.isfinite(scores.grad).all() and scores.grad[0, 2] == 0


def stuck_at(losses, patience: int = 10, level: float = math.log(5)) -> int | None:
    watch = StuckWatch(patience)
    return next((i for i, loss in enumerate(losses) if watch.add(float(loss), level)), None)


def test_stuck_watch():
    rng = np.random.default_rng(0)
    level = math.log(5)
    assert stuck_at(level + rng.normal(0, 0.002, 50)) == 9
    assert stuck_at(np.full(9, level)) is None
    assert stuck_at(level - 0.02 + rng.normal(0, 0.002, 50)) is None
    # A loss that begins above ln(n) and falls through it is not stuck, and one that comes to rest on it is.
    assert stuck_at(np.linspace(level + 0.6, level - 0.6, 60)) is None
    assert stuck_at([*np.linspace(level + 0.6, level, 30), *np.full(20, level)]) >= 30


def test_stuck_watch_goes_on_after_a_resume():
    level = math.log(4)
    watch = StuckWatch(6, [level] * 5, [level] * 5)
    assert watch.add(level, level)


# --- training ------------------------------------------------------------------------------


def state_of(ranker) -> dict[str, torch.Tensor]:
    return {
        f"{i}.{name}": parameter.detach().clone()
        for i, module in enumerate(ranker.modules)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def same_state(one: dict, other: dict) -> None:
    assert one.keys() == other.keys() and len(one) > 4
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Killed(Exception):
    pass


class Mortal(CausalRanker):
    """Dies at the forward pass after `life` of them (one a step here, so long as nothing is evaluated)."""

    life = 0

    def scores(self, items):
        if self.life == 0:
            raise Killed
        self.life -= 1
        return super().scores(items)


class Dies(CausalRanker):
    """Dies at a training pass after `left` of them; negative: never."""

    left = -1

    def encoded_scores(self, items):
        if not torch.is_inference_mode_enabled():
            if self.left == 0:
                raise Killed
            self.left -= 1
        return super().encoded_scores(items)


# Dropout and context dropout, so that a random state that is not restored shows.
LOOP = {"epochs": 3, "learning_rate": 0.003, "checkpoint_seconds": 0, "context_dropout": 0.3}


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    config = tiny_config("causal", tiny("llama"), head="both", training=LOOP, lora={"lora_dropout": 0.2})
    exam = tiny_exam(16, (4, 3))
    ranker = make_ranker(config, tmp_path_factory.mktemp("whole"))
    facts = ranker.fit(exam, exam, tmp_path_factory.mktemp("checkpoint") / "c")
    assert facts["steps"] == 12
    return config, exam, facts, state_of(ranker)


@pytest.mark.parametrize("life", [1, 4, 6, 11])
def test_resume_is_exact(undisturbed, tmp_path, life):
    """Killed after the 1st step, at the end of an epoch, within one, and before the last."""
    config, exam, facts, wanted = undisturbed
    ranker = Mortal(config, tmp_path)
    ranker.life = life
    with pytest.raises(Killed):
        ranker.fit(exam, exam, tmp_path / "c")
    assert json.loads((tmp_path / "c" / "state.json").read_text())["step"] == life
    again = Mortal(config, tmp_path)
    again.life = 12 - life  # not a step more than are missing
    resumed = again.fit(exam, exam, tmp_path / "c")
    assert again.life == 0
    assert resumed["loss"] == facts["loss"]
    same_state(state_of(again), wanted)


def test_resume_after_kill_9(tiny, tmp_path):
    # The log runs ahead of the checkpoints, as it does in earnest.
    training = {**LOOP, "epochs": 30, "checkpoint_seconds": 0.1, "awp": {}, "ema_decay": 0.9}
    training |= {"evaluations_per_epoch": 1, "keep": "best", "patience": 30, "stuck_patience": 1000}
    config = tiny_config("causal", tiny("llama"), training=training, lora={"lora_dropout": 0.2})
    exam = tiny_exam(8, 3)
    script = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); sys.path.insert(0, {str(TESTS.parent)!r})\n"
        "import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from conftest import tiny_exam\n"
        "from solution.config import RankerConfig\n"
        "from solution.rankers.families import make_ranker\n"
        f"config = RankerConfig.model_validate_json({config.model_dump_json()!r})\n"
        "exam = tiny_exam(8, 3)\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "make_ranker(config, folder).fit(exam, exam, folder / 'c', folder / 'logs')\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    state = tmp_path / "c" / "state.json"
    try:
        deadline = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < deadline:
            try:
                if json.loads(state.read_text())["step"] >= 5:
                    break
            except (OSError, ValueError):
                pass
            time.sleep(0.002)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL, child.stderr.read().decode()[-2000:]
    resumed, whole = make_ranker(config, tmp_path), make_ranker(config, tmp_path)
    facts = whole.fit(exam, exam, tmp_path / "other", tmp_path / "whole")
    assert facts["steps"] == 60
    assert resumed.fit(exam, exam, tmp_path / "c", tmp_path / "logs")["loss"] == facts["loss"]
    same_state(state_of(resumed), state_of(whole))
    logs = [list(csv.reader((tmp_path / name / "log.csv").open())) for name in ("logs", "whole")]
    assert len(logs[0]) == 61 and [row[:5] + row[6:] for row in logs[0]] == [row[:5] + row[6:] for row in logs[1]]
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".part", ".old")]


@pytest.mark.parametrize("optimizer", ["paged_adamw_8bit", "paged_adamw_32bit"])
def test_paged_optimizers_step_and_resume(undisturbed, tmp_path, optimizer):
    config, exam, _, _ = undisturbed
    # bitsandbytes keeps 8-bit state for tensors of 4,096 numbers and more: rank 64 times width 64.
    changes = {"lora": config.lora.model_copy(update={"r": 64})}
    plain = make_ranker(config.model_copy(update=changes), tmp_path).fit(exam, exam, tmp_path / "plain")
    changes["training"] = config.training.model_copy(update={"optimizer": optimizer})
    config = config.model_copy(update=changes)
    whole = Mortal(config, tmp_path)
    whole.life = 12
    facts = whole.fit(exam, exam, tmp_path / "whole")
    assert facts["loss"] != plain["loss"]
    np.testing.assert_allclose(facts["loss"], plain["loss"], atol=0.15)
    ranker = Mortal(config, tmp_path)
    ranker.life = 5
    with pytest.raises(Killed):
        ranker.fit(exam, exam, tmp_path / "c")
    from safetensors.torch import load_file

    kinds = {tensor.dtype for tensor in load_file(tmp_path / "c" / "tensors.safetensors").values()}
    assert (torch.uint8 in kinds) == (optimizer == "paged_adamw_8bit")
    again = Mortal(config, tmp_path)
    again.life = 7
    assert again.fit(exam, exam, tmp_path / "c")["loss"] == facts["loss"]
    same_state(state_of(again), state_of(whole))


def _other_answers(exam):
    exam.questions.answers[0] = (exam.questions.answers[0] + 1) % 3


def _other_text(exam):
    """A question file's own context has the question's id, whatever it says."""
    from dataclasses import replace

    exam.passages[0] = [replace(exam.passages[0][0], text="ice wind fire")]


def _other_wording(exam):
    exam.questions.extra["is_question"] = ["false"] + ["true"] * (len(exam) - 1)


@pytest.mark.parametrize("change", [_other_answers, _other_text, _other_wording])
def test_checkpoint_of_other_questions_is_not_used(undisturbed, tmp_path, change):
    config, exam, _, _ = undisturbed
    ranker = Mortal(config, tmp_path)
    ranker.life = 6
    with pytest.raises(Killed):
        ranker.fit(exam, exam, tmp_path / "c")
    other = exam.subset(range(len(exam)))
    change(other)
    again = Mortal(config, tmp_path)
    again.life = 12
    again.fit(other, exam, tmp_path / "c")
    assert again.life == 0


def test_broken_checkpoint_is_dropped(undisturbed, tmp_path, capsys):
    config, exam, facts, wanted = undisturbed
    ranker = Mortal(config, tmp_path)
    ranker.life = 6
    with pytest.raises(Killed):
        ranker.fit(exam, exam, tmp_path / "c")
    path = tmp_path / "c" / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    again = make_ranker(config, tmp_path)
    assert again.fit(exam, exam, tmp_path / "c")["loss"] == facts["loss"]
    same_state(state_of(again), wanted)
    assert "broken; starting this fold anew" in capsys.readouterr().err


def test_evaluations_change_nothing(undisturbed, tmp_path):
    config, exam, facts, wanted = undisturbed
    watched = config.model_copy(update={"training": config.training.model_copy(update={"evaluations_per_epoch": 2})})
    ranker = make_ranker(watched, tmp_path)
    seen = ranker.fit(exam, exam.subset([0, 1, 2, 3]), tmp_path / "c")
    assert [step for step, _ in seen["evaluations"]] == [2, 4, 6, 8, 10]
    assert all(0 <= score <= 1 for _, score in seen["evaluations"])
    assert seen["loss"] == facts["loss"]
    same_state(state_of(ranker), wanted)


def test_keep_best(tiny, tmp_path):
    """A rate that ruins the ranker in the end: the best evaluation's parameters are left, also after a resume."""
    training = {
        "epochs": 6, "learning_rate": 0.01, "evaluations_per_epoch": 2, "keep": "best", "checkpoint_seconds": 0,
        "schedule": "constant", "stuck_patience": 1000,
    }  # fmt: skip
    config = tiny_config("causal", tiny("llama"), training=training)
    exam, valid = tiny_exam(8, 4), tiny_exam(12, 4, seed=5)
    # The validation's answers are the wrong ones from the start: learning makes it worse.
    valid.questions.answers[:] = (valid.questions.answers + 1) % 4
    ranker = make_ranker(config, tmp_path)
    facts = ranker.fit(exam, valid, tmp_path / "c")
    scores = dict(facts["evaluations"])
    assert sorted(scores) == list(range(1, 13))
    best = min(step for step, score in scores.items() if score == max(scores.values()))
    assert facts["kept_step"] == best < 12
    from solution.metrics import map_at_k

    assert map_at_k(ranker.predict(valid), valid.questions.answers) == pytest.approx(scores[best], abs=1e-6)
    assert scores[best] > scores[12]

    dying = Dies(config, tmp_path)
    dying.left = 9
    with pytest.raises(Killed):
        dying.fit(exam, valid, tmp_path / "d")
    again = make_ranker(config, tmp_path)
    resumed = again.fit(exam, valid, tmp_path / "d")
    assert resumed["kept_step"] == best
    same_state(state_of(again), state_of(ranker))


def test_last_is_kept_by_default(undisturbed):
    assert "kept_step" not in undisturbed[2]


@pytest.mark.parametrize("family", ["causal", "multiple_choice"])
def test_gradient_checkpointing_changes_nothing(tiny, tmp_path, family):
    model = {"causal": "llama", "multiple_choice": "bert"}[family]
    exam = tiny_exam(8, 3)
    losses = []
    for on in (False, True):
        config = tiny_config(family, tiny(model), training={"gradient_checkpointing": on, "epochs": 2})
        ranker = make_ranker(config, tmp_path)
        losses.append(ranker.fit(exam, exam, tmp_path / f"c{on}")["loss"])
        inner = ranker.model.base_model.model
        assert inner.is_gradient_checkpointing == on
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)


def test_batches_within_a_step_change_nothing(tiny, tmp_path):
    """A step split by the token budget has the gradient of the whole step."""
    exam = tiny_exam(8, (4, 2))
    losses = []
    for tokens in (64, 8192):
        config = tiny_config("causal", tiny("llama"), training={"tokens_per_batch": tokens, "epochs": 2})
        losses.append(make_ranker(config, tmp_path).fit(exam, exam, tmp_path / f"c{tokens}")["loss"])
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-4)


def test_stuck(tiny, tmp_path):
    training = {"learning_rate": 1e-12, "epochs": 6, "stuck_patience": 5}
    config = tiny_config("multiple_choice", tiny("deberta"), training=training)
    exam = tiny_exam(8, 4)
    with pytest.raises(UserError, match=r"loss has stayed at ln\(number of options\) = 1.386 for 5 steps"):
        make_ranker(config, tmp_path).fit(exam, exam, tmp_path / "c")


def test_stuck_is_not_told_in_warm_up(tiny, tmp_path):
    training = {"learning_rate": 1e-12, "epochs": 4, "stuck_patience": 5, "warmup_share": 0.8}
    config = tiny_config("multiple_choice", tiny("deberta"), training=training)
    exam = tiny_exam(8, 4)
    assert make_ranker(config, tmp_path).fit(exam, exam, tmp_path / "c")["steps"] == 8


def test_loss_that_is_not_finite(tiny, tmp_path):
    training = {"learning_rate": 1e30, "epochs": 5, "warmup_share": 0}
    config = tiny_config("causal", tiny("llama"), training=training)
    exam = tiny_exam(8, 4)
    with pytest.raises(UserError, match="the loss is not finite at step 2. Lower training.learning_rate"):
        make_ranker(config, tmp_path).fit(exam, exam, tmp_path / "c")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("model", ["llama", "bert"])
@pytest.mark.parametrize("whole", [False, True])
def test_half_precision_checkpoints_are_trained_in_float32(tmp_path, model, dtype, whole):
    import tiny_models

    folder = getattr(tiny_models, model)(tmp_path / model, dtype=dtype)
    assert json.loads((folder / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    family = {"llama": "causal", "bert": "multiple_choice"}[model]
    config = tiny_config(family, str(folder), precision="bfloat16", **({"lora": None} if whole else {}))
    ranker = make_ranker(config, tmp_path)
    ranker.build()
    trained = [p for module in ranker.modules for p in module.parameters() if p.requires_grad]
    assert trained and {p.dtype for p in trained} == {torch.float32}


def test_half_precision_parameter_is_not_optimized(tiny, tmp_path):
    ranker = make_ranker(tiny_config("causal", tiny("llama")), tmp_path)
    ranker.build()
    ranker.head.score_weight.data = ranker.head.score_weight.data.half()
    with pytest.raises(AssertionError, match="score_weight is torch.float16"):
        make_optimizer(ranker, ranker.config.training)


def test_learning_rates_and_decay(tiny, tmp_path):
    """New heads and modules trained whole have their own rate; vectors do not decay."""
    lora = {"modules_to_save": ["norm", "lm_head"], "target_modules": ["q_proj"]}
    training = {"learning_rate": 0.001, "head_learning_rate": 0.1, "weight_decay": 0.5}
    ranker = make_ranker(tiny_config("causal", tiny("llama"), head="both", lora=lora, training=training), tmp_path)
    ranker.build()
    optimizer, parameters = make_optimizer(ranker, ranker.config.training)
    found = {id(p): (g["base_lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    named = {name: p for module in ranker.modules for name, p in module.named_parameters() if p.requires_grad}
    assert len(parameters) == len(named)
    for name, parameter in named.items():
        rate = 0.001 if "lora_" in name else 0.1
        assert found[id(parameter)] == (rate, 0.5 if parameter.ndim > 1 else 0.0), name


def test_missing_answer(tiny, tmp_path):
    exam = tiny_exam(4, 3)
    exam.questions.answers[2] = -1
    with pytest.raises(UserError, match="training needs the answer"):
        make_ranker(tiny_config("causal", tiny("llama")), tmp_path).fit(exam, exam, tmp_path / "c")


# --- folds on disk -------------------------------------------------------------------------


def exam_with_contexts(n: int = 18):
    """Three modules; the questions of the last have three options, the others five."""
    exam = tiny_exam(n, (5, 5, 3), words=6)
    questions = exam.questions
    questions.extra["module"] = [f"m{row % 3}" for row in range(n)]
    questions.extra["context"] = [passages[0].text for passages in exam.passages]
    return questions


def run_of(config: RankerConfig, **retrieval) -> Run:
    return Run(
        rankers=[config],
        retrieval=RetrievalConfig(**{"source": "column", "option_scores": [], **retrieval}),
        ensemble=EnsembleConfig(rankers=[config.name], folds=3, group_column="module", near_duplicate=1),
    )


def quick(model: str, **training) -> RankerConfig:
    return tiny_config("multiple_choice", model, max_tokens=40, training={"questions_per_step": 6, **training})


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    workdir = Workdir.open(tmp_path_factory.mktemp("exam"))
    config = quick(tiny("bert"))
    questions = exam_with_contexts()
    train_folds(run_of(config), questions, workdir, [0, 1, 2])
    return workdir, config, questions


def test_what_is_written(finished):
    workdir, config, questions = finished
    oof = load_oof(workdir)
    assert sorted(oof.ids) == sorted(questions.ids)
    table = oof.probabilities["tiny"]
    assert table.shape == (18, 5)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)
    for fold in range(3):
        folder = workdir.fold_weights("tiny", fold)
        assert {"adapter_model.safetensors", "manifest.json", "metrics.json", "ranker.json"} <= set(os.listdir(folder))
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["questions"] == 6 and metrics["steps"] == 2 and len(metrics["loss"]) == 2
        assert metrics["interval"][0] <= metrics["map3"] <= metrics["interval"][1]
        assert 0 < metrics["random_map3"] < 1 and metrics["trainable_parameters"] > 0
        stored = json.loads((folder / "ranker.json").read_text())
        assert RankerConfig.model_validate(stored["config"]) == config
        rows = (folder / "log.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows] == ["step", "1", "2"]
    assert not list(workdir.cache.rglob("checkpoints/*/*")), "checkpoints of finished folds are removed"
    assert not (workdir.root / "logs").exists()


def test_fold_of_fewer_options_keeps_the_width(finished):
    workdir, _, _ = finished
    parts = [read_oof(workdir.oof_part("tiny", fold)) for fold in range(3)]
    assert {part.probabilities.shape for part in parts} == {(6, 5)}
    narrow = [part for part in parts if np.isnan(part.probabilities[:, 3:]).all()]
    assert len(narrow) == 1
    assert not np.isnan(narrow[0].probabilities[:, :3]).any()


def test_saved_weights_say_what_the_oof_says(finished):
    from solution.exam import Exam
    from solution.retrieval.contexts.build import build_contexts

    workdir, config, questions = finished
    exam = Exam.join(questions, build_contexts(questions, run_of(config).retrieval, workdir.root))
    ranker = make_ranker(config, workdir.cache)
    for fold in (1, 0):
        part = read_oof(workdir.oof_part("tiny", fold))
        rows = [questions.ids.index(id_) for id_ in part.ids]
        ranker.load(workdir.fold_weights("tiny", fold))
        table = ranker.predict(exam.subset(rows))
        np.testing.assert_allclose(table, np.nan_to_num(part.probabilities)[:, : table.shape[1]], atol=1e-6)


def stamps(workdir: Workdir, fold: int) -> tuple[int, int]:
    manifest = workdir.fold_weights("tiny", fold) / "manifest.json"
    return manifest.stat().st_mtime_ns, workdir.oof_part("tiny", fold).stat().st_mtime_ns


def test_finished_folds_are_not_trained_again(finished, capsys):
    workdir, config, questions = finished
    before = stamps(workdir, 0)
    train_folds(run_of(config), questions, workdir, [0])
    assert stamps(workdir, 0) == before
    assert "tiny fold 0: already trained, nothing has changed" in capsys.readouterr().err
    # Nor where a setting has changed that changes no result.
    train_folds(run_of(config.model_copy(update={"predict_tokens_per_batch": 99})), questions, workdir, [0])
    assert stamps(workdir, 0) == before
    # Nor where the rows only stand in another order.
    train_folds(run_of(config), questions.subset(list(range(18))[::-1]), workdir, [0])
    assert stamps(workdir, 0) == before


def test_same_seed_same_bytes(finished, tmp_path):
    workdir, config, questions = finished
    other = Workdir.open(tmp_path / "again")
    train_folds(run_of(config), questions, other, [1])
    assert other.oof_part("tiny", 1).read_bytes() == workdir.oof_part("tiny", 1).read_bytes()
    name = "adapter_model.safetensors"
    weights = [place.fold_weights("tiny", 1) / name for place in (workdir, other)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    seeded = Workdir.open(tmp_path / "seeded")
    train_folds(run_of(config.model_copy(update={"seed": 1})), questions, seeded, [1])
    assert seeded.oof_part("tiny", 1).read_bytes() != workdir.oof_part("tiny", 1).read_bytes()


def _corrupt_adapter(workdir: Workdir) -> None:
    path = workdir.fold_weights("tiny", 0) / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("config", None),
        ("wording", None),
        ("context", None),
        ("adapter", "corrupt: adapter_model.safetensors"),
        ("oof", "corrupt"),
        ("no oof", None),
    ],
)
def test_what_has_changed_is_trained_again(finished, tiny, tmp_path, capsys, what, told):
    shutil.copytree(finished[0].root, tmp_path / "copy")
    workdir = Workdir.open(tmp_path / "copy")
    config, questions = quick(tiny("bert")), exam_with_contexts()
    before = stamps(workdir, 0)
    part = workdir.oof_part("tiny", 0)
    if what == "config":
        config = quick(tiny("bert"), learning_rate=0.002)
    elif what == "wording":
        questions.extra["is_question"] = ["false"] * 18
    elif what == "context":
        questions.extra["context"][3] = "ice wind"
    elif what == "adapter":
        _corrupt_adapter(workdir)
    elif what == "oof":
        part.write_bytes(part.read_bytes()[:-40])
    else:
        part.unlink()
    capsys.readouterr()
    train_folds(run_of(config), questions, workdir, [0])
    err = capsys.readouterr().err
    assert "already trained" not in err
    if told:
        assert told in err and "training it again" in err
    now = stamps(workdir, 0)
    assert now[0] > before[0] and now[1] > before[1]
    train_folds(run_of(config), questions, workdir, [0])
    assert stamps(workdir, 0) == now


def test_leftovers_are_swept(tiny, tmp_path):
    workdir = Workdir.open(tmp_path)
    leftover = workdir.fold_weights("tiny", 0).parent / ".fold_0.abc.part"
    leftover.mkdir(parents=True)
    (leftover / "x").write_text("half")
    config = RankerConfig(name="tiny", family="longest")
    train_folds(run_of(config), exam_with_contexts(), workdir, [0])
    assert not leftover.exists()
    assert workdir.oof_part("tiny", 0).is_file()


def test_fold_out_of_range(tmp_path):
    config = RankerConfig(name="longest", family="longest")
    with pytest.raises(UserError, match="fold 3 is out of range: the ensemble has 3 folds, 0 to 2"):
        train_folds(run_of(config), exam_with_contexts(), Workdir.open(tmp_path), [0, 3])


def test_context_reaches_the_ranker(tiny, tmp_path):
    """Closed book and open book differ, and a closed-book ranker does not depend on the contexts."""
    questions = exam_with_contexts()
    said = {}
    for name, passages, source in (("open", 1, "column"), ("closed", 0, "column"), ("none", 1, "none")):
        workdir = Workdir.open(tmp_path / name)
        config = quick(tiny("bert")).model_copy(update={"passages": passages})
        train_folds(run_of(config, source=source), questions, workdir, [0])
        said[name] = read_oof(workdir.oof_part("tiny", 0))
    assert np.nanmax(np.abs(said["open"].probabilities - said["closed"].probabilities)) > 1e-4
    np.testing.assert_allclose(said["closed"].probabilities, said["none"].probabilities, atol=1e-6)
    assert said["closed"].about["contexts"] == "none" != said["open"].about["contexts"]
