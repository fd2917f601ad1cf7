"""
What an end reads from and writes to: a kernel socket, or something on top of one.

The engine's loop copies, and the kernel splices, only between kernel sockets.  Any other
`Channel` is read by its `evproxy.relay.end.End`, which asks the channel for pending bytes.
"""

from __future__ import annotations

from typing import Protocol


class Channel(Protocol):
    """
    A stream of bytes in both directions on one kernel socket; no method blocks.

    The end keeps the descriptor of the socket: the engine watches the descriptor, and the end
    closes it.  The methods raise the errors of a socket: `BlockingIOError` if nothing can be done
    before the engine's next event for this direction, and any other `OSError` if the connection
    was reset.  A stream that is cut off before its own end counts as reset.
    """

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        """Read into `buffer`; return how many bytes came, 0 at the end of the stream."""

    def recv(self, most: int) -> bytes:
        """Return at most `most` bytes, none at the end of the stream."""

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """
        Send `data`; return how many bytes of it were taken.

        The kernel has the bytes that were taken.  After `BlockingIOError`, the caller sends the
        same bytes again, and perhaps more behind them.
        """

    def shutdown(self, how: int) -> None:
        """
        End the stream to the peer; `how` is ``SHUT_WR``.

        After `BlockingIOError`, the caller calls it again.
        """

    def pending(self) -> int:
        """
        Return how many bytes can be read now, even if no event will report them.

        The number is bounded, because all of them are read in one batch.  At the end of the
        stream it is 0.
        """
