"""
The live sessions in numbers: what the tally does not know of yet.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from attrs import define, field

from evproxy.session.session import Session

K = TypeVar("K")

ServerKey = tuple[str, str]
"""The names of a pool and of one of its servers."""


@define
class LiveTotals:
    """
    Adds up sessions, one by one, so that work on many can be done in slices.

    `phases` counts them by listener and phase.  `listener_bytes` and `server_bytes` are the bytes
    to upstream and to downstream.  `kept`: how many bytes evproxy keeps.
    """

    phases: Counter[tuple[str, str]] = field(factory=Counter)
    listener_bytes: dict[str, list[int]] = field(factory=dict)
    server_bytes: dict[ServerKey, list[int]] = field(factory=dict)
    kept: int = 0

    def include(self, other: LiveTotals) -> None:
        """Add the sessions of `other`, without the bytes of servers."""
        self.phases.update(other.phases)
        self.kept += other.kept
        for listener, (up, down) in other.listener_bytes.items():
            _add(self.listener_bytes, listener, up, down)

    def include_server(self, key: ServerKey, up: int, down: int) -> None:
        """Add the bytes of sessions on one server."""
        _add(self.server_bytes, key, up, down)

    def add(self, session: Session) -> None:
        """Count `session`, which is not over."""
        listener, relay = session.info.listener, session.relay
        self.phases[listener, session.phase.value] += 1
        self.kept += session.kept
        if relay is None:
            return
        up, down, _ = relay.totals()
        _add(self.listener_bytes, listener, up, down)
        if session.server is not None:
            _add(self.server_bytes, (session.pool_name, session.server.name), up, down)


def _add(sums: dict[K, list[int]], key: K, up: int, down: int) -> None:
    known = sums.get(key)
    if known is None:
        sums[key] = [up, down]
    else:
        known[0] += up
        known[1] += down
