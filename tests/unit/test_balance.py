"""The balancing policies: their common promises, and the behaviour of each policy."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy import interfaces
from evproxy.errors import SettingsError
from evproxy.model import ConnectionInfo
from evproxy.policy.balance.by_name import (
    NAMES,
    LeastSessions,
    LeastTime,
    RandomTwo,
    RoundRobin,
    balancer_named,
)
from evproxy.policy.balance.random_two import AliasTable
from tests.support.candidates import FakeServer, servers_of

CLIENT = ConnectionInfo("192.0.2.1", 40000)


def balancer_of(name: str, servers: Sequence[FakeServer]) -> interfaces.Balancer:
    balancer: interfaces.Balancer = balancer_named(name, Random(7))
    balancer.update(servers)
    return balancer


def picks(balancer: interfaces.Balancer, count: int) -> list[FakeServer]:
    """Return the first choices for `count` sessions, each of which ends before the next."""
    chosen = [next(balancer.candidates(CLIENT)) for _ in range(count)]
    assert all(isinstance(server, FakeServer) for server in chosen)
    return chosen  # type: ignore[return-value]


def hold(balancer: interfaces.Balancer, count: int) -> None:
    """Open `count` sessions that stay."""
    for _ in range(count):
        [server] = picks(balancer, 1)
        server.sessions += 1
        if isinstance(balancer, LeastSessions):
            balancer.load_changed(server)


names = st.sampled_from(NAMES)
weights = st.lists(st.integers(0, 256), max_size=12)
positive_weights = st.lists(st.integers(1, 256), min_size=1, max_size=8)


@given(names, weights, st.lists(st.integers(0, 5), min_size=12, max_size=12))
def test_walk_reaches_all_once(name: str, weights: list[int], sessions: list[int]) -> None:
    """A walk returns every server with a weight exactly once, and no other server."""
    servers = servers_of(weights)
    for server, held in zip(servers, sessions, strict=False):
        server.sessions = held
    balancer = balancer_of(name, servers)
    for _ in range(3):
        walk = list(balancer.candidates(CLIENT))
        assert len(walk) == len(set(walk))
        assert set(walk) == {server for server in servers if server.weight}


@given(names, weights, weights, st.data())
def test_walk_of_the_last_update(
    name: str, before: list[int], after: list[int], data: st.DataObject
) -> None:
    """After an update, a walk returns exactly the servers of the update."""
    pool = servers_of([1] * 12)
    balancer = balancer_of(name, pool[: len(before)])
    list(balancer.candidates(CLIENT))
    kept = data.draw(st.lists(st.sampled_from(pool), unique_by=id))
    balancer.update(kept)
    assert Counter(balancer.candidates(CLIENT)) == Counter(kept)


@pytest.mark.parametrize("name", NAMES)
def test_walk_is_lazy(name: str) -> None:
    """The first choice looks at a handful of servers, however many there are."""
    looked_at: set[int] = set()

    class Watched(FakeServer):
        def __getattribute__(self, attribute: str) -> object:
            if attribute in ("sessions", "connect_time"):
                looked_at.add(id(self))
            return object.__getattribute__(self, attribute)

    servers = [Watched(server.spec) for server in servers_of([1] * 1000)]
    balancer = balancer_of(name, servers)
    looked_at.clear()
    next(balancer.candidates(CLIENT))
    assert len(looked_at) <= 8


@pytest.mark.parametrize("name", NAMES)
def test_nobody_there(name: str) -> None:
    """Without servers, and before the first update, a walk returns nothing."""
    assert list(balancer_named(name, Random(7)).candidates(CLIENT)) == []
    assert list(balancer_of(name, []).candidates(CLIENT)) == []


def test_unknown_name() -> None:
    """An unknown policy is refused; the error lists the known policies."""
    with pytest.raises(SettingsError, match=r"least-sessions.*got 'fastest'"):
        balancer_named("fastest", Random())


# Round-robin.


def test_round_robin_in_turn() -> None:
    """Servers of one weight come in the order of the update, over and over."""
    servers = servers_of([1, 1, 1])
    assert picks(balancer_of("round-robin", servers), 7) == [*servers, *servers, servers[0]]


def test_round_robin_interleaves() -> None:
    """A heavy server's turns are spread between those of the light ones."""
    servers = servers_of([5, 1, 1])
    order = "".join("abc"[servers.index(s)] for s in picks(balancer_of("round-robin", servers), 7))
    assert order == "abaacaa" or max(len(run) for run in order.replace("a", " ").split()) == 1
    assert "aaaa" not in order * 2


@given(positive_weights, st.integers(1, 600))
def test_round_robin_is_smooth(weights: list[int], count: int) -> None:
    """At no time has a server had two turns more or less than its share."""
    servers = servers_of(weights)
    had: Counter[FakeServer] = Counter()
    for number, server in enumerate(picks(balancer_of("round-robin", servers), count), 1):
        had[server] += 1
        for other in servers:
            assert abs(had[other] - number * other.weight / sum(weights)) < 2


@given(positive_weights)
def test_round_robin_shares(weights: list[int]) -> None:
    """Over a whole cycle the turns are exactly as the weights say."""
    servers = servers_of(weights)
    had = Counter(picks(balancer_of("round-robin", servers), sum(weights)))
    assert [had[server] for server in servers] == weights


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_round_robin_keeps_its_place(updates: list[bool]) -> None:
    """Updates, however many, do not bring the same servers to the front again and again."""
    servers = servers_of([3, 1, 1, 1])
    balancer = RoundRobin()
    balancer.update(servers)
    had: Counter[FakeServer] = Counter()
    for number, update in enumerate(updates, 1):
        if update:
            balancer.update(servers)
        had.update(picks(balancer, 1))
        for server in servers:
            assert abs(had[server] - number * server.weight / 6) < 2


def test_round_robin_failover_spreads() -> None:
    """The sessions of a failed server are spread evenly over all other servers."""
    servers = servers_of([1] * 5)
    balancer = balancer_of("round-robin", servers)
    took: Counter[interfaces.Candidate] = Counter()
    for _ in range(400):
        took[next(s for s in balancer.candidates(CLIENT) if s is not servers[2])] += 1
    assert set(took.values()) == {100}


# Least sessions.


@given(positive_weights, st.integers(1, 200))
def test_least_sessions_shares(weights: list[int], count: int) -> None:
    """Held sessions are spread so that no server is a session's cost above another."""
    servers = servers_of(weights)
    balancer = balancer_of("least-sessions", servers)
    hold(balancer, count)
    for one, other in itertools.permutations(servers, 2):
        assert (one.sessions - 1) / one.weight <= other.sessions / other.weight


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=80))
def test_least_sessions_is_the_least(events: list[tuple[int, bool]]) -> None:
    """Whichever sessions begin and end, the pick is a server with the least load."""
    servers = servers_of([1, 1, 2, 2, 3, 4, 8, 256])
    balancer = LeastSessions()
    balancer.update(servers)
    for number, begins in events:
        server = servers[number]
        server.sessions = max(0, server.sessions + (1 if begins else -1))
        balancer.load_changed(server)
        [picked] = picks(balancer, 1)
        assert picked.sessions / picked.weight == min(s.sessions / s.weight for s in servers)
        walk = [s.sessions / s.weight for s in balancer.candidates(CLIENT)]
        assert walk == sorted(walk)


def test_least_sessions_idle() -> None:
    """Servers without sessions take turns, by their weights."""
    servers = servers_of([3, 1])
    had = Counter(picks(balancer_of("least-sessions", servers), 400))
    assert [had[server] for server in servers] == [300, 100]


def test_least_sessions_one_at_a_time() -> None:
    """Sessions that begin and end before the next one go to the servers in turn."""
    servers = servers_of([1, 1, 1])
    balancer = LeastSessions()
    balancer.update(servers)
    had: Counter[FakeServer] = Counter()
    for _ in range(30):
        [server] = picks(balancer, 1)
        had[server] += 1
        for change in (1, -1):
            server.sessions += change
            balancer.load_changed(server)
    assert set(had.values()) == {10}


def test_least_sessions_growing_weight() -> None:
    """A server whose weight grows does not wait for its turn as long as it would have before."""
    light, heavy = servers = servers_of([0.01, 1])
    balancer = LeastSessions()
    balancer.update(servers)
    while picks(balancer, 1) != [light]:
        pass
    light.weight = 1
    balancer.update(servers)
    had = Counter(picks(balancer, 100))
    assert abs(had[light] - had[heavy]) <= 2


# Random two.


@given(positive_weights)
def test_alias_table_is_exact(weights: list[int]) -> None:
    """The probability of an index is the share of its weight in all weights."""
    steps = 2000
    table = AliasTable(weights)
    had = Counter(table.draw((step + 0.5) / steps) for step in range(steps))
    for index, weight in enumerate(weights):
        assert had[index] / steps == pytest.approx(
            weight / sum(weights), abs=2 * len(weights) / steps
        )


def test_random_two_never_the_worst() -> None:
    """The most loaded of several servers is never picked."""
    servers = servers_of([1] * 5)
    servers[3].sessions = 10
    assert servers[3] not in picks(balancer_of("random-two", servers), 1000)


def test_random_two_shares() -> None:
    """Held sessions follow the weights."""
    servers = servers_of([1, 2, 3, 4])
    hold(balancer_of("random-two", servers), 1000)
    for server in servers:
        assert server.sessions == pytest.approx(100 * server.weight, rel=0.05)


def test_random_two_idle_shares() -> None:
    """Sessions that do not overlap follow the weights too."""
    servers = servers_of([1, 3])
    had = Counter(picks(balancer_of("random-two", servers), 10_000))
    assert had[servers[1]] == pytest.approx(7500, rel=0.05)


def test_random_two_is_balanced() -> None:
    """Two choices keep the fullest server close to the mean, where one would not."""
    servers = servers_of([1] * 100)
    hold(balancer_of("random-two", servers), 10_000)
    assert max(server.sessions for server in servers) <= 104


def test_random_two_repeats() -> None:
    """The same random source gives the same picks: chance is injected."""
    first, second = servers_of([1] * 9), servers_of([1] * 9)
    one, other = RandomTwo(Random(3)), RandomTwo(Random(3))
    one.update(first)
    other.update(second)
    assert [s.spec for s in picks(one, 50)] == [s.spec for s in picks(other, 50)]


# Least time.


def test_least_time_prefers_the_fast() -> None:
    """Of idle servers the one that connects fastest is picked."""
    servers = servers_of([1, 1, 1])
    for server, seconds in zip(servers, (0.05, 0.001, 0.2), strict=True):
        server.connect_time = seconds
    balancer = balancer_of("least-time", servers)
    assert set(picks(balancer, 20)) == {servers[1]}
    assert list(balancer.candidates(CLIENT)) == [servers[1], servers[0], servers[2]]


def test_least_time_counts_sessions() -> None:
    """A server twice as slow gets half the sessions, one of twice the weight twice as many."""
    servers = servers_of([1, 1, 2])
    for server, seconds in zip(servers, (0.001, 0.002, 0.001), strict=True):
        server.connect_time = seconds
    hold(balancer_of("least-time", servers), 700)
    assert [server.sessions for server in servers] == pytest.approx([200, 100, 400], abs=2)


def test_least_time_tries_the_unknown() -> None:
    """A server never connected to is tried, but does not get every session."""
    servers = servers_of([1, 1])
    servers[0].connect_time = 0.001
    hold(balancer_of("least-time", servers), 10)
    assert [server.sessions for server in servers] == [5, 5]


def test_least_time_in_large_pools() -> None:
    """If only some servers are compared, a slow one is still hardly ever picked."""
    servers = servers_of([1] * 50)
    for server in servers:
        server.connect_time = 0.001
    servers[17].connect_time = 1.0
    balancer = LeastTime(Random(5))
    balancer.update(servers)
    assert servers[17] not in picks(balancer, 2000)
