"""The socket relay with an end whose channel is more than a kernel socket, as TLS would be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from twisted.internet.defer import Deferred

from evproxy.engine.pipes import Pipes
from evproxy.model import Ending, Side
from evproxy.relay.socket_relay import SocketRelay
from tests.support.peers import END, RESET, Peer
from tests.support.records import LAST, Reader, RecordChannel, opened, records
from tests.support.transports import Listener, Plain, Workbench

pytestmark = pytest.mark.deadline(20)

MUCH = bytes(range(256)) * 4096 * 8


@dataclass
class Speaker:
    """A peer; it speaks in records if the end at its other side does."""

    peer: Peer
    in_records: bool

    async def send(self, data: bytes) -> None:
        await self.peer.send(records(data) if self.in_records else data)

    async def say(self, data: bytes) -> None:
        await self.send(data)
        await self.end()

    async def end(self) -> None:
        if self.in_records:
            await self.peer.send(LAST)
        self.peer.end()

    async def receive(self, count: int) -> bytes:
        if not self.in_records:
            return await self.peer.receive(count)
        reader = Reader()
        while len(reader.data) < count:
            reader.feed(await self.peer.some())
        return bytes(reader.data)

    async def rest(self) -> tuple[bytes, str]:
        raw, end = await self.peer.rest()
        if not self.in_records:
            return raw, end
        data, ended = opened(raw)
        return data, end if ended or end == RESET else "cut off"


class Joined:
    """A client and a server joined; the ends named by `which` have channels of records."""

    def __init__(self, workbench: Workbench, which: str) -> None:
        self.listener = Listener()
        self.down, client = workbench.connect(Plain())
        self.up, server = workbench.connect(Plain())
        for end, name in ((self.down, "down"), (self.up, "up")):
            if which in (name, "both"):
                end.channel = RecordChannel(end.socket)
        self.client = Speaker(client, not self.down.plain)
        self.server = Speaker(server, not self.up.plain)
        self.relay = SocketRelay(workbench.engine, self.down, self.up, self.listener)


@pytest.fixture(params=["down", "up", "both"])
def joined(workbench: Workbench, request: pytest.FixtureRequest) -> Iterator[Joined]:
    """Two peers about to be joined, where there are pipes to splice through."""
    pipes = workbench.engine.pipes = Pipes(4)
    yield Joined(workbench, request.param)
    pipes.close()


async def test_bulk_and_ends_pass_both_ways(joined: Joined) -> None:
    """All bytes arrive in order, then the end, however many bytes there are; none are spliced."""
    joined.relay.start(b"", False)
    for one, other in ((joined.client, joined.server), (joined.server, joined.client)):
        sending = Deferred.fromCoroutine(one.say(MUCH))
        assert await other.rest() == (MUCH, END)
        await sending
    assert await joined.listener.closed == (Side.DOWNSTREAM, Ending.FINISHED)


async def test_what_is_pending_needs_no_event(joined: Joined) -> None:
    """The relay reads what is pending in a channel as fast as the other side takes it."""
    for end in (joined.down, joined.up):
        if isinstance(end.channel, RecordChannel):
            end.channel.take(records(MUCH))
    joined.relay.start(b"", False)
    if not joined.down.plain:
        assert await joined.server.receive(len(MUCH)) == MUCH
    if not joined.up.plain:
        assert await joined.client.receive(len(MUCH)) == MUCH


async def test_a_stream_that_is_cut_off_is_a_reset(joined: Joined) -> None:
    """A stream that is cut off before its own end does not look whole to the other peer."""
    joined.relay.start(b"", False)
    one, other = joined.client, joined.server
    if not one.in_records:
        one, other = other, one
    await one.send(b"half")
    one.peer.end()
    data, end = await other.rest()
    assert (data, end) == (b"half", RESET)
    assert (await joined.listener.closed)[1] is Ending.RESET
