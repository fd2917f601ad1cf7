"""
The checks on a plain connection: ``tcp``, and those that run a `Dialogue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from evproxy.model import UpstreamServer
from evproxy.upstream.probes.attempt import Attempt, abort
from evproxy.upstream.probes.dialogue import Dialogue, Exchange


class _ConnectOnly(Protocol):
    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def connectionMade(self) -> None:
        transport = self.transport
        assert transport is not None
        # A server of TLS 1.3 that is reset at once takes its own handshake for a failed one.
        in_order = ISSLTransport.providedBy(transport)
        self._attempt.decide(None, None if in_order else lambda: abort(transport))


def ask_tcp(
    attempt: Attempt, endpoint: IStreamClientEndpoint, server: UpstreamServer
) -> Deferred[Any]:
    """
    The ``tcp`` check: a server that accepts the connection is healthy.

    The check then resets the connection, as HAProxy does (``tcp-check connect`` without
    ``linger``).  So the server has nothing to wait for, and neither side has a TIME_WAIT entry
    for each check.  A connection with TLS ends in order, with a close_notify.
    """
    return endpoint.connect(_factory(_ConnectOnly(attempt)))


class _DialogueProtocol(Protocol):
    def __init__(self, attempt: Attempt, dialogue: Dialogue) -> None:
        self._attempt = attempt
        self._dialogue = dialogue

    def connectionMade(self) -> None:
        self._attempt.missing = self._dialogue.missing
        self._send(self._dialogue.begin())

    def dataReceived(self, data: bytes) -> None:
        if self._dialogue.outcome is None:
            self._send(self._dialogue.receive(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(type(connectionDone.value)):
            self._dialogue.end()
            self._report()

    def _send(self, data: bytes) -> None:
        if data:
            assert self.transport is not None
            self.transport.write(data)
        self._report()

    def _report(self) -> None:
        outcome = self._dialogue.outcome
        if outcome is not None:
            self._attempt.decide(outcome.reason)


class Conversation:
    """A server that gives the expected answers is healthy.  Then the connection is closed."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = exchanges

    def __call__(
        self, attempt: Attempt, endpoint: IStreamClientEndpoint, server: UpstreamServer
    ) -> Deferred[Any]:
        return endpoint.connect(_factory(_DialogueProtocol(attempt, Dialogue(self._exchanges))))


def _factory(protocol: Protocol) -> Factory[Protocol]:
    factory: Factory[Protocol] = Factory.forProtocol(lambda: protocol)
    factory.noisy = False
    return factory
