"""
Loops: upstream servers that lead sessions back to the listener that accepted them.

Pure: compares addresses as text and looks nothing up.  So each loop that this finds is real, but
it misses a loop through another name or address of this host.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address

from attrs import evolve, frozen

from evproxy.config.addresses import arguments_of
from evproxy.config.canonical import canonical_address, is_address
from evproxy.config.problems import quoted
from evproxy.model import UpstreamServer
from evproxy.settings import ListenerSettings, PoolSettings

_ALL_IPV4 = "0.0.0.0"
_ALL = "::"


@frozen
class Loop:
    """The server at `index` of `pool` is `listener`, or leads back to `listener`."""

    pool: PoolSettings
    index: int
    listener: ListenerSettings

    @property
    def reason(self) -> str:
        """The message for the user."""
        server = self.pool.upstreams[self.index].endpoint
        return f"{quoted(server)} leads back to the listener {quoted(self.listener.listen)}"


def pools_of(listener: ListenerSettings) -> list[str]:
    """The names of the pools that sessions of `listener` may go to by its settings."""
    return list(dict.fromkeys([*(route.pool for route in listener.routes), listener.pool]))


def copied_to(listener: ListenerSettings, pools: Mapping[str, PoolSettings]) -> list[str]:
    """The names of `pools_of` and of the second pools of their mirrors; a copy has no copy."""
    first = pools_of(listener)
    mirrors = [pools[name].mirror for name in first if name in pools]
    second = [mirror.pool for mirror in mirrors if mirror is not None and mirror.to is None]
    return list(dict.fromkeys([*first, *second]))


def loops(listeners: Sequence[ListenerSettings], pools: Sequence[PoolSettings]) -> Iterator[Loop]:
    """Each server that leads the sessions of a listener back to that listener."""
    by_name = {pool.name: pool for pool in pools}
    places = [(listener, _place(listener.listen)) for listener in listeners]
    reached = {
        name: [
            (index, listener)
            for index, server in enumerate(pool.upstreams)
            for listener, place in places
            if place.holds(server.name)
        ]
        for name, pool in by_name.items()
    }

    def comes_to(wanted: ListenerSettings, start: ListenerSettings) -> bool:
        seen: list[ListenerSettings] = []
        waiting = [start]
        while waiting:
            here = waiting.pop()
            if here == wanted:
                return True
            if here not in seen:
                seen.append(here)
                waiting += [
                    listener
                    for pool in copied_to(here, by_name)
                    for _, listener in reached.get(pool, ())
                ]
        return False

    for listener in listeners:
        for pool in copied_to(listener, by_name):
            for index, next_listener in reached.get(pool, ()):
                if comes_to(listener, next_listener):
                    yield Loop(by_name[pool], index, listener)


def leading_back(
    listeners: Sequence[ListenerSettings],
    pools: Sequence[PoolSettings],
    pool: PoolSettings,
    servers: Sequence[UpstreamServer],
) -> dict[str, str]:
    """
    Why `pool`, one of `pools`, cannot have some of `servers` that are to join it, by their names.

    :param pools: the pools of all `listeners`.
    """
    beside = [each for each in pools if each.name != pool.name]
    joined = evolve(pool, upstreams=tuple(servers))
    return {
        servers[loop.index].name: loop.reason
        for loop in loops(listeners, [*beside, joined])
        if loop.pool is joined
    }


@frozen
class _Place:
    """Where a listener listens: an interface and a port, or the path of a UNIX socket."""

    interface: str
    port: str

    def holds(self, server: str) -> bool:
        """Whether a connection to the server named `server` arrives here."""
        if not self.port:
            path = server.removeprefix("unix:").removeprefix("path=")
            return (
                self.interface != ""
                and server.startswith("unix:")
                and posixpath.normpath(path) == posixpath.normpath(self.interface)
            )
        host, _, port = server.rpartition(":")
        return port == self.port and self._hears(host.strip("[]").lower())

    def _hears(self, host: str) -> bool:
        if host == self.interface:
            return True
        if host == "localhost":
            return self.interface in (_ALL, _ALL_IPV4, "127.0.0.1", "::1")
        if not is_address(host):
            return False
        # Linux connects to this host if the address is "any address".
        here = ip_address(host).is_loopback or host in (_ALL, _ALL_IPV4)
        return here and self.interface in ((_ALL, _ALL_IPV4) if ":" not in host else (_ALL,))


_NOWHERE = _Place("", "")


def _place(listen: str) -> _Place:
    """Where `listen` listens; `_NOWHERE` if the description does not say."""
    kind, named, plain = arguments_of(listen)
    if kind == "unix":
        return _Place(named.get("address", plain[0] if plain else ""), "")
    if kind not in ("tcp", "tcp6", "ssl"):
        return _NOWHERE
    port = named["port"] if "port" in named else plain.pop(0) if plain else ""
    interface = named.get("interface", plain[0] if plain else "").replace("\\:", ":")
    every = _ALL if kind == "tcp6" else _ALL_IPV4
    # For port 0, the kernel chooses a port that no server has.
    port = port.lstrip("0")
    return _Place(canonical_address(interface or every), port) if port else _NOWHERE
