"""A `SocketTransport` under test, its protocol, and the peer at the other end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.engine.deadlines import Deadlines
from evproxy.engine.loop import SocketEngine
from evproxy.engine.pipes import Pipes
from evproxy.model import Ending, Side
from evproxy.sockets.transport import SocketTransport
from tests.support.peers import Peer
from tests.support.waiting import Waiting


class Plain(Protocol):
    """A protocol that records its calls; `until` waits for a condition on them."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.told: list[str] = []
        self.lost: Failure | None = None
        self._waiting = Waiting()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._waiting.look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self._waiting.look()

    def peer_reset(self) -> None:
        self.told.append("peer reset")
        self._waiting.look()

    def until(self, true: Callable[[], bool]) -> Deferred[None]:
        """Return a Deferred that fires once `true` holds."""
        return self._waiting.until(true)

    async def end(self) -> type[BaseException] | None:
        """Wait for the end of the connection, and return how it ended."""
        await self.until(lambda: self.lost is not None)
        assert self.lost is not None
        return self.lost.type


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Plain):
    """A protocol that is notified of the ends of both streams."""

    def readConnectionLost(self) -> None:
        self.told.append("read")
        self._waiting.look()

    def writeConnectionLost(self) -> None:
        self.told.append("write")
        self._waiting.look()


@implementer(IPushProducer)
class Producer:
    """A producer that records its calls, and calls a function when it is resumed."""

    def __init__(self, resumed: Callable[[], object] = lambda: None) -> None:
        self.asked: list[str] = []
        self._resumed = resumed

    def pauseProducing(self) -> None:
        self.asked.append("pause")

    def resumeProducing(self) -> None:
        self.asked.append("resume")
        self._resumed()

    def stopProducing(self) -> None:
        self.asked.append("stop")


class Workbench:
    """Makes transports, each with a peer at its other end."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.engine = SocketEngine(reactor, Deadlines(reactor), Pipes(0))
        self._made: list[tuple[SocketTransport, Peer]] = []

    def connect(self, protocol: Plain, host: str = "127.0.0.1") -> tuple[SocketTransport, Peer]:
        """Return a transport for `protocol`, connected to a new peer over TCP."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, 0), family=family) as listening:
            peer = Peer(self.reactor, socket.create_connection(listening.getsockname()[:2]))
            return self.take(*listening.accept(), protocol, peer)

    def take(
        self, sock: socket.socket, name: Any, protocol: Plain, peer: Peer
    ) -> tuple[SocketTransport, Peer]:
        """Return a transport for `protocol` on `sock`."""
        sock.setblocking(False)
        transport = SocketTransport(self.engine, sock, protocol, name)
        self._made.append((transport, peer))
        transport.start()
        return transport, peer

    async def turns(self) -> None:
        """Let the reactor handle all pending events."""
        for _ in range(5):
            await deferLater(self.reactor, 0)

    def end(self) -> None:
        for transport, peer in self._made:
            transport.unregisterProducer()
            transport.abortConnection()
            peer.close()


@pytest.fixture
def workbench(reactor: Any) -> Iterator[Workbench]:
    """Makes transports, and closes them after the test."""
    workbench = Workbench(reactor)
    yield workbench
    workbench.end()


class Listener:
    """A `RelayListener` that counts half-closes and waits for the end."""

    def __init__(self) -> None:
        self.half_closed: list[Side] = []
        self.closed: Deferred[tuple[Side, Ending]] = Deferred()

    def relay_half_closed(self, side: Side) -> None:
        self.half_closed.append(side)

    def relay_closing(self, by: Side, how: Ending) -> None:
        """Do nothing: only the delivery is left."""

    def relay_closed(self, by: Side, how: Ending) -> None:
        self.closed.callback((by, how))
