"""A stream of requests: when each is due, fixed before the first one is sent."""

from __future__ import annotations

import random

from attrs import frozen

from .worker import LOOPBACK

SEED = 12


@frozen
class Stream:
    """
    Requests of one kind.

    `name`: for the result.  `path`: of each request.  `rate`: requests a second, at random
    (Poisson), the same ones for the same seed, or evenly if `even`.  `burst`: so many at once.
    `seconds`: for how long.  `host`: the address of the clients.  `kept`: on so many connections
    that stay, instead of a new connection for each.
    """

    name: str
    path: str = "/"
    rate: float = 0.0
    seconds: float = 1.0
    burst: int = 0
    host: str = LOOPBACK
    kept: int = 0
    even: bool = False

    def times(self) -> list[float]:
        """When its requests are due, in seconds from the start."""
        found = [0.0] * self.burst
        chance, now = random.Random(SEED), 0.0
        while self.rate:
            now += 1 / self.rate if self.even else chance.expovariate(self.rate)
            if now >= self.seconds:
                break
            found.append(now)
        return found
