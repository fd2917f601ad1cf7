"""
Health checks that are done once: the supervisor checks the servers of all workers' pools.

The workers say which servers their pools have, and are told each verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from random import Random
from typing import Any

from attrs import define, evolve, field
from twisted.logger import Logger

from evproxy.errors import SettingsError, Shortage
from evproxy.model import UpstreamServer
from evproxy.policy.health import Verdict
from evproxy.policy.sources import Sources
from evproxy.settings import PoolSettings
from evproxy.sockets.sourced import SourcedReactor
from evproxy.upstream.names import Names
from evproxy.upstream.pool.checks import Checks
from evproxy.upstream.pool.parts import files_of, probes_on
from evproxy.workers.messages import Check, Checked, Prevented

_log = Logger(namespace="evproxy")

Teller = Callable[[Any], None]
"""Sends a message to a worker."""


@define(eq=False)
class _Server:
    """A server that is checked; `workers` are told about it, by their own numbers of the check."""

    spec: UpstreamServer
    down: bool
    told: Verdict | None = None
    checks_passed: int = 0
    checks_failed: int = 0
    workers: dict[tuple[int, int], Teller] = field(factory=dict)

    @property
    def name(self) -> str:
        return self.spec.name


@define(eq=False)
class _Pool:
    name: str
    checks: Checks[_Server]
    servers: dict[UpstreamServer, _Server] = field(factory=dict)


class SharedChecks:
    """
    The health checks of the pools of all workers.

    :param reactor: the time and the timers.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._names = Names(reactor)
        self._random = Random()
        self._pools: dict[Hashable, _Pool] = {}
        self._wanted: dict[tuple[int, int], tuple[Hashable, _Server]] = {}
        # By pool and server: a server may be checked in several ways while a reload goes on.
        self._named: dict[tuple[str, str], list[_Server]] = {}

    def add(self, worker: int, wanted: Check, tell: Teller) -> None:
        """`worker` wants to be told about a server; the server is checked if it is not yet."""
        key = _key(wanted.pool)
        number = (worker, wanted.check)
        try:
            pool = self._pools.get(key) or self._pool(wanted.pool)
        except SettingsError as error:
            # The worker has read the same files, but a moment before.
            _log.error("{pool} cannot be checked: {why}", pool=wanted.pool.name, why=str(error))
            return
        self._pools[key] = pool
        spec = evolve(wanted.server, weight=1, max_sessions=0, backup=False)
        server = pool.servers.get(spec)
        if server is None:
            server = pool.servers[spec] = _Server(spec, wanted.down)
            self._named.setdefault((pool.name, server.name), []).append(server)
            pool.checks.add(server, wanted.within)
        elif server.down != wanted.down:
            why = "as checked before" if server.told is None else server.told.why
            tell(Checked(wanted.check, Verdict(not server.down, why)))
        server.workers[number] = tell
        self._wanted[number] = key, server

    def remove(self, worker: int, check: int) -> None:
        """`worker` need not be told any more; the last one ends the checks of the server."""
        found = self._wanted.pop((worker, check), None)
        if found is None:
            return
        key, server = found
        del server.workers[worker, check]
        if not server.workers:
            pool = self._pools[key]
            pool.checks.remove(server)
            del pool.servers[server.spec]
            named = self._named[pool.name, server.name]
            named.remove(server)
            if not named:
                del self._named[pool.name, server.name]
            if not pool.servers:
                del self._pools[key]

    def forget(self, worker: int) -> None:
        """`worker` has gone."""
        for number in [each for each in self._wanted if each[0] == worker]:
            self.remove(*number)

    def counts(self, pool: str, server: str) -> tuple[int, int]:
        """How many checks of `server` have passed, and how many have failed."""
        found = self._named.get((pool, server), ())
        return sum(each.checks_passed for each in found), sum(each.checks_failed for each in found)

    def stop(self) -> None:
        """End all checks."""
        for pool in self._pools.values():
            pool.checks.stop()
        self._pools.clear()
        self._wanted.clear()
        self._named.clear()
        self._names.stop()

    def _pool(self, settings: PoolSettings) -> _Pool:
        assert settings.health_check is not None
        reactor = self._reactor
        if settings.source:
            reactor = SourcedReactor(reactor, Sources(settings.source), lambda shortage: None)
        make = probes_on(reactor, self._names, settings.send_proxy_protocol, settings.tls)
        checks: Checks[_Server] = Checks(
            self._reactor,
            make(settings.health_check),
            settings.health_check,
            self._random,
            _decided,
            lambda shortage: self._prevented(pool, shortage),
        )
        pool = _Pool(settings.name, checks)
        return pool

    def _prevented(self, pool: _Pool, shortage: Shortage) -> None:
        # One worker says it; its pool does so once for each such period.
        for server in pool.servers.values():
            for (_, check), tell in server.workers.items():
                tell(Prevented(check, shortage.what, shortage.remedy))
                return


def _decided(server: _Server, verdict: Verdict) -> None:
    server.down, server.told = not verdict.up, verdict
    for (_, check), tell in list(server.workers.items()):
        tell(Checked(check, verdict))


def _key(settings: PoolSettings) -> Hashable:
    """What decides how a server of the pool is checked."""
    return (
        settings.name,
        settings.health_check,
        settings.tls,
        settings.send_proxy_protocol,
        settings.source,
        files_of(settings),
    )
