"""Lines of sessions that are not over: at their start, and in intervals."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from evproxy import AccessLogSettings
from evproxy.model import Phase
from evproxy.observe.sessions_under_way import AT_ONCE, TICK, IntervalLines
from evproxy.records import SessionStatus
from evproxy.session.live import LiveSessions
from tests.observe.test_formats import STATUS
from tests.support.services import Ground, until

INTERVAL = 5.0


class LiveSession:
    """A session that only lives."""

    id = 0

    def __init__(self, clock: Clock) -> None:
        self.started = clock.seconds()
        self.phase = Phase.RELAYING

    def status(self, now: float) -> SessionStatus:
        """Only the number and the duration."""
        return STATUS._replace(id=self.id, duration=now - self.started)


class CountingClock(Clock):
    """Remembers how many lines each call has written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = 0
        self.turns: list[int] = []

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        def call() -> None:
            before = self.lines
            callable(*args, **kw)
            self.turns.append(self.lines - before)

        later: IDelayedCall = super().callLater(delay, call)
        return later


class Sweep:
    """A sweep over sessions without sockets, and the lines that it writes."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self.clock = CountingClock()
        self.sessions = LiveSessions(self.clock)
        self.lines: list[tuple[float, int]] = []
        self.swept = IntervalLines(self.clock, self.sessions)
        self.swept.write_to(self, interval)
        self.swept.start()

    def open(self, count: int) -> None:
        """`count` sessions begin."""
        for _ in range(count):
            session: Any = LiveSession(self.clock)
            self.sessions.opened(session)

    def under_way(self, event: str, status: SessionStatus) -> None:
        assert event == "interval"
        self.lines.append((self.clock.seconds(), status.id))
        self.clock.lines += 1

    def run(self, seconds: float) -> None:
        """Let time pass in steps of half a tick."""
        self.clock.pump([TICK / 2] * round(seconds * 2 / TICK))


def test_a_session_has_a_line_in_each_interval() -> None:
    """The first one comes after one interval at the earliest, the next ones an interval apart."""
    sweep = Sweep()
    sweep.run(2.0)
    sweep.open(1)
    sweep.run(4 * INTERVAL)
    times = [at for at, _ in sweep.lines]
    assert len(times) in (3, 4)
    assert INTERVAL <= times[0] - 2.0 <= 2 * INTERVAL + TICK
    for before, after in pairwise(times):
        assert after - before == pytest.approx(INTERVAL, abs=TICK)
    sweep.swept.stop()
    assert sweep.clock.getDelayedCalls() == []


def test_a_turn_has_bounded_work() -> None:
    """Each of 20,000 sessions has its line in the interval, and no turn has more than a few."""
    sweep = Sweep()
    sweep.open(20_000)
    sweep.run(INTERVAL - TICK)
    assert sweep.lines == []
    sweep.run(INTERVAL + TICK)
    assert sorted(number for _, number in sweep.lines) == list(range(1, 20_001))
    assert max(sweep.clock.turns) == AT_ONCE
    # They come all along the interval: a burst would be more than the writer keeps.
    for part in range(5):
        begin = INTERVAL + part
        assert 3_000 < sum(begin <= at < begin + 1 for at, _ in sweep.lines) < 5_000


def test_more_sessions_than_the_interval_has_time_for() -> None:
    """If every turn is late, the pass takes longer, and still leaves no session out."""
    sweep = Sweep(interval=TICK)
    sweep.open(1000)
    sweep.run(3 * TICK)
    numbers = [number for _, number in sweep.lines]
    assert set(numbers) == set(range(1, 1001))
    assert max(sweep.clock.turns) == AT_ONCE


def test_sessions_that_come_and_go_during_a_pass() -> None:
    """A session that has ended has no line; one that has just begun waits for its interval."""
    sweep = Sweep()
    sweep.open(100)
    sweep.run(INTERVAL)
    for number in range(1, 51):
        del sweep.sessions.by_id[number]
    sweep.open(50)
    sweep.run(INTERVAL - TICK)
    numbers = [number for _, number in sweep.lines]
    assert set(range(51, 101)) <= set(numbers) <= set(range(1, 101))
    assert len(numbers) == len(set(numbers)) < 60


def test_sessions_that_do_not_relay_have_no_line() -> None:
    """A session that still connects, or already closes, is about to have a line anyway."""
    sweep = Sweep()
    sweep.open(2)
    sweep.sessions.by_id[1].phase = Phase.CONNECTING
    sweep.run(2 * INTERVAL)
    assert {number for _, number in sweep.lines} == {2}


def test_a_session_whose_status_fails(logged_errors: Any) -> None:
    """The others still have their lines."""
    sweep = Sweep()
    sweep.open(3)
    broken: Any = sweep.sessions.by_id[2]
    broken.status = lambda now: 1 / 0
    sweep.run(2 * INTERVAL)
    assert {number for _, number in sweep.lines} == {1, 3}
    assert logged_errors.flush(ZeroDivisionError)


@pytest.mark.oldest_twisted
@pytest.mark.parametrize("relay", ["socket", "stream"])
async def test_the_lines_of_one_session(
    ground: Ground, tmp_path: Path, reactor: Any, relay: str
) -> None:
    """The file has its start, its intervals, also while the service drains, and its end."""
    log = tmp_path / "access.log"
    settings = AccessLogSettings(path=str(log), format="json", start=True, interval=0.2)
    service = ground.service(access_log=settings, relay=relay)
    service.startService()
    client, server = await ground.session(service)

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in log.read_text().splitlines()]

    await until(reactor, lambda: len(lines()) >= 3)
    drained = service.drain(20.0)
    before = len(lines())
    await until(reactor, lambda: len(lines()) >= before + 2)
    client.close()
    server.close()
    await drained
    first, *between, last = lines()
    assert first["reason_how"] == "start"
    assert {each["reason_how"] for each in between} == {"interval"}
    assert last["reason_how"] == "finished"
    assert first["bytes_to_upstream"] == 0
    assert between[-1]["bytes_to_upstream"] == last["bytes_to_upstream"] == 1
    assert {each["unique_id"] for each in lines()} == {first["unique_id"]}
    assert {each["relay"] for each in lines()} == {relay}
    assert first["duration"] < between[0]["duration"] < last["duration"]


async def test_a_session_without_a_server_has_no_start(ground: Ground, tmp_path: Path) -> None:
    """Its end is its only line."""
    log = tmp_path / "access.log"
    settings = AccessLogSettings(path=str(log), start=True)
    service = ground.service(access_log=settings, upstreams=["127.0.0.1:1"])
    service.startService()
    await ground.client(service).rest()
    await service.stopService()
    [line] = log.read_text().splitlines()
    assert " upstream unreachable connecting " in line
    assert " cause=connect-failed " in line


async def test_events_of_sessions_under_way(ground: Ground, reactor: Any) -> None:
    """With ``twisted:``, they are events in the same namespace."""
    events: list[LogEvent] = []
    hears: Any = events.append
    settings = AccessLogSettings(path="twisted:", start=True, interval=0.2)
    service = ground.service(access_log=settings)
    globalLogPublisher.addObserver(hears)
    try:
        service.startService()
        client, server = await ground.session(service)

        def of_sessions() -> list[LogEvent]:
            return [each for each in events if each["log_namespace"] == "evproxy.session"]

        await until(reactor, lambda: len(of_sessions()) >= 2)
        client.close()
        server.close()
        await service.stopService()
    finally:
        globalLogPublisher.removeObserver(hears)
    assert [each.get("event") for each in of_sessions()][:2] == ["start", "interval"]
    assert of_sessions()[-1]["reason_how"] == "finished"
