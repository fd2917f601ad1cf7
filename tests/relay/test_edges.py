"""Rare events in a relay: urgent data, a kernel that does not splice, a clock that lags."""

from __future__ import annotations

import errno
import os
import select
import socket
from contextlib import suppress
from socket import SocketType
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import deferLater
from zope.interface import implementer

from evproxy.engine.options import acknowledge
from evproxy.model import Ending, Side
from evproxy.relay.end import SILENT_AFTER
from evproxy.settings import Timeouts
from evproxy.sockets import connector as connecting
from evproxy.upstream.dialers import EndpointDialer
from tests.support.bulk import BULK, counted
from tests.support.certificates import Certificates
from tests.support.peers import END, RESET, Peer, converse
from tests.support.proxies import Proxied
from tests.support.secured import CLOSED, SecuredPeer
from tests.support.wrappers import Wrapping

pytestmark = pytest.mark.deadline(20)
socket_relay = pytest.mark.parametrize("proxied", ["socket", "socket-twisted"], indirect=True)


@socket_relay
async def test_urgent_data_in_bulk(proxied: Proxied) -> None:
    """Splicing stops at urgent data, and the bytes after it do not wait."""
    await proxied.start()
    client, server = await proxied.pair()
    sending = Deferred.fromCoroutine(client.send(BULK))
    received = await server.receive(len(BULK) // 2)
    assert proxied.plane.pipes.in_use == 1
    received += await server.receive(len(BULK) - len(received))
    await sending
    began = proxied.reactor.seconds()
    client.socket.send(b"!", socket.MSG_OOB)
    await client.send(b"after it")
    assert await server.receive(8) == b"after it"
    assert proxied.reactor.seconds() - began < SILENT_AFTER / 2
    assert received == BULK


@pytest.mark.parametrize(
    ("sends", "arrives"),
    [
        (["a", "!1", "b"], b"ab"),
        (["a", "!1"], b"a"),
        # evproxy has not read up to the first one, so it is a byte like any other (tcp(7)).
        (["a", "!1", "!2", "b"], b"a1b"),
    ],
)
async def test_urgent_data_is_left_out(proxied: Proxied, sends: list[str], arrives: bytes) -> None:
    """The urgent byte is left out; all other bytes arrive in order, and so does the end."""
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    for each in sends:
        urgent = each.startswith("!")
        client.socket.send(each[-1].encode(), socket.MSG_OOB if urgent else 0)
    client.end()
    urgent_too = select.poll()
    urgent_too.register(server.socket, select.POLLPRI)
    assert await server.rest() == (arrives, END)
    assert urgent_too.poll(0) == []


async def test_urgent_data_moves_no_byte(proxied: Proxied) -> None:
    """A session in which nothing but urgent data is sent is idle."""
    await proxied.start(timeouts=Timeouts(idle=0.3, half_close=0.3))
    client, server = await proxied.pair()
    await converse(client, server)
    while not proxied.observed.records:
        with suppress(ConnectionError):
            client.socket.send(b"!", socket.MSG_OOB)
        await deferLater(proxied.reactor, 0.01)
    assert proxied.observed.records[0].reason.how is Ending.IDLE


@socket_relay
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EINVAL])
async def test_splice_is_refused(
    proxied: Proxied, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """If the system does not allow splice, bulk is copied."""

    def refused(*arguments: Any, **options: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "splice", refused)
    await proxied.start()
    client, server = await proxied.pair()
    sending = Deferred.fromCoroutine(client.send(BULK))
    assert await server.receive(len(BULK)) == BULK
    await sending
    assert proxied.plane.pipes.in_use == 0
    client.end()
    server.end()
    await proxied.observed.ended()
    assert counted(proxied) == (len(BULK), 0, Ending.FINISHED)


async def test_the_first_session_after_a_quiet_time(proxied: Proxied) -> None:
    """The idle timeout of a session counts from its own beginning."""
    await proxied.start(timeouts=Timeouts(idle=0.6, half_close=0.1))
    first, _ = await proxied.pair()
    first.reset()
    await proxied.observed.ended()
    await deferLater(proxied.reactor, 0.7)
    began = proxied.reactor.seconds()
    client, _ = await proxied.pair()
    assert await client.rest() == (b"", RESET)
    assert proxied.reactor.seconds() - began >= 0.6


@implementer(IStreamClientEndpoint)
class Late:
    """Connects through another endpoint, but not before `go` has fired."""

    def __init__(self, endpoint: IStreamClientEndpoint, go: Deferred[None]) -> None:
        self._endpoint = endpoint
        self._go = go

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        return self._go.addCallback(lambda _: self._endpoint.connect(factory))


@socket_relay
async def test_a_reset_that_is_told_while_the_relay_is_chosen(
    proxied: Proxied, certificates: Certificates
) -> None:
    """A client that resets before its TLS server is connected has not ended in order."""
    port, trusted = proxied.upstream.port, certificates.authorities
    go: Deferred[None] = Deferred()
    endpoint = clientFromString(proxied.reactor, f"tls:127.0.0.1:{port}:trustRoots={trusted}")
    await proxied.start()
    for candidate in proxied.pool.candidates(info=None):  # type: ignore[arg-type]
        candidate.dialer = EndpointDialer(proxied.reactor, Late(endpoint, go))
    client = proxied.client()
    await client.send(BULK[:200_000])
    for _ in range(10):
        await deferLater(proxied.reactor, 0)
    client.reset()
    go.callback(None)
    if proxied.kind == "socket-twisted":
        server = SecuredPeer(await proxied.upstream.accept(), certificates.server, serves=True)
        # The reset may come before the handshake.
        with suppress(ConnectionResetError):
            await server.handshake()
            _, how = await server.rest()
            assert how != CLOSED
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.reason.by is Side.DOWNSTREAM
    assert record.reason.how in (Ending.RESET, Ending.LEFT)


def lingers(proxied: Proxied) -> bool:
    """Whether the engine of the proxy waits for events itself."""
    assert proxied.plane.engine is not None
    return proxied.plane.engine.lingers


async def test_nobody_waits_for_an_engine_that_lingers(proxied: Proxied) -> None:
    """The engine lingers only while it watches all connections of the service itself."""
    await proxied.start()
    proxied.plane.linger()
    await converse(*await proxied.pair())
    assert lingers(proxied) == (proxied.transports == "engine")


@pytest.mark.parametrize("proxied", ["socket", "stream"], indirect=True)
async def test_an_engine_lingers_beneath_wrappers(proxied: Proxied) -> None:
    """The engine also watches the sockets of wrapped connections."""
    await proxied.start(**Wrapping().arguments())
    proxied.plane.linger()
    await converse(*await proxied.pair())
    assert lingers(proxied)


async def test_an_engine_lingers_until_there_is_tls(
    proxied: Proxied, certificates: Certificates
) -> None:
    """The reactor watches a connection with TLS, which would wait while the engine waits."""
    pem = certificates.pem
    await proxied.start(listen=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}")
    proxied.plane.linger()
    assert lingers(proxied)
    client = SecuredPeer(proxied.client(), certificates.client)
    await client.handshake()
    assert not lingers(proxied)


@pytest.mark.parametrize("proxied", ["socket", "stream"], indirect=True)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_a_server_that_resets_once_it_is_connected(
    proxied: Proxied, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """
    A reset during the self-connect check is a reset like any other, whether the connect finished
    at once or with an event, and later sessions do not notice it.
    """

    class Looked(SocketType):
        def getpeername(self) -> Any:
            # The server does not know of the connection before its acknowledgement.
            acknowledge(self)
            Peer(proxied.reactor, proxied.upstream.socket.accept()[0]).reset()
            return super().getpeername()

    await proxied.start(upstreams=[f"{host}:{proxied.upstream.port}"])
    with monkeypatch.context() as patch:
        patch.setattr(connecting, "SocketType", Looked)
        assert await proxied.client().rest() == (b"", RESET)
        await proxied.observed.ended()
    [record] = proxied.observed.records
    assert (record.reason.by, record.reason.how) == (Side.UPSTREAM, Ending.RESET)
    await proxied.admission.sessions.when_empty()
    client, server = await proxied.pair()
    await converse(client, server)
