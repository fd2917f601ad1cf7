"""A pool of real redis servers under load, and what its clients notice when one fails."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from evproxy.model import Ending, Side, UpstreamServer
from evproxy.settings import Ejection, HealthCheck
from tests.support.loads import Load
from tests.support.peers import END, Peer
from tests.support.pools import Blackhole, Pooled
from tests.support.real_servers import RealServer, free_port, until
from tests.support.server_kinds import redis

CLIENTS = 4
"""How many run at once; each has one session at a time."""

CHECK = HealthCheck("redis", interval=0.2, timeout=0.5, rise=1, fall=2)
DETECTION = 0.2 * 1.1 + 0.5 + 0.5
"""Seconds after which `CHECK` has surely found a server that does not answer."""

COMPLAINTS = ["Could not", "rror"]
"""What redis-benchmark writes when a session broke, whatever its exit status is."""

SLACK = 1.0
"""Seconds by which a busy machine may be late."""

pytestmark = pytest.mark.peers("redis-server", "redis-benchmark")


async def running(reactor: Any, pooled: Pooled, count: int, *options: str) -> list[RealServer]:
    """Redis servers that take connections; the last argument but `options` names the port."""
    servers = []
    for _ in range(count):
        port = free_port()
        servers.append(redis(pooled.servers, port, *options))
        await servers[-1].started(reactor, port)
    return servers


def address(server: RealServer) -> str:
    """Where it listens, which is what a pool calls it."""
    return f"127.0.0.1:{server.arguments[2]}"


def port_of(server: RealServer) -> int:
    return int(server.arguments[2])


def sessions_on(pooled: Pooled, server: str) -> int:
    """How many sessions a server of the pool has now."""
    return next(each.sessions for each in pooled.pool.servers if each.name == server)


def clients(pooled: Pooled, *options: str, width: int = CLIENTS) -> Load:
    """Clients that come and go: each has a session for its settings and one for its requests."""
    return pooled.load(
        "redis-benchmark",
        *("-p", str(pooled.port), "-c", "1", "-n", "40", "-t", "set", "-q", *options),
        width=width,
        complaints=COMPLAINTS,
    )


async def session_on(pooled: Pooled, server: RealServer) -> Peer:
    """A client of its own whose session, which stays open, is on `server`."""
    wanted = str(port_of(server)).encode()
    while True:
        client = pooled.client()
        await client.send(b"CONFIG GET port\r\n")
        answer = b""
        while answer.count(b"\r\n") < 5:
            answer += await client.some()
        if wanted in answer:
            return client
        client.close()


async def checked(pooled: Pooled, load: Load) -> None:
    """Wait until every server was checked: the first check decides alone, and later ones do not."""
    end = pooled.reactor.seconds() + 2 * CHECK.interval
    await load.until(lambda: pooled.reactor.seconds() > end)


async def test_killed_and_restarted(reactor: Any, pooled: Pooled) -> None:
    """A killed server costs its own sessions, is ejected, and comes back when it is over."""
    servers = await running(reactor, pooled, 3)
    pooled.start(*map(address, servers), ejection=Ejection(failures=3, base_time=1.0))
    load = clients(pooled)
    await load.more(5 * CLIENTS)
    victim, dead = servers[0], address(servers[0])
    waiting = await session_on(pooled, victim)
    had = sessions_on(pooled, dead)
    victim.stop()
    # A client between two requests loses its session in any case, in the way of the kernel.
    assert await waiting.rest() == (b"", END)
    assert await pooled.heard.line(f"{dead} ejected") == (
        f"{dead} ejected: connection refused (3 of 3), for 1 s"
    )
    ended = len(pooled.observed.records)
    await load.more(5 * CLIENTS)
    assert dead not in {record.upstream for record in pooled.since(ended + CLIENTS)}
    await victim.started(reactor, port_of(victim))
    await pooled.heard.line(f"{dead} up: the ejection is over")
    await load.until(lambda: pooled.observed.records[-1].upstream == dead)
    await load.stop()
    pooled.errors(len(load.bad) + 1, allowed=had, wrote=load.bad)


async def test_stopped_and_reset(reactor: Any, pooled: Pooled) -> None:
    """A server that accepts and never answers is found down, and its sessions are reset."""
    servers = await running(reactor, pooled, 3)
    pooled.start(*map(address, servers), health_check=CHECK, on_down="reset")
    load = clients(pooled)
    await checked(pooled, load)
    victim, dead = servers[1], address(servers[1])
    stopped = reactor.seconds()
    victim.signal(signal.SIGSTOP)
    assert await pooled.heard.line(f"{dead} down") == f"{dead} down: timed out after 0.5 s (2 of 2)"
    assert reactor.seconds() - stopped < DETECTION + SLACK
    await load.more(5 * CLIENTS)
    reset = [each for each in pooled.observed.records if each.reason.how is Ending.SERVER_DOWN]
    assert {(each.reason.by, each.upstream) for each in reset} == {(Side.PROXY, dead)}
    victim.signal(signal.SIGCONT)
    await pooled.heard.line(f"{dead} up")
    await load.until(lambda: pooled.observed.records[-1].upstream == dead)
    await load.stop()
    # A client is stuck at most once: the session it was on, or one it began within detection.
    pooled.errors(len(load.bad), allowed=CLIENTS, wrote=load.bad)
    assert len(load.bad) >= 1


async def test_stopped_and_kept(reactor: Any, pooled: Pooled) -> None:
    """By default sessions on a server that went down are kept, and go on when it does."""
    servers = await running(reactor, pooled, 2)
    pooled.start(*map(address, servers), health_check=CHECK)
    load = clients(pooled)
    await checked(pooled, load)
    victim, dead = servers[1], address(servers[1])
    victim.signal(signal.SIGSTOP)
    await pooled.heard.line(f"{dead} down")
    assert sessions_on(pooled, dead) >= 1
    fresh = clients(pooled, width=1)
    await fresh.more(5)
    victim.signal(signal.SIGCONT)
    await pooled.heard.line(f"{dead} up")
    await load.more(5 * CLIENTS)
    await load.stop()
    await fresh.stop()
    seen = len(load.bad) + len(fresh.bad)
    pooled.errors(seen, allowed=0, wrote=load.bad + fresh.bad)


async def test_blackholed(reactor: Any, pooled: Pooled) -> None:
    """A server whose connects are never answered costs time, and no session."""
    servers = await running(reactor, pooled, 2)
    port = free_port()
    hole, dead = pooled.closes(Blackhole(port)), f"127.0.0.1:{port}"
    pooled.start(
        *map(address, servers),
        dead,
        connect_timeout=0.3,
        ejection=Ejection(failures=2, base_time=60.0),
    )
    load = clients(pooled)
    assert await pooled.heard.line(f"{dead} ejected") == (
        f"{dead} ejected: timed out after 0.3 s (2 of 2), for 60 s"
    )
    await load.more(5 * CLIENTS)
    await load.stop()
    hole.close()
    pooled.errors(len(load.bad), allowed=0, wrote=load.bad)


async def test_blackholed_while_it_resets(reactor: Any, pooled: Pooled) -> None:
    """Sessions that still connect when their server is found down go to another, unharmed."""
    servers = await running(reactor, pooled, 1)
    port = free_port()
    pooled.closes(Blackhole(port))
    pooled.start(
        f"127.0.0.1:{port}",
        address(servers[0]),
        connect_timeout=3.0,
        health_check=HealthCheck("redis", interval=0.2, timeout=0.5, fall=1),
        on_down="reset",
    )
    load = clients(pooled)
    await pooled.heard.line(f"127.0.0.1:{port} down")
    await load.more(CLIENTS)
    await load.stop()
    pooled.errors(len(load.bad), allowed=0, wrote=load.bad)


async def test_full_servers(reactor: Any, pooled: Pooled) -> None:
    """No server ever has more than its `max_sessions`; whoever is too many waits in the queue."""
    most, wanted = 3, 30
    # A session of more would be told "max number of clients reached" by redis itself.
    servers = await running(reactor, pooled, 2, "--maxclients", str(most))
    pooled.start(*(UpstreamServer(address(each), max_sessions=most) for each in servers))
    load = pooled.load(
        *("redis-benchmark", "-p", str(pooled.port), "-c", str(wanted), "-n", "3000"),
        *("-k", "0", "-t", "set", "-q"),
        complaints=COMPLAINTS,
    )
    await load.more(1)
    await load.stop("INT")
    pooled.errors(len(load.bad), allowed=0, wrote=load.bad)
    totals = [each.sessions_total for each in pooled.pool.servers]
    assert sum(totals) >= 3000
    # Who waits goes where a slot is free first, so a faster server gets more.
    assert min(totals) > 300


async def test_backup_servers(reactor: Any, pooled: Pooled) -> None:
    """A backup server is used while the others are away, and not otherwise."""
    servers = await running(reactor, pooled, 2)
    first, spare = map(address, servers)
    pooled.start(first, UpstreamServer(spare, backup=True), health_check=CHECK, on_down="reset")
    load = clients(pooled)
    await checked(pooled, load)
    assert {each.upstream for each in pooled.observed.records} == {first}
    had = sessions_on(pooled, first)
    servers[0].stop()
    await pooled.heard.line(f"{first} down: connection refused (2 of 2)")
    await load.more(2 * CLIENTS)
    await servers[0].started(reactor, port_of(servers[0]))
    await pooled.heard.line(f"{first} up: check passed (1 of 1)")

    async def spared() -> bool:
        return sessions_on(pooled, spare) == 0

    await until(reactor, spared, "the end of the sessions on the backup server")
    ended = len(pooled.observed.records)
    await load.more(3 * CLIENTS)
    await load.stop()
    assert {each.upstream for each in pooled.since(ended)} == {first}
    pooled.errors(len(load.bad), allowed=had, wrote=load.bad)
