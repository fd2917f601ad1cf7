"""
The problems between the keys of a file, where each value by itself is right.

Reads the raw document, so that one run finds every problem.  Ignores a value of a wrong type:
the rule of its key reports that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from evproxy.config.addresses import (
    address_of,
    any_free_port,
    below,
    listening_place,
    permission_fault,
)
from evproxy.config.canonical import server_name
from evproxy.config.declare import keys_of
from evproxy.config.faults import fault_conflicts
from evproxy.config.impossible import impossible
from evproxy.config.kinds import misplaced
from evproxy.config.listener_keys import useless_listener_keys
from evproxy.config.mirrors import mirror_conflicts
from evproxy.config.problems import Path, Problem, did_you_mean, listed, quoted, shown_path
from evproxy.config.reading import Reading
from evproxy.config.tls import pool_tls_conflicts, tls_conflicts, tls_within_tls
from evproxy.policy.sources import Sources, source_fault
from evproxy.settings import (
    CHECK_KINDS,
    DEFAULT_LISTEN,
    DISCOVERY_KINDS,
    PERMISSIONS,
    POOL_NAME,
    Discover,
    Ejection,
    HealthCheck,
)

Table = dict[str, Any]


def conflicts(document: Table, directory: str = "") -> Iterator[Problem]:
    """
    Every `Problem` between keys, and every missing key that others require.

    Relative paths are relative to `directory`.
    """
    yield from _listener_conflicts(document, directory)
    pools = document.get("pools", {})
    if pools == {}:
        yield Problem(("pools",), "at least one is needed, as [pools.NAME]")
    if isinstance(pools, dict):
        for name, pool in pools.items():
            yield from _pool_conflicts(("pools", name), name, pool, directory)
            mirror = pool.get("mirror") if isinstance(pool, dict) else None
            yield from mirror_conflicts(("pools", name, "mirror"), name, mirror, list(pools))


def _listener_conflicts(document: Table, directory: str) -> Iterator[Problem]:
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
    for index, description in descriptions.items():
        if isinstance(description, str):
            for key in filter(tables[index].get, PERMISSIONS):
                fault = permission_fault(key, description)
                if fault is not None:
                    yield Problem(("listeners", index, key), fault)
    for index, entry in tables.items():
        yield from fault_conflicts(("listeners", index, "faults"), entry.get("faults"))
        yield from tls_conflicts(("listeners", index, "tls"), entry)
        yield from useless_listener_keys(("listeners", index), entry)
    pools = document.get("pools")
    for index, entry in tables.items():
        if isinstance(pools, dict) and pools:
            yield from _pool_choice(("listeners", index, "pool"), entry, list(pools))
        yield from _route_conflicts(("listeners", index), entry, pools)
        yield from tls_within_tls(("listeners", index, "preread"), entry, pools)


def _route_conflicts(path: Path, listener: Table, pools: object) -> Iterator[Problem]:
    routes = listener.get("routes", [])
    if listener.get("route") and routes:
        yield Problem((*path, "route"), "it would choose in place of routes: give only one of them")
    postgres = listener.get("preread") == "postgres"
    for index, route in enumerate(routes if isinstance(routes, list) else ()):
        if not isinstance(route, dict):
            continue
        if postgres and route.get("http_host"):
            why = "no PostgreSQL client has one, and preread says that they are"
            yield Problem((*path, "routes", index, "http_host"), why)
        where = (*path, "routes", index)
        pool = route.get("pool")
        if isinstance(pool, str) and isinstance(pools, dict) and pools and pool not in pools:
            hint = did_you_mean(pool, list(pools))
            yield Problem((*where, "pool"), f"there is no pool {quoted(pool)}{hint}")
        # Where evproxy ends TLS, the handshake and what is inside can both decide.
        exclusive = _FIRST_BYTES if listener.get("tls") else (_HELLO, *_FIRST_BYTES)
        reading = [key for key in exclusive if any(map(route.get, key))]
        if len(reading) > 1:
            keys = listed([next(filter(route.get, each)) for each in reading], "and")
            yield Problem(where, f"no client can match {keys} at once")


_HELLO = ("sni", "alpn")
_FIRST_BYTES = (("http_host",), ("postgres_user", "postgres_database"))
"""Conditions of a route that need a client of one protocol each."""


def _repeated(above: Path, values: dict[int, Any], key: Path) -> Iterator[Problem]:
    """A `Problem` for each string in `values`, by index, that equals an earlier one."""
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


def _pool_conflicts(path: Path, name: str, pool: object, directory: str) -> Iterator[Problem]:
    reading = Reading()
    reading.value(POOL_NAME, name, path)
    yield from reading.problems
    if not isinstance(pool, dict):
        return
    upstreams = pool.get("upstreams", [])
    if "discover" not in pool and upstreams == []:
        yield Problem(path, "there is no server: upstreams or discover is required")
    if isinstance(upstreams, list):
        yield from _repeated((*path, "upstreams"), _server_names(upstreams, directory), ())
        yield from useless_keys(path, pool)
        yield from _source_conflicts(path, pool.get("source"), upstreams)
    yield from fault_conflicts((*path, "faults"), pool.get("faults"))
    yield from pool_tls_conflicts((*path, "tls"), pool)
    yield from health_check_conflicts((*path, "health_check"), pool.get("health_check"))
    yield from _discover_conflicts((*path, "discover"), pool.get("discover"))
    yield from ejection_conflicts((*path, "ejection"), pool.get("ejection"))


def _source_conflicts(path: Path, source: object, upstreams: list[Any]) -> Iterator[Problem]:
    """A `Problem` for each server whose address family `source` lacks."""
    given = source if isinstance(source, list) else [source]
    fit = [each for each in given if isinstance(each, str) and source_fault(each) is None]
    if not fit or fit != given:
        return
    endpoints = [each for each in _endpoints(upstreams) if isinstance(each, str)]
    for why in unserved(fit, endpoints):
        yield Problem((*path, "source"), why)


def unserved(source: Sequence[str], endpoints: Iterable[str]) -> Iterator[str]:
    """Why `source` has no address for some of `endpoints`: a sentence for each of these."""
    sources = Sources(source)
    for endpoint in endpoints:
        host = address_of(endpoint)
        if host is not None and not sources.serves(host):
            family = "IPv6" if ":" in host else "IPv4"
            yield f"there is no {family} address for {endpoint}"


def _endpoints(upstreams: list[Any]) -> Iterator[Any]:
    for entry in upstreams:
        yield entry.get("endpoint") if isinstance(entry, dict) else entry


def _server_names(upstreams: list[Any], directory: str) -> dict[int, Any]:
    """The name of each server, by index; every server needs its own."""
    return {
        index: server_name(below(directory, endpoint))
        for index, endpoint in enumerate(_endpoints(upstreams))
        if isinstance(endpoint, str)
    }


def health_check_conflicts(path: Path, check: object) -> Iterator[Problem]:
    """The contradictions in the table `check`, which is at `path`."""
    if not isinstance(check, dict):
        return
    kind = check.get("kind", HealthCheck().kind)
    yield from misplaced(path, check, kind, HealthCheck, CHECK_KINDS)
    yield from _not_above(path, check, "fast_interval", "interval", HealthCheck())
    for key, why in impossible(_readable(check)):
        yield Problem((*path, key), why)


def _readable(check: Table) -> HealthCheck:
    """The valid values in `check` of those keys that belong to only some kinds."""
    values: Table = {}
    for key, each in keys_of(HealthCheck).items():
        if key in check and (key == "kind" or each.setting.kinds):
            reading = Reading()
            value = reading.value(each.setting.rule, check[key], ())
            if not reading.problems:
                values[key] = value
    return HealthCheck(**values)


def _has_only_unix(pool: Table) -> bool:
    endpoints = list(_endpoints(pool.get("upstreams", [])))
    unix = all(isinstance(each, str) and each.startswith("unix:") for each in endpoints)
    return bool(endpoints) and unix and "discover" not in pool


def _useless_queue(path: Path, pool: Table) -> Iterator[Problem]:
    """A session waits only for a server that is full; discovery may find such servers."""
    bounded = "discover" in pool or any(
        isinstance(each, dict) and not _is_zero(each.get("max_sessions", 0))
        for each in pool.get("upstreams", ())
    )
    for key, other in (("queue_size", "queue_timeout"), ("queue_timeout", "queue_size")):
        if not _is_more(pool.get(key)):
            continue
        if _is_zero(pool.get(other)):
            yield Problem((*path, key), f"has no effect with {other} = 0")
        elif not bounded:
            yield Problem((*path, key), "has no effect: no server has max_sessions")


def useless_keys(path: Path, pool: Table) -> Iterator[Problem]:
    """A `Problem` for each key of `pool`, at `path`, that other keys leave without effect."""
    weights = [
        entry.get("weight", 1) if isinstance(entry, dict) else 1
        for entry in pool.get("upstreams", ())
    ]
    # Only a program, or discovery, can change a weight later.
    if weights and all(map(_is_zero, weights)) and "discover" not in pool:
        yield Problem((*path, "upstreams"), "no server would get a session: every weight is 0")
    yield from _useless_queue(path, pool)
    if _has_only_unix(pool) and "source" in pool:
        yield Problem((*path, "source"), "has no effect: every server is a UNIX socket")
    if pool.get("on_down") == "reset" and "health_check" not in pool:
        yield Problem((*path, "on_down"), "has no effect without health_check: no server goes down")
    watched = "health_check" in pool or "ejection" in pool
    if pool.get("all_down") == "try" and not watched:
        yield Problem((*path, "all_down"), "has no effect without health_check or ejection")
    if _is_more(pool.get("slow_start")) and not watched and "discover" not in pool:
        why = "has no effect without health_check, ejection or discover"
        yield Problem((*path, "slow_start"), why)


def _is_zero(value: object) -> bool:
    return type(value) in (int, float) and value == 0


def _is_more(value: object) -> bool:
    """Whether `value` is a number above zero."""
    return type(value) in (int, float) and value > 0  # type: ignore[operator]


def _discover_conflicts(path: Path, discover: object) -> Iterator[Problem]:
    """The contradictions in the table `discover`, which is at `path`."""
    if not isinstance(discover, dict):
        return
    kind = discover.get("kind")
    yield from misplaced(path, discover, kind, Discover, DISCOVERY_KINDS)
    if isinstance(kind, str):
        for key, each in keys_of(Discover).items():
            if kind in each.setting.required_for and key not in discover:
                yield Problem((*path, key), f"required for kind {quoted(kind)}")
        yield from _not_above(
            path, discover, "min_interval", "interval", Discover(DISCOVERY_KINDS[0])
        )


def ejection_conflicts(path: Path, ejection: object) -> Iterator[Problem]:
    """The contradictions in the table `ejection`, which is at `path`."""
    if isinstance(ejection, dict):
        yield from _not_above(path, ejection, "base_time", "max_time", Ejection())


def _not_above(
    path: Path,
    table: dict[str, Any],
    lower: str,
    upper: str,
    defaults: HealthCheck | Discover | Ejection,
) -> Iterator[Problem]:
    """A `Problem` if the number `lower` is above the number `upper`."""
    low = table.get(lower, getattr(defaults, lower))
    high = table.get(upper, getattr(defaults, upper))
    comparable = all(type(value) in (int, float) for value in (low, high))
    if comparable and low > high:
        key = lower if lower in table else upper
        yield Problem((*path, key), f"{lower} ({low}) is more than {upper} ({high})")
