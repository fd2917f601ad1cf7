"""
What is contradictory in the tables of a pool: health_check, discover and ejection.

Health checks and discovery come in kinds; each key but the common ones belongs to some.

As in `evproxy.config.contradictions`, a value of a wrong type is passed over here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from evproxy.config.problems import Path, Problem, listed, quoted
from evproxy.settings import Discover, Ejection, HealthCheck

Kinds = Mapping[str, Collection[str]]
"""For each kind, some of the keys of its table."""

# Keys that are in none of the kinds belong to all of them.
HEALTH_CHECK_KEYS: Kinds = {
    "tcp": (),
    "tls": ("verify", "server_name", "ca"),
    "http": ("method", "path", "host", "expect_status", "expect_text"),
    "send-expect": ("send", "expect", "expect_pattern"),
    "redis": (),
    "smtp": (),
    "postgresql": (),
}
DISCOVER_KEYS: Kinds = {
    "dns": ("name", "port", "nameservers"),
    "dns-srv": ("name", "nameservers"),
    "file": ("path",),
    "etcd": ("endpoints", "prefix"),
}
DISCOVER_REQUIRED: Kinds = {
    "dns": ("name", "port"),
    "dns-srv": ("name",),
    "file": ("path",),
    "etcd": ("prefix",),
}


def health_check_contradictions(path: Path, check: object) -> Iterator[Problem]:
    """What is contradictory in the table `check`, which is at `path`."""
    if not isinstance(check, dict):
        return
    kind = check.get("kind", HealthCheck().kind)
    yield from _misplaced(path, check, kind, HEALTH_CHECK_KEYS)
    yield from _not_above(path, check, "fast_interval", "interval", HealthCheck())
    if kind == "tls" and check.get("ca") and check.get("verify", False) is False:
        yield Problem((*path, "ca"), "of no use without verify = true")
    if kind == "send-expect" and "expect" in check and "expect_pattern" in check:
        yield Problem((*path, "expect_pattern"), "there is expect too: only one of them can be")


def discover_contradictions(path: Path, discover: object) -> Iterator[Problem]:
    """What is contradictory in the table `discover`, which is at `path`."""
    if not isinstance(discover, dict):
        return
    kind = discover.get("kind")
    yield from _misplaced(path, discover, kind, DISCOVER_KEYS)
    if isinstance(kind, str):
        for key in DISCOVER_REQUIRED.get(kind, ()):
            if key not in discover:
                yield Problem((*path, key), f"required for kind {quoted(kind)}")
        yield from _not_above(path, discover, "min_interval", "interval", Discover(kind))


def ejection_contradictions(path: Path, ejection: object) -> Iterator[Problem]:
    """What is contradictory in the table `ejection`, which is at `path`."""
    if isinstance(ejection, dict):
        yield from _not_above(path, ejection, "base_time", "max_time", Ejection())


def _misplaced(path: Path, table: dict[str, Any], kind: object, kinds: Kinds) -> Iterator[Problem]:
    """The keys of `table` that belong to other kinds than its own."""
    if not isinstance(kind, str) or kind not in kinds:
        return
    for key in table:
        owners = [owner for owner, keys in kinds.items() if key in keys]
        if owners and kind not in owners:
            yield Problem(
                (*path, key), f"belongs to kind {listed(owners, 'and')}, and this is {quoted(kind)}"
            )


def _not_above(
    path: Path,
    table: dict[str, Any],
    lower: str,
    upper: str,
    defaults: HealthCheck | Discover | Ejection,
) -> Iterator[Problem]:
    """A problem if the number `lower` is above the number `upper`, where one of them is set."""
    low = table.get(lower, getattr(defaults, lower))
    high = table.get(upper, getattr(defaults, upper))
    comparable = all(type(value) in (int, float) for value in (low, high))
    if comparable and low > high:
        key = lower if lower in table else upper
        yield Problem((*path, key), f"{lower} ({low}) is more than {upper} ({high})")
