"""Questions to all workers, of which some do not answer."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock

from evproxy.admin.answers import Problem
from evproxy.workers.admin.crew import ANSWER_TIMEOUT, Crew
from evproxy.workers.measures import Measures
from evproxy.workers.messages import Operate
from evproxy.workers.totals import Totals
from evproxy.workers.walks import Walks


class Silent:
    """The slot of a worker that does not answer, and its process and channel."""

    def __init__(self, number: int, gone: bool = False, late: bool = False) -> None:
        self.number = number
        self.gone = gone
        self.late = late
        self.asked: list[Any] = []

    @property
    def serving(self) -> Silent:
        return self

    @property
    def channel(self) -> Silent:
        return self

    def ask(self, message: object) -> Deferred[Any]:
        self.asked.append(message)
        return fail(ConnectionLost()) if self.gone else Deferred()


def crew_of(clock: Clock, *slots: Silent) -> Crew:
    totals = Totals(clock, len(slots))
    return Crew(clock, cast(Any, slots), totals, Measures(), Walks())


def result(clock: Clock, coroutine: Any) -> Any:
    """What `coroutine` returns within the time limit, or the problem that it raises."""
    found: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(found.append)
    clock.advance(ANSWER_TIMEOUT)
    [got] = found
    return got


def test_workers_that_end_are_no_problem() -> None:
    """Their processes may exist for a moment longer than their channels."""
    clock = Clock()
    crew = crew_of(clock, Silent(0, gone=True), Silent(1, gone=True))
    assert result(clock, crew.ask(Operate("wait", {}))) == {}


def test_workers_that_hang_are_a_problem() -> None:
    """Nobody has answered, so there is no answer."""
    clock = Clock()
    failure = result(clock, crew_of(clock, Silent(0, gone=True), Silent(1)).ask(Operate("x", {})))
    with pytest.raises(Problem, match="no worker has answered within 5 s"):
        failure.raiseException()


def test_a_walk_leaves_out_late_workers() -> None:
    """They are not asked, so nobody waits for them."""
    clock = Clock()
    late, other = Silent(0, late=True), Silent(1)
    assert result(clock, crew_of(clock, late, other).walk(())) == {}
    assert (len(late.asked), len(other.asked)) == (0, 1)
