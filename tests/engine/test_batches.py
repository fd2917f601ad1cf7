"""Events within one batch of the engine, and between two batches."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import stat
import termios
from collections.abc import Callable

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy.engine.loop import LEAD, TURN
from evproxy.model import Ending, Phase
from evproxy.relay.end import SPLICE_CHUNK
from tests.support.batches import HUNG_UP, IN, Batches, ready, wait_ready
from tests.support.bulk import ENDLESS
from tests.support.peers import Listening, Peer, converse
from tests.support.proxies import Proxied

pytestmark = [pytest.mark.deadline(20), pytest.mark.every_reactor]
on_engine = pytest.mark.parametrize("proxied", ["socket", "lingering"], indirect=True)

BULK_SESSIONS = 4


@on_engine
async def test_a_number_does_not_come_back_within_a_batch(
    proxied: Proxied, batches: Batches, no_holes: Callable[[int], None]
) -> None:
    """
    Within one batch, no descriptor number is used again.

    In one batch, a session ends, a client is accepted, a server is connected, and an event for the
    ended session follows.  The kernel gives out the numbers of the ended session only afterwards.
    """
    upstream = proxied.closes(Listening.tcp(proxied.reactor, backlog=0))
    await proxied.start(upstreams=[f"127.0.0.1:{upstream.port}"], connect_timeout=15.0)
    client = proxied.client()
    server = await upstream.accept()
    await converse(client, server)
    (_, port), (_, down), (_, up) = batches.registered
    # From now on, a connect gets no answer; only a bug could report one.
    for _ in range(8):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", upstream.port))
        proxied.closes(Peer(proxied.reactor, sock))
    last = proxied.closes(Peer(proxied.reactor, socket.socket()))
    no_holes(max(down, up))
    batches.order = [down, port, up]
    number, known = len(batches.seen), len(batches.registered)

    client.reset()
    wait_ready(down, HUNG_UP)
    newcomer = proxied.client()
    wait_ready(port, IN)
    server.send_now(b"late")
    wait_ready(up, IN)
    await proxied.observed.ended()
    # The observer is notified while the sockets are being closed.
    await deferLater(proxied.reactor, 0)
    assert batches.seen[number] == [down, port, up]
    # One accepted socket, and one connecting socket.
    (in_batch, one), (and_too, other) = batches.registered[known:]
    assert in_batch == and_too == number + 1
    assert not {down, up} & {one, other}
    [ended] = proxied.observed.records
    assert (ended.reason.how, ended.bytes_to_downstream) == (Ending.RESET, 1)

    # After the batch the numbers are free, and the next session gets them.
    last.socket.connect_ex(proxied.address)
    while len(batches.registered) < known + 4:
        await deferLater(proxied.reactor, 0)
    assert {descriptor for _, descriptor in batches.registered[known + 2 :]} == {down, up}
    newcomer.reset()
    last.reset()
    await proxied.observed.ended(3)
    for record in proxied.observed.records[1:]:
        assert (record.reason.how, record.reason.phase) == (Ending.LEFT, Phase.CONNECTING)


class Bulk:
    """Some spliced sessions whose servers send without end, and one small session beside them."""

    def __init__(self, proxied: Proxied) -> None:
        self.proxied = proxied
        self.pairs: list[tuple[Peer, Peer]] = []
        self.small: tuple[Peer, Peer]

    async def start(self) -> None:
        """Wait until each bulk session is spliced, with no reader, and the small one relays."""
        await self.proxied.start()
        self.pairs = [await self.proxied.pair() for _ in range(BULK_SESSIONS)]
        self.small = await self.proxied.pair()
        await converse(*self.small)
        quiet = 0
        while quiet < 20:
            quiet = 0 if self.send() else quiet + 1
            await deferLater(self.proxied.reactor, 0.001)
        assert self.proxied.plane.pipes.in_use == BULK_SESSIONS

    def send(self) -> int:
        """Let each server send as much as its kernel takes."""
        return sum(server.send_now(ENDLESS) for _, server in self.pairs)

    def read(self) -> None:
        """Let each client read the bytes that have arrived."""
        for client, _ in self.pairs:
            try:
                while client.socket.recv(SPLICE_CHUNK):
                    pass
            except BlockingIOError:
                continue

    def end(self) -> None:
        """End all sessions."""
        for pair in self.pairs:
            for peer in pair:
                peer.reset()


class Splices:
    """
    Counts the splices out of sockets.

    `most`: the most splices out of one socket in one batch.  `waited`: the number of splices while
    the socket `awaited` had nothing to read.  `left`: the most bytes left for another splice.
    """

    def __init__(self, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
        self.awaited: socket.socket | None = None
        self.waited = self.left = 0
        self._batches = batches
        self._counted: dict[tuple[int, int], int] = {}
        self._splice: Callable[..., int] = os.splice
        monkeypatch.setattr(os, "splice", self.splice)

    def splice(self, source: int, sink: int, most: int, flags: int) -> int:
        moved = self._splice(source, sink, most, flags=flags)
        if stat.S_ISSOCK(os.fstat(source).st_mode):
            key = len(self._batches.seen), source
            self._counted[key] = self._counted.get(key, 0) + 1
            if self.awaited is not None and not ready(self.awaited.fileno(), IN):
                self.waited += 1
                self.left = max(self.left, queued(source))
        return moved

    @property
    def most(self) -> int:
        return max(self._counted.values())


def queued(descriptor: int) -> int:
    """Return how many unread bytes the socket has (FIONREAD)."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


@on_engine
async def test_a_question_waits_for_one_splice_of_each_bulk_session(
    proxied: Proxied, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A request waits for at most one splice of each bulk session.

    The request is ready when its batch begins.  Each bulk session has many more bytes to splice,
    and a sink that takes them.
    """
    bulk = Bulk(proxied)
    await bulk.start()
    client, server = bulk.small
    # The registered sockets: the port, then the client and the server of each session.
    down = batches.registered[-2][1]
    batches.order = [down]
    splices = Splices(batches, monkeypatch)
    for _ in range(10):
        bulk.read()
        bulk.send()
        client.send_now(b"?")
        wait_ready(down, IN)
        number = len(batches.seen)
        splices.awaited, splices.waited = server.socket, 0
        assert await server.receive(1) == b"?"
        splices.awaited = None
        assert down in batches.seen[number]
        assert splices.waited <= BULK_SESSIONS
    bulk.end()
    assert splices.most == 1
    assert splices.left > SPLICE_CHUNK


@on_engine
async def test_the_reactor_has_its_turn_while_bulk_is_moved(
    proxied: Proxied, batches: Batches
) -> None:
    """However long more bulk is ready for the next batch, the reactor's other calls run."""
    bulk = Bulk(proxied)
    await bulk.start()
    reactor = proxied.reactor
    begun, wanted = len(batches.seen), 300
    turns = 0
    over: Deferred[None] = Deferred()

    def go_on() -> None:
        if len(batches.seen) - begun < wanted:
            bulk.read()
            bulk.send()

    def turn() -> None:
        nonlocal turns
        turns += 1
        if len(batches.seen) - begun < wanted:
            go_on()
            reactor.callFromThread(reactor.callLater, 0, turn)
        else:
            over.callback(None)

    batches.before = go_on
    turn()
    await over
    batches.before = lambda: None
    bulk.end()
    assert turns > 10, turns


@on_engine
async def test_only_an_engine_that_lingers_waits_for_the_next_batch(
    proxied: Proxied, batches: Batches
) -> None:
    """An engine that shares its process never waits; an engine that lingers waits briefly."""
    await proxied.start()
    await converse(*await proxied.pair())
    longest = max(batches.waits)
    if proxied.kind == "socket":
        assert longest == 0
    elif type(proxied.reactor).__name__ == "EPollReactor":
        assert TURN < longest <= LEAD
    else:
        assert longest == TURN
