"""
What passed through a proxy under test, as its clients saw it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from evproxy.model import CloseReason, Side
from evproxy.records import SessionRecord, SessionStatus
from evproxy.relay.stages import PassThrough, Stage

KEPT = 1024 * 1024
"""The most bytes of each stream of a session that are kept; the first ones."""

MOST_SESSIONS = 1000
"""The most sessions that are kept; the last ones."""


class SeenSession:
    """
    One session of a proxy under test.

    `sent` has the bytes that the client sent, before any fault, and `received` those that were
    passed on to the client, after all faults: the first 1 MiB of each.  `sent_count` and
    `received_count` count all bytes.  `client_ended` and `server_ended`: the client has ended its
    stream, or the client was passed the end of the server's.  `reason` is the `CloseReason`, once
    the session is over, else ``None``.  `status` is a snapshot from when it began to relay.
    """

    def __init__(self, status: SessionStatus) -> None:
        self.status = status
        self._sent, self._received = bytearray(), bytearray()
        self.sent_count = self.received_count = 0
        self.client_ended = self.server_ended = False
        self.reason: CloseReason | None = None

    @property
    def sent(self) -> bytes:
        return bytes(self._sent)

    @property
    def received(self) -> bytes:
        return bytes(self._received)

    @property
    def over(self) -> bool:
        """Whether the session is over."""
        return self.reason is not None

    def add_sent(self, data: bytes) -> None:
        """The client sent `data`."""
        self.sent_count += len(data)
        self._sent += data[: KEPT - len(self._sent)]

    def add_received(self, data: bytes) -> None:
        """`data` is passed on to the client."""
        self.received_count += len(data)
        self._received += data[: KEPT - len(self._received)]

    def __repr__(self) -> str:
        state = "runs" if self.reason is None else str(self.reason)
        return (
            f"<session {self.status.id}: {state}, sent {self.sent_count} bytes,"
            f" received {self.received_count}>"
        )


class _Watching(PassThrough):
    """The stage that keeps what passes; `happened` is called after each event."""

    def __init__(self, seen: SeenSession, happened: Callable[[], None]) -> None:
        self._seen = seen
        self._happened = happened

    def upload(self, data: bytes) -> None:
        self._seen.add_sent(data)
        super().upload(data)
        self._happened()

    def download(self, data: bytes) -> None:
        self._seen.add_received(data)
        super().download(data)
        self._happened()

    def ended(self, side: Side) -> None:
        if side is Side.DOWNSTREAM:
            self._seen.client_ended = True
        else:
            self._seen.server_ended = True
        super().ended(side)
        self._happened()


class Seen:
    """
    The sessions of one proxy, oldest first; an `evproxy.SessionObserver`, and one of its `stages`.

    `running`: the numbers of those that have not ended.

    :param happened: called after each event.
    """

    def __init__(self, happened: Callable[[], None]) -> None:
        self.sessions: deque[SeenSession] = deque(maxlen=MOST_SESSIONS)
        self.count = 0
        self.running: set[int] = set()
        self._happened = happened

    def __call__(self, status: SessionStatus) -> Sequence[Stage]:
        seen = SeenSession(status)
        self.sessions.append(seen)
        self.count += 1
        self.running.add(status.id)
        self._happened()
        return (_Watching(seen, self._happened),)

    def session_ended(self, record: SessionRecord) -> None:
        for seen in self.sessions:
            if seen.status.id == record.id:
                seen.reason = record.reason
        self.running.discard(record.id)
        self._happened()
