"""A router chooses the pool of each session, at once or later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from evproxy import Client, Pool, Router
from evproxy.errors import Refused
from evproxy.model import ConnectionInfo, Ending, Phase, Side
from evproxy.session.factory import router_of
from evproxy.settings import Timeouts
from tests.support.leaks import LoggedErrors
from tests.support.peers import END, RESET, converse, turn
from tests.support.proxies import Proxied

pytestmark = pytest.mark.deadline(10)


class Broken(Exception):
    """The exception that a router of these tests raises."""


class Answers:
    """A router that calls `answer` for each session, and records the clients."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer
        self.asked: list[ConnectionInfo] = []

    def route(self, client: Client) -> Any:
        self.asked.append(client.info)
        return self._answer()


class Later:
    """A router whose Deferreds the test fires."""

    def __init__(self) -> None:
        self.pending: list[Deferred[Pool | None]] = []
        self.cancelled = 0

    def route(self, client: Client) -> Deferred[Pool | None]:
        self.pending.append(Deferred(self._cancel))
        return self.pending[-1]

    def _cancel(self, pending: Deferred[Pool | None]) -> None:
        self.cancelled += 1


async def routed(
    proxied: Proxied, router: Router | Callable[[Client], Any], **settings: Any
) -> Pool:
    """Make the listening factory use `router`; return the pool of its server."""
    await proxied.start(**settings)
    proxied.factory.context.arrival.router = router_of(router)
    return proxied.pool


def refuse() -> None:
    raise Refused("closed on Sundays")


def break_down() -> None:
    raise Broken("on purpose")


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_router_that_answers_at_once(proxied: Proxied, wrapped: bool) -> None:
    """The session uses the chosen pool, whether the router returns a Deferred or not."""
    router = Answers(lambda: succeed(proxied.pool) if wrapped else proxied.pool)
    await routed(proxied, router)
    client, server = await proxied.pair()
    await converse(client, server)
    [info] = router.asked
    assert (info.peer_host, info.listener) == ("127.0.0.1", "test")
    assert [each.sessions for each in proxied.pool.servers] == [1]
    client.reset()
    await proxied.observed.ended()
    assert [each.sessions for each in proxied.pool.servers] == [0]


async def test_a_router_that_answers_later(proxied: Proxied) -> None:
    """The server gets the bytes, and the end, that the client sends while the router decides."""
    router = Later()
    pool = await routed(proxied, router)
    client = proxied.client()
    await client.send(b"question")
    client.end()
    while not router.pending:
        await turn(proxied.reactor)
    [session] = proxied.admission.sessions
    assert session.phase is Phase.INSPECTING
    router.pending[0].callback(pool)
    server = await proxied.upstream.accept()
    assert await server.rest() == (b"question", END)
    server.end()
    assert await client.rest() == (b"", END)
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.FINISHED


async def test_a_client_that_leaves_before_the_answer(proxied: Proxied) -> None:
    """evproxy cancels the Deferred, and the session ends at once."""
    router = Later()
    await routed(proxied, router)
    client = proxied.client()
    while not router.pending:
        await turn(proxied.reactor)
    client.reset()
    await proxied.observed.ended()
    await proxied.admission.sessions.when_empty()
    assert router.cancelled == 1
    reason = proxied.observed.records[0].reason
    assert (reason.by, reason.how, reason.phase) == (Side.DOWNSTREAM, Ending.LEFT, Phase.INSPECTING)


async def test_a_router_that_never_answers(proxied: Proxied) -> None:
    """After the handshake timeout, evproxy resets the client and cancels the Deferred."""
    router = Later()
    await routed(proxied, router, timeouts=Timeouts(handshake=0.2))
    assert await proxied.client().rest() == (b"", RESET)
    await proxied.observed.ended()
    assert router.cancelled == 1
    [record] = proxied.observed.records
    assert (record.reason.by, record.reason.how) == (Side.PROXY, Ending.REFUSED)
    assert record.error == "the router chose no pool within 0.2 s"


async def test_a_drain_before_the_answer(proxied: Proxied) -> None:
    """If a drain ends the session, evproxy cancels the Deferred as well."""
    router = Later()
    await routed(proxied, router)
    client = proxied.client()
    while not router.pending:
        await turn(proxied.reactor)
    [session] = proxied.admission.sessions
    session.end(Side.PROXY, Ending.DRAIN)
    assert await client.rest() == (b"", RESET)
    await proxied.admission.sessions.when_empty()
    assert router.cancelled == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda: None, "the router chose no pool"),
        (lambda: succeed(None), "the router chose no pool"),
        (refuse, "closed on Sundays"),
        (lambda: fail(Refused("closed on Sundays")), "closed on Sundays"),
    ],
)
async def test_a_router_that_refuses(
    proxied: Proxied, answer: Callable[[], Any], error: str
) -> None:
    """evproxy resets the client at once, and the record has the router's reason."""
    await routed(proxied, Answers(answer))
    assert await proxied.client().rest() == (b"", RESET)
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert (record.reason.by, record.reason.how) == (Side.PROXY, Ending.REFUSED)
    assert (record.error, record.attempts, record.upstream) == (error, 0, "")


async def forgotten() -> None:
    """A coroutine that the router has not awaited."""


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda: "web", "str"),
        (lambda: succeed(["10.0.0.1:80"]), "list"),
        (lambda: Pool, "type"),
        (lambda: succeed(forgotten()), "coroutine"),
    ],
)
async def test_a_router_that_returns_no_pool(
    proxied: Proxied, answer: Callable[[], Any], got: str
) -> None:
    """evproxy resets that client, the record says why, and nothing is left of the session."""
    await routed(proxied, Answers(answer))
    assert await proxied.client().rest() == (b"", RESET)
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.reason.how is Ending.REFUSED
    assert record.error == f"the router returned {got}, expected a pool"
    assert proxied.admission.sessions.status() == ()


@pytest.mark.parametrize("answer", [break_down, lambda: fail(Broken("on purpose"))])
async def test_a_router_that_breaks(
    proxied: Proxied, logged_errors: LoggedErrors, answer: Callable[[], Any]
) -> None:
    """evproxy resets the client at once, and logs the traceback."""
    await routed(proxied, Answers(answer))
    assert await proxied.client().rest() == (b"", RESET)
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert (record.reason.by, record.reason.how) == (Side.PROXY, Ending.ERROR)
    assert record.error == "on purpose"
    assert len(logged_errors.flush(Broken)) == 1
