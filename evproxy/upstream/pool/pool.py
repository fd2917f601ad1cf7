"""
A named group of upstream servers and the policy that picks one.

The pool puts the parts together: the servers and how they are (`members`), which of them
may be picked (`selection`), who waits for a slot (`waiting_line`), the sessions of servers that
go down (`resetter`), and what is told of all that (`announcements`).  It satisfies
`evproxy.interfaces.Pool`, and has the API to change a pool while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from random import Random
from typing import Self

from attrs import asdict
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.errors import NoServerAvailable, SettingsError
from evproxy.interfaces import (
    Balancer,
    Dialer,
    Discovery,
    PartlyFailing,
    PoolObserver,
    PoolSession,
    Probe,
    Server,
    Waiter,
)
from evproxy.model import CloseReason, ConnectionInfo, UpstreamServer, upstream_server
from evproxy.policy.balance.by_name import balancer_named
from evproxy.policy.sources import Sources
from evproxy.settings import Discover, Ejection, HealthCheck, PoolSettings, in_a_tuple
from evproxy.upstream.names import Names
from evproxy.upstream.pool.announcements import News
from evproxy.upstream.pool.defaults import dialers_on, discoveries_on, probes_on
from evproxy.upstream.pool.members import Members
from evproxy.upstream.pool.resetter import Resetter
from evproxy.upstream.pool.selection import Selection
from evproxy.upstream.pool.server import PoolServer, ServerStatus
from evproxy.upstream.pool.users import Users
from evproxy.upstream.pool.waiting_line import Places, WaitingLine
from evproxy.upstream.probes.probe import check_probe
from evproxy.upstream.reasons import left_out, nothing_left

_log = Logger()


class Pool:
    """
    Upstream servers, their health and who is picked; an `evproxy.interfaces.Pool`.

    The keywords from `name` to `discover` are the fields of `evproxy.settings.PoolSettings`,
    with the same defaults; three of them also take an object of your own.

    :param reactor: tells the time and calls later.
    :param servers: values, or endpoints as in `UpstreamServer.endpoint`.
    :param dialer_for: makes the `Dialer` of a server, once for each; ``None``: as its
        endpoint says.
    :param balance: the name of a policy, or a `Balancer`.
    :param health_check: what to ask and when, or a `Probe`; ``None``: no active checks.
    :param ejection: ``None``: no passive health.
    :param discover: where more servers come from, or a `Discovery`; ``None``: nowhere.
    :param check_timing: when to ask a `Probe` of your own, and its rise and fall.
    :param probe_for: makes the `Probe` of a `HealthCheck`; ``None``: of the kind it names.
    :param discovery_for: makes the `Discovery` of a `Discover`; ``None``: likewise.
    :param random: jitter of checks and the draws of policies; ``None``: one of its own.
    :param names: resolves host names, for sessions, checks and etcd; ``None``: names of its own.
    :param observer: hears of changes; ``None``: nobody does, unless a `ProxyService` is
        given the pool, which then logs them.
    :raises SettingsError: if an argument is not one of those it can be, or a server is
        given twice, or can never pass the check.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        servers: Iterable[str | UpstreamServer] = (),
        *,
        dialer_for: Callable[[UpstreamServer], Dialer] | None = None,
        name: str = "default",
        balance: str | Balancer = "round-robin",
        connect_timeout: float = 5.0,
        connect_attempts: int = 3,
        queue_timeout: float = 5.0,
        queue_size: int = 1024,
        slow_start: float = 0.0,
        on_down: str = "keep",
        all_down: str = "refuse",
        source: str | Sequence[str] = (),
        health_check: HealthCheck | Probe | None = None,
        ejection: Ejection | None = None,
        discover: Discover | Discovery | None = None,
        check_timing: HealthCheck | None = None,
        probe_for: Callable[[HealthCheck], Probe] | None = None,
        discovery_for: Callable[[Discover], Discovery] | None = None,
        random: Random | None = None,
        names: Names | None = None,
        observer: PoolObserver | None = None,
    ) -> None:
        # What is wrong with one of these is told there.
        PoolSettings(
            connect_timeout=connect_timeout,
            connect_attempts=connect_attempts,
            queue_timeout=queue_timeout,
            queue_size=queue_size,
            slow_start=slow_start,
            on_down=on_down,
            all_down=all_down,
            source=in_a_tuple(source),
        )
        sources = Sources(in_a_tuple(source)) if source else None
        random = random if random is not None else Random()
        policy = balancer_named(balance, random) if isinstance(balance, str) else balance
        self.reactor = reactor
        self.name = name
        self.connect_timeout = connect_timeout
        self.connect_attempts = connect_attempts
        self._own_names = None
        if names is None:
            names = self._own_names = Names(reactor)
        self._dialer_for = dialer_for or dialers_on(reactor, names, sources)
        self._users = Users()
        self._stopped = False
        self._news = News(reactor, name, observer)
        self._members = Members(
            reactor, self._make, slow_start, self._news.server_changed, self._changed
        )
        self._selection = Selection(
            reactor, self._members, policy, slow_start, all_down == "try", self._news.exhausted
        )
        places = Places(reactor, queue_timeout, queue_size)
        self._line = WaitingLine(reactor, places, self._selection, self._news.overflowed)
        self._resetter = Resetter(reactor) if on_down == "reset" else None
        # A check of your own, or one made by `probe_for`, is judged by nobody.
        self._check = health_check if probe_for is None else None
        if isinstance(health_check, HealthCheck):
            probe = (probe_for or probes_on(reactor, names, sources))(health_check)
            self._members.check(probe, health_check, random, self._news.checks_short)
        elif health_check is not None:
            timing = check_timing or HealthCheck()
            self._members.check(health_check, timing, random, self._news.checks_short)
        if ejection is not None:
            self._members.eject(ejection)
        self._ejector = self._members.ejector
        self._discovery: Discovery | None
        if isinstance(discover, Discover):
            self._discovery = (discovery_for or discoveries_on(reactor, random, names))(discover)
        else:
            self._discovery = discover
        for server in servers:
            spec = upstream_server(server)
            self._refuse_unfit(spec)
            self._members.found(spec)
        self._selection.refresh()
        # Nothing runs yet that it could hold up.
        self._selection.complete()

    @classmethod
    def from_settings(
        cls,
        reactor: IReactorTime,
        settings: PoolSettings,
        *,
        dialer_for: Callable[[UpstreamServer], Dialer] | None = None,
        probe_for: Callable[[HealthCheck], Probe] | None = None,
        discovery_for: Callable[[Discover], Discovery] | None = None,
        random: Random | None = None,
        names: Names | None = None,
        observer: PoolObserver | None = None,
    ) -> Self:
        """The pool that `settings` describe; the other arguments are those of the class."""
        given = asdict(settings, recurse=False)
        return cls(
            reactor,
            given.pop("upstreams"),
            dialer_for=dialer_for,
            probe_for=probe_for,
            discovery_for=discovery_for,
            random=random,
            names=names,
            observer=observer,
            **given,
        )

    def hear_if_nobody_does(self, observer: PoolObserver) -> None:
        """`observer` hears of changes from now on, unless the pool has one already."""
        if self._news.observer is None:
            self._news.observer = observer

    # What a session calls.

    def candidates(self, info: ConnectionInfo) -> Iterator[PoolServer]:
        """The servers to try for one session, best first, none twice; lazily."""
        selection = self._selection
        if selection.stale:
            selection.refresh()
        if not selection.usable and not selection.refusing:
            selection.refuse()
        if self._line.due is not None and self._line.comes_first():
            return iter(())
        return selection.walk(info)

    def wait(
        self,
        info: ConnectionInfo,
        ready: Callable[[], None],
        gave_up: Callable[[Exception], None],
        tried: Collection[Server] = (),
    ) -> Waiter:
        """
        Wait for a slot for the client of `info`, which `ready` is called for.

        `gave_up` is called after `queue_timeout`, or once no server can help it any more.

        :raises NoServerAvailable: if no server but those `tried` can help it, or the queue is
            full; the message says which.
        """
        if self._stopped:
            raise NoServerAvailable(f"pool {self.name} has stopped")
        return self._line.join(info, ready, gave_up, tried)

    def claim(self, server: Server, session: PoolSession) -> None:
        """`session` takes a slot of `server` and starts to connect."""
        assert isinstance(server, PoolServer)
        server.sessions += 1
        server.sessions_total += 1
        if self._selection.load_changed is not None:
            self._selection.load_changed(server)
        if server.held is not None:
            server.held.add(session)

    def connected(self, server: Server, seconds: float) -> None:
        """The connect succeeded, `seconds` after it began."""
        assert isinstance(server, PoolServer)
        server.took(seconds)
        if self._ejector is not None:
            self._ejector.connected(server)
        if self._resetter is not None and server.late and not self._stopped:
            self._resetter.connected(server)

    def connect_failed(self, server: Server, session: PoolSession, reason: Failure) -> None:
        """The connect failed: the slot is free again, and the server is blamed."""
        assert isinstance(server, PoolServer)
        server.connect_failures += 1
        # Else a server that is dead since it was fast would stay the fastest.
        server.took(self.connect_timeout)
        try:
            if self._ejector is not None:
                self._ejector.connect_failed(server, reason)
        finally:
            self._release(server, session)

    def abandoned(self, server: Server, session: PoolSession) -> None:
        """The client left while connecting, or evproxy lacked something: no blame."""
        assert isinstance(server, PoolServer)
        self._release(server, session)

    def ended(
        self, server: Server, session: PoolSession, reason: CloseReason, answered: bool
    ) -> None:
        """The session ended: the slot is free again.  `answered`: the server sent a byte."""
        assert isinstance(server, PoolServer)
        try:
            if self._ejector is not None:
                self._ejector.ended(server, reason, answered)
        finally:
            self._release(server, session)

    # What the service calls.

    def start(self, user: object = None) -> None:
        """
        Begin health checks and discovery, unless another user of the pool has.

        :param user: who starts it, and will stop it: anything hashable.  To start it again
            only ends the draining of this user.  ``None``: somebody that is not told apart;
            then each `start` needs a `stop` of its own.
        """
        first = not self._users
        self._users.add(user)
        if first:
            self._stopped = False
            self._members.start()
        self._members.begin_checks()
        if first and self._discovery is not None:
            self._discovery.start(self._discovered, self._news.discovery_failed)

    def draining(self, user: object) -> None:
        """
        `user`, which has started the pool, drains: it begins no more sessions.

        While all users drain, no server is checked, so that none goes down and sessions are
        left to come to their end, even where the servers stop as well.  Everything else goes
        on: the queue, ejection (which ends no session) and discovery (neither does a server
        that leaves).
        """
        self._users.drains(user)
        if not self._users.serving:
            self._members.end_checks()

    def stop(self, user: object = None) -> None:
        """
        `user` uses the pool no more; with the last one no timer, check or watch is left.

        Those who wait give up then.  Who has not started the pool takes nothing from others.
        """
        ran = bool(self._users)
        self._users.remove(user)
        if self._users:
            if not self._users.serving:
                self._members.end_checks()
            return
        self._stopped = True
        if ran and self._discovery is not None:
            try:
                self._discovery.stop()
            except Exception:
                _log.failure("Could not stop the discovery of pool {pool}", pool=self.name)
        self._members.stop()
        self._selection.stop()
        if self._resetter is not None:
            self._resetter.stop()
        self._line.stop(f"pool {self.name} has stopped")
        self._news.stop()
        if self._own_names is not None:
            self._own_names.stop()

    # What users call.

    @property
    def servers(self) -> tuple[ServerStatus, ...]:
        """What each server is like now; those that left but still have sessions come last."""
        if self._selection.stale:
            self._selection.refresh()
        everyone = (*self._members, *self._members.leaving())
        return tuple(server.status() for server in everyone)

    def add(self, server: str | UpstreamServer) -> None:
        """
        Sessions may go to `server` too; one that comes back keeps its statistics.

        :raises SettingsError: if it is in the pool already, or can never pass its check.
        """
        spec = upstream_server(server)
        self._refuse_unfit(spec)
        self._members.join(spec, False, "by request")

    def remove(self, name: str) -> None:
        """
        The server called `name` leaves: its sessions go on, new ones do not come.

        A discovered one comes back with the next set of servers that it is in.

        :raises LookupError: if it is not in the pool.
        """
        self._members.leave(name, "by request")

    def drain(self, name: str) -> None:
        """
        The server called `name` stays, but gets no new sessions until it is resumed.

        :raises LookupError: if it is not in the pool.
        """
        self._members.drain(name, True)

    def resume(self, name: str) -> None:
        """
        The server called `name` gets new sessions again, after `drain`.

        :raises LookupError: if it is not in the pool.
        """
        self._members.drain(name, False)

    def set_weight(self, name: str, weight: int) -> None:
        """
        The server called `name` has the weight `weight` (0 to 256; 0: no new sessions).

        It stays so until discovery gives the server another value than before.

        :raises LookupError: if it is not in the pool.
        :raises SettingsError: if the weight cannot be.
        """
        self._members.weigh(name, weight)

    def set_servers(self, servers: Sequence[UpstreamServer]) -> None:
        """
        `servers` are all that discovery knows: new ones join, those that are gone leave.

        Servers that the pool was made with, or that were added, stay as they are.

        :raises SettingsError: if one cannot be in a pool; then nothing has changed.
        """

        def refuse(error: SettingsError) -> None:
            raise error

        self._members.discovered(servers, refuse)

    # What the parts call.

    def _refuse_unfit(self, spec: UpstreamServer) -> None:
        if isinstance(self._check, HealthCheck):
            check_probe(self._check, spec.endpoint)

    def _make(self, spec: UpstreamServer) -> PoolServer:
        held: set[PoolSession] | None = None if self._resetter is None else set()
        return PoolServer(spec, self._dialer_for(spec), self.reactor.seconds, held=held)

    def _changed(self, server: PoolServer) -> None:
        self._selection.stale = True
        if not self._stopped:
            self._line.look_soon()
        if self._resetter is not None:
            self._resetter.changed(server)

    def _discovered(self, servers: Sequence[UpstreamServer]) -> None:
        refused: list[SettingsError] = []
        if not self._members.discovered(servers, refused.append):
            self._news.discovery_failed(nothing_left([str(error) for error in refused]))
            return
        discovery = self._discovery
        problems = discovery.problems if isinstance(discovery, PartlyFailing) else ()
        self._news.discovered([*problems, *(left_out(str(error)) for error in refused)])

    def _release(self, server: PoolServer, session: PoolSession) -> None:
        was_full = server.sessions >= server.limit
        server.sessions -= 1
        if server.held is not None:
            server.held.discard(session)
            server.late.discard(session)
        try:
            if self._selection.load_changed is not None:
                self._selection.load_changed(server)
        finally:
            # Those who wait could not use a slot that was free before.
            if was_full:
                self._line.freed(server)
            if server.leaving and not server.sessions:
                self._members.left(server, "its last session has ended")
