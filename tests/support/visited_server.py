"""A loopback server that records its connections, and the verdict of a check on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from evproxy.model import UpstreamServer
from evproxy.settings import HealthCheck
from evproxy.upstream.address import client_endpoint
from evproxy.upstream.probes.probe import probe_for
from tests.support.waiting import Waiting


async def checked(reactor: Any, address: str, check: HealthCheck) -> str | None:
    """Return the verdict of one check of the server at `address`."""
    result: Deferred[Any] = Deferred()
    probe = probe_for(reactor, check, partial(client_endpoint, reactor))
    probe.check(UpstreamServer(address), result.callback)
    assert not result.called, "done came before the one who asked could cancel"
    reason: str | None = await result
    return reason


@define
class Visits(Factory):
    """A factory that sends `greeting`, and records how each connection went."""

    greeting: bytes = b""
    answer: bytes = b""
    then_close: bool = False
    received: bytes = b""
    ends: list[Failure] = field(factory=list)
    made: int = 0
    _waiting: Waiting = field(factory=Waiting)
    noisy = False

    def buildProtocol(self, addr: object) -> Protocol:
        self.made += 1
        return Visit(self)

    async def ended(self) -> Failure:
        """Wait for the end of the first connection, and return how it ended."""
        await self._waiting.until(lambda: bool(self.ends))
        return self.ends[0]

    async def connected(self) -> None:
        """Wait for the first connection."""
        await self._waiting.until(lambda: self.made > 0)

    def note(self) -> None:
        """Notify the waiting callers."""
        self._waiting.look()


class Visit(Protocol):
    def __init__(self, visits: Visits) -> None:
        self.visits = visits

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.visits.greeting)
        self.visits.note()

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.visits.received += data
        self.transport.write(self.visits.answer)
        if self.visits.then_close:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.visits.ends.append(reason)
        self.visits.note()


Listen = Callable[[IProtocolFactory], str]


@contextmanager
def listening(reactor: Any) -> Iterator[Listen]:
    """Listen with a factory on a loopback port; the value is the address.  Stop at the end."""
    ports: list[IListeningPort] = []

    def listen(factory: IProtocolFactory) -> str:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        ports.append(port)
        return f"127.0.0.1:{port.getHost().port}"

    yield listen
    for port in ports:
        port.stopListening()
