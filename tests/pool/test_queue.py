"""Who waits for a slot, for how long, and who is next."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock

from evproxy.errors import NoServerAvailable
from evproxy.model import (
    UpstreamServer,
)
from tests.support.leaks import LoggedErrors
from tests.support.pool_doubles import (
    CLIENT,
    A,
    B,
    C,
    Caller,
    Client,
    Doctor,
    Events,
    PoolMaker,
    advance,
    down,
    fail,
    never,
    nothing,
    refused,
    walk,
)


def test_queue_is_first_come_first_served(make: PoolMaker) -> None:
    """Each slot that frees wakes the one who waited longest."""
    pool = make(UpstreamServer(A, max_sessions=2))
    callers = [Caller(pool).open(), Caller(pool).open()]
    woken: list[int] = []

    def ready(number: int) -> Callable[[], None]:
        def wake() -> None:
            woken.append(number)
            callers.append(Caller(pool).open())

        return wake

    assert walk(pool) == []
    for number in range(4):
        assert pool.wait(CLIENT, ready(number), nothing) is not None
    callers.pop(0).close()
    assert woken == [0]
    callers.pop(0).close()
    callers.pop(0).close()
    assert woken == [0, 1, 2]


def test_queue_timeout(make: PoolMaker, clock: Clock) -> None:
    """Each waits for the queue timeout, counted from when it came, and then gives up."""
    pool = make(UpstreamServer(A, max_sessions=1), queue_timeout=5.0)
    Caller(pool).open()
    gave_up: list[tuple[float, str]] = []
    for _ in range(3):
        pool.wait(CLIENT, never, lambda error: gave_up.append((clock.seconds(), str(error))))
        clock.advance(1.0)
    advance(clock, 10)
    assert [round(when, 1) for when, _ in gave_up] == [5, 6, 7]
    assert gave_up[0][1] == "every server is full; waited 5 s"


def test_queue_needs_one_timer(make: PoolMaker, clock: Clock) -> None:
    """However many wait, one timer runs, and none once they are gone."""
    pool = make(UpstreamServer(A, max_sessions=1))
    Caller(pool).open()
    places = [pool.wait(CLIENT, never, never) for _ in range(500)]
    assert len(clock.getDelayedCalls()) == 1
    for place in places:
        assert place is not None
        place.cancel()
    assert clock.getDelayedCalls() == []


def test_cancelled_waiters_are_passed_over(make: PoolMaker, clock: Clock) -> None:
    """One that gave its place up is neither woken nor timed out."""
    pool = make(UpstreamServer(A, max_sessions=1))
    first = Caller(pool).open()
    gone = pool.wait(CLIENT, never, never)
    woken: list[bool] = []
    pool.wait(CLIENT, lambda: woken.append(True), never)
    assert gone is not None
    gone.cancel()
    gone.cancel()
    first.close()
    assert woken == [True]
    advance(clock, 10)


def test_unused_slot_goes_to_the_next(make: PoolMaker) -> None:
    """If one that is woken takes no slot, the next in the line is woken."""
    pool = make(UpstreamServer(A, max_sessions=1))
    first = Caller(pool).open()
    woken: list[str] = []

    def opens() -> None:
        woken.append("opens")
        Caller(pool).open()

    pool.wait(CLIENT, lambda: woken.append("does nothing"), never)
    pool.wait(CLIENT, opens, never)
    pool.wait(CLIENT, lambda: woken.append("too late"), nothing)
    first.close()
    assert woken == ["does nothing", "opens"]


def test_waiters_that_fail_at_once(make: PoolMaker, clock: Clock) -> None:
    """A long line whose connects fail within the wake-up itself is worked off all the same."""
    pool = make(UpstreamServer(A, max_sessions=1), queue_size=3000)
    first = Caller(pool).open()
    woken: list[bool] = []

    def fails() -> None:
        woken.append(True)
        fail(pool, A)

    for _ in range(3000):
        assert pool.wait(CLIENT, fails, never)
    first.close()
    advance(clock, 4)
    assert len(woken) == 3000


def test_room_that_nobody_in_the_line_can_use(make: PoolMaker, clock: Clock) -> None:
    """Those who are woken in vain keep place and deadline, and are not woken in every turn."""
    pool = make(UpstreamServer(A, max_sessions=1), B, queue_timeout=5.0)
    first = Caller(pool, next(server for server in pool.candidates(CLIENT) if server.name == A))
    assert first.server is not None
    pool.claim(first.server, first)
    clients = [Client(pool, {A}).wait() for _ in range(40)]
    clock.advance(1)
    pool.set_weight(B, 2)
    for _ in range(50):
        clock.advance(0)
    assert max(client.asked for client in clients) == 1
    first.close()
    assert [client.caller is not None for client in clients] == [True] + [False] * 39
    advance(clock, 4.05)
    assert {str(client.error) for client in clients[1:]} == {"every server is full; waited 5 s"}


def test_room_for_one_further_back(make: PoolMaker, clock: Clock) -> None:
    """One who can use a slot gets it, though those before can not, and keep their places."""
    pool = make(UpstreamServer(A, max_sessions=1), UpstreamServer(B, max_sessions=1))
    on_a, on_b = Caller(pool).open(), Caller(pool).open()
    one, other, behind = Client(pool, {A}), Client(pool, {A}), Client(pool, {A, B})
    for client in (one, other, behind):
        client.wait()
    on_b.close()
    assert (one.caller, other.caller) == (None, None)
    assert behind.caller is not None
    on_a.close()
    assert one.caller is not None
    assert other.caller is None


def test_stop_while_one_is_woken(make: PoolMaker) -> None:
    """If the pool stops within a wake-up, the woken one is told of the slot only."""
    pool = make(UpstreamServer(A, max_sessions=1))
    first = Caller(pool).open()
    errors: list[Exception] = []
    assert pool.wait(CLIENT, pool.stop, never) is not None
    assert pool.wait(CLIENT, never, errors.append) is not None
    first.close()
    assert len(errors) == 1


def test_broken_waiter(make: PoolMaker, logged_errors: LoggedErrors) -> None:
    """An exception in one that is woken is logged, and concerns nobody else."""
    pool = make(UpstreamServer(A, max_sessions=1))
    first = Caller(pool).open()
    woken: list[bool] = []
    pool.wait(CLIENT, lambda: never("woken"), never)
    pool.wait(CLIENT, lambda: woken.append(True), never)
    first.close()
    assert woken == [True]
    assert len(logged_errors.flush()) == 1


def test_no_place(make: PoolMaker, clock: Clock, events: Events) -> None:
    """A line that is full takes nobody, and says so once for each period."""
    pool = make(UpstreamServer(A, max_sessions=1), queue_size=1, queue_timeout=60)
    Caller(pool).open()
    assert pool.wait(CLIENT, nothing, nothing)
    for _ in range(20):
        clock.advance(1)
        assert refused(pool) == "every server is full, and so is the queue (1 waiting)"
    assert events.flush() == [
        "web exhausted: every server is full, and so is the queue (1 waiting)"
    ]
    clock.advance(11)
    refused(pool)
    assert len(events.flush()) == 1


def test_waiting_is_pointless(make: PoolMaker) -> None:
    """Nobody waits where no server is usable, or no line is wanted."""
    pool = make(A)
    pool.drain(A)
    assert refused(pool) == "no server is up"
    for options in ({"queue_size": 0}, {"queue_timeout": 0}):
        pool = make(UpstreamServer(A, max_sessions=1), **options)
        Caller(pool).open()
        assert refused(pool) == "every server is full, and there is no queue"


def test_new_server_wakes(make: PoolMaker, clock: Clock) -> None:
    """A server that is added takes those who wait, but not within the call that adds it."""
    pool = make(UpstreamServer(A, max_sessions=1))
    Caller(pool).open()
    opened: list[Caller] = []
    for _ in range(100):
        pool.wait(CLIENT, lambda: opened.append(Caller(pool).open()), never)
    pool.add(B)
    assert opened == []
    advance(clock, 1)
    assert {caller.server.name for caller in opened if caller.server} == {B}
    assert len(opened) == 100


def test_newcomers_wait_behind(make: PoolMaker, clock: Clock) -> None:
    """Whoever comes while those who wait are still to be woken does not overtake them."""
    pool = make(UpstreamServer(A, max_sessions=1))
    Caller(pool).open()
    waits = Client(pool, {A, B}).wait()
    pool.add(UpstreamServer(B, max_sessions=1))
    assert walk(pool) == []
    late = Client(pool, {C}).wait()
    clock.advance(0)
    assert [client.caller is not None for client in (waits, late)] == [True, False]
    pool.add(C)
    clock.advance(0)
    assert [client.caller is not None for client in (waits, late)] == [True, True]
    assert walk(pool) == [C]


def test_newcomer_beyond_the_queue(make: PoolMaker) -> None:
    """Where no more may wait, a newcomer is given the free slot rather than turned away."""
    pool = make(UpstreamServer(A, max_sessions=1), queue_size=1)
    Caller(pool).open()
    Client(pool, {A, B}).wait()
    pool.add(B)
    assert walk(pool) == [B]


def test_all_down_while_some_wait(
    make: PoolMaker, clock: Clock, doctor: Doctor, events: Events
) -> None:
    """Once no server is up those who wait give up, some in each turn, until one is."""
    pool = make(UpstreamServer(A, max_sessions=1), queue_timeout=60, health_check=doctor)
    pool.start()
    Caller(pool).open()
    errors: list[str] = []

    def gave_up(error: Exception) -> None:
        errors.append(str(error))
        pool.resume(A)

    for _ in range(100):
        assert pool.wait(CLIENT, never, gave_up) is not None
    pool.drain(A)
    clock.advance(0)
    assert len(errors) == 32
    events.flush()
    doctor.sick.add(A)
    advance(clock, 10)
    assert errors == ["no server is up"] * 100
    assert events.flush()[-1] == "web exhausted: no server is up"


def test_waiting_to_try_what_is_down(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """Where servers that are down are tried, those who wait go on waiting for them."""
    full = UpstreamServer(A, max_sessions=1)
    pool = make(full, queue_timeout=60, health_check=doctor, all_down="try")
    pool.start()
    first = Caller(pool).open()
    client = Client(pool, {A}).wait()
    down(pool, clock, doctor, A)
    assert (client.error, client.caller) == (None, None)
    first.close()
    assert client.caller is not None


def test_last_server_leaves_while_some_wait(make: PoolMaker, clock: Clock) -> None:
    """Nobody waits for a pool without servers."""
    pool = make(UpstreamServer(A, max_sessions=1), queue_timeout=60)
    Caller(pool).open()
    client = Client(pool, {A}).wait()
    pool.remove(A)
    clock.advance(0)
    assert str(client.error) == "the pool has no servers"


def test_stop_dissolves_the_line(make: PoolMaker) -> None:
    """When the pool stops, those who wait give up, and nobody else may wait."""
    pool = make(UpstreamServer(A, max_sessions=1))
    Caller(pool).open()
    errors: list[Exception] = []
    pool.wait(CLIENT, never, errors.append)
    pool.stop()
    assert [type(error) for error in errors] == [NoServerAvailable]
    assert refused(pool) == "pool web has stopped"
