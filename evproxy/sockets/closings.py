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
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol

from evproxy.relay.closing_here import ending_layer, shutdown_state
from evproxy.relay.contract import Half
from evproxy.relay.delivery import ended_in_order
from evproxy.sockets.transport import SocketTransport


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
    """The connection of `half` is lost: leave no cycle."""
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
    return bool(shutdown_state(layer) & SSL.RECEIVED_SHUTDOWN)
