"""
What is known of a session, and the snapshots of it for observers, metrics and operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from evproxy.config.canonical import host_and_port
from evproxy.interfaces import Pool, Server
from evproxy.model import CloseReason, ConnectionInfo, Phase
from evproxy.records import SessionCounts, SessionRecord, SessionStatus, Waited
from evproxy.relay.contract import Relay

Ended = tuple[
    CloseReason, Server | None, int, float | None, float | None, float, int, int, int, float
]
"""
What metrics count of a session that has ended: `SessionRecord` costs more than counting it.

The reason, the server, how many were tried, the times from accept to the connection, to the first
byte and to the end, the bytes to upstream and to downstream, the number of the session, and when it
started.
"""


class EndedSessions(NamedTuple):
    """The facts of several sessions that have ended: each field has one value for each session."""

    reasons: tuple[CloseReason, ...]
    servers: tuple[Server | None, ...]
    attempts: tuple[int, ...]
    connects: tuple[float | None, ...]
    first_bytes: tuple[float | None, ...]
    durations: tuple[float, ...]
    to_upstream: tuple[int, ...]
    to_downstream: tuple[int, ...]
    numbers: tuple[int, ...]
    started: tuple[float, ...]


def together(sessions: Sequence[Ended]) -> EndedSessions:
    """The facts of `sessions`, at least one."""
    return EndedSessions(*zip(*sessions, strict=True))


Totals = tuple[int, int, float | None]
"""The bytes to upstream and to downstream, and when the first byte came from the server."""


class SessionFacts:
    """
    What is known of a session; `evproxy.session.session.Session` changes it.

    Most attributes are those of `SessionRecord`.  `info`: the client's connection.  `pool` and
    `server`: those that were chosen, ``None`` before.  `relay`: what moves the bytes, ``None``
    before and afterwards.  `reason`: why the session ends, ``None`` before.
    """

    __slots__ = (
        "attempts",
        "cause",
        "connect_time",
        "error",
        "id",
        "info",
        "phase",
        "pool",
        "reason",
        "relay",
        "route",
        "route_time",
        "server",
        "started",
        "tried",
        "waited",
    )

    attempts: int
    cause: str
    connect_time: float | None
    error: str
    id: int
    info: ConnectionInfo
    phase: Phase
    pool: Pool | None
    reason: CloseReason | None
    relay: Relay | None
    route: str
    route_time: float | None
    server: Server | None
    started: float
    tried: str
    waited: Waited | None

    @property
    def unique_id(self) -> str:
        """A name for the session that no other session has, on this machine or another."""
        raise NotImplementedError

    @property
    def pool_name(self) -> str:
        """The name of the pool that was chosen for the session, empty before."""
        return "" if self.pool is None else self.pool.name

    @property
    def peer(self) -> str:
        """The client's address: ``HOST:PORT``, ``[v6]:PORT``, or the path of a UNIX socket."""
        info = self.info
        port = info.peer_port
        return host_and_port(info.peer_host, port) if port else info.peer_host

    def totals(self) -> Totals:
        """What the relay has moved so far."""
        return (0, 0, None) if self.relay is None else self.relay.totals()

    def _first_byte_time(self, totals: Totals) -> float | None:
        first_byte = totals[2]
        return None if first_byte is None else first_byte - self.started

    def counted(self, reason: CloseReason, now: float, totals: Totals) -> Ended:
        """What metrics count of the session, which ends at `now`, in seconds of the reactor."""
        return (
            reason,
            self.server,
            self.attempts,
            self.connect_time,
            self._first_byte_time(totals),
            now - self.started,
            totals[0],
            totals[1],
            self.id,
            self.started,
        )

    def record(
        self, reason: CloseReason, now: float, totals: Totals, counts: SessionCounts | None
    ) -> SessionRecord:
        """The record of the session, which ends at `now`, in seconds of the reactor."""
        relay, info, server, started = self.relay, self.info, self.server, self.started
        # Positional arguments: keywords would cost as much as the record itself.
        return SessionRecord(
            info.listener,
            self.peer,
            server.name if server is not None else "",
            relay.name if relay is not None else "",
            self.attempts,
            started,
            self.connect_time,
            now - started,
            totals[0],
            totals[1],
            reason,
            self.error,
            self._first_byte_time(totals),
            self.id,
            info.via,
            info.server_name,
            self.route,
            info.tls,
            self.pool_name,
            self.tried,
            self.route_time,
            self.waited,
            self.cause,
            self.unique_id,
            counts,
        )

    def snapshot(self, now: float, counts: SessionCounts | None) -> SessionStatus:
        """What is known of the session at `now`, in seconds of the reactor."""
        relay, info, server, started = self.relay, self.info, self.server, self.started
        totals = self.totals()
        return SessionStatus(
            self.id,
            info.listener,
            self.peer,
            self.phase,
            self.pool_name,
            server.name if server is not None else "",
            relay.name if relay is not None else "",
            self.attempts,
            started,
            self.connect_time,
            now - started,
            totals[0],
            totals[1],
            self.error,
            self._first_byte_time(totals),
            info.via,
            info.server_name,
            self.route,
            info.tls,
            self.tried,
            self.route_time,
            self.waited,
            self.cause,
            self.unique_id,
            counts,
        )
