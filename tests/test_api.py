"""The Python API: what `import solution` promises, the examples of docs/api.md, tables in and out."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pipeline import ROOT
from typer.testing import CliRunner

import solution
from solution.api.inputs import frame_questions, setting_texts
from solution.api.results import Answered, EmbedderGain, ExamTable, Files, Parts, Rows
from solution.api.stage import stage
from solution.api.wording import defaults_of, in_python
from solution.cli.app import app
from solution.cli.ask import _given, _parsed
from solution.formats.items import Reading
from solution.progress import say
from solution.questions import Questions
from solution.suggestions import running_command

EXAM = Questions(
    ["a", "b", "c"], ["Which?", "What?", "Who?"], [["x", "y", "z"], ["u", "v"], ["r", "s", "t"]], np.array([1, 0, 2])
)
TABLE = np.array([[0.2, 0.5, 0.3], [0.4, 0.6, 0.0], [0.5, 0.3, 0.2]], dtype=np.float32)


def test_the_import_loads_nothing() -> None:
    heavy = "{'numpy', 'pandas', 'torch', 'pydantic', 'solution.questions'}"
    code = f"import sys, solution; print(solution.__version__, {heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == f"{solution.__version__} set()", done.stderr


def test_the_import_silences_one_message_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s", "no module")
    log.warning("another")
    assert caplog.messages == ["another"]


def test_every_name_is_there_with_its_type() -> None:
    stub = ast.parse((ROOT / "solution" / "__init__.pyi").read_text(encoding="utf-8"))
    typed = {name.asname for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert typed | {"__version__"} == set(solution.__all__)
    for name in typed:
        value = getattr(solution, str(name))
        assert (value.__doc__ or "").strip(), name
        # A module of the package of this name would take the function's place when it is imported.
        assert not (ROOT / "solution" / f"{name}.py").exists() and not (ROOT / "solution" / str(name)).exists()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = solution.nothing  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def folder(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished folder, in which `demo_run` and `configs/demo` are itself."""
    copy = tmp_path_factory.mktemp("api") / "copy"
    shutil.copytree(finished, copy)
    (copy / "demo_run").symlink_to(copy)
    (copy / "configs" / "demo").symlink_to(copy / "configs")
    return copy


def test_the_examples_of_the_page_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 6
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(compile(block, "docs/api.md", "exec"), names)
    text = printed.getvalue()
    assert "9 questions" in text and "['id', 'prediction', 'p_A', 'p_B', 'p_C']" in text
    assert "no_such_ranker" in text
    assert names["tuned"].weights == pytest.approx({"similarity": 0.5, "tiny": 0.5})  # type: ignore[attr-defined]


def test_the_verb_ask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    text = "Which planet is number Mars from the Sun?\nA) planet Mars\nB) moon of Mars\nC) star near Mars\n"
    done = CliRunner().invoke(app, ["ask", "--json", "--rankers", "similarity"], input=text)
    assert done.exit_code == 0, done.output
    record = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][0])
    assert record["prompt"] == "Which planet is number Mars from the Sun?" and sorted(record["order"]) == list("ABC")
    assert [row["name"] for row in record["rankers"] if row["probabilities"]] == ["similarity"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["Which?", "x", "y"], [("Which?", ["x", "y"], None)]),
        (["Which is it?\nA) x\nB) y"], [("Which is it?", ["x", "y"], None)]),
    ],
)
def test_a_question_of_the_command_line(words: list[str], expected: list[object]) -> None:
    assert list(_given(words, None, Reading())) == expected
    with pytest.raises(solution.UserError, match="not both"):
        _given(words, Path("exam.csv"), Reading())


def test_a_question_with_one_option_is_refused() -> None:
    with pytest.raises(solution.UserError, match="one option: give 2 to 26"):
        _given(["Which?", "x"], None, Reading())


def test_the_verb_ask_has_the_options_that_its_messages_name(tmp_path: Path) -> None:
    data = "Which is hot?\nA) caf\xe9\nB) snow\n".encode("cp1252")
    wrong = CliRunner().invoke(app, ["ask", "--workdir", str(tmp_path)], input=data)
    assert wrong.exit_code == 2 and "--encoding cp1252" in wrong.output
    asked = _parsed(data, "standard input", Reading(encoding="cp1252"))
    assert asked.options == [["caf\xe9", "snow"]]
    read = CliRunner().invoke(app, ["ask", "--workdir", str(tmp_path), "--encoding", "cp1252"], input=data)
    assert read.exit_code == 2 and "not UTF-8" not in read.output and "no such option" not in read.output.lower()


def test_scores_of_probabilities_and_of_rankings_agree() -> None:
    answered = Answered(EXAM, TABLE)
    frame = answered.to_frame()
    assert frame["prediction"].tolist() == ["B C A", "B A", "A B C"] and np.isnan(frame["p_C"][1])
    # Right at places 1, 2 and 3.
    scores = solution.evaluate(answered, EXAM)
    assert scores.map3 == pytest.approx((1 + 1 / 2 + 1 / 3) / 3) and scores.accuracy == pytest.approx(1 / 3)
    assert scores.log_loss == pytest.approx(-np.log([0.5, 0.4, 0.2]).mean(), rel=1e-6)
    ranked = solution.evaluate(frame[["id", "prediction"]].sample(frac=1, random_state=0), EXAM)
    assert (ranked.map3, ranked.low, ranked.high) == (scores.map3, scores.low, scores.high)
    assert ranked.log_loss is None and ranked.random == scores.random


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": ["B C A", "C A", "A"]}, "id b: 'C A' are no options"),
        ({"prediction": ["B B A", "B A", "A"]}, "id a: 'B B A' are no options"),
        ({"id": ["a", "a", "c"]}, "id a stands more than once"),
        ({"id": ["a", "q", "c"]}, "id q is not in the exam"),
    ],
)
def test_answers_that_are_none(change: dict[str, list[str]], message: str) -> None:
    frame = pd.DataFrame({"id": ["a", "b", "c"], "prediction": ["B C A", "B A", "A"]} | change)
    with pytest.raises(solution.UserError, match=message):
        solution.evaluate(frame, EXAM)


def test_an_exam_as_a_table_and_back() -> None:
    frame = ExamTable(EXAM).to_frame()
    read = frame_questions(frame)
    assert (read.ids, read.prompts, read.options) == (EXAM.ids, EXAM.prompts, EXAM.options)
    assert read.answers.tolist() == [1, 0, 2]
    # Other names of columns, lists in cells, missing cells, and the index as ids.
    other = pd.DataFrame(
        {"question": ["Which?", "What?"], "choices": [np.array(["x", "y"]), ["u", "v"]], "answer": [2, np.nan]},
        index=["q7", "q9"],
    )
    read = frame_questions(other)
    assert read.ids == ["q7", "q9"] and read.options == [["x", "y"], ["u", "v"]] and read.answers.tolist() == [1, -1]
    other["answer"] = ["no option", ""]
    assert frame_questions(other, with_answers=False).answers.tolist() == [-1, -1]
    with pytest.raises(solution.UserError, match="a dict is no exam"):
        frame_questions({"prompt": []})  # type: ignore[arg-type]


def test_settings_in_both_forms() -> None:
    texts = setting_texts({"smollm2.lora.r": 8, "retrieval.corpus": "x.csv", "tune.choose": None, "rankers": ["a"]})
    assert texts == ["smollm2.lora.r=8", "retrieval.corpus=x.csv", "tune.choose=null", 'rankers=["a"]']
    assert setting_texts({"a": "true", "b": "x: y", "c": "[1"}) == ['a="true"', 'b="x: y"', 'c="[1"']
    assert setting_texts(["a=1"]) == ["a=1"] and setting_texts(None) == []
    with pytest.raises(solution.UserError, match="give a list"):
        setting_texts("a=1")


def test_results_show_as_tables(tmp_path: Path) -> None:
    table = ExamTable(Questions(["1"], ["Is <b> bold?"], [["yes", "no"]], np.array([0])))
    assert "Is &lt;b&gt; bold?" in table._repr_html_() and "Is <b> bold?" in repr(table)
    (file := tmp_path / "report.html").write_text("12345")
    files = Files([file])
    assert files[0] == file and files.to_frame()["bytes"].tolist() == [5] and "report.html" in files._repr_html_()
    gain = EmbedderGain({name: {"recall@1": (0.5, 0.4, 0.6)} for name in ("before", "after")})
    assert gain.to_frame().columns.tolist() == ["embedder", "measure", "value", "low", "high"] and len(gain) == 2
    assert Parts({"wheels": 7}).to_frame().values.tolist() == [["wheels", 7]]
    assert "wide " * 20 not in repr(Rows([{"text": "wide " * 40}], ["text"]))  # a line at the prompt is not a page


def test_a_wrong_argument_is_told_with_the_function() -> None:
    with pytest.raises(TypeError, match=r"make_report\(\) got an unexpected keyword argument 'configs'"):
        solution.make_report(configs="demo")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("function", "message", "expected"),
    [
        (solution.train, "name one with --questions FILE", "name one with `questions=FILE`"),
        (
            solution.train,
            "the --configs of its rankers: python -m solution tune --configs 'a b' retrieval.top_k=3. Or --fold 2",
            "the `configs` of its rankers: python -m solution tune --configs 'a b' retrieval.top_k=3. Or `fold=2`",
        ),
        (solution.train, "--rank is for --average", '`rank` is for `what="average"`'),
        (solution.train, "the command line: unknown setting x", "`settings`: unknown setting x"),
        (
            solution.train,
            "no columns: --columns prompt=NAME,A=NAME; go on: --skip-bad-rows; or another --encoding.",
            'no columns: `reading=Reading(columns={"prompt": "NAME", "A": "NAME"})`; go on: '
            "`reading=Reading(skip_bad_rows=True)`; or another `reading.encoding`.",
        ),
        (
            solution.generate,
            "with --at-most, or fewer `--options`; `generate --without` leaves them out, --json is no argument",
            "with `at_most=True`, or fewer `options`; `generate --without` leaves them out, --json is no argument",
        ),
        (solution.submit, "give --add bert=FILE, or `--memory 4GiB`", 'give `add={"bert": "FILE"}`, or `memory 4GiB`'),
        (solution.tune_embedder, "lower --batch-size or --held-out", "lower `batch_size` or `held_out`"),
        (solution.tune, "--seconds minilm=0.4", '`seconds={"minilm": 0.4}`'),
    ],
)
def test_messages_name_the_arguments_of_the_function(
    function: Callable[..., object], message: str, expected: str
) -> None:
    assert in_python(message, defaults_of(function)) == expected


def test_errors_of_the_api_name_its_arguments_and_those_of_a_command_its_options(tmp_path: Path) -> None:
    with pytest.raises(solution.UserError, match="name one with `questions=FILE`") as told:
        solution.make_folds(workdir=tmp_path, configs="demo")
    assert told.value.problems == [str(told.value)]
    twice = tmp_path / "twice.csv"
    twice.write_text("id,prompt,A,B,answer\n1,q?,x,y,A\n1,r?,z,w,B\n")
    with pytest.raises(solution.UserError, match=r"without these rows: `reading=Reading\(skip_bad_rows=True\)`"):
        solution.read_questions(twice)
    for what, seeds, message in (("everything", 1, "what is 'everything': give one of folds"), ("full", 0, "seeds")):
        with pytest.raises(solution.UserError, match=message):
            solution.train(workdir=tmp_path, what=what, seeds=seeds)  # type: ignore[arg-type]
    with pytest.raises(solution.UserError, match="dtype is 'int8': give one of float32, bfloat16"):
        solution.merge("bert", 0, tmp_path / "merged", dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(solution.UserError, match="^`memory` '5 apples': give"):
        solution.load(tmp_path, memory="5 apples")
    done = CliRunner().invoke(app, ["folds", "--workdir", str(tmp_path), "--configs", "demo"])
    assert done.exit_code == 2 and "name one with --questions FILE" in done.output


def test_notes_of_the_api_name_its_arguments_and_those_of_a_command_its_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def note(questions: str | None = None) -> None:
        say("note: no question file (or give --questions FILE)")

    stage(note)()
    with running_command("report", {}):
        stage(note)()
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("(or give `questions=FILE`)") and said[1].endswith("(or give --questions FILE)")
