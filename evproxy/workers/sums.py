"""
What several workers have counted as one: sums of counts, and what a state means for the whole.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve

from evproxy.observe.metrics.families import Numbers
from evproxy.observe.metrics.live import LiveTotals
from evproxy.observe.metrics.tally import ListenerTotals, Tally
from evproxy.service.listener import ListenerStatus
from evproxy.service.status import Status
from evproxy.upstream.pool.status import PoolStatus, ServerStatus
from evproxy.workers.server_changes import STATES

COUNTED = (
    "sessions_total",
    "connect_failures",
    "ejections",
    "bytes_to_upstream",
    "bytes_to_downstream",
)
"""The fields of `ServerStatus` that count from the beginning."""

_NO_COUNTS: dict[str, Any] = dict.fromkeys(COUNTED, 0)


def add_servers(one: ServerStatus, other: ServerStatus) -> ServerStatus:
    """One server in two workers."""
    leads = one if STATES.index(one.state) <= STATES.index(other.state) else other
    return ServerStatus(
        spec=evolve(one.spec, max_sessions=one.spec.max_sessions + other.spec.max_sessions),
        name=one.name,
        state=leads.state,
        why=leads.why,
        since=min(one.since, other.since) if one.state == other.state else leads.since,
        until=leads.until,
        weight=max(one.weight, other.weight),
        sessions=one.sessions + other.sessions,
        connect_time=max(one.connect_time, other.connect_time),
        sessions_total=one.sessions_total + other.sessions_total,
        connect_failures=one.connect_failures + other.connect_failures,
        ejections=one.ejections + other.ejections,
        bytes_to_upstream=one.bytes_to_upstream + other.bytes_to_upstream,
        bytes_to_downstream=one.bytes_to_downstream + other.bytes_to_downstream,
    )


def add_listeners(listeners: Sequence[ListenerStatus]) -> ListenerStatus:
    """One listener in several workers."""
    refused: Counter[str] = Counter()
    for each in listeners:
        refused.update(each.refused)
    # A worker that drains listens no more.
    address = next((each.address for each in listeners if each.address), "")
    return evolve(listeners[0], address=address, refused=dict(refused))


def add_statuses(statuses: Sequence[Status]) -> Status:
    """
    The status of all workers from that of each; at least one.

    `draining` and `drained` are those of all workers, and there is no `loop`.
    """
    listeners: dict[tuple[str, int], list[ListenerStatus]] = {}
    waiting: Counter[str] = Counter()
    for status in statuses:
        names: Counter[str] = Counter()
        for listener in status.listeners:
            names[listener.name] += 1
            listeners.setdefault((listener.name, names[listener.name]), []).append(listener)
        for pool in status.pools:
            waiting[pool.name] += pool.waiting
    return Status(
        listeners=tuple(map(add_listeners, listeners.values())),
        pools=tuple(PoolStatus(name=name, servers=(), waiting=n) for name, n in waiting.items()),
        sessions=(),
        session_count=sum(status.session_count for status in statuses),
        max_sessions=sum(status.max_sessions for status in statuses),
        certificates=statuses[0].certificates,
        draining=any(status.draining for status in statuses),
        drained=all(status.drained for status in statuses),
    )


def add_totals(parts: Iterable[Mapping[str, ListenerTotals]]) -> dict[str, ListenerTotals]:
    """The sessions that have ended, by the name of their listener."""
    whole: dict[str, ListenerTotals] = {}
    for part in parts:
        for name, totals in part.items():
            whole.setdefault(name, ListenerTotals()).include(totals)
    return whole


def add_numbers(parts: Sequence[Numbers]) -> Numbers:
    """
    The numbers of all workers from those of each; at least one.

    They have no servers, and no bytes of live sessions by server.
    """
    tally, live = Tally(), LiveTotals()
    for part in parts:
        tally.include_events(part.tally)
        live.include(part.live)
    return Numbers(
        status=add_statuses([part.status for part in parts]),
        version=parts[0].version,
        tally=tally,
        listeners=add_totals(part.listeners for part in parts),
        live=live,
        states={},
        servers=(),
        left_out=0,
        accepting_paused=any(part.accepting_paused for part in parts),
        log_lines_dropped=sum(part.log_lines_dropped for part in parts),
        pauses=sum(part.pauses for part in parts),
        pipes=(
            sum(part.pipes[0] for part in parts),
            sum(part.pipes[1] for part in parts),
            sum(part.pipes[2] for part in parts),
        ),
    )


def nothing(version: str) -> Numbers:
    """The numbers of no worker at all; `version`: that of evproxy."""
    status = Status(
        listeners=(), pools=(), sessions=(), session_count=0, max_sessions=0, draining=False
    )
    return Numbers(
        status=status,
        version=version,
        tally=Tally(),
        listeners={},
        live=LiveTotals(),
        states={},
        servers=(),
        left_out=0,
        accepting_paused=False,
        log_lines_dropped=0,
        pauses=0,
        pipes=(0, 0, 0),
    )


def without_counts(numbers: Numbers) -> Numbers:
    """What a worker looked like that has died: no sessions, and nothing that it had counted."""
    status = numbers.status
    return evolve(
        numbers,
        status=evolve(
            status,
            session_count=0,
            listeners=tuple(evolve(each, refused={}) for each in status.listeners),
            pools=tuple(evolve(each, waiting=0) for each in status.pools),
            loop=None,
        ),
        tally=Tally(),
        listeners={},
        live=LiveTotals(),
        accepting_paused=False,
        log_lines_dropped=0,
        pauses=0,
        pipes=(0, 0, 0),
    )


def server_without_counts(server: ServerStatus) -> ServerStatus:
    """The same for one of its servers."""
    return evolve(server, sessions=0, **_NO_COUNTS)
