"""
The contracts with the objects of users.

A router, a pool, a balancer, a health check, a discovery or a dialer of your own is a plain object
that satisfies the protocol here.  It inherits nothing.  Observers are in `evproxy.observers`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from evproxy.errors import Shortage
from evproxy.model import CloseReason, ConnectionInfo, Ending, Phase, Side, UpstreamServer
from evproxy.policy.balance.candidate import Balancer as Balancer
from evproxy.policy.balance.candidate import Candidate as Candidate
from evproxy.policy.sources import Sources
from evproxy.records import SessionStatus
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


Dial = Callable[[float], IConnector | None]
"""Connects to a server, with a timeout in seconds; returns ``None`` if the session is over."""


class ConnectFault(Protocol):
    """
    What a fault does to one connect.

    `resets_client`: whether the client is reset, and no server is asked.
    """

    @property
    def resets_client(self) -> bool: ...

    def connect(self, factory: ClientFactory, timeout: float, dial: Dial) -> IConnector | None:
        """
        Do what `Dialer.connect` does, in place of `dial` or before it.

        `dial` connects, and notifies `factory`.
        """


class ConnectFaults(Protocol):
    """Injects faults into connects: what some of the `stages` of a listener or a pool can do."""

    def of_connect(self, status: SessionStatus) -> ConnectFault | None:
        """
        What is to happen to the connect that a session is about to make; ``None``: nothing.

        :param status: what is known of the session; `upstream` is the server.
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
