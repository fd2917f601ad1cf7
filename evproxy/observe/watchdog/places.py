"""
The places that were reported: each is reported once.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import evolve, frozen

from evproxy.loop_report import LoopReport, LoopTrouble

MOST_PLACES = 256
"""The most places that are remembered; beyond, the one seen the longest time ago is forgotten."""

AGAIN = 600.0
"""Seconds after which a trouble is reported again that is no fault of a call."""

_CALLS = (LoopTrouble.CALLBACK, LoopTrouble.CALLS)


@frozen
class HeldPlace:
    """
    A place that was reported.

    `report`: the latest report of it.  `reported`: the monotonic time of this report.  `count`: how
    many times the place was found.  `seconds`: how long that took in all.  `longest`: the longest
    of these times.
    """

    report: LoopReport
    reported: float
    count: int
    seconds: float
    longest: float


class Places:
    """
    The places that were reported.

    `all` is a tuple of them, the one that was found last at the end; another thread may read it.
    """

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[object, ...], HeldPlace] = OrderedDict()
        self.all: tuple[HeldPlace, ...] = ()

    def found(self, key: tuple[object, ...], report: LoopReport, now: float) -> bool:
        """Note that the place `key` was found; return whether to report it."""
        known = self._places.pop(key, None)
        if known is None:
            known = HeldPlace(report, now, 0, 0.0, 0.0)
            new = True
        else:
            new = report.trouble not in _CALLS and now - known.reported >= AGAIN
        if new:
            known = evolve(known, report=report, reported=now)
        self._places[key] = evolve(
            known,
            count=known.count + 1,
            seconds=known.seconds + report.seconds,
            longest=max(known.longest, report.seconds),
        )
        while len(self._places) > MOST_PLACES:
            self._places.popitem(last=False)
        self.all = tuple(self._places.values())
        return new

    def lasted(self, key: tuple[object, ...], longer: float, report: LoopReport) -> bool:
        """
        Note that what was found last at `key` is over, and took `longer` seconds more.

        :return: whether to report it: whether its beginning was reported.
        """
        known = self._places.get(key)
        if known is None:
            return False
        self._places[key] = evolve(
            known,
            seconds=known.seconds + longer,
            longest=max(known.longest, report.seconds),
        )
        self.all = tuple(self._places.values())
        return known.count == 1
