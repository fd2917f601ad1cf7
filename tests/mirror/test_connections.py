"""Copies over all kinds of connections, beside filters and faults; and what is left of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.protocols.policies import WrappingFactory
from zope.interface import implementer

from evproxy import Mirror, Pool
from evproxy.faults import truncate
from evproxy.settings import PoolTLS
from evproxy.stages import filtered
from tests.mirror.test_mirrors import Mirrored, one_kind
from tests.support.certificates import Certificates
from tests.support.collector import alive, garbage
from tests.support.peers import END, RESET, Listening, Peer
from tests.support.proxies import Proxied
from tests.support.secured import CLOSED, SecuredPeer
from tests.support.tls import TLSPeer, context_of


class Upper:
    """A filter."""

    def __init__(self, status: object) -> None:
        """Nothing to keep."""

    def upload(self, data: bytes) -> bytes:
        return data.upper()


class Second:
    """A second server of one kind, and how it sees the end of a stream."""

    def __init__(self, proxied: Proxied, certificates: Certificates, path: Path) -> None:
        self.proxied = proxied
        self.certificates = certificates
        self.path = str(path / "second.sock")
        self.options: dict[str, Any] = {}

    def tcp(self) -> tuple[Listening, str]:
        listening = Listening.tcp(self.proxied.reactor)
        return listening, f"127.0.0.1:{listening.port}"

    def twisted(self) -> tuple[Listening, str]:
        listening = Listening.tcp(self.proxied.reactor)
        return listening, f"tcp:127.0.0.1:{listening.port}:timeout=5"

    def unix(self) -> tuple[Listening, str]:
        return Listening.unix(self.proxied.reactor, self.path), f"unix:{self.path}"

    def tls(self) -> tuple[Listening, str]:
        listening, server = self.tcp()
        context = context_of(self.certificates, "1.3", serves=True)
        listening.peer = partial(TLSPeer, context=context, serves=True)
        trusted = f"{self.certificates.authorities}/ca.pem"
        self.options = {"tls": PoolTLS(server_name="127.0.0.1", ca=trusted)}
        return listening, server


@pytest.fixture
def second(proxied: Proxied, certificates: Certificates, tmp_path: Path) -> Second:
    return Second(proxied, certificates, tmp_path)


@one_kind
@pytest.mark.parametrize("kind", ["tcp", "twisted", "unix", "tls"])
@pytest.mark.every_reactor
async def test_any_second_server(proxied: Proxied, second: Second, kind: str) -> None:
    """It gets the bytes and the end, and its answer is compared."""
    mirrored = Mirrored(proxied, answers="compare")
    mirrored.second, name = getattr(second, kind)()
    proxied.closes(mirrored.second)
    await mirrored.start(name, shadow=second.options)
    client, server, copy = await mirrored.trio()
    await client.send(b"question" * 1000)
    client.end()
    for each in (server, copy):
        assert await each.rest() == (b"question" * 1000, END)
        await each.send(b"answer" * 1000)
        each.end()
    assert await client.rest() == (b"answer" * 1000, END)
    record = await mirrored.copies.only()
    assert (record.outcome, record.answers, record.error) == ("whole", "equal", "")
    assert (record.bytes_sent, record.bytes_answered) == (8000, 6000)


@one_kind
@pytest.mark.parametrize("kind", ["twisted", "tls"])
async def test_a_reset_over_any_connection(proxied: Proxied, second: Second, kind: str) -> None:
    """The reset of the client is no end in order for the second server."""
    mirrored = Mirrored(proxied)
    mirrored.second, name = getattr(second, kind)()
    proxied.closes(mirrored.second)
    await mirrored.start(name, shadow=second.options)
    client, server, copy = await mirrored.trio()
    await client.send(b"question")
    assert await server.receive(8) == await copy.receive(8) == b"question"
    client.reset()
    assert await copy.rest() == (b"", RESET)
    assert (await mirrored.copies.only()).outcome == "whole"


@one_kind
async def test_twisted_tls_with_clients(proxied: Proxied, certificates: Certificates) -> None:
    """An ``ssl:`` listener ends both streams at once: the copy ends in order, too."""
    pem = certificates.pem
    mirrored = Mirrored(proxied)
    await mirrored.start(listen=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}")
    client = SecuredPeer(proxied.client(), certificates.client)
    await client.handshake()
    server, copy = await proxied.upstream.accept(), await mirrored.second.accept()
    await client.send(b"question")
    assert await server.receive(8) == b"question"
    await client.close()
    assert await copy.rest() == (b"question", END)
    copy.close()
    assert await server.rest() == (b"", END)
    server.close()
    assert (await mirrored.copies.only()).outcome == "whole"


@one_kind
async def test_twisted_tls_with_the_second_server(
    proxied: Proxied, certificates: Certificates
) -> None:
    """A ``tls:`` endpoint cannot end one direction alone: the client's end ends the copy whole."""
    mirrored = Mirrored(proxied, answers="compare")
    port, trusted = mirrored.second.port, certificates.authorities
    await mirrored.start(f"tls:127.0.0.1:{port}:trustRoots={trusted}")
    client, server = await proxied.pair()
    copy = SecuredPeer(await mirrored.second.accept(), certificates.server, serves=True)
    await copy.handshake()
    await client.send(b"question")
    client.end()
    assert await server.rest() == (b"question", END)
    server.end()
    assert await client.rest() == (b"", END)
    assert await copy.rest() == (b"question", CLOSED)
    await copy.close()
    record = await mirrored.copies.only()
    assert (record.outcome, record.answers, record.bytes_sent) == ("whole", "equal", 8)


@implementer(IStreamClientEndpoint)
class Wrapping:
    """A client endpoint that wraps each connection, and so cannot end one direction alone."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Any:
        return self._endpoint.connect(WrappingFactory(factory))


@one_kind
@pytest.mark.parametrize("ends_first", ["client", "second server"])
async def test_a_wrapped_second_server(proxied: Proxied, ends_first: str) -> None:
    """The client's end ends the copy whole; an end of the second server is no end for the rest."""
    mirrored = Mirrored(proxied)
    port = mirrored.second.port
    endpoint = Wrapping(TCP4ClientEndpoint(proxied.reactor, "127.0.0.1", port))
    await mirrored.start(endpoint)
    client, _, copy = await mirrored.trio()
    await client.send(b"question")
    assert await copy.receive(8) == b"question"
    (client if ends_first == "client" else copy).end()
    assert await copy.rest() == (b"", END if ends_first == "client" else RESET)
    copy.close()
    record = await mirrored.copies.only()
    assert record.outcome == ("whole" if ends_first == "client" else "reset")


@one_kind
async def test_filters_and_faults(proxied: Proxied) -> None:
    """A copy has what filters make of the bytes, and the pool's faults are for its server only."""
    mirrored = Mirrored(proxied)
    await mirrored.start(
        stages=[filtered(Upper)], faults=[truncate(3, stream="upstream")], faults_seed=1
    )
    client, server, copy = await mirrored.trio()
    await client.send(b"question")
    assert await copy.receive(8) == b"QUESTION"
    assert await server.receive(3) == b"QUE"


@one_kind
async def test_one_server_of_a_pool(proxied: Proxied) -> None:
    """A route that chooses a server itself keeps the mirror of the pool."""
    mirror = Mirror("second", to=object())
    pool = Pool(proxied.reactor, ["127.0.0.1:1"], mirror=mirror)
    assert pool.only("127.0.0.1:1").mirror is mirror


async def whole(client: Peer, server: Peer, copy: Peer) -> None:
    client.end()
    for each in (server, copy):
        await each.rest()
        each.close()
    await client.rest()


async def client_resets(client: Peer, server: Peer, copy: Peer) -> None:
    client.reset()
    await server.rest()
    await copy.rest()


async def second_server_resets(client: Peer, server: Peer, copy: Peer) -> None:
    copy.reset()
    client.end()
    await server.rest()
    server.close()
    await client.rest()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("proxied", ["socket", "socket-twisted"], indirect=True)
@pytest.mark.parametrize("ends", [whole, client_resets, second_server_resets])
async def test_nothing_is_left(proxied: Proxied, ends: Any) -> None:
    """Every object of a copy is gone once it has ended."""
    mirrored = Mirrored(proxied, answers="compare")
    await mirrored.start()

    async def session(count: int) -> None:
        client, server, copy = await mirrored.trio()
        await client.send(b"question")
        assert await server.receive(8) == await copy.receive(8) == b"question"
        await ends(client, server, copy)
        await proxied.observed.ended(count)
        await mirrored.copies.count(count)
        await deferLater(proxied.reactor, 0)

    await session(1)
    assert not garbage()
    before = alive()
    await session(2)
    assert not alive() - before
    assert not garbage()
