"""The turns of a loop: their histogram, their sum and their peak."""

from __future__ import annotations

from math import inf
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.engine.turns import BOUNDS, LONG, Turns

# Whole eighths of a millisecond, so that sums are exact.
LENGTHS = st.integers(1, 80_000).map(lambda count: count / 8192)


def turns_of(lengths: list[float]) -> Turns:
    """Turns that took `lengths`, one after the other, with a wait of a second after each."""
    turns = Turns()
    now = 1.0
    for length in lengths:
        turns.begin(now)
        now += length
        turns.over(now)
        now += 1.0
    return turns


@given(st.lists(LENGTHS))
def test_the_histogram_counts_each_turn(lengths: list[float]) -> None:
    """A bucket has the turns up to its bound, and waits count nowhere."""
    turns = turns_of(lengths)
    assert turns.count == len(lengths)
    assert turns.seconds == sum(lengths)
    assert turns.buckets() == tuple(
        (bound, sum(length <= bound for length in lengths)) for bound in (*BOUNDS, inf)
    )
    assert turns.longest == turns.peak == max(lengths, default=0.0)


@given(st.lists(LENGTHS, min_size=1), st.lists(LENGTHS, min_size=1))
def test_a_peak_is_taken_once(first: list[float], second: list[float]) -> None:
    """After a peak was taken, shorter turns make a new one; the longest turn stays."""
    turns = turns_of(first)
    assert turns.take_peak() == max(first)
    for number, length in enumerate(second):
        turns.begin(number * 100.0)
        turns.over(number * 100.0 + length)
    assert turns.peak == max(second)
    assert turns.longest == max(first + second)


def test_the_last_long_turn_is_known() -> None:
    """When a long turn is over, it is known when it began and how long it took."""
    turns = Turns()
    turns.begin(5.0)
    turns.over(5.25)
    turns.begin(6.0)
    turns.over(6.0 + 1 / 2048)
    assert turns.last_long == (5.0, 0.25)


def test_a_wait_is_timed_around() -> None:
    """A timed function waits as before, and a turn lasts from its return to its next call."""
    turns = Turns()
    waiting = []

    def wait(*arguments: object) -> tuple[object, ...]:
        waiting.append(turns.began)
        return arguments

    timed = turns.timed(wait)
    assert timed(1, "two") == (1, "two")
    assert turns.count == 0
    assert turns.began <= monotonic()
    assert timed() == ()
    assert turns.count == 1
    assert waiting == [inf, inf]


def test_a_wait_that_fails_ends_too() -> None:
    """After an exception in the wait, a turn begins."""

    def interrupted() -> None:
        raise InterruptedError

    turns = Turns()
    with pytest.raises(InterruptedError):
        turns.timed(interrupted)()
    assert turns.began <= monotonic()


def test_no_turn_is_over_before_the_first_began() -> None:
    """The end of a turn that never began counts nothing."""
    turns = Turns()
    turns.end()
    assert (turns.count, turns.seconds, turns.longest) == (0, 0.0, 0.0)


@given(st.lists(LENGTHS), st.booleans())
def test_turns_that_the_engine_counts(lengths: list[float], in_progress: bool) -> None:
    """Turns that are counted elsewhere and added later make the same numbers."""
    turns = Turns()
    for number, length in enumerate(lengths):
        if length > LONG:
            turns.took_long(float(number), length)
    if in_progress:
        turns.begin(5.0)
    turns.go_on(6.0, len(lengths), sum(lengths), max(lengths, default=0.0))
    expected = turns_of(lengths)
    assert turns.began == (5.0 if in_progress else 6.0)
    assert turns.buckets() == expected.buckets()
    assert (turns.count, turns.seconds) == (expected.count, expected.seconds)
    assert (turns.longest, turns.peak) == (expected.longest, expected.peak)
