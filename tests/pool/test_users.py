"""Who has started a pool, who has stopped it, and who drains."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from evproxy.interfaces import SharedPool
from evproxy.model import UpstreamServer
from tests.support.pool_doubles import (
    A,
    B,
    Caller,
    Client,
    Doctor,
    Events,
    PoolMaker,
    advance,
    down,
    refused,
    states,
    walk,
)


def checks(doctor: Doctor, clock: Clock) -> int:
    """How many checks there are in 10 seconds."""
    doctor.asked.clear()
    advance(clock, 10)
    return len(doctor.asked)


def test_a_pool_is_a_shared_one(make: PoolMaker) -> None:
    """It tells its users apart."""
    assert isinstance(make(A), SharedPool)


def test_stop_by_another(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """Who has not started the pool, or has stopped it before, takes it from nobody."""
    pool = make(A, health_check=doctor)
    pool.start("one")
    for stranger in ("other", None):
        pool.stop(stranger)
        assert 4 <= checks(doctor, clock) <= 6
    pool.start()
    pool.stop("one")
    pool.stop("one")
    assert 4 <= checks(doctor, clock) <= 6
    pool.stop()
    assert clock.getDelayedCalls() == []


def test_started_twice_by_one(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """A user that says who it is may start the pool again, and stops it once."""
    pool = make(A, health_check=doctor)
    pool.start("one")
    pool.start("one")
    assert 4 <= checks(doctor, clock) <= 6
    pool.stop("one")
    assert clock.getDelayedCalls() == []
    assert refused(pool) == "pool web has stopped"


def test_no_checks_while_all_drain(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """Checks end when the last user drains, and begin again when one is started again."""
    pool = make(A, health_check=doctor)
    pool.start("one")
    pool.start("other")
    pool.draining("one")
    pool.draining("a stranger")
    assert 4 <= checks(doctor, clock) <= 6
    pool.draining("other")
    assert clock.getDelayedCalls() == []
    pool.start("one")
    assert 4 <= checks(doctor, clock) <= 6
    pool.stop("one")
    assert checks(doctor, clock) == 0
    pool.start()
    assert 4 <= checks(doctor, clock) <= 6


def test_the_one_that_serves_stops(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """Checks also end when only those that drain are left."""
    pool = make(A, health_check=doctor)
    pool.start("drains")
    pool.start("serves")
    pool.draining("drains")
    pool.stop("serves")
    assert checks(doctor, clock) == 0
    assert walk(pool) == [A]


@pytest.mark.parametrize("mute", [False, True])
def test_servers_that_stop_during_a_drain(
    make: PoolMaker, clock: Clock, doctor: Doctor, events: Events, mute: bool
) -> None:
    """They are not called down, not by a check under way either, and no session is reset."""
    pool = make(A, B, health_check=doctor, on_down="reset")
    pool.start("one")
    advance(clock, 4)
    (doctor.mute if mute else doctor.sick).update((A, B))
    doctor.asked.clear()
    while mute and not doctor.asked:
        advance(clock, 0.05)
    callers = [Caller(pool).open() for _ in range(4)]
    pool.draining("one")
    advance(clock, 60)
    assert [caller.ends for caller in callers] == [[]] * 4
    assert events.flush() == []
    pool.stop("one")


def test_a_drain_with_a_discovery(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """Servers that discovery takes away lose no session, and new ones are checked by nobody."""
    pool = make(health_check=doctor, on_down="reset")
    pool.start("one")
    pool.set_servers([UpstreamServer(A)])
    caller = Caller(pool).open()
    pool.draining("one")
    pool.set_servers([UpstreamServer(B)])
    assert checks(doctor, clock) == 0
    assert (caller.ends, states(pool)) == ([], {B: "up", A: "draining"})
    pool.start("one")
    assert checks(doctor, clock) > 0
    assert {name for name, _ in doctor.asked} == {B}
    pool.stop("one")


def test_the_queue_during_a_drain(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """Those who wait are served to the end."""
    pool = make(UpstreamServer(A, max_sessions=1), health_check=doctor)
    pool.start("one")
    first = Caller(pool).open()
    client, late = Client(pool, {A}).wait(), Client(pool, {A})
    pool.draining("one")
    late.wait()
    first.close()
    assert client.caller is not None
    client.caller.close()
    assert late.caller is not None


def test_down_before_a_drain(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """A server that was down before stays so, and comes up by checks after it."""
    pool = make(A, B, health_check=doctor)
    pool.start("one")
    down(pool, clock, doctor, A)
    pool.draining("one")
    doctor.sick.clear()
    advance(clock, 10)
    assert states(pool) == {A: "down", B: "up"}
    pool.start("one")
    advance(clock, 10)
    assert states(pool) == {A: "up", B: "up"}
    pool.stop("one")
