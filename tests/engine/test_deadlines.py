"""Coarse deadlines: never early, late by a known bound, with one timer and bounded work."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from evproxy.engine.deadlines import BATCH, PRECISION, TICK, Deadlines

ROUNDING = 1e-6


def bound(delay: float) -> float:
    """Return how late a deadline in `delay` seconds may fire."""
    return max(TICK, delay * 2.0 ** (1 - PRECISION)) + ROUNDING


class Item:
    """Records when its deadline was reached, and then calls a function of the test."""

    def __init__(self, then: Callable[[float], object] = lambda now: None) -> None:
        self.reached: list[float] = []
        self._then = then

    def deadline_reached(self, now: float) -> None:
        self.reached.append(now)
        self._then(now)


class Turns(Clock):
    """A clock that counts the deadlines in each of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[int] = []

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        def turn() -> None:
            self.done.append(0)
            callable(*args, **kw)

        return super().callLater(delay, turn)

    def count(self, now: float) -> None:
        self.done[-1] += 1


@given(st.floats(0, 1e6), st.floats(0.001, 1e6))
def test_never_early_and_not_too_late(start: float, delay: float) -> None:
    """A deadline is never early, and late by at most a tick or a small part of its delay."""
    clock = Clock()
    clock.rightNow = start
    deadlines, item = Deadlines(clock), Item()
    deadlines.add(item, start, delay)
    [timer] = clock.getDelayedCalls()
    due = start + delay
    assert due - ROUNDING <= timer.getTime() <= due + bound(delay)
    clock.advance(max(0.0, due - ROUNDING - start))
    assert not item.reached
    clock.advance(bound(delay) + 2 * ROUNDING)
    assert len(item.reached) == 1


def test_there_is_no_timer_when_nothing_waits() -> None:
    """When the last deadline is reached or dropped, the only timer is cancelled."""
    clock = Clock()
    deadlines = Deadlines(clock)
    first, second = Item(), Item()
    bucket = deadlines.add(first, 0, 5)
    deadlines.add(second, 0, 10)
    assert len(clock.getDelayedCalls()) == 1
    deadlines.discard(first, bucket)
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(11)
    assert second.reached
    assert not first.reached
    assert not clock.getDelayedCalls()
    deadlines.discard(first, deadlines.add(first, clock.seconds(), 1))
    assert not clock.getDelayedCalls()


def test_an_earlier_deadline_moves_the_timer() -> None:
    """A deadline that is earlier than all others is not late because of the others."""
    clock = Clock()
    deadlines = Deadlines(clock)
    far, near = Item(), Item()
    deadlines.add(far, 0, 100)
    deadlines.add(near, 0, 1)
    clock.advance(1 + bound(1))
    assert near.reached
    assert not far.reached
    clock.advance(100)
    assert far.reached


def test_work_is_bounded_in_each_turn() -> None:
    """Very many deadlines at once are handled in batches, with turns of the reactor between."""
    clock = Turns()
    deadlines = Deadlines(clock)
    items = [Item(clock.count) for _ in range(2 * BATCH + 50)]
    for item in items:
        deadlines.add(item, 0, 1)
    clock.advance(2)
    assert all(len(item.reached) == 1 for item in items)
    assert max(clock.done) <= BATCH
    assert sum(clock.done) == len(items)


def test_a_deadline_may_be_added_while_one_is_reached() -> None:
    """A callback of a deadline may add another deadline."""
    clock = Clock()
    deadlines = Deadlines(clock)
    item = Item(lambda now: deadlines.add(item, now, 1) if len(item.reached) < 3 else None)
    deadlines.add(item, 0, 1)
    for _ in range(20):
        clock.advance(0.25)
    assert len(item.reached) == 3
    assert not clock.getDelayedCalls()


def test_a_deadline_may_be_dropped_while_one_is_reached() -> None:
    """A callback of a deadline may drop another deadline that is due at the same moment."""
    clock = Clock()
    deadlines = Deadlines(clock)
    buckets: dict[Item, int] = {}

    def drop_the_other(now: float) -> None:
        for item, bucket in buckets.items():
            if not item.reached:
                deadlines.discard(item, bucket)

    for item in (Item(drop_the_other), Item(drop_the_other)):
        buckets[item] = deadlines.add(item, 0, 1)
    clock.advance(2)
    assert sorted(len(item.reached) for item in buckets) == [0, 1]
    assert not clock.getDelayedCalls()


def test_an_exception_does_not_stop_the_others() -> None:
    """If the callback of one deadline raises, the other callbacks are still called."""

    def broken(now: float) -> None:
        raise LookupError

    clock = Clock()
    deadlines = Deadlines(clock)
    breaking, well = [Item(broken) for _ in range(2)], [Item() for _ in range(4)]
    for item in (*breaking, *well):
        deadlines.add(item, 0, 1)
    for _ in breaking:
        with pytest.raises(LookupError):
            clock.advance(2)
    clock.advance(0)
    assert all(len(item.reached) == 1 for item in (*breaking, *well))
    assert not clock.getDelayedCalls()


class DeadlinesAsASortedList(RuleBasedStateMachine):
    """After any adds, drops and waits, `Deadlines` behaves like a sorted list of deadlines."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.waiting: list[tuple[float, float, int, Item]] = []

    @rule(delay=st.one_of(st.floats(0.001, 1), st.floats(0.001, 5000)))
    def add(self, delay: float) -> None:
        now, item = self.clock.seconds(), Item()
        bucket = self.deadlines.add(item, now, delay)
        self.waiting.append((now + delay, now + delay + bound(delay), bucket, item))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.waiting) - 1))
        _, _, bucket, item = self.waiting.pop(place)
        self.deadlines.discard(item, bucket)

    @rule(seconds=st.one_of(st.floats(0, 1), st.floats(0, 1000)))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now, still = self.clock.seconds(), []
        for due, latest, bucket, item in self.waiting:
            if item.reached:
                assert due <= now + ROUNDING
            else:
                assert now <= latest
                still.append((due, latest, bucket, item))
        self.waiting = still

    @invariant()
    def one_timer_at_most(self) -> None:
        assert len(self.clock.getDelayedCalls()) == bool(self.waiting)


TestDeadlinesAsASortedList = DeadlinesAsASortedList.TestCase
