"""
The bytes that the kernel still holds for a peer, and waiting until the peer has them.

A reset discards what the kernel has not delivered yet.  If delivery matters, the reset waits:
first until the transport's own buffer is empty, then until the socket's send queue is.  The
caller sets the timeout.
"""

from __future__ import annotations

import array
import fcntl
import select
import socket
import termios
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

FIRST_LOOK = 0.005
SLOWEST_LOOK = 0.25
"""Seconds between two looks at a send queue: first `FIRST_LOOK`, then doubled each time."""


def unsent(descriptor: int) -> int:
    """
    Return how many bytes the kernel holds that the peer's kernel has not taken (SIOCOUTQ of
    tcp(7)).

    0 if the descriptor is closed or is not a socket.
    """
    count = array.array("i", [0])
    try:
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, count)
    except (OSError, ValueError):
        return 0
    return count[0]


def is_reset(descriptor: int) -> bool:
    """
    Whether the connection is reset, so that its peer will never take what is unsent.

    False if there is no connection any more, or no descriptor (-1).
    """
    if descriptor < 0:
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(mask & select.POLLERR for _, mask in poll.poll(0))


def ended_in_order(transport: Any) -> bool:
    """
    Whether the stream of `transport` has ended in order, when Twisted says that it has ended.

    Twisted's epoll and poll reactors say so after a reset too, if the transport waits to write
    and is read again in the turn in which the reset comes.
    """
    if not isinstance(transport, Connection):
        return True
    try:
        return not transport.getHandle().recv(1, socket.MSG_PEEK)
    except OSError:
        return False


def innermost(transport: Any) -> Any:
    """The transport beneath every protocol wrapper (TLS is one) of `transport`."""
    while isinstance(transport, ProtocolWrapper) and transport.transport is not None:
        transport = transport.transport
    return transport


def descriptor_of(transport: Any) -> int:
    """The descriptor beneath `transport`, or -1 if there is none."""
    try:
        return int(innermost(transport).fileno())
    except (AttributeError, OSError):
        return -1


class KernelDelivery:
    """
    Waits until a socket's peer has taken everything that was sent, or never will take it.

    The kernel has no event for this, so a timer looks at the send queue, at growing intervals.

    :param clock: calls later.
    :param descriptor: the descriptor of the socket.
    :param done: called once, after the constructor has returned; not called after `cancel`.
    """

    __slots__ = ("_clock", "_descriptor", "_done", "_pause", "_timer")

    def __init__(self, clock: IReactorTime, descriptor: int, done: Callable[[], None]) -> None:
        self._clock = clock
        self._descriptor = descriptor
        self._done = done
        self._pause = FIRST_LOOK
        self._timer: IDelayedCall | None = clock.callLater(0, self._look)

    def cancel(self) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if unsent(self._descriptor) and not is_reset(self._descriptor):
            self._timer = self._clock.callLater(self._pause, self._look)
            self._pause = min(SLOWEST_LOOK, self._pause * 2)
        else:
            self._done()


@implementer(IPullProducer)
class Delivery:
    """
    Waits until the peer has everything that was written to a Twisted transport.

    The transport must have no producer.

    :param clock: calls later.
    :param transport: the transport.
    :param done: called once, after the constructor has returned; not called after `cancel`.
    """

    def __init__(self, clock: IReactorTime, transport: Any, done: Callable[[], None]) -> None:
        self._clock = clock
        self._done = done
        self._transport = innermost(transport)
        self._registered = False
        self._in_kernel: KernelDelivery | None = None
        # A wrapper may hold small writes back until the reactor's next turn.
        self._timer: IDelayedCall | None = clock.callLater(0, self._wait_for_buffer)

    def cancel(self) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._in_kernel is not None:
            self._in_kernel.cancel()
        if self._registered:
            self._registered = False
            self._transport.unregisterProducer()

    def _wait_for_buffer(self) -> None:
        self._timer = None
        start_writing = getattr(self._transport, "startWriting", None)
        if start_writing is None:
            self._buffer_empty()
        else:
            # The transport asks a pull producer for more whenever its buffer is empty: once at
            # the registration, and again after the next write, which `startWriting` causes even
            # if there is nothing to write.
            self._transport.registerProducer(self, False)
            self._registered = True
            start_writing()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty, unless this is the call at the registration."""
        if self._registered:
            self._registered = False
            self._transport.unregisterProducer()
            self._buffer_empty()

    def stopProducing(self) -> None:
        """The connection is lost; the transport notifies its protocol."""
        self._registered = False

    def _buffer_empty(self) -> None:
        self._in_kernel = KernelDelivery(self._clock, descriptor_of(self._transport), self._done)


class EndDelivery(Delivery):
    """
    Waits in the same way, and ends the stream behind what was written.

    If the stream ended only with the close, bytes that the peer still sends would spoil that end:
    closing a socket with unread bytes resets the connection.

    :param transport: a transport that can end its stream without closing.
    """

    def _buffer_empty(self) -> None:
        self._transport.loseWriteConnection()
        # Twisted's own transports end the stream in a later turn, when they may be closed already.
        write = getattr(self._transport, "doWrite", None)
        if write is None or write() is None:
            super()._buffer_empty()
        else:
            self._done()
