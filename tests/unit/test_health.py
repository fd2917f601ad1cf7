"""Active and passive health and slow start, as tables and properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.policy.health import (
    CheckedHealth,
    EjectionRecord,
    Health,
    Verdict,
    may_eject,
    slow_start_part,
)
from evproxy.settings import Ejection

BAD = "connection refused"


def states(results: str, rise: int = 2, fall: int = 3) -> list[Health]:
    """The state after each of `results`: ``+`` for a good check, ``-`` for a bad one."""
    health = CheckedHealth(rise, fall)
    found = []
    for result in results:
        health.check(None if result == "+" else BAD)
        found.append(health.state)
    return found


UP, DOWN, GOING_UP, GOING_DOWN = Health.UP, Health.DOWN, Health.GOING_UP, Health.GOING_DOWN


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("+", [UP]),
        ("-", [DOWN]),
        ("+-", [UP, GOING_DOWN]),
        ("+---", [UP, GOING_DOWN, GOING_DOWN, DOWN]),
        ("+--+", [UP, GOING_DOWN, GOING_DOWN, UP]),
        ("+--+--", [UP, GOING_DOWN, GOING_DOWN, UP, GOING_DOWN, GOING_DOWN]),
        ("-+", [DOWN, GOING_UP]),
        ("-++", [DOWN, GOING_UP, UP]),
        ("-+-", [DOWN, GOING_UP, DOWN]),
        ("-+-+", [DOWN, GOING_UP, DOWN, GOING_UP]),
        ("-++-", [DOWN, GOING_UP, UP, GOING_DOWN]),
    ],
)
def test_rise_and_fall(results: str, expected: list[Health]) -> None:
    """Two good checks in a row bring a server up, three bad ones down; the first decides alone."""
    assert states(results) == expected


def test_verdicts_say_why() -> None:
    """A change has a reason, which says how many checks it took."""
    health = CheckedHealth(rise=2, fall=3)
    assert [health.check(error) for error in (None, BAD, BAD)] == [None] * 3
    assert health.check(BAD) == Verdict(False, "connection refused (3 of 3)")
    assert health.check(None) is None
    assert health.check(None) == Verdict(True, "check passed (2 of 2)")
    assert CheckedHealth(2, 3).check(BAD) == Verdict(False, "connection refused (1 of 1)")


@given(st.lists(st.booleans(), max_size=60), st.integers(-1, 5), st.integers(-1, 5))
def test_verdicts_alternate(results: list[bool], rise: int, fall: int) -> None:
    """Verdicts alternate, with down first; `changing` holds only between the two states."""
    health = CheckedHealth(rise, fall)
    up = True
    for good in results:
        verdict = health.check(None if good else BAD)
        if verdict is not None:
            assert verdict.up is not up
            up = verdict.up
            assert health.state is (UP if up else DOWN)
        assert health.changing is (health.state not in (UP, DOWN))


def test_ejection_doubles() -> None:
    """Each ejection in a row lasts twice as long as the one before, up to the maximum."""
    settings = Ejection(base_time=10, max_time=60)
    record = EjectionRecord()
    lasted = []
    now = 0.0
    for _ in range(5):
        lasted.append(record.eject(now, settings))
        now += lasted[-1]
        record.readmit(now, settings)
    assert lasted == [10, 20, 40, 60, 60]


def test_ejection_for_years() -> None:
    """A server that never recovers is ejected for the maximum time, however often."""
    record = EjectionRecord(times=100_000)
    assert record.eject(0.0, Ejection(max_time=300)) == 300


def test_service_is_rewarded() -> None:
    """For each base time of service after an ejection, one doubling is undone."""
    settings = Ejection(base_time=10, max_time=1000)
    record = EjectionRecord(times=3)
    record.readmit(100.0, settings)
    for now, times in [(100, 3), (109, 3), (110, 2), (115, 2), (120, 1), (200, 0), (300, 0)]:
        record.connected(float(now), settings)
        assert record.times == times
    assert record.eject(300.0, settings) == 10


def test_rows_are_counted_apart() -> None:
    """A server that accepts and then resets is ejected, although each connect succeeds."""
    record = EjectionRecord()
    settings = Ejection()
    counts = []
    for now in (1.0, 2.0, 3.0):
        record.connected(now, settings)
        counts.append(record.reset_early())
    assert counts == [1, 2, 3]
    record.answered(4.0, settings)
    assert record.reset_early() == 1


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(-5, 110))
def test_ejections_are_bounded(ejected: int, down: int, total: int, percent: int) -> None:
    """An ejection is within the bound or the first one, and leaves a server that serves."""
    out = ejected + down
    if may_eject(ejected, out, total, percent):
        assert out + 1 < total
        assert percent > 0
        assert (out + 1) / total <= percent / 100 or ejected == 0


@pytest.mark.parametrize(
    ("ejected", "out", "total", "percent", "expected"),
    [
        (0, 0, 1, 100, False),
        (0, 0, 2, 10, True),
        (0, 1, 2, 100, False),
        (1, 1, 2, 50, False),
        (1, 1, 4, 50, True),
        (1, 2, 4, 50, False),
        (0, 2, 4, 50, True),
        (0, 3, 4, 100, False),
        (2, 2, 4, 50, False),
        (1, 1, 3, 50, False),
        (2, 2, 4, 100, True),
        (3, 3, 4, 100, False),
        (0, 0, 9, 0, False),
    ],
)
def test_bound_on_ejections(
    ejected: int, out: int, total: int, percent: int, expected: bool
) -> None:
    """The bound is a share of the servers; one may always be ejected, but never the last one."""
    assert may_eject(ejected, out, total, percent) is expected


@pytest.mark.parametrize(
    ("now", "part"), [(100, 0.1), (101, 0.1), (105, 0.5), (109, 0.9), (110, 1), (500, 1)]
)
def test_slow_start(now: float, part: float) -> None:
    """The weight grows linearly from a tenth."""
    assert slow_start_part(100, now, 10) == pytest.approx(part)


def test_no_slow_start() -> None:
    """Without a duration, a server has its whole weight at once."""
    assert slow_start_part(100, 100, 0) == 1
