"""Faults where other features are in use: PROXY headers, TLS, UNIX sockets, faults of the pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from evproxy.faults import Faults, FaultSettings, corrupt, latency, slicer, stall, truncate
from evproxy.model import UpstreamServer
from tests.support.peers import END
from tests.support.proxies import Proxied

KINDS = ["socket", "socket-twisted", "tls-client-1.3", "tls-server-1.3", "tls-both-1.2"]

SENT = bytes(range(256)) * 4

MEETINGS: dict[str, tuple[list[FaultSettings], list[FaultSettings]]] = {
    "both have delays": ([latency(0.01), slicer(300)], [latency(0.01), slicer(200)]),
    "a listener's cut, a pool's delay": ([truncate(600)], [latency(0.02)]),
    "a pool's cut, a listener's delay": ([latency(0.02)], [truncate(600)]),
    "a pool's stall is over": ([truncate(600)], [stall(lasts=0.05)]),
}


@pytest.mark.parametrize("proxied", KINDS, indirect=True)
@pytest.mark.parametrize("meeting", MEETINGS)
async def test_faults_of_a_listener_and_its_pool(
    proxied: Proxied, tmp_path: Path, meeting: str
) -> None:
    """Each does what it does alone: over TCP, a UNIX socket, and TLS with either side."""
    of_listener, of_pool = MEETINGS[meeting]
    faults = Faults(proxied.reactor, of_listener, seed=1)
    listen = (
        f"unix:{tmp_path}/socket"
        if proxied.kind == "socket-twisted"
        else "tcp:0:interface=127.0.0.1"
    )
    await proxied.start(stages=[faults], faults=of_pool, listen=listen)
    client, server = await proxied.pair()
    await client.send(b"?")
    await server.receive(1)
    await server.send(SENT)
    server.end()
    expected = SENT[:600] if "cut" in meeting or "stall" in meeting else SENT
    assert await client.rest() == (expected, END)


@pytest.mark.parametrize("proxied", ["socket", "socket-twisted", "tls-client-1.3"], indirect=True)
@pytest.mark.parametrize("version", [1, 2])
async def test_a_proxy_header_is_left_alone(proxied: Proxied, version: int) -> None:
    """Faults are about the client's bytes: all of them are changed, and none of the header."""
    upstream = UpstreamServer(f"127.0.0.1:{proxied.upstream.port}", send_proxy_protocol=version)
    fault = corrupt(1.0, stream="upstream")
    await proxied.start(stages=[Faults(proxied.reactor, [fault])], upstreams=[upstream])
    client, server = await proxied.pair()
    await client.send(b"hello")
    start = b"PROXY TCP4 127.0.0.1 127.0.0.1 " if version == 1 else b"\r\n\r\n\x00\r\nQUIT\n"
    assert await server.receive(len(start)) == start
    client.end()
    rest = await server.rest()
    assert not any(one == other for one, other in zip(rest[0][-5:], b"hello", strict=True))
