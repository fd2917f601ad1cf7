"""Servers come, go and change while a pool runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attrs import define, evolve
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from evproxy.errors import SettingsError
from evproxy.model import (
    UpstreamServer,
)
from evproxy.observe.log import TroubleLog
from evproxy.settings import Discover, Ejection
from evproxy.upstream.pool.pool import Pool
from tests.support.leaks import LoggedErrors
from tests.support.pool_doubles import (
    A,
    B,
    C,
    Caller,
    Doctor,
    Events,
    PoolMaker,
    advance,
    down,
    fail,
    never,
    share,
    states,
    walk,
)


@define
class Registry:
    """A discovery that tells what the test says."""

    problems: Sequence[str] = ()
    running: bool = False
    changed: Callable[[Sequence[UpstreamServer]], None] = never
    failed: Callable[[str], None] = never

    def start(
        self, changed: Callable[[Sequence[UpstreamServer]], None], failed: Callable[[str], None]
    ) -> None:
        self.running, self.changed, self.failed = True, changed, failed

    def stop(self) -> None:
        self.running = False


def test_add_and_remove(make: PoolMaker, events: Events) -> None:
    """Servers join and leave a pool that runs."""
    pool = make(A)
    pool.add(UpstreamServer(f"tcp:{B}", weight=3))
    assert share(pool) == {A: 250, B: 750}
    pool.remove(A)
    assert share(pool) == {B: 1000}
    assert events.flush() == [f"web/{B} added: by request", f"web/{A} removed: by request"]


def test_removed_server_drains(make: PoolMaker, events: Events) -> None:
    """The sessions of a server that leaves go on; it is gone when the last has ended."""
    pool = make(A)
    caller = Caller(pool).open()
    pool.add(B)
    events.flush()
    pool.remove(A)
    assert events.flush() == [f"web/{A} draining: by request, until its last session ends"]
    assert states(pool) == {B: "up", A: "draining"}
    caller.close()
    assert events.flush() == [f"web/{A} removed: its last session has ended"]
    assert states(pool) == {B: "up"}


def test_returning_server_keeps_statistics(make: PoolMaker) -> None:
    """A server that left and comes back, even with sessions still on it, is the one it was."""
    pool = make(A)
    callers = [Caller(pool).open() for _ in range(3)]
    pool.remove(A)
    pool.add(UpstreamServer(A, weight=2))
    [status] = pool.servers
    assert (status.sessions, status.sessions_total, status.weight) == (3, 3, 2)
    for caller in callers:
        caller.close()
    pool.remove(A)
    pool.add(A)
    assert [(s.sessions, s.sessions_total, s.state) for s in pool.servers] == [(0, 3, "up")]


def test_statistics_do_not_pile_up(make: PoolMaker) -> None:
    """Of servers that come and go without end only the last ones are remembered."""
    pool = make()
    for number in range(3000):
        pool.set_servers([UpstreamServer(f"10.1.{number // 250}.{number % 250}:80")])
        Caller(pool).open().close()
    first, last = "10.1.0.0:80", "10.1.11.200:80"
    pool.set_servers([UpstreamServer(first), UpstreamServer(last)])
    assert [status.sessions_total for status in pool.servers] == [0, 1]


def test_drain_and_resume(make: PoolMaker, events: Events) -> None:
    """A drained server gets no new sessions until it is resumed."""
    pool = make(A, B)
    pool.drain(A)
    assert share(pool) == {B: 1000}
    pool.resume(A)
    assert share(pool) == {A: 500, B: 500}
    assert events.flush() == [
        f"web/{A} draining: by request, until it is resumed",
        f"web/{A} up: resumed by request",
    ]


def test_set_weight(make: PoolMaker) -> None:
    """Weights change at once; 0 means no new sessions."""
    pool = make(A, B)
    pool.set_weight(A, 3)
    assert share(pool) == {A: 750, B: 250}
    pool.set_weight(A, 0)
    assert share(pool) == {B: 1000}


def test_set_servers(make: PoolMaker, events: Events) -> None:
    """A discovered set replaces the one before; servers given by hand stay."""
    pool = make(A)
    pool.set_servers([UpstreamServer(B), UpstreamServer(C, weight=2)])
    assert sorted(walk(pool)) == [A, B, C]
    pool.set_servers([UpstreamServer(A, weight=9), UpstreamServer(C, weight=3)])
    assert share(pool) == {A: 250, C: 750}
    pool.set_servers([])
    assert walk(pool) == [A]
    assert events.flush() == [
        f"web/{B} added: discovered",
        f"web/{C} added: discovered",
        f"web/{B} removed: no longer discovered",
        f"web/{C} removed: no longer discovered",
    ]


@pytest.mark.parametrize("servers", [A, A.encode(), UpstreamServer(A), 1])
def test_servers_that_are_no_array(clock: Clock, servers: Any) -> None:
    """One server in place of an array is refused, and a string is not taken for its letters."""
    with pytest.raises(SettingsError, match=r"^upstreams: expected an array of upstream servers"):
        Pool(clock, servers)


def test_set_that_is_refused(clock: Clock, events: Events) -> None:
    """A set with a server that cannot be one changes nothing, whatever else is in it."""
    pool = Pool(clock, name="web", observer=events)
    pool.set_servers([UpstreamServer(A), UpstreamServer(B)])
    events.flush()
    with pytest.raises(SettingsError, match="the port must be from 1 to 65535"):
        pool.set_servers(
            [UpstreamServer(A, weight=9), UpstreamServer(C), UpstreamServer("10.0.0.9:0")]
        )
    assert share(pool) == {A: 500, B: 500}
    pool.set_servers([UpstreamServer(C)])
    assert events.flush() == [
        f"web/{C} added: discovered",
        f"web/{A} removed: no longer discovered",
        f"web/{B} removed: no longer discovered",
    ]
    pool.stop()


def test_weight_outlives_discovery(make: PoolMaker) -> None:
    """A weight set by hand stays until discovery has another opinion than before."""
    pool = make()
    found = UpstreamServer(A, weight=2)
    pool.set_servers([found])
    pool.set_weight(A, 5)
    pool.set_servers([found])
    assert pool.servers[0].weight == 5
    pool.set_servers([evolve(found, weight=4)])
    assert pool.servers[0].weight == 4


def test_discovery(make: PoolMaker, events: Events) -> None:
    """A discovery is started and stopped with the pool; failures are told once a period."""
    registry = Registry()
    settings = Discover("file", path="servers.toml")
    pool = make(discover=settings, discovery_for=lambda discover: registry)
    pool.start()
    for _ in range(2):
        registry.changed([UpstreamServer(A)])
    for _ in range(2):
        registry.failed("no such file")
        registry.failed("not TOML at line 1")
        registry.failed("no such file")
        assert walk(pool) == [A]
        for _ in range(2):
            registry.changed([UpstreamServer(A)])
    period = ["no such file", "not TOML at line 1"]
    assert events.flush() == [
        f"web/{A} added: discovered",
        *(*(f"web discovery: {why}" for why in period), "web discovery recovered") * 2,
    ]
    for number in range(100):
        registry.failed(f"not TOML at line {number}")
    assert len(events.flush()) == 16
    pool.stop()
    assert not registry.running


def test_discovery_that_fails_in_part(make: PoolMaker, events: Events) -> None:
    """Each problem is told when it begins, and the end of all; after a failure all anew."""
    registry = Registry()
    pool = make(discover=registry)
    pool.start()

    def told(*problems: str) -> list[str]:
        registry.problems = problems
        registry.changed([UpstreamServer(A)])
        return [line for line in events.flush() if "discovery" in line]

    one, two, recovered = "web discovery: 1", "web discovery: 2", "web discovery recovered"
    assert [told("1"), told("1"), told("2", "1"), told("2")] == [[one], [], [two], []]
    assert [told("1", "2"), told(), told(), told("2")] == [[one], [recovered], [], [two]]
    registry.failed("away")
    assert events.flush() == ["web discovery: away"]
    assert told("2", "1") == [recovered, two, one]
    assert len(told(*(f"{number} is\nwrong" for number in range(99)))) == 17
    assert told(*(f"{number} is wrong" for number in range(99))) == []


def test_log_of_discovery(make: PoolMaker) -> None:
    """The log says that servers are kept when they are, and else what is wrong with new ones."""
    registry = Registry()
    pool = make(discover=registry, observer=TroubleLog())
    pool.start()
    with capturedLogs() as events:
        registry.failed("away")
        registry.problems = ["left out: x"]
        registry.changed([UpstreamServer(A)])
        registry.problems = ["no discovered server: it is empty"]
        registry.changed([])
        registry.problems = []
        registry.changed([UpstreamServer(A)])
    assert [formatEvent(event) for event in events] == [
        "web keeps the servers it has: away",
        f"web/{A} added: discovered",
        "web discovers its servers again",
        "web discovery: left out: x",
        f"web/{A} removed: no longer discovered",
        "web discovery: no discovered server: it is empty",
        f"web/{A} added: discovered",
        "web discovers its servers again",
    ]


def test_discovery_of_what_cannot_be(clock: Clock, events: Events) -> None:
    """A server that cannot be in a pool is left out; a set of such alone changes nothing."""
    registry = Registry()
    pool = Pool(clock, [A], name="web", observer=events, discover=registry)
    pool.start()
    registry.failed("no such file")
    bad = [UpstreamServer("10.0.0.9:0"), UpstreamServer("unix:/run/\u202e")]
    reason = "'10.0.0.9:0': the port must be from 1 to 65535, got 0"
    for _ in range(2):
        registry.changed([bad[0], UpstreamServer(B), bad[1]])
    assert events.flush() == [
        "web discovery: no such file",
        f"web/{B} added: discovered",
        "web discovery recovered",
        f"web discovery: left out: {reason}",
        "web discovery: left out: 'unix:/run/\\u202e': "
        "the path has a character that is not printable",
    ]
    registry.changed(bad)
    assert events.flush() == [f"web discovery: no usable server: {reason} (and 1 more)"]
    assert sorted(walk(pool)) == [A, B]
    wrong: list[Any] = [B, None]
    registry.changed(wrong)
    reason = f"expected an UpstreamServer, got '{B}'"
    assert events.flush() == [f"web discovery: no usable server: {reason} (and 1 more)"]
    registry.changed(wrong[1])
    assert events.flush() == ["web discovery: expected a sequence of servers, got None"]
    registry.changed(UpstreamServer(each) for each in [B, B])  # type: ignore[arg-type]
    assert events.flush() == ["web discovery recovered"]
    registry.failed(wrong[1])
    assert events.flush() == ["web discovery: None"]
    registry.changed([])
    assert events.flush() == [
        f"web/{B} removed: no longer discovered",
        "web discovery recovered",
        "web discovery: no discovered server",
    ]
    pool.stop()


def test_pool_of_two_services(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """A pool that is started twice does its work once, and until it is stopped twice."""
    pool = make(A, health_check=doctor)
    pool.start()
    pool.start()
    advance(clock, 10)
    assert 4 <= len(doctor.asked) <= 6
    pool.stop()
    doctor.asked.clear()
    advance(clock, 10)
    assert 4 <= len(doctor.asked) <= 6
    pool.stop()
    assert clock.getDelayedCalls() == []
    pool.stop()
    pool.start()
    advance(clock, 10)
    pool.stop()
    assert clock.getDelayedCalls() == []


def test_broken_observer(
    make: PoolMaker, clock: Clock, doctor: Doctor, logged_errors: LoggedErrors
) -> None:
    """What an observer raises is logged, and keeps neither slots nor states from changing."""

    class Broken:
        def broken(self, *arguments: str) -> None:
            raise RuntimeError("I do not want to know")

        server_changed = pool_exhausted = discovery_failed = discovery_recovered = broken

    pool = make(A, B, ejection=Ejection(failures=1), health_check=doctor, observer=Broken())
    pool.start()
    fail(pool, A)
    assert [server.sessions for server in pool.servers] == [0, 0]
    assert walk(pool) == [B]
    down(pool, clock, doctor, B)
    assert walk(pool) == [A]
    doctor.sick.add(A)
    advance(clock, 10)
    assert walk(pool) == []
    doctor.sick.clear()
    advance(clock, 10)
    assert sorted(walk(pool)) == [A, B]
    pool.set_servers([UpstreamServer(C)])
    assert sorted(walk(pool)) == [A, B, C]
    assert len(logged_errors.flush(RuntimeError)) == 8


def test_discovery_that_cannot_be_stopped(
    make: PoolMaker, clock: Clock, doctor: Doctor, logged_errors: LoggedErrors
) -> None:
    """A discovery that breaks when it is stopped is logged, and the rest of the pool stops."""

    class Stubborn:
        def start(self, changed: object, failed: object) -> None:
            """It has nothing to tell."""

        def stop(self) -> None:
            raise RuntimeError("no way")

    pool = make(A, discover=Stubborn(), health_check=doctor)
    pool.start()
    pool.stop()
    assert clock.getDelayedCalls() == []
    assert len(logged_errors.flush(RuntimeError)) == 1


def test_new_server_is_checked(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """A server that joins is checked soon, one that leaves no more."""
    pool = make(health_check=doctor)
    pool.start()
    pool.add(A)
    advance(clock, 0.6)
    assert {name for name, _ in doctor.asked} == {A}
    pool.remove(A)
    doctor.asked.clear()
    advance(clock, 10)
    assert doctor.asked == []


def test_status(make: PoolMaker, clock: Clock) -> None:
    """A snapshot says what people ask about a server; connect times decay."""
    pool = make(UpstreamServer(A, weight=2), B, ejection=Ejection(failures=1))
    caller = Caller(pool).open()
    assert caller.server is not None
    pool.connected(caller.server, 0.25)
    fail(pool, B)
    first, second = pool.servers
    assert (first.name, first.state, first.weight, first.sessions) == (A, "up", 2, 1)
    assert first.connect_time == 0.25
    assert (second.state, second.connect_failures, second.ejections) == ("ejected", 1, 1)
    assert (second.why, second.since, second.until) == ("connection refused (1 of 1)", 0, 10)
    assert (first.why, first.until) == ("", None)
    clock.advance(10)
    assert pool.servers[0].connect_time == pytest.approx(0.25 / 2.71828, rel=0.01)
    pool.connected(caller.server, 0.5)
    assert pool.servers[0].connect_time == 0.5
    pool.connected(caller.server, 0.1)
    assert 0.1 < pool.servers[0].connect_time <= 0.5
    caller.close()


def test_many_fast_connects_after_a_slow_one(make: PoolMaker, clock: Clock) -> None:
    """However many come at once, they take the time they need to make up for it."""
    pool = make(A, B)
    caller = Caller(pool).open()
    assert caller.server is not None
    pool.connected(caller.server, 1.0)
    for _ in range(1000):
        pool.connected(caller.server, 0.001)
    assert pool.servers[0].connect_time == 1.0
    for _ in range(1000):
        clock.advance(0.02)
        pool.connected(caller.server, 0.001)
    assert pool.servers[0].connect_time == pytest.approx(0.14, abs=0.02)
    caller.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": "least-time "}, 'expected one of .*, did you mean "least-time"?'),
        ({"balance": 3}, "balance: expected one of .*, got 3"),
        ({"name": None}, "name: expected a string, got None"),
        ({"health_check": "tcp"}, "health_check: expected a HealthCheck, got 'tcp'"),
        ({"health_check": {"kind": "tcp"}}, "health_check: expected a HealthCheck, got {'kind'"),
        ({"tls": {}}, "tls: expected a PoolTLS, got {}"),
        ({"faults": 5}, "faults: expected a sequence, got 5"),
        ({"faults": [{}]}, r"faults\[0\]: expected a FaultSettings, got {}"),
        ({"source": 5}, "source: expected .*, got 5"),
        ({"settings": {}}, "settings: expected a PoolSettings, got {}"),
        ({"ejection": True}, "ejection: expected an Ejection, got True"),
        ({"discover": "servers.json"}, "discover: expected a Discover, got 'servers.json'"),
        ({"on_down": "kill"}, 'on_down: expected one of "keep" or "reset", got \'kill\''),
        ({"all_down": "panic"}, 'all_down: expected one of "refuse" or "try"'),
    ],
)
def test_wrong_options(make: PoolMaker, options: dict[str, Any], message: str) -> None:
    """What an option cannot be is refused by its name."""
    with pytest.raises(SettingsError, match=message):
        make(A, **options)


def test_wrong_servers(make: PoolMaker) -> None:
    """A server cannot be there twice, nor be changed when it is not there."""
    with pytest.raises(SettingsError, match="twice"):
        make(A, f"tcp:{A}")
    pool = make(A)
    with pytest.raises(SettingsError, match="already"):
        pool.add(f"tcp:{A}")
    with pytest.raises(SettingsError, match="from 0 to 256, got 300"):
        pool.set_weight(A, 300)
    with pytest.raises(SettingsError, match="from 0 to 256, got True"):
        pool.set_weight(A, True)
    for change in (pool.remove, pool.drain, pool.resume, lambda name: pool.set_weight(name, 1)):
        with pytest.raises(LookupError, match=f"no server {B}"):
            change(B)
