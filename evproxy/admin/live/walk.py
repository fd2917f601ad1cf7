"""
The walk over the sessions of one process, once an interval, in slices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from attrs import field, frozen
from twisted.internet.task import deferLater

from evproxy.admin.contract import Administered
from evproxy.admin.live.chosen import ChosenSessions, Found
from evproxy.admin.live.interval import Interval
from evproxy.admin.live.lag import LoopLag
from evproxy.admin.live.question import Question
from evproxy.admin.live.traffic import Traffic
from evproxy.engine.slices import slices
from evproxy.observe.metrics.live import ServerKey

SLICE = 64
"""How many sessions are looked at in one turn of the reactor: a few tenths of a millisecond."""

Rates = tuple[float, float]
"""Bytes a second to upstream and to downstream."""


@frozen
class Seen:
    """
    What viewers see of the sessions.

    `listeners`: how many sessions each listener has, by its name.  `rates`: of servers that move
    bytes.  `found`: the sessions that each question means.
    """

    listeners: Mapping[str, int] = field(factory=dict)
    rates: Mapping[ServerKey, Rates] = field(factory=dict)
    found: Mapping[Question, Found] = field(factory=dict)


class Walker:
    """
    Looks at each session of `proxy`; only one walk at a time.

    The first interval begins now, so there should be no session yet.

    :param reactor: Twisted's.
    """

    def __init__(self, reactor: Any, proxy: Administered) -> None:
        self._reactor = reactor
        self._proxy = proxy
        self._live = live = proxy.admission.sessions
        self._traffic = Traffic(reactor.seconds(), live.last_id, live.step)
        self._loop_lag = LoopLag()
        self._tally = proxy.tally
        if self._tally is not None:
            self._tally.tell(self._traffic.ended)

    async def walk(self, questions: Collection[Question]) -> tuple[Interval, Seen]:
        """
        End the interval, and begin the next one.

        :return: what happened in the interval, and what the `questions` ask for; without questions,
            that is nothing.
        """
        reactor, traffic, live = self._reactor, self._traffic, self._live
        chosen = {question: ChosenSessions(question) for question in questions}
        listeners: Counter[str] = Counter()
        rates: dict[ServerKey, Rates] = {}
        now = reactor.seconds()
        self._count_ended()
        traffic.begin(now)
        for batch in slices(list(live.by_id), SLICE):
            for number in batch:
                session = live.by_id.get(number)
                if session is None:
                    continue
                up, down = traffic.visit(session)
                if not chosen:
                    continue
                status = session.status(now)
                listeners[status.listener] += 1
                if up or down:
                    add_rates(rates, (status.pool, status.upstream), up, down)
                for each in chosen.values():
                    each.look(status, up, down)
            await deferLater(reactor, 0)
        self._count_ended()
        interval = traffic.end(len(live), self._loop_lag.read(self._proxy.overview().loop))
        found = {question: await each.found(reactor) for question, each in chosen.items()}
        return interval, Seen(listeners, rates, found)

    def _count_ended(self) -> None:
        if self._tally is not None:
            self._tally.count()


def add_rates(rates: dict[ServerKey, Rates], key: ServerKey, up: float, down: float) -> None:
    """Add `up` and `down` to the rates of the server `key`."""
    more_up, more_down = rates.get(key, (0.0, 0.0))
    rates[key] = more_up + up, more_down + down
