"""Threads for blocking calls: their number, the order of calls, and that no thread stays."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from evproxy.engine import threads
from evproxy.engine.threads import NoThread, Threads

NAME = "under test"


class Doors:
    """Calls that wait until a test opens their door."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self._doors: dict[str, threading.Event] = {}

    def call(self, name: str) -> str:
        self.began.append(name)
        self._doors.setdefault(name, threading.Event()).wait()
        return name

    def open(self, *names: str) -> None:
        for name in names or list(self._doors):
            self._doors.setdefault(name, threading.Event()).set()


@pytest.fixture
def doors() -> Iterator[Doors]:
    doors = Doors()
    yield doors
    doors.open()


def running() -> int:
    return sum(each.name == NAME for each in threading.enumerate())


async def test_what_a_call_gives_or_raises(reactor: Any) -> None:
    """The Deferred fires in the reactor's thread; an exception becomes a failure."""
    several = Threads(reactor, NAME, 2)
    here = threading.get_ident()
    there = await several.call(threading.get_ident).result
    assert there != here
    assert threading.get_ident() == here
    with pytest.raises(ZeroDivisionError):
        await several.call(lambda: 1 / 0).result


async def test_the_bound(reactor: Any, doors: Doors) -> None:
    """At most as many calls run at once as there may be threads; the others follow in order."""
    few = Threads(reactor, NAME, 2)
    calls = [few.call(partial(doors.call, name)) for name in "abcd"]
    assert running() == 2
    doors.open("a")
    assert await calls[0].result == "a"
    doors.open(*"bcd")
    assert [await call.result for call in calls[1:]] == ["b", "c", "d"]
    assert sorted(doors.began[:2]) == ["a", "b"]
    assert doors.began[2] == "c"


async def test_who_goes_first(reactor: Any, doors: Doors) -> None:
    """Calls with priority, and hurried calls, run before all others."""
    one = Threads(reactor, NAME, 1)
    calls = [one.call(partial(doors.call, name)) for name in "abc"]
    calls.append(one.call(partial(doors.call, "d"), first=True))
    calls[2].hurry()
    doors.open(*"abcd")
    for call in calls:
        await call.result
    assert doors.began == ["a", "d", "c", "b"]


async def test_threads_that_are_kept(reactor: Any, doors: Doors) -> None:
    """Hanging ordinary calls leave the reserved threads free for calls with priority."""
    several = Threads(reactor, NAME, 3, kept=1)
    ordinary = [several.call(partial(doors.call, name)) for name in "abc"]
    assert running() == 2
    doors.open("d", "c")
    assert await several.call(partial(doors.call, "d"), first=True).result == "d"
    ordinary[2].hurry()
    assert await ordinary[2].result == "c"
    doors.open()
    for call in ordinary:
        await call.result


async def test_a_cancelled_call(reactor: Any, doors: Doors) -> None:
    """A cancelled call that waits never runs; the result of a running one is dropped."""
    one = Threads(reactor, NAME, 1)
    runs, waits = (one.call(partial(doors.call, name)) for name in "ab")
    outcomes: list[Any] = []
    for call in runs, waits:
        call.result.addBoth(outcomes.append)
        call.result.cancel()
    doors.open(*"abc")
    assert await one.call(partial(doors.call, "c")).result == "c"
    assert doors.began == ["a", "c"]
    assert all(each.check(CancelledError) for each in outcomes)


async def test_a_full_line(reactor: Any, doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls beyond a full queue are refused; calls with priority have a separate queue."""
    monkeypatch.setattr(threads, "WAITING", 1)
    one = Threads(reactor, NAME, 1)
    calls = [one.call(partial(doors.call, name)) for name in "ab"]
    with pytest.raises(NoThread):
        await one.call(partial(doors.call, "c")).result
    calls.append(one.call(partial(doors.call, "d"), first=True))
    doors.open(*"abd")
    assert [await call.result for call in calls] == ["a", "b", "d"]


async def test_no_thread_to_be_had(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system cannot start a thread, the call fails, and the next call still runs."""
    one = Threads(reactor, NAME, 1)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(NoThread):
            await one.call(int).result
    assert await one.call(int).result == 0


async def test_a_thread_ends_when_it_is_idle(reactor: Any) -> None:
    """An idle thread ends, and does not wait for a call that may never come."""
    one = Threads(reactor, NAME, 1)
    await one.call(int).result
    [*ending] = [each for each in threading.enumerate() if each.name == NAME]
    for thread in ending:
        thread.join(10)
    assert running() == 0


HANGING = """
import threading
from twisted.internet import reactor
from evproxy.engine.threads import Threads

began = threading.Event()

def hang():
    began.set()
    threading.Event().wait()

Threads(reactor, "hangs", 1).call(hang)
began.wait()
reactor.callLater(0, reactor.stop)
reactor.run()
"""


def test_the_end_of_the_process_waits_for_no_call() -> None:
    """A hanging look-up does not delay the end of the process."""
    subprocess.run([sys.executable, "-c", HANGING], timeout=60, check=True)


async def test_hundreds_of_calls(reactor: Any) -> None:
    """Calls that arrive while threads are about to end run too."""
    several = Threads(reactor, NAME, 4, kept=1)
    for number in range(200):
        results: list[Deferred[int]] = [
            several.call(partial(int, number), first=bool(each % 2)).result for each in range(4)
        ]
        for result in results:
            assert await result == number
