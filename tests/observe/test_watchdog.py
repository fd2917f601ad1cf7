"""The watchdog on the reactor of the tests: what it times, what it leaves alone, and its end."""

from __future__ import annotations

import gc
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from evproxy import LoopReport, ProxyService, SettingsError, Watchdog
from evproxy.engine.turns import Turns
from evproxy.loop_report import LoopTrouble
from evproxy.observe import loop_metrics
from evproxy.observe.watchdog.places import HeldPlace
from evproxy.observe.watchdog.waits import TimedCalls, wait_of
from tests.support.leaks import LoggedErrors

pytestmark = [pytest.mark.deadline(30), pytest.mark.oldest_twisted, pytest.mark.every_reactor]

THRESHOLD = 0.05


class Heard:
    """A `LoopObserver` that lets a test wait for a report."""

    def __init__(self, reactor: Any) -> None:
        self.all: list[LoopReport] = []
        self.threads: list[threading.Thread] = []
        self._reactor = reactor
        self._wanted: list[tuple[Callable[[LoopReport], bool], Deferred[LoopReport]]] = []

    def loop_held(self, report: LoopReport) -> None:
        self.threads.append(threading.current_thread())
        self._reactor.callFromThread(self._take, report)

    def loop_released(self, report: LoopReport) -> None:
        self._reactor.callFromThread(self._take, report)

    def _take(self, report: LoopReport) -> None:
        self.all.append(report)
        for each in self._wanted[:]:
            wanted, found = each
            if wanted(report):
                self._wanted.remove(each)
                found.callback(report)

    def until(self, wanted: Callable[[LoopReport], bool]) -> Deferred[LoopReport]:
        """Return a Deferred of the next report that is `wanted`."""
        found: Deferred[LoopReport] = Deferred()
        self._wanted.append((wanted, found))
        return found

    @property
    def calls(self) -> list[LoopReport]:
        """The reports that blame a call; a busy machine may starve the process meanwhile."""
        return [each for each in self.all if each.trouble is LoopTrouble.CALLBACK]


@pytest.fixture
def heard(reactor: Any) -> Heard:
    """What the watchdog has reported."""
    return Heard(reactor)


@pytest.fixture
def watchdog(reactor: Any, heard: Heard) -> Iterator[Watchdog]:
    """A watchdog of the reactor of the tests, which runs during the test."""
    watchdog = Watchdog(reactor, THRESHOLD, heard)
    watchdog.startService()
    yield watchdog
    if watchdog.running:
        watchdog.stopService()


def hold(seconds: float) -> None:
    """Hold the loop."""
    time.sleep(seconds)


def turns(reactor: Any, seconds: float) -> Deferred[None]:
    """Let the reactor run, and wait."""
    return deferLater(reactor, seconds)


async def test_a_held_loop(reactor: Any, watchdog: Watchdog, heard: Heard) -> None:
    """A call that holds the loop is reported while it holds it, and when it is over."""
    over = heard.until(lambda report: report.trouble is LoopTrouble.CALLBACK and report.over)
    reactor.callLater(0, hold, 0.3)
    report = await over
    begun = heard.calls[0]
    assert "hold" in begun.place
    assert begun.called == f"{__name__}.hold"
    assert THRESHOLD * 0.99 <= begun.seconds < 0.3
    # Time in which a busy machine starves the process is subtracted.
    assert report.seconds >= 0.2
    assert any("time.sleep(seconds)" in line for line in begun.stack)
    # The loop was held, so the observer was called in another thread.
    assert heard.threads[0] is not threading.main_thread()


async def test_one_report_for_a_place(reactor: Any, watchdog: Watchdog, heard: Heard) -> None:
    """The same place is reported once, however often it holds the loop; but it is counted."""
    places: list[HeldPlace] = []
    # A hold in which a busy machine starves the process may not count.
    for _ in range(20):
        await deferLater(reactor, 0, hold, 0.15)
        await turns(reactor, 2 * THRESHOLD)
        places = [each for each in watchdog.status().places if "hold" in each.report.place]
        if places and places[0].count >= 3:
            break
    assert [each.over for each in heard.calls] == [False, True]
    [place] = places
    assert place.count == 3
    assert place.seconds >= 0.3
    assert 0.1 <= place.longest < place.seconds


def short() -> None:
    """Make one of many short calls."""
    until = time.perf_counter() + 2e-5
    while time.perf_counter() < until:
        pass


async def test_many_calls_and_a_long_one(reactor: Any, watchdog: Watchdog, heard: Heard) -> None:
    """If a long call follows many in one turn, the end of both is reported as their end."""
    both = {LoopTrouble.CALLS, LoopTrouble.CALLBACK}

    def reported(over: bool) -> bool:
        return {each.trouble for each in heard.all if each.over == over} >= both

    # A turn in which a busy machine starves the process may be reported only when it is over.
    for _ in range(20):
        for _ in range(10_000):
            reactor.callLater(0, short)
        reactor.callLater(0, hold, 0.2)
        await turns(reactor, 2 * THRESHOLD)
        if reported(over=False):
            break
    assert reported(over=False)
    for _ in range(20):
        if reported(over=True):
            break
        await turns(reactor, THRESHOLD)
    assert reported(over=True)


async def test_a_wait_for_events_is_no_hold(reactor: Any, watchdog: Watchdog, heard: Heard) -> None:
    """A loop that waits for longer than the threshold is not held, and the wait is no turn."""
    await turns(reactor, 0.01)
    before = watchdog.status()
    await turns(reactor, 4 * THRESHOLD)
    after = watchdog.status()
    assert heard.calls == []
    assert after.turn_seconds - before.turn_seconds < 3 * THRESHOLD
    assert after.turns > before.turns


async def test_the_histogram(reactor: Any, watchdog: Watchdog) -> None:
    """A turn is counted in its bucket, and shows as the longest turn, ever and recently."""
    await turns(reactor, 0.01)
    before = watchdog.status()
    await deferLater(reactor, 0, hold, 0.21)
    await turns(reactor, 0)
    after = watchdog.status()
    slow_before, slow_after = (
        status.turns - dict(status.buckets)[0.2] for status in (before, after)
    )
    assert slow_after > slow_before
    assert after.longest_turn >= 0.21
    assert after.recent_longest_turn == after.longest_turn
    assert after.buckets[-1][1] == after.turns


async def test_the_last_turn(reactor: Any, watchdog: Watchdog) -> None:
    """While a call holds the loop, the time of the last turn stands still; it goes on after."""
    seen: list[float] = []

    def look() -> None:
        first = watchdog.last_turn
        time.sleep(0.1)
        seen.extend((first, watchdog.last_turn, watchdog.status().since_last_turn))

    await deferLater(reactor, 0, look)
    first, second, since = seen
    assert first == second
    assert since >= 0.1
    await turns(reactor, 0)
    assert watchdog.last_turn > first


async def test_synapses_metrics(reactor: Any, watchdog: Watchdog) -> None:
    """The histogram and the gauge have the names, the buckets and the form of Synapse's."""
    await turns(reactor, 0.01)
    found = {family.name: family for family in loop_metrics(watchdog.status())}
    histogram = found["python_twisted_reactor_tick_time"]
    assert histogram.kind == "histogram"
    *buckets, count, total = histogram.samples
    bounds = "0.001 0.002 0.005 0.01 0.025 0.05 0.1 0.2 0.5 1.0 2.0 5.0 +Inf"
    assert " ".join(dict(labels)["le"] for _, labels, _ in buckets) == bounds
    assert {suffix for suffix, _, _ in buckets} == {"_bucket"}
    counts = [value for _, _, value in buckets]
    assert counts == sorted(counts)
    assert count == ("_count", (), counts[-1])
    assert total[0] == "_sum"
    last_seen = found["python_twisted_reactor_last_seen"]
    [(suffix, labels, value)] = last_seen.samples
    assert (last_seen.kind, suffix, labels) == ("gauge", "", ())
    assert 0 <= value < 10


async def test_collections_are_timed(reactor: Any, watchdog: Watchdog) -> None:
    """Each garbage collection is counted with its time."""
    before = watchdog.status()
    gc.collect()
    after = watchdog.status()
    assert after.collections == before.collections + 1
    assert after.collection_seconds > before.collection_seconds
    assert after.longest_collection > 0


async def test_nothing_is_left(reactor: Any, heard: Heard) -> None:
    """After its end, the reactor and the collector are as before, and no thread is left."""

    def things_polled() -> dict[str, Any]:
        names = {**vars(reactor), **getattr(type(reactor).doIteration, "__globals__", {})}
        return {
            name: value
            for name, value in names.items()
            if type(value).__module__ == "select" or value is select.select
        }

    before, callbacks, threads = things_polled(), list(gc.callbacks), threading.active_count()
    watchdog = Watchdog(reactor, THRESHOLD, heard)
    watchdog.startService()
    assert threading.active_count() == threads + 1
    await turns(reactor, 0)
    watchdog.stopService()
    assert things_polled() == before
    assert gc.callbacks == callbacks
    assert threading.active_count() == threads
    count = watchdog.status().turns
    assert count
    await turns(reactor, 0)
    assert watchdog.status().turns == count


async def test_it_starts_again(reactor: Any, watchdog: Watchdog, heard: Heard) -> None:
    """A watchdog that was stopped can start again."""
    watchdog.stopService()
    watchdog.startService()
    over = heard.until(lambda report: report.trouble is LoopTrouble.CALLBACK and report.over)
    reactor.callLater(0, hold, 0.2)
    assert (await over).seconds >= 0.1


async def test_two_watchdogs(reactor: Any, watchdog: Watchdog, heard: Heard) -> None:
    """A second watchdog of the same reactor finds what holds it too, whichever stops first."""
    heard_too = Heard(reactor)
    second = Watchdog(reactor, THRESHOLD, heard_too)
    second.startService()
    over = heard_too.until(lambda report: report.trouble is LoopTrouble.CALLBACK and report.over)
    await turns(reactor, 2 * THRESHOLD)
    reactor.callLater(0, hold, 0.3)
    assert (await over).seconds >= 0.1
    watchdog.stopService()
    second.stopService()
    await turns(reactor, 0)


async def test_an_observer_that_fails(reactor: Any, logged_errors: LoggedErrors) -> None:
    """An exception in an observer is logged, and the watchdog goes on."""

    class Failing(Heard):
        def loop_held(self, report: LoopReport) -> None:
            raise RuntimeError("the observer's own")

    heard = Failing(reactor)
    watchdog = Watchdog(reactor, THRESHOLD, heard)
    watchdog.startService()
    over = heard.until(lambda report: report.trouble is LoopTrouble.CALLBACK and report.over)
    reactor.callLater(0, hold, 0.2)
    await over
    watchdog.stopService()
    assert logged_errors.flush(RuntimeError)


@pytest.mark.parametrize("threshold", [0.0, 0.009, -1.0, float("inf"), float("nan")])
def test_a_threshold_that_makes_no_sense(reactor: Any, threshold: float) -> None:
    """A threshold that is too small, or no number, is refused."""
    with pytest.raises(SettingsError, match="threshold: expected a number of seconds"):
        Watchdog(reactor, threshold)


def test_before_the_reactor_runs() -> None:
    """A service that stops before its reactor runs has watched nothing."""

    class NotRunning(Clock):
        def callWhenRunning(self, call: Callable[[], None]) -> None:
            self.call = call

    clock = NotRunning()
    watchdog = Watchdog(clock)
    watchdog.startService()
    watchdog.stopService()
    threads = threading.active_count()
    clock.call()
    assert threading.active_count() == threads
    assert watchdog.status().turns == 0


async def test_the_loop_of_a_proxy(reactor: Any, heard: Heard) -> None:
    """A service with a watchdog notifies its observers, and its status has the loop."""
    proxy = ProxyService(
        reactor,
        ["tcp:0:interface=127.0.0.1"],
        ["127.0.0.1:1"],
        access_log=False,
        observers=[heard],
    )
    assert proxy.status().loop is None
    proxy.watch_loop(THRESHOLD)
    proxy.startService()
    over = heard.until(lambda report: report.trouble is LoopTrouble.CALLBACK and report.over)
    reactor.callLater(0, hold, 0.2)
    report = await over
    status = proxy.status().loop
    assert status is not None
    assert status.longest_turn >= 0.2 - 0.001
    assert report.place in [each.report.place for each in status.places]
    await proxy.stopService()
    assert proxy.watchdog is not None
    assert not proxy.watchdog.running


def test_a_reactor_whose_wait_is_not_known() -> None:
    """Where there is no place to time, the lateness of timed calls is the time of a turn."""
    clock, turns = Clock(), Turns()
    wait = wait_of(clock, turns, 0.01)
    assert isinstance(wait, TimedCalls)
    wait.time()
    assert turns.began > time.monotonic()
    time.sleep(0.02)
    clock.advance(0.01)
    assert turns.count == 1
    assert 0.005 < turns.seconds < 10
    wait.restore()
    assert clock.getDelayedCalls() == []
