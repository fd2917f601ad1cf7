"""What was sent to a peer arrives, whichever stream a fault ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from evproxy.faults import Faults, FaultSettings, end, limit
from evproxy.settings import Timeouts
from tests.support.bulk import MANY
from tests.support.peers import END, Peer, turn
from tests.support.proxies import Proxied

pytestmark = pytest.mark.parametrize("proxied", ["socket", "socket-twisted"], indirect=True)

QUESTION = bytes(100_000)


async def send_on(proxied: Proxied, peer: Peer) -> None:
    """Send more from `peer`, as long as the kernel takes it."""
    with suppress(ConnectionError):
        for _ in range(20):
            peer.send_now(QUESTION)
            await turn(proxied.reactor)


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("stream", ["upstream", "downstream"])
async def test_a_limit_while_both_send(
    proxied: Proxied, tmp_path: Path, stream: str, unix: bool
) -> None:
    """The peer whose stream is cut gets all that was sent to it, and the end, not a reset."""
    faults = Faults(proxied.reactor, [limit(50_000, stream=stream, after_bytes=1)])
    listen = f"unix:{tmp_path}/socket" if unix else "tcp:0:interface=127.0.0.1"
    await proxied.start(stages=[faults], listen=listen)
    client, server = await proxied.pair()
    source, sink = (client, server) if stream == "upstream" else (server, client)
    await source.send(b"?")
    await sink.receive(1)
    quiet = 0
    while quiet < 20:
        quiet = 0 if sink.send_now(MANY) else quiet + 1
        await turn(proxied.reactor)
    (status,) = proxied.factory.sessions()
    moved = status.bytes_to_downstream if stream == "upstream" else status.bytes_to_upstream
    await send_on(proxied, source)
    received, how = await source.rest()
    assert (len(received), how) == (moved, END)
    assert moved > 100_000
    assert (await sink.rest()) == (QUESTION[:50_000], END)
    await proxied.observed.ended()


async def test_an_end_while_the_client_sends_on(proxied: Proxied) -> None:
    """The client gets the whole answer of a server that got the end."""
    faults = Faults(proxied.reactor, [end(50_000, stream="upstream")])
    await proxied.start(stages=[faults])
    client, server = await proxied.pair()
    await send_on(proxied, client)
    assert await server.rest() == (QUESTION[:50_000], END)
    await send_on(proxied, client)
    await server.send(b"answer" * 1000)
    server.end()
    await send_on(proxied, client)
    assert await client.rest() == (b"answer" * 1000, END)
    await proxied.observed.ended()


async def test_an_end_of_both_streams(proxied: Proxied) -> None:
    """Each peer gets its bytes and the end, while both send on."""
    await proxied.start(stages=[Faults(proxied.reactor, [end(50_000, stream="both")])])
    client, server = await proxied.pair()
    for peer in (client, server):
        await send_on(proxied, peer)
    for peer in (client, server):
        assert await peer.rest() == (QUESTION[:50_000], END)
    await proxied.observed.ended()


@pytest.mark.parametrize("fault", [limit, end])
@pytest.mark.parametrize("stream", ["upstream", "downstream"])
async def test_peers_that_leave_meanwhile(
    proxied: Proxied, tmp_path: Path, fault: Callable[..., FaultSettings], stream: str
) -> None:
    """The session ends without an error, whoever leaves with bytes to come, and when."""
    faults = Faults(proxied.reactor, [fault(50_000, stream=stream)])
    listen = f"unix:{tmp_path}/socket"
    await proxied.start(stages=[faults], listen=listen, timeouts=Timeouts(half_close=0.1))
    for turns in (0, 1, 2, 4, 20):
        client, server = await proxied.pair()
        for peer in (client, server):
            with suppress(ConnectionError):
                peer.send_now(MANY)
        for _ in range(turns):
            await turn(proxied.reactor)
        (client if turns % 2 else server).close()
        await turn(proxied.reactor)
        client.close()
        server.close()
    await proxied.observed.ended(5)
