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

from evproxy.errors import Shortage
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
from evproxy.policy.balance.candidate import Candidate as Candidate
from evproxy.policy.sources import Sources
from evproxy.wire.client_hello import ClientHello, NotTls
from evproxy.wire.http_host import HttpHost, NoHost
from evproxy.wire.postgres import Start


class PlainConnector(Protocol):
    """Makes plain socket connections; `timeout` in seconds bounds the attempt."""

    def connect(
        self, to: Any, factory: ClientFactory, timeout: float, source: Sources | None = None
    ) -> IConnector:
        """
        Connect to `to`, an `evproxy.sockets.destination.Destination` made once for each server.

        :param source: over TCP, one of these addresses, in turn, is this end of the connection.
        """


class Dialer(Protocol):
    """Makes connections to one upstream server, whatever its address is made of."""

    def connect(
        self, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        """
        Start to connect; `timeout` seconds bound the attempt, `sockets` makes plain sockets.

        Ends in exactly one of ``factory.buildProtocol`` and
        ``factory.clientConnectionFailed``, which may come before this returns.  A protocol
        whose ``handshake`` is a Deferred ends it later: when that fires.
        ``stopConnecting`` of what is returned cancels the attempt: nothing is left of it.
        """


class Balancer(Protocol):
    """Orders the servers of a pool for each new session.  Pure: no I/O, no clock."""

    def update(self, servers: Sequence[Candidate]) -> None:
        """The servers to choose from, or their weights, have changed."""

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        """
        The servers of the last `update` in the order to try them, none twice.

        Some of them, or none, where the client may not go to the others.  Called for each
        session, and again when it waits, to find out whether a server can help it.
        """


class Server(Candidate, Protocol):
    """An upstream server as the session that is to be connected sees it."""

    @property
    def name(self) -> str: ...

    @property
    def dialer(self) -> Dialer: ...

    @property
    def proxy_version(self) -> int:
        """The version of the PROXY header that the server gets first; 0: no header."""


class PoolSession(Protocol):
    """What a pool sees of a session that holds one of its slots, and may do with it."""

    @property
    def phase(self) -> Phase:
        """Where it is in its life; while it connects it may still go to another server."""

    def end(self, by: Side, how: Ending) -> None:
        """Reset both sides of the session now."""


class Waiter(Protocol):
    """A session's place in a pool's queue."""

    def cancel(self) -> None:
        """Give the place up; neither callback will come."""


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
        The servers to try for one session, best first, none twice.

        Walked lazily: a server that is down or full when its turn comes is skipped.
        """

    def wait(
        self,
        info: ConnectionInfo,
        ready: Callable[[], None],
        gave_up: Callable[[Exception], None],
        tried: Collection[Server] = (),
    ) -> Waiter | None:
        """
        Wait for a slot, when `candidates` gives none, or no more, because servers are full.

        Calls `ready` once a slot may be free for the client of `info`, or `gave_up` after the
        queue timeout.  Who finds none when `ready` is called, and waits again within it, keeps
        its place.  ``None`` if waiting is pointless and there is no more to say.

        :raises evproxy.errors.NoServerAvailable: if waiting is pointless: no server but those
            `tried` can help this client, or the queue is full.  The message is the reason that
            the session ends with.
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

        The slot is free again; no blame.
        """

    def ended(
        self, server: Server, session: PoolSession, reason: CloseReason, answered: bool
    ) -> None:
        """The session ended: the slot is free again.  `answered`: the server sent a byte."""

    def start(self) -> None:
        """A service starts: begin health checks and discovery."""

    def stop(self) -> None:
        """
        The service has stopped: no timer, check or watch is left.

        Comes once for each `start`, and never without one.
        """


class Client(Protocol):
    """
    A client whose pool is to be chosen.

    The methods look at what the client sends first, one at a time.  The server gets all of these
    bytes.  Each Deferred fails with an `evproxy.errors.EvproxyError` if the client ends its stream
    before the answer is complete, or if what it sends is malformed.  A router that passes such an
    error on refuses the client, with the error as the reason.  After the handshake timeout, the
    client is reset.
    """

    @property
    def info(self) -> ConnectionInfo:
        """What is known of its connection; behind a PROXY header, what the header says."""

    def note(self, text: str) -> None:
        """Put `text` into the session's record as its `route`: what was chosen, and why."""

    def peek(self, size: int) -> Deferred[bytes]:
        """
        The first `size` bytes, or all bytes of a client that has sent fewer and ended its stream.

        :param size: from 1 to 65536.
        :raises ValueError: if it is another.
        """

    def client_hello(self) -> Deferred[ClientHello | NotTls]:
        """What a TLS client says first; `NotTls` if the client does not speak TLS."""

    def http_host(self) -> Deferred[HttpHost | NoHost]:
        """The host that an HTTP/1 client asks for; `NoHost` if it names none."""

    def postgres_start(self) -> Deferred[Start]:
        """What a PostgreSQL client says first."""


@runtime_checkable
class Router(Protocol):
    """Chooses the pool of each session.  A function like `route` is a router, too."""

    def route(self, client: Client) -> Any:
        """
        The pool for `client`, or a Deferred of it.  This may be a coroutine (``async def``).

        ``None`` refuses the client.  A Deferred or a coroutine is cancelled when the client
        leaves, and after the handshake timeout.  The code that makes the pools starts and stops
        them.

        :raises evproxy.errors.Refused: to refuse the client; the message is the reason that the
            session ends with.  Any other exception that is not an `EvproxyError` is logged with
            its traceback, and ends the session too.
        """


@runtime_checkable
class SharedPool(Pool, Protocol):
    """A pool that tells its users apart, so that several may share it; a service is one."""

    def start(self, user: object = None) -> None:
        """`user` begins to use the pool; of no concern if it does already."""

    def draining(self, user: object) -> None:
        """`user` drains: it begins no more sessions.  Those that it has must not be ended."""

    def stop(self, user: object = None) -> None:
        """`user` has stopped; with the last one no timer, check or watch is left."""


class SessionStartObserver(Protocol):
    """Is notified when sessions start."""

    def session_started(self, session: SessionStatus) -> None:
        """evproxy has accepted a client; once for each session, before its server is chosen."""


class SessionObserver(Protocol):
    """Is notified of sessions that are over."""

    def session_ended(self, record: SessionRecord) -> None:
        """A session is over; once for each session."""


class TroubleObserver(Protocol):
    """Hears what keeps sessions from being served."""

    def connect_failed(self, upstream: str, error: str) -> None:
        """One attempt to connect to the server named `upstream` failed."""

    def accepting_paused(self, why: str) -> None:
        """Accepting paused: at the bound on sessions, or out of descriptors."""

    def accepting_resumed(self) -> None:
        """Accepting goes on."""


@runtime_checkable
class PressureObserver(Protocol):
    """
    Hears what evproxy itself lacks, for which no server is blamed.

    An observer of a service or a factory is notified of what sessions lack, an observer of a
    pool of what health checks lack.
    """

    def pressure_began(self, what: str, remedy: str) -> None:
        """
        `what` began: once for each period.

        `remedy` names the limit to raise, or where to look.
        """

    def pressure_over(self, what: str) -> None:
        """`what` has not come up for some seconds; once after each `pressure_began`."""


class LogWriterObserver(Protocol):
    """
    Hears what keeps the lines of a log from where they go.

    `where` is a path, or another name of that.
    """

    def log_failed(self, where: str, why: str) -> None:
        """A line could not be written: it waits, and is tried again.  Once for each period."""

    def log_lines_dropped(self, where: str) -> None:
        """So many lines wait that more are dropped from now on."""

    def log_written_again(self, where: str, dropped: int) -> None:
        """Lines are written again; `dropped` of them are missing."""

    def log_not_reopened(self, where: str, why: str) -> None:
        """What has the name now cannot be opened: what was opened before is still written to."""

    def log_lines_lost(self, where: str, lines: int) -> None:
        """The end came before the last `lines` could be written."""


class PoolObserver(Protocol):
    """Hears what happens to the servers of pools."""

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        """
        `server` became ``up``, ``down``, ``ejected``, ``draining``, ``added`` or ``removed``.

        `why` also says until when, and what else keeps sessions away; see ``docs/pools.md``.
        """

    def pool_exhausted(self, pool: str, why: str) -> None:
        """`pool` cannot serve sessions; once for each such period."""

    def discovery_failed(self, pool: str, why: str) -> None:
        """
        A look-up failed; the servers that were discovered before, if any, stay.

        Once for each reason (of the first few) until `discovery_recovered`.
        """

    def discovery_recovered(self, pool: str) -> None:
        """Look-ups succeed again, or nothing is wrong any more with what they find."""


@runtime_checkable
class DiscoveryObserver(PoolObserver, Protocol):
    """A pool observer that tells a look-up that failed from one that found less than it should."""

    def discovery_incomplete(self, pool: str, why: str) -> None:
        """
        The pool has the servers that were discovered; `why` is what is wrong with them.

        A record is left out, say, or there is none.  Once for each reason while it lasts.
        An observer without this method hears `discovery_failed`.
        """


Observer: TypeAlias = (
    SessionObserver
    | SessionStartObserver
    | TroubleObserver
    | PressureObserver
    | PoolObserver
    | DiscoveryObserver
    | LogWriterObserver
)
"""An object with the methods of one or more of these; see `evproxy.hub.Hub`."""


class Probe(Protocol):
    """An active health check: one question to one server."""

    def check(
        self, server: UpstreamServer, done: Callable[[str | Shortage | None], None]
    ) -> Callable[[], None]:
        """
        Ask `server` once.  `done` is called exactly once, with ``None`` if it is well or
        a short reason if it is not, unless the returned cancel function is called before.

        A `Shortage` says that `server` could not be asked, for want of something that is
        evproxy's own: that is no verdict, and the server stays what it was.
        """


@runtime_checkable
class SelfBounded(Probe, Protocol):
    """A probe that bounds each check itself, which may take longer than its timeout."""

    @property
    def longest(self) -> float:
        """Seconds after which `done` was called in any case."""


class Discovery(Protocol):
    """Where the servers of a pool come from at run time."""

    def start(
        self,
        changed: Callable[[Sequence[UpstreamServer]], None],
        failed: Callable[[str], None],
    ) -> None:
        """
        Begin: `changed` gets every new whole set, `failed` a reason when a look-up fails.

        The first `changed` after `failed`, with the same set or another, says that it is
        over.  A server that cannot be in a pool is left out.  An empty set is a set: then the
        pool has no discovered server.  Call `failed` instead, to keep those that it has.
        """

    def stop(self) -> None:
        """End: no timer or connection is left."""


@runtime_checkable
class PartlyFailing(Discovery, Protocol):
    """A discovery that may have new servers while something is wrong with a part of them."""

    @property
    def problems(self) -> Sequence[str]:
        """
        What is wrong with the set of servers that was told last, a reason for each thing.

        Read each time `changed` is called, which is called too when only these are new.
        """
