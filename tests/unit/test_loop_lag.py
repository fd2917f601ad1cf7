"""The lag of the event loop in an interval, from counts since the start."""

from __future__ import annotations

from math import inf

from evproxy.admin.live.lag import LoopLag
from evproxy.observe.watchdog.status import LoopStatus


def status(*counts: int, recent: float = 1.5, now: float = 0.0) -> LoopStatus:
    """A status with these numbers of turns that took at most 1 ms, 10 ms, 1 s, and any time."""
    return LoopStatus(
        threshold=0.1,
        since_last_turn=now,
        turns=counts[-1],
        turn_seconds=0.0,
        buckets=tuple(zip((0.001, 0.01, 1.0, inf), counts, strict=True)),
        longest_turn=recent,
        recent_longest_turn=recent,
        collections=0,
        collection_seconds=0.0,
        longest_collection=0.0,
        starved_seconds=0.0,
        places=(),
    )


def test_the_longest_turn_of_each_interval() -> None:
    """Only the turns since the last call count; the longest one of the minute is the bound."""
    lag = LoopLag()
    assert lag.read(status(5, 5, 5, 6)) == 1.5
    assert lag.read(status(9, 9, 9, 10)) == 0.001
    assert lag.read(status(9, 11, 11, 12)) == 0.01
    assert lag.read(status(9, 11, 12, 13)) == 1.0
    assert lag.read(status(9, 11, 12, 13)) == 0
    assert lag.read(status(9, 11, 13, 14, recent=0.4)) == 0.4
    assert lag.read(status(9, 11, 13, 14, now=2.5)) == 2.5
    assert lag.read(None) is None
