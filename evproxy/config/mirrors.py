"""The problems of the mirrors of pools, which name other pools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evproxy.config.problems import Path, Problem, did_you_mean, quoted
from evproxy.settings import PoolSettings


def mirror_conflicts(
    path: Path, name: str, mirror: object, pools: Sequence[str]
) -> Iterator[Problem]:
    """
    The problems of the table `mirror`, at `path`, of the pool called `name`.

    :param pools: the names of all pools.
    """
    if not isinstance(mirror, dict):
        return
    second = mirror.get("pool")
    if isinstance(second, str):
        yield from _second_pool((*path, "pool"), name, second, pools)


def mirror_problems(pools: Sequence[PoolSettings]) -> Iterator[Problem]:
    """The same for the settings of a program."""
    names = [pool.name for pool in pools]
    for pool in pools:
        if pool.mirror is not None and pool.mirror.to is None:
            path = ("pools", pool.name, "mirror", "pool")
            yield from _second_pool(path, pool.name, pool.mirror.pool, names)


def _second_pool(path: Path, name: str, second: str, pools: Sequence[str]) -> Iterator[Problem]:
    if second == name:
        yield Problem(path, f"{quoted(second)} is the pool itself: a copy needs another one")
    elif second not in pools:
        yield Problem(path, f"there is no pool {quoted(second)}{did_you_mean(second, pools)}")
