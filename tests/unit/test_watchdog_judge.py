"""The judge of the watchdog: from samples of a loop to reports."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from attrs import evolve

from evproxy.loop_report import Doing, LoopReport, LoopTrouble
from evproxy.observe.watchdog.garbage import Collection
from evproxy.observe.watchdog.judge import Judge, Sample
from evproxy.observe.watchdog.places import AGAIN, MOST_PLACES, Places
from evproxy.observe.watchdog.stacks import Frame, Trace
from evproxy.observe.watchdog.usage import Usage

CODE = compile("pass", "app.py", "exec")
STEP = 0.025


def call(name: str) -> Trace:
    """A call of `name`: each time another one."""
    return Trace(object(), (), name)


def judged(samples: list[Sample]) -> list[LoopReport]:
    """The reports for `samples`, with a threshold of 0.1 s."""
    judge = Judge(0.1)
    return [verdict.report for sample in samples for verdict in judge.judge(sample)]


def samples_of(
    *,
    trace: Callable[[int], Trace | None],
    count: int,
    ran: float = 1.0,
    queued: float = 0.0,
    **more: Any,
) -> list[Sample]:
    """
    Samples of a turn that began at 10 s, every 25 ms, and one after its end.

    The loop's thread ran for the share `ran` of the time, and was queued for the share `queued`.
    """
    before = Sample(now=9.99, loop=Usage(0.0, 0.0))
    within = [
        Sample(
            now=10.0 + number * STEP,
            began=10.0,
            trace=trace(number),
            loop=Usage(ran * number * STEP, queued * number * STEP),
            **more,
        )
        for number in range(2, count + 1)
    ]
    end = count * STEP + 0.001
    return [
        before,
        *within,
        Sample(now=11.0, last_long=(10.0, end), loop=within[-1].loop),
    ]


@pytest.mark.parametrize(("ran", "doing"), [(1.0, Doing.RUNS), (0.1, Doing.WAITS)])
def test_one_long_call(ran: float, doing: Doing) -> None:
    """A call of the threshold is reported once while it lasts, and once when it is over."""
    same = call("slow")
    [held, released] = judged(samples_of(trace=lambda _: same, count=12, ran=ran))
    assert (held.trouble, held.place, held.over, held.doing) == (
        LoopTrouble.CALLBACK,
        "slow",
        False,
        doing,
    )
    assert held.seconds == pytest.approx(0.1, abs=0.002)
    assert (released.over, released.place) == (True, "slow")
    assert released.seconds == pytest.approx(0.301)


def test_a_call_that_is_not_long() -> None:
    """A call that is over before the threshold is not reported."""
    same = call("quick")
    assert judged(samples_of(trace=lambda _: same, count=3)) == []


def test_a_call_that_ends_between_two_samples() -> None:
    """A call of the threshold that no sample saw for so long is reported when it is over."""
    same = call("slow")
    samples = samples_of(trace=lambda _: same, count=4)
    del samples[3]
    [report] = judged(samples)
    assert (report.place, report.over) == ("slow", True)


def test_many_short_calls() -> None:
    """A turn whose samples all have other calls has many calls, and no call is blamed."""
    samples = samples_of(trace=lambda number: call(f"short{number % 2}"), count=12)
    [begun, over] = judged(samples)
    assert {each.trouble for each in (begun, over)} == {LoopTrouble.CALLS}
    assert (begun.detail, over.detail) == ("short0, short1", "short0, short1")
    assert (begun.over, over.over) == (False, True)
    assert begun.seconds == pytest.approx(0.1, abs=0.002)
    assert over.seconds == pytest.approx(0.301)


def test_a_long_call_after_short_ones() -> None:
    """The long call is found, and the short ones before it are not counted to its time."""
    slow = call("slow")
    held = judged(samples_of(trace=lambda n: slow if n > 3 else call("short"), count=20))
    [begun, over] = [each for each in held if each.trouble is LoopTrouble.CALLBACK]
    assert begun.place == "slow"
    assert begun.seconds == pytest.approx(0.1, abs=0.002)
    assert over.seconds == pytest.approx(0.501 - 0.075)


def test_a_long_call_within_many() -> None:
    """A turn of many calls, and a long call at its end, are both over at the end of the turn."""
    slow = call("slow")
    reports = judged(samples_of(trace=lambda n: slow if n > 6 else call("short"), count=20))
    assert [(each.trouble, each.over) for each in reports] == [
        (LoopTrouble.CALLS, False),
        (LoopTrouble.CALLBACK, False),
        (LoopTrouble.CALLBACK, True),
        (LoopTrouble.CALLS, True),
    ]


def test_a_collection_is_no_fault_of_the_call() -> None:
    """A long collection is reported as such, and subtracted from the call in which it ran."""
    same = call("innocent")
    collection = Collection(2, 10.12, 0.11, 7)
    samples = [
        Sample(now=9.99, loop=Usage(0.0, 0.0)),
        Sample(now=10.05, began=10.0, trace=same, loop=Usage(0.05, 0.0)),
        Sample(
            now=10.17,
            late=0.09,
            began=10.0,
            trace=same,
            loop=Usage(0.17, 0.0),
            collections=(collection,),
        ),
        Sample(now=10.2, last_long=(10.0, 0.18), loop=Usage(0.18, 0.0)),
    ]
    [report] = judged(samples)
    assert report.trouble is LoopTrouble.COLLECTION
    assert report.seconds == 0.11
    assert report.detail == "generation 2, 7 objects freed"


def test_a_short_collection() -> None:
    """A collection below the threshold is not reported."""
    short = Sample(now=10.0, collections=(Collection(0, 9.995, 0.002, 0),))
    assert judged([Sample(now=9.95), short]) == []


def late(**more: Any) -> list[Sample]:
    """Two samples, of which the second is 0.3 s late, in a turn that began at 10 s."""
    return [
        Sample(now=9.95, loop=Usage(0.0, 0.0), sampler=Usage(0.0, 0.0)),
        Sample(now=10.3, late=0.3, **{"loop": Usage(0.0, 0.0), **more}),
        Sample(now=10.4, last_long=(10.0, 0.301), loop=more.get("loop", Usage(0.0, 0.0))),
    ]


def test_c_code_of_the_loop_that_keeps_the_lock() -> None:
    """If the sampler is late and the loop's thread ran, C code in the loop kept the lock."""
    trace = call("re.match")
    [held, released] = judged(late(began=10.0, trace=trace, loop=Usage(0.3, 0.0), process=0.3))
    assert (held.place, held.doing) == ("re.match", Doing.LOCKS)
    assert held.seconds == pytest.approx(0.3)
    assert released.over


def test_another_thread_that_keeps_the_lock() -> None:
    """If another thread ran instead, that thread is blamed, and not the call in the loop."""
    trace = call("innocent")
    samples = late(began=10.0, trace=trace, process=0.3, others="rx in app.py")
    # The call goes on for less than the threshold.
    after = Sample(now=10.36, began=10.0, trace=trace, loop=Usage(0.06, 0.0), process=0.36)
    [report] = judged([*samples[:2], after, samples[2]])
    assert (report.trouble, report.detail) == (LoopTrouble.LOCK, "rx in app.py")


def test_a_thread_that_keeps_the_lock_and_waits_for_a_processor() -> None:
    """On a busy machine, such a thread runs for a part of the time only, and is blamed, too."""
    [report] = judged(late(process=0.05, others="rx in app.py"))
    assert (report.trouble, report.detail) == (LoopTrouble.LOCK, "rx in app.py")


def test_a_process_that_was_stopped() -> None:
    """If no thread ran, and none waited for a processor, the process was stopped."""
    [report] = judged(late())
    assert report.trouble is LoopTrouble.STOPPED


def test_a_starved_process() -> None:
    """If both threads waited for a processor, nothing in the process is blamed."""
    trace = call("innocent")
    queued = Usage(0.0, 0.29)
    [report] = judged(late(began=10.0, trace=trace, loop=queued, sampler=queued))
    assert (report.trouble, report.seconds) == (LoopTrouble.STARVED, 0.29)


def test_a_loop_that_is_starved_now() -> None:
    """A thread that waits for a processor right now has not been charged for it yet."""
    same = call("innocent")
    assert judged(samples_of(trace=lambda _: same, count=8, ran=0.0, runnable=True)[:-1]) == []


def test_a_call_that_waits_for_a_processor_now() -> None:
    """What it is not charged for yet is none of its time: it runs, and is reported later."""
    same = call("busy")
    samples = samples_of(trace=lambda _: same, count=5, runnable=True)[:-1]
    # Of the next 80 ms, it runs for 10 and waits for the rest.
    starved = evolve(samples[-1], now=10.155, loop=Usage(0.085, 0.0))
    assert judged([*samples[:3], starved]) == []
    charged = evolve(starved, now=10.18, loop=Usage(0.11, 0.07))
    [held] = judged([*samples[:3], starved, charged])
    assert held.seconds == pytest.approx(0.11)
    assert (held.place, held.doing) == ("busy", Doing.RUNS)


def test_a_call_that_is_slowed_down_by_others() -> None:
    """Only the time in which the loop's thread had a processor counts."""
    same = call("slowed")
    half = samples_of(trace=lambda _: same, count=7, ran=0.5, queued=0.5)
    assert judged(half) == []
    assert judged(samples_of(trace=lambda _: same, count=10, ran=0.5, queued=0.5))


def test_a_loop_that_waits() -> None:
    """A loop that waits for events is never reported, however long it waits."""
    assert judged([Sample(now=now, loop=Usage(0.0, 0.0)) for now in (1.0, 1.05, 500.0)]) == []


def test_where_nothing_is_known_of_threads() -> None:
    """Without the usage of threads, a long call is reported all the same."""
    same = call("slow")
    samples = [Sample(now=9.99)] + [
        Sample(now=10.0 + number * STEP, began=10.0, trace=same) for number in range(2, 8)
    ]
    [report] = judged(samples)
    assert (report.place, report.doing) == ("slow", Doing.UNKNOWN)


def test_when_to_look_again() -> None:
    """A turn is looked at when it reaches half of the threshold, and then more often."""
    judge = Judge(0.1)
    assert judge.pause(5.0, inf) == 0.1
    assert judge.pause(5.0, 4.98) == pytest.approx(0.03)
    assert judge.pause(5.0, 4.94) == pytest.approx(0.0125)
    assert judge.pause(5.0, 4.0) == 0.05
    assert judge.pause(5.0, 5.04) == 0.1
    assert Judge(0.01).pause(5.0, 5.0 - 0.0049999) == 0.002
    assert not judge.watches(5.0, inf)
    assert not judge.watches(5.0, 4.96)
    assert judge.watches(5.0, 4.94)


def held(trouble: LoopTrouble = LoopTrouble.CALLBACK, seconds: float = 1.0) -> LoopReport:
    return LoopReport(trouble=trouble, seconds=seconds, over=True, place="app.slow (app.py:1)")


def test_each_place_is_reported_once() -> None:
    """A place is new once; after that it is counted."""
    places = Places()
    assert places.found(("a",), held(), 0.0)
    assert not places.found(("a",), held(seconds=3.0), 10 * AGAIN)
    assert places.found(("b",), held(), 0.0)
    [first, second] = places.all
    assert (first.count, first.seconds, first.longest, first.report.seconds) == (2, 4.0, 3.0, 1.0)
    assert second.count == 1


def test_what_lasts_is_counted_once() -> None:
    """The end of a hold makes its time longer; only that of the first is reported."""
    places = Places()
    places.found(("a",), held(), 0.0)
    assert places.lasted(("a",), 4.0, held(seconds=5.0))
    places.found(("a",), held(), 1.0)
    assert not places.lasted(("a",), 1.0, held(seconds=2.0))
    [place] = places.all
    assert (place.count, place.seconds, place.longest) == (2, 7.0, 5.0)


def test_a_state_of_the_machine_is_reported_again() -> None:
    """What is no fault of a call is reported again after some minutes."""
    places = Places()
    starved = held(LoopTrouble.STARVED)
    assert places.found(("starved",), starved, 0.0)
    assert not places.found(("starved",), starved, AGAIN - 1)
    assert places.found(("starved",), starved, AGAIN)


def test_the_places_are_bounded() -> None:
    """The place that was seen the longest time ago is forgotten."""
    places = Places()
    for number in range(MOST_PLACES):
        places.found((number,), held(), 0.0)
    assert not places.found((0,), held(), 0.0)
    assert places.found(("new",), held(), 0.0)
    assert len(places.all) == MOST_PLACES
    assert not places.found((0,), held(), 0.0)
    assert places.found((1,), held(), 0.0)
    assert not places.lasted((2,), 1.0, held())


def test_the_key_of_a_call_is_its_functions() -> None:
    """Another line of the same functions is the same place; another innermost function is not."""
    other = compile("pass", "other.py", "exec")

    def trace(line: int, innermost: Any) -> Trace:
        frames = (
            Frame(CODE, 1, "twisted.internet.tcp"),
            Frame(CODE, line, "app"),
            Frame(innermost, line, "json"),
        )
        return Trace(object(), frames)

    assert trace(1, CODE).key == trace(2, CODE).key
    assert trace(1, CODE).key != trace(1, other).key
    assert trace(3, other).place == "app.<module> (app.py:3)"
    assert trace(3, other).called == "twisted.internet.tcp.<module>"
