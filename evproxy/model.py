"""
The values that evproxy speaks in.  Frozen, comparable, without behaviour that
touches the outside: no I/O, no reactor, no clock.

The words are those of ``docs/architecture.md``: a *session* is one proxied
connection between a *downstream* peer (the client) and an *upstream* peer (the
server).
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import NamedTuple

from attrs import field, frozen

from evproxy.config.addresses import server_name
from evproxy.config.declare import setting
from evproxy.config.descriptions import ClientDescription
from evproxy.config.rules import Flag, Whole


class _Told(enum.Enum):
    """Something that is told of each session: its members hash as what they are, single."""

    __hash__ = object.__hash__


class Phase(_Told):
    """Where a session is in its life.  `evproxy.session.session` alone moves it on."""

    ACCEPTED = "accepted"
    INSPECTING = "inspecting"
    CONNECTING = "connecting"
    RELAYING = "relaying"
    CLOSING = "closing"
    CLOSED = "closed"


class Side(_Told):
    """Who did something: one of the two peers, or evproxy itself."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    PROXY = "proxy"


class Ending(_Told):
    """How a session came to its end."""

    FINISHED = "finished"
    """Both streams ended in order; every byte was passed on."""
    RESET = "reset"
    """A peer reset its connection, it broke, or code on that side (a wrapper) closed it."""
    LEFT = "left"
    """The client went away before an upstream server was connected."""
    UNREACHABLE = "unreachable"
    """No upstream server could be connected."""
    IDLE = "idle"
    """No byte moved for the idle timeout."""
    HALF_CLOSE = "half-close"
    """One stream had ended and no byte moved on the other for the half-close timeout."""
    DRAIN = "drain"
    """The session still ran when the drain deadline passed."""
    SERVER_DOWN = "server-down"
    """The upstream server was marked down and its pool resets such sessions."""
    ERROR = "error"
    """An exception in evproxy or in a user's hook."""


@frozen(slots=True)
class CloseReason:
    """
    Why a session ended.  Every session has exactly one.

    `by` says who ended it, `how` in which way, and `phase` where the session was then.
    """

    by: Side
    how: Ending
    phase: Phase

    def __str__(self) -> str:
        return f"{self.by.value} {self.how.value} while {self.phase.value}"


@lru_cache(maxsize=256)
def close_reason(by: Side, how: Ending, phase: Phase) -> CloseReason:
    """The shared `CloseReason` of these three: sessions end often, reasons are few."""
    return CloseReason(by, how, phase)


@frozen(slots=True)
class ConnectionInfo:
    """
    What is known of a downstream connection when its upstream server is chosen.

    `peer_host` and `peer_port` are the client's address, as `canonical_address` has it (for a
    UNIX socket the path, escaped, often empty, and 0); `listener` is the name of the listener
    that accepted it.
    """

    peer_host: str
    peer_port: int
    listener: str = ""


@frozen(slots=True)
class UpstreamServer:
    """
    One address that sessions may be connected to, as configured or discovered.

    `name` is what logs and metrics call it, which the endpoint decides: see `server_name`.
    """

    endpoint: str = setting(
        ClientDescription(),
        "Where to connect: a host and a port, or any Twisted client endpoint description "
        "(`tcp:…`, `unix:…`, `tls:…`, any plugin's).",
        # Whoever makes the dialer says more of what is wrong with it.
        checked=False,
    )
    weight: int = setting(
        Whole(0, 256),
        "Its share of the sessions, relative to the other servers. 0: no new sessions.",
        default=1,
    )
    backup: bool = setting(
        Flag(), "Whether it is used only while no other server can be.", default=False
    )
    max_sessions: int = setting(
        Whole(0, 1_000_000_000), "The most sessions on it at once. 0: no bound.", default=0
    )
    priority: int = setting(
        Whole(0, 65535),
        "Its tier: servers of a higher number are used only while none of a lower one can be, as "
        "in DNS SRV.",
        default=0,
    )
    name: str = field(init=False, eq=False, repr=False)

    @name.default
    def _name(self) -> str:
        return server_name(self.endpoint)


def upstream_server(given: str | UpstreamServer) -> UpstreamServer:
    """`given`, or the server whose endpoint it is."""
    return UpstreamServer(given) if isinstance(given, str) else given


class SessionRecord(NamedTuple):
    """
    Everything that is worth telling of a session that has ended.

    A tuple, which is made in half the time of a frozen class: one is made for each session.

    `listener` is the name of the listener that accepted the client at `peer`, which is
    ``HOST:PORT``, ``[v6]:PORT``, or the path of a UNIX socket, often empty.  `attempts` is
    how many servers were tried, 0 if there was none to try.  `reason` is why the session
    ended.  `error` says what kept the session from a server, or what broke in it; empty once
    a server took the session and nothing broke.
    `started` is seconds on the reactor's clock.  Seconds from accept are `connect_time`, to the
    upstream connection, its TLS handshake included; `first_byte_time`, to the first byte that
    came from the server and went on to the client; and `duration`, to the end.  The first two
    are ``None`` if there was none.
    `bytes_to_upstream` and `bytes_to_downstream` count what was handed to the kernel
    for each side.  `upstream` is the server's name, empty if none was connected.
    `relay` is ``"stream"``, ``"socket"``, or empty if nothing was relayed.
    """

    listener: str
    peer: str
    upstream: str
    relay: str
    attempts: int
    started: float
    connect_time: float | None
    duration: float
    bytes_to_upstream: int
    bytes_to_downstream: int
    reason: CloseReason
    error: str = ""
    first_byte_time: float | None = None
