"""Live sessions: observers are notified of starts, and programs list, end and drain sessions."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock

from evproxy import Pool, ProxyFactory, SessionStatus
from evproxy.model import Ending, Phase, Side
from evproxy.session.live import LiveSessions
from tests.support.peers import END, RESET, Listening, connect, converse
from tests.support.proxies import Proxied
from tests.support.services import Ground, called, until


class Starts:
    """A `SessionStartObserver` that records its calls."""

    def __init__(self) -> None:
        self.sessions: list[SessionStatus] = []

    def session_started(self, session: SessionStatus) -> None:
        self.sessions.append(session)


async def test_the_start_of_a_session(proxied: Proxied) -> None:
    """An observer is notified of each start; the record of the end has the same number."""
    starts = Starts()
    await proxied.start(observers=[starts])
    for _ in range(2):
        client, server = await proxied.pair()
        await converse(client, server)
        client.reset()
        await server.rest()
    await proxied.observed.ended(2)
    assert [each.id for each in starts.sessions] == [1, 2]
    assert [each.id for each in proxied.observed.records] == [1, 2]
    first = starts.sessions[0]
    assert (first.phase, first.listener, first.pool, first.upstream) == (
        Phase.ACCEPTED,
        "test",
        "",
        "",
    )
    assert first.peer == proxied.observed.records[0].peer


async def test_the_list_of_sessions(proxied: Proxied) -> None:
    """The list has the oldest sessions first, with their phases and byte counts."""
    await proxied.start()
    pairs = [await proxied.pair() for _ in range(3)]
    for client, server in pairs:
        await converse(client, server)
    first, second = proxied.factory.sessions(2)
    assert (first.id, second.id) == (1, 2)
    assert first.phase is Phase.RELAYING
    assert first.pool == proxied.pool.name
    assert first.upstream == f"127.0.0.1:{proxied.upstream.port}"
    assert first.relay == proxied.relay
    assert first.bytes_to_upstream == first.bytes_to_downstream > 0
    assert first.connect_time is not None
    assert 0 <= first.connect_time <= first.duration
    assert len(proxied.factory.sessions()) == 3
    assert proxied.factory.sessions(0) == ()


@pytest.mark.parametrize("proxied", ["socket", "stream"], indirect=True)
async def test_the_end_of_one_session(proxied: Proxied) -> None:
    """`end_session` resets both sides of one session; the other sessions go on."""
    await proxied.start()
    one, first = await proxied.pair()
    await converse(one, first)
    two, second = await proxied.pair()
    await converse(two, second)
    proxied.factory.end_session(2)
    assert await two.rest() == (b"", RESET)
    assert await second.rest() == (b"", RESET)
    [record] = proxied.observed.records
    assert (record.id, record.reason.by, record.reason.how) == (2, Side.PROXY, Ending.REQUESTED)
    await converse(one, first)
    for gone in (2, 99):
        with pytest.raises(LookupError, match=rf"^there is no session {gone}$"):
            proxied.factory.end_session(gone)


async def test_the_drain_of_a_factory(reactor: Any) -> None:
    """After its port has stopped, a factory drains: its running sessions finish."""
    async with Bare(reactor) as bare:
        client, server = await bare.pair()
        await bare.port.stopListening()
        drained = called(bare.factory.drain())
        assert not drained()
        await converse(client, server)
        client.end()
        assert await server.rest() == (b"", END)
        server.end()
        assert await client.rest() == (b"", END)
        await until(reactor, drained)


async def test_the_deadline_of_a_factory(reactor: Any) -> None:
    """At the deadline, the remaining sessions are reset."""
    async with Bare(reactor) as bare:
        client, server = await bare.pair()
        drained = called(bare.factory.drain(0))
        assert await client.rest() == await server.rest() == (b"", RESET)
        await until(reactor, drained)


async def test_a_client_of_a_factory_that_drains(reactor: Any) -> None:
    """During a drain, a listening port refuses; once the factory listens again, it serves."""
    async with Bare(reactor) as bare:
        drained = called(bare.factory.drain())
        await until(reactor, drained)
        refused = bare.client()
        assert (await refused.rest())[0] == b""
        await bare.port.stopListening()
        await bare.listen()
        await bare.pair()


async def test_the_abort_of_a_factory(reactor: Any) -> None:
    """`abort` resets all sessions, even if they take more than one turn of the reactor."""
    async with Bare(reactor) as bare:
        pairs = [await bare.pair() for _ in range(40)]
        bare.factory.abort()
        for peers in pairs:
            for peer in peers:
                assert await peer.rest() == (b"", RESET)
        await bare.factory.drain()
        assert bare.factory.sessions() == ()


class Bare:
    """A `ProxyFactory` as a user makes it, on a Twisted endpoint, and its peers."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._ground = Ground(reactor)
        self._upstream: Listening = self._ground.upstream
        pool = Pool(reactor, [f"127.0.0.1:{self._upstream.port}"])
        self.factory = ProxyFactory(pool)
        self._peers: list[Any] = []

    async def listen(self) -> None:
        endpoint = TCP4ServerEndpoint(self._reactor, 0, interface="127.0.0.1")
        self.port: Any = await endpoint.listen(self.factory)

    def client(self) -> Any:
        peer = connect(self._reactor, ("127.0.0.1", self.port.getHost().port))
        self._peers.append(peer)
        return peer

    async def pair(self) -> tuple[Any, Any]:
        client = self.client()
        server = await self._upstream.accept()
        self._peers.append(server)
        await converse(client, server)
        return client, server

    async def __aenter__(self) -> Bare:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self._peers:
            peer.close()
        stopped: Deferred[None] | None = self.port.stopListening()
        if stopped is not None:
            await stopped
        await self.factory.drain(0)
        await self._ground.close()


def test_a_drain_that_is_over_has_no_deadline() -> None:
    """A deadline that comes later leaves no timer, which would reset sessions of a new start."""
    clock = Clock()
    live = LiveSessions(clock)
    closing: Deferred[None] = Deferred()
    drained = live.drain(60.0, closing)
    live.end_within(30.0)
    [timer] = clock.getDelayedCalls()
    assert timer.getTime() == 30.0
    closing.callback(None)
    assert drained.called
    live.end_within(10.0)
    assert clock.getDelayedCalls() == []
