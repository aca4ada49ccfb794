"""What overflows in float16 is scored again in float32; all other scores stay as they are, to the bit.

A word of the questions makes a neuron of the model larger than 65504, where float16 ends. The tiny models compute in
float16 on the CPU, as their real sisters do on a GPU without bfloat16.
"""

from __future__ import annotations

import json
import queue
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_exam
from torch import nn

from solution.config import EnsembleConfig, RerankerSettings, RetrievalConfig, Run
from solution.device import Device
from solution.ensemble.blend import Recipe
from solution.ensemble.cascade import Stage
from solution.errors import UserError
from solution.inference import shared_batches, worker
from solution.inference.answering import Answering
from solution.inference.asking import ReadyRanker
from solution.inference.engine import Engine
from solution.inference.journal import AnswerJournal
from solution.inference.limits import Limits
from solution.inference.memory_plan import MemoryPlan
from solution.inference.outputs import AnswerFile, submission_report
from solution.inference.retrieving import RetrievalTime
from solution.inference.timeline import Timeline
from solution.inference.trained import TrainedRanker
from solution.inference.turns import Answers, Recipes
from solution.rankers import model as model_module
from solution.rankers.families import make_ranker
from solution.rankers.float32 import float32_products, in_float32
from solution.rankers.scoring import BatchScoring
from solution.weights import read_metrics
from solution.workdir import Workdir

torch.set_num_threads(1)

HALF, SINGLE = Device("cpu", torch.float16), Device("cpu", torch.float32)
LOUD = "~"  # in no text but the questions that are to overflow
WIDE = {  # the layers in which a neuron is made large, and the one that takes it back
    "deberta": (("layer.0.intermediate.dense",), "layer.0.output.dense"),
    "bert": (("layer.0.intermediate.dense",), "layer.0.output.dense"),
    "llama": (("layers.0.mlp.gate_proj", "layers.0.mlp.up_proj"), "layers.0.mlp.down_proj"),
    "gemma2": (("layers.0.mlp.gate_proj", "layers.0.mlp.up_proj"), "layers.0.mlp.down_proj"),
    "t5": (
        tuple(f"encoder.block.0.layer.1.DenseReluDense.wi_{i}" for i in (0, 1)),
        "encoder.block.0.layer.1.DenseReluDense.wo",
    ),
}
FAMILY = {"deberta": "multiple_choice", "bert": "multiple_choice", "t5": "seq2seq"}
KINDS = {
    "deberta": {},
    "bert": {},
    "llama": {"head": "both", "likelihood_prior": "question"},
    "gemma2": {"head": "likelihood"},
    "t5": {"head": "both", "likelihood_prior": "option"},
    "streamed": {
        "head": "both",
        "likelihood_prior": "question",
        "stream": True,
        "training": {"epochs": 0},
        "lora": None,
    },
}


def make_loud(modules: list[nn.Module], kind: str, tokenizer: Any) -> None:
    """Have the token of `LOUD` fill a dimension that drives a neuron beyond float16, and a later layer bear it."""
    large, small = WIDE[kind]
    token = tokenizer(LOUD, add_special_tokens=False)["input_ids"][-1]
    found = set()
    with torch.no_grad():
        for module in modules:
            for name, part in module.named_modules():
                name = name.removesuffix(".base_layer")
                if name.endswith(("word_embeddings", "embed_tokens", "shared")) and isinstance(part, nn.Embedding):
                    part.weight[:, 0] = part.weight[:, 1:].mean(dim=1)
                    part.weight[token, 0] = 30.0
                if not isinstance(part, nn.Linear):
                    continue
                for end in large:
                    if name.endswith(end):
                        part.weight[0] = 0
                        part.weight[0, 0] = 1.2e4 if len(large) == 1 else 60.0  # of two the product overflows
                        found.add(end)
                if name.endswith(small):
                    part.weight[:, 0] *= 1e-5
                    found.add(small)
    assert found == {*large, small}


def save_loud(model: str, folder: Path) -> str:
    """Write a tiny Llama that overflows; returns the folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    make_loud([loaded], "llama", tokenizer)
    loaded.half().save_pretrained(folder)  # as the ranker rounds them
    tokenizer.save_pretrained(folder)
    return str(folder)


def exam() -> Any:
    made = tiny_exam(8, (4, 3))
    for row in (1, 6):
        made.questions.prompts[row] = f"{LOUD} {made.questions.prompts[row]}"
    return made


def loud_ranker(tiny: Any, folder: Path, name: str) -> Any:
    """A ranker in float16 that overflows on questions 1 and 6."""
    model = "llama" if name == "streamed" else name
    config = tiny_config(FAMILY.get(model, "causal"), tiny(model), **{"predict_tokens_per_batch": 400, **KINDS[name]})
    if name == "streamed":
        # The weights that are read layer by layer are made loud in the checkpoint.
        save_loud(tiny(model), folder / "loud")
        config = config.model_copy(update={"model": str(folder / "loud")})
    ranker: Any = make_ranker(config, folder)
    ranker.device = HALF
    ranker.build()
    if name != "streamed":
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for part, parameter in ranker.model.named_parameters():
                if "lora_B" in part or ("classifier" in part and parameter.ndim > 1):
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        make_loud(ranker.modules, model, ranker.tokenizer)
    return ranker


def scored(ranker: Any, items: list[Any], again: bool = True) -> tuple[np.ndarray, list[int]]:
    """The scores of items, and which were computed again; `again=False`: as float16 has them."""
    scoring = BatchScoring(ranker, items)
    table = np.full((len(items), 5), np.nan)
    with torch.inference_mode():
        everything = scoring.results(lambda _: None) if again else scoring._scored(scoring._batches, lambda _: None)
        for batch, values in everything:
            table[batch, : values.shape[1]] = values
    return table, scoring.repeated


@pytest.mark.parametrize("name", list(KINDS))
def test_what_overflows_is_scored_again(name, tiny, tmp_path, capsys):
    ranker, questions = loud_ranker(tiny, tmp_path, name), exam()
    rows, items = ranker.items(questions)
    parts = [(row, part) for row, item in zip(rows, items, strict=True) for part in ranker.parts(item)]
    before = ranker.device
    stored = {part: value.clone() for part, value in ranker.model.named_parameters() if not value.is_meta}

    half, _ = scored(ranker, [part for _, part in parts], again=False)
    hooks = [len(part._forward_hooks) for part in ranker.model.modules()]  # transformers has some of its own
    table, repeated = scored(ranker, [part for _, part in parts])
    assert {parts[i][0] for i in repeated} == {1, 6}
    finite = [i for i in range(len(parts)) if i not in repeated]
    np.testing.assert_array_equal(table[finite], half[finite])
    for i in repeated:
        columns = parts[i][1].encoded.positions
        assert not np.isfinite(half[i, columns]).all() and np.isfinite(table[i, columns]).all()

    # The weights, the hooks and the number format are what they were.
    assert ranker.device == before and hooks == [len(part._forward_hooks) for part in ranker.model.modules()]
    for part, value in ranker.model.named_parameters():
        assert value.is_meta or (value.dtype == stored[part].dtype and torch.equal(value, stored[part]))

    # They are the scores of the same weights in float32.
    if name != "streamed":
        ranker.model.float()
    else:
        ranker.stages._dtype = torch.float32
        for slot in ranker.stages.slots:
            slot.empty.data = slot.empty.data.float()
            slot.put(slot.empty)
        ranker.stages.fill_resident()
    ranker.device = SINGLE
    exact, _ = scored(ranker, [part for _, part in parts])
    for i in repeated:
        columns = parts[i][1].encoded.positions
        np.testing.assert_allclose(table[i, columns], exact[i, columns], rtol=1e-4, atol=1e-4)
    assert "sequences are not finite in float16, and are computed again in float32" in capsys.readouterr().err


def test_the_questions_are_counted(tiny, tmp_path):
    ranker, questions = loud_ranker(tiny, tmp_path, "llama"), exam()
    table = ranker.predict(questions)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)
    assert ranker.float32_ids == {questions.questions.ids[1], questions.questions.ids[6]}


def test_scores_that_are_not_finite_in_float32_either(tiny, tmp_path):
    ranker = loud_ranker(tiny, tmp_path, "bert")
    with torch.no_grad():
        for name, parameter in ranker.model.named_parameters():
            if "word_embeddings" in name:
                parameter.fill_(float("nan"))
    with pytest.raises(UserError, match="gave scores that are not finite in float32: a weight is not finite"):
        ranker.predict(exam())


def test_memory_that_runs_out_in_float32(tiny, tmp_path, monkeypatch, capsys):
    ranker, questions = loud_ranker(tiny, tmp_path, "llama"), exam()
    scores, sizes = ranker.scores, []

    def small(items):
        if ranker.device.compute == torch.float32:
            sizes.append(len(items))
            if len(items) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return scores(items)

    monkeypatch.setattr(ranker, "scores", small)
    assert np.isfinite(ranker.predict(questions)).all()
    assert sizes == [2, 1, 1] and ranker.device == HALF
    assert "out of memory, going on" in capsys.readouterr().err


def test_four_bit_weights_are_multiplied_in_float32(tiny, tmp_path):
    config = tiny_config("causal", tiny("llama"), quantization={"kind": "nf4", "double": True}, head="both")
    ranker: Any = make_ranker(config, tmp_path)
    ranker.device = HALF
    ranker.build()
    layers = [part for part in ranker.model.modules() if hasattr(part, "quant_state")]
    assert layers and {layer.compute_dtype for layer in layers} == {torch.float16}
    questions = tiny_exam(3)
    _, items = ranker.items(questions)
    with torch.inference_mode(), in_float32(ranker):
        assert {layer.compute_dtype for layer in layers} == {torch.float32}
        scores = ranker.scores(items)
    assert {layer.compute_dtype for layer in layers} == {torch.float16}
    for layer in layers:
        layer.compute_dtype = torch.float32
    ranker.device = SINGLE
    with torch.inference_mode():
        torch.testing.assert_close(scores, ranker.scores(items), rtol=0, atol=0)


def test_an_error_inside_leaves_the_weights_as_they_were():
    class Fails(nn.Linear):
        def forward(self, x):
            assert self.weight.dtype == torch.float32
            raise ValueError

    layer = Fails(2, 2).half()
    weight = layer.weight
    with pytest.raises(ValueError), float32_products([layer]):
        layer(torch.ones(1, 2))
    assert layer.weight is weight and not layer._forward_hooks and not layer._forward_pre_hooks


def test_the_reranker_scores_again_in_float32(tiny, tmp_path):
    from solution.retrieval.reranker.candidates import PassageList
    from solution.retrieval.reranker.cross_encoder import CrossEncoder

    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["query", "value"]}
    settings = RerankerSettings(model=tiny("bert"), max_tokens=60, precision="float32", lora=lora)
    model = CrossEncoder(settings, tmp_path)
    model.device = HALF
    model.build()
    head = next(p for name, p in model.model.named_parameters() if "classifier.modules_to_save" in name and p.ndim == 2)
    torch.nn.init.normal_(head)
    make_loud(model.modules, "bert", model.tokenizer)
    lists = [PassageList("which moon?", [f"{word} stone river" for word in ("iron", LOUD, "gold")], [0.3, 0.2, 0.1])]
    (scores,) = model.score(lists)
    assert np.isfinite(scores).all() and model.float32_pairs == 1
    model.device = SINGLE
    (exact,) = model.score(lists)
    assert scores[1] == pytest.approx(exact[1], abs=1e-5) and model.float32_pairs == 1


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A zero-shot ranker that overflows on questions 1 and 6, its two folds, and their metrics; all in float16."""
    from solution.training.prepared import prepare
    from solution.training.run import train_fold

    folder = tmp_path_factory.mktemp("trained")
    questions = exam().questions
    model = save_loud(tiny("llama"), folder / "loud")
    base = tiny_config("causal", model, head="likelihood", lora=None, passages=0, training={"epochs": 0})
    ensemble = EnsembleConfig(rankers=["tiny"], folds=2)
    run = Run(rankers=[base], ensemble=ensemble, retrieval=RetrievalConfig(source="none"))
    workdir = Workdir(folder)
    prepared = prepare(run, questions, workdir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_module, "choose_device", lambda precision: HALF)
        for fold in range(2):
            train_fold(base, run, prepared, workdir, fold)
    folders = [workdir.fold_weights("tiny", fold) for fold in range(2)]
    return base, folders, [read_metrics(each, "") for each in folders]


def test_a_fold_counts_them(trained):
    _, _, metrics = trained
    assert sum(each["float32_questions"] for each in metrics) == 2


class ChildHere:
    """A ranker's process as a thread of this one."""

    def __init__(self, job, variables, inbox):
        self.lines = queue.Queue()

        def work():
            batches = map(json.loads, iter(self.lines.get, None))
            worker.answer(json.loads(job), lambda event: inbox.put((self, event)), batches)
            inbox.put((self, {"event": "done"}))

        self.send, self.finish, self.end = self.lines.put, lambda: self.lines.put(None), lambda: None
        threading.Thread(target=work, daemon=True).start()


def test_a_submission_counts_them(trained, tmp_path, monkeypatch, capsys):
    """Its process runs here, so that it computes in float16 too."""
    config, folders, _ = trained
    made = exam()
    answers = Answers(made.questions, Recipes(Recipe({"tiny": 1.0})), {"tiny": 2}, Timeline(Limits()))
    answers.turns["tiny"].plan = MemoryPlan("tiny", 0, 0, 0, 0, config.predict_tokens_per_batch, 0)
    rankers = {"tiny": ReadyRanker(TrainedRanker("tiny", config, folders), [made.hidden()], 0.0)}
    journal, file = AnswerJournal(tmp_path / "journal"), AnswerFile(answers, lambda blend: None)
    monkeypatch.setattr(model_module, "choose_device", lambda precision: HALF)
    monkeypatch.setattr(shared_batches, "Child", ChildHere)
    Engine(answers, Answering(answers, rankers, tmp_path, journal, file)).run(
        [Stage("tiny", Recipe({"tiny": 1.0}))], []
    )
    assert answers.turns["tiny"].state == "finished"
    report = submission_report(answers, {}, RetrievalTime(), "finished", tmp_path / "s.csv")
    (record,) = report["rankers"]
    assert (record["float32_questions"], record["computed_on"]) == (2, "cpu in float16")
    assert "tiny: overflows in float16" in [note["event"] for note in report["timeline"]]
    assert answers.overflows() == [
        "tiny: 2 of 8 questions overflowed in float16, and were scored again in float32",
    ]


def test_the_embedder_makes_vectors_again_in_float32(tiny, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    from solution.retrieval.embedding import Embedder

    model, tokenizer = AutoModel.from_pretrained(tiny("bert")), AutoTokenizer.from_pretrained(tiny("bert"))
    make_loud([model], "bert", tokenizer)
    model.save_pretrained(tmp_path / "loud")
    tokenizer.save_pretrained(tmp_path / "loud")
    texts = ["iron stone river", f"moon {LOUD} river", "gold water"]
    tables = []
    for device in (SINGLE, HALF):
        embedder = Embedder(str(tmp_path / "loud"), tmp_path)
        assert embedder.dimension == 64  # loads it
        embedder._device = device
        tables.append(embedder.encode(texts, 8))
    np.testing.assert_allclose(tables[1][1], tables[0][1], atol=1e-5)
    np.testing.assert_allclose(tables[1], tables[0], atol=0.05)
    assert not np.array_equal(tables[1][0], tables[0][0])  # the others are those of float16

    embedder.model[0].auto_model.embeddings.word_embeddings.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="makes vectors that are not finite"):
        embedder.encode(texts, 8)


# --- the warning before --------------------------------------------------------------------


def test_models_in_bfloat16_are_named(tiny, tmp_path):
    from tiny_models import bert

    from solution.inference.bfloat16 import overflow_warning, stored_format
    from solution.weights import write_metrics

    stored = tmp_path / "stored"
    bert(stored, torch.bfloat16)
    assert stored_format(str(stored)) == "bfloat16" and stored_format(tiny("bert")) == "float32"
    config = tiny_config("multiple_choice", str(stored), precision="auto")
    text = overflow_warning(config, [])
    assert text is not None and text.startswith(
        f"{stored} is stored in bfloat16: on a GPU without bfloat16 (T4, P100) it"
    )
    assert overflow_warning(config.model_copy(update={"precision": "float32"}), []) is None
    # T5 takes float32 there by itself, and a place of one's own choice is named.
    other = tiny_config("seq2seq", str(stored), precision="auto")
    assert overflow_warning(other, []) is None
    assert "on this GPU it" in (overflow_warning(config, [], "this GPU") or "")

    # Not named in config.json: most of the stored tensors tell.
    for name in ("dtype", "torch_dtype"):
        settings = json.loads((stored / "config.json").read_text())
        settings.pop("dtype", None)
        (stored / "config.json").write_text(json.dumps(settings | ({name: "float16"} if name == "torch_dtype" else {})))
        assert stored_format(str(stored)) == {"dtype": "bfloat16", "torch_dtype": "float16"}[name]

    # A model in float32 that was trained here in bfloat16.
    config = tiny_config("causal", tiny("llama"), precision="auto")
    for place, named in (("cpu in float32", False), ("cuda in bfloat16 on 2 processes", True)):
        write_metrics(tmp_path, {"computed_on": place})
        assert ((overflow_warning(config, [tmp_path]) or "").startswith("it was trained here in bfloat16")) is named
    assert stored_format(str(tmp_path / "nowhere")) is None and stored_format("no/such-model") is None


def test_the_doctor_warns_where_the_gpu_has_no_bfloat16(tiny, tmp_path, monkeypatch):
    from tiny_models import bert

    from solution.doctor import folder as checks

    bert(tmp_path / "stored", torch.bfloat16)
    config = tiny_config("multiple_choice", str(tmp_path / "stored"), precision="auto")
    examined: Any = SimpleNamespace(by_name={"tiny": (config, None)}, workdir=Workdir(tmp_path))
    for device, state, place in (
        (SINGLE, "ok", "a GPU without bfloat16 (T4, P100)"),
        (Device("cuda", torch.bfloat16), "ok", "a GPU without bfloat16 (T4, P100)"),
        (Device("cuda", torch.float16), "warning", "this GPU, which has no bfloat16,"),
    ):
        monkeypatch.setattr(checks, "choose_device", lambda device=device: device)
        (finding,) = checks._number_formats(examined)
        assert finding.state == state and f"stored in bfloat16: on {place} it computes in float16" in finding.found
