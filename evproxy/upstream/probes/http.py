"""
The ``http`` check: one HTTP/1.1 request and its answer on one connection.

Twisted's `Agent` sends the request.  The check does not follow redirects and does not
decompress the body.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from evproxy.model import UpstreamServer
from evproxy.settings import BODY_LIMIT, HealthCheck
from evproxy.upstream.address import host_header
from evproxy.upstream.http import Connections
from evproxy.upstream.probes.attempt import Attempt
from evproxy.upstream.reasons import one_line


class HttpQuestion:
    """
    A server that answers with an expected status, and with the expected text, is healthy.

    An empty `expect_status` accepts every status from 200 to 399.  Without `host`, the
    ``Host`` header is the server's address, or ``localhost`` if the server has no host.
    """

    def __init__(self, reactor: Any, check: HealthCheck) -> None:
        self._reactor = reactor
        self._method = check.method.encode("ascii")
        self._path = check.path.partition("#")[0].encode("ascii")
        self._host = check.host
        self._expect_status = check.expect_status
        self._expect_text = check.expect_text.encode()
        self._connections = Connections(reactor)

    def __call__(
        self, attempt: Attempt, endpoint: IStreamClientEndpoint, server: UpstreamServer
    ) -> Deferred[Any]:
        agent = Agent.usingEndpointFactory(
            self._reactor, _FixedEndpoint(endpoint), pool=self._connections
        )
        host = self._host or host_header(server.endpoint)
        request: Deferred[Any] = agent.request(
            self._method,
            b"http://localhost" + self._path,
            Headers({"Host": [host], "User-Agent": ["evproxy health check"]}),
        )
        return request.addCallbacks(
            self._answered, _not_answered, callbackArgs=(attempt,), errbackArgs=(attempt,)
        )

    def _answered(self, response: IResponse, attempt: Attempt) -> None:
        reason = unexpected_status(response.code, self._expect_status)
        if reason is not None or not self._expect_text:
            attempt.decide(reason)
        else:
            response.deliverBody(_TextSearch(self._expect_text, attempt))


def _not_answered(failure: Failure, attempt: Attempt) -> Failure:
    """Find the reason of an early close: Twisted's parser only closes if a line is too long."""
    error = failure.value
    closed = isinstance(error, ResponseFailed) and all(
        each.check(ConnectionDone) for each in error.reasons
    )
    if closed and attempt.closed_here:
        attempt.decide("a line of the answer is too long")
    return failure


def unexpected_status(status: int, expected: tuple[int, ...]) -> str | None:
    """``None`` if `status` is one of `expected` (if empty: 200 to 399), else the reason."""
    if status in expected or (not expected and 200 <= status < 400):
        return None
    wanted = " or ".join(map(str, expected)) if expected else "200 to 399"
    return f"status {status}, expected {wanted}"


class _TextSearch(Protocol):
    """Looks for `text` in the first `BODY_LIMIT` bytes of a body."""

    def __init__(self, text: bytes, attempt: Attempt) -> None:
        self._text = text
        self._attempt = attempt
        self._received = bytearray()
        attempt.missing = self._missing

    def dataReceived(self, data: bytes) -> None:
        searched = max(0, len(self._received) - len(self._text) + 1)
        self._received += data[: BODY_LIMIT - len(self._received)]
        if self._received.find(self._text, searched) >= 0:
            self._attempt.decide(None)
        elif len(self._received) >= BODY_LIMIT:
            self._attempt.decide(f"{self._missing()} in the first {BODY_LIMIT} bytes")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._attempt.decide(self._missing())

    def _missing(self) -> str:
        return f"the body does not contain {one_line(repr(self._text.decode()))}"


@implementer(IAgentEndpointFactory)
class _FixedEndpoint:
    """Connects to `endpoint`, whatever the URI is."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._endpoint
