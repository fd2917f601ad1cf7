"""
The keys of a listener, and of its routes, that other keys leave without effect.

Each of them is a mistake: nobody wants a route that no session can take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from evproxy.config.declare import keys_of
from evproxy.config.problems import Path, Problem, quoted
from evproxy.settings import DEFAULT_LISTEN, UNIX_CLIENTS, RouteSettings

_IP_LISTENER = re.compile(r"(?:tcp6?|ssl):.*|\d+", re.DOTALL)
_NETWORKS = ("allow", "deny", "allow_files", "deny_files")
_OF_RECORDINGS = ("record_format", "record_max_files", "record_max_bytes")
_CONDITIONS = tuple(key for key in keys_of(RouteSettings) if key != "pool")


def useless_listener_keys(path: Path, listener: dict[str, Any]) -> Iterator[Problem]:
    """A `Problem` for each key of `listener`, at `path`, that has no effect."""
    if not listener.get("record"):
        for key in filter(listener.get, _OF_RECORDINGS):
            yield Problem((*path, key), "has no effect without record")
    listen = listener.get("listen", DEFAULT_LISTEN)
    if not isinstance(listen, str):
        return
    proxies = listener.get("accept_proxy_protocol_from") or []
    # A wrapper, as that of a plugin, may give its clients other addresses.
    unix = listen.startswith("unix:")
    if proxies and isinstance(proxies, list):
        if unix and UNIX_CLIENTS not in proxies:
            why = f"has no effect: clients of a UNIX socket have no address, say {quoted('unix')}"
            yield Problem((*path, "accept_proxy_protocol_from"), why)
        elif _IP_LISTENER.fullmatch(listen) and proxies == [UNIX_CLIENTS]:
            why = "has no effect: this is not a UNIX listener"
            yield Problem((*path, "accept_proxy_protocol_from"), why)
    if unix and not proxies:
        for key in filter(listener.get, _NETWORKS):
            why = "has no effect: clients of a UNIX socket have no address"
            yield Problem((*path, key), f"{why} without a PROXY header")
    yield from _useless_routes(path, listener, unix and not proxies)


def _useless_routes(path: Path, listener: dict[str, Any], nameless: bool) -> Iterator[Problem]:
    routes, tls = listener.get("routes"), listener.get("tls")
    if not isinstance(routes, list) or not all(isinstance(route, dict) for route in routes):
        return
    chosen = tls.get("alpn", []) if isinstance(tls, dict) else None
    asked = isinstance(tls, dict) and tls.get("client_ca")
    for index, route in enumerate(routes):
        where = (*path, "routes", index)
        alpn = route.get("alpn")
        if alpn and isinstance(chosen, list) and alpn not in chosen:
            why = f"no session matches it: {quoted(str(alpn))} is not in the listener's tls.alpn"
            yield Problem((*where, "alpn"), why)
        if route.get("client_cert") and not (asked or listener.get("accept_proxy_protocol_from")):
            why = "no session matches it without tls.client_ca or accept_proxy_protocol_from"
            yield Problem((*where, "client_cert"), why)
        if route.get("listener") and route["listener"] != listener.get("name", ""):
            name = quoted(str(listener.get("name", "")))
            why = f"no session matches it: the name of this listener is {name}"
            yield Problem((*where, "listener"), why)
        if route.get("peer") and nameless:
            why = "no session matches it: clients of a UNIX socket have no address"
            yield Problem((*where, "peer"), f"{why} without a PROXY header")
        if not any(map(route.get, _CONDITIONS)) and index < len(routes) - 1:
            why = f"no session gets here: routes[{index}] has no condition, and so matches all"
            yield Problem((*path, "routes", index + 1), why)
            return
