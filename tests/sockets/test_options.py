"""The options in the kernel of the sockets of a session, and of listening sockets."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from struct import unpack_from
from typing import Any

import pytest
from twisted.internet.protocol import Factory

from evproxy.engine.options import LASTING
from evproxy.hub import Hub
from evproxy.service.listener import server_endpoint
from evproxy.session.admission import Admission
from evproxy.session.factory import ProxyFactory
from evproxy.session.halves import DownstreamProtocol
from evproxy.settings import Keepalive, Timeouts
from evproxy.sockets.plane import DataPlane
from tests.support.certificates import Certificates
from tests.support.own_sockets import socket_to
from tests.support.peers import Peer, converse, turn
from tests.support.proxies import Proxied
from tests.support.secured import Secured
from tests.support.wrappers import Wrapping

OPTIONS = {
    "no delay": (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    "keepalive": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    "idle": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    "interval": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    "probes": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6),
}
QUEUE_OFFSET = 28
"""The offset of ``tcpi_sacked`` in TCP_INFO (linux/tcp.h): the backlog of a listening socket."""
SOMAXCONN = int(Path("/proc/sys/net/core/somaxconn").read_text())
LOOPBACK = "0:interface=127.0.0.1"


WANTED = {name: value for name, (_, _, value) in OPTIONS.items()}
AT_ONCE = {"no delay": 1}
with socket.socket() as unused:
    DEFAULTS = {name: unused.getsockopt(*option[:2]) for name, option in OPTIONS.items()}


def options(peer: Peer) -> dict[str, int]:
    """The options of evproxy's socket that is connected to `peer`."""
    with socket_to(peer) as other:
        return {name: other.getsockopt(*option[:2]) for name, option in OPTIONS.items()}


def assert_options(peer: Peer) -> None:
    """evproxy's socket that is connected to `peer` has all options."""
    assert options(peer) == WANTED


@pytest.mark.parametrize("wrapped", [False, True])
async def test_the_sockets_of_a_session(proxied: Proxied, wrapped: bool) -> None:
    """Both send without delay, and once the session lasts, the kernel probes them when idle."""
    # The first look at a session comes no later than the half-close timeout.
    wrapping = Wrapping(upstream=True).arguments() if wrapped else {}
    await proxied.start(timeouts=Timeouts(half_close=0.1), **wrapping)
    client, server = await proxied.pair()
    await converse(client, server)
    assert_options(client)
    assert options(server).items() >= AT_ONCE.items()
    while options(server) != WANTED:
        await turn(proxied.reactor)
    assert proxied.admission.sessions


@pytest.mark.parametrize("proxied", ["socket", "stream", "tls-client-1.3"], indirect=True)
async def test_what_a_protocol_has_chosen(proxied: Proxied) -> None:
    """A protocol may switch keepalive off, and it stays off once the session lasts."""

    class Downstream(DownstreamProtocol):
        def connectionMade(self) -> None:
            transport: Any = self.transport
            transport.setTcpKeepAlive(False)
            super().connectionMade()

    class Made(ProxyFactory):
        protocol = Downstream

    await proxied.start(timeouts=Timeouts(half_close=0.1), factory=Made)
    client, server = await proxied.pair()
    await converse(client, server)
    while options(server) != WANTED:
        await turn(proxied.reactor)
    assert options(client) == WANTED | {"keepalive": 0}


@pytest.mark.parametrize("proxied", ["socket", "stream"], indirect=True)
@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_short_session(proxied: Proxied, wrapped: bool) -> None:
    """It needs no system calls for the probes of its server."""
    await proxied.start(**Wrapping(upstream=True).arguments() if wrapped else {})
    client, server = await proxied.pair()
    await converse(client, server)
    assert_options(client)
    assert options(server) == DEFAULTS | AT_ONCE


@pytest.mark.parametrize("idle", [1, int(2 * LASTING) - 1])
async def test_keepalive_that_cannot_wait(proxied: Proxied, idle: int) -> None:
    """If the first probe may be due before the session lasts, its times are set at once."""
    await proxied.start(keepalive=Keepalive(idle=idle))
    client, server = await proxied.pair()
    await converse(client, server)
    assert options(client) == options(server) == WANTED | {"idle": idle}


async def test_the_sockets_beneath_tls(proxied: Proxied, certificates: Certificates) -> None:
    """The sockets of a session with TLS to its client have the options too."""
    secured = Secured(proxied, certificates)
    client, server = await secured.downstream()
    await client.send(b"?")
    await server.receive(1)
    assert_options(client.peer)
    assert options(server).items() >= AT_ONCE.items()


async def test_the_sockets_beneath_tls_to_a_server(
    proxied: Proxied, certificates: Certificates
) -> None:
    """The sockets of a session with TLS to its server have the options too."""
    server, client = await Secured(proxied, certificates).upstream()
    await server.send(b"?")
    await client.receive(1)
    assert_options(client)
    assert_options(server.peer)


@pytest.mark.parametrize(
    ("description", "backlog"),
    [
        (f"tcp:{LOOPBACK}", 4096),
        (f"haproxy:tcp:{LOOPBACK}", 4096),
        (f"ssl:{LOOPBACK}:privateKey={{pem}}", 4096),
        (f"tcp:{LOOPBACK}:backlog=50", 50),
        (f"haproxy:tcp:{LOOPBACK}:backlog=50", 50),
        (f"ssl:{LOOPBACK}:privateKey={{pem}}:backlog=7", 7),
    ],
)
async def test_the_accept_queue(
    reactor: Any, certificates: Certificates, description: str, backlog: int
) -> None:
    """It holds 4096 unless the description says otherwise, whatever the port is wrapped in."""
    plane = DataPlane(reactor, "auto", Admission(reactor, 1, Hub()), Keepalive())
    endpoint = server_endpoint(plane.listening, description.format(pem=certificates.pem))
    port: Any = await endpoint.listen(Factory())
    info = port.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, QUEUE_OFFSET + 4)
    await port.stopListening()
    assert unpack_from("I", info, QUEUE_OFFSET) == (min(backlog, SOMAXCONN),)


async def test_the_accept_queue_of_a_path(reactor: Any, tmp_path: Path) -> None:
    """That of a UNIX socket is no shorter; a connect to a full one would fail."""
    plane = DataPlane(reactor, "auto", Admission(reactor, 1, Hub()), Keepalive())
    port: Any = await server_endpoint(plane.listening, f"unix:{tmp_path}/s").listen(Factory())
    with ExitStack() as stack:
        for _ in range(min(200, SOMAXCONN)):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(f"{tmp_path}/s")
    await port.stopListening()
