"""
Routes of your own: four functions that choose the pool of each client.

A configuration file names one of them, with the directory of this file on PYTHONPATH:

    [[listeners]]
    listen = "tcp:8443"
    pool = "web"
    route = "routes:by_tenant"

Each function gets an `evproxy.Client` and returns the name of a pool.  A coroutine may wait for
what the client sends first, and for whatever else it has to ask.
"""

from __future__ import annotations

import os
from functools import cache
from hashlib import blake2b
from typing import Any

from twisted.enterprise.adbapi import ConnectionPool

from evproxy import Client, Refused
from evproxy.wire.client_hello import ClientHello
from evproxy.wire.http_host import HttpHost
from evproxy.wire.postgres import Startup

CANARY_PERCENT = 5


@cache
def database() -> Any:
    """The database at TENANTS, whose table ``tenants`` has the columns ``name`` and ``pool``."""
    return ConnectionPool("sqlite3", os.environ["TENANTS"], check_same_thread=False)


async def by_tenant(client: Client) -> str:
    """The pool that a database has for the name that a TLS client asks for (SNI)."""
    hello = await client.client_hello()
    if not isinstance(hello, ClientHello) or hello.server_name is None:
        raise Refused("no tenant: the client names no server")
    rows = await database().runQuery(
        "SELECT pool FROM tenants WHERE name = ?", (hello.server_name,)
    )
    if not rows:
        raise Refused(f"there is no tenant {hello.server_name}")
    pool = str(rows[0][0])
    client.note(f"tenant {hello.server_name}")
    return pool


async def by_user(client: Client) -> str:
    """The pool ``analysts`` for PostgreSQL users whose name begins so, else ``web``."""
    start = await client.postgres_start()
    if not isinstance(start, Startup):
        raise Refused("the user cannot be seen: the client asks for encryption")
    client.note(f"user {start.user}")
    return "analysts" if start.user.startswith("analyst_") else "web"


async def by_host(client: Client) -> str:
    """The pool ``api`` for HTTP requests to ``api.…``, else ``web``."""
    host = await client.http_host()
    name = host.host if isinstance(host, HttpHost) else ""
    return "api" if name.startswith("api.") else "web"


def canary(client: Client) -> str:
    """The pool ``canary`` for 5 % of the clients, always the same ones, else ``web``."""
    address = client.info.peer_host.encode("utf-8", "surrogateescape")
    number = int.from_bytes(blake2b(address, digest_size=8).digest(), "big")
    return "canary" if number % 100 < CANARY_PERCENT else "web"
