"""
The changes of servers in all workers, as changes of the whole: what all workers notice counts once.

Pure.
"""

from __future__ import annotations

from collections import Counter

from attrs import define, field

STATES = ("up", "ejected", "down", "draining", "removed")
"""The state of a server in all workers: the first one that it has in one of them."""

MOST_KNOWN = 65_536
"""The most servers whose states are remembered; the one that was seen first is forgotten first."""


@define
class _Server:
    """
    A server in all workers: its state as a whole, and in each worker, by number.

    ``None``: not known, as its process has died.
    """

    whole: str
    states: dict[int, str | None] = field(factory=dict)


class ServerChanges:
    """
    Counts the changes of servers.

    :param workers: how many workers there are.

    `counts`: how often servers entered a state, by pool and state; ``added`` is one, too.
    """

    def __init__(self, workers: int) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._workers = workers
        self._servers: dict[tuple[str, str], _Server] = {}

    def changed(self, worker: int, pool: str, server: str, state: str) -> None:
        """`server` has entered `state` in `worker`, which is a number from 0 on."""
        key = pool, server
        found = self._servers.get(key)
        if found is None:
            # A server that is not mentioned is up, in every worker.
            states: dict[int, str | None] = dict.fromkeys(range(self._workers), "up")
            found = self._servers[key] = _Server("up", states)
            if state == "added":
                self.counts[pool, "added"] += 1
            if len(self._servers) > MOST_KNOWN:
                del self._servers[next(iter(self._servers))]
        found.states[worker] = "up" if state == "added" else state
        known = [STATES.index(each) for each in found.states.values() if each is not None]
        whole = STATES[min(known)]
        if whole != found.whole:
            found.whole = whole
            self.counts[pool, whole] += 1
        if whole == "removed":
            del self._servers[key]

    def died(self, worker: int) -> None:
        """The process of `worker` has ended; the next one tells what is not up."""
        for server in self._servers.values():
            if server.states[worker] != "up":
                server.states[worker] = None
