"""The log of several workers: what they say alike is logged once, and nothing else is lost."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, eventAsJSON, formatEvent

from evproxy.workers.log_relay import ALIKE, MOST_REMEMBERED, EventLog


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
