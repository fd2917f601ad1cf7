"""Receivers that discard: for connections that are being closed, and for halves without session."""

from __future__ import annotations

from collections.abc import Callable

from twisted.python.failure import Failure

from evproxy.relay.closing_here import TLSClosing


class Discarding:
    """
    Discards bytes from a peer whose connection is being closed.

    :param lost: called when the connection is gone.
    """

    __slots__ = ("_lost",)

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost

    def received(self, data: bytes) -> None:
        """Discard `data`."""

    def stream_ended(self) -> None:
        """Do nothing: the connection is being closed already."""

    def peer_reset(self) -> None:
        """Do nothing: the connection is being closed already."""

    def closing_here(self, ended: bool) -> bool:
        """Do nothing: the connection is being closed already."""
        return False

    def half_broke(self) -> None:
        """The connection is being closed already."""

    def connection_lost(self, reason: Failure) -> None:
        self._lost()


class ClosingHere(Discarding):
    """
    Discards bytes while code on the client's side closes the connection in order.

    :param tls_closing: cancelled when the connection is gone.
    """

    __slots__ = ("_tls_closing",)

    def __init__(self, lost: Callable[[], None], tls_closing: TLSClosing) -> None:
        super().__init__(lost)
        self._tls_closing = tls_closing

    def connection_lost(self, reason: Failure) -> None:
        self._tls_closing.cancel()
        super().connection_lost(reason)


def _nothing() -> None:
    """Do nothing."""


NOBODY = Discarding(_nothing)
"""The receiver of a half that has no session yet, or no longer."""
