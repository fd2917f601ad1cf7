"""The last segment of a handshake, an acknowledgement: it goes with bytes, or at once."""

from __future__ import annotations

import socket
from fcntl import ioctl
from struct import unpack, unpack_from

import pytest
from twisted.internet.defer import Deferred

from evproxy.records import SessionStatus
from tests.support.own_sockets import socket_to
from tests.support.peers import Peer, turn
from tests.support.proxies import Proxied

SENT_OFFSET = 136
"""The offset of ``tcpi_segs_out`` in TCP_INFO (linux/tcp.h)."""

SIOCOUTQNSD = 0x894B
"""How many bytes the kernel has not sent yet (linux/sockios.h)."""


class Connected:
    """An observer that waits for a session to be connected."""

    def __init__(self) -> None:
        self.next: Deferred[None] = Deferred()

    def session_connected(self, status: SessionStatus) -> None:
        now, self.next = self.next, Deferred()
        now.callback(None)


def segments(peer: Peer) -> int:
    """How many segments the proxy has sent to `peer`."""
    with socket_to(peer) as sock:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SENT_OFFSET + 4)
    sent: int = unpack_from("I", info, SENT_OFFSET)[0]
    return sent


@pytest.mark.lingering
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_it_goes_with_bytes(proxied: Proxied, host: str) -> None:
    """If a client has sent bytes, its server gets them with the acknowledgement."""
    await proxied.start(upstreams=[f"{host}:{proxied.upstream.port}"])
    proxied.client().send_now(b"hello")
    server = await proxied.upstream.accept()
    assert await server.receive(5) == b"hello"
    # The server has sent nothing that would be acknowledged.  A stream relay reads nothing early;
    # but bytes that came while it connected are there.
    apart = "twisted" in proxied.kind or (proxied.kind == "stream" and host == "127.0.0.1")
    assert segments(server) == (3 if apart else 2)


@pytest.mark.lingering
@pytest.mark.staged
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_a_silent_client(proxied: Proxied, host: str) -> None:
    """Its server learns of the connection at once, and so does that of the next one."""
    connected = Connected()
    upstreams = [f"{host}:{proxied.upstream.port}"]
    await proxied.start(upstreams=upstreams, observers=[connected])
    for _ in range(2):
        coming = connected.next
        proxied.client()
        await coming
        await turn(proxied.reactor)
        assert not proxied.upstream.nobody_waits()


async def test_a_header_goes_with_it(proxied: Proxied) -> None:
    """A PROXY header is sent with it, also if the client is silent."""
    await proxied.start(send_proxy_protocol=2)
    proxied.client()
    server = await proxied.upstream.accept()
    await server.receive(28)
    assert segments(server) == (3 if "twisted" in proxied.kind else 2)


@pytest.mark.lingering
@pytest.mark.staged
@pytest.mark.parametrize(("early", "later"), [(b"", b""), (b"?", b""), (b"?", b"!"), (b"", b"?")])
@pytest.mark.parametrize("header", [0, 2])
async def test_small_writes_of_a_server(
    proxied: Proxied, early: bytes, later: bytes, header: int
) -> None:
    """The second does not wait for a delayed acknowledgement of the first (Nagle's algorithm)."""
    await proxied.start(send_proxy_protocol=header)
    client = proxied.client()
    client.send_now(early)
    server = await proxied.upstream.accept()
    await server.receive((28 if header else 0) + len(early))
    await client.send(later)
    await server.receive(len(later))
    server.send_now(b"a")
    server.send_now(b"b")
    assert await client.receive(1) in b"ab"
    assert unpack("i", ioctl(server.socket, SIOCOUTQNSD, bytes(4))) == (0,)
