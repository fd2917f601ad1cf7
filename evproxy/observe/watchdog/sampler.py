"""
The thread that samples the loop of another thread, and reports what it finds.

The thread sleeps for the threshold, or less while a turn lasts long.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, process_time
from typing import Any

from twisted.logger import Logger

from evproxy.engine.threads import start_without_signals
from evproxy.engine.turns import Turns
from evproxy.observe.watchdog.garbage import Collections
from evproxy.observe.watchdog.judge import SOONEST, Judge, Known, Sample, Verdict
from evproxy.observe.watchdog.stacks import Tracer
from evproxy.observe.watchdog.usage import ThreadClock

WINDOW = 10.0
"""Seconds of which the longest turn is remembered."""

JOIN_TIMEOUT = 1.0
"""Seconds that the end of the thread may take, if it is writing a report."""

WINDOWS = 6
"""How many such windows are recent: those of one minute."""

_log = Logger()


class Sampler:
    """
    Samples one loop, from `start` to `stop`.  Both are called in the loop's thread.

    :param reactor: runs the loop.
    :param turns: the turns of the loop.
    :param collections: the collections of the process.
    :param judge: decides what to report.
    :param report: is called with each verdict, in the sampler's thread.
    """

    def __init__(
        self,
        reactor: Any,
        turns: Turns,
        collections: Collections,
        judge: Judge,
        report: Callable[[Verdict], None],
    ) -> None:
        self._turns = turns
        self._collections = collections
        self._judge = judge
        self._report = report
        ident = threading.get_ident()
        self._tracer = Tracer(reactor, ident)
        self._loop = ThreadClock(threading.get_native_id(), ident)
        self._queued_at_start = self._loop.read().queued
        self._peaks: deque[float] = deque(maxlen=WINDOWS)
        # Held until `stop`; waiting for it with a timeout is the sampler's sleep.
        self._running = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="evproxy watchdog", daemon=True)

    @property
    def recent_longest_turn(self) -> float:
        """The longest turn of the last minute."""
        return max([self._turns.peak, *self._peaks])

    @property
    def starved_seconds(self) -> float:
        """How long the loop's thread waited for a processor since the start."""
        return max(0.0, self._loop.read().queued - self._queued_at_start)

    def start(self) -> None:
        """
        Start the thread.

        :raises RuntimeError: if no more threads can be started.
        """
        self._running.acquire()
        start_without_signals(self._thread)

    def stop(self) -> None:
        """Stop the thread, and wait for its end, which comes at once unless a log is stuck."""
        self._running.release()
        self._thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        own = ThreadClock(threading.get_native_id(), threading.get_ident())
        try:
            self._sample_until_stopped(own)
        except Exception:
            # The loop goes on without a watchdog.
            _log.failure("The watchdog ended")
        finally:
            own.close()
            self._loop.close()

    def _sample_until_stopped(self, own: ThreadClock) -> None:
        turns, judge, collections = self._turns, self._judge, self._collections
        pause = 0.0
        before = window = planned = monotonic()
        recent = collections.recent
        queued_before, threshold = self._loop.read().queued, judge.threshold
        while not self._running.acquire(timeout=pause):
            now, began, collected = monotonic(), turns.began, collections.recent
            if collections.began is not None:
                # Its end will say how long it took, before any code of the loop runs.
                pause = SOONEST
                continue
            watched = judge.watches(now, began)
            late = max(0.0, now - planned)
            # First of all, because the reads below give up the interpreter lock.
            trace = self._tracer.trace() if watched else None
            is_late = judge.is_late(late)
            others = self._others() if is_late else ""
            last_long = turns.last_long
            known = Known(now, self._loop.read(), own.read(), process_time())
            queued = known.loop.queued
            if (
                not watched
                and not is_late
                and not judge.watching
                and collected is recent
                and queued - queued_before < threshold
            ):
                # The usual case; a sample costs most of what the watchdog costs.
                judge.nothing(known)
            else:
                sample = Sample(
                    now=now,
                    late=late,
                    began=began,
                    last_long=last_long,
                    trace=trace,
                    loop=known.loop,
                    sampler=known.sampler,
                    process=known.process,
                    runnable=watched and self._loop.runnable(),
                    collections=[each for each in collected if each.ended > before],
                    others=others,
                )
                for verdict in judge.judge(sample):
                    self._report(verdict)
            before, recent, queued_before = now, collected, queued
            if now - window >= WINDOW:
                window = now
                self._peaks.append(turns.take_peak())
            pause = judge.pause(now, began)
            planned = monotonic() + pause
        self._running.release()

    def _others(self) -> str:
        """Return what the other threads execute."""
        names = {each.ident: each.name for each in threading.enumerate()}
        found = "; ".join(
            f"{names.get(ident, 'a thread')} in {frame.place}"
            for ident, frame in self._tracer.others()
        )
        return found or "that thread is gone"
