"""
The limits of a proxy, shared out among its workers: the parts of a limit add up to the limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from attrs import evolve

from evproxy.config.problems import Path, Problem
from evproxy.model import UpstreamServer
from evproxy.settings import ListenerSettings, Mirror, PoolSettings, Settings

OF_ALL = ("max_sessions",)
"""The fields of `Settings` that are shared out."""

OF_LISTENER = (
    "max_sessions",
    "max_sessions_per_peer",
    "new_sessions_per_second",
    "new_sessions_per_second_per_peer",
    "bytes_per_second",
    "bytes_per_second_per_peer",
)
"""The fields of `ListenerSettings` that are shared out."""

OF_POOL = ("queue_size",)
"""The fields of `PoolSettings` that are shared out; a part may be 0, which means 0 here."""

OF_SERVER = ("max_sessions",)
"""The fields of `UpstreamServer` that are shared out."""

T = TypeVar("T", Settings, ListenerSettings, PoolSettings, UpstreamServer)


def whole_part(limit: int, worker: int, workers: int) -> int:
    """The part of `limit` that `worker` has, counted from 0: the first ones have the rest."""
    return limit // workers + (worker < limit % workers)


def part(limit: float, worker: int, workers: int) -> float:
    """The same for a rate, which need not be a whole number."""
    if limit >= workers and limit == int(limit):
        return float(whole_part(int(limit), worker, workers))
    each = limit / workers
    return limit - each * (workers - 1) if worker == workers - 1 else each


def share(settings: Settings, worker: int, workers: int) -> Settings:
    """
    Return the settings of one worker.

    :param settings: without `sharing_problems`.
    :param worker: its number, from 0 on.
    :param workers: how many there are.
    """
    return evolve(
        _share(settings, OF_ALL, worker, workers),
        listeners=tuple(_share(each, OF_LISTENER, worker, workers) for each in settings.listeners),
        pools=tuple(
            evolve(
                _share(pool, OF_POOL, worker, workers),
                mirror=None if pool.mirror is None else _share_mirror(pool.mirror, worker, workers),
                upstreams=tuple(
                    _share(each, OF_SERVER, worker, workers) for each in pool.upstreams
                ),
            )
            for pool in settings.pools
        ),
    )


def share_discovered(server: UpstreamServer, worker: int, workers: int) -> UpstreamServer:
    """
    Return `server`, which discovery has found, with the part of its bound that one worker has.

    A bound below the number of workers gives each worker one session: nobody can be told.
    """
    if not server.max_sessions:
        return server
    return evolve(server, max_sessions=max(1, whole_part(server.max_sessions, worker, workers)))


def _share_mirror(mirror: Mirror, worker: int, workers: int) -> Mirror:
    return evolve(mirror, max_copies=max(1, whole_part(mirror.max_copies, worker, workers)))


def _share(value: T, fields: Sequence[str], worker: int, workers: int) -> T:
    parts: dict[str, Any] = {}
    for name in fields:
        limit = getattr(value, name)
        shared = part if isinstance(limit, float) else whole_part
        parts[name] = shared(limit, worker, workers)
    return evolve(value, **parts)


def sharing_problems(settings: Settings, workers: int) -> Iterator[Problem]:
    """A `Problem` for each limit that gives some worker nothing, since 0 would mean no limit."""
    yield from _too_small((), settings, OF_ALL, workers)
    for index, listener in enumerate(settings.listeners):
        yield from _too_small(("listeners", index), listener, OF_LISTENER, workers)
    for pool in settings.pools:
        for index, server in enumerate(pool.upstreams):
            path = ("pools", pool.name, "upstreams", index)
            yield from _too_small(path, server, OF_SERVER, workers)


def _too_small(path: Path, value: object, fields: Sequence[str], workers: int) -> Iterator[Problem]:
    for name in fields:
        limit = getattr(value, name)
        if isinstance(limit, int) and 0 < limit < workers:
            yield Problem(
                (*path, name),
                f"expected at least the number of workers, {workers}, which share it, got {limit}",
            )
