"""
One session: from an accepted connection to the end of both sides.

Only this module changes a session's phase, and decides how a session ends.  `TRANSITIONS` has the
phases and the allowed changes.  A `Session` does no I/O of its own: an `Intake` keeps what the
client sends before there is a server, a `Connecting` finds the server, and a relay moves the bytes.
The session drops the first two once the relay runs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.config.canonical import host_and_port
from evproxy.engine.deadlines import Deadlines
from evproxy.engine.options import LASTING
from evproxy.errors import EvproxyError
from evproxy.hub import Hub
from evproxy.interfaces import Pool, Router, Server
from evproxy.model import (
    CloseReason,
    ConnectionInfo,
    Ending,
    Phase,
    SessionRecord,
    SessionStatus,
    Side,
    close_reason,
)
from evproxy.policy.refusal import Refusal
from evproxy.relay.closing_here import TLSClosing, closed_here
from evproxy.relay.contract import Half, Relay
from evproxy.relay.pace import NO_PACES, Paces
from evproxy.relay.stages import Stage
from evproxy.session.connecting import ConnectContext, Connecting, message_of
from evproxy.session.discarding import NOBODY, ClosingHere, Discarding
from evproxy.session.entry import Admitted, Entry
from evproxy.session.inspection import Inspection
from evproxy.session.intake import Intake
from evproxy.session.opening import Opening
from evproxy.session.proxy_header import HeaderReader, behind, header_for
from evproxy.settings import Timeouts
from evproxy.sockets.plane import DataPlane
from evproxy.sockets.tls_channel import TLSFault
from evproxy.sockets.tls_server import ServerTLS
from evproxy.sockets.transport import SocketTransport
from evproxy.wire.proxy_protocol import ProxyHeader

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


# Module names, because Python looks up a member in its class at each use.
_INSPECTING, _CONNECTING, _RELAYING = Phase.INSPECTING, Phase.CONNECTING, Phase.RELAYING
_CLOSING, _CLOSED = Phase.CLOSING, Phase.CLOSED

_BEFORE_INSPECTING, _BEFORE_CONNECTING = before(_INSPECTING), before(_CONNECTING)
_BEFORE_RELAYING, _BEFORE_CLOSING, _BEFORE_CLOSED = map(before, (_RELAYING, _CLOSING, _CLOSED))
_UNCONNECTED = (_INSPECTING, _CONNECTING)

_log = Logger()


@define
class SessionContext:
    """
    What the sessions of one listener share.

    `clock` gives the time.  `pool` is the pool of each session, unless `router` chooses it.
    `is_proxy` says whether the client with an address must send a PROXY header.  `entry` decides
    who gets a session; ``None``: everyone.  `tls` begins TLS with clients; ``None``: evproxy ends
    none; `tls_by_router`: the router says when.  `connects` is the context of its `Connecting`;
    `plane` joins the two halves; `ended` is called with each session that is over; `hub` calls the
    observers; `prefix` is the beginning of each `unique_id`.

    `first_look`: seconds until the first idle check of a session.  It is not longer than the
    half-close timeout, so a half-close before the first check needs no new deadline.  Most
    sessions have only this one deadline.
    """

    clock: IReactorTime
    pool: Pool | None
    router: Router | None
    connects: ConnectContext
    plane: DataPlane
    deadlines: Deadlines
    timeouts: Timeouts
    ended: Callable[[Session], None]
    listener: str = ""
    is_proxy: Callable[[str, int], bool] | None = None
    tls: ServerTLS | None = None
    tls_by_router: bool = False
    entry: Entry | None = None
    hub: Hub = field(factory=Hub)
    prefix: str = ""
    first_look: float = field(init=False)

    @property
    def asks_nothing(self) -> bool:
        """Whether every client gets a session of `pool` at once."""
        return (
            self.router is None
            and self.entry is None
            and self.is_proxy is None
            and self.tls is None
        )

    def __attrs_post_init__(self) -> None:
        timeouts = self.timeouts
        self.first_look = min(LASTING, timeouts.half_close, timeouts.idle or LASTING)


class Session:
    """
    One proxied connection.

    `id`: the number of the session, set by `evproxy.session.live.LiveSessions`.
    `intake`: what the client has sent; ``None`` once the session relays or closes.

    :param context: what the sessions of the listener share.
    :param downstream: the client's half.
    :param info: the address of the client.
    """

    __slots__ = (
        "_admitted",
        "_bucket",
        "_connecting",
        "_context",
        "_deadline_is_idle",
        "_half_closed",
        "_inspection",
        "_pool",
        "_routing",
        "_stages",
        "attempts",
        "connect_time",
        "downstream",
        "error",
        "id",
        "info",
        "intake",
        "opening",
        "phase",
        "reason",
        "relay",
        "route",
        "server",
        "started",
    )

    def __init__(self, context: SessionContext, downstream: Half, info: ConnectionInfo) -> None:
        self._context = context
        self.id = 0
        self.route = ""
        self.opening: Opening | None = None
        self._stages: Sequence[Callable[[Pool, str], Stage]] = ()
        self.downstream = downstream
        self.info = info
        self.phase = Phase.ACCEPTED
        self.started = context.clock.seconds()
        self.attempts = 0
        self.connect_time: float | None = None
        self.error = ""
        self.reason: CloseReason | None = None
        self.relay: Relay | None = None
        self.server: Server | None = None
        self._pool: Pool | None = None
        self._routing: Deferred[Pool | None] | None = None
        self._inspection: Inspection | None = None
        self._connecting: Connecting | None = None
        self._admitted: Admitted | None = None
        self._bucket = 0
        self._half_closed = False
        self._deadline_is_idle = False
        self.intake: Intake | None = Intake(self, downstream, context.clock)

    @property
    def unique_id(self) -> str:
        """A name for the session that no other session has, on this machine or another."""
        return f"{self._context.prefix}-{self.id}"

    # Before relaying: the pool, and the server.

    def start(self) -> None:
        """The client is connected: read its PROXY header, if it must send one; choose a pool."""
        assert self.phase in _BEFORE_INSPECTING
        self.phase = _INSPECTING
        context = self._context
        if context.asks_nothing:
            # The common case, without calls that each session would pay for.
            self._routed(context.pool)
            return
        info, is_proxy = self.info, context.is_proxy
        if is_proxy is not None and is_proxy(info.peer_host, info.peer_port):
            self._wait_for_client()
            reader = HeaderReader()
            self._inspect().look(reader, "its PROXY header", self._header_read, self._malformed)
        else:
            self._enter()

    def _enter(self) -> None:
        """The client is known: it may come in, or not."""
        entry = self._context.entry
        if entry is not None:
            admitted = entry.admit(self.info.peer_host)
            if isinstance(admitted, Refusal):
                self._refuse(f"the client is refused: {admitted.value}")
                return
            self._admitted = admitted
        tls = self._context.tls
        if tls is not None and not self._context.tls_by_router:
            self._begin_tls(tls, self._choose_pool)
        else:
            self._choose_pool()

    def _inspect(self) -> Inspection:
        if self._inspection is None:
            assert self.intake is not None
            self._inspection = Inspection(self.intake, self.info)
        return self._inspection

    def _header_read(self, found: tuple[ProxyHeader, int]) -> None:
        header, size = found
        assert self.intake is not None
        self.intake.take(size)
        self.info = self._inspect().info = behind(header, self.info)
        self._enter()

    def _begin_tls_by_router(self, tls: ServerTLS) -> Deferred[None]:
        begun: Deferred[None] = Deferred()
        self._begin_tls(tls, partial(begun.callback, None))
        return begun

    def _begin_tls(self, tls: ServerTLS, then: Callable[[], None]) -> None:
        """Shake hands with the client, and call `then`; end the session if that fails."""
        assert self.intake is not None
        self._wait_for_client()
        transport, received = self.downstream.transport, self.intake.take_all()
        if isinstance(transport, SocketTransport) and transport.speaks_to(self.downstream):
            tls.begin(transport, received, partial(self._tls_begun, then))
        else:
            self._refuse("there is no TLS on this transport", Ending.HANDSHAKE)

    def _tls_begun(self, then: Callable[[], None], error: OSError | None) -> None:
        tls = self._context.tls
        if self.phase is not _INSPECTING or tls is None:
            return
        transport = self.downstream.transport
        if error is None:
            facts = tls.facts(transport)
            self.info = evolve(self.info, tls=facts, server_name=facts.server_name)
            if self._inspection is not None:
                self._inspection.info = self.info
            then()
        else:
            self.error = f"the TLS handshake failed: {tls.reason(transport, error)}"
            if isinstance(error, TLSFault):
                self.close_unconnected(Side.PROXY, Ending.HANDSHAKE)
            else:
                self.close_unconnected(Side.DOWNSTREAM, Ending.LEFT)

    def _malformed(self, error: EvproxyError) -> None:
        self._refuse(str(error))

    def _wait_for_client(self) -> None:
        """From now on, the handshake timeout counts from when the client connected."""
        if not self._bucket:
            timeout = self._context.timeouts.handshake
            self._set_deadline(self._context.clock.seconds(), self.started, timeout)

    def _choose_pool(self) -> None:
        router = self._context.router
        if router is None:
            self._routed(self._context.pool)
            return
        client, tls = self._inspect(), self._context.tls
        if tls is not None and self._context.tls_by_router:
            client.begin_tls = partial(self._begin_tls_by_router, tls)
        try:
            pool = router.route(client)
            if isinstance(pool, Coroutine):
                pool = Deferred.fromCoroutine(pool)
        except Exception:
            self._not_routed(Failure())
            return
        if isinstance(pool, Deferred):
            self._routing = pool
            self._wait_for_client()
            pool.addCallbacks(self._routed, self._not_routed)
        else:
            self._routed(pool)

    def _routed(self, pool: Pool | None) -> None:
        self._routing = None
        if self.phase is not _INSPECTING:
            return
        if pool is None:
            self._refuse("the router chose no pool")
            return
        if self._bucket:
            self._drop_deadline()
        if self._inspection is not None:
            self._inspected()
        assert self.phase in _BEFORE_CONNECTING
        self.phase = _CONNECTING
        self._pool = pool
        if closed_here(self.downstream.transport):
            self.client_closing()
            return
        self._connecting = connecting = Connecting(self._context.connects, self, pool)
        try:
            connecting.find()
        except Exception:
            self.broke()

    def _inspected(self) -> None:
        """Keep what was found out of the client, and look no more."""
        inspection, self._inspection = self._inspection, None
        if inspection is not None:
            inspection.stop()
            self.info, self.route = inspection.info, inspection.noted
            self.opening, self._stages = inspection.opening, inspection.stages

    def _not_routed(self, reason: Failure) -> None:
        self._routing = None
        if self.phase is not _INSPECTING:
            return
        if reason.check(EvproxyError):
            self._refuse(message_of(reason))
        else:
            self._broke(reason)

    def _refuse(self, why: str, how: Ending = Ending.REFUSED) -> None:
        self.error = why
        self.close_unconnected(Side.PROXY, how)

    def connected(self, upstream: Half, now: float, seconds: float) -> None:
        """`server` is connected at `now`, `seconds` after the attempt began: relay."""
        context, server, pool, intake = self._context, self.server, self._pool, self.intake
        assert server is not None
        assert pool is not None
        assert intake is not None
        self.connect_time = now - self.started
        self.error = ""
        self._connecting = self.intake = None
        assert self.phase in _BEFORE_RELAYING
        self.phase = _RELAYING
        try:
            pool.connected(server, seconds)
            self._bucket = context.deadlines.add(self, now, context.first_look)
            received = b"".join(intake.chunks) if intake.chunks else b""
            if server.proxy_version and self.opening is None:
                received = self.preamble() + received
            stages = [make(pool, server.name) for make in self._stages] if self._stages else ()
            paces = NO_PACES if self._admitted is None else self._paces()
            self.relay = context.plane.join(
                self.downstream, upstream, received, intake.ended, self, stages, paces
            )
        except Exception:
            upstream.transport.abortConnection()
            self.broke()

    def _paces(self) -> Paces:
        entry, admitted = self._context.entry, self._admitted
        assert entry is not None
        assert admitted is not None
        return entry.paces(admitted)

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
        routing, self._routing = self._routing, None
        self._inspected()
        if connecting is not None:
            connecting.stop()
        if routing is not None:
            peer = self.info.peer_host
            with _log.failuresHandled("Could not stop choosing a pool for {peer}", peer=peer):
                routing.cancel()

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
        wanted = "" if self._inspection is None else self._inspection.wanted
        if not wanted and self._context.tls is not None and self.info.tls is None:
            wanted = "all of its TLS handshake"
        within = f"within {self._context.timeouts.handshake:g} s"
        if wanted:
            self._refuse(f"the client did not send {wanted} {within}", Ending.HANDSHAKE)
        else:
            self._refuse(f"the router chose no pool {within}")

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
        self._broke(Failure())

    def _broke(self, failure: Failure) -> None:
        _log.failure("A session of {peer} broke", failure, peer=self.info.peer_host)
        self.error = message_of(failure)
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
        server, pool, context = self.server, self._pool, self._context
        try:
            if server is not None and pool is not None:
                answered = self.relay is not None and self.relay.bytes_to_downstream > 0
                pool.ended(server, self, self.reason, answered)
        except Exception:
            _log.failure(
                "The pool broke at the end of a session of {peer}", peer=self.info.peer_host
            )
        if self._admitted is not None and context.entry is not None:
            context.entry.leave(self._admitted)
        if context.hub.ends:
            context.hub.session_ended(self._record(self.reason))
        context.ended(self)
        # The halves may outlive the session, and must not keep it alive.
        self.downstream.receiver = NOBODY
        self.relay = None

    def _record(self, reason: CloseReason) -> SessionRecord:
        relay, info, server, started = self.relay, self.info, self.server, self.started
        up, down, first_byte = relay.totals() if relay is not None else (0, 0, None)
        # Positional arguments: keywords would cost as much as the record itself.
        return SessionRecord(
            info.listener,
            _peer(info),
            server.name if server is not None else "",
            relay.name if relay is not None else "",
            self.attempts,
            started,
            self.connect_time,
            self._context.clock.seconds() - started,
            up,
            down,
            reason,
            self.error,
            first_byte - started if first_byte is not None else None,
            self.id,
            info.via,
            info.server_name,
            self.route,
            info.tls,
        )

    def status(self, now: float) -> SessionStatus:
        """Return a snapshot of the session at `now`, in seconds on the reactor's clock."""
        relay, pool, server = self.relay, self._pool, self.server
        up, down, _ = relay.totals() if relay is not None else (0, 0, None)
        return SessionStatus(
            self.id,
            self.info.listener,
            _peer(self.info),
            self.phase,
            pool.name if pool is not None else "",
            server.name if server is not None else "",
            relay.name if relay is not None else "",
            self.attempts,
            self.started,
            self.connect_time,
            now - self.started,
            up,
            down,
        )


def _peer(info: ConnectionInfo) -> str:
    port = info.peer_port
    return host_and_port(info.peer_host, port) if port else info.peer_host
