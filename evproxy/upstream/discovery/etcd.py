"""
Servers from etcd v3: one server for each key under a prefix, with a watch for changes.

A value is JSON, in the form of an item of ``upstreams`` in the configuration file:
``"10.0.0.1:80"`` with its quotes, or ``{"endpoint": "10.0.0.1:80", "weight": 2}``.  Other
values are left out.  If there is no key, the set is empty.  If there are keys, but no usable
value, this is a failure: the last set stays.

The discovery reads all keys (``/v3/kv/range``), then watches the changes from the next
revision on (``/v3/watch``).  After `Discover.interval` seconds, the watch ends and all keys
are read again.  So a dead connection, or a change that a watch has missed, has an effect for
at most that time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.model import UpstreamServer
from evproxy.settings import Discover
from evproxy.upstream.discovery.announcer import Announcer
from evproxy.upstream.discovery.etcd_client import EtcdClient
from evproxy.upstream.discovery.etcd_wire import (
    EtcdError,
    Lines,
    Registry,
    Snapshot,
    read_update,
)
from evproxy.upstream.discovery.polling import Backoff
from evproxy.upstream.discovery.server_list import ValidateEndpoint
from evproxy.upstream.discovery.steps import Steps
from evproxy.upstream.reasons import left_out, nothing_left, one_line, reason_of

_log = Logger()


class EtcdDiscovery:
    """
    Watches the keys under a prefix.

    :param clients: one for each member of the cluster; after a failure, the next one is used.
    :param interval: seconds after which all keys are read again.
    :param shortest: a watch that ends in less than this many seconds counts as failed.
    """

    def __init__(
        self,
        reactor: Any,
        clients: Sequence[EtcdClient],
        registry: Registry,
        backoff: Backoff,
        interval: float,
        shortest: float,
    ) -> None:
        self._reactor = reactor
        self._clients = list(clients)
        self._registry = registry
        self._backoff = backoff
        self._interval = interval
        self._shortest = shortest
        self._announcer = Announcer()
        self._watch_problem = ""
        self._steps = Steps(reactor)

    def start(
        self, changed: Callable[[Sequence[UpstreamServer]], None], failed: Callable[[str], None]
    ) -> None:
        """See `evproxy.interfaces.Discovery`."""
        self._announcer.start(changed, failed)
        self._steps.start(self._begin)

    def stop(self) -> None:
        """See `evproxy.interfaces.Discovery`."""
        self._announcer.stop()
        self._steps.stop()

    @property
    def problems(self) -> Sequence[str]:
        """See `evproxy.interfaces.PartlyFailing`."""
        return self._announcer.problems

    def _begin(self) -> None:
        reading = Deferred.fromCoroutine(self._read())
        self._steps.set_current(reading.addCallback(self._read_done).addErrback(self._failed))

    # Each step begins the next one before it notifies the pool, so that the pool may call
    # `stop` in its callback.

    def _read_done(self, snapshot: Snapshot) -> None:
        self._registry.replace(snapshot.values)
        watching = Deferred.fromCoroutine(self._watch(snapshot.revision + 1))
        watching.addCallback(self._watch_ended, self._reactor.seconds()).addErrback(self._failed)
        self._steps.set_current(watching)
        self._announce()

    def _watch_ended(self, problem: str, began: float) -> None:
        if not self._steps.running:
            return
        if self._reactor.seconds() - began >= self._shortest:
            self._watch_problem = ""
            self._backoff.reset()
            self._begin()
        else:
            self._watch_problem = problem
            self._to_next_member()
            self._pause()

    def _failed(self, failure: Failure) -> None:
        if not self._steps.running:
            return
        if failure.check(EtcdError) is None:
            _log.failure("etcd discovery failed with an unexpected error", failure=failure)
        self._watch_problem = ""
        self._pause()
        self._announcer.failed(reason_of(failure))

    def _pause(self) -> None:
        self._steps.pause(self._backoff.next(), self._begin)

    async def _read(self) -> Snapshot:
        """Read all keys from the first member that answers.  `EtcdError` if none does."""
        reasons = []
        for _ in self._clients:
            try:
                return await self._clients[0].read()
            except EtcdError as error:
                if not self._steps.running:
                    raise
                reasons.append(f"{self._clients[0].url}: {error}")
                self._to_next_member()
        raise EtcdError(one_line("; ".join(reasons)))

    async def _watch(self, revision: int) -> str:
        """Watch changes from `revision` on.  Returns why the watch ended early, or nothing."""
        lines = Lines()

        def received(data: bytes) -> None:
            updates = [read_update(line) for line in lines.receive(data)]
            changes = [change for update in updates for change in update.changes]
            if changes:
                self._registry.apply(changes)
                self._announce()
            for update in updates:
                if update.ended:
                    raise EtcdError(update.ended)

        try:
            await self._clients[0].watch(revision, received, self._interval)
        except EtcdError as error:
            return f"{self._clients[0].url}: {error}"
        return ""

    def _announce(self) -> None:
        servers, faults = self._registry.servers()
        if faults and not servers:
            self._announcer.unusable(nothing_left(faults))
            return
        problems = [left_out(fault) for fault in faults]
        if not servers:
            prefix = self._clients[0].prefix
            problems.append(f"no discovered server: there is no key with the prefix {prefix!r}")
        if self._watch_problem:
            problems.append(self._watch_problem)
        self._announcer.found(servers, problems)

    def _to_next_member(self) -> None:
        self._clients.append(self._clients.pop(0))


def etcd_discovery(
    reactor: Any, settings: Discover, random: Random, validate: ValidateEndpoint | None = None
) -> EtcdDiscovery:
    """Make the discovery of kind ``etcd`` that `settings` describe."""
    return EtcdDiscovery(
        reactor,
        [EtcdClient(reactor, url, settings.prefix) for url in settings.endpoints],
        Registry(validate),
        Backoff(settings.min_interval, settings.interval, random),
        settings.interval,
        settings.min_interval,
    )
