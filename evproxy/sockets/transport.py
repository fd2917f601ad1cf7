"""
A Twisted transport on the engine's epoll.

One object has two roles: it is a complete `ITCPTransport` for its protocol until it is joined, and
an end of a socket relay afterwards.  That saves a second object for each side, and registrations
with the reactor that a proxied connection does not need.

It keeps the promises of Twisted's transports, and two more: it delivers what the peer sent before
a reset before it calls ``connectionLost``, and it never takes a reset for an end in order.  A
protocol that has ``peer_reset`` is notified of a reset that comes while the transport is paused.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from socket import SocketType
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProducer,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.engine.loop import CHUNK, HANG_UP, IN, OUT, SocketEngine
from evproxy.engine.options import acknowledge, set_options
from evproxy.relay.end import ABORTED, DONE, LOST, End

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which close(2) resets the connection."""


def socket_address(name: Any) -> IAddress:
    """Return Twisted's form of the address `name` of the socket module."""
    if not isinstance(name, tuple):
        return UNIXAddress(name or None)
    if len(name) == 2:
        return IPv4Address("TCP", *name)
    return IPv6Address("TCP", *name)


@implementer(ITCPTransport, IConsumer, IPushProducer, IHalfCloseableDescriptor, ISystemHandle)
class SocketTransport(End):
    """
    A connected TCP or UNIX socket.

    :param engine: watches the socket.
    :param sock: connected and non-blocking; the transport closes it.
    :param protocol: the protocol of the connection.
    :param peer: the peer's address in the form of the socket module.

    `buffered`: the bytes that were written and are not sent yet; ``None`` if there are none.
    `half`: the half of a session above `protocol`, which is a wrapper; ``None`` if `protocol` is
    the half, or there is no half.  A half with ``closing_here`` is notified when code on its side
    closes the connection.
    """

    __slots__ = (
        "_closing",
        "_keepalive",
        "_peer",
        "_producer",
        "_producer_paused",
        "_protocol",
        "_streaming",
        "_write_ended",
        "buffered",
        "connected",
        "disconnecting",
        "half",
    )

    def __init__(self, engine: SocketEngine, sock: SocketType, protocol: Any, peer: Any) -> None:
        # Without super(), whose look-ups cost as much as the rest of this method.
        End.__init__(self, engine, sock)
        self._protocol: Any = protocol
        self._peer = peer
        self.buffered: bytearray | None = None
        self._producer: Any = None
        self._streaming = self._producer_paused = False
        self._write_ended = False
        self._closing = False
        self._keepalive: bool | None = None
        self.connected = True
        self.disconnecting = False
        self.half: Any = None

    @property
    def unsent(self) -> bool:
        """Whether bytes that were written are not sent yet."""
        return bool(self.buffered)

    def relay_end(self, engine: SocketEngine, half: Any) -> End | None:
        """Return this object as an end for `engine`, if nothing is between it and `half`."""
        return self if self._protocol is half and self.engine is engine else None

    def speaks_to(self, protocol: Any) -> bool:
        """Whether nothing is between the socket and `protocol`."""
        return self._protocol is protocol

    def start(self) -> None:
        """Read from now on, and notify the protocol that the connection is made."""
        self.engine.watch(self.descriptor, self, IN)
        self.mask = IN
        assert self._protocol is not None
        self._protocol.makeConnection(self)

    # Called by the engine.

    def event(self, mask: int) -> None:
        if self.relay is not None:
            End.event(self, mask)
            return
        if mask & OUT:
            self._writable()
        if mask & ~OUT and self.relay is None and not self._closing:
            if self.mask & IN:
                self._readable()
            elif mask & HANG_UP:
                self._hang_up_alone(self.means_reset(mask, self.passed))

    def _hang_up_alone(self, reset: bool) -> None:
        if self.ended or self.disconnecting:
            self._close(LOST if reset else DONE)
            return
        # What the peer sent before is read when reading goes on.
        self.unwatch()
        if reset:
            self.was_reset = True
            peer_reset = getattr(self._protocol, "peer_reset", None)
            if peer_reset is not None:
                peer_reset()

    def event_failed(self) -> None:
        if self.relay is not None:
            super().event_failed()
            return
        receiver = getattr(self.half or self._protocol, "receiver", None)
        if receiver is not None:
            receiver.half_broke()
        self._close(ABORTED)

    def _readable(self) -> None:
        try:
            data = self.channel.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._close(LOST)
            return
        if self.prompt_until >= 0:
            acknowledge(self.socket)
            self.prompt_until = -1
        protocol = self._protocol
        assert protocol is not None
        if data:
            protocol.dataReceived(data)
        elif self.was_reset:
            self._close(LOST)
        else:
            self._stream_over()

    def _stream_over(self) -> None:
        """The peer has ended its stream in order."""
        self.ended = True
        self.set_mask(self.mask & ~IN)
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.readConnectionLost()
        else:
            # The connection ends whole: with a reset, so that its peer does not take what
            # it has received for all of the stream.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._close(DONE)

    def _writable(self) -> None:
        buffered = self.buffered
        if buffered and not self.was_reset:
            try:
                del buffered[: self.channel.send(buffered)]
            except BlockingIOError:
                return
            except OSError:
                self._send_failed()
                return
            if buffered:
                return
        self.buffered = None
        self.set_mask(self.mask & ~OUT)
        if self._producer is not None and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            self._producer.resumeProducing()
        elif self.disconnecting and self._producer is None:
            self._close(DONE)
        elif self._write_ended and not self.passed:
            self._shutdown()

    def _send_failed(self) -> None:
        # What the peer sent before the reset is still to be read; the error comes after it.
        self.was_reset = True
        self.buffered = None
        if self.ended or self.disconnecting:
            self._close(LOST)
        else:
            self.set_mask(self.mask & IN)

    def _shutdown(self) -> None:
        try:
            self.channel.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            self.set_mask(self.mask | OUT)
            return
        except OSError:
            self._send_failed()
            return
        self.passed = True
        protocol = self._protocol
        if protocol is not None and IHalfCloseableProtocol.providedBy(protocol):
            protocol.writeConnectionLost()

    def _close(self, reason: Failure) -> None:
        """Close the socket once the batch is over, and notify the protocol with `reason`."""
        if self._closing:
            return
        self._closing = True
        if not self.unwatched:
            self.engine.forget(self.descriptor)
            self.unwatched = True
        self.engine.after_batch(lambda: self.release(reason))

    # Called by a relay.

    def begin(self) -> None:
        if not self.mask & IN:
            self.set_mask(self.mask | IN)

    def set_late_options(self) -> None:
        if isinstance(self._peer, tuple) and self.connected:
            set_options(self.socket, self.engine.lasting)
            if self._keepalive is not None:
                self.setTcpKeepAlive(self._keepalive)

    def acknowledge(self, moved: int) -> None:
        if isinstance(self._peer, tuple):
            self.prompt_until = moved
            acknowledge(self.socket)

    def release(self, reason: Failure) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is None:
            return
        half, self.half = self.half, None
        self.connected = False
        self._closing = True
        if reason is ABORTED:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.socket.close()
        self.buffered = None
        self.descriptor = -1
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        if self.relay is not None:
            protocol.connectionLost(reason)
            return
        try:
            protocol.connectionLost(reason)
        finally:
            # A subclass or a wrapper may raise an exception before it passes this on, or may
            # not pass it on.
            receiver = getattr(half or protocol, "receiver", None)
            if receiver is not None:
                receiver.connection_lost(reason)

    # ITransport.

    def write(self, data: bytes) -> None:
        """Send `data`; keep what the kernel does not take now."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if not self.connected or self._write_ended or self._closing or self.was_reset or not data:
            return
        if self.other is not None and self.relay is not None:
            # The data goes behind what the other end keeps for this peer.
            if not self.other.passed:
                self.other.received(data)
            return
        if self.buffered is None:
            try:
                sent = self.channel.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._send_failed()
                return
            if sent == len(data):
                return
            self.buffered = bytearray(memoryview(data)[sent:])
            self.set_mask(self.mask | OUT)
        else:
            self.buffered += data
        if self._streaming and self._producer is not None:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send the pieces in order."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Close in order once everything written is sent and no producer is registered."""
        if not self.connected or self.disconnecting:
            return
        if self.relay is not None:
            self.disconnecting = self.relay.closing_here(self)
            return
        self.disconnecting = True
        try:
            self._tell_closing()
        finally:
            self.set_mask(self.mask & ~IN)
            if self.buffered is None and self._producer is None:
                self._close(DONE)

    def _tell_closing(self) -> None:
        half = self.half or self._protocol
        # Ask the type, not the object: a wrapper has every attribute of its transport.
        if hasattr(type(half), "closing_here"):
            half.closing_here(self.ended)
        elif hasattr(self._producer, "sink_closing"):
            self._producer.sink_closing(self.ended)

    def abortConnection(self) -> None:
        """Reset the connection; nothing more is sent."""
        if self.relay is not None:
            self.relay.aborted_here(self)
        elif self.connected:
            self.disconnecting = True
            self._close(ABORTED)

    def loseWriteConnection(self) -> None:
        """End the stream to the peer once everything written is sent."""
        if self.connected and not self._write_ended:
            self._write_ended = True
            if self.buffered is None and not self._closing:
                self._shutdown()

    def getPeer(self) -> Any:
        return socket_address(self._peer)

    def getHost(self) -> Any:
        return socket_address(self.socket.getsockname())

    def getHandle(self) -> SocketType:
        return self.socket

    def fileno(self) -> int:
        return self.socket.fileno()

    def getTcpNoDelay(self) -> bool:
        return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._keepalive = enabled
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    # IConsumer.

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """From now on ask `producer` for more whenever everything written is sent."""
        if self._producer is not None:
            raise RuntimeError(f"producer {self._producer!r} is registered already")
        if not self.connected or self._closing:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            self._producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None
        if self.disconnecting and self.buffered is None and self.connected:
            self._close(DONE)

    def startWriting(self) -> None:
        """Ask the producer for more as soon as something can be written."""
        if not self.connected or self._closing:
            return
        if self.unwatched:
            # The socket hung up: every write fails at once.
            self.engine.after_batch(self._writable)
        else:
            self.set_mask(self.mask | OUT)

    # IPushProducer.

    def pauseProducing(self) -> None:
        """Stop reading."""
        if self.relay is None and not self._closing:
            self.set_mask(self.mask & ~IN)

    def resumeProducing(self) -> None:
        """Read again."""
        if self.relay is None and not (self.ended or self.disconnecting or self._closing):
            self.set_mask(self.mask | IN)

    def stopProducing(self) -> None:
        """Close in order."""
        self.loseConnection()

    # IHalfCloseableDescriptor.

    def readConnectionLost(self, reason: Failure) -> None:
        """Nothing to do: the engine reads."""

    def writeConnectionLost(self, reason: Failure) -> None:
        """Nothing to do: the engine writes."""
