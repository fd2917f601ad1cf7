"""An ended session leaves nothing to the collector, whose settings the library does not change."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from twisted.internet.task import deferLater
from twisted.protocols.tls import BufferingTLSTransport

from evproxy.model import Ending, Side
from evproxy.session.factory import ProxyFactory
from evproxy.session.halves import UpstreamFactory
from evproxy.settings import Timeouts
from tests.support.bulk import MANY, fill
from tests.support.collector import alive, garbage
from tests.support.leaks import LoggedErrors
from tests.support.peers import END, RESET, Peer, converse
from tests.support.proxies import Proxied
from tests.support.secured import CLOSED, Secured, SecuredPeer
from tests.support.unreachable import Refusing, Unanswered
from tests.support.wrappers import ABORT, LOSE, Wrapping

pytestmark = [
    pytest.mark.usefixtures("no_collector"),
    pytest.mark.oldest_twisted,
    pytest.mark.every_reactor,
]

# TLS of Twisted 24.7 forms a cycle, which keeps the direction to a lost client alive.
COMES_APART = "connectionLost" in vars(BufferingTLSTransport)


async def over(proxied: Proxied, count: int) -> None:
    """Wait until `count` sessions have ended and are closed."""
    await proxied.observed.ended(count)
    await deferLater(proxied.reactor, 0)


async def nothing_is_left(
    proxied: Proxied, session: Callable[[Proxied], Awaitable[None]], how: Ending
) -> None:
    """Check that every object of one `session` is gone once the session has ended with `how`."""
    await session(proxied)
    await over(proxied, 1)
    assert not garbage()
    # The first session may make objects that stay, such as imports.
    before = alive()
    await session(proxied)
    await over(proxied, 2)
    assert [record.reason.how for record in proxied.observed.records] == [how, how]
    assert not alive() - before
    assert not garbage()


async def test_after_a_session_that_finished(proxied: Proxied) -> None:
    """Bytes and an end both ways leave nothing."""

    async def session(proxied: Proxied) -> None:
        client, server = await proxied.pair()
        await client.send(MANY)
        client.end()
        assert await server.rest() == (MANY, END)
        await server.send(MANY)
        server.end()
        assert await client.rest() == (MANY, END)

    await proxied.start()
    await nothing_is_left(proxied, session, Ending.FINISHED)


@pytest.mark.parametrize("by_client", [True, False])
async def test_after_a_reset(proxied: Proxied, by_client: bool) -> None:
    """A reset by either peer leaves nothing."""

    async def session(proxied: Proxied) -> None:
        client, server = await proxied.pair()
        await client.send(b"question")
        await server.receive(8)
        one, other = (client, server) if by_client else (server, client)
        one.reset()
        assert await other.rest() == (b"", RESET)

    await proxied.start()
    await nothing_is_left(proxied, session, Ending.RESET)


async def test_after_a_client_that_left(proxied: Proxied, unanswered: Unanswered) -> None:
    """A connect that was cancelled leaves nothing."""

    async def session(proxied: Proxied) -> None:
        client = proxied.client()
        await client.send(b"hello")
        client.reset()

    await proxied.start(upstreams=[unanswered.name])
    await nothing_is_left(proxied, session, Ending.LEFT)


async def test_after_servers_that_refused(proxied: Proxied, refusing: Refusing) -> None:
    """Connects that failed leave nothing."""

    async def session(proxied: Proxied) -> None:
        assert await proxied.client().rest() == (b"", RESET)

    await proxied.start(upstreams=[refusing(), refusing()])
    await nothing_is_left(proxied, session, Ending.UNREACHABLE)


async def test_after_a_connect_that_timed_out(proxied: Proxied, unanswered: Unanswered) -> None:
    """A connect that took too long leaves nothing."""

    async def session(proxied: Proxied) -> None:
        assert await proxied.client().rest() == (b"", RESET)

    await proxied.start(upstreams=[unanswered.name], connect_timeout=0.1)
    await nothing_is_left(proxied, session, Ending.UNREACHABLE)


async def test_after_an_idle_session(proxied: Proxied) -> None:
    """A session that ended at its idle deadline leaves nothing."""

    async def session(proxied: Proxied) -> None:
        client, server = await proxied.pair()
        assert await client.rest() == (b"", RESET)
        assert await server.rest() == (b"", RESET)

    await proxied.start(timeouts=Timeouts(idle=0.1, half_close=0.1))
    await nothing_is_left(proxied, session, Ending.IDLE)


async def test_after_a_half_close_that_timed_out(proxied: Proxied) -> None:
    """A session that ended at its half-close deadline leaves nothing."""

    async def session(proxied: Proxied) -> None:
        client, server = await proxied.pair()
        await client.send(b"question")
        client.end()
        assert await client.rest() == (b"", RESET)
        assert await server.receive(8) == b"question"

    await proxied.start(timeouts=Timeouts(half_close=0.1))
    await nothing_is_left(proxied, session, Ending.HALF_CLOSE)


@pytest.mark.parametrize("how", [Ending.DRAIN, Ending.SERVER_DOWN])
async def test_after_a_reset_of_both(proxied: Proxied, how: Ending) -> None:
    """A session that a drain or the pool resets while its queues are full leaves nothing."""

    async def session(proxied: Proxied) -> None:
        client, server = await proxied.pair()
        await client.send(b"question")
        await server.receive(8)
        await fill(proxied.reactor, server)
        # `ProxyService.abort` and a pool whose server goes down call this, too.
        for running in list(proxied.admission.sessions):
            running.end(Side.PROXY, how)
        assert (await client.rest())[1] == RESET
        assert await server.rest() == (b"", RESET)

    await proxied.start(on_down="reset")
    await nothing_is_left(proxied, session, how)


@pytest.mark.parametrize("how", [LOSE, ABORT])
@pytest.mark.parametrize("upstream", [True, False])
async def test_after_a_wrapper_that_closed(proxied: Proxied, how: str, upstream: bool) -> None:
    """A connection that a wrapper closes leaves nothing."""
    wrapping = Wrapping(how, upstream=upstream)

    async def session(proxied: Proxied) -> None:
        client, server = await proxied.pair()
        await converse(client, server)
        wrapping.door.close()
        wrapping.forget()
        await client.rest()
        await server.rest()

    await proxied.start(**wrapping.arguments())
    await nothing_is_left(proxied, session, Ending.RESET)


async def test_after_a_wrapper_that_let_a_session_finish(proxied: Proxied) -> None:
    """A session behind a wrapper that closes nothing leaves nothing."""
    wrapping = Wrapping()

    async def session(proxied: Proxied) -> None:
        client, server = await proxied.pair()
        await converse(client, server)
        wrapping.forget()
        server.end()
        assert await client.rest() == (b"", END)
        client.close()
        await server.rest()

    await proxied.start(**wrapping.arguments())
    await nothing_is_left(proxied, session, Ending.FINISHED)


async def tls_client_closes(client: SecuredPeer, server: Peer) -> None:
    await client.close()
    assert await server.rest() == (b"", END)
    server.close()


async def server_ends(client: SecuredPeer, server: Peer) -> None:
    server.end()
    assert await client.rest() == (b"", CLOSED)
    await client.close()


async def server_resets(client: SecuredPeer, server: Peer) -> None:
    server.reset()
    assert await client.rest() == (b"", RESET)


@pytest.mark.parametrize(
    ("end", "how"),
    [
        *[(tls_client_closes, Ending.FINISHED)] * COMES_APART,
        (server_ends, Ending.FINISHED),
        (server_resets, Ending.RESET),
    ],
)
async def test_after_a_session_of_a_tls_client(
    secured: Secured, end: Callable[[SecuredPeer, Peer], Awaitable[None]], how: Ending
) -> None:
    """
    A session of a TLS client leaves none of evproxy's objects.

    Two cases are not tested here: with a TLS server, cycles of Twisted's endpoints keep the
    session; with a TLS client that resets, a failure of Twisted's keeps it.
    """

    async def session(proxied: Proxied) -> None:
        client = SecuredPeer(proxied.client(), secured.certificates.client)
        await client.handshake()
        server = await proxied.upstream.accept()
        await client.send(b"question")
        assert await server.receive(8) == b"question"
        await server.send(b"answer")
        assert await client.receive(6) == b"answer"
        await end(client, server)

    await secured.listen()
    await nothing_is_left(secured.proxied, session, how)


async def test_after_an_exception_in_a_users_code(
    proxied: Proxied, logged_errors: LoggedErrors
) -> None:
    """A traceback that was logged and dropped keeps no object of the session."""

    class Broken(UpstreamFactory):
        def buildProtocol(self, addr: object) -> Any:
            raise LookupError("a user's mistake")

    class Factory(ProxyFactory):
        upstream_factory = Broken

    await proxied.start(factory=Factory)
    client = proxied.client()
    server = await proxied.upstream.accept()
    assert await client.rest() == (b"", RESET)
    await server.rest()
    await over(proxied, 1)
    [event] = logged_errors.flush()
    if proxied.transports == "twisted":
        # Twisted's reactor keeps a caught exception in a frame of this exception's traceback.
        failure = event.get("failure") or event["log_failure"]
        failure.getTracebackObject().tb_frame.clear()
        del failure
    del event
    assert not garbage()


LEAVES_THE_COLLECTOR_ALONE = """
import gc

gc.disable()
before = gc.get_threshold(), gc.get_freeze_count(), gc.isenabled()
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.web.server import Site
from twisted.web.static import Data
from evproxy import ProxyService

class Visit(Protocol):
    def connectionMade(self):
        self.transport.write(b"GET / HTTP/1.0\\r\\n\\r\\n")

    def connectionLost(self, reason):
        proxy.stopService().addBoth(lambda _: web.stopListening()).addBoth(
            lambda _: reactor.stop()
        )

web = reactor.listenTCP(0, Site(Data(b"page", "text/plain")), interface="127.0.0.1")
proxy = ProxyService(
    reactor, ["tcp:0:interface=127.0.0.1"], [f"127.0.0.1:{web.getHost().port}"], access_log=False
)
proxy.startService()
port = proxy.addresses[0].port
connectProtocol(clientFromString(reactor, f"tcp:127.0.0.1:{port}"), Visit())
reactor.run()
assert before == (gc.get_threshold(), gc.get_freeze_count(), gc.isenabled()), before
print("unchanged")
"""


def test_the_library_leaves_the_collector_alone() -> None:
    """Neither the import nor a running service changes the settings of the collector."""
    run = subprocess.run(
        [sys.executable, "-c", LEAVES_THE_COLLECTOR_ALONE], capture_output=True, text=True
    )
    assert (run.stdout, run.returncode) == ("unchanged\n", 0), run.stderr


async def tls_server_closes(server: SecuredPeer, client: Peer) -> None:
    await server.close()
    assert await client.rest() == (b"", END)
    client.close()


async def tls_server_resets(server: SecuredPeer, client: Peer) -> None:
    server.peer.reset()
    assert await client.rest() == (b"", RESET)


async def tls_client_resets(client: SecuredPeer, server: Peer) -> None:
    client.peer.reset()
    assert await server.rest() == (b"", RESET)


@pytest.mark.parametrize(
    ("side", "end"),
    [
        ("upstream", tls_server_closes),
        ("upstream", tls_server_resets),
        ("downstream", tls_client_resets),
    ],
)
async def test_what_tls_leaves_to_the_collector(
    secured: Secured, side: str, end: Callable[[SecuredPeer, Peer], Awaitable[None]]
) -> None:
    """If Twisted's TLS leaves cycles, the collector frees everything that the cycles keep."""
    proxied = secured.proxied
    session = secured.start(side)
    before: Counter[str] = Counter()
    for count in (1, 2):
        one, other = await session
        await one.send(b"question")
        assert await other.receive(8) == b"question"
        await end(one, other)
        del one, other
        await over(proxied, count)
        gc.collect()
        before = before or alive()
        session = secured.another(side)
    session.close()
    assert not alive() - before
