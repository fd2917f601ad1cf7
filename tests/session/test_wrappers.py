"""When code between a socket and its session closes the connection, evproxy closes it at once."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.protocols.policies import (
    LimitTotalConnectionsFactory,
    ThrottlingFactory,
    TimeoutFactory,
)

from evproxy.model import Ending, Phase, Side
from evproxy.session.factory import ProxyFactory
from evproxy.settings import Timeouts
from tests.support.bulk import BULK, ENDLESS, fill, passes
from tests.support.certificates import Certificates
from tests.support.peers import END, RESET, Peer, connect, converse
from tests.support.proxies import Proxied
from tests.support.secured import CLOSED, SecuredPeer
from tests.support.unreachable import Unanswered
from tests.support.wrappers import (
    Doors,
    Wrapping,
    drops,
    is_over,
)

pytestmark = [pytest.mark.deadline(15), pytest.mark.oldest_twisted]

GARBAGE = b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"
HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n"


@pytest.mark.parametrize("stay", [True, False])
@pytest.mark.parametrize("listen", ["haproxy:tcp:0:interface=127.0.0.1", "haproxy:unix:{}"])
async def test_scanners_do_not_fill_a_listener(
    proxied: Proxied, tmp_path: Any, listen: str, stay: bool
) -> None:
    """Whether clients without a PROXY header stay or leave, later clients are served."""
    await proxied.start(listen=listen.format(tmp_path / "proxy"), max_sessions=5)
    scanners = [proxied.client() for _ in range(5)]
    for scanner in scanners:
        await scanner.send(GARBAGE)
    if not stay:
        for scanner in scanners:
            scanner.close()
    client = proxied.client()
    await client.send(HEADER + b"?")
    while True:
        server = await proxied.upstream.accept()
        received, _ = await asked(server)
        if received:
            break
    assert received == b"?"
    await server.send(b"!")
    assert await client.receive(1) == b"!"
    if stay:
        for scanner in scanners:
            assert await drops(scanner) == END
    await proxied.observed.ended(5)
    for record in proxied.observed.records:
        assert record.reason.by is Side.DOWNSTREAM
        assert record.reason.how in (Ending.LEFT, Ending.RESET)
    assert len(proxied.admission.sessions) == 1


async def asked(server: Peer) -> tuple[bytes, bool]:
    """Return the first byte that a server gets, if any, and whether it was reset before."""
    try:
        return await server.some(1), False
    except ConnectionResetError:
        return b"", True


@pytest.mark.parametrize("answers", [True, False])
async def test_a_scanner_behind_tls(
    proxied: Proxied, certificates: Certificates, answers: bool
) -> None:
    """A scanner gets a close_notify and is gone at once, whether it answers or not."""
    pem = certificates.pem
    await proxied.start(listen=f"haproxy:ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}")
    client = SecuredPeer(proxied.client(), certificates.client)
    await client.handshake()
    await client.send(GARBAGE)
    server = await proxied.upstream.accept()
    assert await drops(server) == RESET
    if answers:
        assert await client.rest() == (b"", CLOSED)
        await client.close()
        await is_over(proxied, Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)
    else:
        await is_over(proxied, Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)
        assert await client.rest() == (b"", CLOSED)


async def test_a_scanner_behind_tls_while_nothing_is_connected(
    proxied: Proxied, certificates: Certificates, unanswered: Unanswered
) -> None:
    """A scanner is gone at once, too, while the session waits for its server."""
    pem = certificates.pem
    await proxied.start(
        listen=f"haproxy:ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
        upstreams=[unanswered.name],
        connect_timeout=60,
    )
    client = SecuredPeer(proxied.client(), certificates.client)
    await client.handshake()
    await client.send(GARBAGE)
    await is_over(proxied, Side.DOWNSTREAM, Ending.LEFT, Phase.CONNECTING)
    assert await client.rest() == (b"", CLOSED)


@pytest.mark.parametrize("reachable", [True, False])
async def test_an_idle_client_of_a_timeout_factory(
    proxied: Proxied, unanswered: Unanswered, reachable: bool
) -> None:
    """Twisted's own timeout closes the connection when it expires, whatever the session does."""
    await proxied.start(
        upstreams=None if reachable else [unanswered.name],
        connect_timeout=60,
        wrap=lambda factory: TimeoutFactory(factory, 0.2),
    )
    client = proxied.client()
    if reachable:
        server = await proxied.upstream.accept()
        await converse(client, server)
        assert await drops(server) == RESET
    assert await drops(client) == END
    await is_over(
        proxied,
        Side.DOWNSTREAM,
        *((Ending.RESET, Phase.RELAYING) if reachable else (Ending.LEFT, Phase.CONNECTING)),
    )


@pytest.mark.parametrize("wrap", [Doors, lambda factory: factory])
async def test_one_too_many_behind_a_wrapper(proxied: Proxied, wrap: Any) -> None:
    """A port that does not pause resets clients over the bound on sessions, wrapped or not."""
    await proxied.start(max_sessions=1)
    endpoint = TCP4ServerEndpoint(proxied.reactor, 0, interface="127.0.0.1")
    port = await endpoint.listen(wrap(proxied.factory))
    address = ("127.0.0.1", port.getHost().port)
    client = proxied.closes(connect(proxied.reactor, address))
    server = await proxied.upstream.accept()
    await converse(client, server)
    assert await drops(proxied.closes(connect(proxied.reactor, address))) == RESET
    await converse(client, server)
    await maybeDeferred(port.stopListening)


async def queued_behind_tls(proxied: Proxied, certificates: Certificates) -> SecuredPeer:
    """A client with TLS that a wrapper closes while bytes are queued for the client."""
    pem = certificates.pem
    wrapping = Wrapping()
    await proxied.start(
        listen=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
        timeouts=Timeouts(half_close=0.5),
        **wrapping.arguments(),
    )
    client = SecuredPeer(proxied.client(), certificates.client)
    await client.handshake()
    server = await proxied.upstream.accept()
    await client.send(b"?")
    await server.receive(1)
    await fill(proxied.reactor, server)
    wrapping.door.transport.write(BULK)
    wrapping.door.close()
    return client


async def test_a_wrapper_above_tls_with_bytes_queued(
    proxied: Proxied, certificates: Certificates
) -> None:
    """The client gets the bytes that were written before, and then the close_notify."""
    client = await queued_behind_tls(proxied, certificates)
    received, end = await client.rest()
    assert end == CLOSED
    sent = received[: len(received) - len(BULK)]
    assert received == bytes(ENDLESS[: len(sent)]) + BULK
    await is_over(proxied, Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)
    assert proxied.observed.records[0].bytes_to_downstream == len(sent)


async def test_a_tls_client_that_takes_nothing(
    proxied: Proxied, certificates: Certificates
) -> None:
    """For a TLS client that reads nothing, evproxy waits until the half-close timeout."""
    client = await queued_behind_tls(proxied, certificates)
    await is_over(proxied, Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)
    _, end = await client.rest()
    assert end != CLOSED


async def test_a_wrapper_above_tls_of_a_server(
    proxied: Proxied, certificates: Certificates
) -> None:
    """The upstream side closes in the same way as the downstream side."""
    wrapping = Wrapping(upstream=True)
    port, trusted = proxied.upstream.port, certificates.authorities
    await proxied.start(
        upstreams=[f"tls:127.0.0.1:{port}:trustRoots={trusted}"], **wrapping.arguments()
    )
    client = proxied.client()
    accepted = await proxied.upstream.accept()
    server = SecuredPeer(accepted, certificates.server, serves=True)
    await server.handshake()
    await client.send(b"?")
    await server.receive(1)
    await server.send(b"half an ans")
    assert await client.receive(11) == b"half an ans"
    wrapping.door.close()
    assert await drops(client) == RESET
    assert await server.rest() == (b"", CLOSED)
    await is_over(proxied, Side.UPSTREAM, Ending.RESET, Phase.RELAYING)


async def test_a_limit_on_connections(proxied: Proxied) -> None:
    """Twisted's own limit closes only the connections over the limit."""

    def limited(factory: ProxyFactory) -> Any:
        limit: Any = LimitTotalConnectionsFactory()
        limit.connectionLimit = 1
        limit.protocol = lambda: factory.buildProtocol(None)
        return limit

    await proxied.start(wrap=limited)
    client, server = await proxied.pair()
    await converse(client, server)
    assert await drops(proxied.client()) == RESET
    await converse(client, server)
    client.close()
    await proxied.observed.ended()


async def test_a_throttle(proxied: Proxied) -> None:
    """Twisted's own throttle pauses and resumes both directions; every byte arrives."""
    throttles = []

    def throttled(factory: ProxyFactory) -> Any:
        throttles.append(ThrottlingFactory(factory, readLimit=10_000_000, writeLimit=10_000_000))
        return throttles[0]

    await proxied.start(wrap=throttled)
    client, server = await proxied.pair()
    await converse(client, server)
    [throttle] = throttles
    for one, other in ((client, server), (server, client)):
        sent = await fill(proxied.reactor, one)
        for name in ("throttleReads", "throttleWrites", "unthrottleReads", "unthrottleWrites"):
            getattr(throttle, name)()
            await deferLater(proxied.reactor, 0.01)
        assert await other.receive(sent) == ENDLESS[:sent]
    for protocol in list(throttle.protocols):
        protocol.loseConnection()
    assert await drops(client) == END
    assert await drops(server) == RESET
    await is_over(proxied, Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)


async def test_bulk_through_a_wrapper(proxied: Proxied) -> None:
    """Each time a sink has paused its producer, the producer is resumed."""
    wrapping = Wrapping()
    await proxied.start(**wrapping.arguments())
    client, server = await proxied.pair()
    await converse(client, server)
    sent = await fill(proxied.reactor, server)
    assert await client.receive(sent) == ENDLESS[:sent]
    await passes(client, server)
    client.reset()
    assert await drops(server) == RESET
    await proxied.observed.ended()
