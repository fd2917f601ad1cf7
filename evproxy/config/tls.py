"""The problems between the keys of `tls`, and with the endpoint that they are for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from evproxy.config.problems import Path, Problem
from evproxy.settings import DEFAULT_LISTEN

_PLAIN_LISTENER = re.compile(r"(?:tcp6?|unix|systemd):.*|\d+", re.DOTALL)


def listener_tls_fault(description: str) -> str | None:
    """Why evproxy cannot end TLS at a listener at `description`; ``None`` if it can."""
    if _PLAIN_LISTENER.fullmatch(description):
        return None
    if description.startswith("ssl:"):
        return "the endpoint has TLS itself: use tcp:"
    if description.startswith("haproxy:"):
        return "TLS is not inside haproxy: endpoints: use accept_proxy_protocol_from"
    return "it needs a tcp:, unix: or systemd: endpoint"


def tls_conflicts(path: Path, listener: dict[str, Any]) -> Iterator[Problem]:
    """The problems of the table `tls` of `listener`, if there is one, at `path`."""
    tls, listen = listener.get("tls"), listener.get("listen", DEFAULT_LISTEN)
    if listener.get("inside_tls") is True:
        why = ""
        if not listener.get("accept_proxy_protocol_from"):
            why = "it has no effect without accept_proxy_protocol_from"
        elif tls is None:
            why = "it has no effect without tls"
        elif listener.get("preread"):
            why = "clients of this preread begin TLS after their first message"
        if why:
            yield Problem((*path[:-1], "inside_tls"), why)
    if not isinstance(tls, dict):
        return
    fault = listener_tls_fault(listen) if isinstance(listen, str) else None
    if fault is not None:
        yield Problem(path, fault)
    asks = tls.get("client_certificate", "none") in ("optional", "required")
    if asks and not tls.get("client_ca"):
        yield Problem((*path, "client_ca"), "required, as clients are asked for a certificate")
    if tls.get("client_ca") and not asks:
        why = 'it has no effect without client_certificate = "optional" or "required"'
        yield Problem((*path, "client_ca"), why)


def tls_within_tls(path: Path, listener: dict[str, Any], pools: object) -> Iterator[Problem]:
    """
    The problem of a `preread` at `path` that passes TLS of clients on to pools with TLS.

    :param pools: the pools of the file by name, if it has any.
    """
    if not listener.get("preread") or listener.get("tls") or not isinstance(pools, dict):
        return
    routes = listener.get("routes", [])
    to = [route.get("pool") for route in routes if isinstance(route, dict)]
    to.append(listener.get("pool", next(iter(pools)) if len(pools) == 1 else None))
    for name in to:
        pool = pools.get(name) if isinstance(name, str) else None
        if isinstance(pool, dict) and pool.get("tls"):
            why = f"pools.{name} has tls, and would get the TLS of clients inside its own"
            yield Problem(path, f"{why}: give the listener tls, too")
            return


def pool_tls_conflicts(path: Path, pool: dict[str, Any]) -> Iterator[Problem]:
    """The problems of the table `tls` of `pool`, if there is one, at `path`."""
    tls, check = pool.get("tls"), pool.get("health_check")
    if isinstance(tls, dict) and isinstance(check, dict) and check.get("kind") == "tls":
        why = "the pool has TLS, and each check shakes hands as sessions do: use tcp"
        yield Problem((*path[:-1], "health_check", "kind"), why)
    if isinstance(tls, dict) and tls.get("insecure_skip_verify") is True and tls.get("ca"):
        yield Problem((*path, "ca"), "it has no effect with insecure_skip_verify = true")
