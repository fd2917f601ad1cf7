"""Every kind of endpoint, on both sides: families, TLS, adopted descriptors, plugins."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from evproxy.model import Ending
from evproxy.upstream.address import parse_upstream
from evproxy.upstream.dialers import EndpointDialer, TCPAddress
from tests.support.bulk import passes
from tests.support.leaks import LoggedErrors
from tests.support.peers import END, IPV6, RESET, Listening, Peer, converse, turn
from tests.support.proxies import Proxied
from tests.support.unreachable import Refusing, Unanswered

pytestmark = [pytest.mark.deadline(15), pytest.mark.oldest_twisted]


@pytest.mark.skipif(not IPV6, reason="there is no IPv6 here")
async def test_ipv6_on_both_sides(proxied: Proxied) -> None:
    """A client on ::1 reaches a server on ::1; the record has both addresses in brackets."""
    upstream = proxied.closes(Listening.tcp(proxied.reactor, "::1"))
    await proxied.start(listen="tcp6:0:interface=\\:\\:1", upstreams=[f"[::1]:{upstream.port}"])
    client = proxied.client()
    port = client.socket.getsockname()[1]
    server = await upstream.accept()
    await ends_in_order(client, server)
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert (record.upstream, record.relay) == (f"[::1]:{upstream.port}", proxied.relay)
    assert record.peer == f"[::1]:{port}"


@pytest.mark.parametrize("zone", ["eth0", "br-0a1b2c", "eth0.100", "wlan@x", "3"])
@pytest.mark.parametrize("form", ["[{}]:80", "tcp:[{}]:80", "tcp:{}:80"])
def test_any_zone_of_an_ipv6_address(zone: str, form: str) -> None:
    """An IPv6 address may have any zone, in each form of a plain address."""
    host = f"fe80::1%{zone}"
    written = host if "[" in form else host.replace(":", "\\:")
    assert parse_upstream(form.format(written)) == TCPAddress(host, 80)


@pytest.mark.skipif(not IPV6, reason="there is no IPv6 here")
async def test_an_ipv6_address_with_a_zone(proxied: Proxied) -> None:
    """evproxy connects through the interface that the zone names."""
    if proxied.transports == "twisted":
        pytest.skip("getaddrinfo(3), which Twisted asks, has zones for link-local addresses only")
    upstream = proxied.closes(Listening.tcp(proxied.reactor, "::1"))
    await proxied.start(upstreams=[f"[::1%lo]:{upstream.port}"])
    client = proxied.client()
    await converse(client, await upstream.accept())


@pytest.mark.parametrize("zone", ["nosuch", "no-such@zone"])
async def test_an_ipv6_address_with_an_unknown_zone(proxied: Proxied, zone: str) -> None:
    """A connect to an unknown zone fails, and evproxy tries the next server."""
    unknown = f"[fe80::1%{zone}]:80"
    await proxied.start(upstreams=[unknown, f"127.0.0.1:{proxied.upstream.port}"])
    await converse(*await proxied.pair())
    assert [name for name, _ in proxied.observed.failures] == [unknown]


async def test_unix_sockets_on_both_sides(proxied: Proxied, tmp_path: Path) -> None:
    """A client on a UNIX socket reaches a server on a UNIX socket."""
    upstream = proxied.closes(Listening.unix(proxied.reactor, str(tmp_path / "up")))
    await proxied.start(listen=f"unix:{tmp_path}/down", upstreams=[f"unix:{tmp_path}/up"])
    client = proxied.client()
    server = await upstream.accept()
    await ends_in_order(client, server)
    await proxied.observed.ended()
    assert proxied.observed.records[0].relay == proxied.relay


async def test_a_unix_socket_that_breaks(proxied: Proxied, tmp_path: Path) -> None:
    """A peer on a UNIX socket that closes with unread bytes counts as a reset (unix(7))."""
    await proxied.start(listen=f"unix:{tmp_path}/down")
    client, server = await proxied.pair()
    await converse(client, server)
    await server.send(b"unread")
    while not readable(client):
        await turn(proxied.reactor)
    client.close()
    assert await server.rest() == (b"", RESET)


def readable(peer: Peer) -> bool:
    """Whether `peer` has unread bytes."""
    try:
        return bool(peer.socket.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


async def ends_in_order(client: Peer, server: Peer) -> None:
    """Many bytes pass both ways, and each direction ends in order."""
    await passes(client, server)
    await passes(server, client)
    client.end()
    assert await server.rest() == (b"", END)
    await server.send(b"last")
    server.end()
    assert await client.rest() == (b"last", END)


@pytest.mark.parametrize("which", ["index=0", "name=web"])
async def test_a_descriptor_of_systemd(proxied: Proxied, inherited: Any, which: str) -> None:
    """An inherited listening socket serves, and stopping does not block."""
    await proxied.start(listen=f"systemd:domain=INET:{which}")
    assert proxied.address == inherited
    for _ in range(2):
        client, server = await proxied.pair()
        await ends_in_order(client, server)


@implementer(IStreamClientEndpoint)
class Broken:
    """An endpoint whose author did not know that endpoints return Deferreds."""

    def connect(self, factory: Any) -> Deferred[Any]:
        raise RuntimeError("no Deferred")


@implementer(IStreamClientEndpoint)
class Endless:
    """An endpoint that never connects, and records whether its Deferred was cancelled."""

    cancelled = False

    def connect(self, factory: Any) -> Deferred[Any]:
        def cancel(_: Any) -> None:
            self.cancelled = True

        return Deferred(cancel)


@implementer(IStreamClientEndpoint)
class Forgetful:
    """An endpoint that makes no connection, and does not say so."""

    def connect(self, factory: Any) -> Any:
        return None


@implementer(IStreamClientEndpoint)
class Stubborn:
    """An endpoint that never connects, and breaks when it is cancelled."""

    def connect(self, factory: Any) -> Deferred[Any]:
        def cancel(_: Any) -> None:
            raise RuntimeError("no way")

        return Deferred(cancel)


@implementer(IStreamClientEndpoint)
class Failing:
    """An endpoint that fails at once."""

    def connect(self, factory: Any) -> Deferred[Any]:
        return fail(ConnectionError("out of order"))


@implementer(IStreamClientEndpoint)
class Late:
    """An endpoint that ignores a cancel, and connects when the test says so."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self.factory: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return Deferred()

    def connect_now(self) -> Deferred[Any]:
        return self._endpoint.connect(self.factory)


async def through(proxied: Proxied, endpoint: Any, **pool: Any) -> None:
    """Start `proxied`; all servers connect through `endpoint`."""
    await proxied.start(**pool)
    for server in proxied.pool.candidates(info=None):  # type: ignore[arg-type]
        server.dialer = EndpointDialer(proxied.reactor, endpoint)


async def test_any_client_endpoint(proxied: Proxied) -> None:
    """A server can be any Twisted client endpoint."""
    endpoint = TCP4ClientEndpoint(proxied.reactor, "127.0.0.1", proxied.upstream.port)
    await through(proxied, endpoint)
    client, server = await proxied.pair()
    await ends_in_order(client, server)


async def test_an_endpoint_that_refuses(proxied: Proxied, refusing: Refusing) -> None:
    """A connect through a Twisted endpoint fails in the same way as a plain connect."""
    host, port = refusing().split(":")
    await proxied.start(upstreams=[f"tcp:host={host}:port={port}"])
    assert await proxied.client().rest() == (b"", RESET)
    await proxied.observed.ended()
    assert "refused" in proxied.observed.records[0].error


@pytest.mark.parametrize(
    ("endpoint", "error"),
    [(Failing(), "out of order"), (Broken(), "no Def"), (Forgetful(), "made no connection")],
)
async def test_an_endpoint_that_fails(proxied: Proxied, endpoint: Any, error: str) -> None:
    """However an endpoint fails, evproxy resets the client, and the record has the reason."""
    await through(proxied, endpoint)
    assert await proxied.client().rest() == (b"", RESET)
    await proxied.observed.ended()
    assert error in proxied.observed.records[0].error


async def test_an_endpoint_that_never_connects(proxied: Proxied) -> None:
    """The connect timeout applies, and evproxy cancels the endpoint's Deferred."""
    endpoint = Endless()
    await through(proxied, endpoint, connect_timeout=0.1)
    assert await proxied.client().rest() == (b"", RESET)
    await proxied.observed.ended()
    assert "timed out after 0.1 s" in proxied.observed.records[0].error
    assert endpoint.cancelled


async def test_an_endpoint_that_cannot_be_cancelled(
    proxied: Proxied, logged_errors: LoggedErrors
) -> None:
    """The connect timeout applies all the same."""
    await through(proxied, Stubborn(), connect_timeout=0.1)
    assert await proxied.client().rest() == (b"", RESET)
    await proxied.observed.ended()
    assert "timed out after 0.1 s" in proxied.observed.records[0].error
    assert len(logged_errors.flush(RuntimeError)) == 1


async def test_an_endpoint_that_connects_too_late(proxied: Proxied, unanswered: Unanswered) -> None:
    """evproxy closes a late connection; the session goes on with its current server."""
    late = Late(TCP4ClientEndpoint(proxied.reactor, "127.0.0.1", proxied.upstream.port))
    await proxied.start(
        upstreams=[f"127.0.0.1:{proxied.upstream.port}", unanswered.name], connect_timeout=0.1
    )
    servers = list(proxied.pool.candidates(info=None))  # type: ignore[arg-type]
    servers[0].dialer = EndpointDialer(proxied.reactor, late)
    client = proxied.client()
    await client.send(b"?")
    while late.factory is None:
        await turn(proxied.reactor)
    proxied.pool.connect_timeout = 60
    await proxied.observed.until(lambda: bool(proxied.observed.failures))
    await turn(proxied.reactor)
    await late.connect_now()
    assert (await (await proxied.upstream.accept()).rest())[0] == b""
    client.reset()
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert (record.reason.how, record.attempts, record.relay) == (Ending.LEFT, 2, "")


async def test_a_client_that_leaves_an_endpoint_that_connects(proxied: Proxied) -> None:
    """When the client leaves, evproxy cancels the endpoint's Deferred at once."""
    endpoint = Endless()
    await through(proxied, endpoint)
    client = proxied.client()
    await client.send(b"x")
    client.reset()
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.LEFT
    assert endpoint.cancelled
