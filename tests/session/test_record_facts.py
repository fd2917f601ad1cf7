"""What the record of a session says of its way: pool, queue, cause, SNI, and the counts."""

from __future__ import annotations

from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import Deferred

from evproxy.causes import Cause
from evproxy.model import Ending, Phase
from evproxy.policy.refusal import Refusal
from evproxy.records import SessionCounts, SessionStatus
from tests.support.certificates import Certificates
from tests.support.hellos import Hello, of_openssl, server_name
from tests.support.peers import RESET, Peer, turn
from tests.support.proxies import Observed
from tests.support.routed import Routed
from tests.support.unreachable import Refusing, Unanswered

pytestmark = [pytest.mark.deadline(20), pytest.mark.oldest_twisted]


class Counted(Observed):
    """Wants to know how many sessions there were, also when a session is connected."""

    wants_counts = True

    def __init__(self) -> None:
        super().__init__()
        self.connected: list[SessionStatus] = []

    def session_connected(self, session: SessionStatus) -> None:
        self.connected.append(session)


def start_narrow(routed: Routed, more: str = "") -> None:
    """Start with one server that takes one session, so that others wait."""
    routed.observed = Counted()
    routed.start("", pool_keys=f"{more}\n", max_sessions=1)


async def ended(routed: Routed, count: int) -> Any:
    """The last of `count` records."""
    await routed.observed.until(lambda: len(routed.observed.records) == count)
    return routed.observed.records[-1]


async def session(routed: Routed, data: bytes = b"?") -> tuple[Peer, Peer]:
    """A client that has a session, and its server."""
    _, client, server = await routed.sent(data)
    return client, server


async def test_the_pool_and_the_name_of_a_session(routed: Routed) -> None:
    """The pool is there; no time passed until it was chosen; the name is the session's own."""
    routed.start("")
    client, server = await session(routed)
    record = await routed.record(client, server)
    assert (record.pool, record.route_time, record.waited, record.cause) == (
        "default",
        0.0,
        None,
        "",
    )
    prefix, _, number = record.unique_id.rpartition("-")
    assert (len(prefix), number) == (12, str(record.id))
    assert record.counts is None


@pytest.mark.parametrize(
    "listener", ["max_sessions = 9", 'routes = [{peer = "::1", pool = "tls"}]']
)
async def test_no_time_to_a_route(routed: Routed, listener: str) -> None:
    """A pool that is chosen at once took no time, also where something was asked before."""
    routed.start(listener)
    client, server = await session(routed)
    record = await routed.record(client, server)
    assert (record.pool, record.route_time) == ("default", 0.0)


async def test_the_time_to_a_route(routed: Routed) -> None:
    """It is the time until the client had sent what the route depends on."""
    routed.start('routes = [{sni = "a.org", pool = "tls"}]')
    hello = Hello([server_name(b"a.org")]).records()
    _, client, server = await routed.sent(hello, pieces=True)
    record = await routed.record(client, server)
    assert record.pool == "tls"
    assert record.route_time is not None
    assert record.connect_time is not None
    assert 0 < record.route_time < record.connect_time


async def test_a_wait_in_the_queue(routed: Routed) -> None:
    """The wait and the place in the queue are told, while it lasts and afterwards."""
    start_narrow(routed)
    first, server = await session(routed)
    second, third = routed.client(), routed.client()
    await second.send(b"?")
    await until_waiting(routed, 2)
    statuses = routed.service.status().sessions
    assert [each.waited and each.waited.ahead for each in statuses] == [None, 0, 1]
    third.close()
    left = await ended(routed, 1)
    assert (left.reason.how, left.cause) == (Ending.LEFT, Cause.QUEUED.value)
    assert left.waited is not None
    assert (left.waited.since, left.waited.ahead) == (None, 1)
    assert 0 < left.waited.seconds <= left.duration
    first.close()
    server.close()
    await ended(routed, 2)
    _, other = await routed.accepted()
    second.close()
    other.close()
    waited = (await ended(routed, 3)).waited
    assert waited is not None
    assert waited.ahead == 0
    assert 0 < waited.seconds < routed.observed.records[-1].connect_time


async def until_waiting(routed: Routed, count: int) -> None:
    """Let the reactor run until `count` sessions wait in the queue."""
    while routed.service.pools["default"].status().waiting != count:
        await turn(routed.reactor)


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ("queue_timeout = 0.1", Cause.QUEUE_TIMEOUT),
        ("queue_size = 0", Cause.QUEUE_FULL),
    ],
)
async def test_no_slot(routed: Routed, logged_errors: Any, more: str, cause: Cause) -> None:
    """A session that got no slot says whether it waited for too long or could not wait."""
    start_narrow(routed, more)
    peers = await session(routed)
    assert await routed.client().rest() == (b"", RESET)
    record = await ended(routed, 1)
    assert (record.reason.how, record.cause) == (Ending.UNREACHABLE, cause.value)
    # The pool has told that it is full.
    logged_errors.flush()
    for peer in peers:
        peer.close()


async def test_how_many_sessions_there_were(routed: Routed) -> None:
    """A session that ends counts for its listener, and no more for its server, as in HAProxy."""
    start_narrow(routed)
    first, server = await session(routed)
    second = routed.client()
    await until_waiting(routed, 1)
    observed = routed.observed
    assert isinstance(observed, Counted)
    first.close()
    server.close()
    # The slot already belongs to the second session.
    assert (await ended(routed, 1)).counts == SessionCounts(2, 2, 1, 1)
    _, other = await routed.accepted()
    second.close()
    other.close()
    assert (await ended(routed, 2)).counts == SessionCounts(1, 1, 0, 0)
    # The second was connected while the first one ended.
    assert [each.counts for each in observed.connected] == [
        SessionCounts(1, 1, 1, 1),
        SessionCounts(2, 2, 1, 1),
    ]


async def test_servers_that_cannot_be_reached(
    routed: Routed, refusing: Refusing, unanswered: Unanswered
) -> None:
    """A server that does not answer is told from one that refuses."""
    routed.start("", ports={"default": int(refusing().rpartition(":")[2])})
    assert await routed.client().rest() == (b"", RESET)
    record = await ended(routed, 1)
    assert (record.cause, record.attempts, record.pool) == ("connect-failed", 1, "default")
    assert (record.upstream, record.tried) == ("", record.error.partition(": ")[0])
    await routed.service.stopService()
    routed.start(
        "",
        pool_keys="connect_timeout = 0.1\n",
        ports={"default": int(unanswered.name.rpartition(":")[2])},
    )
    assert await routed.client().rest() == (b"", RESET)
    assert (await ended(routed, 2)).cause == "connect-timeout"


HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.8 5000 443\r\n"
BEHIND_PROXY = 'accept_proxy_protocol_from = ["127.0.0.1"]\n'

REFUSED = {
    "denied": (BEHIND_PROXY + 'deny = ["192.0.2.7"]', HEADER, Refusal.DENIED),
    "not allowed": (BEHIND_PROXY + 'allow = ["10.0.0.0/8"]', HEADER, Refusal.NOT_ALLOWED),
    "no header": (BEHIND_PROXY, b"GET / HTTP/1.1\r\n", Cause.PROXY_HEADER),
    "half a header": (BEHIND_PROXY, HEADER[:20], Cause.HANDSHAKE_TIMEOUT),
    "no route": ('route = "tests.session.test_record_facts:nowhere"', b"", Cause.ROUTER),
    "endless route": ('route = "tests.session.test_record_facts:never"', b"", Cause.ROUTER_TIMEOUT),
    "broken route": ('route = "tests.session.test_record_facts:breaks"', b"", Cause.EXCEPTION),
}


def nowhere(client: object) -> None:
    """A route that refuses everybody."""


async def never(client: Any) -> str:
    """A route that has no answer."""
    await client.peek(1)
    await Deferred()
    return "default"


def breaks(client: object) -> None:
    """A route with a mistake."""
    raise ZeroDivisionError


@pytest.mark.parametrize(("listener", "sent", "cause"), REFUSED.values(), ids=REFUSED)
async def test_why_a_client_is_refused(
    routed: Routed, logged_errors: Any, listener: str, sent: bytes, cause: Any
) -> None:
    """The cause is a code, beside the error, for a client that got no pool."""
    routed.start(listener, more="[timeouts]\nhandshake = 0.3\n")
    client = routed.client()
    await client.send(sent or b"?")
    assert (await client.rest())[1] == RESET
    record = await ended(routed, 1)
    assert record.cause == cause.value
    assert record.error
    assert (record.pool, record.route_time) == ("", None)
    assert record.reason.phase is Phase.INSPECTING
    assert bool(logged_errors.flush(ZeroDivisionError)) == (cause is Cause.EXCEPTION)


async def test_the_name_that_a_refused_client_asked_for(routed: Routed) -> None:
    """The record has the SNI of a client whose router refuses it afterwards."""
    routed.start('route = "tests.session.test_record_facts:after_hello"')
    client = routed.client()
    await client.send(Hello([server_name(b"a.org")]).records())
    assert await client.rest() == (b"", RESET)
    record = await ended(routed, 1)
    assert (record.server_name, record.cause) == ("a.org", Cause.ROUTER.value)


async def after_hello(client: Any) -> None:
    """A route that refuses a client once it has looked at its ClientHello."""
    await client.client_hello()


@pytest.mark.parametrize("cut", [False, True], ids=["failed", "timed out"])
async def test_the_name_in_a_handshake_that_fails(
    routed: Routed, certificates: Certificates, cut: bool
) -> None:
    """The record has the SNI although there is no certificate for it, or the client stops."""
    strict = "" if cut else ", strict_sni = true"
    routed.start(
        f'tls = {{certificates = ["{certificates.pem}"]{strict}}}',
        more="[timeouts]\nhandshake = 0.3\n",
    )
    client = routed.client()
    await client.send(of_openssl(SSL.Context(SSL.TLS_CLIENT_METHOD), b"b.org"))
    await client.rest()
    record = await ended(routed, 1)
    assert record.reason.how is Ending.HANDSHAKE
    assert record.server_name == "b.org"
    assert record.cause == (Cause.HANDSHAKE_TIMEOUT if cut else Cause.TLS).value
