"""Settings: every error of every file at once, overrides, names."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from solution.config import LoraSettings, PromptSettings, RankerConfig, RetrievalConfig, Settings
from solution.config_files import load_run, parse_overrides, setting_names
from solution.errors import UserError

FILES = {
    "ensemble": "rankers: [encoder, decoder, cosine]\nfolds: 4\n",
    "retrieval": "corpus: corpus.csv\n",
    "encoder": "name: encoder\nfamily: multiple_choice\nmodel: some/encoder\ntraining:\n  learning_rate: 2e-5\n",
    "decoder": "name: decoder\nfamily: causal\nmodel: some/decoder\nlora: null\n",
    "cosine": "name: cosine\nfamily: similarity\n",
}


@pytest.fixture
def configs(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def refused(configs, *overrides, **arguments) -> list[str]:
    """The problems told, one a line, the title left out."""
    with pytest.raises(UserError) as caught:
        load_run(configs, overrides, **arguments)
    lines = str(caught.value).splitlines()
    if len(lines) == 1:
        return lines
    assert lines[0] == f"the settings are wrong ({len(lines) - 1} problems):"
    return [line.removeprefix("  - ") for line in lines[1:]]


def by_name(run):
    return {config.name: config for config in run.rankers}


# --- reading -------------------------------------------------------------------------------


def test_files_and_defaults(configs):
    run = load_run(configs)
    assert [config.name for config in run.rankers] == ["encoder", "decoder", "cosine"]
    encoder, decoder, cosine = run.rankers
    assert encoder.training.learning_rate == 2e-5  # YAML 1.1 takes 2e-5 for a text
    assert encoder.lora == LoraSettings()
    assert decoder.lora is None
    assert [config.trains for config in run.rankers] == [True, True, False]
    assert (run.ensemble.folds, run.retrieval.corpus) == (4, "corpus.csv")


def test_one_ranker_by_name_or_by_file(configs, tmp_path):
    assert [c.name for c in load_run(configs, ranker="decoder").rankers] == ["decoder"]
    elsewhere = tmp_path / "any-file-name.yml"
    elsewhere.write_text("name: mine\nfamily: longest\n")
    run = load_run(configs, ["mine.temperature=2"], ranker_file=elsewhere)
    assert [(c.name, c.temperature) for c in run.rankers] == [("mine", 2.0)]
    assert run.ensemble.rankers == ["encoder", "decoder", "cosine"]
    # A ranker that is not in the ensemble may be trained too.
    (configs / "spare.yaml").write_text("name: spare\nfamily: longest\n")
    assert [c.name for c in load_run(configs, ranker="spare").rankers] == ["spare"]


def test_equal_settings_have_equal_hashes(configs):
    first, second = by_name(load_run(configs)), by_name(load_run(configs, ["decoder.training.epochs=3"]))
    assert first["encoder"].hash() == second["encoder"].hash()
    assert first["decoder"].hash() != second["decoder"].hash()
    text = FILES["encoder"] + "  epochs: 2\nseed: 0\n"  # the defaults, written out
    (configs / "encoder.yaml").write_text(text)
    assert by_name(load_run(configs))["encoder"].hash() == first["encoder"].hash()


def test_settings_that_change_no_result_are_not_hashed(configs):
    """Nothing is trained again because of them; every other setting of the training counts."""
    plain = by_name(load_run(configs))["encoder"].hash()
    for free in (
        "predict_tokens_per_batch=99",
        "training.checkpoint_seconds=1",
        "training.stuck_patience=9",
        "training.tensorboard=true",
    ):
        assert by_name(load_run(configs, [free]))["encoder"].hash() == plain, free
    others = ("tokens_per_batch=99", "keep=best", "ema_decay=0.9", "awp={}", "awp.rate=0.5", "evaluations_per_epoch=3")
    hashes = {by_name(load_run(configs, [f"training.{each}"]))["encoder"].hash() for each in others}
    assert len(hashes | {plain}) == len(others) + 1


# --- errors --------------------------------------------------------------------------------


def test_every_problem_of_every_file_is_told_at_once(configs):
    (configs / "ensemble.yaml").write_text("rankers: [encoder, decoder, cosine, encodr]\nfolds: 1\nfold: 3\n")
    (configs / "retrieval.yaml").write_text("passage_tokens: 50\npassage_overlap: 50\n")
    (configs / "encoder.yaml").write_text("name: encoder\nfamily: bert\ntraining: {epochs: many}\nlora: {rank: 8}\n")
    (configs / "decoder.yaml").write_text("name: decoder\nfamily: [\n")
    (configs / "cosine.yaml").write_text("name: kosine\nfamily: similarity\n")
    problems = refused(configs, "top=1")
    expected = [
        ("encodr.yaml", "did you mean encoder?"),
        ("ensemble.yaml", "folds: input should be greater than or equal to 2 (it is 1)"),
        ("ensemble.yaml", "unknown setting fold; did you mean folds?"),
        ("retrieval.yaml", "passage_overlap (50) must be less than passage_tokens (50)"),
        ("encoder.yaml", "family: input should be 'multiple_choice', 'causal'"),
        ("encoder.yaml", "training.epochs: input should be a valid integer"),
        ("encoder.yaml", "unknown setting lora.rank; did you mean"),
        ("decoder.yaml", "is not YAML"),
        ("cosine.yaml", "name is 'kosine'; it must be the file's name, 'cosine'"),
        ("the command line", "unknown setting top"),
    ]
    assert len(problems) == len(expected)
    for place, message in expected:
        assert any(place in problem and message in problem for problem in problems), (place, message, problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the ranker's config is empty: {path}"),
        ("# a comment\n", "the ranker's config is empty: {path}"),
        ("- name\n- family\n", "{path} must hold settings (`key: value` lines), not a list"),
        ("encoder\n", "{path} must hold settings (`key: value` lines), not a str"),
        ("name: [encoder\n", "{path} is not YAML: "),
        ("name: encoder\n\tfamily: causal\n", "{path} is not YAML: "),
        ("name: !!python/object:os.system x\n", "{path} is not YAML: "),
        ("revision: 2024-13-45\n", "{path} is not YAML: month must be in 1..12"),
        ("a: " + "[" * 5000, "{path} is not YAML: "),
        (b"name: \xff\n", "the ranker's config is not UTF-8: {path}"),
        ("family: longest\n", "{path}: name is missing"),
        ("name: encoder\n", "{path}: family is missing"),
        ("name: Encoder 1\nfamily: longest\n", "{path}: name: string should match pattern"),
        ("name: encoder\nfamily: longest\n1: 2\n", "{path}: 1: keys should be strings"),
        ("name: encoder\nfamily: longest\nepochs: 2\n", "{path}: unknown setting epochs; did you mean training.epochs"),
        ("name: encoder\nfamily: longest\nqqq: 2\n", "{path}: unknown setting qqq"),
        ("name: encoder\nfamily: longest\ntraining: 3\n", "{path}: training: input should be a valid dictionary"),
        ("name: encoder\nfamily: longest\nseed: -1\n", "{path}: seed: input should be greater than or equal to 0"),
        ("name: encoder\nfamily: longest\ntemperature: .inf\n", "{path}: temperature: input should be a finite number"),
        ("name: encoder\nfamily: causal\n", "{path}: family causal needs `model`"),
        ("name: encoder\nfamily: causal\nmodel: m\ntraining: {epochs: 0}\n", "{path}: head last_token is new"),
        ("name: encoder\nfamily: causal\nmodel: m\nlora: null\nquantization: {}\n", "{path}: quantization without"),
        ("name: encoder\nfamily: longest\ntraining: {patience: 2}\n", "{path}: training: patience needs keep: best"),
        (
            "name: encoder\nfamily: longest\ntraining: {patience: 2, keep: best, evaluations_per_epoch: 0}\n",
            "{path}: training: patience needs keep: best and evaluations_per_epoch of at least 1",
        ),
        (
            "name: encoder\nfamily: longest\ntraining: {awp: {start_epoch: 2}}\n",
            "{path}: training: awp.start_epoch is 2 and epochs 2: awp would never begin",
        ),
    ],
)
def test_one_wrong_file_is_one_problem(configs, text, message):
    path = configs / "encoder.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    problems = refused(configs)
    assert len(problems) == 1
    assert problems[0].startswith(message.format(path=path))


def test_a_key_that_stands_twice_is_refused(configs):
    (configs / "ensemble.yaml").write_text(FILES["ensemble"] + "folds: 4\n")
    (configs / "encoder.yaml").write_text(
        "name: encoder\nfamily: multiple_choice\nmodel: m\ntraining:\n  epochs: 1\n  seed: 0\n  'epochs': 2\n"
        "lora: {r: 4, r: 8}\nmodel: n\n"
    )
    ensemble, encoder = configs / "ensemble.yaml", configs / "encoder.yaml"
    problems = refused(configs, "decoder.lora={r: 1, r: 2}")
    assert problems[:-1] == [
        "the command line: 'decoder.lora={r: 1, r: 2}': r stands in it twice",
        f"{ensemble}, line 3: folds stands in line 2 already",
        f"{encoder}, line 7: training.epochs stands in line 5 already",
        f"{encoder}, line 8: lora.r stands in line 8 already",
        f"{encoder}, line 9: model stands in line 3 already",
    ]
    assert problems[-1].startswith(f"{encoder}: unknown setting training.seed")


def test_a_key_may_stand_in_several_blocks_and_over_a_merged_one(configs):
    text = "name: encoder\nfamily: multiple_choice\nmodel: m\n"
    text += "training: &a {epochs: 1, keep: best}\nlora: {alpha_pattern: {x: 1}, rank_pattern: {x: 1}}\n"
    (configs / "encoder.yaml").write_text(text)
    (configs / "decoder.yaml").write_text(
        FILES["decoder"] + "training: {<<: {epochs: 1, keep: best}, epochs: 3}\nprompt: {option: '{option}'}\n"
    )
    rankers = by_name(load_run(configs))
    assert rankers["encoder"].training.epochs == 1
    assert (rankers["decoder"].training.epochs, rankers["decoder"].training.keep) == (3, "best")
    (configs / "encoder.yaml").write_text(text + "prompt: &p\n  option: *p\n")  # holds itself
    assert refused(configs)


def test_missing_files_are_named_with_what_is_there(configs, tmp_path):
    (problem,) = refused(configs, ranker="encodr")
    assert "encodr.yaml; did you mean encoder? (there: cosine, decoder, encoder, ensemble, retrieval)" in problem
    (problem,) = refused(configs, ranker_file=tmp_path / "mine.yaml")
    assert problem == f"the ranker's config not found: {tmp_path / 'mine.yaml'} (there: no .yaml file)"
    (problem,) = refused(configs, ranker_file=tmp_path)
    assert problem == f"the ranker's config is a folder, not a file: {tmp_path}"
    (configs / "retrieval.yaml").unlink()
    assert "the retrieval's config not found" in refused(configs)[0]
    with pytest.raises(UserError, match="the configs folder is not there: .*Name one with --configs"):
        load_run(tmp_path / "nowhere")


def test_without_a_checkout_the_default_settings_are_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_run(Path("configs")) == load_run(Path("full"))
    (note,) = capsys.readouterr().err.splitlines()
    assert "the shipped settings `full` are used" in note and "--configs demo" in note
    (tmp_path / "configs").write_text("a file")
    with pytest.raises(UserError, match="--configs configs is a file"):
        load_run(Path("configs"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rankers: []\n", "rankers: list should have at least 1 item"),
        ("rankers: encoder\n", "rankers: input should be a valid list (it is 'encoder')"),
        ("folds: 5\n", "rankers is missing"),
        ("rankers: [encoder, cosine, encoder]\n", "rankers: the ranker encoder is listed twice"),
        ("rankers: [3]\n", "rankers.0: input should be a valid string (it is 3)"),
        ("rankers: [encoder]\nnear_duplicate: 1.5\n", "near_duplicate: input should be less than or equal to 1"),
        ("rankers: [encoder]\ntune: {trial: 3}\n", "unknown setting tune.trial; did you mean tune.trials?"),
    ],
)
def test_a_wrong_ensemble_file(configs, text, message):
    (configs / "ensemble.yaml").write_text(text)
    (problem,) = refused(configs)
    assert problem.startswith(f"{configs / 'ensemble.yaml'}: {message}")


def test_a_ranker_named_by_a_path_is_refused(configs, tmp_path):
    (tmp_path / "outside.yaml").write_text("name: outside\nfamily: longest\n")
    (configs / "ensemble.yaml").write_text("rankers: [../outside]\n")
    assert any("rankers.0: string should match pattern" in problem for problem in refused(configs))


# --- overrides -----------------------------------------------------------------------------


def test_override_values_are_yaml():
    texts = ["a=1", "a.b=x=y", " a.b =[1, 2]", "a=null", "a=", "a=true", "a={b: 1}", "a='1'", "a=2e-4", "a= b c "]
    assert parse_overrides(texts) == [
        (["a"], 1),
        (["a", "b"], "x=y"),
        (["a", "b"], [1, 2]),
        (["a"], None),
        (["a"], None),
        (["a"], True),
        (["a"], {"b": 1}),
        (["a"], "1"),
        (["a"], "2e-4"),
        (["a"], "b c"),
    ]


def test_wrong_overrides_are_all_named():
    texts = ["fold", "=1", ".a=1", "a..b=1", "a=[", "a=2024-13-45", "good=1", "a=!!python/name:os.system"]
    with pytest.raises(UserError) as caught:
        parse_overrides(texts)
    message = str(caught.value)
    assert message.startswith("the command line is wrong (7 problems):")
    for text in texts:
        assert (repr(text) in message) == (text != "good=1")


def test_where_an_override_goes(configs):
    run = load_run(
        configs,
        [
            "retrieval.top_k=7",
            "ensemble.folds=3",
            "ensemble.tune.trials=9",
            "training.epochs=1",
            "decoder.training.epochs=5",
            "encoder.lora.r=4",
            "decoder.lora.r=2",
            "encoder.lora.rank_pattern.query_proj=3",
            "seed=11",
            "training.learning_rate=3e-4",
        ],
    )
    rankers = by_name(run)
    assert (run.retrieval.top_k, run.ensemble.folds, run.ensemble.tune.trials) == (7, 3, 9)
    assert {name: c.training.epochs for name, c in rankers.items()} == {"encoder": 1, "decoder": 5, "cosine": 1}
    assert {c.seed for c in run.rankers} == {11}
    assert {c.training.learning_rate for c in run.rankers} == {3e-4}
    # A null block is made anew by a setting inside it.
    assert rankers["decoder"].lora == LoraSettings(r=2)
    assert rankers["encoder"].lora == LoraSettings(r=4, rank_pattern={"query_proj": 3})


def test_one_ranker_s_override_wins_and_touches_no_other(configs):
    for order in (["lora={r: 4}", "encoder.lora.r=8"], ["encoder.lora.r=8", "lora={r: 4}"]):
        rankers = by_name(load_run(configs, order))
        assert {name: config.lora.r for name, config in rankers.items()} == {"encoder": 8, "decoder": 4, "cosine": 4}


def test_the_last_of_two_overrides_wins(configs):
    assert load_run(configs, ["ensemble.folds=3", "ensemble.folds=6"]).ensemble.folds == 6


def test_a_whole_block_can_be_switched_off(configs):
    assert by_name(load_run(configs, ["encoder.lora=null"]))["encoder"].lora is None


def test_the_rankers_can_be_overridden(configs):
    run = load_run(configs, ["ensemble.rankers=[cosine, encoder]"])
    assert [config.name for config in run.rankers] == run.ensemble.rankers == ["cosine", "encoder"]
    (problem,) = refused(configs, "ensemble.rankers=[cosin]")
    assert "cosin.yaml; did you mean cosine?" in problem


def test_the_corpus_has_its_own_argument(configs):
    assert load_run(configs, corpus="other.jsonl").retrieval.corpus == "other.jsonl"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=1", "unknown setting training.epoch; did you mean training.epochs?"),
        ("epochs=1", "unknown setting epochs; did you mean training.epochs?"),
        ("retreival.top_k=3", "unknown setting retreival.top_k; did you mean retrieval.top_k?"),
        ("retrieval.topk=3", "unknown setting retrieval.topk; did you mean retrieval.top_k?"),
        ("ensemble.fold=3", "unknown setting ensemble.fold; did you mean ensemble.folds?"),
        ("decoder.sede=3", "unknown setting decoder.sede; did you mean decoder.seed?"),
        ("encoder=3", "unknown setting encoder"),
        ("retrieval=3", "unknown setting retrieval"),
        ("7=3", "unknown setting 7"),
    ],
)
def test_an_unknown_override_is_told_once(configs, override, message):
    (problem,) = refused(configs, override)
    assert problem.startswith(f"the command line: {message}")


def test_an_override_of_a_ranker_that_is_not_used(configs):
    (configs / "spare.yaml").write_text("name: spare\nfamily: longest\n")
    (problem,) = refused(configs, "spare.training.epochs=1")
    assert problem.startswith("the command line: spare is not among the rankers of this run (")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["retrieval.index=ivf"],
            "retrieval.index: input should be 'auto', 'flat', 'hnsw', 'ivf_sq8', 'ivf_pq', 'rabitq' or 'rabitq_fs' "
            "(it is 'ivf')",
        ),
        (["encoder.training.epochs.x=1"], "encoder.training.epochs: input should be a valid integer"),
        # Every ranker gets it, and it is told once.
        (["training.epochs=-1"], "training.epochs: input should be greater than or equal to 0 (it is -1)"),
        (["lora={rank: 8}"], "unknown setting lora.rank; did you mean lora.r"),
        (["decoder.lora={rank: 8}"], "unknown setting decoder.lora.rank; did you mean decoder.lora.r"),
        # Wrong together with the settings of some rankers only, which are named.
        (["training.epochs=0"], "decoder: head last_token is new"),
        (["retrieval.passage_overlap=500"], "retrieval: passage_overlap (500) must be less than passage_tokens (200)"),
        (["tune.trials=-1"], "ensemble.tune.trials: input should be greater than or equal to 0 (it is -1)"),
        # The general value is masked for one ranker, and the own value of another is as wrong.
        (["seed=-1", "encoder.seed=1", "decoder.seed=-2"], "decoder.seed: input should be greater"),
        (["seed=-1", "encoder.seed=1", "decoder.seed=-2"], "seed: input should be greater"),
    ],
)
def test_a_wrong_value_on_the_command_line_is_no_file_s_fault(configs, overrides, message):
    problems = refused(configs, *overrides)
    assert sum(problem.startswith(f"the command line: {message}") for problem in problems) == 1
    assert not any(".yaml" in problem for problem in problems)


def test_a_file_s_own_fault_is_not_the_command_line_s(configs):
    (configs / "encoder.yaml").write_text(FILES["encoder"] + "  epochs: many\nseed: -5\n")
    problems = refused(configs, "seed=-1", "temperature=2")
    assert problems == [
        f"{configs / 'encoder.yaml'}: training.epochs: input should be a valid integer, unable to parse string as "
        "an integer (it is 'many')",
        "the command line: seed: input should be greater than or equal to 0 (it is -1)",
    ]
    assert by_name(load_run(configs, ["encoder.training.epochs=1", "seed=1"]))["encoder"].seed == 1


def test_setting_names_are_dotted():
    names = setting_names(RankerConfig)
    for name in ("name", "training.epochs", "lora.r", "lora.rank_pattern", "quantization.kind", "prompt.option"):
        assert name in names
    assert "lora" not in names
    assert len(names) == len(set(names))


# --- single settings -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "lacking"),
    [
        ("with_context", "Question: {question}", "{context}"),
        ("with_context", "{context} {context} {question}", "{context}"),
        ("with_context", "Question:", "{context} and {question}"),
        ("instruction", "{context}", "{question}"),
        ("without_context", "Answer:", "{question}"),
        ("option", "", "{option}"),
        ("option", "{option}{option}", "{option}"),
    ],
)
def test_prompts_hold_their_fields_once(name, text, lacking):
    with pytest.raises(ValidationError, match=rf"prompt\.{name} must hold {lacking} exactly once"):
        PromptSettings(**{name: text})


def test_prompts_may_hold_other_braces():
    settings = PromptSettings(with_context="{context} {x} {{}} {question}", option="({option})")
    assert settings.option == "({option})"


def test_a_wrong_prompt_names_its_file(configs):
    (configs / "decoder.yaml").write_text(FILES["decoder"] + "prompt: {option: ''}\n")
    (problem,) = refused(configs)
    assert problem == f"{configs / 'decoder.yaml'}: prompt: prompt.option must hold {{option}} exactly once"


def test_zero_shot_needs_the_likelihood_head():
    config = RankerConfig(name="x", family="causal", model="m", head="likelihood", training={"epochs": 0})
    assert not config.trains


def test_settings_are_not_shared_between_rankers():
    one, other = (RankerConfig(name=name, family="longest") for name in ("one", "other"))
    one.lora.modules_to_save.append("pooler")
    one.training.epochs = 9
    assert other.lora.modules_to_save == []
    assert other.training.epochs == 2
    assert RankerConfig(name="third", family="longest").training.epochs == 2


def test_overlap_must_be_smaller_than_the_passage():
    with pytest.raises(ValidationError, match=r"passage_overlap \(200\) must be less than passage_tokens \(200\)"):
        RetrievalConfig(passage_overlap=200)


class _Inner(Settings):
    _HASHED_WHERE_SET = frozenset({"added"})
    old: int = 1
    added: list[int] = []


class _Outer(Settings):
    _HASHED_WHERE_SET = frozenset({"other"})
    inner: _Inner = _Inner()
    other: str | None = None


class _OuterBefore(Settings):
    inner: dict = {"old": 1}


def test_a_setting_that_a_later_version_added_changes_no_hash_at_its_default():
    assert _Outer().hash() == _Outer(inner=_Inner(added=[]), other=None).hash() == _OuterBefore().hash()
    assert len({s.hash() for s in (_Outer(), _Outer(other=""), _Outer(inner=_Inner(added=[1])))}) == 3


# --- several retrievals --------------------------------------------------------------------

NAMED = "corpus: corpus.csv\ntop_k: 4\nsignals: {option_passages: 3}\nretrievals:\n"


def test_a_further_retrieval_has_what_differs(configs):
    text = "  wiki: {corpus: wiki.csv, signals: {question_passages: 2}}\n  tuned: {embedder: models/tuned}\n"
    (configs / "retrieval.yaml").write_text(NAMED + text)
    (configs / "cosine.yaml").write_text(FILES["cosine"] + "retrieval: [wiki, default]\n")
    overrides = ["retrieval.query=prompt", "retrievals.tuned.top_k=9", "encoder.retrieval=tuned"]
    run = load_run(configs, overrides, corpus="other.csv")
    wiki, tuned = run.retrievals["wiki"], run.retrievals["tuned"]
    assert (wiki.corpus, tuned.corpus, run.retrieval.corpus) == ("wiki.csv", "other.csv", "other.csv")
    assert (wiki.top_k, tuned.top_k, wiki.query, tuned.embedder) == (4, 9, "prompt", "models/tuned")
    assert (wiki.signals.option_passages, wiki.signals.question_passages) == (3, 2)
    rankers = by_name(run)
    assert list(run.reads(rankers["cosine"])) == ["wiki", "default"]
    assert run.reads(rankers["encoder"]) == {"tuned": tuned}
    # The settings of a retrieval count, not its name; the default one has the hash of a file without further ones.
    assert rankers["encoder"].hash() == by_name(load_run(configs))["encoder"].hash()
    (configs / "retrieval.yaml").write_text(NAMED.partition("retrievals")[0])
    (configs / "cosine.yaml").write_text(FILES["cosine"])
    assert load_run(configs).retrieval.hash() == load_run(configs, ["retrievals.new.top_k=3"]).retrieval.hash()


def test_wrong_retrievals_are_told_together(configs):
    text = "  wiki: {corpos: wiki.csv, top_k: 0}\n  default: {}\n  plain: 3\n  late: {batch_size: 5}\n"
    (configs / "retrieval.yaml").write_text(NAMED.replace("top_k: 4", "bm25_b: 7") + text)
    (configs / "cosine.yaml").write_text(FILES["cosine"] + "retrieval: wkii\n")
    problems = refused(configs, "retrievals.late.candidates=0", "retrievals.late.corpos=x")
    here = f"{configs}/retrieval.yaml: "
    assert problems == [
        f"{here}retrievals: the name 'default' is retrieval.yaml's own",
        f"{here}retrievals.plain must hold settings, not 3",
        "the command line: unknown setting retrievals.late.corpos; did you mean retrievals.late.corpus?",
        f"{here}bm25_b: input should be less than or equal to 1 (it is 7)",
        f"{here}retrievals.wiki.top_k: input should be greater than or equal to 1 (it is 0)",
        f"{here}unknown setting retrievals.wiki.corpos; did you mean retrievals.wiki.corpus?",
        "the command line: retrievals.late.candidates: input should be greater than or equal to 1 (it is 0)",
        f"{configs}/cosine.yaml: retrieval: there is no retrieval 'wkii' (there are: default, wiki, late)",
    ]
    (configs / "retrieval.yaml").write_text("corpus: a.csv\nretrievals: [wiki]\n")
    (configs / "cosine.yaml").write_text(FILES["cosine"] + "retrieval: []\n")
    assert refused(configs) == [
        f"{here}retrievals must hold names with settings below them, not ['wiki']",
        f"{configs}/cosine.yaml: retrieval: at least one retrieval is needed",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("retrievals.wiki=5", "retrievals.wiki: a retrieval is a mapping of settings: type each of them, as in"),
        ("retrievals=[a, b]", "retrievals: a retrieval is a mapping of settings: type each of them, as in"),
        ("retrievals.UP.top_k=3", "retrievals: the name 'UP' must be small letters"),
        ("retrievals.ranker_a.top_k=3", "retrievals: the name 'ranker_a' begins with ranker_, as the signals"),
    ],
)
def test_a_wrong_retrieval_on_the_command_line_is_one_problem(configs, override, problem):
    (found,) = refused(configs, override)
    assert found.startswith(f"the command line: {problem}")


def test_a_rule_is_listed_once(configs):
    (found,) = refused(configs, "cosine.score_rules=[negations, negations]")
    assert found.endswith("the rule negations is listed twice")
