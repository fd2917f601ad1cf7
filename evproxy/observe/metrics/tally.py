"""
The tally: counts what happens to sessions and pools, in plain numbers.

The end of a session only appends a few facts to a list.  The tally counts `BATCH` sessions at a
time, with functions that Python has in C, because a few hundred together cost a fraction of single
ones.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from attrs import define, field

from evproxy.model import CloseReason
from evproxy.records import MirrorRecord
from evproxy.session.facts import Ended, EndedSessions, together
from evproxy.upstream.pool.server import PoolServer

BATCH = 256
"""How many sessions are kept until they are counted: less than half a millisecond's worth."""

DURATIONS = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0)
"""The upper bounds, in seconds, of the buckets for how long sessions last."""

LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds, in seconds, of the buckets for connects and first bytes."""


@define
class Histogram:
    """
    How many values were at most each of the `bounds`, and their sum.

    `counts`: the number of values by the index of their bucket; the last one has no bound.
    """

    bounds: Sequence[float]
    counts: Counter[int] = field(factory=Counter)
    sum: float = 0.0

    def include(self, other: Histogram) -> None:
        """Add what `other` has counted, in buckets with the same bounds."""
        self.counts.update(other.counts)
        self.sum += other.sum

    def add(self, values: Iterable[float | None]) -> None:
        """Add the `values` that are not ``None``."""
        # Sorting them first costs less than looking for the bucket of each.
        known = sorted([value for value in values if value is not None])
        up_to = [bisect_right(known, bound) for bound in self.bounds]
        places = pairwise([0, *up_to, len(known)])
        self.counts.update({index: end - start for index, (start, end) in enumerate(places)})
        self.sum += sum(known)

    def copy(self) -> Histogram:
        """Return a histogram that stays as this one is now."""
        return Histogram(self.bounds, self.counts.copy(), self.sum)


@define
class ListenerTotals:
    """
    The sessions of one listener that have ended.

    `ends` counts them by `CloseReason`.  `bytes`: to upstream, and to downstream.  `attempts`: how
    many servers were tried.  `fresh`: the sessions that are not counted yet.  `counted` is called
    with sessions once they are counted.
    """

    ends: dict[CloseReason, int] = field(factory=dict)
    bytes: tuple[int, int] = (0, 0)
    attempts: int = 0
    durations: Histogram = field(factory=lambda: Histogram(DURATIONS))
    connects: Histogram = field(factory=lambda: Histogram(LATENCIES))
    first_bytes: Histogram = field(factory=lambda: Histogram(LATENCIES))
    fresh: list[Ended] = field(factory=list)
    counted: Callable[[EndedSessions], None] | None = None

    @property
    def sessions(self) -> int:
        """How many sessions are counted."""
        return sum(self.ends.values())

    def ended(self, session: Ended) -> None:
        """Keep the facts of a session that has ended; after `BATCH` sessions, count them."""
        fresh = self.fresh
        fresh.append(session)
        if len(fresh) >= BATCH:
            self.count()

    def count(self) -> None:
        """Count the sessions that are kept, also on their servers."""
        if not self.fresh:
            return
        fresh, self.fresh = together(self.fresh), []
        reasons, servers = fresh.reasons, fresh.servers
        ups, downs = fresh.to_upstream, fresh.to_downstream
        up, down = sum(ups), sum(downs)
        self.bytes = self.bytes[0] + up, self.bytes[1] + down
        if _are_one(reasons):
            self._count_ends(reasons[0], len(reasons))
        else:
            # Sessions share the values of reasons, and the hash of a reason costs more than its
            # address.
            by_address = dict(zip(map(id, reasons), reasons, strict=True))
            for address, number in Counter(map(id, reasons)).items():
                self._count_ends(by_address[address], number)
        if _are_one(servers):
            servers, ups, downs = servers[:1], (up,), (down,)
        for server, sent, received in zip(servers, ups, downs, strict=True):
            if isinstance(server, PoolServer):
                server.bytes_to_upstream += sent
                server.bytes_to_downstream += received
        self.attempts += sum(fresh.attempts)
        self.durations.add(fresh.durations)
        self.connects.add(fresh.connects)
        self.first_bytes.add(fresh.first_bytes)
        if self.counted is not None:
            self.counted(fresh)

    def _count_ends(self, reason: CloseReason, number: int) -> None:
        self.ends[reason] = self.ends.get(reason, 0) + number

    def include(self, other: ListenerTotals) -> None:
        """Add what `other` has counted."""
        for reason, number in other.ends.items():
            self._count_ends(reason, number)
        self.bytes = self.bytes[0] + other.bytes[0], self.bytes[1] + other.bytes[1]
        self.attempts += other.attempts
        self.durations.include(other.durations)
        self.connects.include(other.connects)
        self.first_bytes.include(other.first_bytes)

    def copy(self) -> ListenerTotals:
        """Return totals that stay as these are now."""
        return ListenerTotals(
            dict(self.ends),
            self.bytes,
            self.attempts,
            self.durations.copy(),
            self.connects.copy(),
            self.first_bytes.copy(),
        )


def _are_one(values: Sequence[object]) -> bool:
    """Whether all `values` are the same, which is the common case."""
    return values.count(values[0]) == len(values)


class Tally:
    """
    Counts what happens to one service, from its beginning.

    It is also an observer of the events that are rare.

    `listeners`: the sessions that have ended, by the name of their listener.  `pauses` and
    `shortages`: the periods in which accepting was paused, and in which evproxy lacked something.
    `changes`: how often servers entered a state, by pool and state.  `exhausted` and
    `discovery_failures`: by pool.  `copies`: by pool and outcome.  `answers`: how the answers of
    two servers compared, by pool and verdict.
    """

    def __init__(self) -> None:
        self.listeners: dict[str, ListenerTotals] = {}
        self.pauses = 0
        self.shortages = 0
        self.changes: Counter[tuple[str, str]] = Counter()
        self.exhausted: Counter[str] = Counter()
        self.discovery_failures: Counter[str] = Counter()
        self.copies: Counter[tuple[str, str]] = Counter()
        self.answers: Counter[tuple[str, str]] = Counter()
        self._counted: Callable[[EndedSessions], None] | None = None

    def listener(self, name: str) -> ListenerTotals:
        """The totals of the listener called `name`, from its beginning."""
        totals = self.listeners.setdefault(name, ListenerTotals())
        totals.counted = self._counted
        return totals

    def tell(self, counted: Callable[[EndedSessions], None]) -> None:
        """From now on, call `counted` with the sessions that have ended, many at a time."""
        self._counted = counted
        for totals in self.listeners.values():
            totals.counted = counted

    def count(self) -> None:
        """Count every session that has ended by now."""
        for totals in self.listeners.values():
            totals.count()

    def include_events(self, other: Tally) -> None:
        """Add the events that `other` has counted, without its listeners."""
        self.pauses += other.pauses
        self.shortages += other.shortages
        self.changes.update(other.changes)
        self.exhausted.update(other.exhausted)
        self.discovery_failures.update(other.discovery_failures)
        self.copies.update(other.copies)
        self.answers.update(other.answers)

    def events(self) -> Tally:
        """Return a tally of the events so far, without listeners, which stays as it is."""
        copy = Tally()
        copy.include_events(self)
        return copy

    def accepting_paused(self, why: str) -> None:
        self.pauses += 1

    def pressure_began(self, what: str, remedy: str) -> None:
        self.shortages += 1

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        self.changes[pool, state] += 1

    def mirror_ended(self, record: MirrorRecord) -> None:
        self.copies[record.pool, record.outcome] += 1
        if record.answers:
            self.answers[record.pool, record.answers] += 1

    def pool_exhausted(self, pool: str, why: str) -> None:
        self.exhausted[pool] += 1

    def discovery_failed(self, pool: str, why: str) -> None:
        self.discovery_failures[pool] += 1
