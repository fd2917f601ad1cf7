"""
The pools of a proxy, and how the admin interface finds them and their servers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from evproxy.admin.answers import Problem
from evproxy.admin.contract import Administered
from evproxy.admin.fields import TEXT, WHOLE, of_object
from evproxy.config.canonical import server_name
from evproxy.config.problems import quoted
from evproxy.config.reading import Schema
from evproxy.engine.slices import in_slices
from evproxy.upstream.pool.running_pool import RunningPool
from evproxy.upstream.pool.server import PoolServer
from evproxy.upstream.pool.status import STATES, PoolStatus, ServerStatus

POOL: Schema = of_object(
    {
        "name": TEXT,
        "servers": of_object(dict.fromkeys(STATES, WHOLE)),
        "sessions": WHOLE,
        "waiting": WHOLE,
    }
)
"""What `shown_pool` returns."""


def own_pools(proxy: Administered) -> dict[str, RunningPool]:
    """
    Return the pools of `proxy` that are evproxy's, not objects of the program, by name.

    A reload changes the pools of the proxy, but not what this returns.
    """
    pools: dict[str, Any] = dict(proxy.pools)
    return {name: pool for name, pool in pools.items() if isinstance(pool, RunningPool)}


def pool_named(proxy: Administered, name: str) -> RunningPool:
    """
    Return the pool called `name`.

    :raises Problem: if there is none, or if it is an object of the program's own.
    """
    if name not in proxy.pools:
        raise Problem(404, f"there is no pool {quoted(name)}")
    try:
        return own_pools(proxy)[name]
    except KeyError:
        raise Problem(
            409, f"pool {quoted(name)} is an object of the program, not an evproxy.Pool"
        ) from None


def no_server(pool: RunningPool, name: str) -> Problem:
    """The problem that `pool` has no server called `name`."""
    return Problem(404, f"there is no server {quoted(name)} in pool {quoted(pool.name)}")


def server_or_leaving(pool: RunningPool, name: str) -> PoolServer | None:
    """
    Return the server of `pool` called `name`, in any spelling; ``None`` if there is none.

    A server that has left the pool counts as long as it has sessions.
    """
    try:
        return pool.server_named(name)
    except LookupError:
        names = (name, server_name(name))
        return next((each for each in pool.leaving() if each.name in names), None)


class PoolShown:
    """
    Makes the object that shows a pool: its servers by state, and its sessions.

    :param name: that of the pool.
    :param waiting: how many sessions are in its queue.
    """

    def __init__(self, name: str, waiting: int) -> None:
        self._name = name
        self._waiting = waiting
        self._states: Counter[str] = Counter(dict.fromkeys(STATES, 0))
        self._sessions = 0

    def count(self, server: ServerStatus) -> None:
        """A server of the pool passes by."""
        self._states[server.state] += 1
        self._sessions += server.sessions

    def shown(self) -> dict[str, Any]:
        """The object."""
        return {
            "name": self._name,
            "servers": dict(self._states),
            "sessions": self._sessions,
            "waiting": self._waiting,
        }


async def shown_pool(
    reactor: Any,
    status: PoolStatus,
    pool: RunningPool | None,
    look: Callable[[ServerStatus], object] = lambda server: None,
) -> dict[str, Any]:
    """
    Return the object that shows a pool.

    :param status: that of the pool, without its servers.
    :param pool: the pool; ``None``: it is an object of the program's own.
    :param look: is called with each server on the way.
    """
    made = PoolShown(status.name, status.waiting)

    def count(server: ServerStatus) -> None:
        made.count(server)
        look(server)

    if pool is not None:
        await in_slices(reactor, pool.each_server(), count)
    return made.shown()
