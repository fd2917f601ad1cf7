"""PostgreSQL clients: requests for encryption, routes by SNI behind them, and cancels."""

from __future__ import annotations

import importlib
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.threads import deferToThread

from evproxy.model import Ending, Side
from evproxy.wire.postgres import SSL_REQUEST
from evproxy.wire.proxy_protocol import ProxyHeaderReader
from tests.session.test_declared_routes import hello
from tests.support.certificates import Certificates
from tests.support.peers import RESET, Peer, turn
from tests.support.programs import requires_module, requires_program, said
from tests.support.real_servers import RealServers, free_port
from tests.support.routed import Routed
from tests.support.server_kinds import postgresql, postgresql_started, with_tls
from tests.support.tls import TLSPeer, context_of

pytestmark = pytest.mark.deadline(60)

PREREAD = """preread = "postgres"
routes = [
  {sni = "*.example.org", pool = "tls"},
  {postgres_user = "alice", pool = "tenant"},
]"""

FAULTS = """
faults = [
  {kind = "slicer", average_size = 3, size_variation = 0, delay = 0},
  {kind = "latency", latency = 0.02},
]"""
"""They change the session's bytes, but no request and no answer before it."""

with_faults_too = pytest.mark.parametrize("faults", ["", FAULTS], ids=["", "faults"])

GSS_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x30"


def start_up(user: str) -> bytes:
    """A StartupMessage."""
    text = f"user\0{user}\0\0".encode()
    return (len(text) + 8).to_bytes(4, "big") + (196608).to_bytes(4, "big") + text


def key_data(process_id: int, key: bytes) -> bytes:
    """A BackendKeyData."""
    return b"K" + (8 + len(key)).to_bytes(4, "big") + process_id.to_bytes(4, "big") + key


def cancel(process_id: int, key: bytes) -> bytes:
    """A CancelRequest."""
    head = (12 + len(key)).to_bytes(4, "big") + (80877102).to_bytes(4, "big")
    return head + process_id.to_bytes(4, "big") + key


async def asked_for_tls(routed: Routed, first: bytes = b"") -> Peer:
    """A client whose SSLRequest is accepted."""
    client = routed.client()
    if first:
        await client.send(first)
        assert await client.receive(1) == b"N"
    await client.send(SSL_REQUEST)
    assert await client.receive(1) == b"S"
    return client


@with_faults_too
@pytest.mark.parametrize("first", [b"", GSS_REQUEST])
async def test_tls_is_passed_through(routed: Routed, first: bytes, faults: str) -> None:
    """evproxy answers the client, routes by SNI, and asks the server the same."""
    routed.start(PREREAD + faults)
    client = await asked_for_tls(routed, first)
    greeting = hello("db.example.org")
    await client.send(greeting)
    name, server = await routed.accepted()
    assert name == "tls"
    assert await server.receive(8) == SSL_REQUEST
    await server.send(b"S")
    assert await server.receive(len(greeting)) == greeting
    await server.send(b"server hello")
    assert await client.receive(12) == b"server hello"
    record = await routed.record(client, server)
    assert record.server_name == "db.example.org"
    assert record.relay == ("stream" if faults else "socket")


async def test_direct_tls(routed: Routed) -> None:
    """A client of PostgreSQL 17 or later begins with TLS; so does the session with the server."""
    routed.start(PREREAD)
    name, client, server = await routed.sent(hello("db.example.org", "postgresql"))
    assert name == "tls"
    await routed.record(client, server)


async def test_a_client_without_tls(routed: Routed) -> None:
    """Its first message decides, and goes to the server unchanged."""
    routed.start(PREREAD)
    name, client, server = await routed.sent(start_up("alice"))
    assert name == "tenant"
    await routed.record(client, server)


@pytest.mark.parametrize("request_", [SSL_REQUEST, GSS_REQUEST])
async def test_bytes_that_come_with_a_request(routed: Routed, request_: bytes) -> None:
    """What came before the answer was sent by an attacker: the session ends."""
    routed.start(PREREAD)
    client = routed.client()
    await client.send(request_ + b"x")
    assert await client.rest() == (b"", RESET)
    record = await routed.record(client)
    assert record.reason.how is Ending.REFUSED
    assert "before its answer" in record.error


async def test_a_second_request(routed: Routed) -> None:
    """PostgreSQL answers each request once."""
    routed.start(PREREAD)
    client = routed.client()
    await client.send(GSS_REQUEST)
    assert await client.receive(1) == b"N"
    await client.send(GSS_REQUEST)
    assert await client.rest() == (b"", RESET)
    assert (await routed.record(client)).error == "a second GSSENCRequest"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"N", "the server has no TLS: it answers SSLRequest with b'N'"),
        (b"E", "the server has no TLS: it answers SSLRequest with b'E'"),
        (b"Sx", "the server sent more than its answer to SSLRequest"),
        (b"", "the server ended the connection before its answer"),
    ],
)
async def test_a_server_that_does_not_agree(routed: Routed, answer: bytes, error: str) -> None:
    """The connect has failed, and the client is reset; no byte of the client gets there."""
    routed.start(PREREAD)
    client = await asked_for_tls(routed)
    await client.send(hello("db.example.org"))
    _, server = await routed.accepted()
    assert await server.receive(8) == SSL_REQUEST
    if answer:
        await server.send(answer)
    else:
        server.end()
    assert (await server.rest())[0] == b""
    assert await client.rest() == (b"", RESET)
    record = await routed.record(client, server)
    assert (record.reason.by, record.reason.how) == (Side.UPSTREAM, Ending.UNREACHABLE)
    assert record.error.endswith(error)
    [status] = routed.service.pools["tls"].servers
    assert (status.connect_failures, status.sessions) == (1, 0)


async def test_a_server_that_does_not_answer(routed: Routed) -> None:
    """The connect timeout counts for the answer."""
    routed.start(PREREAD)
    pool = routed.service.pools["tls"]
    pool.connect_timeout = 0.2
    client = await asked_for_tls(routed)
    await client.send(hello("db.example.org"))
    assert await client.rest() == (b"", RESET)
    record = await routed.record(client)
    assert "timed out after 0.2 s, before the server's answer" in record.error


async def test_a_client_that_leaves_before_the_answer_of_the_server(routed: Routed) -> None:
    """Nothing is left of the connect."""
    routed.start(PREREAD)
    client = await asked_for_tls(routed)
    await client.send(hello("db.example.org"))
    _, server = await routed.accepted()
    assert await server.receive(8) == SSL_REQUEST
    client.reset()
    assert await server.rest() == (b"", RESET)
    record = await routed.record(server)
    assert (record.reason.by, record.reason.how) == (Side.DOWNSTREAM, Ending.LEFT)
    assert [each.sessions for each in routed.service.pools["tls"].servers] == [0]


async def test_a_proxy_header_before_the_request(routed: Routed) -> None:
    """A server that gets PROXY headers gets one before its SSLRequest."""
    routed.start(PREREAD, pool_keys="send_proxy_protocol = 2\n")
    client = await asked_for_tls(routed)
    await client.send(hello("db.example.org"))
    _, server = await routed.accepted()
    reader = ProxyHeaderReader()
    while (header := reader.feed(await server.receive(1))) is None:
        """The header comes first."""
    assert header.tlvs.authority == "db.example.org"
    assert await server.receive(8) == SSL_REQUEST
    await server.send(b"S")
    assert await server.receive(5) == hello("db.example.org")[:5]


async def test_a_cancel(routed: Routed) -> None:
    """It goes to the server that gave the key, while that session runs; else to the default."""
    routed.start(PREREAD)
    key = bytes(range(32))
    name, client, server = await routed.sent(start_up("alice"))
    authenticated = b"R\0\0\0\x08\0\0\0\0"
    ready = b"Z\0\0\0\x05I"
    answer = authenticated + key_data(7, key) + ready
    for place in range(len(answer)):
        await server.send(answer[place : place + 1])
        await client.receive(1)
    cancelling = routed.client()
    await cancelling.send(cancel(7, key))
    got, cancelled = await routed.accepted()
    assert got == name == "tenant"
    assert await cancelled.receive(44) == cancel(7, key)
    for peer in (cancelling, cancelled, client, server):
        peer.close()
    await routed.observed.ended(2)
    assert "cancel" in {each.route for each in routed.observed.records}
    late = routed.client()
    await late.send(cancel(7, key))
    got, _ = await routed.accepted()
    assert got == "default"


@pytest.mark.parametrize("how", ["drain", "remove"])
async def test_a_cancel_for_a_server_that_gets_no_sessions(routed: Routed, how: str) -> None:
    """Its sessions go on, and so their cancels must reach it."""
    routed.start(PREREAD)
    name, client, server = await routed.sent(start_up("alice"))
    await server.send(key_data(7, b"1234"))
    await client.receive(13)
    pool = routed.service.pools[name]
    getattr(pool, how)(f"127.0.0.1:{routed.servers[name].port}")
    cancelling = routed.client()
    await cancelling.send(cancel(7, b"1234"))
    got, cancelled = await routed.accepted()
    assert got == name
    assert await cancelled.receive(16) == cancel(7, b"1234")
    # The server has left the pool once its last session has ended, and the key with it.
    for peer in (cancelling, cancelled, client, server):
        peer.close()
    await routed.observed.ended(2)
    await routed.client().send(cancel(7, b"1234"))
    assert (await routed.accepted())[0] == "default"


async def databases(
    routed: Routed,
    real_servers: RealServers,
    certificates: Certificates,
    listener: str = PREREAD,
) -> tuple[str, str]:
    """Start PostgreSQL with TLS as the server of ``tls`` and ``tenant``; where evproxy listens."""
    port = free_port()
    server = postgresql(real_servers, port)
    with_tls(server, Path(certificates.pem))
    await postgresql_started(routed.reactor, server, port)
    routed.start(listener, ports={"tls": port, "tenant": port, "default": port})
    address: Any = routed.service.addresses[0]
    return address.host, str(address.port)


@pytest.mark.peers("initdb", "postgres", "psql")
@pytest.mark.parametrize("mode", ["require", "disable"])
async def test_psql(
    routed: Routed, real_servers: RealServers, certificates: Certificates, mode: str
) -> None:
    """psql is connected with TLS and without."""
    host, port = await databases(routed, real_servers, certificates)
    target = f"host={host} port={port} user=postgres dbname=postgres sslmode={mode}"
    query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    answer = await said(routed.reactor, "psql", "-X", "-A", "-t", target, "-c", query)
    assert answer.strip() == {"require": "t", "disable": "f"}[mode]


@pytest.mark.peers("initdb", "postgres", "psql")
async def test_psql_cancels(
    routed: Routed, real_servers: RealServers, certificates: Certificates
) -> None:
    """An interrupt of psql cancels its query at the server."""
    host, port = await databases(routed, real_servers, certificates)
    target = f"host={host} port={port} user=postgres dbname=postgres sslmode=disable"
    query = [requires_program("psql"), "-X", target, "-c", "SELECT pg_sleep(60)"]
    began = time.monotonic()
    process = subprocess.Popen(query, stderr=subprocess.PIPE)
    try:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        while True:
            counted = await said(routed.reactor, "psql", "-XAt", target, "-c", sleeping)
            if counted.strip() == "1":
                break
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            await turn(routed.reactor)
        assert process.stderr is not None
        assert b"canceling statement due to user request" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
    assert time.monotonic() - began < 50


def tls_listener(certificates: Certificates) -> str:
    """The same listener, with TLS that ends there."""
    return f'{PREREAD}\ntls = {{certificates = ["{certificates.pem}"]}}'


@with_faults_too
@pytest.mark.parametrize("first", [SSL_REQUEST, b""])
async def test_tls_that_ends_at_the_listener(
    routed: Routed, certificates: Certificates, first: bytes, faults: str
) -> None:
    """The client's first message inside TLS decides, and the server gets it in the clear."""
    routed.start(tls_listener(certificates) + faults)
    client = routed.client()
    if first:
        await client.send(first)
        assert await client.receive(1) == b"S"
    context = context_of(certificates, "1.3", serves=False)
    tls = TLSPeer(routed.reactor, client.socket, context, serves=False)
    await tls.send(start_up("alice"))
    name, server = await routed.accepted()
    assert name == "tenant"
    assert await server.receive(len(start_up("alice"))) == start_up("alice")
    await server.send(key_data(7, b"1234"))
    assert await tls.receive(13) == key_data(7, b"1234")
    cancelling = routed.client()
    await cancelling.send(cancel(7, b"1234"))
    got, _ = await routed.accepted()
    assert got == "tenant"


async def test_a_request_within_tls(routed: Routed, certificates: Certificates) -> None:
    """Nobody asks for TLS twice."""
    routed.start(tls_listener(certificates))
    client = await asked_for_tls(routed)
    context = context_of(certificates, "1.3", serves=False)
    tls = TLSPeer(routed.reactor, client.socket, context, serves=False)
    await tls.send(SSL_REQUEST)
    await tls.rest()
    record = await routed.record(tls)
    assert (record.reason.how, record.error) == (Ending.REFUSED, "a second SSLRequest")


@pytest.mark.peers("initdb", "postgres", "psql")
async def test_psql_with_tls_that_ends_at_the_listener(
    routed: Routed, real_servers: RealServers, certificates: Certificates
) -> None:
    """psql verifies evproxy's certificate; the server sees no TLS."""
    host, port = await databases(
        routed, real_servers, certificates, listener=tls_listener(certificates)
    )
    target = (
        f"host={host} port={port} user=postgres dbname=postgres sslmode=verify-full "
        f"sslrootcert={certificates.authorities}/ca.pem"
    )
    query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    answer = await said(routed.reactor, "psql", "-X", "-A", "-t", target, "-c", query)
    assert answer.strip() == "f"


@pytest.mark.peers("initdb", "postgres")
@pytest.mark.parametrize("negotiation", ["direct", "postgres"])
async def test_a_current_client(
    routed: Routed, real_servers: RealServers, certificates: Certificates, negotiation: str
) -> None:
    """libpq 18 connects with TLS that ends at evproxy, at once or after its request."""
    requires_module("psycopg")
    psycopg: Any = importlib.import_module("psycopg")
    host, port = await databases(
        routed, real_servers, certificates, listener=tls_listener(certificates)
    )
    target = (
        f"host={host} port={port} user=postgres dbname=postgres sslmode=verify-full "
        f"sslrootcert={certificates.authorities}/ca.pem sslnegotiation={negotiation}"
    )

    def ask() -> Any:
        with psycopg.connect(target, connect_timeout=30) as connection:
            return connection.execute("SELECT 6 * 7").fetchone()

    assert await deferToThread(ask) == (42,)
    await routed.observed.ended()
    assert routed.observed.records[0].reason.how is Ending.FINISHED
