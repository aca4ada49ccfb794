"""The page in a real browser: asking and practising by keyboard, two visitors, a reload, phones, and accessibility."""

from __future__ import annotations

import importlib.util
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from browser import Browser, find_chromium
from web_answerer import FakeAnswerer

from solution.questions import Questions
from solution.web.app import Doors, make_app
from solution.web.desk import Desk
from solution.web.exams import PractiseExam, Shelf
from solution.web.limits import Limits

PROGRAM = find_chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed: the page is not tried in a browser")
LONG = "averyverylongwordwithoutanyspace" * 4
EXAM = Questions(
    ["a", "b"],
    ["Which gas lifts a <b>balloon</b>?", f"Which is red, {LONG}?"],
    [["argon", "helium"], ["iron", "sky", LONG, "x\ny"]],
    np.array([1, 0]),
    {"title": ["Balloons", ""]},
)
AIKEN = b"Which is blue?\nA. grass\nB. sky\nANSWER: B\n"


@dataclass
class Site:
    url: str
    answerer: FakeAnswerer
    shelf: Shelf


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    answerer, limits = FakeAnswerer(), Limits()
    desk = Desk(lambda tell: answerer, limits)
    shelf = Shelf([PractiseExam.of("Gases", EXAM, limits)], limits)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(make_app(desk, shelf, limits, Doors(), "demo_run"), log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}/", answerer, shelf)
        finally:
            answerer.gate.set()
            server.should_exit = server.force_exit = True
            thread.join(20)
            desk.close()


@pytest.fixture(scope="module")
def browser(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser
        asked = [url for url in browser.requested() if not url.startswith((site.url, "data:", "about:"))]
        assert len(browser.requested()) > 20 and asked == []


@pytest.fixture
def fresh(site: Site, browser: Browser) -> Browser:
    """The page as a new visitor sees it."""
    browser.open(site.url, 1000, 800, "light")
    browser.ask("localStorage.clear(); sessionStorage.clear()")
    browser.open(f"{site.url}?{time.monotonic()}", 1000, 800, "light")
    return browser


def click(browser: Browser, text: str, within: str = "main") -> None:
    """Press the button or link with this text."""
    buttons = f"[...document.querySelectorAll('{within} button, {within} a')]"
    found = f"{buttons}.find(each => each.textContent === {text!r} && each.offsetParent && !each.disabled)"
    browser.wait(f"Boolean({found})")
    browser.ask(f"{found}.click()")


def text_of(browser: Browser, selector: str) -> str:
    """The text of an element, as soon as it has one."""
    return browser.wait(f"document.querySelector('{selector}')?.innerText.trim()")


def ask_example(browser: Browser) -> None:
    click(browser, "Show an example")
    click(browser, "Rank the options")
    browser.wait("document.querySelector('.answer') !== null")


def test_a_question_is_asked_by_keyboard_and_is_there_after_a_reload(fresh: Browser) -> None:
    fresh.ask("document.getElementById('prompt').focus()")
    fresh.type("Which gas?")
    for option in ("argon", "helium gas"):
        fresh.press("Tab")
        if option != "argon":  # over the button that removes the option above
            fresh.press("Tab")
        fresh.type(option)
    fresh.press("Enter")
    assert text_of(fresh, ".ranking .first") == "B\nhelium gas\n67\u00a0%"
    assert fresh.ask("document.activeElement.textContent") == "Ranked options"
    assert fresh.ask("document.getElementById('status').textContent") == "Ranked. First: B, 67\u00a0%."
    assert "right in 70\u00a0% of 20 questions (95 % interval" in text_of(fresh, ".confidence").replace(
        "95\u00a0", "95 "
    )
    assert "it was not asked" in text_of(fresh, ".rankers")
    assert text_of(fresh, "mark").startswith("It lifts balloons.")
    assert "Neon <glows> red." in text_of(fresh, ".passage p")
    fresh.reload()
    assert text_of(fresh, ".ranking .first").startswith("B\nhelium gas")
    assert fresh.ask("document.getElementById('option-B').value") == "helium gas"


def test_a_pasted_text_fills_the_form_and_wrong_input_is_told(fresh: Browser) -> None:
    click(fresh, "Rank the options")
    assert "the question is empty" in text_of(fresh, "#ask-error")
    paste = "const box = document.getElementById('prompt'); box.value = {!r}; box.dispatchEvent(new Event('paste'))"
    fresh.ask(f"{{ {paste.format('Which gas? {=helium ~argon}')} }}")
    fresh.wait("document.getElementById('option-B')?.value === 'argon'")
    assert fresh.ask("document.getElementById('prompt').value") == "Which gas?"
    assert fresh.ask("document.getElementById('ask-error').textContent") == ""
    click(fresh, "Clear")
    fresh.ask(f"{{ {paste.format('Hello')} }}")
    click(fresh, "Rank the options")
    assert "no question with options is recognised" in text_of(fresh, "#ask-error")
    fresh.ask(f"{{ {paste.format('Which? A) a B) b' + chr(10) * 2 + 'What? A) c B) d')} }}")
    fresh.wait("document.getElementById('option-A').value === 'a'")
    click(fresh, "Next")
    assert fresh.ask("document.getElementById('option-B').value") == "d"
    fresh.ask("document.getElementById('prompt').value = 'fail'")
    click(fresh, "Rank the options")
    assert "too little memory" in text_of(fresh, "#ask-error")


def test_two_visitors_wait_for_each_other(site: Site, fresh: Browser) -> None:
    site.answerer.gate.clear()
    click(fresh, "Show an example")
    click(fresh, "Rank the options")
    fresh.wait("document.querySelector('.waiting p')?.textContent === 'Large: loading'")
    first = fresh.tab()
    fresh.open(site.url, 375, 740, "dark")
    assert fresh.ask("document.getElementById('prompt').value") == ""
    click(fresh, "Show an example")
    click(fresh, "Rank the options")
    fresh.wait("document.querySelector('.waiting p')?.textContent === 'Your question is next.'")
    site.answerer.gate.set()
    fresh.wait("document.querySelector('.answer') !== null")
    fresh.go_to(first)
    fresh.wait("document.querySelector('.answer') !== null")


def test_an_exam_is_practised_over_a_reload(fresh: Browser) -> None:
    click(fresh, "Practise", "nav")
    click(fresh, "Start")
    fresh.wait("document.querySelector('.choice') !== null")
    assert "Which gas lifts a <b>balloon</b>?" in text_of(fresh, ".prompt")
    fresh.ask("document.querySelector('.choice').focus()")
    fresh.press("a")
    fresh.press("b")
    assert text_of(fresh, ".choice[data-letter=B] .badge") == "2nd choice"
    click(fresh, "Answer")
    assert text_of(fresh, ".verdict") == "B is right: your 2nd choice, half a point."
    assert "Balloons" in fresh.ask("document.getElementById('practise').innerText")
    fresh.reload()
    assert "B is right" in text_of(fresh, ".verdict")
    click(fresh, "Next question")
    fresh.wait("document.querySelector('.choice[data-letter=D]') !== null")
    fresh.ask("document.querySelector('.choice').click()")
    click(fresh, "Answer")
    assert text_of(fresh, ".verdict") == "Right."
    click(fresh, "See the score")
    assert text_of(fresh, ".figures").split("\n") == ["MAP@3", "0.750", "right answers", "1 of 2", "answered", "2 of 2"]
    assert fresh.ask("document.querySelectorAll('.mistake').length") == 1
    click(fresh, "Show passages and rankers")
    assert "It lifts balloons." in text_of(fresh, ".mistake mark")
    assert "right" in text_of(fresh, ".mistake .ranking .tag")
    fresh.reload()
    assert "0.750" in text_of(fresh, ".figures")
    click(fresh, "Start again")
    fresh.wait("document.querySelector('#practise h1').textContent === 'Question 1 of 2'")


def test_a_visitors_exam_is_given_again_to_a_server_that_has_started_again(site: Site, fresh: Browser) -> None:
    click(fresh, "Practise", "nav")
    click(fresh, "Start this exam")
    assert "Choose a file" in text_of(fresh, ".give .error")
    fresh.ask("document.getElementById('exam-text').value = 'Hello'")
    click(fresh, "Start this exam")
    fresh.wait("document.querySelector('.give .error').textContent.includes('no question with options')")
    fresh.ask(f"document.getElementById('exam-text').value = {AIKEN.decode()!r}")
    click(fresh, "Start this exam")
    assert text_of(fresh, "#practise .prompt") == "Which is blue?"
    site.shelf._given.clear()
    fresh.reload()
    assert text_of(fresh, "#practise .prompt") == "Which is blue?"
    fresh.ask("document.querySelector('.choice').click()")
    click(fresh, "Answer")
    assert text_of(fresh, ".verdict") == "B is right."


def test_an_exam_that_is_made_behind_the_page_appears(site: Site, fresh: Browser) -> None:
    site.shelf._coming["Made"] = ""
    click(fresh, "Practise", "nav")
    assert "These questions are being made." in text_of(fresh, ".exams")
    fresh.ask("document.getElementById('exam-text').value = 'typed meanwhile'")
    site.shelf._coming["Made"] = "no question can be made"
    fresh.wait("document.querySelector('.exams .error')?.textContent === 'no question can be made'")
    assert fresh.ask("document.getElementById('exam-text').value") == "typed meanwhile"
    del site.shelf._coming["Made"]


SIDEWAYS = """[document.documentElement.scrollWidth, ...[...document.querySelectorAll('main *')]
    .filter(each => !each.closest('.unseen, .rankers thead') && each.getClientRects().length)
    .map(each => Math.round(each.getBoundingClientRect().right))].reduce((a, b) => Math.max(a, b))"""


def views(browser: Browser) -> Iterator[str]:
    """Go through all that the page shows."""
    ask_example(browser)
    yield "answer"
    click(browser, "Practise", "nav")
    browser.wait("document.querySelector('.give') !== null")
    yield "exams"
    click(browser, "Start")
    browser.wait("document.querySelector('.choice') !== null")
    browser.ask("document.querySelectorAll('.choice').forEach(each => each.click())")
    yield "question"
    click(browser, "Answer")
    click(browser, "Show passages and rankers")
    browser.wait("document.querySelector('.answer') !== null")
    yield "reviewed"
    click(browser, "Next question")
    browser.wait("document.querySelector('.choice[data-letter=D]') !== null")
    browser.ask("document.querySelectorAll('.choice')[1].click()")
    click(browser, "Answer")
    click(browser, "See the score")
    yield "score"


def test_nothing_is_cut_off_on_a_phone(fresh: Browser) -> None:
    for view in views(fresh):
        for width in (320, 390):
            fresh.call("Emulation.setDeviceMetricsOverride", width=width, height=700, deviceScaleFactor=1, mobile=True)
            assert fresh.ask(SIDEWAYS) <= width, (view, width)


def test_a_long_option_is_whole_while_it_is_typed(fresh: Browser) -> None:
    fresh.call("Emulation.setDeviceMetricsOverride", width=320, height=700, deviceScaleFactor=1, mobile=False)
    fresh.ask("document.getElementById('option-A').focus()")
    before = fresh.ask("document.activeElement.offsetHeight")
    fresh.type(f"{LONG} is an option of several lines")
    field = "document.activeElement"
    assert fresh.ask(f"{field}.offsetHeight") > 3 * before
    assert fresh.ask(f"{field}.scrollHeight <= {field}.clientHeight && {field}.scrollWidth <= {field}.clientWidth")
    assert fresh.ask(SIDEWAYS) <= 320


def test_shares_of_many_options_stand_below_their_ranker(fresh: Browser) -> None:
    options = [LONG, r"$\frac{\partial^2\psi}{\partial t^2}=\nabla\cdot\left(\varepsilon_r\right)$", *"cdefghij"]
    for count, columns in ((5, True), (10, False)):
        shares = [1.0] + [0.0] * (count - 1)
        answer = {
            "options": [{"letter": "ABCDEFGHIJ"[place], "text": options[place]} for place in range(count)],
            "order": list("ABCDEFGHIJ"[:count]),
            "probabilities": shares,
            "rankers": [
                {"name": "a_ranker_with_a_long_name", "weight": 0.9, "probabilities": shares, "note": ""},
                {"name": "small", "weight": 0.1, "probabilities": None, "note": "it was not asked"},
            ],
        } | {"passages": [], "reliability": None, "confidence": 1.0, "notes": [], "seconds": {"total": 1.0}}
        show = "import(location.origin + '/answer.js').then(page => document.querySelector('#ask-answer')"
        fresh.ask(f"{show}.replaceChildren(page.shownAnswer({json.dumps(answer)}, 'A')))")
        letter = "getComputedStyle(document.querySelector('.heat'), '::before').content"
        for width in (320, 390, 768):
            fresh.call("Emulation.setDeviceMetricsOverride", width=width, height=700, deviceScaleFactor=1, mobile=False)
            assert fresh.ask(SIDEWAYS) <= width, (count, width)
            assert (fresh.ask(letter) == "none") == (columns and width == 768), (count, width)
        assert fresh.ask("document.querySelectorAll('.rankers [role=cell]').length") == count + 1


def axe() -> str:
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core is not installed (tests/requirements.txt): accessibility is not checked")
    return Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8")


FINDINGS = """axe.run(document, {resultTypes: ['violations'], ...MORE}).then(found => found.violations
    .map(each => [each.impact, each.id, ...each.nodes.map(node => node.html.slice(0, 200))]))"""
CONTRAST = "{runOnly: ['color-contrast']}"


def test_axe_finds_nothing(fresh: Browser) -> None:
    script = axe()
    for view in views(fresh):
        if view == "answer":
            fresh.ask(f"{script};0")
        assert fresh.ask(FINDINGS.replace("MORE", "{}")) == [], view
        fresh.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert fresh.ask("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
        for width in (390, 1000):
            fresh.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
            assert fresh.ask(FINDINGS.replace("MORE", "{}" if width < 400 else CONTRAST)) == [], view
        fresh.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    fresh.ask("document.querySelector('main').append(Object.assign(document.createElement('img'), {src: 'data:,'}))")
    assert [found[:2] for found in fresh.ask(FINDINGS.replace("MORE", "{}"))] == [["critical", "image-alt"]]
