"""Which requests the server takes: for its own name, from its own page, and of a size that it can hold."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL = ("localhost", "127.0.0.1", "::1")
_FRAMES = "'self' http://localhost:* http://127.0.0.1:*"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class BodyTooLarge(Exception):
    """A request holds more bytes than the limit."""


def host_of(header: str) -> str:
    """The name or address in a Host header, without its port and brackets, in lower case."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if name.count(":") == 1 else name


class Guard:
    """Middleware that refuses requests for another name, from another site, and too large ones.

    A page on another site can give its name the address of this machine (DNS rebinding), and then its scripts may read
    what this server sends. The Host header shows that name. An address cannot be rebound, so a server that is open to
    other machines takes every address.

    Args:
        names: further hosts that are taken: the machine's names, or that of a proxy in front; "*": all.
        is_open: the server listens to other machines too.
        most: bytes of a request.
        frames: origins whose pages may embed this one, beside those of this machine.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], is_open: bool, most: int, frames: Iterable[str] = ()):
        self._app, self._is_open, self._most = app, is_open, most
        self._names = {*_LOCAL, *(name.lower() for name in names)}
        ancestors = " ".join([_FRAMES, *frames])
        self._policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            f"base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._takes(host_of(headers.get("host", ""))):
            await self._refuse(send, 421, "This server does not go by that name. Start it with --allow-host NAME.")
            return
        if scope["method"] not in ("GET", "HEAD") and headers.get("sec-fetch-site", "same-origin") != "same-origin":
            await self._refuse(send, 403, "Only this server's own page may send requests.")
            return
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._most:
            await self._refuse(send, 413, self._too_large)
            return
        taken = 0
        is_begun = False

        async def receive_some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._most:
                raise BodyTooLarge
            return message

        async def send_guarded(message: Message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                self._add_headers(MutableHeaders(scope=message))
            await send(message)

        try:
            await self._app(scope, receive_some, send_guarded)
        except BodyTooLarge:
            if not is_begun:
                await self._refuse(send, 413, self._too_large)

    @property
    def _too_large(self) -> str:
        return f"That is too large: at most {self._most / 2**20:g} MiB are taken at once."

    def _takes(self, host: str) -> bool:
        if host in self._names or "*" in self._names:
            return True
        return self._is_open and _is_address(host)

    def _add_headers(self, headers: MutableHeaders) -> None:
        for name, value in _HEADERS.items():
            headers[name] = value
        headers["Content-Security-Policy"] = self._policy
        headers.setdefault("Cache-Control", "no-store")

    async def _refuse(self, send: Send, status: int, text: str) -> None:
        body = json.dumps({"error": text}).encode()
        headers = MutableHeaders({"Content-Type": "application/json", "Content-Length": str(len(body))})
        self._add_headers(headers)
        await send({"type": "http.response.start", "status": status, "headers": headers.raw})
        await send({"type": "http.response.body", "body": body})


def is_local(host: str) -> bool:
    """Whether an address or name is that of this machine for itself alone."""
    if host.lower() in _LOCAL:
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
