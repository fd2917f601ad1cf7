"""Which server a session is given, and what happens when none is up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from twisted.internet.task import Clock

from evproxy import interfaces
from evproxy.model import (
    ConnectionInfo,
    UpstreamServer,
)
from evproxy.policy.balance.by_name import NAMES
from evproxy.settings import PoolSettings
from evproxy.upstream.pool.pool import Pool
from tests.support.pool_doubles import (
    CLIENT,
    FINISHED,
    REFUSED,
    A,
    B,
    C,
    Caller,
    D,
    Doctor,
    Events,
    NoDialer,
    PoolMaker,
    advance,
    down,
    fail,
    refused,
    share,
    walk,
)


def test_is_a_pool(make: PoolMaker) -> None:
    """It satisfies the contract, and knows its own settings."""
    pool: interfaces.Pool = make(A, connect_timeout=1.5, connect_attempts=7)
    assert (pool.name, pool.connect_timeout, pool.connect_attempts) == ("web", 1.5, 7)
    server: interfaces.Server = next(pool.candidates(CLIENT))
    assert isinstance(server.dialer, NoDialer)


def test_from_settings(clock: Clock) -> None:
    """The frozen settings make the same pool as the keywords."""
    settings = PoolSettings(
        name="web",
        upstreams=(UpstreamServer(A, weight=3), UpstreamServer(B)),
        balance="least-sessions",
        connect_timeout=1.0,
        connect_attempts=2,
    )
    pool = Pool.from_settings(clock, settings, dialer_for=lambda spec: NoDialer())
    assert (pool.name, pool.connect_timeout, pool.connect_attempts) == ("web", 1.0, 2)
    assert share(pool, 400) == {A: 300, B: 100}


@pytest.mark.parametrize("balance", NAMES)
def test_all_policies(make: PoolMaker, clock: Clock, balance: str) -> None:
    """With every policy a walk gives each usable server once, and a drained one not at all."""
    pool = make(A, f"tcp:{B}", C, balance=balance)
    assert sorted(walk(pool)) == [A, B, C]
    pool.drain(B)
    assert sorted(walk(pool)) == [A, C]
    advance(clock, 60)
    assert sorted(walk(pool)) == [A, C]


def test_least_time_leaves_a_dead_server(make: PoolMaker, clock: Clock) -> None:
    """The fastest server is left once it cannot be connected, and is tried again later."""
    pool = make(A, B, balance="least-time", connect_timeout=2.0)
    connects = {A: 0.001, B: 0.05}

    def connect() -> str:
        caller = Caller(pool).open()
        assert caller.server is not None
        if caller.server.name in connects:
            pool.connected(caller.server, connects[caller.server.name])
            caller.close()
        else:
            pool.connect_failed(caller.server, caller, REFUSED)
        return caller.server.name

    assert [connect() for _ in range(10)].count(A) >= 8
    del connects[A]
    assert [connect() for _ in range(100)].count(A) == 1
    connects[A] = 0.001
    advance(clock, 60)
    assert [connect() for _ in range(10)].count(A) >= 1


def test_least_time_of_a_server_that_comes_up(
    make: PoolMaker, clock: Clock, doctor: Doctor
) -> None:
    """A server that comes up is tried: that it could not be connected was before."""
    pool = make(A, B, balance="least-time", health_check=doctor)
    pool.start()
    for server in list(pool.candidates(CLIENT)):
        caller = Caller(pool)
        pool.claim(server, caller)
        pool.connected(server, 0.001)
        pool.ended(server, caller, FINISHED, True)
    fail(pool, A)
    assert share(pool, 100) == {B: 100}
    down(pool, clock, doctor, A)
    doctor.sick.clear()
    advance(clock, 10)
    assert share(pool, 100)[A] > 20


def test_own_balancer(make: PoolMaker) -> None:
    """A plain object of the user's own can order the servers."""

    class Alphabetical:
        servers: Sequence[interfaces.Candidate] = ()

        def update(self, servers: Sequence[interfaces.Candidate]) -> None:
            self.servers = sorted(servers, key=lambda server: server.spec.name)

        def candidates(self, info: ConnectionInfo) -> Iterator[interfaces.Candidate]:
            return iter(self.servers)

    assert walk(make(C, A, B, balance=Alphabetical())) == [A, B, C]


def test_updates_follow_changes_only(make: PoolMaker) -> None:
    """A balancer is updated when servers change, not for each session."""
    updates = []

    class Counting:
        def update(self, servers: Sequence[interfaces.Candidate]) -> None:
            self.servers = list(servers)
            updates.append([server.spec.name for server in servers])

        def candidates(self, info: ConnectionInfo) -> Iterator[interfaces.Candidate]:
            return iter(self.servers)

    pool = make(A, B, balance=Counting())
    for _ in range(10):
        Caller(pool).open().close()
    pool.drain(A)
    for _ in range(10):
        Caller(pool).open().close()
    assert updates == [[A, B], [B]]


def test_full_is_skipped(make: PoolMaker) -> None:
    """A server at its `max_sessions` is passed over until one of its sessions ends."""
    pool = make(UpstreamServer(A, max_sessions=1), B)
    first = Caller(pool).open()
    assert first.server is not None
    assert first.server.name == A
    assert walk(pool) == [B]
    first.close()
    assert sorted(walk(pool)) == [A, B]


def test_lost_during_a_walk(make: PoolMaker) -> None:
    """A server that became unusable before its turn in a walk came is skipped."""
    pool = make(A, B, C)
    candidates = pool.candidates(CLIENT)
    assert next(candidates).name == A
    pool.drain(B)
    assert [server.name for server in candidates] == [C]


def test_tiers(make: PoolMaker) -> None:
    """Lower priorities come first, backups after all, and failover walks on to them."""
    specs = [
        UpstreamServer(A, backup=True),
        UpstreamServer(B, priority=20),
        UpstreamServer(C, priority=10),
        UpstreamServer(D, priority=10),
    ]
    pool = make(*specs)
    assert share(pool) == {C: 500, D: 500}
    assert walk(pool)[2:] == [B, A]
    pool.drain(C)
    pool.drain(D)
    assert share(pool) == {B: 1000}
    pool.drain(B)
    assert share(pool) == {A: 1000}


def test_none_twice_when_tiers_change(make: PoolMaker) -> None:
    """A walk gives no server twice, although the tiers move up while it is under way."""
    pool = make(A, UpstreamServer(B, backup=True), UpstreamServer(C, backup=True))
    candidates = pool.candidates(CLIENT)
    found = [next(candidates).name]
    pool.drain(A)
    next(pool.candidates(CLIENT))
    found += [server.name for server in candidates]
    assert sorted(found) == [A, B, C]


def test_refuse_when_all_are_down(
    make: PoolMaker, clock: Clock, events: Events, doctor: Doctor
) -> None:
    """With every server down nothing is given, and that is said once for each period."""
    pool = make(A, B, health_check=doctor)
    pool.start()
    for _ in range(2):
        down(pool, clock, doctor, A, B)
        events.flush()
        assert [walk(pool) for _ in range(3)] == [[], [], []]
        assert refused(pool) == "no server is up"
        assert events.flush() == ["web exhausted: no server is up"]
        doctor.sick.clear()
        advance(clock, 10)
        assert sorted(walk(pool)) == [A, B]


def test_try_when_all_are_down(
    make: PoolMaker, clock: Clock, events: Events, doctor: Doctor
) -> None:
    """Asked to, the pool gives all servers rather than none, but never a drained one."""
    pool = make(A, B, C, health_check=doctor, all_down="try")
    pool.start()
    pool.drain(C)
    down(pool, clock, doctor, A, B, C)
    events.flush()
    assert sorted(walk(pool)) == [A, B]
    assert sorted(walk(pool)) == [A, B]
    assert events.flush() == ["web exhausted: no server is up; trying them all"]
    doctor.sick.remove(B)
    advance(clock, 10)
    assert walk(pool) == [B]


def test_empty_pool(make: PoolMaker, events: Events) -> None:
    """A pool without servers gives nothing, and says so."""
    assert walk(make()) == []
    assert events.flush() == ["web exhausted: the pool has no servers"]
