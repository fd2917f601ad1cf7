"""
Keeps the bytes of a client before its session relays, and notices when the client leaves.

An `Intake` is the first receiver of the client's half.  It keeps a bounded number of bytes.  The
session passes these bytes on once there is a server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from evproxy.model import Ending, Side
from evproxy.relay.contract import Half
from evproxy.relay.finished_client import FinishedClient

EARLY_BYTES = 64 * 1024
"""How many bytes of a client are kept before its session relays; then evproxy stops reading."""


class Unconnected(Protocol):
    """The session of an intake, as the intake sees it."""

    def close_unconnected(self, by: Side, how: Ending) -> None:
        """Reset the client, which has no server yet."""

    def client_closing(self) -> None:
        """Code between the client's socket and its half closes the connection, in order."""

    def client_gone(self) -> None:
        """The client's connection is gone."""


class Intake:
    """
    The bytes of one client from before its session relays.

    `chunks`: the bytes, ``None`` if there are none yet.  `ended`: the client has ended its stream.
    `over`: no more bytes will come.
    `looker`: called with each piece of bytes, and with no bytes once `over` is set.  If it raises,
    the session ends.

    :param session: is notified when the client leaves.
    :param downstream: the client's half.
    :param clock: the timers.
    """

    __slots__ = ("_clock", "_downstream", "_session", "_size", "chunks", "ended", "looker", "over")

    def __init__(self, session: Unconnected, downstream: Half, clock: IReactorTime) -> None:
        self._session = session
        self._downstream = downstream
        self._clock = clock
        self._size = 0
        self.chunks: list[bytes] | None = None
        self.ended = self.over = False
        self.looker: Callable[[bytes], None] | None = None
        downstream.receiver = self

    def received(self, data: bytes) -> None:
        """Keep `data`; at `EARLY_BYTES`, stop reading from the client."""
        if self.chunks is None:
            self.chunks = []
        self.chunks.append(data)
        self._size += len(data)
        if self._size >= EARLY_BYTES:
            self._downstream.transport.pauseProducing()
        if self.looker is not None:
            self.looker(data)

    @property
    def kept(self) -> int:
        """How many bytes are kept."""
        return self._size

    def take(self, size: int) -> None:
        """Drop the first `size` bytes, which were for evproxy itself; read on if there is room."""
        rest = b"".join(self.chunks or ())[size:]
        self.chunks = [rest] if rest else None
        was_full, self._size = self._size >= EARLY_BYTES, len(rest)
        if was_full and self._size < EARLY_BYTES:
            self._downstream.transport.resumeProducing()

    def answer(self, data: bytes) -> None:
        """Send `data` to the client."""
        self._downstream.transport.write(data)

    def take_all(self) -> bytes:
        """Take away all bytes that are kept."""
        taken = b"".join(self.chunks or ())
        self.take(len(taken))
        return taken

    def stream_ended(self) -> None:
        """The client ended its stream; the session passes on the end after the kept bytes."""
        self.ended = self.over = True
        if self.chunks is None:
            # A client that sent nothing expects nothing, and counts as gone (as in HAProxy).
            self._session.close_unconnected(Side.DOWNSTREAM, Ending.LEFT)
        elif self.looker is not None:
            self.looker(b"")

    def peer_reset(self) -> None:
        """The client reset its connection while its transport was paused."""
        self._session.close_unconnected(Side.DOWNSTREAM, Ending.LEFT)

    def closing_here(self, ended: bool) -> bool:
        """Code on the client's side closes the connection."""
        if not ended:
            self._session.client_closing()
        return False

    def half_broke(self) -> None:
        """The client's half raised an exception, which is logged."""
        self._session.close_unconnected(Side.PROXY, Ending.ERROR)

    def connection_lost(self, reason: Failure) -> None:
        """The client's connection is gone."""
        if self.chunks and reason.check(ConnectionDone):
            # The session passes on the end after the connect, like the bytes before the end.
            self.ended, self.over = False, True
            self._downstream.transport = FinishedClient(self._clock, self._downstream)
            if self.looker is not None:
                self.looker(b"")
        else:
            self._session.client_gone()
