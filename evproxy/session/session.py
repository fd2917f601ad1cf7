"""
One session: from an accepted connection to the end of both sides.

Only this module changes a session's phase, and decides how a session ends; `TRANSITIONS` of
`evproxy.session.phases` has the allowed changes.  A `Session` does no I/O of its own: an `Intake`
keeps what the client sends before there is a server, a `Connecting` finds the server, and a relay
moves the bytes.  The session drops the first two once the relay runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.causes import Cause
from evproxy.engine.deadlines import Deadlines
from evproxy.engine.options import LASTING
from evproxy.hub import Hub
from evproxy.interfaces import Pool
from evproxy.model import ConnectionInfo, Ending, Phase, Side, close_reason
from evproxy.records import SessionCounts, SessionStatus
from evproxy.relay.closing_here import TLSClosing, closed_here
from evproxy.relay.contract import Half
from evproxy.relay.pace import NO_PACES
from evproxy.relay.stages import Stage, StagesOfSession, close_stages, stages_of
from evproxy.session.arrival import Arrival, ArrivalContext, ClientHalf
from evproxy.session.connecting import ConnectContext, Connecting, message_of
from evproxy.session.discarding import NOBODY, ClosingHere, Discarding
from evproxy.session.entry import Admitted
from evproxy.session.facts import Ended, SessionFacts
from evproxy.session.inspection import StageMaker
from evproxy.session.intake import Intake
from evproxy.session.opening import Opening
from evproxy.session.phases import before
from evproxy.session.proxy_header import header_for
from evproxy.settings import Mirror, Timeouts
from evproxy.sockets.plane import DataPlane

# Module names, because Python looks up a member in its class at each use.
_INSPECTING, _CONNECTING, _RELAYING = Phase.INSPECTING, Phase.CONNECTING, Phase.RELAYING
_CLOSING, _CLOSED = Phase.CLOSING, Phase.CLOSED

_BEFORE_INSPECTING, _BEFORE_CONNECTING = before(_INSPECTING), before(_CONNECTING)
_BEFORE_RELAYING, _BEFORE_CLOSING, _BEFORE_CLOSED = map(before, (_RELAYING, _CLOSING, _CLOSED))
_UNCONNECTED = (_INSPECTING, _CONNECTING)

_log = Logger()


class Mirroring(Protocol):
    """Copies sessions; an `evproxy.mirror.mirrors.Mirrors`."""

    def stages_of(
        self, mirror: Any, session: Any, connects: ConnectContext, linger: float
    ) -> Sequence[Stage]:
        """Return the stages that copy `session` as `mirror`, of its pool, says."""


class Count(Protocol):
    """A number of sessions."""

    sessions: int


@define
class SessionContext:
    """
    What the sessions of one listener share.

    `clock` gives the time.  `arrival` says what clients are asked before their pool is chosen.
    `connects` is the context of its `Connecting`; `plane` joins the two halves; `ended` is called
    with each session that is over; `hub` calls the observers; `prefix` is the beginning of each
    `unique_id`.  `stages` make the stages of each session, and `mirrors` that of a
    session whose pool has a mirror.  `count` has the number of sessions of the listener, and
    `all_sessions` returns that of the whole service.  `measure`, if there is one, is called with
    what metrics count of a session that is over.

    `first_look`: seconds until the first idle check of a session.  It is not longer than the
    half-close timeout, so a half-close before the first check needs no new deadline.  Most
    sessions have only this one deadline.
    """

    clock: IReactorTime
    arrival: ArrivalContext
    connects: ConnectContext
    plane: DataPlane
    deadlines: Deadlines
    timeouts: Timeouts
    ended: Callable[[Session], None]
    listener: str = ""
    hub: Hub = field(factory=Hub)
    prefix: str = ""
    measure: Callable[[Ended], None] | None = None
    stages: Sequence[StagesOfSession] = ()
    mirrors: Mirroring | None = None
    count: Count = field(kw_only=True)
    all_sessions: Callable[[], int] = field(kw_only=True)
    first_look: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        timeouts = self.timeouts
        self.first_look = min(LASTING, timeouts.half_close, timeouts.idle or LASTING)


class Session(SessionFacts):
    """
    One proxied connection.

    `id`: the number of the session, set by `evproxy.session.live.LiveSessions`.
    `intake`: what the client has sent; ``None`` once the session relays or closes.

    :param context: what the sessions of the listener share.
    :param downstream: the client's half.
    :param info: the address of the client.
    """

    __slots__ = (
        "_arrival",
        "_bucket",
        "_connecting",
        "_context",
        "_deadline_is_idle",
        "_half_closed",
        "admitted",
        "downstream",
        "intake",
        "opening",
        "stages",
    )

    def __init__(
        self, context: SessionContext, downstream: ClientHalf, info: ConnectionInfo
    ) -> None:
        self._context = context
        self.id = 0
        self.route = ""
        self.opening: Opening | None = None
        self.stages: Sequence[StageMaker] = ()
        self.downstream = downstream
        self.info = info
        self.phase = Phase.ACCEPTED
        self.started = context.clock.seconds()
        self.attempts = 0
        self.connect_time = None
        self.error = self.cause = self.tried = ""
        self.route_time = None
        self.waited = None
        self.reason = None
        self.relay = None
        self.server = None
        self.pool = None
        self._arrival: Arrival | None = None
        self._connecting: Connecting | None = None
        self.admitted: Admitted | None = None
        self._bucket = 0
        self._half_closed = False
        self._deadline_is_idle = False
        self.intake: Intake | None = Intake(self, downstream, context.clock)

    @property
    def unique_id(self) -> str:
        """A name for the session that no other session has, on this machine or another."""
        return f"{self._context.prefix}-{self.id}"

    @property
    def kept(self) -> int:
        """How many bytes evproxy itself keeps of the session, as far as is known."""
        if self.relay is not None:
            return self.relay.kept
        return 0 if self.intake is None else self.intake.kept

    # Before relaying: the pool, and the server.

    def start(self) -> None:
        """The client is connected: choose a pool, once the client has said who it is."""
        assert self.phase in _BEFORE_INSPECTING
        self.phase = _INSPECTING
        arrival = self._context.arrival
        if arrival.asks_nothing:
            assert arrival.pool is not None
            self.routed(arrival.pool)
        else:
            assert self.intake is not None
            self._arrival = Arrival(arrival, self, self.intake)
            self._arrival.begin()

    def wait_for_client(self) -> None:
        """From now on, the handshake timeout counts from when the client connected."""
        if not self._bucket:
            timeout = self._context.timeouts.handshake
            self._set_deadline(self._context.clock.seconds(), self.started, timeout)

    def routed(self, pool: Pool) -> None:
        """`pool` is chosen: connect to one of its servers."""
        self._arrival = None
        if self._bucket:
            # The choice had to wait, for the client or the router.
            self.route_time = self._context.clock.seconds() - self.started
            self._drop_deadline()
        else:
            self.route_time = 0.0
        assert self.phase in _BEFORE_CONNECTING
        self.phase = _CONNECTING
        self.pool = pool
        if closed_here(self.downstream.transport):
            self.client_closing()
            return
        self._connecting = connecting = Connecting(self._context.connects, self, pool)
        try:
            connecting.find()
        except Exception:
            self.broke()

    def connected(self, upstream: Half, now: float, seconds: float) -> None:
        """`server` is connected at `now`, `seconds` after the attempt began: relay."""
        context, server, pool, intake = self._context, self.server, self.pool, self.intake
        assert server is not None
        assert pool is not None
        assert intake is not None
        self.connect_time = now - self.started
        self.error = self.cause = ""
        connecting, self._connecting, self.intake = self._connecting, None, None
        assert connecting is not None
        assert self.phase in _BEFORE_RELAYING
        self.phase = _RELAYING
        stages: list[Stage] = []
        try:
            pool.connected(server, seconds)
            self._bucket = context.deadlines.add(self, now, context.first_look)
            received = b"".join(intake.chunks) if intake.chunks else b""
            for make in self.stages:
                stages.append(make(pool, server.name))
            # A user's own pool may have no stages: `isinstance` would cost some microseconds.
            of_pool, mirror = getattr(pool, "stages", ()), getattr(pool, "mirror", None)
            if context.stages or of_pool or mirror is not None:
                self._add_stages(stages, now, of_pool, mirror)
            if server.proxy_version and self.opening is None and not connecting.header_sent:
                if stages:
                    # The header is none of the client's bytes.
                    upstream.transport.write(self.preamble())
                else:
                    received = self.preamble() + received
            paces = NO_PACES if self.admitted is None else self.admitted.paces()
            self.relay = context.plane.join(
                self.downstream, upstream, received, intake.ended, self, stages, paces
            )
        except Exception:
            # There is no relay that would close the stages.
            upstream.receiver = NOBODY
            upstream.transport.abortConnection()
            close_stages(stages)
            self.broke()
            return
        if context.hub.connects and self.phase is not _CLOSED:
            context.hub.session_connected(self.status(now))

    def _add_stages(
        self,
        stages: list[Stage],
        now: float,
        of_pool: Sequence[StagesOfSession],
        mirror: Mirror | None,
    ) -> None:
        """
        Add the stages of the listener, the mirror, and those of the pool, which has the server.

        If a maker raises, `stages` has those that are made already.
        """
        context = self._context
        status = self.status(now)
        for make in context.stages:
            stages += stages_of(make, status)
        # A pool of a user's own may have an attribute of that name.
        if isinstance(mirror, Mirror) and context.mirrors is not None:
            linger = context.timeouts.half_close
            stages += context.mirrors.stages_of(mirror, self, context.connects, linger)
        for make in of_pool:
            stages += stages_of(make, status)

    def preamble(self) -> bytes:
        """What `server` gets before everything else: a PROXY header, or nothing."""
        version = 0 if self.server is None else self.server.proxy_version
        if not version:
            return b""
        host = self.downstream.transport.getHost()
        return header_for(version, self.info, host, self.unique_id)

    def client_closing(self) -> None:
        """Code on the client's side closes its connection, within the half-close timeout."""
        if self.phase in _UNCONNECTED:
            self._stop_connecting(Side.DOWNSTREAM, Ending.LEFT)
            tls_closing = TLSClosing(self._context.clock, self.downstream.transport)
            self.downstream.receiver = ClosingHere(self._closed, tls_closing)
            now = self._context.clock.seconds()
            self._set_deadline(now, now, self._context.timeouts.half_close)

    def client_gone(self) -> None:
        """The client's connection is gone."""
        self.downstream.receiver = NOBODY
        if self.phase in _UNCONNECTED:
            self._stop_connecting(Side.DOWNSTREAM, Ending.LEFT)
        self._closed()

    def close_unconnected(self, by: Side, how: Ending) -> None:
        """Reset the client, if it has no server yet."""
        if self.phase in _UNCONNECTED:
            self._stop_connecting(by, how)
            self.downstream.receiver = Discarding(self._closed)
            self.downstream.transport.abortConnection()

    def _stop_connecting(self, by: Side, how: Ending) -> None:
        self.reason = close_reason(by, how, self.phase)
        assert self.phase in _BEFORE_CLOSING
        self.phase = _CLOSING
        self.intake = None
        self._drop_deadline()
        connecting, self._connecting = self._connecting, None
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.stop()
        if connecting is not None:
            connecting.stop()

    # Relaying.

    def relay_half_closed(self, side: Side) -> None:
        """One side ended its stream; from now on the half-close timeout applies."""
        self._half_closed = True
        if self._deadline_is_idle:
            now = self._context.clock.seconds()
            self._drop_deadline()
            self._set_deadline(now, now, self._context.timeouts.half_close)

    def relay_closing(self, by: Side, how: Ending) -> None:
        """The relay knows how the session ends; it still delivers the queued bytes."""
        self.reason = close_reason(by, how, self.phase)
        assert self.phase in _BEFORE_CLOSING
        self.phase = _CLOSING
        self.relay_half_closed(by)

    def relay_closed(self, by: Side, how: Ending) -> None:
        """Both connections are gone; `how` differs from the decision if delivery was cut short."""
        if self.reason is None or self.reason.how is not how:
            self.reason = close_reason(by, how, self.phase)
        self._closed()

    def deadline_reached(self, now: float) -> None:
        """Check whether a byte has moved within the timeout that applies now."""
        self._bucket = 0
        relay = self.relay
        if relay is None:
            if self.phase is _CLOSING:
                self.downstream.transport.abortConnection()
            elif self.phase is _INSPECTING:
                self._too_slow()
            return
        timeouts = self._context.timeouts
        active = relay.idle_since(now)
        limit = timeouts.half_close if self._half_closed else timeouts.idle
        if limit <= 0 or now - active < limit:
            self._set_deadline(now, active, limit)
            self._deadline_is_idle = not self._half_closed
        else:
            self.end(Side.PROXY, Ending.HALF_CLOSE if self._half_closed else Ending.IDLE)

    def _too_slow(self) -> None:
        """The handshake timeout is over before a pool is chosen."""
        wanted = "" if self._arrival is None else self._arrival.wanted
        within = f"within {self._context.timeouts.handshake:g} s"
        if wanted:
            self.error = f"the client did not send {wanted} {within}"
            self.cause = Cause.HANDSHAKE_TIMEOUT.value
            self.close_unconnected(Side.PROXY, Ending.HANDSHAKE)
        else:
            self.error = f"the router chose no pool {within}"
            self.cause = Cause.ROUTER_TIMEOUT.value
            self.close_unconnected(Side.PROXY, Ending.REFUSED)

    def _set_deadline(self, now: float, active: float, limit: float) -> None:
        if limit > 0:
            self._bucket = self._context.deadlines.add(self, now, active + limit - now)

    def _drop_deadline(self) -> None:
        if self._bucket:
            self._context.deadlines.discard(self, self._bucket)
            self._bucket = 0

    # The end.

    def end(self, by: Side, how: Ending) -> None:
        """Reset both sides now, for the reason that `how` says."""
        if self.relay is not None:
            if self.phase is not _CLOSED:
                self.relay.reset(by, how)
        elif self.phase is _CLOSING:
            # A wrapper is closing the client's connection, but the client has not read everything.
            self.downstream.transport.abortConnection()
        else:
            self.close_unconnected(by, how)

    def broke(self) -> None:
        """Log the current exception and end this session; call this in an ``except`` clause."""
        self.failed(Failure())

    def failed(self, failure: Failure) -> None:
        """Log the exception in `failure`: this session ends, and no other notices."""
        _log.failure("A session of {peer} broke", failure, peer=self.info.peer_host)
        self.error = message_of(failure)
        self.cause = Cause.EXCEPTION.value
        if self.phase is _RELAYING and self.relay is None:
            # The exception came from the join, so there is no relay to close the session.
            self.reason = close_reason(Side.PROXY, Ending.ERROR, _CONNECTING)
            assert self.phase in _BEFORE_CLOSING
            self.phase = _CLOSING
            self.downstream.receiver = Discarding(self._closed)
            self.downstream.transport.abortConnection()
        else:
            self.end(Side.PROXY, Ending.ERROR)

    def _closed(self) -> None:
        if self.phase is _CLOSED:
            return
        if self._bucket:
            # The same as `_drop_deadline`, without a call for each session.
            self._context.deadlines.discard(self, self._bucket)
            self._bucket = 0
        assert self.phase in _BEFORE_CLOSED
        self.phase = _CLOSED
        assert self.reason is not None
        server, pool, context = self.server, self.pool, self._context
        hub, totals = context.hub, self.totals()
        try:
            if server is not None and pool is not None:
                pool.ended(server, self, self.reason, totals[1] > 0)
        except Exception:
            _log.failure(
                "The pool broke at the end of a session of {peer}", peer=self.info.peer_host
            )
        if self.admitted is not None:
            self.admitted.leave()
        measure = context.measure
        if measure is not None or hub.ends:
            now = context.clock.seconds()
            if measure is not None:
                measure(self.counted(self.reason, now, totals))
            if hub.ends:
                hub.session_ended(self.record(self.reason, now, totals, self._counts()))
        context.count.sessions -= 1
        context.ended(self)
        # The halves may outlive the session, and must not keep it alive.
        self.downstream.receiver = NOBODY
        self.relay = None

    def status(self, now: float) -> SessionStatus:
        """Return a snapshot of the session at `now`, in seconds on the reactor's clock."""
        return self.snapshot(now, self._counts())

    def _counts(self) -> SessionCounts | None:
        """How many sessions there are, if an observer asks for that."""
        context = self._context
        if not context.hub.counts:
            return None
        pool, server = self.pool, self.server
        of_pool = of_server = 0
        # The pool may be a user's own.
        with _log.failuresHandled("A pool could not count its sessions"):
            # A `CountingPool` or not: `isinstance` would cost some microseconds.
            of_pool = getattr(pool, "load", 0)
            of_server = server.sessions if server is not None else 0
        return SessionCounts(context.all_sessions(), context.count.sessions, of_pool, of_server)
