"""
A tap: sees the TLS records of one client's connection as the network has them, and their keys.
"""

from __future__ import annotations

from typing import Protocol

from evproxy.model import Side
from evproxy.sockets.tls_channel import StreamSocket


class Tap(Protocol):
    """
    Is told what passes on the connection of one client.

    The request with which the client asked for TLS, and evproxy's answer, come first.
    """

    def received(self, data: bytes) -> None:
        """The client sent `data`."""

    def sent(self, data: bytes) -> None:
        """The kernel has taken `data` for the client."""

    def ended(self, side: Side) -> None:
        """The client, or evproxy (`Side.UPSTREAM`), ended the stream of its socket."""

    def was_reset(self) -> None:
        """The client reset its connection."""

    def secret(self, line: bytes) -> None:
        """There are new keys: `line` is one of a key log file (RFC 9850), without its end."""


class TappedSocket:
    """
    The socket of a `BufferedTLSChannel`, which tells a tap what passes.

    :param sock: the socket itself.
    :param tap: is told.
    """

    __slots__ = ("_sock", "_tap")

    def __init__(self, sock: StreamSocket, tap: Tap) -> None:
        self._sock = sock
        self._tap = tap

    @property
    def family(self) -> int:
        """The kind of its addresses."""
        return self._sock.family

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """Set an option."""
        self._sock.setsockopt(level, option, value)

    def recv(self, size: int, /) -> bytes:
        """Receive at most `size` bytes."""
        try:
            data = self._sock.recv(size)
        except ConnectionResetError:
            self._tap.was_reset()
            raise
        if data:
            self._tap.received(data)
        else:
            self._tap.ended(Side.DOWNSTREAM)
        return data

    def send(self, data: bytes, /) -> int:
        """Send of `data` what there is room for; return how many bytes."""
        count = self._sock.send(data)
        self._tap.sent(data[:count])
        return count

    def shutdown(self, how: int, /) -> None:
        """End the stream, which is always evproxy's own."""
        self._sock.shutdown(how)
        self._tap.ended(Side.UPSTREAM)
