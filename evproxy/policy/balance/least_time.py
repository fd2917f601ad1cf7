"""
The server that is likely to answer soonest, by a peak EWMA of its connect time.

The cost of a server is connect time x (sessions + 1) / weight, as in Finagle's
``PeakEwma`` load metric (twitter/finagle).  The average rises to a peak at once and decays
with time, so a slow server gets another chance later.  A failed connect must count as a slow
one: otherwise a dead server would keep the time of its last success and stay the fastest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from evproxy.model import ConnectionInfo
from evproxy.policy.balance.candidate import Candidate, rest, weighted

SAMPLE = 8
"""A pick compares at most this many servers: all of them, or a random sample per session."""


class LeastTime:
    """
    Picks the server with the least cost; the module docstring defines the cost.

    A server whose connect time is unknown counts as fast as the fastest server in the sample.
    So the policy tries this server, but does not send all new sessions to it at once.

    :param random: draws the sample when there are more than `SAMPLE` servers, and breaks ties.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._servers: list[Candidate] = []

    def update(self, servers: Sequence[Candidate]) -> None:
        """Balance over `servers`."""
        self._servers = weighted(servers)

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        """Yield the sample in order of cost, then the other servers from a random index on."""
        servers, chance = self._servers, self._random.random
        if len(servers) < 2:
            yield from servers
            return
        seen = [
            (server.connect_time, chance(), server)
            for server in (
                servers if len(servers) <= SAMPLE else self._random.sample(servers, SAMPLE)
            )
        ]
        fastest = min((time for time, _, _ in seen if time > 0), default=1.0)
        costs = sorted(
            ((time or fastest) * (server.sessions + 1) / server.weight, tie, server)
            for time, tie, server in seen
        )
        for _, _, server in costs:
            yield server
        if len(seen) < len(servers):
            start = int(chance() * len(servers))
            yield from rest(servers, start, {id(server) for _, _, server in seen})
