"""
The server with the fewest sessions for its weight.

A heap ordered by sessions / weight makes a pick O(log n).  When a load changes, the old heap
entry stays and a new entry is pushed; the entry's number shows that the old one is stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace

from attrs import define

from evproxy.model import ConnectionInfo
from evproxy.policy.balance.candidate import Candidate, weighted

_STALE_ENTRIES = 64
"""The heap is rebuilt when stale entries outnumber the servers by more than this."""


@define(slots=True, eq=False)
class _Standing:
    """A server.  `turn` grows by 1 / weight with each pick; `entry` is its valid heap entry."""

    server: Candidate
    weight: float
    turn: float
    entry: int = 0


class LeastSessions:
    """
    Picks the server with the least sessions / weight; equal servers take turns by weight.

    The pool calls `load_changed` on every change.  Without that call, a pick still notices a
    server that has more sessions than its heap entry says, but not one that has fewer.
    """

    def __init__(self) -> None:
        self._standings: dict[int, _Standing] = {}
        self._heap: list[tuple[float, float, int, _Standing]] = []
        self._turn = 0.0
        self._entries = 0

    def update(self, servers: Sequence[Candidate]) -> None:
        """Balance over `servers`, with their loads and weights as they are now."""
        old = self._standings
        self._standings = {
            id(server): _Standing(server, server.weight, self._turn_of(server, old.get(id(server))))
            for server in weighted(servers)
        }
        self._order()

    def load_changed(self, server: Candidate) -> None:
        """`server.sessions` has changed."""
        standing = self._standings.get(id(server))
        if standing is not None:
            heappush(self._heap, self._entry(standing))
            if len(self._heap) > 2 * len(self._standings) + _STALE_ENTRIES:
                self._order()

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        """Yield the least loaded server, then the others in order of load."""
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
        # A server that got no turns while it was loaded does not get them back when idle.
        self._turn = max(self._turn, turn)
        standing.turn = self._turn + 1 / standing.weight
        heapreplace(heap, self._entry(standing))
        return standing.server

    def _turn_of(self, server: Candidate, before: _Standing | None) -> float:
        """The turn of `server`, which had the turn and the weight of `before`."""
        if before is None:
            return self._turn
        # The remaining wait, a part of 1 / weight, shrinks as the weight grows.
        return self._turn + (before.turn - self._turn) * before.weight / server.weight

    def _entry(self, standing: _Standing) -> tuple[float, float, int, _Standing]:
        self._entries = standing.entry = self._entries + 1
        load = standing.server.sessions / standing.weight
        return load, standing.turn, standing.entry, standing

    def _order(self) -> None:
        self._heap = [self._entry(standing) for standing in self._standings.values()]
        heapify(self._heap)
