"""
`ProxyFactory`: proxies whatever a server endpoint accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ClientFactory, Factory, Protocol

from evproxy.config.canonical import MAPPED, canonical_address
from evproxy.config.declare import check_value, keys_of
from evproxy.config.rules import MOST_SESSIONS, Whole
from evproxy.errors import SettingsError
from evproxy.escape import printable
from evproxy.hub import Hub
from evproxy.interfaces import Client, Pool, Router
from evproxy.mirror.mirrors import Mirrors
from evproxy.model import ConnectionInfo
from evproxy.observers import Observer
from evproxy.records import SessionStatus
from evproxy.relay.stages import StagesOfSession
from evproxy.session.admission import Admission
from evproxy.session.arrival import ArrivalContext, is_pool
from evproxy.session.connecting import ConnectContext, Connecting
from evproxy.session.entry import Entry
from evproxy.session.facts import Ended
from evproxy.session.halves import DownstreamProtocol, UpstreamFactory
from evproxy.session.live import MOST_LISTED, check_deadline
from evproxy.session.proxy_header import path_text
from evproxy.session.session import Session, SessionContext
from evproxy.session.trusted import proxies_in
from evproxy.settings import (
    Keepalive,
    ListenerSettings,
    Timeouts,
    in_a_tuple,
    refuse_other,
    several,
)
from evproxy.sockets.closings import hear
from evproxy.sockets.plane import DataPlane
from evproxy.sockets.refusing import Refusing
from evproxy.sockets.tls_server import ServerTLS
from evproxy.sockets.tls_tap import Tap

DEFAULT_MAX_SESSIONS = 4096
"""The bound on sessions of a `ProxyFactory` that is used without a `ProxyService`."""


class _Function:
    """The `Router` that a function is."""

    __slots__ = ("route",)

    def __init__(self, function: Callable[[Client], Any]) -> None:
        self.route = function


def router_of(given: object) -> Router | None:
    """Return `given` as a router; ``None`` if it is a pool."""
    if isinstance(given, Router):
        return given
    return _Function(given) if callable(given) else None


_PROXIES = keys_of(ListenerSettings)["accept_proxy_protocol_from"].setting.rule


class ProxyFactory(Factory):
    """
    Proxies every connection of an endpoint to the servers of a pool.

    Use it like any `Factory`: ``endpoint.listen(ProxyFactory(pool))``.  To bind, drain and stop as
    a service, use `evproxy.ProxyService`, which makes `ProxyFactory` objects.

    To change what a session does, pass objects: a `Router`, observers, and a pool with a balancer,
    a probe or a discovery of your own.  A subclass may still name subclasses of
    `DownstreamProtocol` and of `UpstreamFactory` as its `protocol` and its `upstream_factory`.

    :param pool: the pool that has the upstream servers, or a `Router` that chooses the pool of
        each session: an object, or a function.
    :param reactor: Twisted's.  Required unless there is a `plane`, or `pool` is an `evproxy.Pool`;
        the default is then the reactor of that object.
    :param listener: the name of the listener in logs.
    :param timeouts: seconds; `Timeouts()` by default.
    :param relay: ``auto``, ``stream`` or ``socket``.
    :param observers: are notified of the events that they have methods for: `evproxy.Observer`.
    :param troubles: more observers.
    :param max_sessions: the most sessions at once.  At the bound, evproxy's own ports pause, and
        evproxy resets connections of other ports.
    :param accept_proxy_protocol_from: networks of proxies that must send a PROXY header; see
        `ListenerSettings`.
    :param tls: begins TLS with clients; ``None``: evproxy ends none.
    :param tls_by_router: whether the router says when TLS begins.
    :param inside_tls: whether PROXY headers come inside TLS.
    :param tap: makes what sees the TLS records of a client: `evproxy.recording.recordings.Recorder`
        has one.  ``None``: nobody sees them.
    :param admission: counts sessions; the factories of a service share it, as they do `plane`.
    :param plane: makes sockets and joins them.
    :param hub: calls the observers; used in place of `observers` and `troubles`.
    :param stages: each makes the stages of a session, from its `SessionStatus`: a
        `evproxy.faults.Faults`, or what `evproxy.stages.filtered` returns.
    :param mirrors: copies the sessions of pools with a `evproxy.Mirror`; by default, each of these
        names its second pool as `to`.
    :param entry: decides which clients get a session; ``None``: all of them.
    :param measure: is called with the facts about each session that has ended, for metrics.
    :raises TypeError: if there is no reactor.
    :raises SettingsError: if an argument is wrong, or if it is not known what the second pool of a
        mirror is.
    """

    noisy = False
    protocol: Callable[[ConnectionInfo], Protocol] = DownstreamProtocol
    upstream_factory: Callable[[Connecting], ClientFactory] = UpstreamFactory

    def __init__(
        self,
        pool: Pool | Router | Callable[[Client], Any],
        *,
        reactor: Any = None,
        listener: str = "",
        timeouts: Timeouts | None = None,
        relay: str = "auto",
        observers: Sequence[Observer] = (),
        troubles: Sequence[Observer] = (),
        max_sessions: int = DEFAULT_MAX_SESSIONS,
        accept_proxy_protocol_from: Sequence[str] = (),
        tls: ServerTLS | None = None,
        tls_by_router: bool = False,
        inside_tls: bool = False,
        admission: Admission | None = None,
        plane: DataPlane | None = None,
        hub: Hub | None = None,
        entry: Entry | None = None,
        stages: Sequence[StagesOfSession] = (),
        mirrors: Mirrors | None = None,
        measure: Callable[[Ended], None] | None = None,
        tap: Callable[[int, Any], Tap] | None = None,
    ) -> None:
        if reactor is None:
            reactor = getattr(pool if plane is None else plane, "reactor", None)
        if reactor is None:
            raise TypeError("ProxyFactory: a pool that is not an evproxy.Pool needs reactor=")
        if timeouts is not None:
            refuse_other("timeouts", timeouts, Timeouts)
        proxies = in_a_tuple(accept_proxy_protocol_from)
        check_value(_PROXIES, proxies, ("accept_proxy_protocol_from",))
        stages = several("stages", stages)
        for number, each in enumerate(stages):
            if not callable(each):
                raise SettingsError(f"stages[{number}]: expected a function, got {each!r}")
        if hub is None:
            hub = Hub((*observers, *troubles))
        self._owned: list[Admission | DataPlane] = []
        if admission is None:
            check_value(Whole(1, MOST_SESSIONS), max_sessions, ("max_sessions",))
            admission = Admission(reactor, max_sessions, hub)
            self._owned.append(admission)
        if plane is None:
            plane = DataPlane(reactor, relay, admission, Keepalive())
            self._owned.append(plane)
        self._owns_mirrors = mirrors is None
        if mirrors is None:
            refuse_unknown_mirror(pool)
            mirrors = Mirrors(reactor, hub, plane)
        self.mirrors = mirrors
        self.admission = admission
        self._draining = False
        router = router_of(pool)
        if router is None and not is_pool(pool):
            raise SettingsError(
                f"pool: expected a Pool, or a route that chooses one, got {type(pool).__name__}"
            )
        self.context = SessionContext(
            clock=reactor,
            arrival=ArrivalContext(
                pool=cast(Pool, pool) if router is None else None,
                router=router,
                is_proxy=proxies_in(proxies),
                entry=entry,
                tls=tls,
                tls_by_router=tls_by_router,
                header_inside_tls=inside_tls,
                tap=tap,
            ),
            connects=ConnectContext(
                clock=reactor,
                sockets=plane.sockets,
                upstream_factory=self.upstream_factory,
                observer=hub,
                short=admission.short,
                stages=stages,
            ),
            plane=plane,
            deadlines=plane.deadlines,
            timeouts=Timeouts() if timeouts is None else timeouts,
            ended=admission.closed,
            listener=printable(listener),
            hub=hub,
            prefix=admission.sessions.prefix,
            count=admission.sessions.of_listener(listener),
            all_sessions=admission.sessions.__len__,
            measure=measure,
            stages=stages,
            mirrors=mirrors,
        )

    def buildProtocol(self, addr: Any) -> Any:
        """Return a half for the client at `addr`; over the bound, a protocol that refuses it."""
        admission = self.admission
        if len(admission.sessions.by_id) >= admission.limit or self._draining:
            return Refusing()
        if isinstance(addr, UNIXAddress):
            host, port = _path(addr), 0
        else:
            host, port = getattr(addr, "host", ""), getattr(addr, "port", 0)
            # The kernel has one form for each address, except for IPv4 clients of a listener for
            # both families.
            if host.startswith(MAPPED):
                host = canonical_address(host)
        context = self.context
        arrival = context.arrival
        if arrival.entry is not None:
            is_proxy = arrival.is_proxy
            # The client of a proxy is known only after its header.
            behind_proxy = is_proxy is not None and is_proxy(host, port)
            if not behind_proxy and arrival.entry.turned_away(host):
                return Refusing()
        protocol = self.protocol(ConnectionInfo(host, port, context.listener))
        protocol.factory = protocol.proxy = self  # type: ignore[attr-defined]
        return protocol

    def startFactory(self) -> None:
        """Called by Twisted when the first port of the factory listens: accept clients."""
        self._draining = False

    def renew(self, other: ProxyFactory) -> None:
        """Serve new clients as `other` does.  Sessions that have begun keep what they have."""
        self.context = other.context

    def drain(self, deadline: float | None = None) -> Deferred[None]:
        """
        Refuse new clients, and let the running sessions finish.

        Stop the factory's ports first: a client that connects to a listening port is reset.  If
        factories share an `admission`, each waits for the sessions of all of them.

        :param deadline: seconds after which the remaining sessions are reset; ``None``: never.
        :return: fires when no session is left, and no copy of one.
        :raises SettingsError: if `deadline` is neither.
        """
        check_deadline(deadline)
        self._draining = True
        drained = self.admission.sessions.drain(deadline, succeed(None))
        return drained.addCallback(self._close)

    def _close(self, _: object) -> Deferred[None]:
        copied = self.mirrors.close() if self._owns_mirrors else succeed(None)
        return copied.addCallback(self._close_owned)

    def _close_owned(self, _: object) -> None:
        for owned in self._owned:
            owned.close()

    def abort(self) -> None:
        """Reset every session now."""
        self.admission.sessions.abort()

    def sessions(self, most: int = MOST_LISTED) -> tuple[SessionStatus, ...]:
        """
        Return snapshots of the `most` oldest sessions, the oldest first.

        256 sessions take about a millisecond.
        """
        return self.admission.sessions.status(most)

    def end_session(self, session_id: int) -> None:
        """
        Reset both sides of the session with the `SessionStatus.id` `session_id`.

        :raises LookupError: if there is no such session, or no longer.
        """
        self.admission.sessions.end(session_id)

    def begin(self, downstream: DownstreamProtocol) -> Session:
        """Start the session of a client that is connected."""
        context = self.context
        session = Session(context, downstream, downstream.info)
        self.admission.opened(session)
        context.count.sessions += 1
        if context.hub.starts:
            context.hub.session_started(session.status(session.started))
        hear(downstream)
        session.start()
        return session


def refuse_unknown_mirror(pool: object) -> None:
    """
    Refuse `pool` if it has a mirror that names its second pool, where there is no pool by name.

    :raises SettingsError: says how to give the second pool.
    """
    mirror = getattr(pool, "mirror", None)
    if mirror is not None and mirror.to is None:
        raise SettingsError(
            f"mirror: which pool is {mirror.pool!r}? Pass the pool itself, as Mirror(..., to=POOL)"
        )


def _path(address: UNIXAddress) -> str:
    return path_text(address.name) if address.name else ""
