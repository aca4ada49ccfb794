"""Headless Chromium through its debugging pipe, with nothing but the standard library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell", "chromium-headless-shell")
_SECONDS = 120
_START = """import os, sys
for place, number in enumerate(map(int, sys.argv[1:3]), 3):
    os.dup2(number, place)
    os.close(number)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """One Chromium with one tab; used in a `with` block.

    Args:
        folder: an empty folder for its profile.
    """

    def __init__(self, program: str, folder: Path):
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        # The browser reads from 3 and writes to 4: its starter moves the ends there, away from numbers in use.
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (commands, answers)]
        os.close(commands)
        os.close(answers)
        options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        options += " --disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *map(str, theirs), program, *options.split(), f"--user-data-dir={folder}"],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in theirs:
            os.close(fd)
        self._rest, self._number = b"", 0
        self._session: str | None = None
        self._requested: list[str] = []
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        self._attach()
        return self

    def _attach(self, **where: str) -> None:
        target = self.call("Target.createTarget", url="about:blank", **where)["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Network.enable")

    def __exit__(self, *_: object) -> None:
        for fd in (self._write, self._read):
            os.close(fd)
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self._events.append(answer)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def open(self, page: Path | str, width: int, height: int, scheme: str) -> None:
        """Show a file or an address in a window of this size, `light` or `dark`."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._load("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())

    def reload(self) -> None:
        """Load the page again."""
        self._load("Page.reload")

    def _load(self, method: str, **parameters: Any) -> None:
        self._keep_requests()
        self.call(method, **parameters)
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())

    def _keep_requests(self) -> None:
        for event in self._events:
            if event.get("method") == "Network.requestWillBeSent":
                self._requested.append(event["params"]["request"]["url"])
        self._events.clear()

    def requested(self) -> list[str]:
        """The addresses that the tabs have asked for since they were made."""
        self._keep_requests()
        return self._requested

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; of a promise, what it gives."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 10) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.ask(expression)):
            assert time.monotonic() < end, (expression, self.ask("document.body.innerText"))
            time.sleep(0.02)
        return value

    def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key: Tab, Enter, or a letter."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        more = {"text": "\r" if key == "Enter" else key} if key != "Tab" else {}
        code = codes.get(key, ord(key[0].upper()))
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def tab(self) -> str:
        """Go to a tab of another visitor, who shares no storage with the others; returns the tab that was used."""
        before, self._session = self._session, None
        context = self.call("Target.createBrowserContext")["browserContextId"]
        self._attach(browserContextId=context)
        assert before is not None
        return before

    def go_to(self, tab: str) -> str:
        """Go to a tab; returns the one that was used."""
        before, self._session = self._session, tab
        assert before is not None
        return before

    def picture(self, path: Path, **clip: float) -> None:
        """A PNG of the window, or of the part of the page that `clip` names (x, y, width, height)."""
        more = {"clip": {"scale": 1, **clip}, "captureBeyondViewport": True} if clip else {}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **more)["data"]))
