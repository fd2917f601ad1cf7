"""
A pool whose settings may change while it runs.

Everything that the new settings do not change stays: the servers and their sessions, their health,
the queue, and what the balancer knows.
"""

from __future__ import annotations

from attrs import frozen

from evproxy.errors import SettingsError
from evproxy.interfaces import Dialer
from evproxy.model import UpstreamServer
from evproxy.settings import PoolSettings
from evproxy.upstream.pool.parts import Parts, files_of
from evproxy.upstream.pool.resetter import Resetter
from evproxy.upstream.pool.running_pool import RunningPool

WHY = "reloaded"
"""The reason of changes of servers in logs."""


@frozen
class Prepared:
    """What a pool gets when it is reloaded: its settings, its parts, and dialers of servers."""

    settings: PoolSettings
    parts: Parts
    dialers: dict[str, Dialer]


class ReloadablePool(RunningPool):
    """A `RunningPool` that can be reloaded."""

    def prepare(self, settings: PoolSettings) -> Prepared | None:
        """
        Make what the pool needs for `settings`; ``None`` if nothing would change.

        May block, and may run in a thread: it changes nothing.

        :raises SettingsError: if the settings are wrong, or a file cannot be used.
        """
        if settings == self.settings and files_of(settings) == self._parts.files:
            return None
        parts = Parts(
            self.reactor, settings, self._given, self._announcements.short, before=self._parts
        )
        names: set[str] = set()
        dialers: dict[str, Dialer] = {}
        for server in settings.upstreams:
            if server.name in names:
                raise SettingsError(f"upstreams: {server.name} is listed twice")
            names.add(server.name)
            parts.check_endpoint(server)
            if parts.dialer_for is not self._parts.dialer_for or self._is_new(server):
                dialers[server.name] = parts.dialer_for(server)
        return Prepared(settings, parts, dialers)

    def _is_new(self, server: UpstreamServer) -> bool:
        known = [each for each in self.settings.upstreams if each.name == server.name]
        return not known or known[0].endpoint != server.endpoint

    def reload(self, prepared: Prepared) -> None:
        """Be as `prepare` said from now on.  Running sessions keep their servers."""
        before, after = self.settings, prepared.settings
        old, parts = self._parts, prepared.parts
        self.settings, self._parts = after, parts
        self.connect_timeout = after.connect_timeout
        self.connect_attempts = after.connect_attempts
        self._line.bound(after.queue_timeout, after.queue_size)
        self._members.slow_start = after.slow_start
        self._dialers = prepared.dialers
        self._reload_connects(old)
        self._reload_servers(before.upstreams, after.upstreams)
        self._dialers = {}
        if (parts.probe, parts.check_timing) != (old.probe, old.check_timing):
            self._reload_checks()
        if after.ejection != before.ejection:
            self._members.eject(after.ejection)
            self._ejector = self._members.ejector
        if after.on_down != before.on_down:
            self._reload_resetter()
        if (parts.balancer, after.slow_start, after.all_down) != (
            old.balancer,
            before.slow_start,
            before.all_down,
        ):
            self._selection.use(parts.balancer, after.slow_start, after.all_down == "try")
        if parts.discovery is not old.discovery:
            self._reload_discovery(old)
        self._selection.stale = True
        if not self._stopped:
            self._queue.notify_soon()

    def _reload_connects(self, old: Parts) -> None:
        """Servers whose connections are made in another way get another dialer."""
        version = self.settings.send_proxy_protocol
        fresh = self._parts.dialer_for is not old.dialer_for
        for server in self._members.known():
            dialer = self._dialers.get(server.name)
            if dialer is not None:
                server.dialer = dialer
            elif fresh:
                server.dialer = self._parts.dialer_for(server.spec)
            server.pool_proxy_version = version
            server.respecify(server.spec)

    def _reload_servers(
        self, before: tuple[UpstreamServer, ...], after: tuple[UpstreamServer, ...]
    ) -> None:
        running = {server.name: server for server in self._members}
        wanted = {server.name: server for server in after}
        configured = {server.name: server for server in before}
        for name, spec in wanted.items():
            if name not in running:
                self._members.join(spec, False, WHY)
            elif configured.get(name) != spec or running[name].discovered:
                self._members.respecify(spec, False, WHY)
        for name in configured:
            if name not in wanted and name in running and not running[name].discovered:
                self._members.leave(name, WHY)

    def _reload_checks(self) -> None:
        parts = self._parts
        if parts.probe is None:
            self._members.uncheck()
        else:
            self._members.check(
                parts.probe, parts.check_timing, parts.random, self._announcements.check_prevented
            )
            if self._users.serving and self._users:
                self._members.begin_checks()

    def _reload_resetter(self) -> None:
        """Sessions that began before ``on_down = "reset"`` are kept when their server goes down."""
        if self._resetter is not None:
            self._resetter.stop()
        self._resetter = Resetter(self.reactor) if self.settings.on_down == "reset" else None
        for server in self._members.known():
            server.held = None if self._resetter is None else set()
            server.connecting.clear()

    def _reload_discovery(self, old: Parts) -> None:
        if self._users and old.discovery is not None:
            old.discovery.stop()
        if self._parts.discovery is None:
            self.set_servers([])
        elif self._users:
            self._parts.discovery.start(self._discovered, self._announcements.discovery_failed)
