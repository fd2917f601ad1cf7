"""
The operations on upstream servers: list them, and change a pool while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from evproxy.admin.answers import Answer, Problem, as_json, encoded
from evproxy.admin.fields import (
    FLAG,
    MAYBE_NUMBER,
    MAYBE_WHOLE,
    NUMBER,
    TEXT,
    TEXTS,
    WHOLE,
    Field,
    array_of,
    of_object,
    schema_of_fields,
    shown,
)
from evproxy.admin.operations import Asked, Context, Operation
from evproxy.admin.pools import no_server, own_pools, pool_named, server_or_leaving
from evproxy.config.addresses import has_relative_path
from evproxy.config.declare import setting
from evproxy.config.loops import leading_back
from evproxy.config.problems import quoted
from evproxy.config.rules import MOST_SESSIONS, Choice, Seconds, Text, Whole
from evproxy.engine.slices import in_slices
from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.upstream.pool.running_pool import RunningPool
from evproxy.upstream.pool.status import STATES, ServerStatus

MOST_SERVERS_LISTED = 500
"""The most servers in one answer."""


def server_fields(now: float) -> dict[str, Field]:
    """The fields of a server that is looked at `now`, in seconds on the reactor's clock."""
    return {
        "name": Field(TEXT, lambda each: each.name, "its name in logs and metrics"),
        "state": Field({"enum": list(STATES)}, lambda each: each.state, "its state"),
        "why": Field(TEXT, lambda each: each.why, "the reason for the state"),
        "for": Field(
            NUMBER, lambda each: round(now - each.since, 3), "seconds since the state began"
        ),
        "ejected_for": Field(
            MAYBE_NUMBER,
            lambda each: None if each.until is None else round(max(0.0, each.until - now), 3),
            "seconds until its ejection ends; null: it is not ejected",
        ),
        "weight": Field(NUMBER, lambda each: round(each.weight, 3), "the weight in force"),
        "sessions": Field(WHOLE, lambda each: each.sessions, "its sessions now"),
        "max_sessions": Field(
            WHOLE, lambda each: each.spec.max_sessions, "the most sessions; 0: no limit"
        ),
        "sessions_total": Field(WHOLE, lambda each: each.sessions_total, "its sessions so far"),
        "connect_failures": Field(
            WHOLE, lambda each: each.connect_failures, "connects that failed so far"
        ),
        "ejections": Field(WHOLE, lambda each: each.ejections, "ejections so far"),
        "connect_time": Field(
            NUMBER, lambda each: each.connect_time, "seconds of a connect, a decaying peak"
        ),
        "backup": Field(FLAG, lambda each: each.spec.backup, "whether it is a backup"),
        "priority": Field(WHOLE, lambda each: each.spec.priority, "its tier"),
        "tags": Field(TEXTS, lambda each: list(each.spec.tags), "its tags"),
    }


SERVER_SCHEMA = schema_of_fields({"pool": Field(TEXT, str, "its pool"), **server_fields(0.0)})


@frozen
class Which:
    """Which servers to list."""

    pool: str = setting(Text(), "Only servers of this pool.", default="")
    state: str = setting(Choice(("", *STATES)), "Only servers in this state.", default="")
    offset: int = setting(
        Whole(0, MOST_SESSIONS), "Leave out so many: `next` of the answer before.", default=0
    )
    limit: int = setting(
        Whole(1, MOST_SERVERS_LISTED), "The most servers in the answer.", default=100
    )


@frozen
class NewWeight:
    """Another weight for a server."""

    weight: int = setting(Whole(0, 256), "The weight. 0: no new sessions.")


@frozen
class HowToEnd:
    """How to end the sessions of a server."""

    over: float = setting(
        Seconds(0, 86400), "Seconds within which the sessions end, evenly. 0: at once.", default=0.0
    )


async def _list(context: Context, asked: Asked) -> Answer:
    which: Which = asked.query
    proxy = context.proxy
    chosen = [pool_named(proxy, which.pool)] if which.pool else own_pools(proxy).values()
    servers = ((pool.name, server) for pool in chosen for server in pool.each_server())
    return await page_of_servers(context.reactor, servers, which)


async def page_of_servers(
    reactor: Any, servers: Iterator[tuple[str, ServerStatus]], which: Which
) -> Answer:
    """Return the page of `servers`, each with the name of its pool, that `which` asks for."""
    fields = server_fields(reactor.seconds())

    def entry(item: tuple[str, ServerStatus]) -> bytes | None:
        pool, server = item
        if which.state not in ("", server.state):
            return None
        return encoded({"pool": pool, **shown(fields, server)})

    found = await in_slices(reactor, servers, entry, which.offset + which.limit + 1)
    page = found[which.offset : which.offset + which.limit]
    end = which.offset + len(page)
    following = b"%d" % end if len(found) > end else b"null"
    return Answer(b'{"servers":[\n%b],\n"next":%b}\n' % (b",\n".join(page), following))


def _on_server(
    act: Callable[[RunningPool, str, Asked], object],
) -> Callable[[Context, Asked], Answer]:
    """An operation that calls `act` with a pool and the name of a server, and shows the server."""

    def run(context: Context, asked: Asked) -> Answer:
        pool = pool_named(context.proxy, asked.places["pool"])
        name = asked.places["server"]
        try:
            act(pool, name, asked)
            status = pool.server_named(name).status()
        except LookupError:
            raise no_server(pool, name) from None
        now = context.reactor.seconds()
        return as_json({"pool": pool.name, **shown(server_fields(now), status)})

    return run


def _add(context: Context, asked: Asked) -> Answer:
    pool = pool_named(context.proxy, asked.places["pool"])
    server: UpstreamServer = asked.body
    if has_relative_path(server.endpoint):
        # The client does not know the directory that paths in the settings are relative to.
        raise Problem(
            400,
            f"endpoint: {quoted(server.endpoint)}: a UNIX socket needs an absolute path",
        )
    settings = context.proxy.settings
    for reason in leading_back(
        settings.listeners, settings.pools, pool.settings, (server,)
    ).values():
        raise Problem(409, f"endpoint: {reason}")
    try:
        if _has(pool, server.name):
            raise Problem(409, f"endpoint: {quoted(server.name)} is already in the pool")
        pool.add(server)
    except SettingsError as error:
        raise Problem(400, f"endpoint: {error}") from None
    now = context.reactor.seconds()
    status = pool.server_named(server.name).status()
    return as_json({"pool": pool.name, **shown(server_fields(now), status)})


def _has(pool: RunningPool, name: str) -> bool:
    try:
        pool.server_named(name)
    except LookupError:
        return False
    return True


def _remove(context: Context, asked: Asked) -> Answer:
    pool = pool_named(context.proxy, asked.places["pool"])
    name = asked.places["server"]
    try:
        left = pool.server_named(name).sessions
        pool.remove(name)
    except LookupError:
        raise no_server(pool, name) from None
    return as_json({"removed": True, "sessions": left})


async def _end(context: Context, asked: Asked) -> Answer:
    pool = pool_named(context.proxy, asked.places["pool"])
    server = server_or_leaving(pool, asked.places["server"])
    if server is None:
        raise no_server(pool, asked.places["server"])
    number = await context.proxy.end_sessions_of(pool.name, server.name, asked.body.over)
    return as_json({"sessions": number, "over": asked.body.over})


_SERVER = "/pools/{pool}/servers/{server}"


OPERATIONS = (
    Operation(
        "GET",
        "/servers",
        "list_servers",
        "Lists upstream servers, pool by pool.",
        _list,
        of_object({"servers": array_of(SERVER_SCHEMA), "next": MAYBE_WHOLE}),
        query=Which,
        problems=(404, 409),
    ),
    Operation(
        "GET",
        _SERVER,
        "show_server",
        "Shows one upstream server.",
        _on_server(lambda pool, name, asked: None),
        SERVER_SCHEMA,
        problems=(404, 409),
    ),
    Operation(
        "POST",
        "/pools/{pool}/servers",
        "add_server",
        "Adds an upstream server to a pool, until evproxy stops or discovery says otherwise.",
        _add,
        SERVER_SCHEMA,
        body=UpstreamServer,
        problems=(404, 409),
    ),
    Operation(
        "POST",
        f"{_SERVER}/drain",
        "drain_server",
        "Gives a server no new sessions until it is resumed; its sessions go on.",
        _on_server(lambda pool, name, asked: pool.drain(name)),
        SERVER_SCHEMA,
        problems=(404, 409),
    ),
    Operation(
        "POST",
        f"{_SERVER}/resume",
        "resume_server",
        "Gives a server new sessions again, after it was drained.",
        _on_server(lambda pool, name, asked: pool.resume(name)),
        SERVER_SCHEMA,
        problems=(404, 409),
    ),
    Operation(
        "POST",
        f"{_SERVER}/weight",
        "weigh_server",
        "Gives a server another weight.",
        _on_server(lambda pool, name, asked: pool.set_weight(name, asked.body.weight)),
        SERVER_SCHEMA,
        body=NewWeight,
        problems=(404, 409),
    ),
    Operation(
        "POST",
        f"{_SERVER}/remove",
        "remove_server",
        "Removes a server from its pool; its sessions go on.",
        _remove,
        of_object({"removed": FLAG, "sessions": WHOLE}),
        problems=(404, 409),
    ),
    Operation(
        "POST",
        f"{_SERVER}/end",
        "end_sessions",
        "Resets the sessions that a server has now, at once or spread over a time.",
        _end,
        of_object({"sessions": WHOLE, "over": NUMBER}),
        body=HowToEnd,
        problems=(404, 409),
    ),
)
