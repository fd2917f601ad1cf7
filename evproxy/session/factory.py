"""
`ProxyFactory`: proxies whatever a server endpoint accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import ClientFactory, Factory, Protocol

from evproxy.config.canonical import MAPPED, canonical_address
from evproxy.escape import escaped, printable
from evproxy.interfaces import Pool, Router, SessionObserver, TroubleObserver
from evproxy.model import ConnectionInfo
from evproxy.session.admission import Admission
from evproxy.session.connecting import ConnectContext, Connecting
from evproxy.session.halves import DownstreamProtocol, Refusing, UpstreamFactory
from evproxy.session.session import Session, SessionContext
from evproxy.settings import Keepalive, Timeouts
from evproxy.sockets.closings import hear
from evproxy.sockets.plane import DataPlane

DEFAULT_MAX_SESSIONS = 4096
"""The bound on sessions of a `ProxyFactory` that is used without a `ProxyService`."""


class OnePool:
    """The `Router` that sends every session to the same pool."""

    __slots__ = ("_pool",)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def route(self, info: ConnectionInfo) -> Pool:
        """The pool."""
        return self._pool


class ProxyFactory(Factory):
    """
    Proxies every connection that it is given to the servers of a pool.

    Use it like any `Factory`: ``endpoint.listen(ProxyFactory(pool))``.  To bind, drain
    and stop as a service, use `evproxy.ProxyService`, which makes these.

    To change what a session does, pass objects: a `Router`, observers, and a pool with a balancer,
    a probe or a discovery of your own.  A subclass may still name subclasses of
    `DownstreamProtocol` and of `UpstreamFactory` as its `protocol` and its `upstream_factory`.

    :param pool: where upstream servers come from, or a `Router` that chooses the pool of each
        session.
    :param reactor: tells the time and relays.  Required unless there is a `plane`, or `pool`
        is an `evproxy.Pool`, whose own it is then.
    :param listener: the name of the listener in logs.
    :param timeouts: seconds; `Timeouts()` by default.
    :param relay: ``auto``, ``stream`` or ``socket``.
    :param observers: hear of the ends of sessions.
    :param troubles: hear of connects that failed, and of pauses.
    :param max_sessions: the most sessions at once.  At the bound, ports that evproxy made
        pause, and connections from others are refused.
    :param admission: counts sessions; shared by the factories of a service, with `plane`.
    :param plane: makes sockets and joins them.
    :raises TypeError: if there is no reactor.
    """

    noisy = False
    protocol: Callable[[ConnectionInfo], Protocol] = DownstreamProtocol
    upstream_factory: Callable[[Connecting], ClientFactory] = UpstreamFactory

    def __init__(
        self,
        pool: Pool | Router,
        *,
        reactor: Any = None,
        listener: str = "",
        timeouts: Timeouts | None = None,
        relay: str = "auto",
        observers: Sequence[SessionObserver] = (),
        troubles: Sequence[TroubleObserver] = (),
        max_sessions: int = DEFAULT_MAX_SESSIONS,
        admission: Admission | None = None,
        plane: DataPlane | None = None,
    ) -> None:
        if reactor is None:
            reactor = getattr(pool if plane is None else plane, "reactor", None)
        if reactor is None:
            raise TypeError("ProxyFactory: a pool that is not an evproxy.Pool needs reactor=")
        hearing = list(troubles)
        if admission is None:
            admission = Admission(reactor, max_sessions, hearing)
        if plane is None:
            plane = DataPlane(reactor, relay, admission, Keepalive())
        self.admission = admission
        self.context = SessionContext(
            clock=reactor,
            router=pool if isinstance(pool, Router) else OnePool(pool),
            connects=ConnectContext(
                clock=reactor,
                sockets=plane.sockets,
                upstream_factory=self.upstream_factory,
                troubles=hearing,
                short=admission.short,
            ),
            plane=plane,
            deadlines=plane.deadlines,
            timeouts=Timeouts() if timeouts is None else timeouts,
            ended=admission.closed,
            listener=printable(listener),
            observers=list(observers),
        )

    def buildProtocol(self, addr: Any) -> Any:
        """A half for the client at `addr`; at the bound on sessions, one that closes it."""
        admission = self.admission
        if len(admission.sessions) >= admission.limit:
            return Refusing()
        if isinstance(addr, UNIXAddress):
            host, port = _path(addr), 0
        else:
            host, port = getattr(addr, "host", ""), getattr(addr, "port", 0)
            # The kernel writes every address in one way, but for those of IPv4 clients of a
            # listener for both families.
            if host.startswith(MAPPED):
                host = canonical_address(host)
        protocol = self.protocol(ConnectionInfo(host, port, self.context.listener))
        protocol.factory = protocol.proxy = self  # type: ignore[attr-defined]
        return protocol

    def begin(self, downstream: DownstreamProtocol) -> Session:
        """Start the session of a client that is connected."""
        session = Session(self.context, downstream, downstream.info)
        self.admission.opened(session)
        hear(downstream)
        session.start()
        return session


def _path(address: UNIXAddress) -> str:
    name = address.name
    return escaped(name.decode("utf-8", "surrogateescape")) if name else ""
