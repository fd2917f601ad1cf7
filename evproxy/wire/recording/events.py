"""
What a recording holds: the session, and what happened in it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple, Protocol

from attrs import frozen

SIDES = ("downstream", "upstream")
"""The words for the two sides of a session."""


class Kind(enum.Enum):
    """What happened."""

    DATA = "data"
    """`side` sent bytes."""
    END = "end"
    """`side` ended its stream in order."""
    RESET = "reset"
    """`side` reset its connection."""
    CLOSED = "closed"
    """The session is over; `text` is the code of its `CloseReason`, or empty."""
    SECRETS = "secrets"
    """TLS has keys: `data` are lines of a key log file.  Only in recordings as pcapng."""
    STOPPED = "stopped"
    """The recording stops before the session is over; `text` says why."""


class Event(NamedTuple):
    """
    One event of a session.

    `time` is in seconds since the session began to relay.  `side` is ``downstream`` or
    ``upstream``, and empty for `Kind.CLOSED`, `Kind.SECRETS` and `Kind.STOPPED`.
    """

    time: float
    kind: Kind
    side: str = ""
    data: bytes = b""
    text: str = ""


@frozen
class RecordedSession:
    """
    Which session a recording is of.

    `started`: when the session began to relay, in seconds since 1970.  The other fields are those
    of `evproxy.records.SessionRecord`.
    """

    unique_id: str
    id: int
    listener: str
    peer: str
    pool: str
    upstream: str
    started: float


class Encoder(Protocol):
    """Makes the bytes of one recording."""

    def begin(self) -> bytes:
        """Return the beginning of the file."""

    def encode(self, event: Event) -> bytes:
        """Return the bytes of `event`, which follow those of the event before."""

    def mark(self) -> Callable[[], None]:
        """Return what undoes the events from now on: their bytes are not in the file."""
