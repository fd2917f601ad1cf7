"""Why a client is refused: the words of logs and metrics."""

from __future__ import annotations

import enum


class Refusal(enum.Enum):
    """The reason for which a client gets no session."""

    DENIED = "denied"
    """The deny list has the client's address."""
    NOT_ALLOWED = "not-allowed"
    """There is an allow list, and it lacks the client's address."""
    LISTENER_SESSIONS = "listener-sessions"
    """The listener has as many sessions as it may have."""
    LISTENER_RATE = "listener-rate"
    """Sessions start faster than the listener may start them."""
    CLIENT_SESSIONS = "client-sessions"
    """The client has as many sessions as one client may have."""
    CLIENT_RATE = "client-rate"
    """The client starts sessions faster than one client may."""

    __hash__ = object.__hash__
    """A fast hash: refusals are counted by reason, and each member is a singleton."""
