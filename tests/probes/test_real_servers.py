"""Active health checks against the real servers that they are for."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from evproxy.model import UpstreamServer
from evproxy.settings import HealthCheck
from evproxy.upstream.address import client_endpoint
from evproxy.upstream.probes.probe import probe_for
from evproxy.upstream.probes.scripts import POSTGRESQL_STARTUP
from tests.support.real_servers import RealServer, RealServers, free_port, until
from tests.support.server_kinds import nginx, postgresql, redis

HANGS = 0.5
"""Seconds after which a check of a stopped server is over."""


@pytest.fixture
def servers() -> Iterator[RealServers]:
    made = RealServers()
    yield made
    made.end()


async def checked(reactor: Any, port: int, check: HealthCheck) -> str | None:
    """What one check of the server at `port` finds."""
    result: Deferred[Any] = Deferred()
    probe = probe_for(reactor, check, partial(client_endpoint, reactor))
    probe.check(UpstreamServer(f"127.0.0.1:{port}"), result.callback)
    reason: str | None = await result
    return reason


async def well(reactor: Any, port: int, check: HealthCheck) -> None:
    """Wait until a check finds the server at `port` well."""

    async def holds() -> bool:
        return await checked(reactor, port, check) is None

    await until(reactor, holds, f"a good {check.kind} check")


async def lives_and_dies(
    reactor: Any, server: RealServer, port: int, kind: str, **settings: Any
) -> None:
    """`server` is well, then accepts and never answers, then is well again, then is gone."""
    check = HealthCheck(kind=kind, timeout=5.0, **settings)
    await server.started(reactor, port)
    await well(reactor, port, check)
    server.signal(signal.SIGSTOP)
    hurried = HealthCheck(kind=kind, timeout=HANGS, **settings)
    assert await checked(reactor, port, hurried) == f"timed out after {HANGS:g} s"
    server.signal(signal.SIGCONT)
    await well(reactor, port, check)
    server.stop()
    assert await checked(reactor, port, check) == "connection refused"


@pytest.mark.peers("redis-server")
async def test_redis(reactor: Any, servers: RealServers) -> None:
    """A redis server from its start to its end."""
    port = free_port()
    await lives_and_dies(reactor, redis(servers, port), port, "redis")


@pytest.mark.peers("redis-server")
async def test_redis_with_password(reactor: Any, servers: RealServers) -> None:
    """A redis server that asks for a password fails ``redis``, and can be asked with it."""
    port = free_port()
    await redis(servers, port, "--requirepass", "secret").started(reactor, port)
    reason = await checked(reactor, port, HealthCheck(kind="redis", timeout=5.0))
    assert reason is not None
    assert reason.startswith("expected b'+PONG', got b'-NOAUTH")
    check = HealthCheck(
        kind="send-expect", send=r"AUTH secret\r\nPING\r\n", expect="+PONG", timeout=5.0
    )
    assert await checked(reactor, port, check) is None


@pytest.mark.peers("nginx")
async def test_nginx(reactor: Any, servers: RealServers) -> None:
    """An nginx server from its start to its end, without a word in its error log."""
    port = free_port()
    server = nginx(servers, port)
    await server.started(reactor, port)
    bad = HealthCheck(kind="http", path="/bad", timeout=5.0)
    assert await checked(reactor, port, bad) == "status 503, expected 200"
    server.stop()
    await lives_and_dies(reactor, server, port, "http", path="/healthz", expect_text="is well")
    assert "[error]" not in (server.directory / "error.log").read_text()


@pytest.mark.peers("postgres", "initdb")
@pytest.mark.parametrize("authentication", ["trust", "scram-sha-256"])
async def test_postgresql(reactor: Any, servers: RealServers, authentication: str) -> None:
    """A PostgreSQL server from its start to its end, whose log has nothing of the checks."""
    port = free_port()
    server = postgresql(servers, port, authentication)
    await server.started(reactor, port)
    check = HealthCheck(kind="postgresql", timeout=5.0)
    await well(reactor, port, check)
    before = (server.directory / "log").read_text()
    for _ in range(3):
        assert await checked(reactor, port, check) is None
    assert (server.directory / "log").read_text() == before
    server.signal(signal.SIGSTOP)
    hurried = HealthCheck(kind="postgresql", timeout=HANGS)
    assert await checked(reactor, port, hurried) == f"timed out after {HANGS:g} s"
    server.signal(signal.SIGCONT)
    await well(reactor, port, check)
    server.stop(signal.SIGQUIT)
    assert await checked(reactor, port, check) == "connection refused"


ONE_SESSION = [
    *("-c", "max_connections=1", "-c", "superuser_reserved_connections=0"),
    *("-c", "max_wal_senders=0"),
]


@pytest.mark.peers("postgres", "initdb")
async def test_postgresql_without_room(reactor: Any, servers: RealServers) -> None:
    """A server that answers, but takes no more sessions, is not well."""
    port = free_port()
    server = postgresql(servers, port, "trust")
    server.arguments = [*server.arguments, *ONE_SESSION]
    await server.started(reactor, port)
    check = HealthCheck(kind="postgresql", timeout=5.0)
    await well(reactor, port, check)
    with ExitStack() as held:

        async def full() -> bool:
            client = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(POSTGRESQL_STARTUP)
            reason = await checked(reactor, port, check)
            return reason == "PostgreSQL error 53300: sorry, too many clients already"

        await until(reactor, full, "a server without room")
