"""Who may come in: networks, bounds and rates of a listener and of its clients."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from evproxy import ListenerSettings, PoolSettings, ProxyService, Settings, UpstreamServer
from evproxy.model import Ending
from evproxy.policy.refusal import Refusal
from evproxy.session.refusals import INTERVAL, Refusals
from evproxy.wire.proxy_protocol import InetAddress, ProxyHeader, header_bytes
from tests.support.peers import RESET, Listening, Peer, converse
from tests.support.proxies import Observed

pytestmark = pytest.mark.deadline(20)


class Refused(Observed):
    """Remembers who is refused, too."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[tuple[str, str, int, str]] = []

    def clients_refused(self, listener: str, reason: str, count: int, peer: str) -> None:
        self.refused.append((listener, reason, count, peer))


class Guarded:
    """A service whose listener has an entry, and its peers."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.observed = Refused()
        self.upstream = Listening.tcp(reactor)
        self._peers: list[Peer] = []
        self.service: ProxyService

    def start(self, **listener: Any) -> None:
        """Start with these settings of the listener."""
        server = UpstreamServer(f"127.0.0.1:{self.upstream.port}")
        listener.setdefault("listen", "tcp:0:interface=127.0.0.1")
        settings = Settings(
            listeners=(ListenerSettings(name="web", **listener),),
            pools=(PoolSettings(upstreams=(server,)),),
        )
        self.service = ProxyService(self.reactor, settings=settings, observers=[self.observed])
        self.service.startService()

    def client(self, source: str = "127.0.0.1") -> Peer:
        """A client that connects from `source`."""
        address: Any = self.service.addresses[0]
        sock = socket.socket()
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", address.port))
        peer = Peer(self.reactor, sock)
        self._peers.append(peer)
        return peer

    async def served(self, source: str = "127.0.0.1") -> tuple[Peer, Peer]:
        """A client from `source` that has a session, and its server."""
        client = self.client(source)
        server = await self.upstream.accept()
        await converse(client, server)
        return client, server

    async def refused(self, source: str = "127.0.0.1") -> None:
        """Check that a client from `source` is reset without an answer."""
        assert await self.client(source).rest() == (b"", RESET)

    @property
    def counts(self) -> dict[str, int]:
        [listener] = self.service.status().listeners
        return dict(listener.refused)

    async def close(self) -> None:
        for peer in self._peers:
            peer.close()
        self.upstream.close()
        if hasattr(self, "service"):
            await self.service.drain(0)


@pytest.fixture
def guarded(reactor: Any) -> Iterator[Guarded]:
    """A service with an entry, to be started; it is stopped after the test."""
    guarded = Guarded(reactor)
    yield guarded
    pytest_twisted.blockon(Deferred.fromCoroutine(guarded.close()).addTimeout(20, reactor))


async def test_networks(guarded: Guarded) -> None:
    """Who is denied, or not allowed, is reset at once; no session begins."""
    guarded.start(allow=("127.0.0.0/24",), deny=("127.0.0.9",))
    await guarded.served()
    await guarded.refused("127.0.0.9")
    await guarded.refused("127.0.1.1")
    assert guarded.counts == {"denied": 1, "not-allowed": 1}
    assert guarded.service.status().session_count == 1
    assert guarded.observed.records == []
    assert guarded.observed.refused == [
        ("web", "denied", 1, "127.0.0.9"),
        ("web", "not-allowed", 1, "127.0.1.1"),
    ]


async def test_unix_clients_are_in_no_network(guarded: Guarded, tmp_path: Path) -> None:
    """The permissions of the path decide, not the lists."""
    guarded.start(listen=f"unix:{tmp_path}/listener", allow=("192.0.2.1",))
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(f"{tmp_path}/listener")
    client = Peer(guarded.reactor, sock)
    server = await guarded.upstream.accept()
    await converse(client, server)
    client.close()


async def test_the_client_behind_a_header(guarded: Guarded) -> None:
    """The lists are about the client, and not about the proxy that sends its header."""
    guarded.start(deny=("192.0.2.7", "127.0.0.1"), accept_proxy_protocol_from=("127.0.0.1",))
    destination = InetAddress("192.0.2.1", 443)
    bad = guarded.client()
    await bad.send(header_bytes(ProxyHeader(2, InetAddress("192.0.2.7", 1), destination)))
    assert await bad.rest() == (b"", RESET)
    await guarded.observed.ended()
    [record] = guarded.observed.records
    assert (record.peer, record.reason.how) == ("192.0.2.7:1", Ending.REFUSED)
    assert record.error == "the client is refused: denied"
    good = guarded.client()
    await good.send(header_bytes(ProxyHeader(2, InetAddress("192.0.2.8", 1), destination)))
    await converse(good, await guarded.upstream.accept())


async def test_the_bound_of_a_listener(guarded: Guarded) -> None:
    """Beyond it clients are reset; the end of a session makes room."""
    guarded.start(max_sessions=2)
    client, server = await guarded.served()
    await guarded.served()
    await guarded.refused()
    assert guarded.counts == {"listener-sessions": 1}
    client.reset()
    await server.rest()
    await guarded.observed.ended()
    await guarded.served()


async def test_the_bound_of_a_client(guarded: Guarded) -> None:
    """One client cannot take the places of the others."""
    guarded.start(max_sessions_per_peer=1)
    client, server = await guarded.served()
    await guarded.refused()
    await guarded.served("127.0.0.2")
    assert guarded.counts == {"client-sessions": 1}
    client.reset()
    await server.rest()
    await guarded.observed.ended()
    await guarded.served()


async def test_the_rate_of_a_client(guarded: Guarded) -> None:
    """A client that starts sessions too fast is refused; the others are not."""
    guarded.start(new_sessions_per_second_per_peer=0.01)
    await guarded.served()
    await guarded.refused()
    await guarded.served("127.0.0.2")
    assert guarded.counts == {"client-rate": 1}


async def test_the_rate_of_a_listener(guarded: Guarded) -> None:
    """Sessions that start too fast are refused, whoever starts them."""
    guarded.start(new_sessions_per_second=0.01)
    await guarded.served()
    await guarded.refused("127.0.0.2")
    assert guarded.counts == {"listener-rate": 1}


async def test_a_client_that_is_refused_uses_no_rate(guarded: Guarded) -> None:
    """The sessions of the listener that a client does not get are left for others."""
    guarded.start(new_sessions_per_second=2.0, max_sessions_per_peer=1)
    await guarded.served()
    for _ in range(5):
        await guarded.refused()
    await guarded.served("127.0.0.2")
    assert guarded.counts == {"client-sessions": 5}


def test_refusals_are_reported_at_a_bounded_rate() -> None:
    """The first of a reason is reported at once, and the next ones together."""
    clock, observed = Clock(), Refused()
    refusals = Refusals(clock, "web", observed)
    for number in range(5):
        refusals.count(Refusal.DENIED, f"192.0.2.{number}")
    refusals.count(Refusal.CLIENT_RATE, "192.0.2.9")
    assert observed.refused == [
        ("web", "denied", 1, "192.0.2.0"),
        ("web", "client-rate", 1, "192.0.2.9"),
    ]
    clock.advance(INTERVAL)
    assert observed.refused[2:] == [("web", "denied", 4, "192.0.2.4")]
    clock.advance(INTERVAL)
    assert len(observed.refused) == 3
    assert clock.getDelayedCalls() == []
    refusals.count(Refusal.DENIED, "192.0.2.1")
    refusals.count(Refusal.DENIED, "192.0.2.2")
    refusals.close()
    assert observed.refused[3:] == [
        ("web", "denied", 1, "192.0.2.1"),
        ("web", "denied", 1, "192.0.2.2"),
    ]
    assert refusals.totals == {Refusal.DENIED: 7, Refusal.CLIENT_RATE: 1}
    assert clock.getDelayedCalls() == []
