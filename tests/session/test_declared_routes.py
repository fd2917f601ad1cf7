"""Routes of the file, and functions that it names: which server gets a client."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from attrs import evolve

from evproxy import Client
from evproxy.errors import Refused
from evproxy.model import Ending
from tests.support.certificates import Certificates
from tests.support.hellos import of_ssl
from tests.support.peers import RESET, turn
from tests.support.routed import Routed
from tests.support.tls import TLSPeer, context_of

pytestmark = pytest.mark.deadline(20)


def hello(name: str | None, *protocols: str) -> bytes:
    """The ClientHello of Python's TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return of_ssl(context, name)


ROUTES = """routes = [
  {peer = "192.0.2.0/24", pool = "internal"},
  {sni = "grpc.example.org", alpn = "h2", pool = "grpc"},
  {sni = "*.example.org", pool = "tls"},
]"""


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize(
    ("data", "pool", "route", "name"),
    [
        (hello("www.example.org"), "tls", "sni *.example.org", "www.example.org"),
        (hello("WWW.Example.Org"), "tls", "sni *.example.org", "www.example.org"),
        (
            hello("grpc.example.org", "h2"),
            "grpc",
            "sni grpc.example.org, alpn h2",
            "grpc.example.org",
        ),
        (hello("grpc.example.org"), "tls", "sni *.example.org", "grpc.example.org"),
        (hello("example.com"), "default", "default", "example.com"),
        (hello(None), "default", "default: no SNI", ""),
        (b"GET / HTTP/1.1\r\n\r\n", "default", "default: no TLS, the first byte is 0x47", ""),
    ],
)
async def test_routes_by_hello(
    routed: Routed, data: bytes, pool: str, route: str, name: str, pieces: bool
) -> None:
    """The first route that matches counts; the server gets every byte, and the log says why."""
    routed.start(ROUTES)
    got, client, server = await routed.sent(data, pieces=pieces)
    assert got == pool
    record = await routed.record(client, server)
    assert record.route.startswith(route)
    assert record.server_name == name


async def test_a_route_by_network(routed: Routed) -> None:
    """No byte of the client is waited for where an earlier route matches."""
    routed.start(ROUTES.replace("192.0.2.0/24", "127.0.0.0/8"))
    client = routed.client()
    name, server = await routed.accepted()
    assert name == "internal"
    assert (await routed.record(client, server)).route == "peer 127.0.0.0/8"


@pytest.mark.parametrize(
    ("name", "host", "pool"),
    [
        ("a.example.org", "b.example.org", "site"),
        ("a.example.org", "c.example.org", "default"),
        ("a.example.com", "b.example.org", "default"),
    ],
)
async def test_routes_by_tls_and_what_is_inside(
    routed: Routed, certificates: Certificates, name: str, host: str, pool: str
) -> None:
    """Where evproxy ends TLS, a route may ask for both."""
    routed.start(
        f'tls = {{certificates = ["{certificates.pem}"]}}\n'
        'routes = [{sni = "*.example.org", http_host = "b.example.org", pool = "site"}]'
    )
    context = context_of(certificates, "1.3", serves=False)
    tls = TLSPeer(routed.reactor, routed.client().socket, context, serves=False, name=name)
    await tls.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (await routed.accepted())[0] == pool


@pytest.mark.parametrize(
    ("data", "pool", "route"),
    [
        (b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n", "site", "http_host *.example.org"),
        (b"GET / HTTP/1.1\r\nHost: EXAMPLE.com:80\r\n\r\n", "default", "default"),
        (b"GET / HTTP/1.0\r\n\r\n", "default", "default: no host"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "default", "default: no host"),
    ],
)
async def test_routes_by_http_host(routed: Routed, data: bytes, pool: str, route: str) -> None:
    """The host of the first request decides."""
    routed.start('routes = [{http_host = "*.example.org", pool = "site"}]')
    got, client, server = await routed.sent(data, pieces=True)
    assert got == pool
    assert (await routed.record(client, server)).route.startswith(route)


def start_up(**parameters: str) -> bytes:
    """A PostgreSQL StartupMessage."""
    text = "".join(f"{key}\0{value}\0" for key, value in parameters.items()).encode() + b"\0"
    return (len(text) + 8).to_bytes(4, "big") + (196608).to_bytes(4, "big") + text


@pytest.mark.parametrize(
    ("data", "pool", "route"),
    [
        (start_up(user="alice", database="shop"), "tenant", "postgres_database shop"),
        (start_up(user="shop"), "tenant", "postgres_database shop"),
        (start_up(user="alice"), "default", "default"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "default", "default: SslRequest where a StartupMessage"),
    ],
)
async def test_routes_by_postgres(routed: Routed, data: bytes, pool: str, route: str) -> None:
    """The database in the first message of a PostgreSQL client decides."""
    routed.start('routes = [{postgres_database = "shop", pool = "tenant"}]')
    got, client, server = await routed.sent(data)
    assert got == pool
    assert (await routed.record(client, server)).route.startswith(route)


@pytest.mark.parametrize(
    ("listener", "data", "error"),
    [
        (ROUTES, b"\x16\x03\x01\x00\x04\x02\0\0\0", "TLS record 1"),
        ('routes = [{http_host = "a", pool = "site"}]', b"GET / HTTP/1.1\r\n\r\n", "HTTP"),
        ('routes = [{postgres_user = "a", pool = "site"}]', b"\0\0\0\x04", "length"),
    ],
)
async def test_what_is_malformed(routed: Routed, listener: str, data: bytes, error: str) -> None:
    """A client that begins right and goes on wrong is refused, and the record says why."""
    routed.start(listener)
    client = routed.client()
    await client.send(data)
    assert await client.rest() == (b"", RESET)
    record = await routed.record(client)
    assert record.reason.how is Ending.REFUSED
    assert record.error


async def test_a_client_that_says_nothing(routed: Routed) -> None:
    """It is reset after the handshake timeout."""
    routed.start(ROUTES, "[timeouts]\nhandshake = 0.2\n")
    client = routed.client()
    assert await client.rest() == (b"", RESET)
    record = await routed.record(client)
    assert record.reason.how is Ending.HANDSHAKE
    assert record.error == "the client did not send its TLS ClientHello within 0.2 s"


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """A module that a file can name."""
    made = ModuleType("routes_of_a_test")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


async def by_first_byte(client: Client) -> Any:
    """A route of a test: the pool by the first byte."""
    first = await client.peek(1)
    client.note(f"byte {first!r}")
    match first:
        case b"g":
            return "grpc"
        case b"t":
            return "tls/127.0.0.1:1"
        case b"x":
            raise Refused("no x today")
        case b"b":
            raise ValueError("on purpose")
        case b"?":
            return "nowhere"
    return None


@pytest.mark.parametrize(
    ("data", "how", "error"),
    [
        (b"t", Ending.UNREACHABLE, "the route chose a server: there is no server 127.0.0.1:1"),
        (b"x", Ending.REFUSED, "no x today"),
        (b"b", Ending.ERROR, "on purpose"),
        (b"?", Ending.REFUSED, "the route chose 'nowhere': there is no such pool"),
        (b"n", Ending.REFUSED, "the router chose no pool"),
    ],
)
async def test_a_function_that_does_not_serve(
    routed: Routed, module: ModuleType, data: bytes, how: Ending, error: str, logged_errors: Any
) -> None:
    """Only that one session ends, and the record says why."""
    module.by_first_byte = by_first_byte  # type: ignore[attr-defined]
    routed.start('route = "routes_of_a_test:by_first_byte"')
    client = routed.client()
    await client.send(data)
    assert await client.rest() == (b"", RESET)
    record = await routed.record(client)
    assert record.reason.how is how
    assert record.error.startswith(error)
    assert record.route == f"byte {data!r}"
    assert len(logged_errors.flush(ValueError)) == (how is Ending.ERROR)


async def test_a_function_of_the_file(routed: Routed, module: ModuleType) -> None:
    """It chooses a pool by its name; the server gets what it looked at."""
    module.by_first_byte = by_first_byte  # type: ignore[attr-defined]
    routed.start('route = "routes_of_a_test:by_first_byte"')
    name, client, server = await routed.sent(b"g and more")
    assert name == "grpc"
    assert (await routed.record(client, server)).route == "byte b'g'"


async def test_a_function_that_chooses_a_server(routed: Routed, module: ModuleType) -> None:
    """``POOL/SERVER`` is one server of a pool, whatever the policy of the pool is."""
    port = routed.servers["site"].port
    module.chosen = lambda client: f"site/127.0.0.1:{port}"  # type: ignore[attr-defined]
    routed.start('route = "routes_of_a_test:chosen"')
    name, client, server = await routed.sent(b"?")
    assert name == "site"
    assert [each.sessions for each in routed.service.pools["site"].servers] == [1]
    await routed.record(client, server)
    assert [each.sessions for each in routed.service.pools["site"].servers] == [0]


@pytest.mark.parametrize("state", ["draining", "full"])
async def test_a_chosen_server_that_takes_nobody(
    routed: Routed, module: ModuleType, state: str
) -> None:
    """The client is reset at once; nobody else gets it."""
    port = routed.servers["site"].port
    module.chosen = lambda client: f"site/127.0.0.1:{port}"  # type: ignore[attr-defined]
    routed.start('route = "routes_of_a_test:chosen"')
    pool = routed.service.pools["site"]
    if state == "draining":
        pool.drain(f"127.0.0.1:{port}")
    else:
        server = pool.server_named(f"127.0.0.1:{port}")
        server.respecify(evolve(server.spec, max_sessions=1))
        await routed.sent(b"?")
    client = routed.client()
    assert await client.rest() == (b"", RESET)
    await routed.observed.ended()
    assert f"that the route chose is {state}" in routed.observed.records[0].error


async def test_a_client_that_leaves_while_a_coroutine_waits(
    routed: Routed, module: ModuleType
) -> None:
    """The coroutine is cancelled."""
    cancelled: list[bool] = []

    async def waits(client: Client) -> Any:
        try:
            await client.peek(100)
        finally:
            cancelled.append(True)

    module.waits = waits  # type: ignore[attr-defined]
    routed.start('route = "routes_of_a_test:waits"')
    client = routed.client()
    await client.send(b"a")
    while not (sessions := routed.service.status().sessions) or not sessions[0].id:
        await turn(routed.reactor)
    client.reset()
    await routed.observed.ended()
    assert routed.observed.records[0].reason.how is Ending.LEFT
    assert cancelled == [True]
