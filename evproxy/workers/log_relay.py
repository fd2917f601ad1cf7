"""
The log of the workers: each sends its events to the supervisor, which logs them as its own.

So there is one log, wherever ``twistd`` writes it, with whole lines.  What several workers say at
the same time, for example that a server is down, is logged once.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from time import time
from typing import Any

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsJSON,
    eventFromJSON,
    formatEvent,
)
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

from evproxy.observe.log import RELOADS
from evproxy.workers.channel import Channel
from evproxy.workers.messages import Event

MOST_WAITING = 4 * 1024 * 1024
"""The most characters of events that wait for the supervisor; events beyond are dropped."""

ALIKE = 5.0
"""Seconds within which workers that say the same mean the same."""

MOST_REMEMBERED = 1024
"""The most texts that are remembered for so long."""

NOT_REPEATED = "evproxy.session"
"""The namespace of events of which each is another one."""


@implementer(ILogObserver)
class EventSender:
    """
    A log observer that sends events to the supervisor.

    Any thread may log, for example that of the watchdog; the channel belongs to the reactor's.

    :param reactor: calls from the other threads.

    `channel`: where to; ``None``: nowhere yet, or no more.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.channel: Channel | None = None
        self._waiting: deque[str] = deque()
        self._size = 0
        self._dropped = 0

    def __call__(self, event: LogEvent) -> None:
        # The supervisor says what becomes of a reload, since all workers do the same.
        if event.get("log_namespace") == RELOADS:
            return
        text = eventAsJSON(event)
        if isInIOThread():
            self._take(text)
        else:
            self._reactor.callFromThread(self._take, text)

    def _take(self, text: str) -> None:
        if self._size + len(text) > MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append(text)
        self._size += len(text)
        self.send()

    def send(self) -> None:
        """Send what waits, as far as the channel takes it."""
        while self._waiting and self.channel is not None and not self.channel.full:
            self._send_next(self.channel)
        self._say_dropped()

    def send_all(self) -> None:
        """Send all that waits: the channel keeps what it cannot take, and closes after it."""
        while self._waiting and self.channel is not None:
            self._send_next(self.channel)
        self._say_dropped()

    def _send_next(self, channel: Channel) -> None:
        text = self._waiting.popleft()
        self._size -= len(text)
        channel.tell(Event(text))

    def _say_dropped(self) -> None:
        if self._dropped and not self._waiting and self.channel is not None:
            dropped, self._dropped = self._dropped, 0
            self.channel.tell(Event(eventAsJSON(_dropped_event(dropped))))


def _dropped_event(count: int) -> LogEvent:
    return {
        "log_time": time(),
        "log_level": LogLevel.warn,
        "log_namespace": "evproxy",
        "log_format": "{count} log events of a worker were dropped: the supervisor was too slow",
        "count": count,
    }


class EventLog:
    """
    Logs the events of workers.

    :param publish: logs an event: `twisted.logger.globalLogPublisher`.
    :param now: tells the time, in seconds.
    """

    def __init__(self, publish: Callable[[LogEvent], None], now: Callable[[], float]) -> None:
        self._publish = publish
        self._now = now
        self._said: OrderedDict[str, tuple[float, dict[int, int]]] = OrderedDict()

    def received(self, worker: int, json: str) -> None:
        """Log an event of `worker`, unless another one has said the same."""
        event = eventFromJSON(json)
        event["worker"] = worker
        if event.get("log_namespace") == NOT_REPEATED or self._is_new(worker, event):
            self._publish(event)

    def _is_new(self, worker: int, event: LogEvent) -> bool:
        now = self._now()
        text = f"{event.get('log_namespace')} {formatEvent(event)}"
        since, counts = self._said.pop(text, (now, {}))
        if now - since > ALIKE:
            since, counts = now, {}
        most = max(counts.values(), default=0)
        counts[worker] = counts.get(worker, 0) + 1
        self._said[text] = since, counts
        while len(self._said) > MOST_REMEMBERED:
            self._said.popitem(last=False)
        return counts[worker] > most
