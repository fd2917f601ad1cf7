"""
Connections that are closed by code between their socket and the half of a session.

A protocol wrapper (``haproxy:`` makes one, and `twisted.protocols.policies` has more), or a
subclass of a half, may call ``loseConnection`` on its transport at any time.  A transport with a
producer waits for the producer before it closes, and the producer is the other direction of the
session.  So the code that registered the producer must be notified of the call.  `hear` does that.

``abortConnection`` needs no notification, because it does not wait.

A subclass of a half may also raise an exception in ``connectionLost``, or not call the method of
the half.  So the transport itself notifies the receiver of the half that the connection is gone.
`SocketTransport` does so anyway, and `hear` does it for Twisted's own transports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from evproxy.relay.closing_here import ending_layer, shutdown_state
from evproxy.relay.contract import Half
from evproxy.relay.delivery import ended_in_order
from evproxy.sockets.transport import SocketTransport


def hear(half: Half) -> None:
    """
    From now on call ``half.closing_here`` when code on the side of `half` closes the connection.

    When the connection is gone, also call ``connection_lost`` of the receiver, after the half.
    """
    transport = half.transport
    if isinstance(transport, SocketTransport) and transport.speaks_to(half):
        # The transport finds its half itself.
        return
    layer = ending_layer(transport)
    if isinstance(layer, SocketTransport):
        layer.half = half
    elif isinstance(layer, Connection | TLSMemoryBIOProtocol):
        # There is no other way to learn of these calls.
        own = vars(layer)
        own["loseConnection"] = _Telling(layer, half, layer.loseConnection)
        own["connectionLost"] = _losing(layer, half)


class _Telling:
    """The ``loseConnection`` of one of Twisted's transports; it first notifies the half."""

    __slots__ = ("_half", "_layer", "_lose")

    def __init__(self, layer: Any, half: Any, lose: Callable[[], None]) -> None:
        self._layer = layer
        self._half = half
        self._lose = lose

    def __call__(self) -> None:
        kept = False
        try:
            kept = self._half.closing_here(_stream_ended(self._layer))
        finally:
            if not kept:
                self._lose()


def _losing(layer: Any, half: Half) -> Callable[[Failure], None]:
    """The ``connectionLost`` of one of Twisted's transports; it also notifies the receiver."""
    lost = layer.connectionLost
    over = False

    def connection_lost(reason: Failure) -> None:
        nonlocal layer, half, lost, over
        if over:
            # `abortConnection` calls this later, and `loseConnection` at once if the stream of the
            # transport has ended.
            return
        over = True
        try:
            lost(reason)
        finally:
            # Leave no cycle.
            own = vars(layer)
            own.pop("loseConnection", None)
            own.pop("connectionLost", None)
            # If the half has already notified its receiver, the receiver is `NOBODY` now.
            half.receiver.connection_lost(reason)
            # Twisted's TLS may keep a failure whose frames lead here.
            del layer, half, lost

    return connection_lost


def _stream_ended(layer: Connection | TLSMemoryBIOProtocol) -> bool:
    """Whether the peer has ended its stream, and all of the stream was read."""
    if isinstance(layer, Connection):
        return not layer.TLS and bool(layer.connected) and ended_in_order(layer)
    return bool(shutdown_state(layer) & SSL.RECEIVED_SHUTDOWN)
