"""Consistent hashing: equal results everywhere, and few moves when servers come and go."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.model import ConnectionInfo, UpstreamServer
from evproxy.policy.balance.by_name import SourceHash
from evproxy.policy.balance.maglev import build, is_prime, stable_hash
from tests.support.candidates import FakeServer, servers_of

CLIENTS = [ConnectionInfo(f"198.51.{n // 250}.{n % 250}", 1) for n in range(5000)]
SMALL = 5003


def ready(servers: Sequence[FakeServer], size: int = SMALL) -> SourceHash:
    balancer = SourceHash(size)
    balancer.update(servers)
    complete(balancer)
    return balancer


def complete(balancer: SourceHash) -> None:
    while balancer.advance():
        pass


def table_of(weights: dict[str, float], size: int) -> list[str]:
    """Return the finished table, with names in place of indexes."""
    work = build(weights, size, b"key")
    while True:
        try:
            next(work)
        except StopIteration as done:
            names, table = done.value
            return [names[index] for index in table]


def homes(balancer: SourceHash) -> list[str]:
    return [next(balancer.candidates(client)).spec.name for client in CLIENTS]


def moved(before: Iterable[str], after: Iterable[str]) -> float:
    """Return the share of the clients that have another server than before."""
    changes = [one != other for one, other in zip(before, after, strict=True)]
    return sum(changes) / len(changes)


def by_the_paper(names: list[str], size: int) -> list[str | None]:
    """Return Maglev's table for equal weights, built like the paper's pseudocode."""
    names = sorted(names)
    permutations = []
    for name in names:
        high, low = divmod(stable_hash(name, b"key"), 1 << 64)
        offset, skip = high % size, low % (size - 1) + 1
        permutations.append([(offset + number * skip) % size for number in range(size)])
    entry: list[str | None] = [None] * size
    following = [0] * len(names)
    filled = 0
    while True:
        for number, name in enumerate(names):
            slot = permutations[number][following[number]]
            while entry[slot] is not None:
                following[number] += 1
                slot = permutations[number][following[number]]
            entry[slot] = name
            following[number] += 1
            filled += 1
            if filled == size:
                return entry


@given(st.sets(st.text(max_size=8), min_size=1, max_size=12), st.sampled_from([13, 101, 251]))
def test_table_is_that_of_the_paper(names: set[str], size: int) -> None:
    """With its two short cuts, the table is the same as that of the paper's plain loop."""
    assert table_of(dict.fromkeys(names, 1.0), size) == by_the_paper(list(names), size)


@given(st.lists(st.integers(1, 256), min_size=1, max_size=10))
def test_slots_follow_weights(weights: list[int]) -> None:
    """The slots of each server are proportional to its weight, within one for each server."""
    names = {f"server {number}": float(weight) for number, weight in enumerate(weights)}
    had = Counter(table_of(names, SMALL))
    for name, weight in names.items():
        assert abs(had[name] - SMALL * weight / sum(weights)) <= len(weights)


@pytest.mark.parametrize("count", [2, 5, 20, 100])
def test_removal_moves_its_own(count: int) -> None:
    """Removing one of n servers moves its clients, and hardly any other."""
    servers = servers_of([1] * count)
    before = ready(servers, 65537)
    after = ready(servers[1:], 65537)
    gone = servers[0].spec.name
    others = [
        (one, other) for one, other in zip(homes(before), homes(after), strict=True) if one != gone
    ]
    assert moved(*zip(*others, strict=True)) < 0.03
    assert moved(homes(before), homes(after)) < 1.25 / count + 0.005


@pytest.mark.parametrize("count", [2, 5, 20, 100])
def test_addition_moves_its_share(count: int) -> None:
    """Adding a server to n moves only about the share of the clients that the server gets."""
    servers = servers_of([1] * (count + 1))
    before, after = ready(servers[:-1], 65537), ready(servers, 65537)
    assert moved(homes(before), homes(after)) < 1.25 / (count + 1) + 0.005


@given(st.permutations(range(9)))
def test_order_does_not_matter(order: list[int]) -> None:
    """Machines that list the same servers in another order agree."""
    servers = servers_of([1, 1, 1, 2, 2, 3, 3, 3, 256])
    one, other = ready(servers, 251), ready([servers[number] for number in order], 251)
    for client in CLIENTS[:50]:
        assert list(one.candidates(client)) == list(other.candidates(client))


def test_processes_agree() -> None:
    """A table does not depend on the process: string hashing is randomised, this is not."""
    script = (
        "from tests.unit.test_source_hash import homes, ready\n"
        "from tests.support.candidates import servers_of\n"
        "print(','.join(homes(ready(servers_of([1, 2, 3])))))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert answers == {",".join(homes(ready(servers_of([1, 2, 3]))))}


def test_values_never_change() -> None:
    """These clients have always had these servers: fleets are upgraded one machine at a time."""
    balancer = ready(servers_of([1] * 5), 65537)
    found = [next(balancer.candidates(client)).spec.name for client in CLIENTS[:6]]
    assert [name[-4] for name in found] == ["3", "3", "2", "1", "3", "4"]


def test_port_does_not_matter() -> None:
    """The client is its address; each of its connections has another port."""
    balancer = ready(servers_of([1] * 20))
    found = {next(balancer.candidates(ConnectionInfo("192.0.2.9", port))) for port in range(50)}
    assert len(found) == 1


def test_failover_spreads() -> None:
    """The clients of a failed server are spread over all others, each client to a fixed one."""
    servers = servers_of([1] * 5)
    balancer = ready(servers, 65537)
    second: Counter[str] = Counter()
    for client in CLIENTS:
        walk = balancer.candidates(client)
        if next(walk) is servers[0]:
            second[next(walk).spec.name] += 1
    assert len(second) == 4
    assert max(second.values()) < 1.3 * min(second.values())


def test_old_table_serves() -> None:
    """While a new table is built, clients keep their servers, unless the server has left."""
    servers = servers_of([1] * 6)
    balancer = ready(servers, 65537)
    before = homes(balancer)
    new = FakeServer(UpstreamServer("tcp:10.9.9.9:80"))
    balancer.update([*servers[1:], new])
    balancer.advance()
    during = homes(balancer)
    gone = servers[0].spec.name
    assert all(one in (gone, other) for one, other in zip(before, during, strict=True))
    assert gone not in during
    assert list(balancer.candidates(CLIENTS[0]))[-1] is new
    complete(balancer)
    assert new.spec.name in homes(balancer)


def test_all_replaced() -> None:
    """While the table of a wholly new set is built, clients are spread over all its servers."""
    balancer = ready(servers_of([1] * 5), 65537)
    new = [FakeServer(UpstreamServer(f"tcp:10.9.0.{number}:80")) for number in range(5)]
    balancer.update(new)
    had = Counter(homes(balancer))
    assert len(had) == 5
    assert max(had.values()) < 1.25 * len(CLIENTS) / 5
    assert sorted(map(id, balancer.candidates(CLIENTS[0]))) == sorted(map(id, new))


def test_before_the_first_table() -> None:
    """Before the first table, clients are spread over all servers, always in the same way."""
    servers = servers_of([1] * 4)
    one, other = SourceHash(SMALL), SourceHash(SMALL)
    one.update(servers)
    other.update(servers[::-1])
    assert homes(one) == homes(other)
    assert len(set(homes(one))) == 4


def test_unchanged_needs_no_work() -> None:
    """An update with the same names and weights keeps the table, and uses the new objects."""
    balancer = ready(servers_of([1, 2]))
    again = servers_of([1, 2])
    balancer.update(again)
    assert not balancer.advance()
    assert next(balancer.candidates(CLIENTS[0])) in again


def test_slices_are_small() -> None:
    """A table is built in hundreds of slices of similar size."""
    rng = Random(1)
    balancer = SourceHash()
    balancer.update(servers_of([rng.randint(1, 256) for _ in range(1000)]))
    slices = 1
    while balancer.advance():
        slices += 1
    assert slices > 300


def test_more_servers_than_slots() -> None:
    """Servers without a slot come last in every walk, but they do come."""
    servers = servers_of([1] * 20)
    walk = list(ready(servers, 7).candidates(CLIENTS[0]))
    assert sorted(map(id, walk)) == sorted(map(id, servers))


def test_size_has_to_be_a_prime() -> None:
    """A table size that is not prime is refused: the permutations would not reach every slot."""
    assert [number for number in range(20) if is_prime(number)] == [2, 3, 5, 7, 11, 13, 17, 19]
    with pytest.raises(ValueError, match="prime, not 65536"):
        SourceHash(65536)
