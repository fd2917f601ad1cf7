"""
The power of two choices: the less loaded of two servers drawn at random.

Source: M. Mitzenmacher, "The power of two choices in randomized load balancing", IEEE
TPDS 12 (2001).  The draw respects the weights, by Walker's alias method as in
M. Vose, "A linear algorithm for generating random numbers with a given distribution",
IEEE TSE 17 (1991): O(n) to prepare, one random number and O(1) for a draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from evproxy.model import ConnectionInfo
from evproxy.policy.balance.candidate import Candidate, rest, weighted

_REDRAWS = 3
"""How often the second draw is repeated if it gives the first server again."""


class AliasTable:
    """
    Draws an index of `weights` with a probability in proportion to the weight.

    :param weights: at least one weight, all greater than zero.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        count = len(weights)
        total = sum(weights)
        scaled = [weight * count / total for weight in weights]
        self._keep = [1.0] * count
        self._alias = list(range(count))
        small = [index for index, share in enumerate(scaled) if share < 1]
        large = [index for index, share in enumerate(scaled) if share >= 1]
        while small and large:
            poor, rich = small.pop(), large[-1]
            self._keep[poor] = scaled[poor]
            self._alias[poor] = rich
            scaled[rich] -= 1 - scaled[poor]
            if scaled[rich] < 1:
                small.append(large.pop())

    def draw(self, chance: float) -> int:
        """The index for `chance`, a uniform random number from 0 to below 1."""
        place = chance * len(self._keep)
        index = int(place)
        return index if place - index < self._keep[index] else self._alias[index]


class RandomTwo:
    """
    Draws two different servers by weight and picks the one with less sessions / weight.

    :param random: the random source of the draws.
    """

    def __init__(self, random: Random) -> None:
        self._chance = random.random
        self._servers: list[Candidate] = []
        self._table = AliasTable([1.0])

    def update(self, servers: Sequence[Candidate]) -> None:
        """Balance over `servers`."""
        self._servers = weighted(servers)
        if self._servers:
            self._table = AliasTable([server.weight for server in self._servers])

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        """Yield the better of the two, the other, then the rest from a random index on."""
        servers = self._servers
        if len(servers) < 2:
            yield from servers
            return
        first, second = self._draw_two()
        # The first server wins a tie: the draw already favours the heavier server.
        if second.sessions * first.weight < first.sessions * second.weight:
            first, second = second, first
        yield first
        yield second
        start = int(self._chance() * len(servers))
        yield from rest(servers, start, {id(first), id(second)})

    def _draw_two(self) -> tuple[Candidate, Candidate]:
        servers, draw, chance = self._servers, self._table.draw, self._chance
        first = draw(chance())
        for _ in range(_REDRAWS):
            second = draw(chance())
            if second != first:
                return servers[first], servers[second]
        return servers[first], servers[(first + 1) % len(servers)]
