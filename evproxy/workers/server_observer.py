"""The part of a `PoolObserver` that observers of servers in a worker share: they need no more."""

from __future__ import annotations


class ServerObserver:
    """The methods of `evproxy.observers.PoolObserver` that have nothing to do, beside
    ``server_changed``."""

    def pool_exhausted(self, pool: str, why: str) -> None:
        """The numbers of the worker have it."""

    def discovery_failed(self, pool: str, why: str) -> None:
        """So they have this."""

    def discovery_recovered(self, pool: str) -> None:
        """And this."""
