"""The socket relay with missing or small pipes, and with many events in one batch."""

from __future__ import annotations

import fcntl
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from evproxy.engine import pipes
from evproxy.engine.loop import BATCH
from evproxy.engine.pipes import Pipe, Pipes
from evproxy.model import Ending, Side
from evproxy.relay.end import SILENT_AFTER
from evproxy.session.factory import ProxyFactory
from tests.support.bulk import BULK, ENDLESS, counted, fill, roles
from tests.support.exhaustion import Exhaustion
from tests.support.peers import END, RESET, Peer, converse
from tests.support.proxies import Proxied

pytestmark = [pytest.mark.deadline(20), pytest.mark.lingering, pytest.mark.every_reactor]
socket_relay = pytest.mark.parametrize("proxied", ["socket", "socket-twisted"], indirect=True)


async def both_ways(proxied: Proxied, client: Peer, server: Peer) -> None:
    """Send `BULK` both ways at once, and end: each peer gets all bytes, and all are counted."""
    done = await gatherResults(
        map(
            Deferred.fromCoroutine,
            (
                client.rest(),
                server.rest(),
                send_and_end(proxied.reactor, client),
                send_and_end(proxied.reactor, server),
            ),
        )
    )
    assert done == [(BULK, END), (BULK, END), None, None]
    await proxied.observed.ended()
    assert counted(proxied) == (len(BULK), len(BULK), Ending.FINISHED)


async def send_and_end(reactor: Any, peer: Peer) -> None:
    """Send `BULK` and end the stream, while other code reads from `peer`."""
    duplicate = Peer(reactor, peer.socket.dup())
    await duplicate.send(BULK)
    duplicate.end()
    duplicate.close()


@socket_relay
async def test_a_direction_that_falls_silent_gives_its_pipe_back(proxied: Proxied) -> None:
    """A session that moved bulk and then falls silent holds no pipe."""
    await proxied.start()
    client, server = await proxied.pair()
    sending = Deferred.fromCoroutine(server.send(BULK))
    received = await client.receive(len(BULK) // 2)
    assert proxied.plane.pipes.in_use == 1
    received += await client.receive(len(BULK) - len(received))
    await sending
    assert received == BULK
    silent = proxied.reactor.seconds()
    while proxied.plane.pipes.in_use:
        await deferLater(proxied.reactor, 0.02)
    assert proxied.reactor.seconds() - silent < 3 * SILENT_AFTER
    await server.send(b"!")
    assert await client.receive(1) == b"!"


@socket_relay
async def test_bulk_goes_through_pipes_and_calm_does_not(proxied: Proxied) -> None:
    """A direction that is bulk uses a pipe until it calms down, and no byte is lost."""
    await proxied.start()
    client, server = await proxied.pair()
    in_use = proxied.plane.pipes
    for _ in range(2):
        assert in_use.in_use == 0
        sending = Deferred.fromCoroutine(server.send(BULK))
        received = bytearray(await client.receive(len(BULK) // 2))
        assert in_use.in_use == 1
        received += await client.receive(len(BULK) - len(received))
        await sending
        assert received == BULK
        for number in range(20):
            await server.send(bytes([number]))
            assert await client.receive(1) == bytes([number])
        assert in_use.in_use == 0
    await client.send(BULK[:5])
    client.end()
    server.end()
    assert await client.rest() == (b"", END)
    await proxied.observed.ended()
    assert counted(proxied) == (5, 2 * (len(BULK) + 20), Ending.FINISHED)


@socket_relay
async def test_bulk_whose_reads_are_not_all_full_goes_through_a_pipe(proxied: Proxied) -> None:
    """A direction is bulk even if every other read is short, because evproxy is faster."""
    await proxied.start()
    client, server = await proxied.pair()
    burst = BULK[: 96 * 1024]
    for _ in range(20):
        await server.send(burst)
        assert await client.receive(len(burst)) == burst
    assert proxied.plane.pipes.in_use == 1


@socket_relay
async def test_now_and_then_a_full_read_is_not_bulk(proxied: Proxied) -> None:
    """Answers that fill the buffer are copied if there are many small ones between them."""
    await proxied.start()
    client, server = await proxied.pair()
    for _ in range(8):
        await server.send(BULK[: 64 * 1024])
        assert await client.receive(64 * 1024) == BULK[: 64 * 1024]
        for _ in range(10):
            await server.send(BULK[: 10 * 1024])
            assert await client.receive(10 * 1024) == BULK[: 10 * 1024]
        assert proxied.plane.pipes.in_use == 0


async def test_bulk_both_ways_at_once(proxied: Proxied) -> None:
    """Both directions can be full at the same time."""
    await proxied.start()
    await both_ways(proxied, *await proxied.pair())


@socket_relay
async def test_no_pipe_is_allowed(proxied: Proxied) -> None:
    """If no pipe may be used, everything is copied."""
    await proxied.start(most_pipes=0)
    await both_ways(proxied, *await proxied.pair())


@socket_relay
async def test_a_slow_reader_without_a_pipe(proxied: Proxied) -> None:
    """Exactly the bytes of a copied chunk that the kernel does not take are kept."""
    await proxied.start(most_pipes=0)
    client, server = await proxied.pair()
    sent = await fill(proxied.reactor, server)
    server.end()
    assert await client.rest() == (bytes(ENDLESS[:sent]), END)
    client.end()
    await proxied.observed.ended()
    assert counted(proxied) == (0, sent, Ending.FINISHED)


@socket_relay
async def test_no_descriptor_for_a_pipe(proxied: Proxied) -> None:
    """While no pipe can be made, bulk is copied; after that, bulk is spliced."""
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    with Exhaustion():
        sending = Deferred.fromCoroutine(client.send(BULK))
        assert await server.receive(len(BULK)) == BULK
        await sending
        assert proxied.plane.pipes.in_use == 0
    sending = Deferred.fromCoroutine(client.send(BULK))
    assert await server.receive(len(BULK) // 2) == BULK[: len(BULK) // 2]
    assert proxied.plane.pipes.in_use == 1
    await server.receive(len(BULK) - len(BULK) // 2)
    await sending
    client.reset()
    assert await server.rest() == (b"", RESET)
    await proxied.observed.ended()
    assert counted(proxied) == (2 * len(BULK) + 1, 1, Ending.RESET)


@attrs.frozen
class PipesTaken:
    """The size of each pipe when it was taken, and how many bytes it held when it came back."""

    sizes: list[int] = attrs.field(factory=list)
    held: list[int] = attrs.field(factory=list)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> PipesTaken:
    """The pipes that were taken in the test."""
    taken = PipesTaken()
    take, give_back = Pipes.take, Pipes.give_back

    def taking(self: Pipes) -> Pipe | None:
        pipe = take(self)
        if pipe is not None:
            taken.sizes.append(fcntl.fcntl(pipe.write_end, fcntl.F_GETPIPE_SZ))
        return pipe

    def giving_back(self: Pipes, pipe: Pipe) -> None:
        taken.held.append(pipe.held)
        give_back(self, pipe)

    monkeypatch.setattr(Pipes, "take", taking)
    monkeypatch.setattr(Pipes, "give_back", giving_back)
    return taken


@socket_relay
@pytest.mark.parametrize(
    ("asked", "size"),
    [
        pytest.param(-1, 65536, id="the kernel refuses the size"),
        pytest.param(4096, 4096, id="one page"),
    ],
)
async def test_pipes_are_small(
    proxied: Proxied, asked: int, size: int, taken: PipesTaken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If pipes cannot be made big, bulk goes through small ones."""
    monkeypatch.setattr(pipes, "SIZE", asked)
    await proxied.start()
    await both_ways(proxied, *await proxied.pair())
    assert len(taken.sizes) >= 2
    assert set(taken.sizes) == {size}


@socket_relay
@pytest.mark.parametrize("side", [Side.DOWNSTREAM, Side.UPSTREAM])
async def test_a_reset_with_a_full_pipe(proxied: Proxied, side: Side, taken: PipesTaken) -> None:
    """The bytes in a pipe whose session is reset do not reach the next session that is bulk."""
    await proxied.start(most_pipes=1)
    reader, sender = roles(side, *await proxied.pair())
    await fill(proxied.reactor, sender)
    assert proxied.plane.pipes.in_use == 1
    reader.reset()
    assert await sender.rest() == (b"", RESET)
    await proxied.observed.ended()
    assert taken.held[-1] > 0
    reader, sender = roles(side, *await proxied.pair())
    before = len(taken.sizes)
    sending = Deferred.fromCoroutine(sender.send(BULK))
    assert await reader.receive(len(BULK)) == BULK
    await sending
    assert len(taken.sizes) > before


@socket_relay
async def test_one_pipe_for_many(proxied: Proxied) -> None:
    """If there is only one pipe, one direction has it and the others are copied."""
    await proxied.start(most_pipes=1)
    pairs = [await proxied.pair() for _ in range(4)]
    sending = [Deferred.fromCoroutine(client.send(BULK)) for client, _ in pairs]
    receiving = [Deferred.fromCoroutine(server.receive(len(BULK))) for _, server in pairs]
    assert await gatherResults(receiving) == [BULK] * 4
    await gatherResults(sending)
    # A direction that calmed down before the end has given back its pipe.
    assert proxied.plane.pipes.in_use <= 1


async def test_a_socket_that_breaks_in_the_middle_of_a_batch(proxied: Proxied) -> None:
    """One of many sessions with an event in the same turn is reset; the others do not notice."""
    await proxied.start()
    pairs = [await proxied.pair() for _ in range(9)]
    for client, server in pairs:
        await converse(client, server)
    for number, (client, _) in enumerate(pairs):
        if number == 4:
            client.reset()
        else:
            client.send_now(bytes([number]))
    for number, (client, server) in enumerate(pairs):
        if number == 4:
            assert await server.rest() == (b"", RESET)
        else:
            assert await server.receive(1) == bytes([number])
            await server.send(b"!")
            assert await client.receive(1) == b"!"
    await proxied.observed.ended()
    assert counted(proxied) == (1, 1, Ending.RESET)


async def test_a_session_that_ends_another_one_in_the_same_batch(proxied: Proxied) -> None:
    """
    Events of a session that a user's code has just ended reach no other session, even if the next
    socket is made before the batch is over.
    """

    class Jealous(ProxyFactory):
        def buildProtocol(self, addr: Any) -> Any:
            for session in list(self.admission.sessions):
                session.end(Side.PROXY, Ending.DRAIN)
            return super().buildProtocol(addr)

    await proxied.start(factory=Jealous)
    old_client, old_server = await proxied.pair()
    await converse(old_client, old_server)
    new_client = proxied.client()
    old_client.send_now(b"late")
    old_server.send_now(b"late")
    new_server = await proxied.upstream.accept()
    await converse(new_client, new_server)
    assert (await old_client.rest())[1] == RESET
    assert (await old_server.rest())[1] == RESET
    await proxied.observed.ended()
    to_upstream, to_downstream, how = counted(proxied)
    assert (to_upstream, to_downstream) in {(1, 1), (5, 1), (1, 5), (5, 5)}
    assert how is Ending.DRAIN
    new_client.end()
    new_server.end()
    assert await new_client.rest() == (b"", END)
    await proxied.observed.ended(2)
    assert proxied.observed.records[1].reason.how is Ending.FINISHED


@pytest.mark.many_descriptors
async def test_more_events_at_once_than_a_batch_takes(proxied: Proxied) -> None:
    """No session is forgotten if more sessions are ready at once than fit in a batch."""
    await proxied.start()
    pairs = [await proxied.pair() for _ in range(BATCH + 20)]
    for number, (client, _) in enumerate(pairs):
        client.send_now(number.to_bytes(2))
    for number, (_, server) in enumerate(pairs):
        assert await server.receive(2) == number.to_bytes(2)
        server.send_now(number.to_bytes(2))
    for number, (client, _) in enumerate(pairs):
        assert await client.receive(2) == number.to_bytes(2)
        client.end()
    for client, server in pairs:
        assert await server.rest() == (b"", END)
        server.end()
        assert await client.rest() == (b"", END)
    await proxied.observed.ended(len(pairs))
    assert {
        (each.bytes_to_upstream, each.bytes_to_downstream, each.reason.how)
        for each in proxied.observed.records
    } == {(2, 2, Ending.FINISHED)}


async def test_one_bulk_sender_does_not_hold_up_the_others(proxied: Proxied) -> None:
    """While one session moves bulk, another session gets its answer within a few turns."""
    await proxied.start()
    bulk_client, bulk_server = await proxied.pair()
    client, server = await proxied.pair()
    sending = Deferred.fromCoroutine(bulk_client.send(ENDLESS))
    receiving = Deferred.fromCoroutine(bulk_server.receive(len(ENDLESS)))
    for _ in range(3):
        await converse(client, server)
    assert not receiving.called
    assert await receiving == bytes(ENDLESS)
    await sending
