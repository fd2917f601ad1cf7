"""
Connections that are closed by code on evproxy's side, not by a peer.
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
    The layer of `transport` that ends its stream: TLS, or the transport beneath every wrapper.

    Every wrapper above that layer passes ``loseConnection`` down to it.  TLS also closes the
    transport beneath it when the peer has ended its stream.
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
    # After `startTLS`, `disconnecting` is an attribute of the transport beneath TLS.
    return not getattr(layer, "TLS", False)


def shutdown_state(layer: TLSMemoryBIOProtocol) -> int:
    """Whether OpenSSL has sent and received close_notify; see ``SSL_get_shutdown(3)``."""
    handle = layer.getHandle()
    return handle.get_shutdown() if handle is not None else 0


class TLSClosing:
    """
    Closes a connection with TLS once its peer has received the close_notify.

    TLS itself would wait for the peer's answer, which is not needed: the session is over.  For a
    connection without TLS, this class does nothing.

    :param clock: calls later.
    :param transport: the transport on which ``loseConnection`` is about to be called; it has no
        producer.
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
