"""Sessions that wait for a slot, on real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from evproxy import Candidate, ConnectionInfo, UpstreamServer
from evproxy.errors import BalancerFailed
from evproxy.model import Ending, Side
from tests.support.leaks import LoggedErrors
from tests.support.peers import END, RESET, Listening, converse
from tests.support.pools import Pooled
from tests.support.unreachable import Refusing


async def test_a_client_waits_though_one_server_refuses(
    reactor: Any, pooled: Pooled, refusing: Refusing
) -> None:
    """If one server refuses and the others are full, the session waits for the others."""
    server = pooled.closes(Listening.tcp(reactor))
    refuses, full = refusing(), f"127.0.0.1:{server.port}"
    pooled.start(refuses, UpstreamServer(full, max_sessions=1), queue_timeout=60.0, queue_size=3)
    holder, held = pooled.client(), await server.accept()
    waiting = [pooled.client() for _ in range(3)]
    beyond = pooled.client()
    assert await beyond.rest() == (b"", RESET)
    await converse(holder, held)
    holder.end()
    held.end()
    for client in waiting:
        peer = await server.accept()
        await converse(client, peer)
        client.end()
        assert await peer.rest() == (b"", END)
        peer.end()
    await pooled.observed.ended(5)
    ends = [record.reason.how for record in pooled.observed.records]
    assert ends == [Ending.UNREACHABLE] + [Ending.FINISHED] * 4


async def test_nobody_waits_for_a_server_that_was_tried(
    reactor: Any, pooled: Pooled, refusing: Refusing
) -> None:
    """If every server has refused a session, evproxy resets it at once, even if some are full."""
    refuses = refusing()
    pooled.start(UpstreamServer(refuses, max_sessions=1), queue_timeout=60.0)
    clients = [pooled.client() for _ in range(3)]
    for client in clients:
        assert await client.rest() == (b"", RESET)
    await pooled.observed.ended(3)
    reasons = {(record.reason.by, record.reason.how) for record in pooled.observed.records}
    assert reasons == {(Side.UPSTREAM, Ending.UNREACHABLE)}


async def test_a_client_that_leaves_gives_up_its_place(reactor: Any, pooled: Pooled) -> None:
    """A waiting client that leaves gets no slot, and another session gets its place."""
    server = pooled.closes(Listening.tcp(reactor))
    full = UpstreamServer(f"127.0.0.1:{server.port}", max_sessions=1)
    pooled.start(full, queue_timeout=60.0, queue_size=1)
    holder, held = pooled.client(), await server.accept()
    leaves = pooled.client()
    beyond = pooled.client()
    assert await beyond.rest() == (b"", RESET)
    leaves.reset()
    await pooled.observed.ended(2)
    stays = pooled.client()
    await stays.send(b"patient")
    await converse(holder, held)
    holder.reset()
    peer = await server.accept()
    assert await peer.receive(7) == b"patient"
    peer.reset()
    await pooled.observed.ended(4)
    assert [record.reason.how for record in pooled.observed.records][:2] == [
        Ending.UNREACHABLE,
        Ending.LEFT,
    ]


class Gives:
    """A balancer that returns the result of `what` for its servers."""

    def __init__(self, what: Callable[[Sequence[Candidate]], Any]) -> None:
        self.what = what

    def update(self, servers: Sequence[Candidate]) -> None:
        self.servers = servers

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        given: Iterator[Candidate] = self.what(self.servers)
        return given


async def test_nobody_waits_for_a_balancer_that_gives_nothing(reactor: Any, pooled: Pooled) -> None:
    """evproxy resets the client at once, and the record's error names the balancer."""
    server = pooled.closes(Listening.tcp(reactor))
    address = f"127.0.0.1:{server.port}"
    pooled.start(address, balance=Gives(lambda servers: iter(())), queue_timeout=3600.0)
    assert await pooled.client().rest() == (b"", RESET)
    await pooled.observed.ended(1)
    [record] = pooled.observed.records
    assert (record.reason.by, record.reason.how) == (Side.PROXY, Ending.UNREACHABLE)
    assert record.error == "the balancer gave no server for this client"
    assert pooled.heard.lines == []


async def test_a_balancer_that_gives_no_server(
    reactor: Any, pooled: Pooled, logged_errors: LoggedErrors
) -> None:
    """If a balancer returns an object that is no server, the session ends with a clear reason."""
    server = pooled.closes(Listening.tcp(reactor))
    balancer = Gives(lambda servers: iter([None]))
    pooled.start(f"127.0.0.1:{server.port}", balance=balancer)
    assert await pooled.client().rest() == (b"", RESET)
    balancer.what = iter
    client, peer = pooled.client(), await server.accept()
    await converse(client, peer)
    client.reset()
    await pooled.observed.ended(2)
    record = pooled.observed.records[0]
    assert (record.reason.by, record.reason.how) == (Side.PROXY, Ending.ERROR)
    assert record.error == "the balancer gave None, which is not a server"
    assert len(logged_errors.flush(BalancerFailed)) == 1
