"""
A pool whose settings may change while it runs.

Everything that the new settings do not change stays: the servers and their sessions, their health,
the queue, and what the balancer knows.
"""

from __future__ import annotations

from attrs import frozen
from twisted.logger import Logger

from evproxy.errors import SettingsError
from evproxy.interfaces import Dialer
from evproxy.model import UpstreamServer
from evproxy.settings import PoolSettings
from evproxy.upstream.pool.faults import faults_of
from evproxy.upstream.pool.parts import Parts, files_of
from evproxy.upstream.pool.resetter import Resetter
from evproxy.upstream.pool.running_pool import RunningPool
from evproxy.upstream.pool.server import PoolServer

_log = Logger()

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
        endpoints = {server.name: server.endpoint for server in self.settings.upstreams}
        names: set[str] = set()
        dialers: dict[str, Dialer] = {}
        for server in settings.upstreams:
            if server.name in names:
                raise SettingsError(f"upstreams: {server.name} is listed twice")
            names.add(server.name)
            parts.check_endpoint(server)
            if self._is_fresh(parts) or endpoints.get(server.name) != server.endpoint:
                dialers[server.name] = parts.dialer_for(server)
        prepared = Prepared(settings, parts, dialers)
        self.complete(prepared)
        return prepared

    def complete(self, prepared: Prepared) -> None:
        """
        Add to `prepared` what servers need that have joined since `prepare`.

        :raises SettingsError: if a server that stays cannot be connected to as `prepared` says.
        """
        parts, dialers = prepared.parts, prepared.dialers
        if not self._is_fresh(parts):
            return
        staying = self._staying(prepared.settings)
        for server in self._members.known():
            if server.name not in dialers:
                try:
                    if server in staying and not server.discovered:
                        parts.check_endpoint(server.spec)
                    dialers[server.name] = parts.dialer_for(server.spec)
                except SettingsError:
                    if server in staying:
                        raise

    def _is_fresh(self, parts: Parts) -> bool:
        """Whether every server gets another dialer."""
        return parts.dialer_for is not self._parts.dialer_for

    def _staying(self, after: PoolSettings) -> set[PoolServer]:
        """The servers that are in the pool, and stay there with the settings `after`."""
        listed = {server.name for server in after.upstreams}
        dropped = {server.name for server in self.settings.upstreams} - listed
        if after.discover is None and self.settings.discover is not None:
            found: set[str] = set()
        else:
            found = set(self._members.found)
        staying = set()
        for server in self._members.now():
            added = not server.discovered and server.name not in dropped
            if added or server.name in listed or server.name in found:
                staying.add(server)
        return staying

    def reload(self, prepared: Prepared) -> None:
        """
        Be as `prepare` said from now on.  Running sessions keep their servers.

        Call `complete` in the same turn of the reactor before: then this cannot fail.
        """
        before, after = self.settings, prepared.settings
        old, parts = self._parts, prepared.parts
        self.settings, self._parts = after, parts
        self.connect_timeout = after.connect_timeout
        self.connect_attempts = after.connect_attempts
        self._queue.bound(after.queue_timeout, after.queue_size)
        self._members.slow_start = after.slow_start
        self.mirror = after.mirror
        if (after.faults, after.faults_seed) != (before.faults, before.faults_seed):
            self.stages = faults_of(self.reactor, after)
        self._dialers = prepared.dialers
        self._reload_connects()
        self._reload_servers(before.upstreams, after.upstreams)
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
        if self._parts.dialer_for is not old.dialer_for:
            # Those that have left, and could not be connected to if they came back.
            self._members.forget(
                each for each in self._members.known() if each.name not in self._dialers
            )
        self._dialers = {}
        self._selection.stale = True
        if not self._stopped:
            self._notifier.notify_soon()

    def _reload_connects(self) -> None:
        """Servers whose connections are made in another way get another dialer."""
        version = self.settings.send_proxy_protocol
        for server in self._members.known():
            server.dialer = self._dialers.get(server.name, server.dialer)
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
                # If the settings list it as before, it was removed by request, and stays so.
                if configured.get(name) != spec:
                    self._members.join(spec, False, WHY)
            elif configured.get(name) != spec or running[name].discovered:
                self._members.respecify(spec, False, WHY)
        for name in configured:
            if name not in wanted and name in running and not running[name].discovered:
                found = self._members.found.get(name)
                if found is None:
                    self._members.leave(name, WHY)
                else:
                    self._members.respecify(found, True, WHY)

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
            with _log.failuresHandled("Could not stop the discovery of {pool}", pool=self.name):
                old.discovery.stop()
        if self._parts.discovery is None:
            self.set_servers([])
        elif self._users:
            self._parts.discovery.start(self._discovered, self._announcements.discovery_failed)
