"""The pictures of the page in docs/: the server is started on a finished working folder, and Chromium looks at it.

usage: python docs/screenshots.py [WORKDIR]     (demo_run, after `make demo`)
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the tests' way to drive a browser

from browser import Browser, find_chromium  # noqa: E402

WIDTH = 900
COLORS = 64
SECONDS = 180
BUTTON = "[...document.querySelectorAll('main button')].find(each => each.textContent === '{}')"


@contextmanager
def server(workdir: Path) -> Iterator[str]:
    """The address of a server on the working folder, with its held-out questions to practise with."""
    command = [sys.executable, "-m", "solution", "serve", "--workdir", workdir, "--port", "0", "--exam"]
    process = subprocess.Popen([*command, workdir / "test.csv"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        if found is None:
            sys.exit("the server has not started")
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def picture(browser: Browser, path: Path) -> None:
    """The page down to the last passage, as a small PNG."""
    end = "document.querySelector('main > section:not([hidden]) .stages').getBoundingClientRect().top + scrollY"
    browser.picture(path, x=0, y=0, width=WIDTH, height=browser.ask(end))
    Image.open(path).convert("RGB").quantize(COLORS).save(path, optimize=True)
    print(path, path.stat().st_size)


def click(browser: Browser, button: str) -> None:
    browser.wait(f"Boolean({BUTTON.format(button)})")
    browser.ask(f"{BUTTON.format(button)}.click()")


def main(workdir: Path) -> None:
    program = find_chromium()
    if program is None:
        sys.exit("no Chromium is installed")
    with server(workdir) as url, tempfile.TemporaryDirectory() as profile, Browser(program, Path(profile)) as browser:
        browser.open(url, WIDTH, 800, "light")
        click(browser, "Show an example")
        click(browser, "Rank the options")
        browser.wait("document.querySelector('.answer') !== null", SECONDS)
        browser.wait("document.getElementById('about').textContent.includes('MAP@3')", SECONDS)
        browser.ask("document.activeElement.blur()")
        picture(browser, ROOT / "docs" / "page_ask.png")
        browser.ask("location.hash = '#practise'")
        browser.wait("document.querySelector('.exams a') !== null")
        browser.ask("document.querySelector('.exams a').click()")
        browser.wait("document.querySelector('.choice') !== null")
        browser.ask("document.querySelectorAll('.choice').forEach((each, place) => place < 3 && each.click())")
        click(browser, "Answer")
        click(browser, "Show passages and rankers")
        browser.wait("document.querySelector('#practise .answer') !== null", SECONDS)
        browser.ask("document.activeElement.blur()")
        picture(browser, ROOT / "docs" / "page_practise.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo_run").resolve())
