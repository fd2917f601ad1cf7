"""
A snapshot of the loop, for metrics, pages and programs.
"""

from __future__ import annotations

from attrs import frozen

from evproxy.observe.watchdog.places import HeldPlace


@frozen(kw_only=True)
class LoopStatus:
    """
    A snapshot of a loop that a watchdog watches; times in seconds.

    `threshold`: from which time on a hold is reported.  `since_last_turn`: how long the turn in
    progress has lasted; 0 while the loop waits for events.  `turns`, `turn_seconds`: how many turns
    are over, and how long they took together.  `buckets`: pairs of a bound and the number of turns
    that took at most so long; the last bound is infinite.  `longest_turn`: since the start.
    `recent_longest_turn`: within the last minute.  `collections`, `collection_seconds`,
    `longest_collection`: the garbage collections of the process.  `starved_seconds`: how long the
    loop's thread waited for a processor.  `places`: what was reported, the latest at the end; at
    most 256.
    """

    threshold: float
    since_last_turn: float
    turns: int
    turn_seconds: float
    buckets: tuple[tuple[float, int], ...]
    longest_turn: float
    recent_longest_turn: float
    collections: int
    collection_seconds: float
    longest_collection: float
    starved_seconds: float
    places: tuple[HeldPlace, ...]
