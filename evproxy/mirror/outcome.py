"""How a copy ends: whole, or dropped for one reason."""

from __future__ import annotations

import enum


class Outcome(enum.Enum):
    """How a copy ended: the words of metrics, and of `evproxy.records.MirrorRecord`."""

    WHOLE = "whole"
    """The second server has got all that the client sent."""
    FELL_BEHIND = "fell-behind"
    """The copy was more than `buffer` bytes behind its session."""
    NO_ROOM = "no-room"
    """All copies together kept too many bytes."""
    TOO_MANY = "too-many"
    """There were `max_copies` copies already."""
    UNREACHABLE = "unreachable"
    """No server of the second pool was available, or none could be connected to."""
    RESET = "reset"
    """The second server reset the connection, or ended it before it had got all."""
    TOO_LATE = "too-late"
    """The second server did not get all in the time that it had after the end of the session."""
    SERVER_DOWN = "server-down"
    """The second server went down, and its pool resets the sessions of such servers."""
    STOPPED = "stopped"
    """The proxy stopped."""
    ERROR = "error"
    """evproxy or a user's hook raised an exception."""
