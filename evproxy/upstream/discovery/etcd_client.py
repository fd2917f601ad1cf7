"""
A client for the HTTP gateway of one etcd member: reads all keys, and watches for changes.

Twisted's `Agent` sends each request on its own connection.  Every failure of a request raises
`EtcdError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http import OK
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from evproxy.upstream.discovery.etcd_wire import (
    SIZE_LIMIT,
    EtcdError,
    Snapshot,
    range_request,
    read_snapshot,
    refusal,
    watch_request,
)
from evproxy.upstream.http import Connections
from evproxy.upstream.reasons import reason_of

REQUEST_TIMEOUT = 5.0
"""The timeout of a read, and of the start of a watch, in seconds."""


class EtcdClient:
    """
    Reads and watches the keys that begin with `prefix` on the etcd member at `url`.

    :param reactor: a reactor for Twisted's `Agent`.
    """

    def __init__(self, reactor: Any, url: str, prefix: str) -> None:
        self.url = url
        self._base = url.rstrip("/").encode("ascii")
        # The zone of an IPv6 address is not sent (RFC 6874, 1).
        self._host = re.sub(r"%[^]]*]", "]", urlsplit(url).netloc.rpartition("@")[2])
        self.prefix = prefix
        self._reactor = reactor
        connections = Connections(reactor)
        self._agent = Agent(reactor, connectTimeout=REQUEST_TIMEOUT, pool=connections)

    async def read(self) -> Snapshot:
        """Read all keys."""
        body = await self._bounded(self._read_all(b"/v3/kv/range", range_request(self.prefix)))
        return read_snapshot(body)

    async def watch(self, revision: int, received: Callable[[bytes], None], seconds: float) -> None:
        """
        Watch changes from `revision` on: call `received` with the data, return after `seconds`.

        :raises EtcdError: if the watch ends early, or if `received` raises it.
        """
        response = await self._bounded(
            self._request(b"/v3/watch", watch_request(self.prefix, revision))
        )
        try:
            await _delivered(response, received).addTimeout(seconds, self._reactor)
        except TimeoutError:
            return
        raise EtcdError("the watch ended")

    async def _read_all(self, path: bytes, body: bytes) -> bytes:
        response = await self._request(path, body)
        return await _whole_body(response)

    async def _request(self, path: bytes, body: bytes) -> IResponse:
        headers = Headers(
            {
                "Content-Type": ["application/json"],
                "Host": [self._host],
                "User-Agent": ["evproxy"],
            }
        )
        response: IResponse = await self._agent.request(
            b"POST", self._base + path, headers, ShortBody(body)
        )
        if response.code != OK:
            raise EtcdError(refusal(response.code, await _whole_body(response)))
        return response

    async def _bounded(self, work: Any) -> Any:
        """The result of `work`, within `REQUEST_TIMEOUT`.  Every failure raises `EtcdError`."""
        try:
            working = Deferred.fromCoroutine(work)
            return await working.addTimeout(REQUEST_TIMEOUT, self._reactor, _timed_out)
        except (CancelledError, EtcdError):
            raise
        except Exception as error:
            # Connecting, TLS and HTTP raise many exceptions: for all, this member is unusable.
            raise EtcdError(reason_of(error)) from None


def _timed_out(result: object, seconds: float) -> None:
    # A cancelled `Agent` request fails with an error of its own, which says nothing of a timeout.
    raise EtcdError(f"timed out after {seconds:g} s")


@implementer(IBodyProducer)
class ShortBody:
    """A short request body, written at once."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


class _Receiver(Protocol):
    """Passes the body of an answer to `received`, and fires `ended` at the end."""

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received
        self.ended: Deferred[None] = Deferred(self._close)

    def dataReceived(self, data: bytes) -> None:
        if self.ended.called:
            return
        try:
            self._received(data)
        except EtcdError as error:
            self.ended.errback(error)
            self._close(self.ended)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.ended.called:
            return
        if reason.check(ResponseDone):
            self.ended.callback(None)
        else:
            self.ended.errback(EtcdError(reason_of(reason)))

    def _close(self, ended: Deferred[None]) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def _delivered(response: IResponse, received: Callable[[bytes], None]) -> Deferred[None]:
    """Pass the body of `response` to `received`; cancelling closes the connection."""
    receiver = _Receiver(received)
    response.deliverBody(receiver)
    return receiver.ended


async def _whole_body(response: IResponse) -> bytes:
    """The body of `response`, at most `SIZE_LIMIT` bytes."""
    body = bytearray()

    def received(data: bytes) -> None:
        nonlocal body
        body += data
        if len(body) > SIZE_LIMIT:
            raise EtcdError(f"the answer is longer than {SIZE_LIMIT} bytes")

    await _delivered(response, received)
    return bytes(body)
