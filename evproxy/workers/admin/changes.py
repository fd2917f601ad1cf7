"""
The changes that operators have made to servers: a worker that is replaced gets them again.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from evproxy.config.canonical import server_name
from evproxy.model import UpstreamServer
from evproxy.settings import Settings
from evproxy.workers.messages import Operate

MOST_CHANGES = 10_000
"""The most changes that are kept; the oldest one is forgotten first."""

_OPPOSITES = {"drain_server": "resume_server", "resume_server": "drain_server"}


class MadeChanges:
    """The changes made so far, in their order, without those that later ones undo."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str, str], Operate] = {}

    def __iter__(self) -> Iterator[Operate]:
        return iter(tuple(self._made.values()))

    def add(self, change: Operate) -> None:
        """`change` has been made."""
        pool = change.places["pool"]
        name = change.body.name if change.name == "add_server" else change.places["server"]
        name = server_name(name)
        kinds: tuple[str, ...] = (change.name, _OPPOSITES.get(change.name, ""))
        if change.name in ("add_server", "remove_server"):
            # What was done to the server before is done for.
            kinds = ("drain_server", "resume_server", "weigh_server", "remove_server")
        if change.name == "remove_server":
            kinds = (*kinds, "add_server")
        for kind in kinds:
            self._made.pop((pool, name, kind), None)
        self._made[pool, name, change.name] = change
        if len(self._made) > MOST_CHANGES:
            del self._made[next(iter(self._made))]

    def reloaded(self, before: Settings, after: Settings) -> None:
        """
        A reload has changed the settings: forget what it has undone in the workers.

        As in `evproxy.upstream.pool.reloading`: a server that was removed is back if the settings
        list it; one that they list no longer is gone; and one that they change has their weight.
        """
        old, new = _servers(before), _servers(after)
        for key in tuple(self._made):
            pool, name, kind = key
            if pool not in new:
                self._made.pop(key)
                continue
            listed, was = new[pool].get(name), old.get(pool, {}).get(name)
            removed = (pool, name, "remove_server") in self._made
            if listed is None:
                undone = was is not None
            else:
                undone = removed or (kind == "weigh_server" and listed != was)
            if undone:
                self._made.pop(key)


def _servers(settings: Settings) -> dict[str, dict[str, UpstreamServer]]:
    """The servers by their name, for each pool."""
    return {pool.name: {each.name: each for each in pool.upstreams} for pool in settings.pools}
