"""A second redis server that executes what the clients of the first one send."""

from __future__ import annotations

import pytest

from tests.mirror.test_mirrors import Mirrored, one_kind
from tests.support.programs import said
from tests.support.proxies import Proxied
from tests.support.real_servers import RealServers, free_port
from tests.support.server_kinds import redis


@one_kind
@pytest.mark.peers("redis-server", "redis-benchmark", "redis-cli")
async def test_redis_is_copied(proxied: Proxied, real_servers: RealServers) -> None:
    """Both servers have the same list, and have answered the same, byte by byte."""
    ports = []
    for _ in range(2):
        ports.append(free_port())
        await redis(real_servers, ports[-1]).started(proxied.reactor, ports[-1])
    mirrored = Mirrored(proxied, answers="compare")
    first, second = (f"127.0.0.1:{port}" for port in ports)
    await mirrored.start(second, upstreams=[first])
    host, port = proxied.address
    load = ("-n", "3000", "-c", "1", "-P", "50", "-t", "lpush")
    await said(proxied.reactor, "redis-benchmark", "-h", host, "-p", str(port), *load)
    await proxied.observed.ended()
    sessions = len(proxied.observed.records)
    await mirrored.copies.count(sessions)
    for each in ports:
        length = await said(proxied.reactor, "redis-cli", "-p", str(each), "LLEN", "mylist")
        assert length == "3000\n"
    found = {(record.outcome, record.answers) for record in mirrored.copies.records}
    assert found == {("whole", "equal")}
