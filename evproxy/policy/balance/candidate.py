"""
What a balancer is, and an upstream server as a balancer sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from evproxy.model import ConnectionInfo, UpstreamServer


class Candidate(Protocol):
    """An upstream server as a balancer sees it: its address, its weight and its load."""

    @property
    def spec(self) -> UpstreamServer:
        """The server as configured or discovered.  Balance by `weight`, not by `spec.weight`."""

    @property
    def weight(self) -> float:
        """The effective weight now: 0 while the server drains; it grows during slow start."""

    @property
    def sessions(self) -> int:
        """How many sessions hold a slot on the server."""

    @property
    def connect_time(self) -> float:
        """A decaying peak average (EWMA) of the connect times, in seconds; 0 if unknown."""


class Balancer(Protocol):
    """Orders the servers of a pool for each new session.  Pure: no I/O, no clock."""

    def update(self, servers: Sequence[Candidate]) -> None:
        """The servers to choose from, or their weights, have changed."""

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        """
        Return the servers of the last `update` in the order to try them, none twice.

        If the client may use only some of the servers, or none, return only those.  The pool calls
        this for each session, and again before the session waits, to find out whether any server
        can take it.
        """


@runtime_checkable
class LoadAware(Protocol):
    """A balancer that orders servers by load, so the pool notifies it when a load changes."""

    def load_changed(self, server: Candidate) -> None:
        """`server.sessions` has changed."""


@runtime_checkable
class Incremental(Protocol):
    """A balancer whose `update` starts work that takes too long to do at once."""

    def advance(self) -> bool:
        """Do a slice of the work, well under a millisecond.  ``True`` if work remains."""


C = TypeVar("C", bound=Candidate)


def weighted(servers: Sequence[C]) -> list[C]:
    """Those of `servers` whose weight is not 0."""
    return [server for server in servers if server.weight > 0]


def rest(servers: Sequence[C], start: int, seen: set[int]) -> Iterator[C]:
    """Yield `servers` from the index `start` on, wrapping, without those whose `id` is `seen`."""
    for index in range(start, start + len(servers)):
        server = servers[index % len(servers)]
        if id(server) not in seen:
            yield server
