"""A pool of real PostgreSQL servers under load from pgbench and psql."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from evproxy.model import Ending, Side
from evproxy.settings import Ejection, HealthCheck
from tests.support.loads import Load
from tests.support.pools import Blackhole, Pooled
from tests.support.real_servers import RealServer, free_port, until
from tests.support.server_kinds import postgresql

CLIENTS = 6
"""Sessions that pgbench keeps open."""

CHECK = HealthCheck("postgresql", interval=0.2, timeout=0.5, rise=1, fall=2)

DETECTION = 0.2 * 1.1 + 2 * 0.5
"""Seconds after which `CHECK` has surely found a server that does not answer."""

SLACK = 1.0
"""Seconds by which a busy machine may be late."""

pytestmark = pytest.mark.peers("postgres", "initdb", "pgbench", "psql")


async def running(reactor: Any, pooled: Pooled, count: int) -> tuple[list[RealServer], list[str]]:
    """PostgreSQL servers that take sessions, and their addresses."""
    ports = [free_port() for _ in range(count)]
    servers = [postgresql(pooled.servers, ports[0])]
    for port in ports[1:]:
        servers.append(postgresql(pooled.servers, port, like=servers[0].directory))
    for server in servers:
        server.start()
    for server, port in zip(servers, ports, strict=True):
        await server.listening(reactor, port)
        await takes_sessions(pooled, port)
    return servers, [f"127.0.0.1:{port}" for port in ports]


async def takes_sessions(pooled: Pooled, port: int) -> None:
    """Wait until the server at `port` is done with starting."""

    async def holds() -> bool:
        load = psql(pooled, port)
        await load.until(lambda: bool(load.good or load.bad))
        await load.stop()
        return bool(load.good)

    await until(pooled.reactor, holds, f"a session on port {port}")


def connection(port: int) -> tuple[str, ...]:
    return ("-h", "127.0.0.1", "-p", str(port), "-U", "postgres")


def psql(pooled: Pooled, port: int, width: int = 1) -> Load:
    """Clients that come, ask one thing and go."""
    return pooled.load("psql", *connection(port), "-c", "select 1", "postgres", width=width)


def pgbench(pooled: Pooled, port: int) -> Load:
    """Clients that stay for as long as they can; the script needs no tables."""
    script = pooled.servers.directory() / "script.sql"
    script.write_text("select 1;\n")
    return pooled.load(
        *("pgbench", *connection(port), "-n", "-c", str(CLIENTS), "-T", "60", "-f", str(script)),
        "postgres",
    )


def aborted(load: Load) -> int:
    """How many of pgbench's clients lost their session."""
    return len(re.findall(r"client \d+ aborted", "".join([load.last, *load.bad])))


async def sessions(pooled: Pooled, address: str, wanted: int) -> None:
    """Wait until the server at `address` has at least `wanted` sessions."""

    async def holds() -> bool:
        return sessions_on(pooled, address) >= wanted

    await until(pooled.reactor, holds, f"{wanted} sessions on {address}")


def sessions_on(pooled: Pooled, address: str) -> int:
    return next(each.sessions for each in pooled.pool.servers if each.name == address)


EJECTION = Ejection(failures=1, base_time=0.5)
EJECTED = r"ejected: (connection refused|reset before any answer) \(1 of 1\), for 0\.5 s"
"""The latter if a session had just been accepted."""


@pytest.mark.parametrize(
    ("health", "told"),
    [
        ({"ejection": EJECTION}, EJECTED),
        ({"health_check": CHECK}, "down: .+"),
        # Whichever finds it out first.
        ({"ejection": EJECTION, "health_check": CHECK}, f"{EJECTED}|down: .+"),
    ],
    ids=["ejection", "check", "both"],
)
async def test_killed_and_restarted(
    reactor: Any, pooled: Pooled, health: dict[str, Any], told: str
) -> None:
    """A server that is killed costs the sessions that it had, and not one of those that come."""
    servers, (first, second) = await running(reactor, pooled, 2)
    pooled.start(first, second, balance="least-sessions", **health)
    staying = pgbench(pooled, pooled.port)
    await sessions(pooled, first, CLIENTS // 2)
    await sessions(pooled, second, CLIENTS // 2)
    coming = psql(pooled, pooled.port, width=2)
    await coming.more(10)
    had = sessions_on(pooled, first)
    servers[0].stop(signal.SIGQUIT)
    assert re.fullmatch(f"{first} (?:{told})", await pooled.heard.line(f"{first} "))
    await coming.more(10)
    came = [coming]
    if "health_check" in health:
        servers[0].start()
    else:
        # It takes connections before it takes sessions, and nobody asks it.
        await coming.stop()
        servers[0].start()
        await takes_sessions(pooled, int(first.rpartition(":")[2]))
        coming = psql(pooled, pooled.port, width=2)
        came.append(coming)
    before = len(pooled.observed.records)
    while first not in {each.upstream for each in pooled.since(before)}:
        await coming.more(5)
    await coming.stop()
    await staying.stop("INT")
    # Of those that come and go, so many can have been on it when it was killed.
    bad = [each for load in came for each in load.bad]
    pooled.errors(len(bad), allowed=coming.width, wrote=bad)
    seen = aborted(staying)
    pooled.errors(seen, allowed=had, wrote=[staying.last])
    assert seen >= 1


async def test_stopped_keeps_sessions(reactor: Any, pooled: Pooled) -> None:
    """A stopped postmaster takes no new session; those that its server has go on, as kept."""
    servers, (first, second) = await running(reactor, pooled, 2)
    pooled.start(first, second, balance="least-sessions", health_check=CHECK)
    staying = pgbench(pooled, pooled.port)
    await sessions(pooled, first, CLIENTS // 2)
    coming = psql(pooled, pooled.port)
    await coming.more(10)
    servers[0].signal(signal.SIGSTOP)
    down = await pooled.heard.line(f"{first} down")
    assert down == f"{first} down: timed out after 0.5 s (2 of 2)"
    before = len(pooled.observed.records)
    fresh = psql(pooled, pooled.port, width=2)
    await fresh.more(10)
    assert {each.upstream for each in pooled.since(before)} == {second}
    assert sessions_on(pooled, first) >= CLIENTS // 2
    servers[0].signal(signal.SIGCONT)
    await pooled.heard.line(f"{first} up")
    await coming.more(5)
    await coming.stop()
    await fresh.stop()
    await staying.stop("INT")
    seen = len(coming.bad) + len(fresh.bad) + aborted(staying)
    pooled.errors(seen, allowed=0, wrote=[*coming.bad, *fresh.bad, staying.last])


@contextmanager
def stopped_whole(server: RealServer) -> Iterator[None]:
    """Every process of the server is stopped until the end: it accepts, and nothing more."""
    postmaster = int((server.directory / "data" / "postmaster.pid").read_text().split()[0])
    server.signal(signal.SIGSTOP)  # from now on it has no new children
    tree = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    children = [int(child) for child in tree]
    for child in children:
        os.kill(child, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in (*children, postmaster):
            os.kill(process, signal.SIGCONT)


async def test_stopped_whole_and_reset(reactor: Any, pooled: Pooled) -> None:
    """When all of a server is stopped, its sessions are reset as soon as that is found."""
    servers, (first, second) = await running(reactor, pooled, 2)
    pooled.start(first, second, balance="least-sessions", health_check=CHECK, on_down="reset")
    staying = pgbench(pooled, pooled.port)
    await sessions(pooled, first, CLIENTS // 2)
    await sessions(pooled, second, CLIENTS // 2)
    end = reactor.seconds() + 2 * CHECK.interval  # The first check decides alone.
    coming = psql(pooled, pooled.port)
    await coming.until(lambda: reactor.seconds() > end)
    await coming.stop()
    had = CLIENTS // 2
    await pooled.observed.until(lambda: sessions_on(pooled, first) == had)
    stopped = reactor.seconds()
    with stopped_whole(servers[0]):
        down = await pooled.heard.line(f"{first} down")
        assert down == f"{first} down: timed out after 0.5 s (2 of 2)"
        await pooled.observed.until(lambda: sessions_on(pooled, first) == 0)
        assert reactor.seconds() - stopped < DETECTION + SLACK
        fresh = psql(pooled, pooled.port, width=2)
        await fresh.more(5)
        await fresh.stop()
    await pooled.heard.line(f"{first} up")
    await staying.stop("INT")
    reset = [each for each in pooled.since(0) if each.reason.how is Ending.SERVER_DOWN]
    assert [(each.reason.by, each.upstream) for each in reset] == had * [(Side.PROXY, first)]
    pooled.errors(len(coming.bad) + len(fresh.bad), allowed=0, wrote=coming.bad + fresh.bad)
    seen = aborted(staying)
    pooled.errors(seen, allowed=had, wrote=[staying.last])
    assert seen == had


async def test_blackholed(reactor: Any, pooled: Pooled) -> None:
    """A server that answers no connect is found down; whoever tried it got another one."""
    _, (good,) = await running(reactor, pooled, 1)
    port = free_port()
    pooled.closes(Blackhole(port))
    pooled.start(
        f"127.0.0.1:{port}", good, connect_timeout=0.5, health_check=CHECK, on_down="reset"
    )
    coming = psql(pooled, pooled.port, width=4)
    await pooled.heard.line(f"127.0.0.1:{port} down: timed out after 0.5 s")
    await coming.more(20)
    await coming.stop()
    pooled.errors(len(coming.bad), allowed=0, wrote=coming.bad)
