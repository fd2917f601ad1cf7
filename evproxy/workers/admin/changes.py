"""
The changes that operators have made to servers: a worker that is replaced gets them again.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from evproxy.config.canonical import server_name
from evproxy.model import UpstreamServer
from evproxy.settings import Settings
from evproxy.workers.messages import Operate

MOST_CHANGES = 10_000
"""The most changes that are kept; the oldest one is forgotten first."""

Key = tuple[str, str, str]
"""A pool, a server, and the name of an operation."""

Replaced = Mapping[Key, Operate]

# What a reload undoes that changes the server in the settings.
_OTHERWISE = ("add_server", "remove_server", "weigh_server")

# In the order in which they take effect.
_ALL = ("remove_server", "add_server", "drain_server", "resume_server", "weigh_server")

_OPPOSITES = {"drain_server": "resume_server", "resume_server": "drain_server"}


class MadeChanges:
    """The changes made so far, in their order, without those that later ones undo."""

    def __init__(self) -> None:
        self._made: dict[Key, Operate] = {}

    def __iter__(self) -> Iterator[Operate]:
        return iter(tuple(self._made.values()))

    def add(self, change: Operate) -> Replaced:
        """`change` is made from now on; return what it replaces."""
        pool, name, own = key = _key(change)
        # What was done to a server before it is added or removed is done for.
        kinds = _ALL if own in ("add_server", "remove_server") else (own, _OPPOSITES.get(own, ""))
        replaced = {
            each: self._made.pop(each)
            for each in [(pool, name, kind) for kind in kinds]
            if each in self._made
        }
        removal = pool, name, "remove_server"
        if own == "add_server" and removal in replaced:
            # The settings of a new process may list the server, otherwise than it is added.
            self._made[removal] = replaced[removal]
        self._made[key] = change
        if len(self._made) > MOST_CHANGES:
            del self._made[next(iter(self._made))]
        return replaced

    def take_back(self, change: Operate, replaced: Replaced) -> None:
        """`change` has not been made after all: what it has `replaced` is made again."""
        key = _key(change)
        if self._made.get(key) is change:
            del self._made[key]
            later = {
                each: self._made.pop(each) for each in tuple(self._made) if each[:2] == key[:2]
            }
            self._made.update({**replaced, **later})

    def forget(self, pool: str, name: str) -> None:
        """Forget what was done to the server called `name`: discovery has brought it back."""
        for kind in _ALL:
            self._made.pop((pool, name, kind), None)

    def reloaded(self, before: Settings, after: Settings) -> None:
        """
        A reload has changed the settings: forget what it has undone in the workers.

        As in `evproxy.upstream.pool.reloading`: a server that the settings change is in the pool,
        with their weight, and one that they list no longer is gone.
        """
        old, new = _servers(before), _servers(after)
        for key in tuple(self._made):
            pool, name, kind = key
            if pool not in new:
                self._made.pop(key)
                continue
            listed, was = new[pool].get(name), old.get(pool, {}).get(name)
            if listed != was and (listed is None or kind in _OTHERWISE):
                self._made.pop(key)


def _key(change: Operate) -> Key:
    name = change.body.name if change.name == "add_server" else change.places["server"]
    return change.places["pool"], server_name(name), change.name


def _servers(settings: Settings) -> dict[str, dict[str, UpstreamServer]]:
    """The servers by their name, for each pool."""
    return {pool.name: {each.name: each for each in pool.upstreams} for pool in settings.pools}
