"""
From a pool to a connected server: candidates, attempts, and waiting for a slot.

A `Connecting` belongs to one session, from the choice of its pool until it relays or closes.

Each attempt to connect has its own client factory, which identifies the attempt.  Late callbacks
from an abandoned attempt are ignored, and its connection is aborted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from attrs import define
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import IConnector, IReactorTime
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.causes import Cause
from evproxy.errors import (
    ConnectTimeout,
    EvproxyError,
    NoServerAvailable,
    QueueFull,
    QueueTimeout,
    Shortage,
)
from evproxy.escape import escaped, printable
from evproxy.interfaces import (
    ConnectFaults,
    Dial,
    PlainConnector,
    Pool,
    PoolSession,
    Server,
    Waiter,
)
from evproxy.model import ConnectionInfo, Ending, Side
from evproxy.observers import TroubleObserver
from evproxy.policy.shortages import shortage_in
from evproxy.records import SessionStatus, Waited
from evproxy.relay.contract import Half
from evproxy.relay.stages import StagesOfSession
from evproxy.session.opening import Opening, ServerOpening

_log = Logger()


class Connectable(PoolSession, Protocol):
    """
    A session without a server, as its `Connecting` sees it.

    The `Connecting` updates `server`, `tried`, `attempts`, `waited`, `error` and `cause`, which are
    part of the record.
    """

    info: ConnectionInfo
    server: Server | None
    opening: Opening | None
    tried: str
    attempts: int
    waited: Waited | None
    error: str
    cause: str

    def connected(self, upstream: Half, now: float, seconds: float) -> None:
        """`server` is connected, at `now`, `seconds` after the attempt began."""

    def preamble(self) -> bytes:
        """What `server` gets before everything else: a PROXY header, or nothing."""

    def close_unconnected(self, by: Side, how: Ending) -> None:
        """Reset the client, which has no server yet, and stop the `Connecting`."""

    def broke(self) -> None:
        """Called in an ``except`` clause: log the exception and end the session."""

    def status(self, now: float) -> SessionStatus:
        """A snapshot of the session at `now`."""


@define
class ConnectContext:
    """
    What the sessions of one listener need to connect.

    `clock` gives the time; `sockets` makes plain sockets; `upstream_factory` makes the client
    factory of an attempt: an `evproxy.session.halves.UpstreamFactory`, which may be wrapped.
    `observer` is notified of failed connects; `short` is called with the `Shortage` if evproxy
    itself lacked something.  `stages`: those of the listener, of which some may be `ConnectFaults`.
    """

    clock: IReactorTime
    sockets: PlainConnector
    upstream_factory: Callable[[Connecting], ClientFactory]
    observer: TroubleObserver
    short: Callable[[Shortage], None]
    stages: Sequence[StagesOfSession] = ()


class Connecting:
    """
    Connects one session to a server of `pool`.

    `attempt`: the client factory of the attempt under way; ``None`` if there is no attempt.  The
    client factory sets this attribute itself.
    `header_sent`: whether the dialer sends the PROXY header, before a handshake.

    :param context: what the sessions of the listener share.
    :param session: the session to connect.
    :param pool: the pool that has the servers.
    """

    __slots__ = (
        "_began",
        "_candidates",
        "_connector",
        "_context",
        "_looping",
        "_opening",
        "_pool",
        "_short",
        "_stopped",
        "_tried",
        "_waiter",
        "attempt",
        "header_sent",
        "session",
    )

    def __init__(self, context: ConnectContext, session: Connectable, pool: Pool) -> None:
        self._context = context
        self._pool = pool
        self.session = session
        self.attempt: ClientFactory | None = None
        self._candidates: Iterator[Server] | None = None
        self._connector: IConnector | None = None
        self._opening: ServerOpening | None = None
        self._tried: tuple[Server, ...] = ()
        self._waiter: Waiter | None = None
        self._looping = self._short = self._stopped = False
        self.header_sent = False

    def find(self) -> None:
        """Try the pool's current candidates, except the servers that were tried before."""
        candidates = self._pool.candidates(self.session.info)
        if self._tried:
            candidates = (server for server in candidates if server not in self._tried)
        self._candidates = candidates
        self._try_next()

    def stop(self) -> None:
        """Abandon the attempt, or the place in the queue; late callbacks are ignored."""
        self._stopped = True
        self._candidates = self.attempt = None
        session = self.session
        server, session.server = session.server, None
        connector, self._connector = self._connector, None
        waiter, self._waiter = self._waiter, None
        opening, self._opening = self._opening, None
        if opening is not None:
            self._call(opening.cancel)
        if waiter is not None:
            self._wait_over()
            session.cause = Cause.QUEUED.value
            self._call(waiter.cancel)
        if connector is not None:
            self._call(connector.stopConnecting)
        if server is not None:
            session.tried = server.name
            self._call(self._pool.abandoned, server, session)

    # Callbacks from an attempt.

    def failed(self, attempt: ClientFactory, reason: Failure) -> None:
        """The attempt failed: go on with the next server."""
        session = self.session
        server = session.server
        if attempt is not self.attempt or server is None:
            return
        self.attempt = self._connector = session.server = None
        self._tried += (server,)
        shortage = shortage_in(reason.value, server.name)
        self._short = shortage is not None
        why = message_of(reason) if shortage is None else str(shortage)
        session.tried = server.name
        session.error = f"{server.name}: {why}"
        session.cause = _cause_of(reason, shortage).value
        try:
            if shortage is None:
                self._pool.connect_failed(server, session, reason)
                self._context.observer.connect_failed(server.name, why)
            else:
                self._lacked(server, shortage)
            self._try_next()
        except Exception:
            session.broke()

    def connected(self, attempt: ClientFactory, upstream: Half) -> None:
        """The attempt succeeded: `upstream` is connected."""
        if attempt is not self.attempt:
            upstream.transport.abortConnection()
            return
        session = self.session
        if session.opening is None:
            self._finish(upstream)
            return
        self._connector = None
        self._opening = ServerOpening(
            self._context.clock,
            upstream,
            session.opening,
            b"" if self.header_sent else session.preamble(),
            self._pool.connect_timeout,
            partial(self._finish, upstream),
            partial(self._not_opened, attempt),
        )

    def _not_opened(self, attempt: ClientFactory, reason: Failure) -> None:
        self._opening = None
        self.failed(attempt, reason)

    def _finish(self, upstream: Half) -> None:
        """`upstream` is connected, and has agreed to what it was asked."""
        now = self._context.clock.seconds()
        self._candidates = self._connector = self.attempt = self._opening = None
        self.session.connected(upstream, now, now - self._began)

    # The walk over the candidates.

    def _try_next(self) -> None:
        if self._looping:
            # The attempt failed before its dialer returned: the loop below goes on.
            return
        context, session, pool = self._context, self.session, self._pool
        self._looping = True
        try:
            while session.server is None and not self._stopped:
                if self._candidates is None or session.attempts >= pool.connect_attempts:
                    break
                server = next(self._candidates, None)
                if server is None:
                    break
                session.attempts += 1
                session.server = server
                pool.claim(server, session)
                self._began = context.clock.seconds()
                connector = self._connect(server)
                # The attempt may have ended before `connect` returned.
                if self.attempt is not None:
                    self._connector = connector
        finally:
            self._looping = False
        if session.server is None and not self._stopped:
            self._no_candidate()

    def _connect(self, server: Server) -> IConnector | None:
        context, dialer, timeout = self._context, server.dialer, self._pool.connect_timeout
        # An `evproxy.interfaces.HeaderDialer` or not: `isinstance` would cost some microseconds.
        connect_after = getattr(dialer, "connect_after", None) if server.proxy_version else None
        self.header_sent = connect_after is not None
        factory = context.upstream_factory(self)
        # A user's own pool may have no stages.
        makers = (*context.stages, *getattr(self._pool, "stages", ()))
        if makers:
            faults = [each for each in makers if hasattr(each, "of_connect")]
            if faults:
                dial = partial(self._dial, server, connect_after, factory)
                return self._through(faults, factory, timeout, dial)
        return self._dial(server, connect_after, factory, timeout)

    def _dial(
        self,
        server: Server,
        connect_after: Callable[..., IConnector] | None,
        factory: ClientFactory,
        timeout: float,
    ) -> IConnector:
        sockets = self._context.sockets
        if connect_after is None:
            return server.dialer.connect(factory, timeout, sockets)
        return connect_after(self.session.preamble(), factory, timeout, sockets)

    def _through(
        self, faults: Sequence[ConnectFaults], factory: ClientFactory, timeout: float, dial: Dial
    ) -> IConnector | None:
        """Connect by `dial`, if `faults` let it be."""
        status = self.session.status(self._context.clock.seconds())
        for number, each in enumerate(faults, 1):
            fault = each.of_connect(status)
            if fault is None:
                continue
            if fault.resets_client:
                self.session.error = "a fault refuses the client"
                self.session.close_unconnected(Side.PROXY, Ending.FAULT)
                return None
            more = partial(self._go_on, faults[number:], factory, dial)
            return fault.connect(factory, timeout, more)
        return dial(timeout)

    def _go_on(
        self, faults: Sequence[ConnectFaults], factory: ClientFactory, dial: Dial, timeout: float
    ) -> IConnector | None:
        """A fault has held up the connect until now."""
        try:
            return self._through(faults, factory, timeout, dial)
        except Exception:
            self.session.broke()
            return None

    def _no_candidate(self) -> None:
        pool, session = self._pool, self.session
        self._candidates = None
        why, cause = f"no server of pool {pool.name} is available", Cause.NO_SERVER
        if session.attempts < pool.connect_attempts:
            try:
                self._waiter = pool.wait(session.info, self._slot_free, self._give_up, self._tried)
            except NoServerAvailable as error:
                # Keep only the text: the error itself would form a cycle with this frame.
                why, cause = str(error), _cause_in_pool(error)
            if self._waiter is not None:
                self._waits(self._waiter)
                return
        if not session.attempts:
            self._end_without_server(why, cause)
        else:
            by = Side.PROXY if self._short else Side.UPSTREAM
            session.close_unconnected(by, Ending.UNREACHABLE)

    def _waits(self, waiter: Waiter) -> None:
        waited = self.session.waited
        # A `CountingWaiter` or not.
        ahead = getattr(waiter, "ahead", 0) if waited is None else waited.ahead
        before = 0.0 if waited is None else waited.seconds
        self.session.waited = Waited(self._context.clock.seconds(), before, ahead)

    def _wait_over(self) -> None:
        waited = self.session.waited
        if waited is not None:
            seconds = waited.until(self._context.clock.seconds())
            self.session.waited = Waited(None, seconds, waited.ahead)

    def _slot_free(self) -> None:
        self._waiter = None
        self._wait_over()
        try:
            self.find()
        except Exception:
            self.session.broke()

    def _give_up(self, error: Exception) -> None:
        self._waiter = None
        self._wait_over()
        self._end_without_server(str(error), _cause_in_pool(error))

    def _end_without_server(self, why: str, cause: Cause) -> None:
        self.session.error, self.session.cause = why, cause.value
        self.session.close_unconnected(Side.PROXY, Ending.UNREACHABLE)

    def _lacked(self, server: Server, shortage: Shortage) -> None:
        """Evproxy itself lacked something for the connect: do not blame `server`."""
        self._pool.abandoned(server, self.session)
        self._context.short(shortage)
        if shortage.everywhere:
            # A connect to another server would fail as well.
            self.session.close_unconnected(Side.PROXY, Ending.UNREACHABLE)

    def _call(self, what: Callable[..., object], *arguments: object) -> None:
        """Call `what`, which may be a user's code; log its exceptions, so the session closes."""
        peer = self.session.info.peer_host
        with _log.failuresHandled("Could not stop connecting a session of {peer}", peer=peer):
            what(*arguments)


def _cause_in_pool(error: Exception) -> Cause:
    if isinstance(error, QueueTimeout):
        return Cause.QUEUE_TIMEOUT
    return Cause.QUEUE_FULL if isinstance(error, QueueFull) else Cause.NO_SERVER


def _cause_of(failure: Failure, shortage: Shortage | None) -> Cause:
    if shortage is not None:
        return Cause.SHORTAGE
    if failure.check(ConnectTimeout, ConnectTimedOut):
        return Cause.CONNECT_TIMEOUT
    return Cause.CONNECT_FAILED


def message_of(failure: Failure) -> str:
    """Return the message of `failure`, safe for a log; the message may come from a server."""
    message = failure.getErrorMessage() or type(failure.value).__name__
    ours = isinstance(failure.value, EvproxyError)
    return printable(message) if ours else escaped(message)
