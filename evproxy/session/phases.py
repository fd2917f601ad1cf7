"""
The phases of a session, and which may follow which.
"""

from __future__ import annotations

from evproxy.model import Phase

TRANSITIONS: dict[Phase, tuple[Phase, ...]] = {
    # The session reads the PROXY header, and asks the router for a pool.
    Phase.ACCEPTED: (Phase.INSPECTING,),
    # A pool is chosen; or the client left or is refused, or an exception.
    Phase.INSPECTING: (Phase.CONNECTING, Phase.CLOSING),
    # A server is connected; or the client left, there is no server, an exception.
    Phase.CONNECTING: (Phase.RELAYING, Phase.CLOSING),
    # The ending is decided, but bytes are still to be delivered; or both streams have ended.
    Phase.RELAYING: (Phase.CLOSING, Phase.CLOSED),
    # Both connections are gone.
    Phase.CLOSING: (Phase.CLOSED,),
    Phase.CLOSED: (),
}
"""The phases of a session, each with the phases that may follow."""


def before(phase: Phase) -> tuple[Phase, ...]:
    """Return the phases that `phase` may follow."""
    return tuple(earlier for earlier, later in TRANSITIONS.items() if phase in later)
