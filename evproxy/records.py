"""
What observers are told of a session: its record at the end, and snapshots before; and of its copy.
"""

from __future__ import annotations

from typing import NamedTuple

from evproxy.model import CloseReason, Phase, TLSFacts


class Waited(NamedTuple):
    """
    A session's wait in the queue of its pool.

    `since` is when the session joined the queue, in seconds on the reactor's clock, and ``None``
    once the session has left it.  `seconds` is how long it has waited, without the time since
    `since`.  `ahead` is how many sessions waited there when this one joined.
    """

    since: float | None
    seconds: float
    ahead: int

    def until(self, now: float) -> float:
        """How many seconds the session has waited at `now`."""
        return self.seconds if self.since is None else self.seconds + now - self.since


class SessionCounts(NamedTuple):
    """
    How many sessions there are at one instant.

    `all`: of the service or factory, and `listener`: of its listener, each with this session.
    `pool`: of its pool, on servers and in the queue, and `server`: on its server; 0 if there is
    none, or if a pool of the user's own does not count.  A session that has ended is no longer
    among the last two, as in HAProxy's log.
    """

    all: int
    listener: int
    pool: int
    server: int


class SessionRecord(NamedTuple):
    """
    The facts about a session that has ended.

    It is a tuple because a session makes one, and a tuple takes half the time of a frozen class.

    `listener` is the name of the listener that accepted the client at `peer`, which is
    ``HOST:PORT``, ``[v6]:PORT``, or the path of a UNIX socket, often empty.
    `upstream` is the server's name, empty if no connect succeeded.
    `attempts` is how many servers the session tried, 0 if there was none to try.
    `reason` is why the session ended.  `error` says why the session got no server, or which
    exception ended it; empty if a connect succeeded and there was no exception.
    `started` is in seconds on the reactor's clock.  In seconds from accept: `connect_time`, to
    the upstream connection including its TLS handshake; `first_byte_time`, to the first byte
    that evproxy passed from the server to the client; `duration`, to the end.  The first two are
    ``None`` if that did not happen.
    `bytes_to_upstream` and `bytes_to_downstream` count the bytes that evproxy passed to the
    kernel for each side.
    `relay` is ``"stream"``, ``"socket"``, or empty if the session never relayed.
    `id` is the number of the session, from 1 and unique among those of its service or factory.
    `via` is the address of the proxy that sent a PROXY header, and `server_name` the name that a
    TLS client asked for, if evproxy ended its TLS or a route looked at it; else they are empty.
    `tls` is what was agreed on where evproxy ended the client's TLS.  `route` is what the
    router noted: the conditions of a declared route, or ``default`` and why.
    `pool` is the name of the pool that was chosen, empty if there was none.  `tried` is the last
    server that evproxy tried in vain, empty if there was none.  `route_time` is in
    seconds from accept to this choice: after the PROXY header, the TLS handshake and the router.
    `waited` is the session's wait in the queue of the pool, ``None`` if there was none.
    `cause` is why the session got no server, as a code: the value of an
    `evproxy.causes.Cause` or of an `evproxy.policy.refusal.Refusal`; empty if it got one and
    no hook raised an exception after that.
    `unique_id` is a name that no other session has, on this machine or another; a server gets the
    same in the PROXY header of version 2.
    `counts` is there if an observer asks for it: see `evproxy.observers.SessionObserver`.
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
    id: int = 0
    via: str = ""
    server_name: str = ""
    route: str = ""
    tls: TLSFacts | None = None
    pool: str = ""
    tried: str = ""
    route_time: float | None = None
    waited: Waited | None = None
    cause: str = ""
    unique_id: str = ""
    counts: SessionCounts | None = None


class SessionStatus(NamedTuple):
    """
    A snapshot of a session that is not over.

    `phase` is where the session is in its life, and `pool` is the name of the pool that was
    chosen for it, empty before.  The other fields are those of `SessionRecord`; `upstream` is
    also the server that evproxy is connecting to, and `duration` goes up to now.
    """

    id: int
    listener: str
    peer: str
    phase: Phase
    pool: str
    upstream: str
    relay: str
    attempts: int
    started: float
    connect_time: float | None
    duration: float
    bytes_to_upstream: int
    bytes_to_downstream: int
    error: str = ""
    first_byte_time: float | None = None
    via: str = ""
    server_name: str = ""
    route: str = ""
    tls: TLSFacts | None = None
    tried: str = ""
    route_time: float | None = None
    waited: Waited | None = None
    cause: str = ""
    unique_id: str = ""
    counts: SessionCounts | None = None


class MirrorRecord(NamedTuple):
    """
    The facts about a copy that has ended: what a mirror has sent to the second pool for a session.

    `session`, `unique_id`, `listener` and `peer` are those of the session, `pool` is its pool, and
    `upstream` its server.  `mirror` is the name of the second pool, and `server` the server of the
    copy, empty if no connect succeeded.
    `outcome`: ``whole`` if this server has got all that the client sent, or else why the copy was
    dropped: see ``docs/mirror.md``.  `error` says more, or is empty.
    `bytes_sent` is how much was written for the server, `bytes_answered` how much came back.
    `answers`: how the answers of both servers compare: ``equal``, ``different``, ``given-up``, or
    empty if they were not compared.  `difference` is the offset of the first byte that differs.
    `duration` is in seconds.
    """

    session: int
    unique_id: str
    listener: str
    peer: str
    pool: str
    upstream: str
    mirror: str
    outcome: str
    error: str
    server: str = ""
    bytes_sent: int = 0
    bytes_answered: int = 0
    answers: str = ""
    difference: int | None = None
    duration: float = 0.0
