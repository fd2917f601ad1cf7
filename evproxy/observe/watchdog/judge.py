"""
Decides from samples of a loop what holds it.

No thread and no clock: a sample has the time, and all that is known at that time.  The rules, where
T is the threshold:

* A turn is watched from T/2 on.  If samples see the same call until T, that call holds the loop.
* If samples of a turn of T see `SHORT_CALLS` different calls, the turn makes many calls.
* If the sampler's thread is late, it waited for the interpreter lock.  If the loop's thread ran
  meanwhile, it ran C code that kept the lock: Python code gives it up every 5 ms.  Otherwise
  another thread kept the lock; or, if hardly any thread ran, the process was stopped.
* A thread that waited in a run queue of the kernel was starved.  That is no fault of a call, and
  neither are collections, nor the locks of other threads: their time is subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from attrs import evolve, frozen, mutable

from evproxy.loop_report import Doing, LoopReport, LoopTrouble
from evproxy.observe.watchdog.garbage import Collection
from evproxy.observe.watchdog.stacks import Trace
from evproxy.observe.watchdog.usage import UNKNOWN, Usage

SHORT_CALLS = 3
"""So many different calls in the samples of one turn are many calls."""

SOONEST = 0.002
"""The shortest time between two samples, in seconds."""

_ALMOST = 0.99
"""The share of the threshold that counts as the threshold: timers are not exact."""

_SHARE_OF_OTHERS = 0.1
"""
The share of a delay for which other threads ran, so that one of them kept the lock.

Small, since such a thread waits for a processor itself on a busy machine; in a process that was
stopped, none runs.
"""


class Known(NamedTuple):
    """The part of a sample that each next sample needs: see `Sample`."""

    now: float
    loop: Usage
    sampler: Usage
    process: float


@frozen(kw_only=True)
class Sample:
    """
    What is known of a loop at one moment.

    `now`: the monotonic time.  `late`: how much later than planned that is.  `began`: when the
    turn in progress began; infinite: the loop waits.  `last_long`: when the last turn of a
    millisecond or more began, and how long it took.  `trace`: what the loop executes, where
    `Judge.watches`.  `loop`, `sampler`: what the two threads have used.  `process`: seconds for
    which all threads together ran.  `runnable`: whether the loop's thread runs or waits in a run
    queue.  `collections`: those that ended after the last sample.  `others`: what other threads
    execute, in words, where `Judge.is_late`.
    """

    now: float
    late: float = 0.0
    began: float = inf
    last_long: tuple[float, float] = (-inf, 0.0)
    trace: Trace | None = None
    loop: Usage = UNKNOWN
    sampler: Usage = UNKNOWN
    process: float = 0.0
    runnable: bool = False
    collections: Sequence[Collection] = ()
    others: str = ""


@frozen
class Verdict:
    """A report, and a key that two reports of the same place share."""

    key: tuple[object, ...]
    report: LoopReport


@mutable
class _Turn:
    """
    A turn that is watched.

    `trace`: its latest call, first seen at `seen`, and not yet at `since`.  `ran`: how long the
    loop's thread had run by then.  `excused`: how much of the time since then is no fault of the
    call.  `uncharged`: how long the loop's thread has perhaps waited in a run queue without being
    charged for it yet: the kernel does that when the wait is over.  `kept_lock`: how much of the
    time the call kept the interpreter lock.  `excused_before`: what was excused of the turn before
    the call.  `names`: what the reactor has called, without repetitions.
    """

    began: float
    trace: Trace
    since: float
    seen: float
    ran: float | None
    excused: float = 0.0
    uncharged: float = 0.0
    kept_lock: float = 0.0
    excused_before: float = 0.0
    calls: int = 1
    samples: int = 1
    names: tuple[str, ...] = ()
    reported: Verdict | None = None
    crowded: bool = False


class Judge:
    """
    Judges the samples of one loop, in their order.

    :param threshold: seconds from which on anything is reported.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._before: Sample | Known | None = None
        self._turn: _Turn | None = None

    def watches(self, now: float, began: float) -> bool:
        """Return whether a sample at `now` needs a trace."""
        return now - began >= self.threshold / 2

    def is_late(self, late: float) -> bool:
        """Return whether a sample that is `late` seconds late needs what other threads execute."""
        return late >= self.threshold / 5

    @property
    def watching(self) -> bool:
        """Whether a turn is watched, so that the next sample is needed whatever it shows."""
        return self._turn is not None

    def nothing(self, known: Known) -> None:
        """Take note of a sample in which there is nothing to judge."""
        self._before = known

    def pause(self, now: float, began: float) -> float:
        """Return in how many seconds the next sample is needed."""
        half = self.threshold / 2
        taken = now - began
        if taken < 0:
            return self.threshold
        if taken < half:
            return max(half - taken, SOONEST)
        return max(half / 4, SOONEST) if taken < 2 * self.threshold else half

    def judge(self, sample: Sample) -> list[Verdict]:
        """Return what `sample` shows, together with those before it."""
        before, self._before = self._before, sample
        if before is None:
            return []
        found = [_collection(each) for each in sample.collections if each.seconds >= self.threshold]
        loop = sample.loop.since(before.loop)
        collecting = sum(each.seconds for each in sample.collections)
        excused = loop.queued + collecting
        queued = max(loop.queued, sample.sampler.since(before.sampler).queued)
        if queued >= self.threshold:
            found.append(_verdict(LoopTrouble.STARVED, queued))
        late = sample.late - queued - collecting
        kept_lock = 0.0
        if self.is_late(late):
            trouble = self._late(late, sample, before, loop)
            if trouble is None:
                kept_lock = late
            else:
                excused += late
                if late >= self.threshold:
                    detail = sample.others if trouble is LoopTrouble.LOCK else ""
                    found.append(_verdict(trouble, late, detail=detail))
        turn = self._turn
        if turn is not None and turn.began != sample.began:
            found += self._over(turn, sample)
            self._turn = None
        if sample.trace is not None:
            turn = self._turn
            if turn is not None and turn.trace.token is not sample.trace.token:
                found += _released(turn, sample.now)
            turn = self._seen(sample, sample.trace, before)
            turn.excused += excused
            turn.kept_lock += kept_lock
            if sample.runnable and loop.ran is not None:
                passed = sample.now - max(before.now, sample.began)
                turn.uncharged = max(0.0, turn.uncharged + passed - loop.ran - loop.queued)
            else:
                turn.uncharged = 0.0
            found += self._held(turn, sample)
        return found

    def _late(
        self, late: float, sample: Sample, before: Sample | Known, loop: Usage
    ) -> LoopTrouble | None:
        """Return why the sampler is late; ``None``: the loop's thread kept the lock."""
        if loop.ran is None or loop.ran >= late / 2:
            return None
        if sample.process - before.process - loop.ran >= late * _SHARE_OF_OTHERS:
            return LoopTrouble.LOCK
        # C code may keep the lock and wait, too.
        return None if sample.began <= sample.now - late else LoopTrouble.STOPPED

    def _seen(self, sample: Sample, trace: Trace, before: Sample | Known) -> _Turn:
        """Return the turn of `sample`, with its call."""
        turn, now = self._turn, sample.now
        if turn is None:
            turn = _Turn(sample.began, trace, sample.began, now, before.loop.ran)
            self._turn = turn
        elif turn.trace.token is trace.token:
            turn.trace = trace
            turn.samples += 1
        else:
            turn.trace = trace
            turn.since, turn.seen, turn.ran = before.now, now, before.loop.ran
            turn.excused_before += turn.excused
            turn.excused = turn.uncharged = turn.kept_lock = 0.0
            turn.reported = None
            turn.calls += 1
            turn.samples += 1
        if trace.called not in turn.names:
            turn.names = (*turn.names, trace.called)[:SHORT_CALLS]
        return turn

    def _held(self, turn: _Turn, sample: Sample) -> list[Verdict]:
        """Return what the turn in progress is reported for now."""
        enough = self.threshold * _ALMOST
        now = sample.now - turn.uncharged
        held = now - turn.since - turn.excused
        sure = turn.kept_lock or sample.now - turn.seen >= enough / 2
        if turn.reported is None and held >= enough and sure:
            doing = _doing(turn, sample, held)
            turn.reported = _call(turn.trace, held, doing)
            return [turn.reported]
        taken = now - turn.began - turn.excused_before - turn.excused
        if not turn.crowded and turn.calls >= SHORT_CALLS and taken >= enough:
            turn.crowded = True
            return [_many_calls(turn, taken, False)]
        return []

    def _over(self, turn: _Turn, sample: Sample) -> list[Verdict]:
        """Return what the turn that is over is reported for."""
        began, took = sample.last_long
        end = turn.began + took if began == turn.began else sample.now
        taken = end - turn.began - turn.excused_before - turn.excused
        found = _released(turn, end)
        if turn.crowded:
            found.append(_many_calls(turn, taken, True))
        if found or taken < self.threshold or turn.samples < 2:
            return found
        if turn.calls > 1:
            return [_many_calls(turn, taken, True)]
        verdict = _call(turn.trace, taken, Doing.UNKNOWN)
        return [Verdict(verdict.key, evolve(verdict.report, over=True))]


def _doing(turn: _Turn, sample: Sample, held: float) -> Doing:
    if turn.kept_lock >= held / 2:
        return Doing.LOCKS
    if turn.ran is None or sample.loop.ran is None:
        return Doing.UNKNOWN
    return Doing.RUNS if sample.loop.ran - turn.ran >= held / 2 else Doing.WAITS


def _released(turn: _Turn, end: float) -> list[Verdict]:
    """Return the end of what was reported for the latest call of `turn`, if anything was."""
    if turn.reported is None:
        return []
    report = turn.reported.report
    seconds = max(report.seconds, end - turn.since - turn.excused)
    return [Verdict(turn.reported.key, evolve(report, seconds=seconds, over=True))]


def _call(trace: Trace, seconds: float, doing: Doing) -> Verdict:
    report = LoopReport(
        trouble=LoopTrouble.CALLBACK,
        seconds=seconds,
        over=False,
        place=trace.place,
        called=trace.called,
        doing=doing,
        stack=trace.lines,
    )
    return Verdict((LoopTrouble.CALLBACK, *trace.key), report)


def _many_calls(turn: _Turn, seconds: float, over: bool) -> Verdict:
    report = LoopReport(
        trouble=LoopTrouble.CALLS,
        seconds=seconds,
        over=over,
        place=turn.trace.place,
        called=turn.trace.called,
        detail=", ".join(turn.names),
    )
    return Verdict((LoopTrouble.CALLS, turn.names[0]), report)


def _collection(collection: Collection) -> Verdict:
    detail = f"generation {collection.generation}, {collection.collected} objects freed"
    return _verdict(
        LoopTrouble.COLLECTION, collection.seconds, collection.generation, detail=detail
    )


def _verdict(trouble: LoopTrouble, seconds: float, *key: object, detail: str = "") -> Verdict:
    report = LoopReport(trouble=trouble, seconds=seconds, over=True, detail=detail)
    return Verdict((trouble, *key), report)
