"""The server of the page: where it listens, who may come in, and how it ends."""

from __future__ import annotations

import os
import socket
import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

import uvicorn

from solution.errors import UserError
from solution.progress import say
from solution.web.answerer import MakeAnswerer
from solution.web.app import Doors, make_app
from solution.web.desk import Desk
from solution.web.exams import Shelf
from solution.web.guard import is_local
from solution.web.limits import Limits

SPACE_HOST = "SPACE_HOST"
"""What a Hugging Face Space calls its own name in its environment."""
_SPACE_FRAMES = ("https://huggingface.co",)


@dataclass(frozen=True)
class Address:
    """Where the server listens.

    Attributes:
        host: an address or name of this machine; 127.0.0.1: only this machine can open the page.
        port: 0: any that is free.
        names: further hosts by which the page may be opened; "*": all.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    names: Sequence[str] = field(default=())

    @property
    def is_open(self) -> bool:
        """Other machines can open the page."""
        return not is_local(self.host)

    def doors(self) -> Doors:
        """Who may come in."""
        space = os.environ.get(SPACE_HOST, "")
        names = [*self.names, self.host, socket.gethostname() if self.is_open else "", *space.split(",")]
        return Doors([name.strip() for name in names if name.strip()], self.is_open, _SPACE_FRAMES if space else ())


def listen(address: Address) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: the address is not of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise UserError(
            f"--host {address.host} --port {address.port}: cannot listen there ({error.strerror or error}). "
            "Give another --port, or --port 0 for any that is free"
        ) from None


class _Server(uvicorn.Server):
    """Ends at once on a signal, also while a browser waits for news of a question."""

    def __init__(self, config: uvicorn.Config, desk: Desk):
        super().__init__(config)
        self._desk = desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._desk.is_ending = True
        super().handle_exit(sig, frame)


def run_server(
    make_answerer: MakeAnswerer, shelf: Shelf, address: Address, title: str, opens: bool, part: str = ""
) -> None:
    """Serve the page until the process is interrupted.

    Args:
        make_answerer: loads the ensemble; the page is there before that has ended.
        shelf: the exams; those that have to be made first are made behind the page, too.
        title: the ensemble's, for the page.
        opens: show the page in this machine's browser.
        part: what the printed address shows first, as "#practise"; "": the part "Ask".

    Raises:
        UserError: see `listen`.
    """
    limits = Limits()
    with listen(address) as listener:
        port = listener.getsockname()[1]
        host = f"[{address.host}]" if ":" in address.host else address.host
        url = f"http://{'127.0.0.1' if address.host == '0.0.0.0' else host}:{port}/{part}"
        if address.is_open:
            say(
                "note: the page is open to every machine that reaches this one, without a password. Whoever opens it "
                "can ask questions; no file can be read through it"
            )
        desk = Desk(make_answerer, limits)
        app = make_app(desk, shelf, limits, address.doors(), title)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        threading.Thread(target=shelf.make_coming, name="exams", daemon=True).start()
        print(f"the page: {url} (Ctrl+C ends it)", flush=True)
        if opens:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        try:
            _Server(config, desk).run([listener])
        except KeyboardInterrupt:
            pass  # the usual end
        finally:
            desk.close()
