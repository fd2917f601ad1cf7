"""
What an end reads from and writes to: a kernel socket as it is, or something on top of one.

The engine's loop copies, and the kernel splices, only between kernel sockets.  Any other
`Channel` is read by its `evproxy.relay.end.End`, which asks it for what is pending.
"""

from __future__ import annotations

from typing import Protocol


class Channel(Protocol):
    """
    A stream of bytes both ways on one kernel socket; nothing in it blocks.

    The descriptor of the socket stays the end's: the engine watches it, and the end closes it.
    Errors are those of the socket: `BlockingIOError` where nothing can be done now, which the
    engine's next event of the same direction may change; any other `OSError` where the
    connection was reset.  A stream that is cut off before its own end counts as reset.
    """

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        """Fill the beginning of `buffer`; how many bytes came, 0 at the end of the stream."""

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """
        How many bytes of `data` were taken.

        What is taken is the kernel's.  After `BlockingIOError` the same bytes come again, and
        perhaps more behind them.
        """

    def shutdown(self, how: int) -> None:
        """End the stream to the peer; `how` is ``SHUT_WR``."""

    def pending(self) -> int:
        """
        How many bytes can be read at once though no event may tell of them.

        Bounded, for all of them are read in one batch; none at the end of the stream.
        """
