"""
The operation that waits for a condition: a server is up, or the last session is gone.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.task import deferLater

from evproxy.admin.answers import Answer, Problem, as_json
from evproxy.admin.conditions import CONDITIONS, NO_SESSIONS
from evproxy.admin.fields import FLAG, NUMBER, TEXT, of_object
from evproxy.admin.operations import Asked, Context, Operation
from evproxy.admin.pools import no_server, pool_named, server_or_leaving
from evproxy.config.declare import setting
from evproxy.config.rules import Choice, Seconds, Text
from evproxy.upstream.pool.server import PoolServer

LONGEST_WAIT = 600.0
"""The longest time, in seconds, that a request may wait for a condition."""

LOOK = 0.1
"""Seconds between two looks at a condition."""

HOLDS: dict[str, Callable[[PoolServer | None], bool]] = {
    "server-up": lambda server: server is not None and server.state == "up",
    "server-down": lambda server: server is not None and server.state in ("down", "ejected"),
    "server-drained": lambda server: server is not None and _is_drained(server),
    "server-idle": lambda server: server is None or not server.sessions,
    "server-gone": lambda server: server is None,
}
"""When the conditions of one server hold; the server is ``None`` once it has left its pool."""


def _is_drained(server: PoolServer) -> bool:
    return server.draining and not server.sessions


@frozen
class ForWhat:
    """What to wait for."""

    until: str = setting(
        Choice(CONDITIONS),
        "The condition. `server-up`: the server gets sessions. `server-down`: it is down or "
        "ejected. `server-drained`: it drains and has no session. `server-idle`: it has no "
        "session. `server-gone`: it is not in its pool, and has no session. `no-sessions`: the "
        "proxy has no session.",
    )
    pool: str = setting(Text(), "The pool of the server.", default="")
    server: str = setting(Text(), "The name of the server.", default="")
    timeout: float = setting(
        Seconds(0, LONGEST_WAIT), "The longest time to wait, in seconds.", default=30.0
    )


async def _wait(context: Context, asked: Asked) -> Answer:
    wanted: ForWhat = asked.query
    met = _condition(context, wanted)
    started = context.reactor.seconds()
    while not met():
        left = started + wanted.timeout - context.reactor.seconds()
        if left <= 0:
            break
        await deferLater(context.reactor, min(LOOK, left))
    waited = context.reactor.seconds() - started
    return as_json({"until": wanted.until, "met": met(), "waited": round(waited, 3)})


def _condition(context: Context, wanted: ForWhat) -> Callable[[], bool]:
    if wanted.until == NO_SESSIONS:
        for name in ("pool", "server"):
            if getattr(wanted, name):
                raise Problem(400, f"{name}: has no effect on {NO_SESSIONS}")
        sessions = context.proxy.admission.sessions
        return lambda: not len(sessions)
    for name in ("pool", "server"):
        if not getattr(wanted, name):
            raise Problem(400, f"{name}: required for {wanted.until}")
    pool = pool_named(context.proxy, wanted.pool)
    holds = HOLDS[wanted.until]
    if wanted.until != "server-gone" and server_or_leaving(pool, wanted.server) is None:
        raise no_server(pool, wanted.server)
    return lambda: holds(server_or_leaving(pool, wanted.server))


OPERATIONS = (
    Operation(
        "GET",
        "/wait",
        "wait",
        "Waits for a condition, and says whether it was met in time.",
        _wait,
        of_object({"until": TEXT, "met": FLAG, "waited": NUMBER}),
        query=ForWhat,
        problems=(404, 409),
    ),
)
