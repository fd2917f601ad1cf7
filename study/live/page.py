"""
The web server of the live page: the page, its events as they happen, and its buttons.

It listens on loopback only.  A button is a POST with a header that no page of another site can
send, and a request whose ``Host`` is not this machine's is refused (DNS rebinding).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from .stage import Stage

MOST_VIEWERS = 8
PATIENCE = 10.0
"""Seconds within which a viewer must have read what was sent; then its connection is reset."""

ACTIONS = ("load", "idle", "slow", "block")
_FILES = {
    b"": ("page.html", b"text/html; charset=utf-8"),
    b"live.js": ("live.js", b"text/javascript; charset=utf-8"),
    b"live.css": ("live.css", b"text/css; charset=utf-8"),
}
_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
}
_HOSTS = (b"127.0.0.1", b"localhost")


@implementer(IPushProducer)
class _Viewer:
    """One who watches; Twisted says when it does not read."""

    def __init__(self, request: Request, seconds: Callable[[], float]) -> None:
        self._request = request
        self._seconds = seconds
        self._behind_since: float | None = None
        request.registerProducer(self, True)

    def send(self, data: bytes) -> None:
        behind = self._behind_since
        if behind is not None and self._seconds() - behind > PATIENCE:
            channel: Any = self._request.channel
            channel.transport.abortConnection()
        else:
            self._request.write(data)

    def finish(self) -> None:
        self._request.unregisterProducer()
        self._request.finish()

    def pauseProducing(self) -> None:
        if self._behind_since is None:
            self._behind_since = self._seconds()

    def resumeProducing(self) -> None:
        self._behind_since = None

    def stopProducing(self) -> None:
        """It has left."""


class Viewers:
    """Those who watch: each event goes to all of them, and who does not read is reset."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._watching: set[_Viewer] = set()

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to every viewer; called in any thread."""
        self._reactor.callFromThread(self._send, _event(event))

    def add(self, request: Request) -> bool:
        """Whether there is room for one more."""
        if len(self._watching) >= MOST_VIEWERS:
            return False
        viewer = _Viewer(request, self._reactor.seconds)
        self._watching.add(viewer)
        request.notifyFinish().addBoth(lambda _: self._watching.discard(viewer))
        return True

    def close(self) -> None:
        """End every stream of events."""
        for viewer in list(self._watching):
            viewer.finish()

    def _send(self, data: bytes) -> None:
        for viewer in list(self._watching):
            viewer.send(data)


class Page(Resource):
    """The page, ``/events``, and ``/do/ACTION``."""

    isLeaf = True

    def __init__(self, stage: Stage, viewers: Viewers) -> None:
        super().__init__()
        self._stage, self._viewers = stage, viewers

    def render(self, request: Request) -> Any:
        """Answer one request."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        host = (request.getHeader(b"host") or b"").rpartition(b":")[0]
        if host not in _HOSTS:
            return _error(request, 403, "the host of this page is 127.0.0.1")
        return super().render(request)

    def render_GET(self, request: Request) -> Any:
        """The page and its files, or the stream of events."""
        name = request.path.lstrip(b"/")
        if name == b"events":
            if not self._viewers.add(request):
                return _error(request, 503, f"{MOST_VIEWERS} viewers watch already")
            request.setHeader(b"content-type", b"text/event-stream")
            for action in ACTIONS:
                request.write(_event(_done(action, action in self._stage.begun)))
            return NOT_DONE_YET
        if name not in _FILES:
            return _error(request, 404, "there is no such page")
        file, kind = _FILES[name]
        request.setHeader(b"content-type", kind)
        return Path(__file__).with_name(file).read_bytes()

    def render_POST(self, request: Request) -> Any:
        """A button."""
        action = request.path.decode("ascii", "replace").removeprefix("/do/")
        if request.getHeader(b"x-study") is None:
            return _error(request, 403, "only this page may press its buttons")
        if action not in ACTIONS:
            return _error(request, 404, f"there is no button {action!r}")
        on = request.args.get(b"on", [b"1"]) == [b"1"]
        left: list[Any] = []
        request.notifyFinish().addErrback(left.append)

        def done(result: Any) -> None:
            failed = result is not None
            self._viewers.tell(_done(action, action in self._stage.begun))
            if not left:
                request.setResponseCode(500 if failed else 204)
                request.finish()

        deferToThread(self._stage.act, action, on).addBoth(done)
        return NOT_DONE_YET


def _event(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def _done(action: str, begun: bool) -> dict[str, Any]:
    return {"kind": "done", "action": action, "on": begun}


def _error(request: Request, code: int, text: str) -> bytes:
    request.setResponseCode(code)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    return f"{text}\n".encode()


def site(stage: Stage, viewers: Viewers) -> Site:
    """The factory to listen with."""
    made = Site(Page(stage, viewers))
    made.noisy = False
    return made
