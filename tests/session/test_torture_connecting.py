"""A hundred and twenty clients send, end and reset before their servers are connected."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from attrs import define, frozen
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater

from evproxy.model import Ending
from evproxy.records import SessionRecord
from tests.support.collector import alive
from tests.support.peers import END, RESET, Peer, turn
from tests.support.proxies import Proxied
from tests.support.unreachable import Unanswered

SESSIONS = 120
CONNECT_TIMEOUT = 0.4
"""Seconds until a session goes on to the second server, the one that answers."""

KEY = 4
"""How many bytes at the beginning of a client's content identify the client."""


@frozen
class Plan:
    """
    The plan of a client.

    The client sends the first `early` bytes of `content`, waits, sends the rest, and waits again;
    `waits` are in seconds.  If `ends`, it then ends its stream and reads the answer.  If `resets`,
    it resets its connection after the third wait.
    """

    content: bytes
    early: int
    waits: tuple[float, float, float]
    ends: bool
    resets: bool

    @classmethod
    def drawn(cls, number: int, chance: random.Random) -> Plan:
        """Return a random plan, with sizes and waits near evproxy's bounds."""
        size = chance.choice((KEY, 100, 5000, 65536, 65537, 131072, 300_000))
        ends, resets = chance.choice(((True, False), (True, False), (False, True), (True, True)))
        return cls(
            content=number.to_bytes(KEY, "big") + chance.randbytes(size - KEY),
            early=chance.randint(KEY, size),
            waits=(
                chance.choice((0.0, 0.1, 0.42)),
                chance.choice((0.0, 0.05, 0.2, 0.39, 0.41, 0.5)),
                chance.choice((0.0, 0.1)),
            ),
            ends=ends,
            resets=resets,
        )

    def __str__(self) -> str:
        how = "end" * self.ends + "reset" * self.resets
        return f"{self.early} of {len(self.content)} bytes early, waits {self.waits}, {how}"


def answer_to(content: bytes) -> bytes:
    """Return the server's answer to the whole `content`."""
    return sha256(content).digest() * (1 + int.from_bytes(content[:KEY], "big") * 20)


@define
class Client:
    """One client and its outcome: `got` has the bytes that it read, and how the stream ended."""

    reactor: Any
    peer: Peer
    plan: Plan
    got: tuple[bytes, str] | None = None

    async def act(self) -> None:
        plan, peer = self.plan, self.peer
        await peer.send(plan.content[: plan.early])
        await deferLater(self.reactor, plan.waits[0])
        await peer.send(plan.content[plan.early :])
        await deferLater(self.reactor, plan.waits[1])
        if plan.ends:
            peer.end()
        if plan.resets:
            await deferLater(self.reactor, plan.waits[2])
            peer.reset()
        else:
            self.got = await peer.rest()

    def wrongs(self, record: SessionRecord, served: tuple[bytes, str] | None) -> Iterator[str]:
        """Return the faults, given the session's record and the bytes that the server got."""
        plan = self.plan
        ways = {Ending.LEFT, Ending.RESET} if plan.resets else {Ending.FINISHED}
        if plan.ends and plan.resets:
            ways.add(Ending.FINISHED)
        if record.reason.how not in ways:
            yield f"ended by {record.reason}, {record.error}"
        if not plan.resets:
            if served != (plan.content, END):
                yield f"server got {served and (len(served[0]), served[1])}"
            if self.got != (answer_to(plan.content), END):
                yield f"client got {self.got and (len(self.got[0]), self.got[1])}"
        elif served is not None:
            got, how = served
            if not plan.content.startswith(got):
                yield "server got something else"
            if how == END and not (plan.ends and got == plan.content):
                yield f"server got {len(got)} bytes and an end that was none"


class Servers:
    """Accepts all connections of one listening socket; `got` has the bytes of each, by key."""

    def __init__(self, proxied: Proxied, chance: random.Random) -> None:
        self._proxied = proxied
        self._chance = chance
        self._serving: list[Deferred[None]] = []
        self._accepting = Deferred.fromCoroutine(self._accept())
        self.got: dict[bytes, tuple[bytes, str]] = {}

    async def _accept(self) -> None:
        while True:
            peer = await self._proxied.upstream.accept()
            self._serving.append(Deferred.fromCoroutine(self._serve(peer)))

    async def _serve(self, peer: Peer) -> None:
        got, how = bytearray(), END
        try:
            while data := await peer.some(self._chance.choice((100, 4096, 65536))):
                got += data
                if self._chance.random() < 0.01:
                    await deferLater(self._proxied.reactor, 0.01)
        except ConnectionResetError:
            how = RESET
        self.got[bytes(got[:KEY])] = bytes(got), how
        if how == END:
            try:
                await peer.send(answer_to(bytes(got)))
            except (ConnectionResetError, BrokenPipeError):
                """The client has reset its connection in the meantime."""
        peer.close()

    async def end(self) -> None:
        """Accept the waiting connections, and wait until each connection is over."""
        for _ in range(2):
            await turn(self._proxied.reactor)
        self._accepting.addErrback(lambda reason: reason.trap(CancelledError))
        self._accepting.cancel()
        await gatherResults(self._serving)


@pytest.mark.deadline(30)
async def test_clients_by_chance_while_they_are_connected(
    proxied: Proxied, unanswered: Unanswered, no_collector: None
) -> None:
    """
    Bytes from before the connect arrive in order and whole.

    An end arrives only after all bytes, and never in place of a reset.  Afterwards, nothing of a
    session is left.
    """
    seed = int(os.environ.get("EVPROXY_TEST_SEED") or random.randrange(2**32))
    chance = random.Random(seed)
    upstreams = [unanswered.name, f"127.0.0.1:{proxied.upstream.port}"]
    await proxied.start(
        listen="tcp:0:interface=127.0.0.1:backlog=4096",
        upstreams=upstreams,
        connect_timeout=CONNECT_TIMEOUT,
        balance=InOrder(),
    )
    before = alive()
    servers = Servers(proxied, random.Random(chance.random()))
    clients: dict[int, Client] = {}
    for number in range(SESSIONS):
        peer = proxied.client()
        plan = Plan.drawn(number, random.Random(chance.random()))
        clients[peer.socket.getsockname()[1]] = Client(proxied.reactor, peer, plan)
    await gatherResults([Deferred.fromCoroutine(each.act()) for each in clients.values()])
    await proxied.observed.ended(SESSIONS)
    await servers.end()
    records = {int(each.peer.rpartition(":")[2]): each for each in proxied.observed.records}
    wrong = [
        f"{client.plan}: {what}"
        for port, client in clients.items()
        for what in client.wrongs(records[port], servers.got.get(client.plan.content[:KEY]))
    ]
    assert not wrong, f"EVPROXY_TEST_SEED={seed}\n" + "\n".join(wrong)
    assert len(proxied.observed.records) == SESSIONS
    assert [server.sessions for server in proxied.pool.servers] == [0, 0]
    assert not alive() - before, f"EVPROXY_TEST_SEED={seed}"


class InOrder:
    """A balancer that always begins with the first server."""

    def __init__(self) -> None:
        self._servers: list[Any] = []

    def update(self, servers: Any) -> None:
        self._servers = list(servers)

    def candidates(self, info: Any) -> Iterator[Any]:
        return iter(self._servers)
