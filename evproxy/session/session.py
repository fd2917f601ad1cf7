"""
One session: from an accepted connection to the end of both sides.

This is the one place where a session's phase changes::

    accepted ─► connecting ─► relaying ─► closing ─► closed
                    │                        ▲
                    └────────────────────────┘   (client left, no server, error)

A session decides; it does no I/O of its own.  Dialers connect, a joiner relays, a pool
picks servers, and whoever observes is told at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import define, field
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IConnector, IReactorTime
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.engine.deadlines import Deadlines
from evproxy.engine.options import LASTING
from evproxy.errors import EvproxyError, NoServerAvailable, Shortage
from evproxy.escape import escaped, printable
from evproxy.interfaces import (
    PlainConnector,
    Pool,
    Server,
    SessionObserver,
    TroubleObserver,
    Waiter,
)
from evproxy.model import (
    CloseReason,
    ConnectionInfo,
    Ending,
    Phase,
    SessionRecord,
    Side,
    close_reason,
)
from evproxy.policy.shortages import shortage_in
from evproxy.relay.closing_here import TLSClosing, closed_here
from evproxy.relay.contract import Half, Relay
from evproxy.relay.finished_client import FinishedClient
from evproxy.settings import Timeouts
from evproxy.sockets.plane import DataPlane

EARLY_BYTES = 64 * 1024
"""How much of what a client sends before it is connected upstream is kept; then TCP pushes back."""

# A member of an enumeration is looked up in its class each time it is named there.
_CONNECTING, _RELAYING = Phase.CONNECTING, Phase.RELAYING
_CLOSING, _CLOSED = Phase.CLOSING, Phase.CLOSED

_log = Logger()


@define
class SessionContext:
    """
    What the sessions of one listener share.

    `clock` tells the time; `sockets` makes plain sockets; `upstream_factory` makes the
    client factory that one session connects with; `ended` is called with each session
    that is over, and `short` with what evproxy itself lacked to connect one.

    `first_look`: seconds after which a session is looked at for the first time.  So early that
    its half-close, if it comes before, needs no other deadline: most sessions end without
    another.
    """

    clock: IReactorTime
    pool: Pool
    plane: DataPlane
    sockets: PlainConnector
    deadlines: Deadlines
    timeouts: Timeouts
    upstream_factory: Callable[[Session], ClientFactory]
    ended: Callable[[Session], None]
    listener: str = ""
    observers: list[SessionObserver] = field(factory=list)
    troubles: list[TroubleObserver] = field(factory=list)
    short: Callable[[Shortage], None] | None = None
    first_look: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        timeouts = self.timeouts
        self.first_look = min(LASTING, timeouts.half_close, timeouts.idle or LASTING)


class _Discarding:
    """Takes what still comes from a peer whose connection is being closed."""

    __slots__ = ("_lost",)

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost

    def received(self, data: bytes) -> None:
        """Nobody wants it any more."""

    def stream_ended(self) -> None:
        """It is being closed anyway."""

    def peer_reset(self) -> None:
        """It is being closed anyway."""

    def closing_here(self, ended: bool) -> bool:
        """It is being closed anyway."""
        return False

    def connection_lost(self, reason: Failure) -> None:
        self._lost()


class _ClosingHere(_Discarding):
    """The same, while code on the client's side closes the connection in order."""

    __slots__ = ("_tls_closing",)

    def __init__(self, lost: Callable[[], None], tls_closing: TLSClosing) -> None:
        super().__init__(lost)
        self._tls_closing = tls_closing

    def connection_lost(self, reason: Failure) -> None:
        self._tls_closing.cancel()
        super().connection_lost(reason)


def _nothing() -> None:
    """There is nothing to do."""


def _message_of(failure: Failure) -> str:
    """What `failure` says, which may be what a server said, fit for a log."""
    message = failure.getErrorMessage()
    ours = isinstance(failure.value, EvproxyError)
    return printable(message) if ours else escaped(message)


NOBODY = _Discarding(_nothing)
"""The receiver of a half that has no session, or none any more."""


class Session:
    """
    One proxied connection.

    :param context: what it shares with the other sessions of its listener.
    :param downstream: the client's half.
    :param info: what is known of the client.
    """

    __slots__ = (
        "_attempt_started",
        "_bucket",
        "_candidates",
        "_connecting",
        "_context",
        "_chunks",
        "_ended",
        "_size",
        "_half_closed",
        "_deadline_is_idle",
        "_short",
        "_tried",
        "_waiting",
        "_walking",
        "attempts",
        "connect_time",
        "downstream",
        "error",
        "info",
        "phase",
        "reason",
        "relay",
        "server",
        "started",
    )

    def __init__(self, context: SessionContext, downstream: Half, info: ConnectionInfo) -> None:
        self._context = context
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
        self._candidates: Iterator[Server] | None = None
        self._connecting: IConnector | None = None
        self._tried: tuple[Server, ...] = ()
        self._waiting: Waiter | None = None
        self._walking = False
        self._bucket = 0
        self._half_closed = False
        self._deadline_is_idle = False
        self._short = False
        self._chunks: list[bytes] | None = None
        self._size = 0
        self._ended = False
        downstream.receiver = self

    def start(self) -> None:
        """The client is connected: find it a server."""
        self.phase = _CONNECTING
        if closed_here(self.downstream.transport):
            self.closing_here(ended=False)
            return
        try:
            self._choose()
        except Exception:
            self._broken()

    # Connecting.

    def _choose(self) -> None:
        candidates = self._context.pool.candidates(self.info)
        if self._tried:
            candidates = (server for server in candidates if server not in self._tried)
        self._candidates = candidates
        self._connect_next()

    def _connect_next(self) -> None:
        if self._walking:
            # It failed before its dialer returned: the loop below goes on.
            return
        self._walking = True
        most = self._context.pool.connect_attempts
        try:
            while self.server is None and self.phase is _CONNECTING:
                if self._candidates is None or self.attempts >= most:
                    break
                server = next(self._candidates, None)
                if server is None:
                    break
                self._connect(server)
        finally:
            self._walking = False
        if self.server is None and self.phase is _CONNECTING:
            self._no_candidate()

    def _connect(self, server: Server) -> None:
        context = self._context
        pool = context.pool
        self.attempts += 1
        self.server = server
        pool.claim(server, self)
        self._attempt_started = context.clock.seconds()
        connecting = server.dialer.connect(
            context.upstream_factory(self), pool.connect_timeout, context.sockets
        )
        # The attempt may be over already.
        if self.phase is _CONNECTING and self.server is not None:
            self._connecting = connecting

    def _no_candidate(self) -> None:
        pool = self._context.pool
        self._candidates = None
        why = f"no server of pool {pool.name} is available"
        if self.attempts < pool.connect_attempts:
            try:
                self._waiting = pool.wait(self.info, self._slot_free, self._no_server, self._tried)
            except NoServerAvailable as error:
                # The error itself would be in a cycle with this frame.
                why = str(error)
            if self._waiting is not None:
                return
        if not self.attempts:
            self._no_server(NoServerAvailable(why))
        else:
            by = Side.PROXY if self._short else Side.UPSTREAM
            self._close_unconnected(by, Ending.UNREACHABLE)

    def _slot_free(self) -> None:
        self._waiting = None
        try:
            self._choose()
        except Exception:
            self._broken()

    def _no_server(self, error: Exception) -> None:
        self._waiting = None
        self.error = str(error)
        self._close_unconnected(Side.PROXY, Ending.UNREACHABLE)

    def connect_failed(self, attempt: int, reason: Failure) -> None:
        """The connect numbered `attempt` failed; called by its client factory."""
        server = self.server
        if server is None or not self._is_under_way(attempt):
            return
        self._connecting = None
        self.server = None
        self._tried += (server,)
        shortage = shortage_in(reason.value, server.name)
        self._short = shortage is not None
        why = _message_of(reason) if shortage is None else str(shortage)
        self.error = f"{server.name}: {why}"
        try:
            if shortage is None:
                self._context.pool.connect_failed(server, self, reason)
                self._tell_connect_failed(server.name, why)
            else:
                self._lacked(server, shortage)
            self._connect_next()
        except Exception:
            self._broken()

    def _lacked(self, server: Server, shortage: Shortage) -> None:
        """Evproxy itself lacked something to connect to `server`, which is not blamed."""
        context = self._context
        context.pool.abandoned(server, self)
        if context.short is not None:
            context.short(shortage)
        if shortage.everywhere:
            # Another server would be no better.
            self._close_unconnected(Side.PROXY, Ending.UNREACHABLE)

    def upstream_connected(self, attempt: int, upstream: Half) -> None:
        """The connect numbered `attempt` succeeded; called by the protocol that it made."""
        context, server = self._context, self.server
        upstream.receiver = NOBODY
        if server is None or not self._is_under_way(attempt):
            upstream.transport.abortConnection()
            return
        now = context.clock.seconds()
        self.connect_time = now - self.started
        self.error = ""
        self._connecting = self._candidates = None
        chunks, self._chunks = self._chunks, None
        self.phase = _RELAYING
        try:
            context.pool.connected(server, now - self._attempt_started)
            self._bucket = context.deadlines.add(self, now, context.first_look)
            self.relay = context.plane.join(
                self.downstream, upstream, b"".join(chunks) if chunks else b"", self._ended, self
            )
        except Exception:
            upstream.transport.abortConnection()
            self._broken()

    def _is_under_way(self, attempt: int) -> bool:
        # What an attempt that is over still tells must not count for the one after it.
        return self.phase is _CONNECTING and attempt == self.attempts

    # What the client does before it is connected.

    def received(self, data: bytes) -> None:
        """Keep what the client sends, a bounded amount of it; then TCP pushes back."""
        if self._chunks is None:
            self._chunks = []
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= EARLY_BYTES:
            self.downstream.transport.pauseProducing()

    def stream_ended(self) -> None:
        """The client ended its stream: passed on after what is kept."""
        self._ended = True
        if self._chunks is None:
            # Nothing was asked and nothing will be: as good as gone (HAProxy decides alike).
            self._close_unconnected(Side.DOWNSTREAM, Ending.LEFT)

    def peer_reset(self) -> None:
        """The client reset its connection while it was not read."""
        self._close_unconnected(Side.DOWNSTREAM, Ending.LEFT)

    def closing_here(self, ended: bool) -> bool:
        """A wrapper closes the client's connection, within the half-close timeout."""
        if self.phase is _CONNECTING and not ended:
            self._stop_connecting(Side.DOWNSTREAM, Ending.LEFT)
            tls_closing = TLSClosing(self._context.clock, self.downstream.transport)
            self.downstream.receiver = _ClosingHere(self._closed, tls_closing)
            now = self._context.clock.seconds()
            self._set_deadline(now, now, self._context.timeouts.half_close)
        return False

    def connection_lost(self, reason: Failure) -> None:
        """The client's connection is gone."""
        if self.phase is _CONNECTING and self._chunks and reason.check(ConnectionDone):
            # Its end, like what it sent before, is passed on after the connect.
            self._ended = False
            self.downstream.transport = FinishedClient(self._context.clock, self.downstream)
            return
        self.downstream.receiver = NOBODY
        if self.phase is _CONNECTING:
            self._stop_connecting(Side.DOWNSTREAM, Ending.LEFT)
        self._closed()

    def _stop_connecting(self, by: Side, how: Ending) -> None:
        self.reason = close_reason(by, how, self.phase)
        self.phase = _CLOSING
        self._candidates = None
        server, self.server = self.server, None
        connecting, self._connecting = self._connecting, None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._give_up(waiting.cancel)
        if connecting is not None:
            self._give_up(connecting.stopConnecting)
        if server is not None:
            self._give_up(self._context.pool.abandoned, server, self)

    def _give_up(self, what: Callable[..., object], *arguments: object) -> None:
        """Call `what`, which is another's code: the session closes whatever it does."""
        try:
            what(*arguments)
        except Exception:
            _log.failure("Could not stop connecting a session of {peer}", peer=self.info.peer_host)

    def _close_unconnected(self, by: Side, how: Ending) -> None:
        if self.phase is _CONNECTING:
            self._stop_connecting(by, how)
            self.downstream.receiver = _Discarding(self._closed)
            self.downstream.transport.abortConnection()

    # Relaying.

    def relay_half_closed(self, side: Side) -> None:
        """One side ended its stream; from now on the half-close timeout counts."""
        self._half_closed = True
        if self._deadline_is_idle:
            self._count_half_close()

    def _count_half_close(self) -> None:
        now = self._context.clock.seconds()
        self._drop_deadline()
        self._set_deadline(now, now, self._context.timeouts.half_close)

    def relay_closing(self, by: Side, how: Ending) -> None:
        """How the session ends is decided; what is queued is still delivered."""
        self.reason = close_reason(by, how, self.phase)
        self.phase = _CLOSING
        self._half_closed = True
        if self._deadline_is_idle:
            self._count_half_close()

    def relay_closed(self, by: Side, how: Ending) -> None:
        """Both connections are gone; `how` is another than decided if delivery was cut short."""
        if self.reason is None or self.reason.how is not how:
            self.reason = close_reason(by, how, self.phase)
        self._closed()

    def deadline_reached(self, now: float) -> None:
        """No byte may have moved for the timeout that counts now: look."""
        self._bucket = 0
        relay = self.relay
        if relay is None:
            if self.phase is _CLOSING:
                self.downstream.transport.abortConnection()
            return
        timeouts = self._context.timeouts
        active = relay.idle_since(now)
        limit = timeouts.half_close if self._half_closed else timeouts.idle
        if limit <= 0 or now - active < limit:
            self._set_deadline(now, active, limit)
            self._deadline_is_idle = not self._half_closed
        else:
            self.end(Side.PROXY, Ending.HALF_CLOSE if self._half_closed else Ending.IDLE)

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
            # A wrapper closes the client's connection, but its peer does not take it all.
            self.downstream.transport.abortConnection()
        else:
            self._close_unconnected(by, how)

    def half_broke(self) -> None:
        """The client's half broke while it was being connected; it is logged, and is aborted."""
        if self.phase is _CONNECTING:
            self.end(Side.PROXY, Ending.ERROR)

    def _broken(self) -> None:
        """Called in an ``except`` clause: this session ends, no other notices."""
        failure = Failure()
        _log.failure("A session of {peer} broke", failure, peer=self.info.peer_host)
        self.error = _message_of(failure)
        if self.phase is _RELAYING and self.relay is None:
            # It broke while it was joined: there is no relay to close it.
            self.reason = close_reason(Side.PROXY, Ending.ERROR, _CONNECTING)
            self.phase = _CLOSING
            self.downstream.receiver = _Discarding(self._closed)
            self.downstream.transport.abortConnection()
        else:
            self.end(Side.PROXY, Ending.ERROR)

    def _closed(self) -> None:
        if self.phase is _CLOSED:
            return
        self._drop_deadline()
        self.phase = _CLOSED
        assert self.reason is not None
        server, context = self.server, self._context
        try:
            if server is not None:
                answered = self.relay is not None and self.relay.bytes_to_downstream > 0
                context.pool.ended(server, self, self.reason, answered)
        except Exception:
            _log.failure(
                "The pool broke at the end of a session of {peer}", peer=self.info.peer_host
            )
        if context.observers:
            record = self._record(self.reason)
            for observer in context.observers:
                try:
                    observer.session_ended(record)
                except Exception:
                    _log.failure(
                        "An observer broke at the end of a session of {peer}", peer=record.peer
                    )
        context.ended(self)
        # The halves may outlive the session, which they would keep.
        self.downstream.receiver = NOBODY
        self.relay = None

    def _tell_connect_failed(self, name: str, why: str) -> None:
        for observer in self._context.troubles:
            try:
                observer.connect_failed(name, why)
            except Exception:
                _log.failure("An observer broke when {name} could not be connected", name=name)

    def _record(self, reason: CloseReason) -> SessionRecord:
        relay, info, server, started = self.relay, self.info, self.server, self.started
        peer, port = info.peer_host, info.peer_port
        if port:
            peer = f"[{peer}]:{port}" if ":" in peer else f"{peer}:{port}"
        up, down, first_byte = relay.totals() if relay is not None else (0, 0, None)
        # In the order of its fields: names would cost as much as the record.
        return SessionRecord(
            info.listener,
            peer,
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
        )
