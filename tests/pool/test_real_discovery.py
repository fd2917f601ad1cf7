"""Pools whose servers are discovered: under load from wrk, sessions follow what is true."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evproxy.settings import Discover
from tests.support.etcd_gateway import PREFIX
from tests.support.etcd_servers import etcd_server
from tests.support.files import replace
from tests.support.loads import Load
from tests.support.name_servers import NameServer, name_server
from tests.support.peers import Peer
from tests.support.pools import Pooled
from tests.support.real_servers import free_port
from tests.support.server_kinds import nginx

OFTEN = 0.05
"""The shortest time between two looks."""

FOLLOWS = 2.0
"""Seconds in which sessions follow a change, on a busy machine too."""

HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "[::1]"]

pytestmark = pytest.mark.peers("nginx", "wrk")


async def web(reactor: Any, pooled: Pooled) -> int:
    """An nginx that takes connections at a port of each of `HOSTS`; gives the port."""
    port = free_port()
    await nginx(pooled.servers, port, HOSTS).started(reactor, port)
    return port


def wrk(pooled: Pooled) -> Load:
    """Eight clients, each of whose requests is a session."""
    return pooled.load(
        *("wrk", "-t1", "-c8", "-d60s", "--timeout", "60s", "-H", "Connection: close"),
        f"http://127.0.0.1:{pooled.port}/who",
    )


async def unharmed(load: Load) -> None:
    """Stop the load: none of its requests went wrong."""
    await load.stop("INT")
    assert "requests in" in load.last
    assert "Socket errors" not in load.last
    assert "Non-2xx" not in load.last


async def follow(pooled: Pooled, *servers: str) -> None:
    """Wait until new sessions go to all of `servers` and to no other."""
    deadline = pooled.reactor.seconds() + FOLLOWS
    while (seen := await new_sessions(pooled)) != set(servers):
        assert pooled.reactor.seconds() < deadline, (seen, servers)


async def new_sessions(pooled: Pooled) -> set[str]:
    """The servers of the next thirty sessions that begin from now on."""
    now, before = pooled.reactor.seconds(), len(pooled.observed.records)

    def begun() -> list[str]:
        return [each.upstream for each in pooled.since(before) if each.started >= now]

    await pooled.observed.until(lambda: len(begun()) >= 30)
    return set(begun())


async def who(client: Peer) -> str:
    """Which server's address the client's session is on, by asking it."""
    await client.send(b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.partition(b"\r\n\r\n")[2]:
        answer += await client.some()
    return answer.partition(b"\r\n\r\n")[2].decode()


def total(pooled: Pooled, server: str) -> int:
    """How many sessions the server has had from the beginning."""
    return next(each.sessions_total for each in pooled.pool.servers if each.name == server)


async def session_on(pooled: Pooled, address: str) -> Peer:
    """A client whose session, which stays open, is on the server with `address`."""
    while True:
        client = pooled.client()
        if await who(client) == address:
            return client
        client.close()


async def leaves_and_returns(
    pooled: Pooled, port: int, leave: Callable[[], Any], come_back: Callable[[], Any]
) -> None:
    """The server 127.0.0.2, one of two, drains when it leaves, and is itself when it is back."""
    first, second = f"127.0.0.1:{port}", f"127.0.0.2:{port}"
    await follow(pooled, first, second)
    client = await session_on(pooled, "127.0.0.2")
    await maybe(leave())
    assert await pooled.heard.line(f"{second} draining") == (
        f"{second} draining: no longer discovered, until its last session ends"
    )
    await follow(pooled, first)
    before = total(pooled, second)
    assert await who(client) == "127.0.0.2"
    assert before > 1
    await maybe(come_back())
    await follow(pooled, first, second)
    assert await who(client) == "127.0.0.2"
    assert total(pooled, second) > before
    client.close()


async def maybe(result: Any) -> None:
    """Wait for what a step gave, if it has to be waited for."""
    if result is not None:
        await result


def zone(*addresses: str) -> str:
    return "\n".join(f"web {'AAAA' if ':' in address else 'A'} {address}" for address in addresses)


async def named(
    reactor: Any, pooled: Pooled, kind: str, records: str, **settings: Any
) -> NameServer:
    """A pool that follows a real name server, which has `records`."""
    dns = await name_server(reactor, pooled.servers, records)
    name = "web.example.test" if kind == "dns" else "_web._tcp.example.test"
    discover = Discover(
        kind,
        name=name,
        nameservers=(f"127.0.0.1:{dns.port}",),
        interval=10 * OFTEN,
        min_interval=OFTEN,
        **settings,
    )
    pooled.start(discover=discover)
    return dns


@pytest.mark.peers("knotd", "knotc")
async def test_addresses(reactor: Any, pooled: Pooled) -> None:
    """Sessions follow the A and AAAA records of a name; while DNS is away they go on."""
    port = await web(reactor, pooled)
    dns = await named(reactor, pooled, "dns", zone("127.0.0.1", "127.0.0.2"), port=port)
    await pooled.heard.line("127.0.0.2")
    load = wrk(pooled)
    await leaves_and_returns(
        pooled,
        port,
        lambda: dns.change(zone("127.0.0.1")),
        lambda: dns.change(zone("127.0.0.1", "127.0.0.2")),
    )
    dns.change(zone("127.0.0.3", "::1"))
    await follow(pooled, f"127.0.0.3:{port}", f"[::1]:{port}")
    dns.server.stop()
    assert (await pooled.heard.line("discovery")).startswith("discovery: A of web.example.test: ")
    await follow(pooled, f"127.0.0.3:{port}", f"[::1]:{port}")
    dns.write(zone("127.0.0.1"))
    await dns.server.started(reactor, dns.port)
    await follow(pooled, f"127.0.0.1:{port}")
    await pooled.heard.line("discovery recovered")
    await unharmed(load)


@pytest.mark.peers("knotd", "knotc")
async def test_services(reactor: Any, pooled: Pooled) -> None:
    """Sessions follow a service: ports, weights, tiers; while DNS is away they go on."""
    port, other = await web(reactor, pooled), await web(reactor, pooled)
    hosts = "a A 127.0.0.1\nb A 127.0.0.2\n"
    both = f"_web._tcp SRV 0 1 {port} a\n_web._tcp SRV 0 1 {port} b\n"
    dns = await named(reactor, pooled, "dns-srv", hosts + both)
    await pooled.heard.line("127.0.0.2")
    load = wrk(pooled)
    await leaves_and_returns(
        pooled,
        port,
        lambda: dns.change(hosts + f"_web._tcp SRV 0 1 {port} a\n"),
        lambda: dns.change(hosts + both),
    )
    tiers = f"_web._tcp SRV 0 1 {port} a\n_web._tcp SRV 9 1 {other} b\n"
    dns.change(hosts + tiers)
    await follow(pooled, f"127.0.0.1:{port}")
    pooled.pool.drain(f"127.0.0.1:{port}")
    await follow(pooled, f"127.0.0.2:{other}")
    dns.change(hosts + f"_web._tcp SRV 0 90 {other} a\n_web._tcp SRV 0 10 {other} b\n")
    await follow(pooled, f"127.0.0.1:{other}", f"127.0.0.2:{other}")
    weights = {each.name: each.weight for each in pooled.pool.servers if each.state == "up"}
    assert weights == {f"127.0.0.1:{other}": 90, f"127.0.0.2:{other}": 10}
    dns.server.stop()
    failure = await pooled.heard.line("discovery")
    assert failure.startswith("discovery: SRV of _web._tcp.example.test: ")
    await follow(pooled, f"127.0.0.1:{other}", f"127.0.0.2:{other}")
    dns.write(hosts + f"_web._tcp SRV 0 1 {port} b\n")
    await dns.server.started(reactor, dns.port)
    await follow(pooled, f"127.0.0.2:{port}")
    await pooled.heard.line("discovery recovered")
    await unharmed(load)


@pytest.mark.peers("etcd")
async def test_etcd(reactor: Any, pooled: Pooled) -> None:
    """Sessions follow what is put and deleted in etcd, and go on while it is away."""
    port = await web(reactor, pooled)
    etcd = etcd_server(reactor, pooled.servers)
    await etcd.started()
    await etcd.put("a", f"127.0.0.1:{port}")
    await etcd.put("b", f"127.0.0.2:{port}")
    pooled.start(
        discover=Discover(
            "etcd",
            prefix=PREFIX,
            endpoints=(etcd.url,),
            interval=5 * FOLLOWS,
            min_interval=OFTEN,
        )
    )
    await pooled.heard.line("127.0.0.2")
    load = wrk(pooled)
    await leaves_and_returns(
        pooled,
        port,
        lambda: etcd.delete("b"),
        lambda: etcd.put("b", f"127.0.0.2:{port}"),
    )
    etcd.server.stop()
    assert await pooled.heard.line("discovery") == f"discovery: {etcd.url}: connection refused"
    await follow(pooled, f"127.0.0.1:{port}", f"127.0.0.2:{port}")
    await etcd.started()
    await etcd.put("b", {"endpoint": f"127.0.0.3:{port}", "weight": 3})
    await follow(pooled, f"127.0.0.1:{port}", f"127.0.0.3:{port}")
    await pooled.heard.line("discovery recovered")
    await unharmed(load)


async def test_file(reactor: Any, pooled: Pooled, tmp_path: Path) -> None:
    """Sessions follow a file; a broken one is told once, and keeps the last good set."""
    port = await web(reactor, pooled)
    path = tmp_path / "servers.json"

    def write(*hosts: str) -> None:
        replace(path, json.dumps({"upstreams": [f"{host}:{port}" for host in hosts]}))

    write("127.0.0.1", "127.0.0.2")
    pooled.start(discover=Discover("file", path=str(path), min_interval=OFTEN))
    await pooled.heard.line("127.0.0.2")
    load = wrk(pooled)
    await leaves_and_returns(
        pooled, port, lambda: write("127.0.0.1"), lambda: write("127.0.0.1", "127.0.0.2")
    )
    replace(path, '{"upstreams": [')
    failure = await pooled.heard.line("discovery")
    assert failure.startswith(f"discovery: {path}: not JSON: ")
    await follow(pooled, f"127.0.0.1:{port}", f"127.0.0.2:{port}")
    write("127.0.0.3")
    await follow(pooled, f"127.0.0.3:{port}")
    told = [line for line in pooled.heard.lines if line.startswith("discovery")]
    assert told == [failure, "discovery recovered"]
    await unharmed(load)
