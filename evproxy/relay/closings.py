"""
Connections that are closed by code between their socket and the half of a session.

A protocol wrapper (``haproxy:`` makes one, and `twisted.protocols.policies` has more), or a
subclass of a half, may call ``loseConnection`` on its transport at any time.  Transports wait
for a registered producer before they close, and the producer is the other direction of the
session: so whoever has registered it must hear of the call.  `hear` arranges for that.

There is no such need for ``abortConnection``, which waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol

from evproxy.interfaces import Half
from evproxy.relay.queues import Delivery, ended_in_order, innermost
from evproxy.relay.transport import SocketTransport


def ending_layer(transport: Any) -> Any:
    """
    The part of `transport` that ends its stream: TLS, or what is beneath every wrapper.

    Every wrapper above it passes ``loseConnection`` down to it.  What is beneath TLS is closed
    by TLS too, when the peer has ended its stream.
    """
    while (
        isinstance(transport, ProtocolWrapper)
        and not isinstance(transport, TLSMemoryBIOProtocol)
        and transport.transport is not None
    ):
        transport = transport.transport
    return transport


def closed_here(transport: Any) -> bool:
    """Whether ``loseConnection`` was called on `transport` before its peer ended the stream."""
    layer = transport if isinstance(transport, SocketTransport) else ending_layer(transport)
    if not getattr(layer, "disconnecting", False) or getattr(layer, "ended", False):
        return False
    # With `startTLS`, what says `disconnecting` is beneath TLS.
    return not getattr(layer, "TLS", False)


def hear(half: Half) -> None:
    """From now on call ``half.closing_here`` when code on its side closes its connection."""
    transport = half.transport
    if isinstance(transport, SocketTransport) and transport.speaks_to(half):
        # It finds its half itself.
        return
    layer = ending_layer(transport)
    if isinstance(layer, SocketTransport):
        layer.half = half
    elif isinstance(layer, Connection | TLSMemoryBIOProtocol):
        # There is no other way to learn of the call.
        vars(layer)["loseConnection"] = _Telling(layer, half, layer.loseConnection)


def hear_no_more(half: Half) -> None:
    """The connection of `half` is gone: leave no cycle."""
    transport = half.transport
    if isinstance(transport, SocketTransport):
        return
    layer = ending_layer(transport)
    if isinstance(layer, Connection | TLSMemoryBIOProtocol):
        vars(layer).pop("loseConnection", None)


class _Telling:
    """The ``loseConnection`` of one of Twisted's transports, which tells the half before."""

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


def _stream_ended(layer: Connection | TLSMemoryBIOProtocol) -> bool:
    """Whether the peer has ended its stream, and all of it was read."""
    if isinstance(layer, Connection):
        return not layer.TLS and bool(layer.connected) and ended_in_order(layer)
    return bool(_shutdown_state(layer) & SSL.RECEIVED_SHUTDOWN)


def _shutdown_state(layer: TLSMemoryBIOProtocol) -> int:
    handle = layer.getHandle()
    return handle.get_shutdown() if handle is not None else 0


class Farewell:
    """
    Closes a connection with TLS once its peer has the close_notify.

    TLS itself would wait for the peer's answer, in which nobody is interested any more: a
    session that its own side closes is over.  Nothing is done for a connection without TLS.

    :param clock: calls later.
    :param transport: ``loseConnection`` is about to be called on it; no producer is registered.
    """

    __slots__ = ("_delivery", "_layer")

    def __init__(self, clock: IReactorTime, transport: Any) -> None:
        self._delivery: Delivery | None = None
        self._layer = ending_layer(transport)
        if isinstance(self._layer, TLSMemoryBIOProtocol):
            self._delivery = Delivery(clock, self._layer, self._delivered)

    def cancel(self) -> None:
        """The connection is gone."""
        if self._delivery is not None:
            self._delivery.cancel()
            self._delivery = None

    def _delivered(self) -> None:
        self._delivery = None
        # Before the handshake is over, TLS still keeps what was written.
        if _shutdown_state(self._layer) & SSL.SENT_SHUTDOWN:
            innermost(self._layer).loseConnection()
