"""
A pool as it runs: what sessions, services and programs call.

The pool connects its parts: the servers and their state (`members`), the servers that a new
session may use (`selection`), the queue for a slot (`queue_notifier`), the sessions of servers
that go down (`resetter`), and the notifications to the observer (`announcements`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.errors import NoServerAvailable, SettingsError
from evproxy.hub import hub_of
from evproxy.interfaces import Dialer, PartlyFailing, PoolSession, Server, Waiter
from evproxy.model import CloseReason, ConnectionInfo, UpstreamServer, upstream_server
from evproxy.observers import Observer
from evproxy.relay.stages import StagesOfSession
from evproxy.settings import PoolSettings
from evproxy.upstream.pool.announcements import Announcements
from evproxy.upstream.pool.checks import Checks
from evproxy.upstream.pool.faults import faults_of
from evproxy.upstream.pool.members import Members
from evproxy.upstream.pool.one_server import OneServer
from evproxy.upstream.pool.parts import GivenParts, Parts
from evproxy.upstream.pool.queue import Queue
from evproxy.upstream.pool.queue_notifier import QueueNotifier
from evproxy.upstream.pool.resetter import Resetter
from evproxy.upstream.pool.selection import Selection
from evproxy.upstream.pool.server import PoolServer
from evproxy.upstream.pool.status import PoolStatus, ServerStatus
from evproxy.upstream.pool.users import Users
from evproxy.upstream.reasons import left_out, nothing_left

_log = Logger()


def _nowhere(servers: Sequence[UpstreamServer]) -> Mapping[str, str]:
    """A pool without a service does not know where its sessions come from."""
    return {}


class RunningPool:
    """
    A pool made of its settings; an `evproxy.interfaces.Pool`.

    :param reactor: the time and the timers.
    :param settings: kept as `settings`.
    :param given: parts that the caller made.
    :param observer: is notified of changes; ``None``: no observer.

    `misplaced` may be set: it returns why the pool cannot have some of the servers that discovery
    has found, by their names.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        settings: PoolSettings,
        given: GivenParts,
        observer: Observer | None,
    ) -> None:
        self.reactor = reactor
        self.settings = settings
        self.name = settings.name
        self.connect_timeout = settings.connect_timeout
        self.connect_attempts = settings.connect_attempts
        self.stages: Sequence[StagesOfSession] = faults_of(reactor, settings)
        self.mirror = settings.mirror
        self.misplaced: Callable[[Sequence[UpstreamServer]], Mapping[str, str]] = _nowhere
        self._given = given
        self._users = Users()
        self._stopped = False
        self._taken = 0
        self._hub = hub_of(observer)
        self._announcements = Announcements(reactor, settings.name, self._hub)
        self._parts = parts = Parts(reactor, settings, given, self._announcements.short)
        self._dialers: dict[str, Dialer] = {}
        self._members = Members(
            reactor,
            self._make,
            settings.slow_start,
            self._announcements.server_changed,
            self._changed,
            Checks if given.checks_for is None else partial(given.checks_for, self._settings_now),
        )
        self._selection = Selection(
            reactor,
            self._members,
            parts.balancer,
            settings.slow_start,
            settings.all_down == "try",
            self._announcements.exhausted,
        )
        self._queue = Queue(reactor, settings.queue_timeout, settings.queue_size)
        self._notifier = QueueNotifier(
            reactor, self._queue, self._selection, self._announcements.overflowed
        )
        self._resetter = Resetter(reactor) if settings.on_down == "reset" else None
        if parts.probe is not None:
            self._members.check(
                parts.probe,
                parts.check_timing,
                parts.random,
                self._announcements.check_prevented,
            )
        if settings.ejection is not None:
            self._members.eject(settings.ejection)
        self._ejector = self._members.ejector
        for server in settings.upstreams:
            parts.check_endpoint(server)
            self._members.add_first(server)
        # Nothing runs yet, so the balancer may do all its work at once.
        self._selection.fill()

    def hear_if_nobody_does(self, observer: Observer) -> None:
        """Notify `observer` of changes from now on, unless the pool has an observer already."""
        if not self._hub:
            self._hub.add(observer)

    def server_named(self, name: str) -> PoolServer:
        """
        The server called `name`.

        :raises LookupError: if it is not in the pool.
        """
        if self._selection.stale:
            self._selection.refresh()
        return self._members[name]

    # Called by sessions.

    def candidates(self, info: ConnectionInfo) -> Iterator[PoolServer]:
        """Yield, lazily, the servers to try for one session, best first, none twice."""
        selection = self._selection
        if selection.stale:
            selection.refresh()
        if not selection.usable and not selection.exhausted_announced:
            selection.announce_exhausted()
        if self._notifier.due is not None and self._notifier.has_precedence():
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
        Wait in the queue for a slot for the client of `info`.

        The pool calls `ready` when a slot is free, or `gave_up` after `queue_timeout`, or as
        soon as no server may serve the client any more.

        :raises NoServerAvailable: if no server except those `tried` may serve the client, or
            if the queue is full; the message says which.
        """
        if self._stopped:
            raise NoServerAvailable(f"pool {self.name} has stopped")
        return self._notifier.join(info, ready, gave_up, tried)

    def claim(self, server: Server, session: PoolSession) -> None:
        """`session` takes a slot of `server` and starts to connect."""
        assert isinstance(server, PoolServer)
        self._taken += 1
        server.sessions += 1
        server.sessions_total += 1
        if self._selection.load_changed is not None:
            self._selection.load_changed(server)
        if server.held is not None:
            server.held.add(session)

    def connected(self, server: Server, seconds: float) -> None:
        """The connect succeeded, `seconds` after it began."""
        assert isinstance(server, PoolServer)
        server.add_connect_time(seconds)
        if self._ejector is not None:
            self._ejector.connected(server)
        if self._resetter is not None and server.connecting and not self._stopped:
            self._resetter.connected(server)

    def connect_failed(self, server: Server, session: PoolSession, reason: Failure) -> None:
        """The connect failed: the slot is free again, and the failure counts for ejection."""
        assert isinstance(server, PoolServer)
        server.connect_failures += 1
        # Otherwise `least-time` would keep the last success of a dead server as its time.
        server.add_connect_time(self.connect_timeout)
        try:
            if self._ejector is not None:
                self._ejector.connect_failed(server, reason)
        finally:
            self._release(server, session)

    def abandoned(self, server: Server, session: PoolSession) -> None:
        """
        The client left while the session was connecting, or a `Shortage` prevented the connect.

        The slot is free again, and nothing counts for ejection.
        """
        assert isinstance(server, PoolServer)
        self._release(server, session)

    def ended(
        self, server: Server, session: PoolSession, reason: CloseReason, answered: bool
    ) -> None:
        """The session ended and its slot is free.  `answered`: whether the server sent a byte."""
        assert isinstance(server, PoolServer)
        try:
            if self._ejector is not None:
                self._ejector.ended(server, reason, answered)
        finally:
            self._release(server, session)

    # Called by services.

    def start(self, user: object = None) -> None:
        """
        Begin health checks and discovery, unless another user has started them.

        :param user: any hashable object; the same user must call `stop`.  A second `start` of
            a user only ends the draining of this user.  ``None``: an anonymous user; then each
            `start` needs its own `stop`.
        """
        first = not self._users
        self._users.add(user)
        if first:
            self._stopped = False
            self._members.start()
        self._members.begin_checks()
        discovery = self._parts.discovery
        if first and discovery is not None:
            discovery.start(self._discovered, self._announcements.discovery_failed)

    def draining(self, user: object) -> None:
        """
        `user`, which has started the pool, drains: it begins no more sessions.

        While all users drain, the pool does not check its servers.  So no server goes down,
        and sessions can finish, even if the servers stop too.  The queue, ejection and
        discovery continue: none of them ends a session.
        """
        self._users.drains(user)
        if not self._users.serving:
            self._members.end_checks()

    def stop(self, user: object = None) -> None:
        """
        `user` stops using the pool.  After the last user, no timer, check or watch is left.

        Then all waiting sessions give up.  A user that has not started the pool changes nothing
        for the others; without any user, timers that sessions have left are cancelled.
        """
        ran = bool(self._users)
        self._users.remove(user)
        if self._users:
            if not self._users.serving:
                self._members.end_checks()
            return
        self._stopped = True
        if ran and self._parts.discovery is not None:
            with _log.failuresHandled("Could not stop the discovery of {pool}", pool=self.name):
                self._parts.discovery.stop()
        self._members.stop()
        self._selection.stop()
        if self._resetter is not None:
            self._resetter.stop()
        self._notifier.stop(f"pool {self.name} has stopped")
        self._announcements.stop()
        if self._parts.own_names is not None:
            self._parts.own_names.stop()

    def only(self, name: str, in_any_state: bool = False) -> OneServer:
        """
        A pool that is only the server called `name` of this pool, for a route to choose.

        :param in_any_state: see `OneServer`.
        """
        return OneServer(self, name, in_any_state)

    # Called by programs.

    @property
    def load(self) -> int:
        """How many sessions hold a slot of a server, or wait in the queue."""
        return self._taken + self._notifier.still_waiting

    @property
    def servers(self) -> tuple[ServerStatus, ...]:
        """The status of each server; servers that left but still have sessions come last."""
        return tuple(self.each_server())

    def each_server(self) -> Iterator[ServerStatus]:
        """
        Yield the same as `servers`, each status when it is asked for.

        For work in slices: the servers are those that the pool has at the first one.
        """
        if self._selection.stale:
            self._selection.refresh()
        for server in (*self._members, *self._members.leaving()):
            yield server.status()

    def leaving(self) -> tuple[PoolServer, ...]:
        """The servers that have left the pool, but still have sessions."""
        return tuple(self._members.leaving())

    @property
    def waiting(self) -> int:
        """How many sessions are in the queue."""
        return self._notifier.waiting

    def status(self) -> PoolStatus:
        """A snapshot of the pool."""
        return PoolStatus(name=self.name, servers=self.servers, waiting=self.waiting)

    def add(self, server: str | UpstreamServer | IStreamClientEndpoint) -> None:
        """
        Add `server` to the pool.  A server that comes back keeps its statistics.

        :raises SettingsError: if it is already in the pool, or can never pass the check.
        """
        spec = upstream_server(server)
        self._parts.check_endpoint(spec)
        self._members.join(spec, False, "by request")

    def remove(self, name: str) -> None:
        """
        Remove the server called `name`: its sessions continue, but it gets no new ones.

        A discovered server comes back with the next set of servers that contains it.

        :raises LookupError: if it is not in the pool.
        """
        self._members.leave(name, "by request")

    def drain(self, name: str) -> None:
        """
        Give the server called `name` no new sessions until it is resumed.

        :raises LookupError: if it is not in the pool.
        """
        self._members.drain(name, True)

    def resume(self, name: str) -> None:
        """
        Give the server called `name` new sessions again, after `drain`.

        :raises LookupError: if it is not in the pool.
        """
        self._members.drain(name, False)

    def set_weight(self, name: str, weight: int) -> None:
        """
        Give the server called `name` another weight (0 to 256; 0: no new sessions).

        The weight holds until discovery gives the server another value than before.

        :raises LookupError: if it is not in the pool.
        :raises SettingsError: if the weight is out of range.
        """
        self._members.set_weight(name, weight)

    def set_servers(self, servers: Sequence[UpstreamServer]) -> None:
        """
        Replace the discovered servers by `servers`: new ones join, and missing ones leave.

        Servers that the pool was made with, or that a program added, do not change.

        :raises SettingsError: if a server cannot be in a pool; then nothing changes.
        """

        def refuse(error: SettingsError) -> None:
            raise error

        self._members.discovered(servers, refuse, {})

    # Called by the pool's parts.

    def _make(self, spec: UpstreamServer) -> PoolServer:
        held: set[PoolSession] | None = None if self._resetter is None else set()
        return PoolServer(
            spec,
            self._dialers.get(spec.name) or self._parts.dialer_for(spec),
            self.reactor.seconds,
            held=held,
            pool_proxy_version=self.settings.send_proxy_protocol,
        )

    def _settings_now(self) -> PoolSettings:
        return self.settings

    def _changed(self, server: PoolServer) -> None:
        self._selection.stale = True
        if not self._stopped:
            self._notifier.notify_soon()
        if self._resetter is not None:
            self._resetter.changed(server)

    def _discovered(self, servers: Sequence[UpstreamServer]) -> None:
        refused: list[SettingsError] = []
        try:
            servers = tuple(servers)
        except TypeError:
            # A discovery of a user's own may give anything.
            self._announcements.discovery_failed(f"expected a sequence of servers, got {servers!r}")
            return
        known = [each for each in servers if isinstance(each, UpstreamServer)]
        if not self._members.discovered(servers, refused.append, self.misplaced(known)):
            reason = nothing_left([str(error) for error in refused])
            self._announcements.discovery_failed(reason)
            return
        discovery = self._parts.discovery
        problems = discovery.problems if isinstance(discovery, PartlyFailing) else ()
        problems = [*problems, *(left_out(str(error)) for error in refused)]
        if not servers and not problems:
            problems.append("no discovered server")
        self._announcements.discovered(problems)

    def _release(self, server: PoolServer, session: PoolSession) -> None:
        was_full = server.sessions >= server.limit
        self._taken -= 1
        server.sessions -= 1
        if server.held is not None:
            server.held.discard(session)
            server.connecting.discard(session)
        try:
            if self._selection.load_changed is not None:
                self._selection.load_changed(server)
        finally:
            # If the server was not full before, the queue could already use its slots.
            if was_full:
                self._notifier.freed(server)
            if server.leaving and not server.sessions:
                self._members.removed(server, "its last session has ended")
