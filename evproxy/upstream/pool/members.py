"""
The members of a pool: its servers, and the state of each server.

Servers join and leave, by request and by discovery.  Checks, ejection and draining together
decide the state of a server, and each change of the state is announced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random

from attrs import evolve
from twisted.internet.interfaces import IReactorTime

from evproxy.config.canonical import server_name
from evproxy.errors import SettingsError, Shortage
from evproxy.interfaces import Probe
from evproxy.model import UpstreamServer
from evproxy.policy.health import Verdict
from evproxy.settings import Ejection, HealthCheck
from evproxy.upstream.pool.checks import Checks, ServerChecks
from evproxy.upstream.pool.ejector import Ejector
from evproxy.upstream.pool.server import PoolServer
from evproxy.upstream.pool.state_lines import reason_of_state, state_line

DISCOVERED = "discovered"
"""Why a server has joined that discovery has found."""

_REMEMBERED = 1024
"""The statistics of at least this many servers are kept after they have left, the last ones."""


class Members:
    """
    The servers of one pool.  Iterating yields the servers that are in the pool now.

    `found` are the servers of the last discovery, by their names.

    :param reactor: the time and the timers.
    :param make: makes the `PoolServer` of a server that was not in the pool before.
    :param slow_start: seconds in which a server that came up grows to its full weight; may be
        replaced at any time.
    :param announce: called with a server, its new state and the reason.
    :param changed: called with a server whose weight, or whose `usable`, may have changed.
    :param checks_for: makes the active checks, from the arguments of `Checks`.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        make: Callable[[UpstreamServer], PoolServer],
        slow_start: float,
        announce: Callable[[PoolServer, str, str], None],
        changed: Callable[[PoolServer], None],
        checks_for: Callable[..., ServerChecks] = Checks,
    ) -> None:
        self._reactor = reactor
        self._make = make
        self.slow_start = slow_start
        self._on_announcement = announce
        self._on_change = changed
        self._servers: dict[str, PoolServer] = {}
        self._gone: dict[str, PoolServer] = {}
        self.found: dict[str, UpstreamServer] = {}
        self._checks_for = checks_for
        self._checks: ServerChecks | None = None
        self._checking = False
        self.ejector: Ejector | None = None

    def check(
        self,
        probe: Probe,
        timing: HealthCheck,
        random: Random,
        prevented: Callable[[Shortage], None],
    ) -> None:
        """
        Prepare active checks; `begin_checks` starts them.  The arguments are as in `Checks`.
        """
        self.end_checks()
        self._checks = self._checks_for(
            self._reactor, probe, timing, random, self._checked, prevented
        )

    def eject(self, settings: Ejection | None) -> None:
        """Eject servers as `settings` say from now on; ``None``: none, and readmit all."""
        if settings is None:
            if self.ejector is not None:
                self.ejector.stop()
                self.ejector = None
                for server in self:
                    self.changed(server, "ejection is off")
        elif self.ejector is not None:
            self.ejector.settings = settings
        else:
            self.ejector = Ejector(self._reactor, settings, self.__iter__, self.changed)

    def uncheck(self) -> None:
        """Check the servers no more: those that are down come up."""
        self.end_checks()
        self._checks = None
        for server in self:
            if server.down:
                server.down = False
                self.changed(server, "it is no longer checked")

    def __iter__(self) -> Iterator[PoolServer]:
        return iter(self._servers.values())

    def __contains__(self, server: PoolServer) -> bool:
        return self._servers.get(server.name) is server

    def __len__(self) -> int:
        return len(self._servers)

    def now(self) -> list[PoolServer]:
        """The servers of the pool.  May be called in a thread."""
        return list(self._servers.values())

    def known(self) -> list[PoolServer]:
        """
        The servers of the pool, and those that have left and may come back.

        May be called in a thread.
        """
        return [*self.now(), *list(self._gone.values())]

    def forget(self, servers: Iterable[PoolServer]) -> None:
        """Do not know those of `servers` that have left any more: they come back as new ones."""
        for server in servers:
            self._gone.pop(server.name, None)

    def leaving(self) -> list[PoolServer]:
        """The servers that have left the pool, but still have sessions."""
        return [server for server in self._gone.values() if server.sessions]

    def start(self) -> None:
        """Allow ejections again, after `stop`."""
        if self.ejector is not None:
            self.ejector.start()

    def stop(self) -> None:
        """End all checks and ejections."""
        self.end_checks()
        if self.ejector is not None:
            self.ejector.stop()
        for server in self:
            if server.announced == "ejected":
                self._record(server, server.state, "the pool has stopped")
                server.update_derived(server.since, self.slow_start)

    def begin_checks(self) -> None:
        """Start the checks, unless they are running."""
        if self._checks is not None and not self._checking:
            self._checking = True
            for server in self:
                self._checks.add(server, self._checks.settings.interval)

    def end_checks(self) -> None:
        """Stop the checks: each server stays up, or down, until checks begin again."""
        self._checking = False
        if self._checks is not None:
            self._checks.stop()

    # Membership.

    def add_first(self, spec: UpstreamServer) -> None:
        """Add a server with which the pool is made, without an announcement."""
        if spec.name in self._servers:
            raise SettingsError(f"upstreams: {spec.name} is listed twice")
        self._servers[spec.name] = self._make(spec)

    def join(self, spec: UpstreamServer, discovered: bool, why: str) -> None:
        """Add the server `spec` to a running pool.  A server that left before may come back."""
        if spec.name in self._servers:
            raise SettingsError(f"upstreams: {spec.name} is already in the pool")
        server = self._gone.pop(spec.name, None) or self._make(spec)
        server.given = spec
        server.discovered = discovered
        server.leaving = server.draining = server.down = False
        server.respecify(spec)
        self._servers[spec.name] = server
        if self._checks is not None and self._checking:
            self._checks.add(server, self._checks.fast_interval)
        self._announce(server, "added", why)
        self.changed(server, why)

    def respecify(self, spec: UpstreamServer, discovered: bool, why: str) -> None:
        """The server of the pool that `spec` names is as `spec` says from now on."""
        server = self._servers[spec.name]
        before = server.spec
        server.given = spec
        server.discovered = discovered
        server.respecify(spec)
        if (
            self._checks is not None
            and self._checking
            and before.send_proxy_protocol != spec.send_proxy_protocol
        ):
            # Another process that checks the server has the value of before.
            self._checks.add(server, self._checks.fast_interval)
        self.changed(server, why)

    def leave(self, name: str, why: str) -> None:
        """The server called `name` leaves; it is removed when its last session has ended."""
        server = self[name]
        del self._servers[server.name]
        self._gone[server.name] = server
        server.leaving = True
        if self._checks is not None:
            self._checks.remove(server)
        if self.ejector is not None:
            self.ejector.forget(server)
        drained = server.announced == "draining"
        server.drain_why = why
        if server.sessions:
            self.changed(server, why)
            if drained:
                # The line "until it is resumed" no longer holds.
                self._announce_state(server, why)
        else:
            server.update_derived(self._reactor.seconds(), self.slow_start)
            self._on_change(server)
            self.removed(server, why)

    def removed(self, server: PoolServer, why: str) -> None:
        """`server` has left, and its last session has ended."""
        self._announce(server, "removed", why)
        if len(self._gone) > 2 * _REMEMBERED:
            idle = [name for name, gone in self._gone.items() if not gone.sessions]
            for name in idle[: max(0, len(idle) - _REMEMBERED)]:
                del self._gone[name]

    def discovered(
        self,
        servers: Sequence[object],
        refuse: Callable[[SettingsError], None],
        faults: Mapping[str, str],
    ) -> bool:
        """
        Discovery has found `servers`: new ones join, and missing ones leave.

        :param servers: each an `UpstreamServer`, unless a discovery of a user's own is wrong.
        :param faults: why some of them cannot be in this pool, by their names.
        :param refuse: called with the error for each server that cannot be in a pool.  Such a
            server is left out.  If `refuse` raises, nothing changes.
        :return: ``False`` if none of `servers` can be in a pool.  Then nothing changes.
        """
        wanted: dict[str, UpstreamServer] = {}
        made: dict[str, PoolServer] = {}
        for spec in servers:
            if not isinstance(spec, UpstreamServer):
                refuse(SettingsError(f"expected an UpstreamServer, got {spec!r}"))
                continue
            if spec.name in faults:
                refuse(SettingsError(faults[spec.name]))
                continue
            if not any(spec.name in known for known in (self._servers, self._gone, made)):
                try:
                    made[spec.name] = self._make(spec)
                except SettingsError as error:
                    refuse(error)
                    continue
            wanted[spec.name] = spec
        if servers and not wanted:
            return False
        self.found = wanted
        # `join` takes the new servers from `_gone`: all are made before the first one joins.
        self._gone.update(made)
        for name, spec in wanted.items():
            known = self._servers.get(name)
            if known is None:
                self.join(spec, True, DISCOVERED)
            elif known.discovered and known.given != spec:
                self.respecify(spec, True, DISCOVERED)
        for server in list(self):
            if server.discovered and server.name not in wanted:
                self.leave(server.name, "no longer discovered")
        return True

    def __getitem__(self, name: str) -> PoolServer:
        try:
            return self._servers[name if name in self._servers else server_name(name)]
        except KeyError:
            raise LookupError(f"there is no server {name} in the pool") from None

    # State.

    def drain(self, name: str, draining: bool) -> None:
        """Stop, or resume, new sessions on the server called `name`."""
        server = self[name]
        server.draining = draining
        if draining:
            server.drain_why = "by request"
        self.changed(server, "by request" if draining else "resumed by request")

    def set_weight(self, name: str, weight: int) -> None:
        """Give the server called `name` another weight."""
        server = self[name]
        server.respecify(evolve(server.spec, weight=weight))
        self.changed(server, "by request")

    def changed(self, server: PoolServer, why: str) -> None:
        """The health, the draining or the weight of `server` has changed because of `why`."""
        state, before = server.state, server.announced
        now = self._reactor.seconds()
        if state == "up" and before in ("down", "ejected"):
            # Failed connects from before must not keep `least-time` away from the server now.
            server.forget_connect_times()
        if state == "up" and before != "up" and self.slow_start > 0:
            server.slow_since = now
        server.update_derived(now, self.slow_start)
        if state != before:
            if before == "added" and state == "up":
                server.announced = state
            else:
                self._announce_state(server, why)
        self._on_change(server)

    def _checked(self, server: PoolServer, verdict: Verdict) -> None:
        server.down = not verdict.up
        if server.down:
            server.down_why = verdict.why
        self.changed(server, verdict.why)

    def _announce_state(self, server: PoolServer, event: str) -> None:
        """Announce the state of `server`, which `event` has changed."""
        self._record(server, server.state, reason_of_state(server, event))
        self._on_announcement(server, server.state, state_line(server, event, server.since))

    def _announce(self, server: PoolServer, state: str, why: str) -> None:
        self._record(server, state, why)
        self._on_announcement(server, state, why)

    def _record(self, server: PoolServer, state: str, why: str) -> None:
        server.announced = state
        server.why = why
        server.since = self._reactor.seconds()
