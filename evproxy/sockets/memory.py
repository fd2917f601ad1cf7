"""
A connection inside the process: two transports, each of which reads what the other one writes.

The two behave as the ends of a TCP connection do for Twisted: bytes, ends and resets come in later
turns of the reactor, in order; a stream can end alone; a reset discards what was not read.  A
producer is paused while `ROOM` bytes wait to be read.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger()

ROOM = 64 * 1024
"""When so many bytes in one direction wait to be read, their producer is paused."""


def connected_pair(
    reactor: IReactorTime, host: Any, peer: Any
) -> tuple[MemoryTransport, MemoryTransport]:
    """
    Make the two ends of a connection; each needs `MemoryTransport.start`.

    :param reactor: calls later.
    :param host, peer: the addresses of the first end; those of the second one are swapped.
    """
    first, second = MemoryTransport(reactor, host, peer), MemoryTransport(reactor, peer, host)
    first.other, second.other = second, first
    return first, second


@implementer(ITCPTransport, IHalfCloseableDescriptor, IConsumer, IPushProducer)
class MemoryTransport:
    """
    One end of a connection inside the process.

    `disconnecting`: the end closes once the other end has read everything.

    :param reactor: calls later.
    :param host, peer: what `getHost` and `getPeer` return.
    """

    def __init__(self, reactor: IReactorTime, host: Any, peer: Any) -> None:
        # Nothing once both ends are closed: leave no cycle.
        self.other: Any = None
        self.disconnecting = False
        self.connected = False
        self._reactor = reactor
        self._host = host
        self._peer = peer
        self._protocol: Any = None
        self._turn: IDelayedCall | None = None
        self._unread: list[bytes] = []
        self._size = 0
        self._producer: Any = None
        self._streaming = self._paused = False
        self._reads = True
        self._read_ended = self._write_ends = self._write_ended = False
        self._broken: Failure | None = None

    def start(self, protocol: Any) -> None:
        """Connect `protocol`; an exception of its ``connectionMade`` resets the connection."""
        self._protocol = protocol
        self.connected = True
        try:
            protocol.makeConnection(self)
        except Exception:
            _log.failure("A protocol broke when it was connected")
            self.abortConnection()
        self._wake()

    # What the protocol calls.

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        if not data or not self.connected or self._write_ends or self._broken is not None:
            return
        if self.other._is_gone:
            self._break(ConnectionLost())
            return
        self._unread.append(bytes(data))
        self._size += len(data)
        if self._size >= ROOM and self._streaming and not self._paused:
            self._paused = True
            self._producer.pauseProducing()
        self.other._wake()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._wake()

    def abortConnection(self) -> None:
        if self.connected and self._broken is None:
            self._discard()
            self._break(ConnectionAborted())
            self.other._break(ConnectionLost())

    def loseWriteConnection(self) -> None:
        if self.connected:
            self._write_ends = True
            self._wake()
            self.other._wake()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer!r}, because producer {self._producer!r} "
                "was never unregistered."
            )
        if not self.connected:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._paused = producer, bool(streaming), False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer = None
        self._streaming = self._paused = False
        self._wake()

    def startWriting(self) -> None:
        """Ask a pull producer for more once everything is read."""
        self._wake()

    def pauseProducing(self) -> None:
        self._reads = False

    def resumeProducing(self) -> None:
        self._reads = True
        self._wake()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getHost(self) -> Any:
        return self._host

    def getPeer(self) -> Any:
        return self._peer

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing to do: nothing is delayed."""

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing to do: the other end cannot vanish."""

    def readConnectionLost(self, reason: Failure) -> None:
        """The stream of the other end has ended."""
        self._read_ended = True
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.readConnectionLost()
        else:
            self._lose(reason)

    def writeConnectionLost(self, reason: Failure) -> None:
        """The own stream has ended, and is read."""
        self._write_ended = True
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.writeConnectionLost()

    # The turns.

    @property
    def _is_gone(self) -> bool:
        return self._protocol is None and self._read_ended

    def _wake(self) -> None:
        if self._turn is None and self.connected:
            self._turn = self._reactor.callLater(0, self._act)

    def _break(self, error: Exception) -> None:
        if not self._is_gone and self._broken is None:
            self._broken = Failure(error)
            self._discard()
            self._wake()

    def _discard(self) -> None:
        self._unread.clear()
        self._size = 0

    def _act(self) -> None:
        """Do what one turn of the reactor can see of a socket."""
        self._turn = None
        try:
            if self._broken is not None:
                self._lose(self._broken)
                return
            self._read()
            if self.connected:
                self._written()
        except Exception:
            _log.failure("A protocol broke")
            self.abortConnection()

    def _read(self) -> None:
        source = self.other
        if self._reads and source._unread:
            data = b"".join(source._unread)
            source._discard()
            source._wake()
            self._protocol.dataReceived(data)
        if not self.connected or not self._reads or source._unread or self._read_ended:
            return
        if self._broken is None and source._ends_now:
            self.readConnectionLost(Failure(ConnectionDone()))

    @property
    def _ends_now(self) -> bool:
        """Whether nothing follows what is unread."""
        return self._write_ends or self._is_gone

    def _written(self) -> None:
        """If everything is read: go on with what waits for that."""
        if self._unread:
            return
        if self._producer is not None and (self._paused or not self._streaming):
            self._paused = False
            self._producer.resumeProducing()
        if self._unread or not self.connected:
            return
        if self._write_ends and not self._write_ended:
            self.writeConnectionLost(Failure(ConnectionDone()))
        if self.connected and self.disconnecting and self._producer is None:
            self._lose(Failure(ConnectionDone()))

    def _lose(self, reason: Failure) -> None:
        if not self.connected:
            return
        self.connected = False
        self._read_ended = True
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        producer, self._producer = self._producer, None
        protocol, self._protocol = self._protocol, None
        other = self.other
        # Nobody reads it any more.
        other._discard()
        other._wake()
        if other._is_gone:
            self.other = other.other = None
        try:
            if producer is not None:
                producer.stopProducing()
        finally:
            protocol.connectionLost(reason)
