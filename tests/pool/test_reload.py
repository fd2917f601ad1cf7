"""A pool that gets other settings while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from evproxy import SettingsError
from evproxy.model import UpstreamServer
from evproxy.settings import Discover, Ejection, HealthCheck, PoolTLS
from evproxy.upstream.pool.pool import Pool
from tests.support.pool_doubles import (
    CLIENT,
    A,
    B,
    C,
    Caller,
    Client,
    Doctor,
    Events,
    NoDialer,
    PoolMaker,
    advance,
    fail,
    share,
    states,
    walk,
)

CHECK = HealthCheck(interval=2.0, rise=1, fall=1)


def reload(pool: Pool, **changes: Any) -> None:
    if "upstreams" in changes:
        changes["upstreams"] = tuple(
            each if isinstance(each, UpstreamServer) else UpstreamServer(each)
            for each in changes["upstreams"]
        )
    prepared = pool.prepare(evolve(pool.settings, **changes))
    assert prepared is not None
    pool.reload(prepared)


def test_nothing_to_do(make: PoolMaker) -> None:
    """The same settings need nothing."""
    pool = make(A)
    assert pool.prepare(evolve(pool.settings)) is None


def test_servers(make: PoolMaker, events: Events) -> None:
    """New servers join, missing ones leave, and those that are the same are not touched."""
    pool = make(A, B)
    pool.start()
    stays = pool.server_named(A)
    caller = Caller(pool).open()
    caller.close()
    on_b = Caller(pool)
    on_b.server = pool.server_named(B)
    pool.claim(on_b.server, on_b)
    pool.drain(A)
    events.flush()
    reload(pool, upstreams=[A, C])
    assert pool.server_named(A) is stays
    assert stays.sessions_total == 1
    assert events.flush() == [
        f"web/{C} added: reloaded",
        f"web/{B} draining: reloaded, until its last session ends",
    ]
    assert states(pool) == {A: "draining", C: "up", B: "draining"}
    assert walk(pool) == [C]
    on_b.close()
    assert events.flush() == [f"web/{B} removed: its last session has ended"]


def test_a_server_that_was_removed(make: PoolMaker) -> None:
    """It stays so until the settings have it otherwise than before."""
    pool = make(A, B)
    pool.start()
    pool.remove(B)
    reload(pool, connect_timeout=4.0)
    assert walk(pool) == [A]
    reload(pool, upstreams=[A, UpstreamServer(B, weight=2)])
    assert sorted(set(walk(pool))) == [A, B]
    pool.remove(B)
    reload(pool, upstreams=[A])
    reload(pool, upstreams=[A, B])
    assert sorted(set(walk(pool))) == [A, B]


def test_weights(make: PoolMaker) -> None:
    """A weight in the settings counts if it is another one; else that which a program has set."""
    pool = make(A, B)
    pool.start()
    reload(pool, upstreams=[UpstreamServer(A, weight=3), B])
    assert share(pool, 400)[A] == 300
    pool.set_weight(A, 0)
    reload(pool, upstreams=[UpstreamServer(A, weight=3), B], queue_size=7)
    assert walk(pool) == [B]
    reload(pool, upstreams=[UpstreamServer(A, weight=1), B])
    assert share(pool, 400)[A] == 200


def test_the_health_stays(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """A server that is down stays down, whatever else changes, until a check passes."""
    doctor.sick.add(A)
    pool = make(A, B, health_check=CHECK, probe_for=lambda check: doctor)
    pool.start()
    advance(clock, 5)
    assert states(pool) == {A: "down", B: "up"}
    reload(pool, health_check=evolve(CHECK, interval=4.0), balance="random-two", slow_start=1.0)
    assert states(pool) == {A: "down", B: "up"}
    doctor.asked.clear()
    advance(clock, 9)
    assert doctor.asked
    doctor.sick.clear()
    advance(clock, 9)
    assert states(pool) == {A: "up", B: "up"}


def test_checks_begin_and_end(
    make: PoolMaker, clock: Clock, doctor: Doctor, events: Events
) -> None:
    """Checks that are new begin; without checks, a server that was down is up."""
    pool = make(A, B, probe_for=lambda check: doctor)
    pool.start()
    doctor.sick.add(A)
    reload(pool, health_check=CHECK)
    advance(clock, 5)
    assert states(pool) == {A: "down", B: "up"}
    events.flush()
    reload(pool, health_check=None)
    assert events.flush() == [f"web/{A} up: it is no longer checked"]
    doctor.asked.clear()
    advance(clock, 9)
    assert not doctor.asked


def test_a_pool_that_does_not_run(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """A reload starts nothing that the pool has not started."""
    pool = make(A, probe_for=lambda check: doctor)
    reload(pool, health_check=CHECK)
    assert not clock.getDelayedCalls()
    pool.start()
    assert clock.getDelayedCalls()


def test_ejection(make: PoolMaker, clock: Clock, events: Events) -> None:
    """Ejected servers stay ejected, unless ejection is off; the new settings count from now on."""
    pool = make(A, B, ejection=Ejection(failures=1))
    pool.start()
    fail(pool, A)
    assert states(pool) == {A: "ejected", B: "up"}
    reload(pool, ejection=Ejection(failures=2))
    assert states(pool) == {A: "ejected", B: "up"}
    advance(clock, 11)
    fail(pool, A)
    assert states(pool) == {A: "up", B: "up"}
    fail(pool, A)
    assert states(pool) == {A: "ejected", B: "up"}
    events.flush()
    reload(pool, ejection=None)
    assert states(pool) == {A: "up", B: "up"}
    assert events.flush() == [f"web/{A} up: ejection is off"]
    reload(pool, ejection=Ejection(failures=1))
    fail(pool, A)
    assert states(pool) == {A: "ejected", B: "up"}


def test_the_queue_stays(make: PoolMaker, clock: Clock) -> None:
    """Sessions that wait keep their place and their timeout; new ones get the new timeout."""
    pool = make(UpstreamServer(A, max_sessions=1), queue_timeout=5.0)
    pool.start()
    holder = Caller(pool).open()
    first, second = Client(pool, [A]).wait(), Client(pool, [A]).wait()
    reload(pool, queue_timeout=1.0)
    third = Client(pool, [A]).wait()
    holder.close()
    assert first.caller is not None
    advance(clock, 3)
    # It is behind `second`, which has five seconds.
    assert second.error is None
    assert third.error is None
    advance(clock, 3)
    assert str(second.error) == "every server is full; waited 5 s"
    assert str(third.error) == "every server is full; waited 1 s"
    fourth = Client(pool, [A]).wait()
    advance(clock, 1.5)
    assert str(fourth.error) == "every server is full; waited 1 s"
    first.caller.close()


def test_a_server_that_joins_is_for_those_that_wait(make: PoolMaker, clock: Clock) -> None:
    """A reload that adds a server, or a slot, lets a waiting session go on."""
    pool = make(UpstreamServer(A, max_sessions=1))
    pool.start()
    holder = Caller(pool).open()
    one = Client(pool, [A, B]).wait()
    reload(pool, upstreams=[UpstreamServer(A, max_sessions=1), B])
    advance(clock, 0.1)
    assert one.caller is not None
    one.caller.close()
    holder.close()


def test_a_balancer_that_stays(make: PoolMaker) -> None:
    """Round-robin goes on where it was, unless the policy is another one."""
    pool = make(A, B, C)
    pool.start()
    assert [next(pool.candidates(CLIENT)).name for _ in range(2)] == [A, B]
    reload(pool, connect_timeout=9.0)
    assert pool.connect_timeout == 9.0
    assert [next(pool.candidates(CLIENT)).name for _ in range(2)] == [C, A]


class Found:
    """A discovery of one kind of settings."""

    def __init__(self, settings: Discover) -> None:
        self.settings = settings
        self.runs = False

    def start(self, changed: Any, failed: Any) -> None:
        self.runs = True
        changed([UpstreamServer(f"{self.settings.name}:80")])

    def stop(self) -> None:
        self.runs = False


def test_discovery(make: PoolMaker) -> None:
    """Another discovery replaces the one before, and its servers; none removes them."""
    made: list[Found] = []

    def discovery(settings: Discover) -> Any:
        made.append(Found(settings))
        return made[-1]

    pool = make(A, discovery_for=discovery, discover=Discover("dns", "one.test", 80))
    pool.start()
    assert names(pool) == [A, "one.test:80"]
    reload(pool, queue_size=5)
    assert len(made) == 1
    reload(pool, discover=Discover("dns", "two.test", 80))
    assert names(pool) == [A, "two.test:80"]
    assert [each.runs for each in made] == [False, True]
    # A configured server replaces the discovered one of the same name.
    reload(pool, upstreams=[A, "two.test:80"], discover=None)
    assert names(pool) == [A, "two.test:80"]
    assert [each.runs for each in made] == [False, False]
    reload(pool, upstreams=[A])
    assert names(pool) == [A]


def test_a_server_that_leaves_the_settings_and_is_discovered(make: PoolMaker) -> None:
    """A server that is no longer configured stays as long as discovery finds it."""
    pool = make(A, B, discover=Discover("dns", "one.test", 80), discovery_for=Found)
    pool.start()
    stays = pool.server_named(A)
    pool.set_servers([UpstreamServer(A, weight=3)])
    caller = Caller(pool).open()
    reload(pool, upstreams=[B])
    assert names(pool) == [A, B]
    assert pool.server_named(A) is stays
    assert share(pool, 400)[A] == 300
    caller.close()
    pool.set_servers([])
    assert names(pool) == [B]


@pytest.mark.parametrize("joins", [Pool.add, lambda pool, spec: pool.set_servers([spec])])
def test_a_server_that_joined_and_cannot_be_connected_to(clock: Clock, joins: Any) -> None:
    """A server that was added, or discovered, is checked before anything changes."""
    pool = Pool(clock, [A], name="web")
    joins(pool, UpstreamServer("unix:/socket"))
    before = pool.settings
    with pytest.raises(SettingsError, match=r"tls\.server_name: .*unix:/socket"):
        pool.prepare(evolve(before, tls=PoolTLS()))
    assert pool.settings is before
    pool.stop()


def test_a_server_that_is_gone_and_could_not_be_connected_to(clock: Clock) -> None:
    """A server that has left refuses no settings, and may not come back with them."""
    pool = Pool(clock, [A, "unix:/socket"], name="web")
    reload(pool, upstreams=[A], tls=PoolTLS())
    with pytest.raises(SettingsError, match=r"tls\.server_name"):
        pool.add("unix:/socket")
    reload(pool, tls=None)
    pool.add("unix:/socket")
    assert names(pool) == [A, "unix:/socket"]
    pool.stop()


class NoTimers(Clock):
    """A reactor as a thread must see it: its timers are not safe there."""

    def callLater(self, *arguments: Any, **keywords: Any) -> Any:
        raise AssertionError("a thread must not start a timer")


def test_a_pool_that_a_thread_makes() -> None:
    """A new pool is complete without a timer, whatever its balancer has to compute."""
    clock = NoTimers()
    pool = Pool(clock, [A, B], dialer_for=lambda spec: NoDialer(), balance="source-hash")
    assert sorted(walk(pool)) == [A, B]
    pool.stop()


def test_the_checks_of_a_server_with_another_header(
    make: PoolMaker, clock: Clock, doctor: Doctor
) -> None:
    """A server that gets another PROXY header is checked again soon."""
    pool = make(A, B, health_check=CHECK, probe_for=lambda check: doctor)
    pool.start()
    while not any(name == A for name, _ in doctor.asked):
        advance(clock, 0.05)
    doctor.asked.clear()
    reload(pool, upstreams=[UpstreamServer(A, send_proxy_protocol=2), B])
    advance(clock, CHECK.interval / 4)
    assert A in [name for name, _ in doctor.asked]


def names(pool: Pool) -> Sequence[str]:
    return [server.name for server in pool.servers]


def test_sessions_that_are_reset(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """With ``on_down = "reset"``, sessions that begin from now on are reset."""
    pool = make(A, health_check=CHECK, probe_for=lambda check: doctor)
    pool.start()
    before = Caller(pool).open()
    reload(pool, on_down="reset")
    after = Caller(pool).open()
    doctor.sick.add(A)
    advance(clock, 5)
    assert (len(before.ends), len(after.ends)) == (0, 1)
    before.close()


def test_all_down(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """What happens to sessions while no server is up can change."""
    doctor.sick.add(A)
    pool = make(A, health_check=CHECK, probe_for=lambda check: doctor)
    pool.start()
    advance(clock, 5)
    assert walk(pool) == []
    reload(pool, all_down="try")
    assert walk(pool) == [A]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"upstreams": (UpstreamServer(A), UpstreamServer(A))}, f"upstreams: {A} is listed twice"),
        (
            {"upstreams": (UpstreamServer("unix:/s"),), "health_check": HealthCheck(port=80)},
            "health_check.port",
        ),
    ],
)
def test_settings_that_are_wrong(make: PoolMaker, changes: Any, why: str) -> None:
    """A problem is found before anything changes."""
    pool = make(A)
    before = pool.settings
    with pytest.raises(SettingsError, match=why.replace(".", r"\.")):
        pool.prepare(evolve(before, **changes))
    assert pool.settings is before
    assert names(pool) == [A]
