"""
The server with the fewest sessions for its weight.

A heap ordered by sessions / weight makes a pick O(log n).  Entries are not moved when a
load changes: a new one is pushed and the old one is known by its number to be stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace

from attrs import define

from evproxy.model import ConnectionInfo
from evproxy.policy.balance.candidate import Candidate, weighted

_STALE_ENTRIES = 64
"""How many stale entries more than servers there may be before the heap is made anew."""


@define(slots=True, eq=False)
class _Standing:
    """A server: `turn` grows by 1 / weight with each pick, `entry` numbers its valid entry."""

    server: Candidate
    weight: float
    turn: float
    entry: int = 0


class LeastSessions:
    """
    Picks the least of sessions / weight; equals take turns by their weights.

    Told of every change by `load_changed`.  A server that has got more sessions without
    that is found out when its turn comes; one that has got fewer is not.
    """

    def __init__(self) -> None:
        self._standings: dict[int, _Standing] = {}
        self._heap: list[tuple[float, float, int, _Standing]] = []
        self._turn = 0.0
        self._entries = 0

    def update(self, servers: Sequence[Candidate]) -> None:
        """Take `servers`, with their loads and weights of now."""
        old = self._standings
        self._standings = {
            id(server): _Standing(server, server.weight, self._turn_of(server, old.get(id(server))))
            for server in weighted(servers)
        }
        self._order()

    def load_changed(self, server: Candidate) -> None:
        """`server.sessions` is not what it was."""
        standing = self._standings.get(id(server))
        if standing is not None:
            heappush(self._heap, self._entry(standing))
            if len(self._heap) > 2 * len(self._standings) + _STALE_ENTRIES:
                self._order()

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        """The least loaded server, then the others by their load."""
        if not self._standings:
            return
        first = self._pick()
        yield first
        others = [
            (standing.server.sessions / standing.weight, standing.turn, number, standing.server)
            for number, standing in enumerate(self._standings.values())
            if standing.server is not first
        ]
        heapify(others)
        while others:
            yield heappop(others)[3]

    def _pick(self) -> Candidate:
        heap = self._heap
        while True:
            load, turn, number, standing = heap[0]
            if number != standing.entry:
                heappop(heap)
            elif standing.server.sessions / standing.weight > load:
                heapreplace(heap, self._entry(standing))
            else:
                break
        # A server that stood aside while it was loaded does not make up for it when idle.
        self._turn = max(self._turn, turn)
        standing.turn = self._turn + 1 / standing.weight
        heapreplace(heap, self._entry(standing))
        return standing.server

    def _turn_of(self, server: Candidate, before: _Standing | None) -> float:
        """When it is the turn of `server`, which had the weight of `before`."""
        if before is None:
            return self._turn
        # What is left to wait of 1 / weight shrinks as the weight grows.
        return self._turn + (before.turn - self._turn) * before.weight / server.weight

    def _entry(self, standing: _Standing) -> tuple[float, float, int, _Standing]:
        self._entries = standing.entry = self._entries + 1
        load = standing.server.sessions / standing.weight
        return load, standing.turn, standing.entry, standing

    def _order(self) -> None:
        self._heap = [self._entry(standing) for standing in self._standings.values()]
        heapify(self._heap)
