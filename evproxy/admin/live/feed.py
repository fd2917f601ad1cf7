"""
The feed: looks at the proxy once an interval, and shows all viewers what they ask for.

It runs while the admin interface listens.  Without viewers it asks for the traffic only.  One look
serves all viewers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request

from evproxy.admin.answers import Problem
from evproxy.admin.live.history import History
from evproxy.admin.live.question import Question
from evproxy.admin.live.source import Source
from evproxy.admin.live.stream import EventStream

INTERVAL = 1.0
"""Seconds between two looks at the proxy, up to `INTERVAL_SESSIONS` sessions."""

INTERVAL_SESSIONS = 10_000
"""Beyond this many sessions, the interval grows in proportion."""

MOST_VIEWERS = 16
"""The most viewers at once."""

_log = Logger()


class Feed:
    """
    Shows a proxy to viewers.

    :param reactor: the time and the timers.
    :param source: looks at the proxy.
    """

    def __init__(self, reactor: Any, source: Source) -> None:
        self._reactor = reactor
        self._source = source
        self._history = History()
        self._streams: set[EventStream] = set()
        self._timer: IDelayedCall | None = None
        self._looking: Deferred[None] | None = None
        self._running = False

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
        return INTERVAL * max(1.0, self._source.sessions / INTERVAL_SESSIONS)

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
        streams: dict[Question, list[EventStream]] = {}
        for stream in self._streams:
            streams.setdefault(stream.question, []).append(stream)
        look = await self._source.look(tuple(streams))
        self._history.add(look.sample)
        for question, viewers in streams.items():
            data = await look.event(question)
            for stream in self._watching(viewers):
                stream.look(data)

    def _watching(self, streams: list[EventStream]) -> Iterator[EventStream]:
        """Those of `streams` that are not over yet."""
        for stream in streams:
            if stream in self._streams:
                yield stream


def _failed(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _log.failure("The live view of the admin interface broke", failure)
