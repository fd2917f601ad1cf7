"""TLS handshakes that fail or stall on their way through evproxy."""

from __future__ import annotations

import ssl

import pytest

from evproxy.faults import Faults, tls_failure, tls_stall
from tests.support.peers import converse, turn
from tests.support.proxies import Proxied

pytestmark = pytest.mark.parametrize("proxied", ["socket"], indirect=True)


class Handshake:
    """A TLS client without a socket."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        self._tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self.hello = self.outgoing.read()

    def go_on(self, data: bytes) -> None:
        """Handle `data` from the server."""
        self.incoming.write(data)
        self._tls.do_handshake()


async def test_a_handshake_fails(proxied: Proxied) -> None:
    """A TLS client gets an alert that its library understands, and the server an end."""
    await proxied.start(stages=[Faults(proxied.reactor, [tls_failure()])])
    client, server = await proxied.pair()
    handshake = Handshake()
    await client.send(handshake.hello)
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        handshake.go_on(await client.some())
    assert await client.some() == b""
    assert (await server.rest())[0] == b""
    client.close()
    await proxied.observed.ended()


async def test_a_handshake_stalls(proxied: Proxied) -> None:
    """The server never sees the ClientHello."""
    await proxied.start(stages=[Faults(proxied.reactor, [tls_stall()])])
    client, server = await proxied.pair()
    await client.send(Handshake().hello)
    for _ in range(20):
        await turn(proxied.reactor)
    with pytest.raises(BlockingIOError):
        server.socket.recv(1)
    proxied.factory.abort()


async def test_clients_without_tls_are_left_alone(proxied: Proxied) -> None:
    """A client that begins with another byte is served."""
    await proxied.start(stages=[Faults(proxied.reactor, [tls_failure(), tls_stall()])])
    await converse(*await proxied.pair())
