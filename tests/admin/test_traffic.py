"""The traffic of each interval: each byte and each connect counts once, whenever a session ends."""

from __future__ import annotations

from typing import Any, cast

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from evproxy.admin.live.traffic import Traffic
from evproxy.model import Ending, Phase, Side, close_reason
from evproxy.session.facts import Ended, together

REASON = close_reason(Side.DOWNSTREAM, Ending.FINISHED, Phase.RELAYING)


@define
class Moving:
    """A session as a walk sees it, and its relay."""

    id: int
    started: float
    connect_time: float | None
    up: int = 0
    down: int = 0

    @property
    def relay(self) -> Moving | None:
        return None if self.connect_time is None else self

    def totals(self) -> tuple[int, int, None]:
        return self.up, self.down, None

    @property
    def ended(self) -> Ended:
        took = self.connect_time
        return (REASON, None, 1, took, None, 1.0, self.up, self.down, self.id, self.started)


class Story:
    """Sessions that begin, move bytes and end between walks and while one is under way."""

    def __init__(self) -> None:
        self.now = 100.0
        # As the sessions of one of three workers are numbered.
        self.traffic = Traffic(self.now, last_id=7, step=3)
        self.live: list[Moving] = []
        self.begun = self.up = self.down = 0
        self.seen = [0, 0, 0]
        self._waiting: list[Ended] = []

    def step(self, what: int) -> None:
        self.now += 0.01
        if what == 0 or not self.live:
            self.begun += 1
            self.live.append(Moving(7 + 3 * self.begun, self.now, None))
            return
        session = self.live[what % len(self.live)]
        if session.connect_time is None:
            session.connect_time = self.now - session.started
        elif what % 3:
            session.up += what
            session.down += 2 * what
            self.up += what
            self.down += 2 * what
        else:
            self.live.remove(session)
            self._waiting.append(session.ended)

    def walk(self, meanwhile: list[int]) -> None:
        """A walk with some steps after each session that it visits."""
        self._flush()
        self.now += 0.01
        self.traffic.begin(self.now)
        steps = iter(meanwhile)
        for session in tuple(self.live):
            if session in self.live:
                self.traffic.visit(cast(Any, session))
            what = next(steps, None)
            if what is not None:
                self.step(what)
        self._flush()
        interval = self.traffic.end(len(self.live), None)
        counts = interval.started, interval.to_upstream, interval.to_downstream
        self.seen = [sum_ + count for sum_, count in zip(self.seen, counts, strict=True)]

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self.traffic.ended(together(waiting))


STEPS = st.lists(st.integers(0, 50), max_size=30)


@given(st.lists(st.tuples(STEPS, STEPS), max_size=8))
def test_each_counts_once(walks: list[tuple[list[int], list[int]]]) -> None:
    """All intervals together have all sessions, and all their bytes."""
    story = Story()
    for steps, meanwhile in walks:
        for what in steps:
            story.step(what)
        story.walk(meanwhile)
    # The last walks see what came during the one before.
    story.walk([])
    story.walk([])
    assert story.seen == [story.begun, story.up, story.down]


def test_connects() -> None:
    """A connect counts in the interval in which it was, also if the session has ended."""
    traffic = Traffic(0.0)
    early, late = Moving(1, 0.1, 0.2), Moving(2, 0.9, 0.4)
    traffic.begin(1.0)
    traffic.visit(cast(Any, early))
    traffic.visit(cast(Any, late))
    # Both end while the walk is under way: the first one's connect is counted, the other's is new.
    traffic.ended(together([early.ended, late.ended]))
    first = traffic.end(0, None)
    assert first.connects == 2
    assert first.connect_sum == pytest.approx(0.6)
    assert first.connect_most == 0.4
    gone = Moving(3, 1.2, 0.3)
    traffic.ended(together([gone.ended]))
    traffic.begin(2.0)
    second = traffic.end(0, None)
    assert (second.connects, second.connect_sum, second.connect_most) == (1, 0.3, 0.3)
