"""
The operations on sessions: list them, look at one, end one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator

from attrs import frozen

from evproxy.admin.answers import Answer, Problem, as_json, encoded
from evproxy.admin.fields import (
    FLAG,
    MAYBE_NUMBER,
    MAYBE_WHOLE,
    NUMBER,
    TEXT,
    WHOLE,
    Field,
    array_of,
    of_object,
    schema_of_fields,
    shown,
)
from evproxy.admin.operations import MOST_ID, Asked, Context, Operation
from evproxy.config.declare import setting
from evproxy.config.rules import Choice, Seconds, Text, Whole
from evproxy.engine.slices import in_slices
from evproxy.model import Phase
from evproxy.records import SessionStatus

MOST_SESSIONS_LISTED = 500
"""The most sessions in one answer."""

SESSION = {
    "id": Field(WHOLE, lambda each: each.id, "its number, as in the access log"),
    "listener": Field(TEXT, lambda each: each.listener, "the listener that accepted the client"),
    "peer": Field(TEXT, lambda each: each.peer, "the client"),
    "phase": Field(
        {"enum": [phase.value for phase in Phase]},
        lambda each: each.phase.value,
        "where it is in its life",
    ),
    "pool": Field(TEXT, lambda each: each.pool, "its pool; empty: none is chosen yet"),
    "server": Field(TEXT, lambda each: each.upstream, "its server; empty: none yet"),
    "route": Field(TEXT, lambda each: each.route, "what its router noted; empty: nothing"),
    "relay": Field(TEXT, lambda each: each.relay, "what moves its bytes; empty: nothing yet"),
    "attempts": Field(WHOLE, lambda each: each.attempts, "how many servers were tried"),
    "connect_time": Field(
        MAYBE_NUMBER,
        lambda each: each.connect_time,
        "seconds from accept to the connection with the server",
    ),
    "duration": Field(NUMBER, lambda each: round(each.duration, 3), "seconds since accept"),
    "bytes_to_upstream": Field(
        WHOLE, lambda each: each.bytes_to_upstream, "bytes passed on for the server"
    ),
    "bytes_to_downstream": Field(
        WHOLE, lambda each: each.bytes_to_downstream, "bytes passed on for the client"
    ),
}


@frozen
class Which:
    """Which sessions to list."""

    listener: str = setting(Text(), "Only sessions of the listener of this name.", default="")
    pool: str = setting(Text(), "Only sessions of this pool.", default="")
    server: str = setting(Text(), "Only sessions of the server of this name.", default="")
    peer: str = setting(
        Text(), "Only sessions of this client: a host, or a host and a port.", default=""
    )
    phase: str = setting(
        Choice(("", *(phase.value for phase in Phase))), "Only sessions in this phase.", default=""
    )
    longer_than: float = setting(
        Seconds(0), "Only sessions that have run for this many seconds.", default=0.0
    )
    after: int = setting(
        Whole(0, MOST_ID),
        "Only sessions with a higher number: `next` of the answer before.",
        default=0,
    )
    limit: int = setting(
        Whole(1, MOST_SESSIONS_LISTED), "The most sessions in the answer.", default=100
    )


def filter_of(which: Which) -> Callable[[SessionStatus], bool]:
    """Return the function that says whether `which` means a session."""
    equal = [
        (place, wanted)
        for place, wanted in (
            (SessionStatus._fields.index("listener"), which.listener),
            (SessionStatus._fields.index("pool"), which.pool),
            (SessionStatus._fields.index("upstream"), which.server),
        )
        if wanted
    ]

    def fits(session: SessionStatus) -> bool:
        return (
            all(session[place] == wanted for place, wanted in equal)
            and which.phase in ("", session.phase.value)
            and (not which.peer or which.peer in (session.peer, host_of(session.peer)))
            and session.duration >= which.longer_than
        )

    return fits


def host_of(peer: str) -> str:
    """The host in ``HOST:PORT`` or ``[v6]:PORT``; the path of a UNIX socket as it is."""
    host, colon, port = peer.rpartition(":")
    return host.removeprefix("[").removesuffix("]") if colon and port.isdigit() else peer


async def _list(context: Context, asked: Asked) -> Answer:
    which: Which = asked.query
    live = context.proxy.admission.sessions
    fits = filter_of(which)
    # Ids ascend, and a number of a session that is over by then leads to nothing.
    ids = list(live.by_id)
    start = bisect_right(ids, which.after)

    def each() -> Iterator[int]:
        for number in range(start, len(ids)):
            yield ids[number]

    def entry(number: int) -> tuple[int, bytes] | None:
        session = live.by_id.get(number)
        if session is None:
            return None
        status = session.status(context.reactor.seconds())
        return (number, encoded(shown(SESSION, status))) if fits(status) else None

    # One more than asked for tells whether there are more.
    found = await in_slices(context.reactor, each(), entry, which.limit + 1)
    page = found[: which.limit]
    following = b"null" if len(found) <= which.limit else str(page[-1][0]).encode()
    body = b",\n".join(text for _, text in page)
    return Answer(b'{"sessions":[\n%b],\n"next":%b,"total":%d}\n' % (body, following, len(live)))


def _one(context: Context, asked: Asked) -> Answer:
    number = asked.places["id"]
    session = context.proxy.admission.sessions.by_id.get(number)
    if session is None:
        raise _no_session(number)
    return as_json(shown(SESSION, session.status(context.reactor.seconds())))


def _end(context: Context, asked: Asked) -> Answer:
    number = asked.places["id"]
    try:
        context.proxy.end_session(number)
    except LookupError:
        raise _no_session(number) from None
    return as_json({"ended": True})


def _no_session(number: int) -> Problem:
    return Problem(404, f"there is no session {number}, or no longer")


OPERATIONS = (
    Operation(
        "GET",
        "/sessions",
        "list_sessions",
        "Lists sessions, the oldest first.",
        _list,
        of_object(
            {
                "sessions": array_of(schema_of_fields(SESSION)),
                "next": MAYBE_WHOLE,
                "total": WHOLE,
            }
        ),
        query=Which,
    ),
    Operation(
        "GET",
        "/sessions/{id}",
        "show_session",
        "Shows one session.",
        _one,
        schema_of_fields(SESSION),
        problems=(404,),
    ),
    Operation(
        "POST",
        "/sessions/{id}/end",
        "end_session",
        "Resets both sides of one session.",
        _end,
        of_object({"ended": FLAG}),
        problems=(404,),
    ),
)
