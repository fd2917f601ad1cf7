"""
What a process did in one interval, and the sample of one or several processes.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from evproxy.admin.live.history import Sample


class Interval(NamedTuple):
    """
    What the sessions of one process did in one interval.

    `until`: when the interval ended, in seconds on the reactor's clock.  `seconds`: how long it
    was.  `sessions`: how many there were at its end.  `started`: how many began.  `to_upstream`,
    `to_downstream`: bytes passed on.  `connects`: how many sessions got their server; `connect_sum`
    and `connect_most` are the sum and the most of the seconds that this took, from the accept on.
    `lag`: the longest turn of the event loop, in seconds; ``None``: nothing measures it.
    """

    until: float
    seconds: float
    sessions: int
    started: int
    to_upstream: int
    to_downstream: int
    connects: int
    connect_sum: float
    connect_most: float
    lag: float | None


def sample_of(intervals: Sequence[Interval], at: float, seconds: float) -> Sample:
    """
    Return the sample of processes with these `intervals`, one of each.

    An interval of a process may be shorter or longer, for example if the process is new.  Each of
    its bytes and sessions counts once nevertheless.

    :param at: the time of the sample, in seconds on the reactor's clock.
    :param seconds: since the sample before.
    """
    connects = sum(each.connects for each in intervals)
    return Sample(
        at=at,
        sessions=sum(each.sessions for each in intervals),
        started=sum(each.started for each in intervals) / seconds,
        to_upstream=sum(each.to_upstream for each in intervals) / seconds,
        to_downstream=sum(each.to_downstream for each in intervals) / seconds,
        connect_mean=sum(each.connect_sum for each in intervals) / connects if connects else None,
        connect_most=max(each.connect_most for each in intervals) if connects else None,
        lag=max((each.lag for each in intervals if each.lag is not None), default=None),
    )
