"""Balancers of a user's own: those that give a client only some servers, and those that break."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from evproxy.errors import BalancerFailed
from evproxy.interfaces import Candidate
from evproxy.model import ConnectionInfo, UpstreamServer
from evproxy.upstream.pool.pool import Pool
from tests.support.leaks import LoggedErrors
from tests.support.pool_doubles import (
    CLIENT,
    A,
    B,
    C,
    Caller,
    Client,
    Doctor,
    NoDialer,
    PoolMaker,
    advance,
    down,
    refused,
    walk,
)

ONE, OTHER, STRANGER = (ConnectionInfo(f"192.0.2.{number}", 40000) for number in (1, 2, 3))


@define
class Tenants:
    """Each client address has servers of its own; the others have none."""

    names: dict[str, tuple[str, ...]]
    servers: Sequence[Candidate] = field(factory=list)

    def update(self, servers: Sequence[Candidate]) -> None:
        self.servers = servers

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        mine = self.names.get(info.peer_host, ())
        return (server for server in self.servers if server.spec.name in mine)


@pytest.fixture
def tenants() -> Tenants:
    """A is for `ONE`, B for `OTHER`."""
    return Tenants({ONE.peer_host: (A,), OTHER.peer_host: (B,)})


def full(pool: Pool) -> dict[str, Caller]:
    """Fill the servers of `pool`, which have one slot each."""
    callers = {}
    for info in (ONE, OTHER):
        server = next(pool.candidates(info))
        callers[server.name] = Caller(pool, server)
        pool.claim(server, callers[server.name])
    return callers


def slots(*names: str) -> list[UpstreamServer]:
    return [UpstreamServer(name, max_sessions=1) for name in names]


def test_no_server_for_this_client(make: PoolMaker, tenants: Tenants) -> None:
    """A client that the balancer gives no server is refused at once, full servers or not."""
    pool = make(*slots(A, B), balance=tenants)
    assert refused(pool, STRANGER) == "the balancer gave no server for this client"
    full(pool)
    assert refused(pool, STRANGER) == "the balancer gave no server for this client"


def test_servers_of_a_later_tier(make: PoolMaker, tenants: Tenants) -> None:
    """The tiers that the balancer is not asked for help each client; waiting for them is right."""
    pool = make(A, UpstreamServer(C, max_sessions=1, backup=True), balance=tenants)
    assert walk(pool, STRANGER) == [C]
    caller = Caller(pool, next(pool.candidates(STRANGER)))
    assert caller.server is not None
    pool.claim(caller.server, caller)
    client = Client(pool, {C}, STRANGER).wait()
    caller.close()
    assert client.caller is not None


def test_slot_of_a_server_for_others(make: PoolMaker, tenants: Tenants, clock: Clock) -> None:
    """It goes to the first who may use it; those before keep their places and their deadline."""
    pool = make(*slots(A, B), balance=tenants, queue_timeout=5.0)
    callers = full(pool)
    ones = [Client(pool, {A, B}, ONE).wait() for _ in range(3)]
    clock.advance(1)
    others = [Client(pool, {A, B}, OTHER).wait() for _ in range(2)]
    callers[B].close()
    assert [client.caller is not None for client in (*ones, *others)] == [False] * 3 + [True, False]
    callers[A].close()
    assert [client.caller is not None for client in ones] == [True, False, False]
    advance(clock, 4.05)
    reason = "every server that this session may use is full; waited 5 s"
    assert [str(client.error) for client in ones[1:]] == [reason] * 2
    assert others[1].error is None


def test_nobody_is_starved(make: PoolMaker, tenants: Tenants, clock: Clock) -> None:
    """A slot that the many at the front cannot use reaches one far back within a few turns."""
    pool = make(*slots(A, B), balance=tenants)
    callers = full(pool)
    ones = [Client(pool, {A}, ONE).wait() for _ in range(200)]
    others = [Client(pool, {B}, OTHER).wait() for _ in range(3)]
    callers[B].close()
    for _ in range(10):
        clock.advance(0)
    assert [client.caller is not None for client in others] == [True, False, False]
    assert max(client.asked for client in ones) == 1


def test_slots_that_become_free_all_the_time(
    make: PoolMaker, tenants: Tenants, clock: Clock
) -> None:
    """New slots do not begin the way through the line anew before it has come to its end."""
    pool = make(*slots(A, B, C), balance=tenants)
    tenants.names[STRANGER.peer_host] = (C,)
    callers = full(pool)
    for _ in range(200):
        Client(pool, {A}, ONE).wait()
    last = Client(pool, {B}, OTHER).wait()
    callers[B].close()
    for _ in range(10):
        if last.caller is None:
            server = pool.servers[2]
            assert server.name == C
            # Whoever comes is to wait behind the others, so the slot is taken by name.
            taken = next(each for each in tenants.servers if each.spec.name == C)
            caller = Caller(pool, taken)  # type: ignore[arg-type]
            pool.claim(taken, caller)  # type: ignore[arg-type]
            caller.close()
        clock.advance(0)
    assert last.caller is not None


def test_servers_that_go_while_a_client_waits(
    make: PoolMaker, tenants: Tenants, clock: Clock
) -> None:
    """Who waits for a server that leaves is refused then, not at its deadline."""
    pool = make(*slots(A, B), balance=tenants, queue_timeout=60)
    full(pool)
    one = [Client(pool, {A}, ONE).wait() for _ in range(70)]
    other = Client(pool, {B}, OTHER).wait()
    pool.remove(A)
    advance(clock, 0.1)
    assert {str(client.error) for client in one} == {"the balancer gave no server for this client"}
    assert (other.error, other.caller) == (None, None)


def test_last_server_that_was_not_tried_goes_down(
    make: PoolMaker, clock: Clock, doctor: Doctor
) -> None:
    """With a policy of evproxy's too: who waits beyond the servers it tried is refused then."""
    pool = make(A, *slots(B), health_check=doctor, queue_timeout=60)
    pool.start()
    tried, busy = sorted(pool.candidates(CLIENT), key=lambda server: server.name)
    holder = Caller(pool, busy)
    pool.claim(busy, holder)
    client = Client(pool, {A, B}, tried=(tried,)).wait()
    behind = Client(pool, {B}).wait()
    down(pool, clock, doctor, B)
    assert str(client.error) == "every other server is down"
    assert behind.error is None


def raises(servers: Sequence[Candidate]) -> Any:
    raise ZeroDivisionError("by zero")


def gives_and_raises(servers: Sequence[Candidate]) -> Any:
    yield from ()
    raise ZeroDivisionError("by zero")


def of_another_pool(servers: Sequence[Candidate]) -> Any:
    other = Pool(Clock(), [A], dialer_for=lambda spec: NoDialer())
    return other.candidates(CLIENT)


@pytest.mark.parametrize(
    ("gives", "why"),
    [
        (lambda servers: None, "the balancer raised TypeError: 'NoneType' object is not iterable"),
        (lambda servers: [None], "the balancer gave None, which is not a server"),
        (lambda servers: [A], f"the balancer gave '{A}', which is not a server"),
        (of_another_pool, f"the balancer gave {A}, which is not in the pool"),
        (raises, "the balancer raised ZeroDivisionError: by zero"),
        (gives_and_raises, "the balancer raised ZeroDivisionError: by zero"),
    ],
)
def test_what_is_no_server(
    make: PoolMaker, gives: Callable[[Sequence[Candidate]], Any], why: str
) -> None:
    """It is told in plain words to the session that asked, and the next one is served."""

    class Broken(Tenants):
        def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
            return gives(self.servers) if info is STRANGER else super().candidates(info)

    pool = make(*slots(A, B), balance=Broken({ONE.peer_host: (A,)}))
    with pytest.raises(BalancerFailed) as raised:
        next(pool.candidates(STRANGER))
    assert str(raised.value) == why
    assert walk(pool, ONE) == [A]


def test_the_same_server_without_end(make: PoolMaker, tenants: Tenants) -> None:
    """A balancer that gives its servers again and again gives each of them once."""

    class Endless(Tenants):
        def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
            return cycle(super().candidates(info))

    pool = make(*slots(A, B), balance=Endless(tenants.names))
    assert walk(pool, ONE) == [A]
    callers = full(pool)
    assert walk(pool, ONE) == []
    client = Client(pool, {A}, ONE).wait()
    callers[A].close()
    assert client.caller is not None


def test_a_server_that_has_left(make: PoolMaker) -> None:
    """A balancer that still gives a server that left is no trouble: the next one is taken."""

    class Stale(Tenants):
        def update(self, servers: Sequence[Candidate]) -> None:
            self.servers = self.servers or servers

    pool = make(A, B, balance=Stale({CLIENT.peer_host: (A, B)}))
    assert walk(pool) == [A, B]
    pool.remove(A)
    assert walk(pool) == [B]


def test_a_balancer_that_cannot_be_told(make: PoolMaker, logged_errors: LoggedErrors) -> None:
    """It is logged that an update broke; sessions go where the balancer gives them, if it can."""

    class Forgetful(Tenants):
        def update(self, servers: Sequence[Candidate]) -> None:
            self.servers = servers
            if len(servers) > 1:
                raise RuntimeError("too many")

    pool = make(A, balance=Forgetful({CLIENT.peer_host: (A, B)}))
    pool.add(B)
    assert walk(pool) == [A, B]
    assert len(logged_errors.flush(RuntimeError)) == 1


def test_a_balancer_that_breaks_as_a_slot_is_free(make: PoolMaker, tenants: Tenants) -> None:
    """Who waits for the slot gets it all the same."""

    @define
    class Breaks(Tenants):
        breaks: bool = False

        def load_changed(self, server: Candidate) -> None:
            if self.breaks:
                self.breaks = False
                raise RuntimeError("on purpose")

    balancer = Breaks(tenants.names)
    pool = make(*slots(A, B), balance=balancer)
    callers = full(pool)
    client = Client(pool, {A}, ONE).wait()
    balancer.breaks = True
    with pytest.raises(RuntimeError):
        callers[A].close()
    assert client.caller is not None
