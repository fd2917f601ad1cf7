"""
The feed: looks at the proxy once an interval, and shows all viewers what they ask for.

It runs while the admin interface listens.  Without viewers it only sums up the traffic.  Sessions
and servers are looked at in slices, once for all viewers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request

from evproxy.admin.answers import Problem
from evproxy.admin.live.history import History, Sample
from evproxy.admin.live.lag import LoopLag
from evproxy.admin.live.question import Chosen, Question
from evproxy.admin.live.snapshot import Snapshot
from evproxy.admin.live.stream import EventStream
from evproxy.admin.live.traffic import Traffic
from evproxy.admin.operations import Context

INTERVAL = 1.0
"""Seconds between two looks at the proxy, up to `INTERVAL_SESSIONS` sessions."""

INTERVAL_SESSIONS = 10_000
"""Beyond this many sessions, the interval grows in proportion."""

MOST_VIEWERS = 16
"""The most viewers at once."""

SLICE = 64
"""How many sessions are looked at in one turn of the reactor: a few tenths of a millisecond."""

_log = Logger()


class Feed:
    """
    Shows a proxy to viewers.

    :param context: the proxy that is shown, and the reactor.
    """

    def __init__(self, context: Context) -> None:
        self._reactor = reactor = context.reactor
        self._proxy = context.proxy
        self._history = History()
        self._traffic = Traffic(reactor.seconds())
        self._streams: set[EventStream] = set()
        self._timer: IDelayedCall | None = None
        self._looking: Deferred[None] | None = None
        self._running = False
        self._loop_lag = LoopLag()
        self._snapshot = Snapshot(context)
        self._tally = context.proxy.tally
        if self._tally is not None:
            self._tally.tell(self._traffic.ended)

    def start(self) -> None:
        """Begin to look at the proxy, unless it is looked at already."""
        if not self._running:
            self._running = True
            self._schedule()

    def stop(self) -> None:
        """Look no longer, and end every stream."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._looking is not None:
            self._looking.cancel()
        for stream in tuple(self._streams):
            stream.finish()

    def check(self, question: Question) -> None:
        """
        Return if `watch` may be called.

        :raises Problem: if there are too many viewers, or if the question is wrong.
        """
        _ = question.words
        if len(self._streams) >= MOST_VIEWERS:
            raise Problem(503, f"{MOST_VIEWERS} viewers watch already, which is the most")

    def watch(self, question: Question, request: Request) -> None:
        """Show what `question` asks for as the answer to `request`, from the next look on."""
        stream = EventStream(request, question, self._reactor.seconds, self._streams.discard)
        self._streams.add(stream)
        now = json.dumps(self._reactor.seconds())
        interval = self._interval()
        history = f'{{"now":{now},"interval":{interval},"samples":{self._history.text}}}'
        stream.send("history", history.encode())

    def _schedule(self) -> None:
        self._timer = self._reactor.callLater(self._interval(), self._look)

    def _interval(self) -> float:
        """Seconds between two looks, with as many sessions as there are now."""
        return INTERVAL * max(1.0, len(self._proxy.admission.sessions) / INTERVAL_SESSIONS)

    def _look(self) -> None:
        self._timer = None
        looking = self._looking = Deferred.fromCoroutine(self._look_at_all())
        looking.addErrback(_failed)
        looking.addCallback(self._looked)

    def _looked(self, _: object) -> None:
        self._looking = None
        if self._running:
            self._schedule()

    async def _look_at_all(self) -> None:
        reactor, traffic = self._reactor, self._traffic
        streams: dict[Question, list[EventStream]] = {}
        for stream in self._streams:
            streams.setdefault(stream.question, []).append(stream)
        chosen = {question: Chosen(question) for question in streams}
        snapshot = self._snapshot
        snapshot.begin()
        now = reactor.seconds()
        self._count_ended()
        traffic.begin(now)
        live = self._proxy.admission.sessions
        ids = iter(list(live.by_id))
        while batch := list(islice(ids, SLICE)):
            for number in batch:
                session = live.by_id.get(number)
                if session is None:
                    continue
                up, down = traffic.visit(session)
                if chosen:
                    status = session.status(now)
                    snapshot.count(status, up, down)
                    for each in chosen.values():
                        each.session(status, up, down)
            await deferLater(reactor, 0)
        self._count_ended()
        sample = traffic.end(len(live), self._lag())
        self._history.add(sample)
        if chosen:
            await self._show(sample, chosen, streams)

    def _count_ended(self) -> None:
        if self._tally is not None:
            self._tally.count()

    def _lag(self) -> float | None:
        """The longest turn of the loop in this interval; ``None``: nothing measures it."""
        return self._loop_lag.read(self._proxy.overview().loop)

    async def _show(
        self,
        sample: Sample,
        chosen: dict[Question, Chosen],
        streams: dict[Question, list[EventStream]],
    ) -> None:
        common = await self._snapshot.common(chosen.values())
        for question, each in chosen.items():
            data = await self._snapshot.event(sample, common, each)
            for stream in self._watching(streams[question]):
                stream.look(data)

    def _watching(self, streams: list[EventStream]) -> Iterator[EventStream]:
        """Those of `streams` that are not over yet."""
        for stream in streams:
            if stream in self._streams:
                yield stream


def _failed(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _log.failure("The live view of the admin interface broke", failure)
