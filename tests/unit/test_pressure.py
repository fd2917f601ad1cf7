"""Pressure: observers are notified once at the beginning of a period, and once at its end."""

from __future__ import annotations

from twisted.internet.task import Clock

from evproxy.errors import Shortage
from evproxy.pressure import CALM, MOST, Pressure
from tests.support.proxies import Observed

PORTS, ROUTES = Shortage("no port", "widen the range"), Shortage("no route", "look")


def test_a_period() -> None:
    """A repeated shortage is reported once, and once more after it has not occurred for long."""
    clock, observed = Clock(), Observed()
    pressure = Pressure(clock, observed)
    for period in (1, 2):
        for _ in range(5):
            pressure.felt(PORTS)
            clock.advance(CALM / 2)
        assert len(observed.pressure) == 2 * period - 1
        clock.advance(CALM)
        assert observed.pressure == ["no port: widen the range", "over: no port"] * period
    assert clock.getDelayedCalls() == []


def test_two_periods_at_once() -> None:
    """Different shortages have separate periods."""
    clock, observed = Clock(), Observed()
    pressure = Pressure(clock, observed)
    pressure.felt(PORTS)
    clock.advance(CALM / 2)
    pressure.felt(ROUTES)
    clock.advance(CALM / 2)
    assert observed.pressure[2:] == ["over: no port"]
    clock.advance(CALM / 2)
    assert observed.pressure[3:] == ["over: no route"]


def test_the_number_is_bounded() -> None:
    """However many different shortages there are, only `MOST` are reported."""
    clock, observed = Clock(), Observed()
    pressure = Pressure(clock, observed)
    for number in range(2 * MOST):
        pressure.felt(Shortage(f"{number}", ""))
    assert len(observed.pressure) == MOST
    pressure.stop()
    assert clock.getDelayedCalls() == []
