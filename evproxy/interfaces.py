"""
The contracts with the objects of users.

A router, a pool, a balancer, a health check, a discovery, a dialer or an observer of your own
is a plain object that satisfies the protocol here.  It inherits nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from evproxy.config.changes import Changes
from evproxy.errors import Shortage
from evproxy.loop_report import LoopReport
from evproxy.model import (
    CloseReason,
    ConnectionInfo,
    Ending,
    Phase,
    SessionRecord,
    SessionStatus,
    Side,
    UpstreamServer,
)
from evproxy.policy.balance.candidate import Balancer as Balancer
from evproxy.policy.balance.candidate import Candidate as Candidate
from evproxy.policy.sources import Sources
from evproxy.wire.client_hello import ClientHello, NotTls
from evproxy.wire.http_host import HttpHost, NoHost
from evproxy.wire.postgres import Start


class PlainConnector(Protocol):
    """Makes plain socket connections; an attempt takes at most `timeout` seconds."""

    def connect(
        self, to: Any, factory: ClientFactory, timeout: float, source: Sources | None = None
    ) -> IConnector:
        """
        Connect to `to`, an `evproxy.sockets.destination.Destination` made once for each server.

        :param source: for TCP, the local addresses to connect from, in turn.
        """


class Dialer(Protocol):
    """Makes connections to one upstream server, whatever kind of address it has."""

    def connect(
        self, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        """
        Start to connect, with a timeout of `timeout` seconds; `sockets` makes plain sockets.

        The attempt ends with a call of exactly one of ``factory.buildProtocol`` and
        ``factory.clientConnectionFailed``, perhaps before this method returns.  If the protocol
        has a ``handshake`` Deferred, the attempt ends later, when this Deferred fires.
        ``stopConnecting`` of the returned connector cancels the attempt and leaves nothing behind.
        """


class HeaderDialer(Dialer, Protocol):
    """A dialer that can send bytes before a handshake of its own: a PROXY header."""

    def connect_after(
        self, header: bytes, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        """Like `Dialer.connect`; the server gets `header` before the handshake begins."""


class Server(Candidate, Protocol):
    """An upstream server, as a connecting session sees it."""

    @property
    def name(self) -> str: ...

    @property
    def dialer(self) -> Dialer: ...

    @property
    def proxy_version(self) -> int:
        """The version of the PROXY header that the server gets first; 0: no header."""


class PoolSession(Protocol):
    """A session that holds a slot of a pool, as the pool sees it."""

    @property
    def phase(self) -> Phase:
        """The phase of the session; a session that connects may still go to another server."""

    def end(self, by: Side, how: Ending) -> None:
        """Reset both sides of the session now."""


class Waiter(Protocol):
    """A session's place in a pool's queue."""

    def cancel(self) -> None:
        """Give up the place; neither callback is called any more."""


class CountingWaiter(Protocol):
    """A `Waiter` that also says how long the queue was."""

    @property
    def ahead(self) -> int:
        """How many sessions waited in the queue when this one joined."""


class Pool(Protocol):
    """A named group of upstream servers and the policy that picks one."""

    @property
    def name(self) -> str: ...

    @property
    def connect_timeout(self) -> float: ...

    @property
    def connect_attempts(self) -> int: ...

    def candidates(self, info: ConnectionInfo) -> Iterator[Server]:
        """
        Return the servers to try for one session, best first, none twice.

        The iterator is lazy: it skips a server that is down or full when its turn comes.
        """

    def wait(
        self,
        info: ConnectionInfo,
        ready: Callable[[], None],
        gave_up: Callable[[Exception], None],
        tried: Collection[Server] = (),
    ) -> Waiter | None:
        """
        Wait for a slot, when `candidates` returns no server, or no more, because servers are full.

        The pool calls `ready` once a slot may be free for the client of `info`, or `gave_up` after
        the queue timeout.  If a session finds no slot when `ready` is called, and calls `wait`
        again from within `ready`, it keeps its place.

        :return: the place; ``None`` if waiting is pointless and there is no special reason.
        :raises evproxy.errors.NoServerAvailable: if waiting is pointless: no server except those
            in `tried` can take this client, or the queue is full.  The message becomes the
            session's error.
        """

    def claim(self, server: Server, session: PoolSession) -> None:
        """`session` takes a slot of `server` and starts to connect."""

    def connected(self, server: Server, seconds: float) -> None:
        """The connect succeeded, `seconds` after it began."""

    def connect_failed(self, server: Server, session: PoolSession, reason: Failure) -> None:
        """The connect failed: the slot is free again."""

    def abandoned(self, server: Server, session: PoolSession) -> None:
        """
        The client left while connecting, or evproxy itself lacked something (`Shortage`).

        The slot is free again, and the server is not blamed.
        """

    def ended(
        self, server: Server, session: PoolSession, reason: CloseReason, answered: bool
    ) -> None:
        """The session ended: the slot is free again.  `answered`: the server sent a byte."""

    def start(self) -> None:
        """A service starts: begin health checks and discovery."""

    def stop(self) -> None:
        """
        The service has stopped: end every timer, check and watch.

        Called once for each `start`, and never without one.
        """


class Client(Protocol):
    """
    A client for which a router chooses the pool.

    The methods read the first bytes of the client, one method at a time.  The server still gets
    all of these bytes.  Each Deferred fails with an `evproxy.errors.EvproxyError` if the client
    ends its stream before the answer is complete, or if the bytes are malformed.  If a router lets
    such an error pass, the client is refused, with the error as the reason.  After the handshake
    timeout, evproxy resets the client.
    """

    @property
    def info(self) -> ConnectionInfo:
        """The addresses of the client; behind a PROXY header, the addresses in the header."""

    def note(self, text: str) -> None:
        """Put `text` into the session's record as its `route`: what was chosen, and why."""

    def peek(self, size: int) -> Deferred[bytes]:
        """
        Return the first `size` bytes, or all bytes if the client has ended its stream after fewer.

        :param size: from 1 to 65536.
        :raises ValueError: if `size` is out of this range.
        """

    def client_hello(self) -> Deferred[ClientHello | NotTls]:
        """Return the first message of a TLS client; `NotTls` if the client does not speak TLS."""

    def http_host(self) -> Deferred[HttpHost | NoHost]:
        """Return the host in the request of an HTTP/1 client; `NoHost` if there is no host."""

    def postgres_start(self) -> Deferred[Start]:
        """Return the first message of a PostgreSQL client."""


@runtime_checkable
class Router(Protocol):
    """Chooses the pool of each session.  A function like `route` is a router, too."""

    def route(self, client: Client) -> Any:
        """
        Return the pool for `client`, or a Deferred of it.  This may be a coroutine (``async def``).

        ``None`` refuses the client.  evproxy cancels a Deferred or a coroutine when the client
        leaves, and after the handshake timeout.  The program that makes the pools also starts and
        stops them.

        :raises evproxy.errors.Refused: to refuse the client; the message becomes the session's
            error.  Any other exception that is not an `EvproxyError` is logged with its
            traceback, and ends the session too.
        """


class CountingPool(Protocol):
    """A `Pool` that also counts its sessions, for observers with `wants_counts`."""

    @property
    def load(self) -> int:
        """How many sessions hold a slot of a server, or wait in the queue."""


@runtime_checkable
class SharedPool(Pool, Protocol):
    """A pool that several users may share, because it distinguishes them; a service is a user."""

    def start(self, user: object = None) -> None:
        """`user` begins to use the pool; ignored if `user` does so already."""

    def draining(self, user: object) -> None:
        """`user` drains: it begins no more sessions.  The pool must not end those it has."""

    def stop(self, user: object = None) -> None:
        """`user` has stopped; after the last user, end every timer, check and watch."""


class SessionStartObserver(Protocol):
    """Is notified when sessions start."""

    def session_started(self, session: SessionStatus) -> None:
        """evproxy has accepted a client; once for each session, before its server is chosen."""


class SessionConnectedObserver(Protocol):
    """Is notified when sessions are connected to their servers."""

    def session_connected(self, session: SessionStatus) -> None:
        """A session has got its server, and relays; at most once for each session."""


class SessionObserver(Protocol):
    """
    Is notified of sessions that are over.

    If it also has an attribute `wants_counts` that is true, each record and each status has
    `counts`: how many sessions there were.
    """

    def session_ended(self, record: SessionRecord) -> None:
        """A session is over; once for each session."""


class TroubleObserver(Protocol):
    """Is notified of what prevents evproxy from serving sessions."""

    def connect_failed(self, upstream: str, error: str) -> None:
        """One attempt to connect to the server named `upstream` failed."""

    def accepting_paused(self, why: str) -> None:
        """Accepting paused: at the bound on sessions, or out of descriptors."""

    def accepting_resumed(self) -> None:
        """Accepting goes on."""


@runtime_checkable
class PressureObserver(Protocol):
    """
    Is notified of what evproxy itself lacks, for which no server is blamed.

    An observer of a service or a factory is notified of what sessions lack, an observer of a
    pool of what health checks lack.
    """

    def pressure_began(self, what: str, remedy: str) -> None:
        """
        `what` began; called once for each period.

        `remedy` names the limit to raise, or where to look.
        """

    def pressure_over(self, what: str) -> None:
        """`what` has not occurred for some seconds; called once after each `pressure_began`."""


class RefusalObserver(Protocol):
    """Is notified of clients that get no session because of their address, or of a limit."""

    def clients_refused(self, listener: str, reason: str, count: int, peer: str) -> None:
        """
        `count` more clients of `listener` were refused, the last of them at the host `peer`.

        `reason` is the value of an `evproxy.policy.refusal.Refusal`.  Called for the first client
        at once, and then every ten seconds while there are more.
        """


class LogWriterObserver(Protocol):
    """
    Is notified of problems that keep log lines from their destination.

    `where` is the path, or another name, of the destination.
    """

    def log_failed(self, where: str, why: str) -> None:
        """A write failed and will be retried; called once for each period."""

    def log_lines_dropped(self, where: str) -> None:
        """Too many lines wait: the writer drops lines from now on."""

    def log_written_again(self, where: str, dropped: int) -> None:
        """The writer takes lines again, after it dropped `dropped` lines."""

    def log_not_reopened(self, where: str, why: str) -> None:
        """The log could not be opened again: the old file stays in use."""

    def log_lines_lost(self, where: str, lines: int) -> None:
        """The service stopped before the last `lines` lines could be written."""


class CertificateObserver(Protocol):
    """Hears of the certificates of listeners."""

    def certificates_loaded(self, listener: str) -> None:
        """The files of `listener` have changed, and new connections get what is in them now."""

    def certificates_kept(self, listener: str, why: str) -> None:
        """Changed files of `listener` cannot be used: those before count.  Once for each `why`."""

    def certificate_expires(self, path: str, day: str, days_left: int) -> None:
        """
        The certificate in the file at `path` ends on `day` (``2026-11-27``), in `days_left` days.

        Once a day from 14 days before; `days_left` is negative afterwards.
        """


class ReloadObserver(Protocol):
    """Is notified of reloads: of `reload_began`, and later of one of the others."""

    def reload_began(self) -> None:
        """evproxy begins to read its configuration again."""

    def reloaded(self, changes: Changes) -> None:
        """The new configuration is in use; `changes` may be empty."""

    def reload_refused(self, problems: Sequence[str]) -> None:
        """The new configuration cannot be used, for `problems`; that of before is in use."""


class LoopObserver(Protocol):
    """
    Is notified by a watchdog of what holds the loop; see ``docs/watchdog.md``.

    The methods are called in the watchdog's thread, because the loop's thread is held.  They must
    touch nothing that only the loop's thread may touch; ``reactor.callFromThread`` is allowed.
    """

    def loop_held(self, report: LoopReport) -> None:
        """Something holds the loop, or has held it; called once for each place."""

    def loop_released(self, report: LoopReport) -> None:
        """What was reported while it lasted is over; `report` says how long it took."""


class PoolObserver(Protocol):
    """Is notified of what happens to the servers of pools."""

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        """
        `server` became ``up``, ``down``, ``ejected``, ``draining``, ``added`` or ``removed``.

        `why` also says how long the state lasts, and what else keeps sessions away; see
        ``docs/pools.md``.
        """

    def pool_exhausted(self, pool: str, why: str) -> None:
        """`pool` cannot serve sessions; called once for each such period."""

    def discovery_failed(self, pool: str, why: str) -> None:
        """
        A look-up failed; servers that were discovered before stay in the pool.

        Called once for each reason (of the first few) until `discovery_recovered`.
        """

    def discovery_recovered(self, pool: str) -> None:
        """Look-ups succeed again, or the discovered set has no problems any more."""


@runtime_checkable
class DiscoveryObserver(PoolObserver, Protocol):
    """A pool observer that distinguishes a failed look-up from an incomplete one."""

    def discovery_incomplete(self, pool: str, why: str) -> None:
        """
        The pool has the discovered servers, but there is a problem with the set: `why`.

        For example, a record was left out, or there is no record.  Called once for each reason
        while the problem lasts.  If an observer has no such method, `discovery_failed` is called.
        """


Observer: TypeAlias = (
    SessionObserver
    | SessionStartObserver
    | SessionConnectedObserver
    | TroubleObserver
    | PressureObserver
    | RefusalObserver
    | PoolObserver
    | DiscoveryObserver
    | LogWriterObserver
    | CertificateObserver
    | ReloadObserver
    | LoopObserver
)
"""An object with the methods of one or more of these contracts; see `evproxy.hub.Hub`."""


class Probe(Protocol):
    """An active health check: one question to one server."""

    def check(
        self, server: UpstreamServer, done: Callable[[str | Shortage | None], None]
    ) -> Callable[[], None]:
        """
        Check `server` once, and call `done` exactly once with the verdict.

        The verdict is ``None`` if `server` is healthy, or else a short reason.  A `Shortage` means
        that evproxy itself lacked something for the check: then there is no verdict, and the
        server keeps its state.

        :return: cancels the check; `done` is not called after that.
        """


@runtime_checkable
class SelfBounded(Probe, Protocol):
    """A probe that limits each check itself, perhaps to more than the check's timeout."""

    @property
    def longest(self) -> float:
        """The most seconds until `done` is called."""


class Discovery(Protocol):
    """Finds the servers of a pool at run time."""

    def start(
        self,
        changed: Callable[[Sequence[UpstreamServer]], None],
        failed: Callable[[str], None],
    ) -> None:
        """
        Start.  Call `changed` with every new set of servers, `failed` with the reason of a failure.

        Pass the whole set each time.  The first `changed` after `failed`, with the same set or
        another, means that look-ups succeed again.  The pool leaves out a server that it cannot
        have.  With an empty set, the pool has no discovered servers; to keep the servers that the
        pool has, call `failed` instead.
        """

    def stop(self) -> None:
        """Stop, and leave no timer or connection behind."""


@runtime_checkable
class PartlyFailing(Discovery, Protocol):
    """A discovery that can return a set of servers together with problems of this set."""

    @property
    def problems(self) -> Sequence[str]:
        """
        The problems of the last set of servers, one reason for each.

        The pool reads them at each call of `changed`.  The discovery also calls `changed` when
        only the problems are new.
        """
