"""
Connections that code on their own side closes, and not a peer.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IReactorTime
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol

from evproxy.relay.delivery import Delivery, innermost


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
    layer = ending_layer(transport)
    if not getattr(layer, "disconnecting", False) or getattr(layer, "ended", False):
        return False
    # With `startTLS`, what says `disconnecting` is beneath TLS.
    return not getattr(layer, "TLS", False)


def shutdown_state(layer: TLSMemoryBIOProtocol) -> int:
    """What OpenSSL has sent and received of close_notify; see ``SSL_get_shutdown(3)``."""
    handle = layer.getHandle()
    return handle.get_shutdown() if handle is not None else 0


class TLSClosing:
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
        """The connection is lost."""
        if self._delivery is not None:
            self._delivery.cancel()
            self._delivery = None

    def _delivered(self) -> None:
        self._delivery = None
        # Before the handshake is over, TLS still keeps what was written.
        if shutdown_state(self._layer) & SSL.SENT_SHUTDOWN:
            innermost(self._layer).loseConnection()
