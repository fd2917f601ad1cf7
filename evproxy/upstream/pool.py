"""
A named group of upstream servers and the policy that picks one.

The pool puts the parts together: the servers and how they are (`members`), which of them
may be picked (`selection`), and who waits for a slot (`waiting`).  It satisfies
`evproxy.interfaces.Pool`, and has the API to change a pool while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from math import inf
from operator import length_hint
from random import Random
from typing import Any, Self

from attrs import asdict
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

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
from evproxy.model import CloseReason, ConnectionInfo, Ending, Phase, Side, UpstreamServer
from evproxy.policy.balance import balancer_named
from evproxy.settings import Discover, Ejection, HealthCheck, PoolSettings
from evproxy.upstream.members import Members
from evproxy.upstream.reasons import reason_of
from evproxy.upstream.selection import Selection
from evproxy.upstream.server import PoolServer, ServerStatus
from evproxy.upstream.standard import dialers_on, discoveries_on, probes_on
from evproxy.upstream.waiting import WaitingLine

_log = Logger()

_BATCH = 32
"""Sessions woken or ended in one turn of the reactor, where it could be all of them."""

_MOST_FAILURES = 16
"""Different failures of discovery that are told until it works again."""

_QUIET = 10.0
"""Seconds without a session turned away that end a period in which every server is full."""


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
    :param observer: hears of changes; ``None``: nobody does, unless a `ProxyService` is
        given the pool, which then logs them.
    :raises SettingsError: if an argument is not one of those it can be, or a server is
        given twice.
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
        health_check: HealthCheck | Probe | None = None,
        ejection: Ejection | None = None,
        discover: Discover | Discovery | None = None,
        check_timing: HealthCheck | None = None,
        probe_for: Callable[[HealthCheck], Probe] | None = None,
        discovery_for: Callable[[Discover], Discovery] | None = None,
        random: Random | None = None,
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
        )
        random = random if random is not None else Random()
        policy = balancer_named(balance, random) if isinstance(balance, str) else balance
        self.reactor = reactor
        self.name = name
        self.connect_timeout = connect_timeout
        self.connect_attempts = connect_attempts
        self._dialer_for = dialer_for or dialers_on(reactor)
        self._resets = on_down == "reset"
        self._observer = observer
        self._calls: set[IDelayedCall] = set()
        self._users = 0
        self._stopped = False
        self._waking = self._wake_is_due = False
        self._refusing = False
        self._failures: set[str] = set()
        self._overflowed = -inf
        self._line = WaitingLine(reactor, queue_timeout, queue_size)
        self._selection = Selection(reactor, policy, slow_start, all_down == "try")
        self._members = Members(reactor, self._make, slow_start, self._announce, self._changed)
        if isinstance(health_check, HealthCheck):
            probe = (probe_for or probes_on(reactor))(health_check)
            self._members.check(probe, health_check, random)
        elif health_check is not None:
            self._members.check(health_check, check_timing or HealthCheck(), random)
        if ejection is not None:
            self._members.eject(ejection)
        self._ejector = self._members.ejector
        self._discovery: Discovery | None
        if isinstance(discover, Discover):
            self._discovery = (discovery_for or discoveries_on(reactor, random))(discover)
        else:
            self._discovery = discover
        for server in servers:
            self._members.found(_spec(server))
        self._selection.refresh(self._members)
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
            observer=observer,
            **given,
        )

    def hear_if_nobody_does(self, observer: PoolObserver) -> None:
        """`observer` hears of changes from now on, unless the pool has one already."""
        if self._observer is None:
            self._observer = observer

    # What a session calls.

    def candidates(self, info: ConnectionInfo) -> Iterator[PoolServer]:
        """The servers to try for one session, best first, none twice; lazily."""
        selection = self._selection
        if selection.stale:
            self._refresh()
        if not selection.usable and not self._refusing:
            self._refuse()
        if self._wake_is_due and self._line and self._line.has_place and not self._waking:
            # Whoever comes in the turn before those who wait are woken waits behind them.
            return iter(())
        return selection.walk(info)

    def wait(
        self,
        ready: Callable[[], None],
        gave_up: Callable[[Exception], None],
        tried: Collection[Server] = (),
    ) -> Waiter | None:
        """
        Wait for a slot, which `ready` is called for, within `queue_timeout`.

        ``None`` if no server but those `tried` is usable, or the queue is full.
        """
        selection = self._selection
        if selection.stale:
            self._refresh()
        if self._stopped or not (selection.usable or selection.panic):
            return None
        if tried and not any(selection.may_serve(s) and s not in tried for s in self._members):
            return None
        place = self._line.join(ready, gave_up)
        if place is None:
            self._overflow()
        return place

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
        if server.late and not self._stopped:
            arrived = [late for late in server.late if late.phase is not Phase.CONNECTING]
            self._soon(self._reset_sessions, server, iter(arrived))

    def connect_failed(self, server: Server, session: PoolSession, reason: Failure) -> None:
        """The connect failed: the slot is free again, and the server is blamed."""
        assert isinstance(server, PoolServer)
        server.connect_failures += 1
        # Else a server that is dead since it was fast would stay the fastest.
        server.took(self.connect_timeout)
        try:
            if self._ejector is not None:
                self._ejector.connect_failed(server, reason_of(reason))
        finally:
            self._release(server, session)

    def abandoned(self, server: Server, session: PoolSession) -> None:
        """The client left while connecting: the slot is free again; no blame."""
        assert isinstance(server, PoolServer)
        self._release(server, session)

    def ended(
        self, server: Server, session: PoolSession, reason: CloseReason, answered: bool
    ) -> None:
        """The session ended: the slot is free again.  `answered`: the server sent a byte."""
        assert isinstance(server, PoolServer)
        try:
            if self._ejector is not None:
                if answered:
                    self._ejector.answered(server)
                elif reason.by is Side.UPSTREAM and reason.how is Ending.RESET:
                    self._ejector.reset_early(server)
        finally:
            self._release(server, session)

    # What the service calls.

    def start(self) -> None:
        """Begin health checks and discovery, unless another user of the pool has."""
        self._users += 1
        if self._users > 1:
            return
        self._stopped = False
        self._members.start()
        if self._discovery is not None:
            self._discovery.start(self._discovered, self._discovery_failed)

    def stop(self) -> None:
        """
        No timer, check or watch is left; those who wait give up.

        A pool that was started more than once goes on until it is stopped as often.
        """
        if self._users > 1:
            self._users -= 1
            return
        self._stopped = True
        if self._users and self._discovery is not None:
            try:
                self._discovery.stop()
            except Exception:
                _log.failure("Could not stop the discovery of pool {pool}", pool=self.name)
        self._users = 0
        self._members.stop()
        self._selection.stop()
        for call in self._calls:
            call.cancel()
        self._calls.clear()
        self._wake_is_due = False
        self._line.dissolve(f"pool {self.name} has stopped", len(self._line))

    # What users call.

    @property
    def servers(self) -> tuple[ServerStatus, ...]:
        """What each server is like now; those that left but still have sessions come last."""
        if self._selection.stale:
            self._refresh()
        everyone = (*self._members, *self._members.leaving())
        return tuple(server.status() for server in everyone)

    def add(self, server: str | UpstreamServer) -> None:
        """
        Sessions may go to `server` too; one that comes back keeps its statistics.

        :raises SettingsError: if it is in the pool already.
        """
        self._members.join(_spec(server), False, "by request")

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
        """
        self._members.discovered(servers)

    # What happens to the servers.

    def _make(self, spec: UpstreamServer) -> PoolServer:
        held: set[PoolSession] | None = set() if self._resets else None
        return PoolServer(spec, self._dialer_for(spec), self.reactor.seconds, held=held)

    def _announce(self, server: PoolServer, state: str, why: str) -> None:
        self._tell(lambda observer: observer.server_changed(self.name, server.name, state, why))

    def _changed(self, server: PoolServer) -> None:
        self._selection.stale = True
        if self._line and not self._stopped:
            self._wake_soon()
        if not server.down:
            server.late.clear()
        if server.held and server.down and not server.found_down:
            self._reset_sessions(server, iter(list(server.held)))
        server.found_down = server.down

    def _refresh(self) -> None:
        self._selection.refresh(self._members)
        if self._selection.usable:
            self._refusing = False

    def _refuse(self) -> None:
        self._refusing = True
        self._exhausted(self._why_not())

    def _why_not(self) -> str:
        if not len(self._members):
            return "it has no servers"
        return "no server is up; trying them all" if self._selection.panic else "no server is up"

    def _overflow(self) -> None:
        now, before = self.reactor.seconds(), self._overflowed
        self._overflowed = now
        if now - before > _QUIET:
            self._exhausted(
                f"every server is full, and so is the queue ({len(self._line)} waiting)"
            )

    def _exhausted(self, why: str) -> None:
        self._tell(lambda observer: observer.pool_exhausted(self.name, why))

    def _discovered(self, servers: Sequence[UpstreamServer]) -> None:
        self.set_servers(servers)
        discovery = self._discovery
        in_part = isinstance(discovery, PartlyFailing) and discovery.failing
        if self._failures and not in_part:
            self._failures.clear()
            self._tell(lambda observer: observer.discovery_recovered(self.name))

    def _discovery_failed(self, why: str) -> None:
        if why not in self._failures and len(self._failures) < _MOST_FAILURES:
            self._failures.add(why)
            self._tell(lambda observer: observer.discovery_failed(self.name, why))

    def _tell(self, what: Callable[[PoolObserver], None]) -> None:
        """Tell the observer; that it breaks is of no concern to the pool."""
        if self._observer is not None:
            try:
                what(self._observer)
            except Exception:
                _log.failure("The observer of pool {pool} broke", pool=self.name)

    # What happens to the sessions.

    def _release(self, server: PoolServer, session: PoolSession) -> None:
        was_full = server.full
        server.sessions -= 1
        if self._selection.load_changed is not None:
            self._selection.load_changed(server)
        if server.held is not None:
            server.held.discard(session)
            server.late.discard(session)
        # Those who wait could not use a slot that was free before.
        if was_full and self._line:
            self._wake(lambda: self._selection.has_room(server))
        if server.leaving and not server.sessions:
            self._members.left(server, "its last session has ended")

    def _wake(self, has_room: Callable[[], bool]) -> None:
        """Wake those who wait while `has_room`, as many as is good for one turn."""
        # A woken session may fail, and free its slot, before `ready` returns.
        if self._waking:
            return
        self._waking = True
        try:
            moved = self._line.wake(has_room, _BATCH)
        finally:
            self._waking = False
        # If nobody could use the room, nobody can in the next turn.
        if moved and self._line and has_room():
            self._wake_soon()

    def _wake_soon(self) -> None:
        if not self._wake_is_due:
            self._wake_is_due = True
            self._soon(self._wake_for_any)

    def _wake_for_any(self) -> None:
        self._wake_is_due = False
        if self._selection.stale:
            self._refresh()
        if not (self._selection.usable or self._selection.panic):
            if not self._refusing:
                self._refuse()
            self._line.dissolve(self._why_not(), _BATCH)
            if self._line:
                self._wake_soon()
            return
        has_room = self._selection.has_room
        self._wake(lambda: any(has_room(server) for server in self._members))

    def _reset_sessions(self, server: PoolServer, sessions: Iterator[PoolSession]) -> None:
        """End `sessions` of a server that went down, some in each turn."""
        for session in islice(sessions, _BATCH):
            if not server.down or server.held is None:
                return
            if session not in server.held:
                continue
            # One that still connects may fail and go to another server.
            if session.phase is Phase.CONNECTING:
                server.late.add(session)
                continue
            server.late.discard(session)
            try:
                session.end(Side.PROXY, Ending.SERVER_DOWN)
            except Exception:
                _log.failure("Could not end a session of {server}", server=server.name)
        if length_hint(sessions):
            self._soon(self._reset_sessions, server, sessions)

    def _soon(self, work: Callable[..., None], *args: Any) -> None:
        """Call `work` in the next turn of the reactor, unless the pool is stopped first."""

        def run() -> None:
            self._calls.discard(call)
            work(*args)

        call = self.reactor.callLater(0, run)
        self._calls.add(call)


def _spec(server: str | UpstreamServer) -> UpstreamServer:
    return UpstreamServer(server) if isinstance(server, str) else server
