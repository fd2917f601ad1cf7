"""
The HTTP server of the admin interface, with its bounds.

`twisted.web` bounds the request line and the headers: 16 KiB and 500 headers.  This module bounds
the rest: the body of a request, its time, and how many clients there are.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPullProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

MOST_CONNECTIONS = 64
"""The most clients of the admin interface at once; the others are reset."""

MOST_BODY = 64 * 1024
"""The most bytes of the body of a request."""

AT_ONCE = 64 * 1024
"""The most bytes of an answer that are written at once."""

MOST_DISCARDED = 1024 * 1024
"""The most bytes above the bound that are read, so that the client gets the answer."""

REQUEST_TIME = 30.0
"""Seconds within which a request has come, since the client connected or had its last answer; then
its connection is closed, and 15 seconds later reset.  As long, a client may read an answer."""

GRACE = 1.0
"""Seconds within which clients get their last answer when the interface closes."""


_WITH_HOST = re.compile(rb"https?://(?P<host>[^/]+)(?P<path>/.*|)", re.I | re.S)


def _abort(channel: Any) -> None:
    channel.transport.abortConnection()


class _Body(BytesIO):
    """The body of a request, which keeps at most `most` bytes."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.received = 0

    @property
    def too_long(self) -> bool:
        """Whether the body had more bytes."""
        return self.received > self.most

    def add(self, data: bytes) -> None:
        """More of the body came."""
        self.received += len(data)
        if self.too_long:
            self.seek(0)
            self.truncate()
        else:
            self.write(data)


@implementer(IPullProducer)
class _Pieces:
    """Writes `left` to `request`, a piece each time that the client has taken the one before."""

    def __init__(self, request: Request, left: memoryview) -> None:
        self._request = request
        self._left = left

    def resumeProducing(self) -> None:
        self._request.write(bytes(self._left[:AT_ONCE]))
        self._left = self._left[AT_ONCE:]
        if not self._left:
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        self._left = memoryview(b"")


class AdminRequest(Request):
    """A request with a bounded body, which is kept in memory."""

    content: _Body

    def gotLength(self, length: int | None) -> None:
        """The headers have come."""
        self.content = _Body(self.channel.factory.most_body)

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body has come."""
        self.content.add(data)
        if self.content.received > self.content.most + MOST_DISCARDED:
            _abort(self.channel)

    def process(self) -> None:
        """All of the request has come: a target with a host is reduced to its path."""
        found = _WITH_HOST.fullmatch(self.path)
        # Two headers are wrong in any case, and the resource says so.
        if found is not None and len(self.requestHeaders.getRawHeaders(b"host", ())) <= 1:
            # The host of the target counts, as in RFC 9112, 3.2.2.
            self.requestHeaders.setRawHeaders(b"host", [found["host"]])
            self.path = found["path"] or b"/"
        super().process()

    def send(self, body: bytes) -> None:
        """
        Send `body` and finish; a body longer than `AT_ONCE` goes in pieces, as the client reads.

        A client that has not read all of it after `REQUEST_TIME` is reset.
        """
        if len(body) <= AT_ONCE or self.method == b"HEAD":
            self.write(body)
            self.finish()
            return
        site: Any = self.site
        patience = site.reactor.callLater(REQUEST_TIME, _abort, self.channel)
        self.notifyFinish().addBoth(lambda _: patience.cancel() if patience.active() else None)
        self.registerProducer(_Pieces(self, memoryview(body)), False)


class AdminChannel(HTTPChannel):
    """A connection of a client, on which each request must come within a time."""

    def resetTimeout(self) -> None:
        """A byte has come: this does not give the client more time."""

    def close_when_answered(self) -> None:
        """Close the connection: at once, or after the answer to the request that has come."""
        self.persistent = 0
        if not self.requests:
            self.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        super().connectionLost(reason)
        self.factory.lost(self)


class AdminSite(Site):
    """
    Serves `resource` to a bounded number of clients.

    :param resource: answers every request.
    :param reactor: the time and the timers.
    :param most_body: the most bytes of the body of a request.
    """

    noisy = False
    protocol: Any = AdminChannel

    def __init__(self, resource: Resource, reactor: Any, most_body: int = MOST_BODY) -> None:
        super().__init__(resource, AdminRequest, timeout=REQUEST_TIME, reactor=reactor)
        self.most_body = most_body
        self._channels: set[AdminChannel] = set()
        self._gone: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return the channel of a client; ``None`` if there are too many."""
        if len(self._channels) >= MOST_CONNECTIONS:
            return None
        channel: Any = super().buildProtocol(addr)
        self._channels.add(channel)
        return channel

    def lost(self, channel: AdminChannel) -> None:
        """The connection of `channel` is gone."""
        self._channels.discard(channel)
        self._look()

    def disconnect(self) -> Deferred[None]:
        """
        Close the connection of each client, after the answer that it waits for.

        Resets those that are left after `GRACE` seconds.

        :return: fires when no client is left.
        """
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        for channel in tuple(self._channels):
            channel.close_when_answered()
        patience = self.reactor.callLater(GRACE, self._reset)
        gone.addCallback(lambda _: patience.cancel() if patience.active() else None)
        self._look()
        return gone

    def _reset(self) -> None:
        for channel in tuple(self._channels):
            _abort(channel)

    def _look(self) -> None:
        if not self._channels:
            waiting, self._gone = self._gone, []
            for gone in waiting:
                gone.callback(None)

    def acceptableProtocols(self) -> list[bytes]:
        """The protocols for TLS: not HTTP/2, which these bounds do not cover."""
        return [b"http/1.1"]

    # twisted.web's own access log and its timer are not needed.

    def startFactory(self) -> None:
        """Called by Twisted when the port listens."""

    def stopFactory(self) -> None:
        """Called by Twisted when the port listens no longer."""

    def log(self, request: Any) -> None:
        """Log nothing: `evproxy.admin.api` logs what changes the proxy."""
