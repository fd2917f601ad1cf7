"""Servers from etcd: a real one that is written to, restarted and stopped, and misbehaving ones."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from evproxy.model import UpstreamServer
from evproxy.upstream.discovery.etcd_client import EtcdClient
from evproxy.upstream.discovery.etcd_wire import EtcdError, Lines, read_update
from tests.support.etcd_gateway import OFTEN, PREFIX, encoded, watching
from tests.support.etcd_servers import Etcd, etcd_server
from tests.support.real_servers import RealServers, free_port


@pytest.fixture
def etcd(reactor: Any) -> Iterator[Etcd]:
    """A real etcd, not started yet."""
    servers = RealServers()
    yield etcd_server(reactor, servers)
    servers.end()


@pytest.mark.peers("etcd")
async def test_changes(reactor: Any, etcd: Etcd) -> None:
    """What is put and deleted under the prefix arrives, in the order of the keys."""
    await etcd.started()
    await etcd.put("b", "10.0.0.2:80")
    told, discovery = watching(reactor, [etcd.url])
    await told.servers("10.0.0.2:80")
    await etcd.put("a", {"endpoint": "10.0.0.1:80", "weight": 5})
    assert await told.servers("10.0.0.1:80", "10.0.0.2:80") == (
        UpstreamServer("10.0.0.1:80", weight=5),
        UpstreamServer("10.0.0.2:80"),
    )
    await etcd.put("../other", "10.0.0.3:80")
    await etcd.ask("/v3/kv/put", {"key": encoded("/elsewhere"), "value": encoded('"x:1"')})
    await etcd.put("a", "10.0.0.9:80")
    await etcd.delete("../other")
    await etcd.delete("b")
    await told.servers("10.0.0.9:80")
    await etcd.delete("a")
    await told.servers()
    discovery.stop()
    assert told.problems == (f"no discovered server: there is no key with the prefix {PREFIX!r}",)
    assert told.failures == []


@pytest.mark.peers("etcd")
async def test_bad_value(reactor: Any, etcd: Etcd) -> None:
    """A bad value is told and left out; the others count; bad ones alone change nothing."""
    await etcd.started()
    await etcd.put("a", "10.0.0.1:80")
    await etcd.put("b", b"10.0.0.2:80")
    told, discovery = watching(reactor, [etcd.url], interval=4 * OFTEN)
    assert (await told.problem()).startswith(f"left out: {PREFIX}b: not JSON: ")
    assert told.endpoints() == ["10.0.0.1:80"]
    await etcd.put("c", "10.0.0.3:80")
    await told.servers("10.0.0.1:80", "10.0.0.3:80")
    await etcd.put("b", "10.0.0.2:80")
    await told.servers("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
    assert (told.problems, told.failures) == ((), [])
    await etcd.delete("a")
    await etcd.delete("b")
    await told.servers("10.0.0.3:80")
    await etcd.put("c", {"endpoint": "10.0.0.3:80", "weight": 257})
    await told.until(lambda: bool(told.failures))
    assert told.failures[0].startswith(f"no usable server: {PREFIX}c: weight: expected")
    assert told.endpoints() == ["10.0.0.3:80"]
    before = len(told.sets)
    await etcd.put("c", "10.0.0.3:80")
    await told.until(lambda: len(told.sets) > before)
    discovery.stop()
    assert len(told.failures) == 1


@pytest.mark.peers("etcd")
async def test_restarted(reactor: Any, etcd: Etcd) -> None:
    """While etcd is away the last set stays; once it is back, changes arrive again."""
    await etcd.started()
    await etcd.put("a", "10.0.0.1:80")
    told, discovery = watching(reactor, [etcd.url], interval=10 * OFTEN)
    await told.servers("10.0.0.1:80")
    etcd.server.stop()
    assert await told.failure() == f"{etcd.url}: connection refused"
    assert len(told.sets) == 1
    await etcd.started()
    await told.until(lambda: len(told.sets) == 2)
    await etcd.put("b", "10.0.0.2:80")
    await told.servers("10.0.0.1:80", "10.0.0.2:80")
    discovery.stop()


@pytest.mark.peers("etcd")
async def test_stopped_without_a_word(reactor: Any, etcd: Etcd) -> None:
    """An etcd that hangs is found, although its connection stays open."""
    await etcd.started()
    await etcd.put("a", "10.0.0.1:80")
    told, discovery = watching(reactor, [etcd.url], interval=10 * OFTEN)
    await told.servers("10.0.0.1:80")
    etcd.server.signal(signal.SIGSTOP)
    assert await told.failure() == f"{etcd.url}: timed out after 5 s"
    etcd.server.signal(signal.SIGCONT)
    await told.until(lambda: len(told.sets) == 2)
    discovery.stop()


@pytest.mark.peers("etcd")
async def test_other_member(reactor: Any, etcd: Etcd) -> None:
    """A member that is away is passed over without a word."""
    await etcd.started()
    await etcd.put("a", "10.0.0.1:80")
    away = f"http://127.0.0.1:{free_port()}"
    told, discovery = watching(reactor, [away, etcd.url])
    await told.servers("10.0.0.1:80")
    discovery.stop()
    assert told.failures == []


@pytest.mark.peers("etcd")
async def test_compacted(reactor: Any, etcd: Etcd) -> None:
    """A watch from a revision that is compacted says so."""
    await etcd.started()
    for number in range(5):
        await etcd.put("a", f"10.0.0.{number}:80")
    client = EtcdClient(reactor, etcd.url, PREFIX)
    snapshot = await client.read()
    assert snapshot.values == {f"{PREFIX}a".encode(): b'"10.0.0.4:80"'}
    await etcd.ask("/v3/kv/compaction", {"revision": str(snapshot.revision)})
    with pytest.raises(EtcdError, match="the revision has been compacted"):
        await watched(client, 1)


async def watched(client: EtcdClient, revision: int) -> None:
    """Watch from `revision` on until the watch ends."""
    lines = Lines()

    def received(data: bytes) -> None:
        for line in lines.receive(data):
            if ended := read_update(line).ended:
                raise EtcdError(ended)

    await client.watch(revision, received, 60.0)
