"""What a fault that takes the place of another one leaves behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evproxy.faults import FaultSettings, reset, stall, timeout
from tests.support.faulty_stage import FaultySession

BYTES = bytes(range(100))


@pytest.mark.parametrize("stream", ["downstream", "upstream"])
@pytest.mark.parametrize("by", [stall, reset])
def test_a_session_that_ends_while_a_fault_is_replaced(
    by: Callable[..., FaultSettings], stream: str
) -> None:
    """The old fault ends it: no timer of the new one is left, on either stream."""
    session = FaultySession(timeout(9.0, name="x", stream=stream))
    (session.download if stream == "downstream" else session.upload)(BYTES)
    session.faults.replace("x", by(after=1.0, stream="both"))
    receiver = session.client if stream == "downstream" else session.server
    assert receiver.events == [("closed", 0)]
    assert session.timers == 0


def test_a_fault_that_is_removed_while_it_is_replaced() -> None:
    """What the old one held makes the program remove it: the new one does not stay."""
    session = FaultySession(stall(name="x"))
    session.download(BYTES)
    session.client.when_received = lambda: session.faults.remove("x")
    session.faults.replace("x", stall(lasts=9.0))
    session.client.when_received = None
    session.download(BYTES)
    assert session.client.received == BYTES * 2
    assert session.timers == 0


@pytest.mark.parametrize("first", ["downstream", "upstream", "both"])
@pytest.mark.parametrize("second", ["downstream", "upstream", "both"])
def test_a_fault_in_other_streams_than_the_one_before(first: str, second: str) -> None:
    """The new fault acts on its streams, and the old one on none."""
    session = FaultySession(stall(name="x", stream=first))
    session.download(BYTES)
    session.upload(BYTES)
    session.faults.replace("x", timeout(stream=second))
    session.download(BYTES)
    session.upload(BYTES)
    for stream, receiver in (("downstream", session.client), ("upstream", session.server)):
        times = 1 if second in (stream, "both") else 2
        assert receiver.received == BYTES * times, stream
    assert (session.held(), session.held_upload()) == (0, 0)
