"""
The differences between two settings of a proxy: what a reload changes, and what needs a restart.

Pure.  A listener stays the same as long as its description, or else its address, is the same; a
pool as long as its name is the same; a server as long as its own name is the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import attrs
from attrs import frozen

from evproxy.config.addresses import any_free_port, arguments_of
from evproxy.config.canonical import canonical_address
from evproxy.config.problems import shown
from evproxy.escape import printable
from evproxy.model import UpstreamServer
from evproxy.settings import ListenerSettings, PoolSettings, Settings

RELOADABLE = frozenset({"listeners", "pools", "timeouts", "max_sessions", "access_log"})
"""The fields of `Settings` that a reload can change; all others need a restart."""

_PORT_KINDS = ("tcp", "tcp6", "ssl")
_LONGEST = 120

T = TypeVar("T")


@frozen
class Change:
    """
    One difference.

    `path`: what has changed, from the whole to the part: ``("pool web", "balance")``.
    `what`: ``added``, ``removed``, or the values before and after.
    """

    path: tuple[str, ...]
    what: str

    def __str__(self) -> str:
        return printable(f"{': '.join(self.path)}: {self.what}")


@frozen
class Changes:
    """
    What a reload changes: one line for each of `lines`, in the order of the settings.

    True if there is any.
    """

    lines: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lines)


@frozen
class Pair(Generic[T]):
    """A part of the settings before and after; ``None``: there is none."""

    before: T | None
    after: T | None


def needs_restart(before: Settings, after: Settings) -> tuple[str, ...]:
    """A line for each difference that a reload cannot make."""
    return tuple(
        f"{change}, which needs a restart"
        for field in attrs.fields(Settings)
        if field.name not in RELOADABLE
        for change in _differences(
            (field.name,), getattr(before, field.name), getattr(after, field.name)
        )
    )


def changes(before: Settings, after: Settings) -> Changes:
    """What a reload from `before` to `after` changes."""
    return Changes(tuple(_all(before, after)))


def _all(before: Settings, after: Settings) -> Iterator[Change]:
    for listener in listener_pairs(before.listeners, after.listeners):
        yield from _of_pair("listener", listener, lambda each: each.name or each.listen)
    for pool in pool_pairs(before.pools, after.pools):
        yield from _of_pair("pool", pool, lambda each: each.name)
    for name in ("timeouts", "max_sessions", "access_log"):
        yield from _differences((name,), getattr(before, name), getattr(after, name))


def _of_pair(kind: str, pair: Pair[T], name: Callable[[T], str]) -> Iterator[Change]:
    if pair.after is None:
        assert pair.before is not None
        yield Change((f"{kind} {name(pair.before)}",), "removed")
    elif pair.before is None:
        yield Change((f"{kind} {name(pair.after)}",), "added")
    else:
        yield from _differences((f"{kind} {name(pair.before)}",), pair.before, pair.after)


def _differences(path: tuple[str, ...], before: Any, after: Any) -> Iterator[Change]:
    if before == after:
        return
    if attrs.has(type(before)) and type(before) is type(after):
        for field in attrs.fields(type(before)):
            inner = (getattr(before, field.name), getattr(after, field.name))
            where = (*path, field.name)
            if isinstance(before, PoolSettings) and field.name == "upstreams":
                yield from _of_servers(path, *inner)
            elif field.eq:
                yield from _differences(where, *inner)
    else:
        yield Change(path, f"{_shown(before)} -> {_shown(after)}")


def _of_servers(
    path: tuple[str, ...], before: Sequence[UpstreamServer], after: Sequence[UpstreamServer]
) -> Iterator[Change]:
    for pair in _by_key(before, after, lambda server: server.name):
        for change in _of_pair("server", pair, lambda server: server.name):
            yield Change((*path, *change.path), change.what)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        text = "[" + ", ".join(map(_shown, value)) + "]"
    elif attrs.has(type(value)):
        text = ", ".join(
            f"{field.name} = {_shown(getattr(value, field.name))}"
            for field in attrs.fields(type(value))
            if getattr(value, field.name) != field.default
        )
        text = "{" + text + "}"
    else:
        text = shown(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def pool_pairs(
    before: Sequence[PoolSettings], after: Sequence[PoolSettings]
) -> list[Pair[PoolSettings]]:
    """The pools by their names."""
    return _by_key(before, after, lambda pool: pool.name)


def listener_pairs(
    before: Sequence[ListenerSettings], after: Sequence[ListenerSettings]
) -> list[Pair[ListenerSettings]]:
    """
    The listeners by their descriptions and names, by their descriptions, and by their addresses.

    The pairs of the listeners `after` come first, in their order; then come those that are gone.
    """
    keys: tuple[Callable[[ListenerSettings], Hashable], ...] = (
        lambda listener: (listener.listen, listener.name),
        lambda listener: listener.listen,
        lambda listener: address_of(listener.listen),
    )
    left, new = list(enumerate(before)), list(enumerate(after))
    found: dict[int, tuple[int, ListenerSettings]] = {}
    for key in keys:
        for pair in _by_key(left, new, partial(_second, key)):
            if pair.before is not None and pair.after is not None:
                found[pair.after[0]] = pair.before
        taken = {number for number, _ in found.values()}
        left = [each for each in left if each[0] not in taken]
        new = [each for each in new if each[0] not in found]
    pairs = [
        Pair(found[number][1] if number in found else None, listener)
        for number, listener in enumerate(after)
    ]
    return pairs + [Pair(listener, None) for _, listener in left]


def _second(
    key: Callable[[ListenerSettings], Hashable], numbered: tuple[int, ListenerSettings]
) -> Hashable:
    return key(numbered[1])


def address_of(listen: str) -> Hashable:
    """What two descriptions of the same socket have in common."""
    kind, named, plain = arguments_of(listen)
    if kind == "unix":
        return ("unix", named.get("address", plain[0] if plain else ""))
    if kind not in _PORT_KINDS or any_free_port(listen):
        return listen
    port = named["port"] if "port" in named else plain.pop(0) if plain else ""
    interface = named.get("interface", plain[0] if plain else "").replace("\\:", ":")
    every = "::" if kind == "tcp6" else "0.0.0.0"
    return ("tcp", canonical_address(interface or every), port.lstrip("0"))


def _by_key(before: Sequence[T], after: Sequence[T], key: Callable[[T], Hashable]) -> list[Pair[T]]:
    """The values with the same key, in their order; those that are gone come last."""
    known: defaultdict[Hashable, list[T]] = defaultdict(list)
    for each in before:
        known[key(each)].append(each)
    pairs: list[Pair[T]] = []
    for each in after:
        same = known[key(each)]
        pairs.append(Pair(same.pop(0) if same else None, each))
    return pairs + [Pair(each, None) for same in known.values() for each in same]
