"""
What the policies read of an upstream server, and what they may offer beyond the
contract of a balancer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from evproxy.model import UpstreamServer


class Candidate(Protocol):
    """What a balancer sees of an upstream server: who it is and how loaded it is."""

    @property
    def spec(self) -> UpstreamServer:
        """Who it is, as configured or discovered; `spec.weight` is not what to balance by."""

    @property
    def weight(self) -> float:
        """Its effective weight now: 0 while draining, growing during slow start."""

    @property
    def sessions(self) -> int:
        """How many sessions hold a slot on it."""

    @property
    def connect_time(self) -> float:
        """A decaying peak average (EWMA) of its connect times, in seconds; 0 if unknown."""


@runtime_checkable
class LoadAware(Protocol):
    """A balancer that keeps an order by load and so must hear when a load changes."""

    def load_changed(self, server: Candidate) -> None:
        """`server.sessions` is not what it was."""


@runtime_checkable
class Incremental(Protocol):
    """A balancer whose `update` leaves work that would take too long to do at once."""

    def advance(self) -> bool:
        """Do a slice of that work, well under a millisecond; whether some is left."""


C = TypeVar("C", bound=Candidate)


def weighted(servers: Sequence[C]) -> list[C]:
    """Those of `servers` that may be given a share at all."""
    return [server for server in servers if server.weight > 0]


def rest(servers: Sequence[C], start: int, seen: set[int]) -> Iterator[C]:
    """All of `servers` once around from the index `start` on, but those whose `id` is `seen`."""
    for index in range(start, start + len(servers)):
        server = servers[index % len(servers)]
        if id(server) not in seen:
            yield server
