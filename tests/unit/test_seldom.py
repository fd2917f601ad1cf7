"""How often an event that may come in masses is logged."""

from __future__ import annotations

from evproxy.policy.seldom import Seldom


def test_one_in_each_period() -> None:
    """The first event is logged, then one in each period, with the number of those in between."""
    lines = Seldom(10.0)
    times = [0.0, 1.0, 9.9, 10.0, 15.0, 40.0, 50.0]
    assert [lines.left_out(now) for now in times] == [0, None, None, 2, None, 1, 0]
