"""
Programs of Twisted for tests of endpoints: a protocol that records what comes, and one that speaks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support.waiting import Waiting


class Recorder(Protocol):
    """
    A protocol that records what comes.

    `received` are the bytes, `lost` is why the connection is gone, and `ends` counts the ends of
    the peer's stream.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.ends = 0
        self.connected_there: Callable[[], None] = lambda: None
        self.lost: Failure | None = None
        self._waiting = Waiting()

    def until(self, holds: Callable[[], bool]) -> Deferred[None]:
        """Fire once `holds`, which is asked after each event."""
        return self._waiting.until(holds)

    async def read(self, count: int) -> bytes:
        """Return the bytes so far, once there are `count`."""
        await self.until(lambda: len(self.received) >= count)
        return self.received

    async def over(self) -> Failure:
        """Return why the connection is gone, once it is."""
        await self.until(lambda: self.lost is not None)
        assert self.lost is not None
        return self.lost

    def connectionMade(self) -> None:
        self.connected_there()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._waiting.look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self._waiting.look()


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recorder):
    """The same for a protocol that goes on after the end of the peer's stream."""

    def readConnectionLost(self) -> None:
        self.ends += 1
        self._waiting.look()

    def writeConnectionLost(self) -> None:
        """Nothing to do."""


class Program(Factory):
    """
    The factory of a program.

    `protocols` are those that it has made.

    :param protocol: makes them.
    """

    noisy = False

    def __init__(self, protocol: Callable[[], Recorder] = HalfCloseable) -> None:
        self.made = protocol
        self.protocols: list[Recorder] = []
        self.started = 0
        self._waiting = Waiting()

    def doStart(self) -> None:
        self.started += 1

    def doStop(self) -> None:
        self.started -= 1

    def buildProtocol(self, addr: Any) -> Recorder:
        protocol = self.made()
        protocol.connected_there = self._waiting.look
        self.protocols.append(protocol)
        return protocol

    def _is_connected(self, number: int) -> bool:
        return len(self.protocols) > number and bool(self.protocols[number].connected)

    async def client(self, number: int = 0) -> Recorder:
        """Return the protocol of the client with this `number`, once it is there."""
        await self._waiting.until(lambda: self._is_connected(number))
        return self.protocols[number]


@asynccontextmanager
async def listening(
    reactor: Any, keys: str, program: Program, listen: str = r"tcp\:0\:interface=127.0.0.1"
) -> AsyncIterator[Any]:
    """Have `program` listen behind ``evproxy:`` with `keys`; the value is its port."""
    endpoint = serverFromString(reactor, f"evproxy:{listen}{keys}")
    port = await endpoint.listen(program)
    try:
        yield port
    finally:
        for protocol in program.protocols:
            if protocol.lost is None:
                protocol.transport.abortConnection()
                await protocol.over()
        await _stopped(port.stopListening())


async def _stopped(stopping: Awaitable[None] | None) -> None:
    if stopping is not None:
        await stopping
