"""The sums of what the workers count."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from evproxy.admin.metrics import Servers
from evproxy.engine.slices import SLICE
from evproxy.model import CloseReason, Ending, Phase, Side, UpstreamServer
from evproxy.observe.metrics.declared import DECLARED
from evproxy.observe.metrics.families import (
    Growing,
    Numbers,
    pool_families,
    proxy_families,
    relay_families,
    server_families,
    session_families,
)
from evproxy.observe.metrics.live import LiveTotals
from evproxy.observe.metrics.tally import ListenerTotals, Tally
from evproxy.service.certificates import CertificateStatus
from evproxy.service.listener import ListenerStatus
from evproxy.service.status import Status
from evproxy.upstream.pool.status import PoolStatus, ServerStatus
from evproxy.workers.sums import add_servers
from evproxy.workers.totals import Totals

KEY = ("default", "127.0.0.1:1")
ENDED = CloseReason(Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)


def numbers(total: int = 0, state: str = "up", sessions: int = 0, address: str = "a") -> Numbers:
    """What one worker tells: `total` sessions have ended, `sessions` have moved a byte each way."""
    server = ServerStatus(
        spec=UpstreamServer("127.0.0.1:1", max_sessions=2),
        name="127.0.0.1:1",
        state=state,
        why="",
        since=1.0,
        until=None,
        weight=1.0,
        sessions=sessions,
        sessions_total=total,
        connect_failures=1,
        ejections=0,
        connect_time=0.0,
        bytes_to_upstream=total,
    )
    listener = ListenerStatus(name="web", address=address, refused={"deny": total})
    tally = Tally()
    tally.accepting_paused("")
    tally.server_changed("default", "127.0.0.1:1", "up", "")
    ended = ListenerTotals(ends={ENDED: total}, bytes=(total, total), attempts=total)
    ended.durations.add([1.0] * total)
    live = LiveTotals()
    live.phases["web", "relaying"] = sessions
    live.listener_bytes["web"] = [sessions, sessions]
    live.server_bytes[KEY] = [sessions, sessions]
    live.kept = sessions
    return Numbers(
        status=Status(
            listeners=(listener,),
            pools=(PoolStatus(name="default", servers=(), waiting=1),),
            sessions=(),
            session_count=sessions,
            max_sessions=10,
            draining=False,
        ),
        version="1",
        tally=tally,
        listeners={"web": ended},
        live=live,
        states={},
        servers=[("default", server)],
        left_out=0,
        accepting_paused=False,
        log_lines_dropped=1,
        pauses=2,
        pipes=(1, 2, 3),
    )


class Summed:
    """Two workers, and the sums of what they tell."""

    def __init__(self) -> None:
        self.totals = Totals(Clock(), 2, lambda pool, server: (7, 3))

    def whole(self) -> tuple[Numbers, ServerStatus]:
        """The sums, and those of the only server."""
        found: list[Numbers] = []
        self.totals.whole().addCallback(found.append)
        [(_, server)] = found[0].servers
        return found[0], server

    def samples(self) -> dict[str, Any]:
        """The value of each metric of sessions, or of its last sample."""
        families = session_families(self.whole()[0], Growing())
        return {each.name: list(each.samples)[-1][2] for each in families}


@pytest.fixture
def summed() -> Summed:
    return Summed()


EVERY_METRIC = {
    # Once for the whole.
    "evproxy_build_info": 1,
    "evproxy_draining": 0,
    "evproxy_certificate_expires_timestamp_seconds": 9e9,
    "evproxy_pool_servers": 1,
    "evproxy_pool_server_changes_total": 1,
    "evproxy_servers_left_out": 0,
    "evproxy_server_state": 1,
    "evproxy_server_checks_total": 7 + 3,
    # If one of the workers does.
    "evproxy_accepting_paused": 1,
    # The highest.
    "evproxy_server_weight": 3,
    "evproxy_server_connect_time_seconds": 0.5,
    # Sums.
    "evproxy_accepting_pauses_total": 2,
    "evproxy_shortages_total": 2,
    "evproxy_log_lines_dropped_total": 2,
    "evproxy_sessions": 2 + 3,
    "evproxy_sessions_max": 20,
    "evproxy_sessions_started_total": 7 + 9,
    "evproxy_sessions_ended_total": 5 + 6,
    "evproxy_clients_refused_total": 5 + 6,
    "evproxy_bytes_to_upstream_total": 7 + 9,
    "evproxy_bytes_to_downstream_total": 7 + 9,
    "evproxy_connect_attempts_total": 5 + 6,
    "evproxy_session_duration_seconds": 5 + 6,
    "evproxy_connect_time_seconds": 0,
    "evproxy_first_byte_time_seconds": 0,
    "evproxy_pool_waiting": 2,
    "evproxy_pool_exhausted_total": 2,
    "evproxy_pool_discovery_failures_total": 2,
    "evproxy_mirror_copies_total": 2,
    "evproxy_mirror_answers_total": 4,
    "evproxy_server_sessions": 2 + 3,
    "evproxy_server_sessions_max": 4,
    "evproxy_server_connects_total": 5 + 6,
    "evproxy_server_connect_failures_total": 2,
    "evproxy_server_ejections_total": 0 + 2,
    "evproxy_server_bytes_to_upstream_total": 7 + 9,
    "evproxy_server_bytes_to_downstream_total": 2 + 3,
    "evproxy_flow_control_pauses_total": 4,
    "evproxy_kept_bytes": 2 + 3,
    "evproxy_pipes_used": 2,
    "evproxy_pipes_unused": 4,
    "evproxy_pipes_max": 6,
}
"""What each metric has for the two workers of the test, as the sum of its samples."""


def test_every_metric(summed: Summed) -> None:
    """Each metric of two workers is a sum, or what it means for the whole."""
    first, second = numbers(total=5, sessions=2), numbers(total=6, sessions=3)
    expiring = CertificateStatus(path="a.pem", names=(), expires=9e9, days_left=1.0)
    [(pool, server)] = second.servers
    server = evolve(server, weight=3.0, connect_time=0.5, ejections=2)
    second = evolve(second, servers=[(pool, server)], accepting_paused=True)
    for worker, each in enumerate((first, second)):
        each.tally.pressure_began("", "")
        each.tally.pool_exhausted("default", "")
        each.tally.discovery_failed("default", "")
        each.tally.copies["default", "complete"] += 1
        each.tally.answers["default", "equal"] += 2
        status = evolve(each.status, certificates=(expiring,))
        summed.totals.changes.changed(worker, *KEY, "down")
        summed.totals.told(worker, evolve(each, status=status))
    whole, _ = summed.whole()
    servers = Servers()
    for item in whole.servers:
        servers.look(item)
    whole = servers.in_numbers(whole)
    families = [
        *proxy_families(whole),
        *session_families(whole, Growing()),
        *pool_families(whole),
        *server_families(whole, Growing()),
        *relay_families(whole),
    ]
    found = {
        each.name: sum(value for suffix, _, value in each.samples if suffix in ("", "_count"))
        for each in families
    }
    assert found == EVERY_METRIC
    assert set(found) == {each.name for each in DECLARED}


def test_sums(summed: Summed) -> None:
    """Counts and bounds are added; checks are counted where they are done, and changes once."""
    for worker in range(2):
        summed.totals.changes.changed(worker, *KEY, "down")
    summed.totals.told(0, numbers(total=5, sessions=2))
    summed.totals.told(1, numbers(total=6, sessions=3))
    found, server = summed.whole()
    status = found.status
    assert (status.session_count, status.max_sessions, status.pools[0].waiting) == (5, 20, 2)
    assert dict(status.listeners[0].refused) == {"deny": 11}
    assert (server.sessions, server.sessions_total, server.connect_failures) == (5, 11, 2)
    assert server.spec.max_sessions == 4
    assert (server.checks_passed, server.checks_failed) == (7, 3)
    # Both have noticed the same changes.
    assert (found.tally.pauses, found.tally.changes) == (2, {("default", "down"): 1})
    assert (found.log_lines_dropped, found.pauses, found.pipes) == (2, 4, (2, 4, 6))
    assert (found.live.kept, found.live.server_bytes[KEY]) == (5, [5, 5])
    totals = found.listeners["web"]
    assert (totals.ends, totals.bytes, totals.attempts) == ({ENDED: 11}, (11, 11), 11)
    assert (sum(totals.durations.counts.values()), totals.durations.sum) == (11, 11.0)


def test_sums_change_nothing(summed: Summed) -> None:
    """What the workers have told is the same after it was added up."""
    for worker in range(2):
        summed.totals.told(worker, numbers(total=5, sessions=2))
    assert summed.samples() == summed.samples()
    summed.totals.died(0)
    assert summed.samples() == summed.samples()


def test_dead_worker(summed: Summed) -> None:
    """What a worker had counted stays when it dies; its sessions are gone."""
    for worker in range(2):
        summed.totals.told(worker, numbers(total=5, sessions=2))
    before = summed.samples()
    summed.totals.died(0)
    found, server = summed.whole()
    assert (found.status.session_count, found.status.max_sessions) == (2, 10)
    assert (server.sessions, server.sessions_total) == (2, 10)
    assert server.bytes_to_upstream + found.live.server_bytes[KEY][0] == 14
    assert dict(found.status.listeners[0].refused) == {"deny": 10}
    after = summed.samples()
    assert after["evproxy_sessions_max"] == 10
    counters = {name for name in before if name.endswith(("_total", "_seconds"))}
    assert {name: after[name] for name in counters} == {name: before[name] for name in counters}
    summed.totals.told(0, numbers(total=1))
    summed.totals.died(0)
    summed.totals.died(0)
    assert summed.whole()[1].sessions_total == 11


def test_all_are_dead(summed: Summed) -> None:
    """Without any worker, the sums show what there was, and no session."""
    for worker in range(2):
        summed.totals.told(worker, numbers(total=5, sessions=2))
    for worker in range(2):
        summed.totals.died(worker)
    found, server = summed.whole()
    assert (found.status.session_count, found.status.max_sessions) == (0, 20)
    assert [each.name for each in found.status.pools] == ["default"]
    assert found.status.pools[0].waiting == 0
    assert (server.sessions, server.sessions_total, server.spec.max_sessions) == (0, 10, 4)
    assert dict(found.status.listeners[0].refused) == {"deny": 10}
    assert (found.tally.pauses, found.log_lines_dropped, found.lost) == (2, 2, {"web": 4})
    assert summed.samples()["evproxy_bytes_to_upstream_total"] == 14


@pytest.mark.parametrize(
    ("states", "state"),
    [(("up", "ejected"), "up"), (("ejected", "down"), "ejected"), (("down", "down"), "down")],
)
def test_states(summed: Summed, states: tuple[str, str], state: str) -> None:
    """A server is up if it is for one of the workers."""
    for worker, each in enumerate(states):
        summed.totals.told(worker, numbers(state=each))
    assert summed.whole()[1].state == state


@pytest.mark.parametrize(
    ("states", "since"),
    [
        ((("up", 9.0), ("up", 4.0)), 4.0),
        ((("up", 9.0), ("down", 4.0)), 9.0),
        ((("down", 4.0), ("up", 9.0)), 9.0),
    ],
)
def test_since(states: tuple[tuple[str, float], tuple[str, float]], since: float) -> None:
    """A state begins when the first worker sees it: not when one is replaced."""
    one, other = (
        evolve(numbers(state=state).servers[0][1], since=since) for state, since in states
    )
    assert add_servers(one, other).since == since


def test_one_worker_drains(summed: Summed) -> None:
    """A listener is one listener, also if it listens in one of the workers only."""
    summed.totals.told(0, numbers(address=""))
    summed.totals.told(1, numbers())
    [listener] = summed.whole()[0].status.listeners
    assert listener.address == "a"


def test_no_worker() -> None:
    """Before any worker has told anything, there is nothing to show."""
    found: list[Numbers] = []
    Totals(Clock(), 2).whole().addCallback(found.append)
    assert (found[0].status.pools, list(found[0].servers)) == ((), [])


def test_servers_of_one_worker(summed: Summed) -> None:
    """A server that only one worker has is among the servers."""
    other = numbers()
    [(pool, server)] = other.servers
    summed.totals.told(0, numbers())
    summed.totals.told(1, evolve(other, servers=[(pool, evolve(server, name="other"))]))
    found: list[Numbers] = []
    summed.totals.whole().addCallback(found.append)
    assert [each.name for _, each in found[0].servers] == ["127.0.0.1:1", "other"]


def test_known_sums() -> None:
    """Looks of viewers add up nothing again until a worker tells other numbers, or dies."""
    summed = Summed()
    found: list[Numbers] = []

    def look() -> Numbers:
        summed.totals.known().addCallback(found.append)
        return found[-1]

    summed.totals.told(0, numbers(sessions=1))
    first = look()
    assert look() is first
    summed.totals.told(1, numbers(sessions=2))
    assert look().status.session_count == 3
    summed.totals.died(1)
    last = look()
    assert last.status.session_count == 1
    assert look() is last


def test_known_sums_while_a_worker_tells() -> None:
    """Numbers that come while others are added up are in the next sums."""
    clock = Clock()
    totals = Totals(clock, 1)
    one = numbers(sessions=1)
    many = [("default", evolve(one.servers[0][1], name=str(each))) for each in range(2 * SLICE)]
    totals.told(0, evolve(one, servers=many))
    found: list[Numbers] = []
    totals.known().addCallback(found.append)
    assert not found
    totals.told(0, numbers(sessions=2))
    clock.pump([0] * 10)
    totals.known().addCallback(found.append)
    clock.pump([0] * 10)
    assert [each.status.session_count for each in found] == [1, 2]
