"""The log of several workers: what they say alike is logged once, and nothing else is lost."""

from __future__ import annotations

import threading
from typing import Any, cast

from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, LogLevel, eventAsJSON, eventFromJSON, formatEvent

from evproxy.observe.log import RELOADS
from evproxy.workers.log_relay import (
    ALIKE,
    MOST_REMEMBERED,
    MOST_WAITING,
    EventLog,
    EventSender,
)
from evproxy.workers.messages import Event


def said(text: str, namespace: str = "evproxy") -> str:
    """The event of a line, as a worker sends it."""
    event: LogEvent = {
        "log_level": LogLevel.warn,
        "log_namespace": namespace,
        "log_format": "{text}",
        "text": text,
    }
    return eventAsJSON(event)


class Log:
    def __init__(self) -> None:
        self.clock = Clock()
        self.events: list[LogEvent] = []
        self.log = EventLog(self.events.append, self.clock.seconds)

    def texts(self) -> list[str]:
        return [formatEvent(event) for event in self.events]


def test_the_same_from_all_workers() -> None:
    """A line that every worker says is logged once, each time that they say it."""
    log = Log()
    for _ in range(2):
        for worker in (1, 2, 3):
            log.log.received(worker, said("server down"))
    assert log.texts() == ["server down", "server down"]
    assert log.events[0]["worker"] == 1


def test_the_same_from_one_worker() -> None:
    """What one worker says again and again is logged as often."""
    log = Log()
    for _ in range(3):
        log.log.received(2, said("refused"))
    assert log.texts() == ["refused"] * 3


def test_later() -> None:
    """The same text after a while is another event."""
    log = Log()
    log.log.received(1, said("server down"))
    log.clock.advance(ALIKE + 1)
    log.log.received(2, said("server down"))
    assert log.texts() == ["server down"] * 2


def test_sessions() -> None:
    """Lines of sessions are never taken for each other."""
    log = Log()
    for worker in (1, 2):
        log.log.received(worker, said("a session", "evproxy.session"))
    assert log.texts() == ["a session"] * 2


def test_bounded() -> None:
    """Only so many texts are remembered."""
    log = Log()
    for number in range(MOST_REMEMBERED + 1):
        log.log.received(1, said(f"line {number}"))
    log.log.received(2, said("line 0"))
    assert log.texts()[-1] == "line 0"
    log.log.received(2, said(f"line {MOST_REMEMBERED}"))
    assert log.texts()[-1] == "line 0"


class FullChannel:
    """A channel that takes events only while it is not `full`."""

    def __init__(self) -> None:
        self.full = True
        self.sent: list[str] = []
        self.threads: list[threading.Thread] = []

    def tell(self, message: Event) -> None:
        self.threads.append(threading.current_thread())
        self.sent.append(formatEvent(eventFromJSON(message.json)))


async def test_slow_supervisor(reactor: Any) -> None:
    """Events wait, in order and up to a bound; the number of dropped ones is logged."""
    sender, channel = EventSender(reactor), FullChannel()
    sender.channel = cast(Any, channel)
    long = "x" * (MOST_WAITING // 4)
    for number in range(6):
        sender({"log_format": "{number} {long}", "number": number, "long": long})
    assert channel.sent == []
    channel.full = False
    sender.send()
    *events, last = channel.sent
    assert [text.split()[0] for text in events] == [str(number) for number in range(len(events))]
    assert last.startswith(f"{6 - len(events)} log events of a worker were dropped")
    assert 0 < len(events) < 6


async def test_end(reactor: Any) -> None:
    """At the end, all that waits is sent, even if the channel is full."""
    sender, channel = EventSender(reactor), FullChannel()
    sender.channel = cast(Any, channel)
    for number in range(3):
        sender({"log_format": "{number}", "number": number})
    assert channel.sent == []
    sender.send_all()
    assert channel.sent == ["0", "1", "2"]


async def test_another_thread(reactor: Any) -> None:
    """What another thread logs, for example the watchdog's, is sent in the reactor's thread."""
    sender, channel = EventSender(reactor), FullChannel()
    sender.channel, channel.full = cast(Any, channel), False
    await deferToThread(sender, {"log_format": "from a thread"})
    await deferLater(reactor, 0)
    assert channel.sent == ["from a thread"]
    assert channel.threads == [threading.current_thread()]


async def test_reloads_are_the_supervisors(reactor: Any) -> None:
    """What a worker says of a reload is not sent: the supervisor says it once."""
    sender, channel = EventSender(reactor), FullChannel()
    sender.channel, channel.full = cast(Any, channel), False
    sender({"log_namespace": RELOADS, "log_format": "reloaded"})
    sender({"log_namespace": "evproxy", "log_format": "other"})
    assert channel.sent == ["other"]
