"""
Smooth weighted round-robin.

Servers of equal weight form a share and take turns in it.  Among the eligible shares, the one
with the earliest deadline is next: if a share is due the part r of all picks, its k-th turn
belongs between the picks (k - 1) / r and k / r.  So a share is never a whole turn ahead or
behind, and the picks of one server are spread evenly.
Source: R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980).

A pick is O(log of the number of distinct weights), which is O(1) in the number of servers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from attrs import define

from evproxy.model import ConnectionInfo
from evproxy.policy.balance.candidate import Candidate, rest, weighted


@define(slots=True, eq=False)
class _Share:
    """The servers of one weight.  They are due `part` of all picks; `done` counts their picks."""

    rank: int
    weight: float
    servers: list[Candidate]
    part: float
    done: float
    turn: int = 0

    def in_order_of_turns(self) -> list[Candidate]:
        return self.servers[self.turn :] + self.servers[: self.turn]

    def take_turn(self) -> Candidate:
        server = self.servers[self.turn]
        self.turn += 1
        if self.turn == len(self.servers):
            self.turn = 0
        self.done += 1
        return server


class RoundRobin:
    """
    Picks each server in turn, in proportion to its weight; see the module docstring.

    Failover uses up the next turns, as long as they give new servers.  So the sessions that
    one server cannot take spread over the others by weight.
    """

    def __init__(self) -> None:
        self._servers: list[Candidate] = []
        self._shares: list[_Share] = []
        self._picks = 0
        self._eligible: list[tuple[float, int, _Share]] = []
        self._early: list[tuple[float, int, _Share]] = []
        self._spare = 0

    def update(self, servers: Sequence[Candidate]) -> None:
        """Balance over `servers`.  Servers that were there before keep their place in the turn."""
        waited = {
            server.spec.name: place
            for share in self._shares
            for place, server in enumerate(share.in_order_of_turns())
        }
        owed = {share.weight: self._picks * share.part - share.done for share in self._shares}
        self._servers = weighted(servers)
        by_weight: dict[float, list[Candidate]] = {}
        for server in sorted(self._servers, key=lambda each: waited.get(each.spec.name, -1)):
            by_weight.setdefault(server.weight, []).append(server)
        total = sum(weight * len(group) for weight, group in by_weight.items())
        self._shares = [
            _Share(rank, weight, group, weight * len(group) / total, -owed.get(weight, 0.0))
            for rank, (weight, group) in enumerate(sorted(by_weight.items(), reverse=True))
        ]
        self._picks = 0
        self._eligible = []
        self._early = [(share.done / share.part, share.rank, share) for share in self._shares]
        self._early.sort()

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        """Yield the server whose turn it is, then every other server once."""
        if not self._servers:
            return
        server = self._take(self._next_share())
        yield server
        seen = {id(server)}
        while self._servers:
            share = self._next_share()
            server = share.servers[share.turn]
            if id(server) in seen:
                break
            self._take(share)
            seen.add(id(server))
            yield server
        self._spare += 1
        yield from rest(self._servers, self._spare, seen)

    def _next_share(self) -> _Share:
        if len(self._shares) == 1:
            return self._shares[0]
        early, eligible = self._early, self._eligible
        after = self._picks + 1
        # No share is eligible only if an update removed a share that was behind.
        while early and (early[0][0] < after or not eligible):
            _, rank, share = heappop(early)
            heappush(eligible, ((share.done + 1) / share.part, rank, share))
        return eligible[0][2]

    def _take(self, share: _Share) -> Candidate:
        self._picks += 1
        server = share.take_turn()
        if len(self._shares) > 1:
            heappop(self._eligible)
            heappush(self._early, (share.done / share.part, share.rank, share))
        return server
