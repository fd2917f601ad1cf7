"""
What is wrong with a file whose values are each right by themselves.

Reads the document as it is, so that everything is found in one go: a value that is of a
wrong type is passed over here, as its own `Problem` is told elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evproxy.config.addresses import any_free_port, below, listening_place
from evproxy.config.fields import pool_name_rule
from evproxy.config.pool_tables import (
    discover_contradictions,
    ejection_contradictions,
    health_check_contradictions,
)
from evproxy.config.problems import Path, Problem, did_you_mean, listed, quoted, shown_path
from evproxy.config.rules import Refused
from evproxy.settings import DEFAULT_LISTEN

Table = dict[str, Any]


def contradictions(document: Table, directory: str = "") -> Iterator[Problem]:
    """
    Every `Problem` that lies between keys, or in a key that should be there and is not.

    `directory` is that of paths which are not absolute.
    """
    yield from _listener_contradictions(document, directory)
    pools = document.get("pools", {})
    if pools == {}:
        yield Problem(("pools",), "at least one is needed, as [pools.NAME]")
    if isinstance(pools, dict):
        for name, pool in pools.items():
            yield from _pool_contradictions(("pools", name), name, pool, directory)


def _listener_contradictions(document: Table, directory: str) -> Iterator[Problem]:
    listeners = document.get("listeners", [])
    if listeners == []:
        yield Problem(("listeners",), "at least one is needed, as [[listeners]]")
    if not isinstance(listeners, list):
        return
    tables = {index: entry for index, entry in enumerate(listeners) if isinstance(entry, dict)}
    names = {index: entry["name"] for index, entry in tables.items() if entry.get("name")}
    yield from _repeated(("listeners",), names, ("name",))
    descriptions = {index: entry.get("listen", DEFAULT_LISTEN) for index, entry in tables.items()}
    yield from _repeated(
        ("listeners",),
        {
            index: listening_place(directory, description)
            for index, description in descriptions.items()
            if isinstance(description, str) and not any_free_port(description)
        },
        ("listen",),
    )
    pools = document.get("pools")
    if isinstance(pools, dict) and pools:
        for index, entry in tables.items():
            yield from _pool_choice(("listeners", index, "pool"), entry, list(pools))


def _repeated(above: Path, values: dict[int, Any], key: Path) -> Iterator[Problem]:
    """The strings among `values`, by index, that one before them already is."""
    first: dict[str, int] = {}
    for index, value in values.items():
        if isinstance(value, str) and first.setdefault(value, index) != index:
            earlier = shown_path((*above, first[value], *key))
            yield Problem((*above, index, *key), f"the same as {earlier}, {quoted(value)}")


def _pool_choice(path: Path, listener: Table, pools: list[str]) -> Iterator[Problem]:
    pool = listener.get("pool")
    if pool is None and len(pools) > 1:
        yield Problem(path, f"required, as there is more than one pool: {listed(pools, 'and')}")
    if isinstance(pool, str) and pool not in pools:
        yield Problem(path, f"there is no pool {quoted(pool)}{did_you_mean(pool, pools)}")


def _pool_contradictions(path: Path, name: str, pool: object, directory: str) -> Iterator[Problem]:
    try:
        pool_name_rule()(name)
    except Refused as refusal:
        yield Problem(path, str(refusal))
    if not isinstance(pool, dict):
        return
    upstreams = pool.get("upstreams", [])
    if "discover" not in pool and upstreams == []:
        yield Problem(path, "there is no server: upstreams or discover is required")
    if isinstance(upstreams, list):
        yield from _repeated((*path, "upstreams"), _server_names(upstreams, directory), ())
    yield from health_check_contradictions((*path, "health_check"), pool.get("health_check"))
    yield from discover_contradictions((*path, "discover"), pool.get("discover"))
    yield from ejection_contradictions((*path, "ejection"), pool.get("ejection"))


def _server_names(upstreams: list[Any], directory: str) -> dict[int, Any]:
    """By index, what each server will be called; two of one name could not be told apart."""
    endpoints = (entry.get("endpoint") if isinstance(entry, dict) else entry for entry in upstreams)
    return {
        index: below(directory, endpoint).removeprefix("tcp:")
        for index, endpoint in enumerate(endpoints)
        if isinstance(endpoint, str)
    }
