"""
The server that is likely to answer soonest, by a peak EWMA of its connect time.

The cost of a server is connect time x (sessions + 1) / weight, as in Finagle's
``PeakEwma`` load metric (twitter/finagle).  The average rises to a peak at once and decays
with time, so a server that was slow is tried again later.  One that could not be connected
has to count as slow too: by its own last success it would stay the fastest for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from evproxy.model import ConnectionInfo
from evproxy.policy.balance.candidate import Candidate, rest, weighted

SAMPLE = 8
"""Up to so many servers are all looked at; of more, so many random ones for each session."""


class LeastTime:
    """
    Picks the least cost; see the module.

    A server whose connect time is not known yet counts as fast as the fastest of those
    that are looked at, so that it is tried, but not by all new sessions at once.

    :param random: which servers are looked at, where there are more than `SAMPLE`, and
        which of equals is picked.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._servers: list[Candidate] = []

    def update(self, servers: Sequence[Candidate]) -> None:
        """Take `servers`."""
        self._servers = weighted(servers)

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        """The servers looked at, by their cost, then the rest from a random place on."""
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
