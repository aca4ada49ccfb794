"""The server of the page: its queue, exams to practise with, limits, and what it refuses."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient
from typer.testing import CliRunner
from web_answerer import TEXT, FakeAnswerer

from solution.cli.app import app as commands
from solution.errors import UserError
from solution.questions import Questions
from solution.retrieval.corpus import Document
from solution.web.answerer import About, Tell
from solution.web.app import Doors, make_app
from solution.web.desk import Busy, Desk, UnknownJob
from solution.web.ensemble import EnsembleAnswerer
from solution.web.exams import ComingExam, PractiseExam, Shelf
from solution.web.limits import Limits
from solution.web.serve import Address, listen
from solution.workdir import Workdir

LIMITS = Limits(body=20_000, prompt=200, option=50, questions=5, exams=2, waiting=2, finished=3)
EXAM = Questions(
    ["a", "b", "c"],
    ["Which gas lifts?", "Which is red?", "Which is open?"],
    [["argon", "helium", "", "neon"], ["iron", "sky"], ["x", "y"]],
    np.array([1, 0, -1]),
    {"title": ["Balloons", "", ""]},
)
HERE = "http://127.0.0.1"


@pytest.fixture(scope="module")
def answerer() -> FakeAnswerer:
    return FakeAnswerer()


@pytest.fixture(scope="module")
def page(answerer: FakeAnswerer) -> Iterator[TestClient]:
    desk = Desk(lambda tell: answerer, LIMITS)
    shelf = Shelf([PractiseExam.of("Gases", EXAM, LIMITS)], LIMITS)
    with TestClient(make_app(desk, shelf, LIMITS, Doors(), "demo_run"), base_url=HERE) as client:
        yield client
    desk.close()


def ask(page: TestClient, prompt: str = "Which gas?", options: tuple[str, ...] = ("argon", "helium gas")) -> str:
    done = page.post("/api/questions", json={"prompt": prompt, "options": list(options)})
    assert done.status_code == 202, done.text
    return done.json()["name"]


def wait(page: TestClient, name: str) -> dict[str, Any]:
    seen = ""
    for _ in range(100):
        now = page.get(f"/api/questions/{name}", params={"seen": seen}).json()
        if now["state"] in ("done", "failed"):
            return now
        seen = now["seen"]
    raise AssertionError(now)


# --- asking --------------------------------------------------------------------------------


def test_a_question_is_answered_with_its_reasons(page: TestClient) -> None:
    answer = wait(page, ask(page))["answer"]
    assert answer["order"] == ["B", "A"] and answer["confidence"] == pytest.approx(10 / 15)
    assert [ranker["probabilities"] for ranker in answer["rankers"]] == [pytest.approx([5 / 15, 10 / 15]), None]
    assert answer["reliability"]["questions"] == 20 and answer["seconds"]["total"] == 0.6
    parts = answer["passages"][0]["parts"]
    assert "".join(text for text, _ in parts) == TEXT
    assert [(text, letters) for text, letters in parts if letters] == [("It lifts balloons.", "AB")]
    assert answer["passages"][1]["parts"] == [["No mark.", ""]]


def test_questions_wait_in_their_order_and_see_their_place(page: TestClient, answerer: FakeAnswerer) -> None:
    answerer.gate.clear()
    names = [ask(page, "first")]
    while page.get(f"/api/questions/{names[0]}").json()["news"] != "large: loading":
        time.sleep(0.01)
    names += [ask(page, "second"), ask(page, "third")]
    looks = [page.get(f"/api/questions/{name}").json() for name in names]
    assert [(look["state"], look["place"]) for look in looks] == [("working", 0), ("waiting", 1), ("waiting", 2)]
    full = page.post("/api/questions", json={"prompt": "fourth", "options": ["a", "b"]})
    assert full.status_code == 503 and "2 questions are waiting already" in full.json()["error"]
    assert page.delete(f"/api/questions/{names[1]}").status_code == 200
    assert page.get(f"/api/questions/{names[2]}").json()["place"] == 1
    assert page.get(f"/api/questions/{names[1]}").status_code == 404
    answerer.gate.set()
    assert wait(page, names[2])["answer"]["prompt"] == "third"
    assert answerer.asked[-2:] == ["first", "third"]


def test_an_error_is_a_message_and_the_next_question_is_answered(page: TestClient, capsys: Any) -> None:
    assert wait(page, ask(page, "fail"))["error"] == "no ranker answered: large: too little memory"
    bug = wait(page, ask(page, "bug"))
    assert bug["state"] == "failed" and "secret" not in bug["error"]
    assert wait(page, ask(page))["state"] == "done"


def test_only_so_many_answers_are_kept(page: TestClient) -> None:
    names = [ask(page) for _ in range(1)]
    wait(page, names[0])
    for _ in range(LIMITS.finished):
        wait(page, ask(page))
    gone = page.get(f"/api/questions/{names[0]}")
    assert gone.status_code == 404 and "Ask it again" in gone.json()["error"]


def test_a_question_that_nobody_waits_for_is_dropped() -> None:
    now, answerer = [0.0], FakeAnswerer()
    answerer.gate.clear()
    desk = Desk(lambda tell: answerer, LIMITS, clock=lambda: now[0])
    first = desk.put("first", ["a", "b"])
    while desk.look(first)["state"] == "waiting":
        time.sleep(0.005)
    gone, kept = desk.put("gone", ["a", "b"]), desk.put("kept", ["a", "b"])
    with pytest.raises(Busy):
        desk.put("more", ["a", "b"])
    now[0] = 20.0
    desk.look(kept)
    now[0] = 40.0
    assert desk.look(kept)["place"] == 1
    with pytest.raises(UnknownJob):
        desk.look(gone)
    answerer.gate.set()
    while desk.look(kept)["state"] != "done":
        time.sleep(0.005)
    assert answerer.asked == ["first", "kept"]
    desk.close()


def test_an_ensemble_that_cannot_be_loaded_is_told_to_whoever_asks() -> None:
    def fail(tell: Tell) -> FakeAnswerer:
        tell("loading large")
        raise UserError("no ranker can answer: large: its weights are missing")

    desk = Desk(fail, LIMITS)
    with TestClient(make_app(desk, Shelf([], LIMITS), LIMITS, Doors()), base_url=HERE) as page:
        assert wait(page, ask(page))["error"] == "no ranker can answer: large: its weights are missing"
        assert page.get("/api/about").json()["rankers"] == []
    desk.close()


def test_exams_that_are_made_behind_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Questions:
        raise ZeroDivisionError("a secret path")

    shelf = Shelf([], LIMITS, [ComingExam("Broken", fail), ComingExam("Gases", lambda: EXAM)])
    desk = Desk(lambda tell: FakeAnswerer(), LIMITS)
    with TestClient(make_app(desk, shelf, LIMITS, Doors()), base_url=HERE) as page:
        before = page.get("/api/exams").json()
        assert before == {"exams": [], "coming": [{"title": each, "problem": ""} for each in ("Broken", "Gases")]}
        shelf.make_coming()
        after = page.get("/api/exams").json()
        (exam,) = after["exams"]
        assert exam["title"] == "Gases" and page.get(f"/api/exams/{exam['key']}").status_code == 200
        assert [each["title"] for each in after["coming"]] == ["Broken"] and "secret" not in str(after)
    assert "secret" in capsys.readouterr().err
    desk.close()


def test_a_pasted_text_is_read(page: TestClient) -> None:
    read = page.post("/api/read", json={"text": "Which gas? A) argon B) helium"}).json()
    assert read["questions"] == [{"prompt": "Which gas?", "options": ["argon", "helium"]}]
    assert "lettered options" in read["notes"][0]
    answered = page.post("/api/read", json={"text": "Which? {=a ~b}\n\nAnd? {~c =d}"})
    assert len(answered.json()["questions"]) == 2


@pytest.mark.parametrize(
    ("path", "sent", "status", "message"),
    [
        ("questions", {"prompt": " ", "options": ["a", "b"]}, 400, "question is empty"),
        ("questions", {"prompt": "x", "options": ["a"]}, 400, "1 options: give 2 to 26"),
        ("questions", {"prompt": "x", "options": ["a", " "]}, 400, "option B is empty"),
        ("questions", {"prompt": "x", "options": list(map(str, range(27)))}, 400, "27 options"),
        ("questions", {"prompt": "x" * 201, "options": ["a", "b"]}, 400, "201 characters; at most 200"),
        ("questions", {"prompt": "x", "options": ["a", "b" * 51]}, 400, "51 characters; at most 50"),
        ("questions", {"prompt": "x", "options": "ab"}, 400, "not the form"),
        ("questions", {"prompt": ["x"], "options": ["a", "b"]}, 400, "not the form"),
        ("questions", [], 400, "not the form"),
        ("read", {"text": "Hello"}, 400, "no question with options"),
        ("read", {"text": "\n\n".join(["Which? A) a B) b"] * 6)}, 400, "6 questions; at most 5"),
        ("exams/none/score", {"choices": {}}, 404, "no longer, here"),
        ("read", {"text": "x" * 20_001}, 413, "too large"),
    ],
)
def test_bad_input_is_a_message(page: TestClient, path: str, sent: Any, status: int, message: str) -> None:
    done = page.post(f"/api/{path}", json=sent)
    assert done.status_code == status and message in done.json()["error"]


def test_half_a_character_and_bytes_that_are_no_text_are_refused(page: TestClient) -> None:
    json = {"Content-Type": "application/json"}
    for body in (b'{"text": "\\ud800"}', b'{"text": "\xff"}', b"", b"{"):
        assert page.post("/api/read", content=body, headers=json).status_code == 400


# --- practising ----------------------------------------------------------------------------


def test_an_exam_is_shown_without_its_answers_and_scored(page: TestClient) -> None:
    head = page.get("/api/exams").json()["exams"][0]
    exam = page.get(f"/api/exams/{head['key']}").json()
    assert exam["count"] == 2 and exam["notes"] == ["1 questions without a right answer are left out"]
    assert exam["questions"] == [
        {"prompt": "Which gas lifts?", "options": [["A", "argon"], ["B", "helium"], ["D", "neon"]]},
        {"prompt": "Which is red?", "options": [["A", "iron"], ["B", "sky"]]},
    ]
    score = page.post(f"/api/exams/{head['key']}/score", json={"choices": {"0": ["A", "B"]}}).json()
    assert score == {
        "results": {"0": {"right": "B", "points": 0.5, "title": "Balloons"}},
        "answered": 1,
        "right": 0,
        "map3": 0.5,
    }
    both = page.post(f"/api/exams/{head['key']}/score", json={"choices": {"0": ["A", "D", "B"], "1": ["A"]}}).json()
    assert both["right"] == 1 and both["map3"] == pytest.approx((1 / 3 + 1) / 2)
    none = page.post(f"/api/exams/{head['key']}/score", json={"choices": {"1": ["B"], "0": ["D"]}}).json()
    assert none["map3"] == 0 and none["results"]["1"] == {"right": "A", "points": 0, "title": ""}
    assert page.post(f"/api/exams/{head['key']}/score", json={"choices": {}}).json()["map3"] is None


@pytest.mark.parametrize(
    "choices",
    [{"0": []}, {"0": ["C"]}, {"0": ["A", "A"]}, {"0": ["Z"]}, {"0": ["?"]}, {"0": list("ABDA")}, {"2": ["A"]}]
    + [{"-1": ["A"]}, {"²": ["A"]}, {"9" * 9: ["A"]}, {"0": ["AB"]}, {"0": "A"}],
)
def test_choices_that_are_none_are_refused_and_tell_no_answer(page: TestClient, choices: Any) -> None:
    key = page.get("/api/exams").json()["exams"][0]["key"]
    done = page.post(f"/api/exams/{key}/score", json={"choices": choices})
    assert done.status_code == 400 and set(done.json()) == {"error"}


def put(page: TestClient, data: bytes, name: str = "exam.csv") -> Any:
    headers = {"Content-Type": "application/octet-stream"}
    return page.post("/api/exams", params={"name": name}, content=data, headers=headers)


def test_an_exam_of_a_visitor_is_kept_for_a_while_and_not_shown_to_others(page: TestClient) -> None:
    texts = [f"prompt,A,B,answer\nWhich is {number}?,x,y,B\n".encode() for number in range(3)]
    keys = [put(page, text, "../../etc/exam.csv").json()["key"] for text in texts]
    assert [page.get(f"/api/exams/{key}").status_code for key in keys] == [404, 200, 200]
    assert page.get(f"/api/exams/{keys[1]}").json()["title"] == "exam.csv"
    assert [exam["title"] for exam in page.get("/api/exams").json()["exams"]] == ["Gases"]
    again = put(page, texts[0]).json()
    assert again["key"] == keys[0] and "answer" not in again["questions"][0]
    aiken = put(page, b"Which?\nA. x\nB. y\nANSWER: B\n", "pasted text").json()
    assert aiken["count"] == 1


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b" ", "exam.csv", "is empty"),
        (b"PK\x03\x04", "exam.zip", "only text files are taken here"),
        (b"PAR1", "exam.parquet", "only text files are taken here"),
        (b"prompt,A,B\nWhich?,x,y\n", "exam.csv", "right answers are not known"),
        (b"prompt,A,B,answer\n" + b"Which?,x,y,A\n" * 6, "exam.csv", "at most 5"),
        (b"prompt,A,B,answer\n" + b"W" * 201 + b",x,y,A\n", "exam.csv", "Question 1: the question has 201"),
        (b"prompt,A,B,answer\nWhich?,x,y,E\n", "exam.csv", "not usable"),
        (b"\xff\xfe\xfd", "exam.csv", "is not"),
        (b'<!DOCTYPE q [<!ENTITY x SYSTEM "file:///etc/passwd">]><quiz>&x;</quiz>', "exam.xml", "exam.xml"),
    ],
)
def test_a_wrong_exam_is_a_message(page: TestClient, data: bytes, name: str, message: str) -> None:
    done = put(page, data, name)
    assert done.status_code == 400 and message in done.json()["error"] and "root:" not in done.text


# --- who may come in -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "10.0.0.1", "", "127.0.0.1.evil.example"])
def test_other_names_are_refused(page: TestClient, host: str) -> None:
    done = page.get("/", headers={"Host": host})
    assert done.status_code == 421 and "--allow-host" in done.json()["error"]


def test_names_of_this_machine_are_taken(page: TestClient, answerer: FakeAnswerer, monkeypatch: Any) -> None:
    for host in ("localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080"):
        assert page.get("/api/about", headers={"Host": host}).status_code == 200
    monkeypatch.setenv("SPACE_HOST", "me-exam.hf.space")
    doors = Address("0.0.0.0", names=["exam.school"]).doors()
    desk = Desk(lambda tell: answerer, LIMITS)
    with TestClient(make_app(desk, Shelf([], LIMITS), LIMITS, doors), base_url=HERE) as opened:
        for host in ("10.0.0.1:8080", "exam.school", "me-exam.hf.space", "[fe80::1]"):
            assert opened.get("/api/about", headers={"Host": host}).status_code == 200
        assert opened.get("/api/about", headers={"Host": "evil.example"}).status_code == 421
        assert "https://huggingface.co" in opened.get("/").headers["Content-Security-Policy"]
    desk.close()


def test_other_sites_and_large_requests_are_refused(page: TestClient) -> None:
    sent = {"json": {"prompt": "x", "options": ["a", "b"]}}
    assert page.post("/api/questions", **sent, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert page.post("/api/questions", **sent, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 202
    form = {"Content-Type": "text/plain"}
    assert page.post("/api/questions", content=b'{"prompt": "x"}', headers=form).status_code == 415
    assert page.post("/api/exams", content=b"x", headers=form).status_code == 415
    chunks = (b"x" * 5000 for _ in range(5))  # no Content-Length
    headers = {"Content-Type": "application/octet-stream"}
    assert page.post("/api/exams", content=chunks, headers=headers).status_code == 413


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/static/page.css", "/app.py", "//etc/passwd", "/api/"]
)
def test_only_the_pages_files_are_sent(page: TestClient, path: str) -> None:
    assert page.get(path).status_code == 404


def test_the_page_loads_nothing_from_elsewhere(page: TestClient) -> None:
    first = page.get("/")
    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'self';" in policy
    static = Path(__file__).parents[1] / "solution" / "web" / "static"
    for path in static.iterdir():
        sent = page.get(f"/{path.name}")
        assert sent.content == path.read_bytes() and "http" not in sent.text, path
        again = page.get(f"/{path.name}", headers={"If-None-Match": sent.headers["ETag"]})
        assert again.status_code == 304 and not again.content


def test_the_command_serves_a_working_folder(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command but for the network: what it would run there is asked directly."""
    seen: dict[str, Any] = {}

    def run(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        seen["address"] = sockets[0].getsockname()[0]
        with TestClient(server.config.app, base_url=HERE) as page:
            seen["early"] = page.get("/api/about").json()
            name = ask(page, "Which planet is it?", ("Planet 1", "Planet 2", "a moon"))
            seen["answer"] = wait(page, name)["answer"]
            seen["about"] = page.get("/api/about").json()
            seen["exams"] = page.get("/api/exams").json()["exams"]
            end = time.monotonic() + 60
            while not (coming := page.get("/api/exams").json()["coming"])[0]["problem"]:
                assert time.monotonic() < end
                time.sleep(0.02)
            seen["coming"] = coming
            server.handle_exit(signal.SIGINT, None)
            seen["late"] = [
                page.get(f"/api/questions/{name}", params={"seen": tag}).json()["seen"] for tag in ("", "x")
            ]

    monkeypatch.chdir(finished)
    monkeypatch.setattr(uvicorn.Server, "run", run)
    done = CliRunner().invoke(commands, ["serve", "--port", "0", "--exam", "questions.csv", "--generate", "3"])
    assert done.exit_code == 0, done.output
    assert "the page: http://127.0.0.1:" in done.output and seen["address"] == "127.0.0.1"
    assert sorted(seen["answer"]["order"]) == ["A", "B", "C"] and sum(seen["answer"]["probabilities"]) == pytest.approx(
        1
    )
    assert {ranker["name"] for ranker in seen["answer"]["rankers"]} == {"tiny", "similarity"}
    assert seen["answer"]["passages"] and seen["early"]["loading"]
    assert set(seen["about"]["rankers"]) == {"similarity", "tiny"} and len(seen["about"]["map3"]) == 3
    assert [(exam["title"], exam["count"]) for exam in seen["exams"]] == [("questions.csv", 9)]
    ((title, problem),) = (exam.values() for exam in seen["coming"])
    assert title == "Questions made from the corpus" and "no question can be made from corpus.csv" in problem


def test_the_news_of_a_question_are_heard(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    heard: list[str] = []
    answerer = EnsembleAnswerer(Workdir.existing(finished), None, ["tiny"], heard.append)
    assert heard[0] == "the ensemble is being opened" and "tiny is being loaded" in heard
    assert answerer.about() == About(("tiny",), None)
    heard.clear()
    answerer.explain("Which?", ["Planet 1", "Planet 2"], heard.append)
    assert heard == ["passages are being searched", "tiny is answering"]


def test_the_command_refuses_what_it_cannot_serve(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["serve", "--workdir", str(tmp_path / "none")])
    assert done.exit_code == 2 and "is not there" in done.output
    done = CliRunner().invoke(commands, ["serve", "--workdir", str(tmp_path)])
    assert done.exit_code == 2 and "ensemble" in done.output
    with listen(Address(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: cannot listen there"):
            listen(replace(Address(), port=port))
        done = CliRunner().invoke(commands, ["serve", "--corpus", "none.pdf", "--port", str(port)])
        assert done.exit_code == 2 and f"--port {port}: cannot listen there" in done.output
    with pytest.raises(UserError, match="cannot listen there"):
        listen(Address("203.0.113.1", 0))


def test_questions_of_a_corpus_are_what_the_address_shows_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [Document("1", "Gases", "Helium lifts balloons.")], EXAM
    monkeypatch.setattr("solution.cli.serve.corpus_to_practise", lambda corpus, count: made)
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: None)
    done = CliRunner().invoke(commands, ["serve", "--corpus", "gases.txt", "--port", "0"])
    assert done.exit_code == 0 and "/#practise (Ctrl+C ends it)" in done.output
