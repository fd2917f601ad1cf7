"""Checks, ejection and slow start: how a server goes down and comes back."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from evproxy.model import (
    Ending,
    Phase,
    Side,
    UpstreamServer,
    close_reason,
)
from evproxy.settings import Ejection, HealthCheck
from tests.support.leaks import LoggedErrors
from tests.support.pool_doubles import (
    CLIENT,
    FINISHED,
    REFUSED,
    RESET,
    A,
    B,
    C,
    Caller,
    D,
    Doctor,
    Events,
    PoolMaker,
    advance,
    down,
    fail,
    nothing,
    share,
    states,
    walk,
)


def test_goes_down_and_up(make: PoolMaker, clock: Clock, events: Events, doctor: Doctor) -> None:
    """Failing checks take a server out, good ones bring it back; each is told once, with why."""
    pool = make(A, B, health_check=doctor)
    pool.start()
    advance(clock, 5)
    assert events.flush() == []
    down(pool, clock, doctor, B)
    assert events.flush() == [f"web/{B} down: connection refused (3 of 3)"]
    assert share(pool) == {A: 1000}
    assert states(pool) == {A: "up", B: "down"}
    doctor.sick.clear()
    advance(clock, 10)
    assert events.flush() == [f"web/{B} up: check passed (2 of 2)"]
    assert share(pool) == {A: 500, B: 500}


def test_down_at_a_restart(make: PoolMaker, clock: Clock, events: Events, doctor: Doctor) -> None:
    """Down when its pool stopped, a server comes up by the first good check of the next run."""
    pool = make(A, B, health_check=doctor)
    pool.start()
    down(pool, clock, doctor, A)
    pool.stop()
    events.flush()
    pool.start()
    assert walk(pool) == [B]
    advance(clock, 5)
    assert (walk(pool), events.flush()) == ([B], [])
    pool.stop()
    doctor.sick.clear()
    pool.start()
    advance(clock, 2)
    assert sorted(walk(pool)) == [A, B]
    assert events.flush() == [f"web/{A} up: check passed (1 of 1)"]


def test_check_that_never_answers(
    make: PoolMaker, clock: Clock, events: Events, doctor: Doctor
) -> None:
    """A check is cancelled and counts as bad when it takes longer than its timeout."""
    doctor.mute.add(A)
    pool = make(A, health_check=doctor, check_timing=HealthCheck(timeout=0.7))
    pool.start()
    advance(clock, 3)
    assert events.flush() == [f"web/{A} down: no answer within 0.7 s (1 of 1)"]
    assert doctor.cancelled >= 1


def test_a_check_that_breaks(
    make: PoolMaker, clock: Clock, events: Events, logged_errors: LoggedErrors
) -> None:
    """A fault of the probe is logged, says nothing of the server, and the next check comes."""

    class Faulty(Doctor):
        faulty = True

        def check(self, server: UpstreamServer, done: Callable[[str | None], None]) -> Any:
            if self.faulty:
                raise RuntimeError("no idea")
            return super().check(server, done)

    doctor = Faulty(sick={A})
    pool = make(A, B, health_check=doctor)
    pool.start()
    advance(clock, 10)
    assert states(pool) == {A: "up", B: "up"}
    assert len(logged_errors.flush(RuntimeError)) >= 4
    doctor.faulty = False
    advance(clock, 10)
    assert states(pool) == {A: "down", B: "up"}


def test_check_that_cannot_be_cancelled(
    make: PoolMaker, clock: Clock, events: Events, logged_errors: LoggedErrors
) -> None:
    """A probe that breaks when its check is cancelled is logged; checks go on, and can be ended."""

    class Stubborn(Doctor):
        def cancel(self) -> None:
            raise RuntimeError("no way")

    doctor = Stubborn(mute={A, B}, seconds=clock.seconds)
    pool = make(A, B, health_check=doctor)
    pool.start()
    advance(clock, 10)
    assert states(pool) == {A: "down", B: "down"}
    assert len(logged_errors.flush(RuntimeError)) >= 4
    doctor.mute.clear()
    advance(clock, 10)
    assert states(pool) == {A: "up", B: "up"}
    logged_errors.flush(RuntimeError)
    doctor.mute.add(A)
    doctor.asked.clear()
    while not any(name == A for name, _ in doctor.asked):
        advance(clock, 0.05)
    pool.stop()
    assert len(logged_errors.flush(RuntimeError)) == 1


def test_check_that_answers_when_it_is_cancelled(make: PoolMaker, clock: Clock) -> None:
    """What a check says when it is given up neither counts nor starts another one."""
    asked: list[float] = []

    class Talkative:
        def check(
            self, server: UpstreamServer, done: Callable[[str | None], None]
        ) -> Callable[[], None]:
            asked.append(clock.seconds())
            return lambda: done(None)

    pool = make(A, health_check=Talkative(), check_timing=HealthCheck(interval=2, timeout=1))
    pool.start()
    advance(clock, 21)
    assert states(pool) == {A: "down"}
    assert len(asked) <= 12


def test_probe_that_times_out_by_itself(make: PoolMaker, clock: Clock, events: Events) -> None:
    """Where a probe has the same timeout, its reason counts, though it takes a turn more."""

    class Slow:
        def check(
            self, server: UpstreamServer, done: Callable[[str | None], None]
        ) -> Callable[[], None]:
            clock.callLater(0.7, lambda: clock.callLater(0, done, "expected PONG"))
            return nothing

    pool = make(A, health_check=Slow(), check_timing=HealthCheck(timeout=0.7))
    pool.start()
    advance(clock, 3)
    assert events.flush() == [f"web/{A} down: expected PONG (1 of 1)"]
    pool.stop()
    advance(clock, 1)


def test_checks_are_spread(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """The first checks are spread over an interval, and servers are not asked in step."""
    pool = make(*(f"10.0.1.{n}:80" for n in range(100)), health_check=doctor)
    pool.start()
    advance(clock, 2)
    assert len({name for name, _ in doctor.asked}) == 100
    by_tenth = Counter(int(when / 0.2) for _, when in doctor.asked)
    assert max(by_tenth.values()) <= 25
    pool.stop()


def test_checks_hurry_while_changing(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """The fast interval is used between the first bad check and the verdict, and no longer."""
    pool = make(A, health_check=doctor, check_timing=HealthCheck(interval=4, fast_interval=0.5))
    pool.start()
    advance(clock, 10)
    doctor.sick.add(A)
    advance(clock, 20)
    times = [when for _, when in doctor.asked]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    fast = [pause for pause in pauses if pause < 1]
    assert fast == pytest.approx([0.5, 0.5], abs=0.11)
    assert all(3.5 < pause < 4.5 for pause in pauses if pause not in fast)


def test_late_answer_is_ignored(make: PoolMaker, clock: Clock, events: Events) -> None:
    """What a probe says after its check was given up, or twice, changes nothing."""
    answers: list[Callable[[str | None], None]] = []

    class Late:
        def check(
            self, server: UpstreamServer, done: Callable[[str | None], None]
        ) -> Callable[[], None]:
            answers.append(done)
            return lambda: None

    pool = make(A, health_check=Late(), check_timing=HealthCheck(fall=1))
    pool.start()
    advance(clock, 4)
    assert len(events.flush()) == 1
    for done in answers[:-1]:
        done(None)
        done(None)
    assert states(pool) == {A: "down"}
    pool.stop()
    answers[-1](None)
    assert states(pool) == {A: "down"}


def test_probe_of_settings(make: PoolMaker) -> None:
    """The probe of a configured check is made by the factory that is given."""
    asked: list[HealthCheck] = []
    check = HealthCheck(kind="redis")

    def probe_for(settings: HealthCheck) -> Doctor:
        asked.append(settings)
        return Doctor()

    make(A, health_check=check, probe_for=probe_for)
    assert asked == [check]


def test_connect_failures_eject(make: PoolMaker, clock: Clock, events: Events) -> None:
    """Enough connect failures in a row eject a server, for a time that doubles."""
    pool = make(A, B, ejection=Ejection(failures=3, base_time=10, max_time=300))
    fail(pool, A, 2)
    assert events.flush() == []
    fail(pool, A)
    assert events.flush() == [f"web/{A} ejected: connection refused (3 of 3), for 10 s"]
    assert share(pool) == {B: 1000}
    assert states(pool) == {A: "ejected", B: "up"}
    advance(clock, 10.1)
    assert events.flush() == [f"web/{A} up: the ejection is over"]
    fail(pool, A, 3)
    assert events.flush() == [f"web/{A} ejected: connection refused (3 of 3), for 20 s"]


def test_ejected_once(make: PoolMaker, clock: Clock, events: Events) -> None:
    """Connects that were under way when a server was ejected do not eject it again."""
    pool = make(A, B, ejection=Ejection(failures=1), balance="source-hash")
    callers = [Caller(pool).open() for _ in range(5)]
    for caller in callers:
        assert caller.server is not None
        pool.connect_failed(caller.server, caller, REFUSED)
    assert len(events.flush()) == 1
    advance(clock, 11)
    assert [line.split()[1] for line in events.flush()] == ["up:"]


def test_a_success_between_failures(make: PoolMaker, events: Events) -> None:
    """Failures only count in a row."""
    pool = make(A, B, ejection=Ejection(failures=2))
    for _ in range(5):
        fail(pool, A)
        caller = Caller(pool)
        server = next(server for server in pool.candidates(CLIENT) if server.name == A)
        pool.claim(server, caller)
        pool.connected(server, 0.001)
        pool.ended(server, caller, FINISHED, True)
    assert events.flush() == []


def test_early_resets_eject(make: PoolMaker, events: Events) -> None:
    """Sessions that a server resets before a byte count, later resets and others' do not."""
    pool = make(A, B, ejection=Ejection(failures=2), balance="source-hash")
    client_reset = close_reason(Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)
    for reason, answered in [(RESET, True), (client_reset, False), (RESET, True)] * 2:
        Caller(pool).open().close(reason, answered)
    assert events.flush() == []
    for _ in range(2):
        caller = Caller(pool).open()
        assert caller.server is not None
        pool.connected(caller.server, 0.001)
        caller.close(RESET, False)
    assert [line.split(" ", 1)[1] for line in events.flush()] == [
        "ejected: reset before any answer (2 of 2), for 10 s"
    ]


def test_abandoned_is_no_failure(make: PoolMaker, events: Events) -> None:
    """A client that leaves while connecting frees the slot and blames nobody."""
    pool = make(UpstreamServer(A, max_sessions=1), B, ejection=Ejection(failures=1))
    for _ in range(4):
        caller = Caller(pool).open()
        assert caller.server is not None
        pool.abandoned(caller.server, caller)
    assert events.flush() == []
    assert [server.sessions for server in pool.servers] == [0, 0]


def test_not_all_are_ejected(make: PoolMaker, events: Events) -> None:
    """At most `max_percent` of the pool are ejected at once."""
    pool = make(A, B, C, D, ejection=Ejection(failures=1, max_percent=50))
    for name in (A, B, C, D, C, D):
        fail(pool, name)
    assert len(events.flush()) == 2
    assert sorted(walk(pool)) == [C, D]


def test_the_last_is_not_ejected(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """Those that are down, drained or without weight are out too: the last one stays."""
    pool = make(A, B, C, D, ejection=Ejection(failures=1, max_percent=100), health_check=doctor)
    pool.start()
    down(pool, clock, doctor, B)
    pool.drain(C)
    pool.set_weight(D, 0)
    fail(pool, A)
    assert walk(pool) == [A]
    pool.resume(C)
    fail(pool, A)
    assert walk(pool) == [C]


def test_down_while_it_is_ejected(
    make: PoolMaker, clock: Clock, events: Events, doctor: Doctor
) -> None:
    """The line says that both hold; that the ejection is over brings up none that is down."""
    pool = make(A, B, ejection=Ejection(failures=1), health_check=doctor)
    pool.start()
    advance(clock, 3)
    fail(pool, A)
    events.flush()
    down(pool, clock, doctor, A)
    [line] = events.flush()
    began, left = line.split("; also ejected for another ")
    assert began == f"web/{A} down: connection refused (3 of 3)"
    assert left in [f"{seconds} s: connection refused (1 of 1)" for seconds in range(1, 9)]
    advance(clock, 20)
    assert events.flush() == []
    assert (walk(pool), pool.servers[0].until) == ([B], None)
    doctor.sick.clear()
    advance(clock, 5)
    assert events.flush() == [f"web/{A} up: check passed (2 of 2)"]


def test_stop_ends_ejections(make: PoolMaker, clock: Clock) -> None:
    """After `stop` no ejection runs, and failures of sessions still ending begin none."""
    pool = make(A, B, ejection=Ejection(failures=1))
    caller = Caller(pool).open()
    fail(pool, B)
    pool.stop()
    assert clock.getDelayedCalls() == []
    caller.close(RESET, False)
    assert clock.getDelayedCalls() == []
    pool.start()
    fail(pool, A)
    assert states(pool)[A] == "ejected"


def test_ejected_again_after_a_restart(make: PoolMaker, clock: Clock, events: Events) -> None:
    """An ejection that ended as the pool stopped keeps no later one from being told."""
    pool = make(A, B, ejection=Ejection(failures=1))
    pool.start()
    fail(pool, A)
    pool.stop()
    assert (pool.servers[0].state, pool.servers[0].why) == ("up", "the pool has stopped")
    pool.start()
    fail(pool, A)
    lines = [line.split(",")[0] for line in events.flush()]
    assert lines == [f"web/{A} ejected: connection refused (1 of 1)"] * 2


def test_slow_start(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """A server that came up gets a share that grows to the full one, in about ten steps."""
    pool = make(A, B, slow_start=100, health_check=doctor)
    pool.start()
    assert share(pool) == {A: 500, B: 500}
    down(pool, clock, doctor, B)
    doctor.sick.clear()
    while states(pool)[B] != "up":
        advance(clock, 0.5)
    shares = []
    for _ in range(12):
        shares.append(share(pool)[B])
        advance(clock, 10)
    assert all(after >= before - 2 for before, after in itertools.pairwise(shares))
    assert shares[0] == pytest.approx(1000 / 11, abs=2)
    assert shares[4] == pytest.approx(1000 * 0.4 / 1.4, abs=40)
    assert shares[-1] == 500


def test_a_weight_during_slow_start(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """A new weight does not end the slow start."""
    pool = make(A, B, slow_start=100, health_check=doctor)
    pool.start()
    down(pool, clock, doctor, B)
    doctor.sick.clear()
    while states(pool)[B] != "up":
        advance(clock, 0.5)
    pool.set_weight(B, 2)
    weights = {server.name: server.weight for server in pool.servers}
    assert weights[A] == 1
    assert weights[B] == pytest.approx(0.2)


def test_slow_start_of_a_new_server(make: PoolMaker, clock: Clock) -> None:
    """A server added to a pool that runs starts slowly too; no timer is left afterwards."""
    pool = make(A, slow_start=10)
    pool.add(B)
    assert share(pool)[B] < 100
    advance(clock, 20)
    assert share(pool) == {A: 500, B: 500}
    assert clock.getDelayedCalls() == []
