"""
The sums of what the workers count, with what those had counted that have died.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, DeferredList

from evproxy.service.listener import ListenerStatus
from evproxy.service.status import Status
from evproxy.settings import Settings
from evproxy.upstream.pool.status import PoolStatus, ServerStatus
from evproxy.workers import messages
from evproxy.workers.slot import Slot

COUNTED = (
    "sessions_total",
    "connect_failures",
    "ejections",
    "bytes_to_upstream",
    "bytes_to_downstream",
)
"""The fields of `ServerStatus` that count from the beginning."""

_STATES = ("up", "ejected", "down", "draining")
"""The state of a server in all workers: the first one that it has in one of them."""


@frozen(kw_only=True)
class WorkerStatus:
    """
    A snapshot of a worker.

    `number`: from 1 on.  `pid`: of its process; ``None``: there is none for now.  `restarts`: how
    often the process was replaced.  `sessions` is the number of its sessions, `max_sessions` their
    bound.
    """

    number: int
    pid: int | None
    restarts: int
    sessions: int
    max_sessions: int


def add_servers(servers: Iterable[ServerStatus]) -> ServerStatus:
    """One server in several workers."""
    first, *others = servers
    whole = first
    for each in others:
        if _STATES.index(each.state) < _STATES.index(whole.state):
            whole = evolve(
                whole, state=each.state, why=each.why, since=each.since, until=each.until
            )
        counts = {name: getattr(whole, name) + getattr(each, name) for name in COUNTED}
        whole = evolve(
            whole,
            **counts,
            sessions=whole.sessions + each.sessions,
            weight=max(whole.weight, each.weight),
            connect_time=max(whole.connect_time, each.connect_time),
            spec=evolve(whole.spec, max_sessions=whole.spec.max_sessions + each.spec.max_sessions),
        )
    return whole


def add_pools(pools: Iterable[PoolStatus]) -> PoolStatus:
    """One pool in several workers."""
    pools = list(pools)
    by_name: dict[str, list[ServerStatus]] = {}
    for pool in pools:
        for server in pool.servers:
            by_name.setdefault(server.name, []).append(server)
    return PoolStatus(
        name=pools[0].name,
        servers=tuple(map(add_servers, by_name.values())),
        waiting=sum(pool.waiting for pool in pools),
    )


def add_listeners(listeners: Iterable[ListenerStatus]) -> ListenerStatus:
    """One listener in several workers."""
    listeners = list(listeners)
    refused: Counter[str] = Counter()
    for each in listeners:
        refused.update(each.refused)
    return evolve(listeners[0], refused=dict(refused))


def add(statuses: Sequence[Status], most_sessions: int) -> Status:
    """
    The status of all workers from that of each; at least one.

    :param most_sessions: how many sessions, the oldest ones, it has.
    """
    first = statuses[0]
    listeners: dict[tuple[str, str], list[ListenerStatus]] = {}
    pools: dict[str, list[PoolStatus]] = {}
    for status in statuses:
        for listener in status.listeners:
            listeners.setdefault((listener.name, listener.address), []).append(listener)
        for pool in status.pools:
            pools.setdefault(pool.name, []).append(pool)
    sessions = [session for status in statuses for session in status.sessions]
    return Status(
        listeners=tuple(map(add_listeners, listeners.values())),
        pools=tuple(map(add_pools, pools.values())),
        sessions=tuple(sorted(sessions, key=_age, reverse=True)[:most_sessions]),
        session_count=sum(status.session_count for status in statuses),
        max_sessions=sum(status.max_sessions for status in statuses),
        certificates=first.certificates,
        draining=any(status.draining for status in statuses),
    )


def _age(session: Any) -> float:
    duration: float = session.duration
    return duration


class Totals:
    """
    What the workers count.

    :param workers: how many there are.
    :param checks: returns how many checks of a server of a pool have passed, and failed.
    """

    def __init__(
        self,
        workers: int,
        checks: Callable[[str, str], tuple[int, int]] = lambda pool, name: (0, 0),
    ) -> None:
        self._checks = checks
        self._last: list[Status | None] = [None] * workers
        self._servers: dict[tuple[str, str], Counter[str]] = {}
        self._refused: dict[str, Counter[str]] = {}

    def ask(self, slots: Sequence[Slot], most_sessions: int) -> Deferred[Any]:
        """Ask every worker that serves; the Deferred fires once all have answered, or died."""
        asked = []
        for slot in slots:
            if slot.serving is not None:
                answer = slot.serving.channel.ask(messages.Status(most_sessions))
                answer.addCallbacks(
                    lambda status, n=slot.number: self.told(n, status), lambda _: None
                )
                asked.append(answer)
        return DeferredList(asked)

    def told(self, worker: int, status: Status | None) -> None:
        """`worker` has told its status."""
        if status is not None:
            self._last[worker] = status

    def died(self, worker: int) -> None:
        """The process of `worker` has ended: keep what it had counted."""
        last, self._last[worker] = self._last[worker], None
        if last is None:
            return
        for pool in last.pools:
            for server in pool.servers:
                counts = self._servers.setdefault((pool.name, server.name), Counter())
                counts.update({name: getattr(server, name) for name in COUNTED})
        for listener in last.listeners:
            self._refused.setdefault(listener.name, Counter()).update(listener.refused)

    def status(self, settings: Settings, draining: bool, most_sessions: int) -> Status:
        """The sums."""
        known = [status for status in self._last if status is not None]
        if not known:
            return Status(
                listeners=(),
                pools=(),
                sessions=(),
                session_count=0,
                max_sessions=settings.max_sessions,
                draining=draining,
            )
        whole = add(known, most_sessions)
        return evolve(
            whole,
            draining=draining,
            listeners=tuple(map(self._with_dead, whole.listeners)),
            pools=tuple(
                evolve(
                    pool,
                    servers=tuple(self._server(pool.name, each) for each in pool.servers),
                )
                for pool in whole.pools
            ),
        )

    def workers(self, slots: Sequence[Slot]) -> tuple[WorkerStatus, ...]:
        """A snapshot of each worker."""
        return tuple(
            WorkerStatus(
                number=slot.number + 1,
                pid=None if slot.process is None else slot.process.pid,
                restarts=slot.replacement.restarts,
                sessions=0 if last is None else last.session_count,
                max_sessions=0 if last is None else last.max_sessions,
            )
            for slot, last in zip(slots, self._last, strict=True)
        )

    def _with_dead(self, listener: ListenerStatus) -> ListenerStatus:
        refused = Counter(listener.refused)
        refused.update(self._refused.get(listener.name, {}))
        return evolve(listener, refused=dict(refused))

    def _server(self, pool: str, server: ServerStatus) -> ServerStatus:
        counts = self._servers.get((pool, server.name), Counter())
        passed, failed = self._checks(pool, server.name)
        return evolve(
            server,
            **{name: getattr(server, name) + counts[name] for name in COUNTED},
            checks_passed=passed,
            checks_failed=failed,
        )
