"""Faults that are active for a part of a session only: by time and by bytes."""

from __future__ import annotations

import pytest

from evproxy.faults import FaultSettings, bandwidth, latency, stall, timeout
from tests.support.faulty_stage import FaultySession

BYTES = bytes(range(100))


def test_a_timeout_that_was_over_before_it_dropped_anything() -> None:
    """The session goes on, and no timer is left."""
    session = FaultySession(timeout(10.0, lasts=2.0))
    session.clock.advance(2.0)
    assert session.timers == 0
    session.download(BYTES)
    session.clock.advance(20.0)
    assert (session.client.received, session.client.events) == (BYTES, [])


def test_a_timeout_that_is_over_with_a_gap() -> None:
    """The session ends: what comes next would follow a gap."""
    session = FaultySession(timeout(10.0, lasts=2.0))
    session.download(BYTES)
    session.clock.advance(2.0)
    assert session.client.events == [("closed", 0)]
    assert session.timers == 0


def test_a_timeout_that_begins_in_a_silent_session() -> None:
    """Its seconds count from when it begins, each time."""
    session = FaultySession(timeout(3.0, after=5.0))
    session.clock.pump([5.0, 2.9])
    assert session.client.events == []
    session.clock.advance(0.2)
    assert session.client.events == [("closed", 0)]
    assert session.timers == 0

    session = FaultySession(timeout(3.0, lasts=2.0, every=10.0))
    session.clock.pump([2.0, 8.0, 1.9])
    assert session.timers == 2
    session.clock.pump([0.1, 8.0, 2.0])
    assert session.client.events == []


def test_a_timeout_that_begins_at_a_byte() -> None:
    """Its seconds count from this byte on, also if no other one comes."""
    session = FaultySession(timeout(3.0, after_bytes=60))
    session.download(BYTES[:59])
    session.clock.advance(9.0)
    session.download(BYTES[59:60])
    session.clock.advance(2.9)
    assert session.client.events == []
    session.clock.advance(0.2)
    assert session.client.events == [("closed", 60)]


@pytest.mark.parametrize("dropped", [True, False])
def test_a_timeout_in_the_place_of_a_timeout(dropped: bool) -> None:
    """It waits anew, and drops on; a session that it leaves alone ends if bytes are missing."""
    for again in (timeout(3.0), timeout(3.0, after=1.0)):
        session = FaultySession(timeout(10.0))
        if dropped:
            session.download(BYTES)
        session.clock.advance(9.0)
        session.faults.replace("timeout_downstream", again)
        assert session.client.events == ([("closed", 0)] if dropped and again.after else [])
        session.clock.pump([1.0, 2.9 if again.after else 1.9])
        assert len(session.client.events) == (1 if dropped and again.after else 0)
        session.clock.advance(0.2)
        assert session.client.events == [("closed", 0)]
        assert session.timers == 0


@pytest.mark.parametrize("fault", [stall(until_bytes=50), bandwidth(0, until_bytes=50)])
@pytest.mark.parametrize("step", [1, 7, 100])
def test_bytes_behind_a_window_that_lets_nothing_pass(fault: FaultSettings, step: int) -> None:
    """Nothing passes until the window is full; then everything does, and so does the end."""
    session = FaultySession(fault)
    for place in range(0, 49, step):
        session.download(BYTES[place : min(49, place + step)])
    assert session.client.received == b""
    session.download(BYTES[49:])
    session.server_ends()
    assert session.client.received == BYTES
    assert session.client.events == [("end", 100)]
    assert (session.held(), session.timers) == (0, 0)


def test_bytes_behind_a_window_with_a_latency() -> None:
    """The bytes of the window have their latency, and those behind them wait for them."""
    session = FaultySession(latency(3.0, until_bytes=50))
    session.download(BYTES)
    session.clock.advance(2.9)
    assert session.client.received == b""
    session.clock.advance(0.2)
    assert session.client.received == BYTES


@pytest.mark.parametrize("step", [1, 100])
def test_no_byte_passes_behind_the_window_of_a_timeout(step: int) -> None:
    """The bytes of the window are missing: the session ends."""
    session = FaultySession(timeout(after_bytes=20, until_bytes=50))
    for place in range(0, 100, step):
        session.download(BYTES[place : place + step])
    assert session.client.received == BYTES[:20]
    assert session.client.events == [("closed", 20)]
