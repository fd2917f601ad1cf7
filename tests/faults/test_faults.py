"""What each kind of fault does to the bytes of a session, and to its end."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy.errors import SettingsError
from evproxy.faults import (
    Faults,
    FaultSettings,
    bandwidth,
    corrupt,
    end,
    half_open,
    latency,
    limit,
    reset,
    slicer,
    slow_close,
    stall,
    timeout,
    truncate,
)
from evproxy.model import Ending, Phase, Side
from evproxy.settings import Timeouts
from tests.support.bulk import MANY
from tests.support.peers import END, RESET, Peer, converse, turn
from tests.support.proxies import Proxied

pytestmark = pytest.mark.parametrize("proxied", ["socket", "socket-twisted"], indirect=True)

BYTES = random.Random(3).randbytes(1000)


async def faulty(proxied: Proxied, *faults: FaultSettings, **more: Any) -> Faults:
    """Start the proxy with `faults`, and return what can change them."""
    made = Faults(proxied.reactor, faults, seed=1)
    await proxied.start(stages=[made], **more)
    return made


async def still_silent(reactor: Any, peer: Peer) -> None:
    """Check that nothing comes to `peer` while other events are handled."""
    for _ in range(20):
        await turn(reactor)
    with pytest.raises(BlockingIOError):
        peer.socket.recv(1)


async def test_a_latency(proxied: Proxied) -> None:
    """Bytes of the stream take the latency, those of the other stream do not."""
    await faulty(proxied, latency(0.3))
    client, server = await proxied.pair()
    began = proxied.reactor.seconds()
    await client.send(b"?")
    await server.receive(1)
    assert proxied.reactor.seconds() - began < 0.3
    sent = proxied.reactor.seconds()
    await server.send(b"!")
    await client.receive(1)
    assert proxied.reactor.seconds() - sent >= 0.3


async def test_a_cut_behind_a_latency_lets_the_sender_go_on(proxied: Proxied) -> None:
    """What the second fault drops counts no longer as held by the first one."""
    await faulty(proxied, latency(0.05), truncate(100))
    client, server = await proxied.pair()
    sending = Deferred.fromCoroutine(server.send(bytes(16 * 1024 * 1024)))
    assert await client.receive(100) == bytes(100)
    await sending
    proxied.factory.abort()


async def test_a_sender_goes_on_behind_an_end(proxied: Proxied) -> None:
    """A fault that ends a stream early leaves no sender waiting for a slow receiver."""
    await faulty(proxied, end(4_000_000))
    client, server = await proxied.pair()
    sending = Deferred.fromCoroutine(server.send(bytes(32_000_000)))
    assert await client.rest() == (bytes(4_000_000), END)
    await sending
    client.end()
    server.end()
    await proxied.observed.ended()


async def test_a_loss_passes_one_fault_after_the_other(proxied: Proxied) -> None:
    """Two latencies of different stages add up, for what the second one holds, too."""
    both = [Faults(proxied.reactor, [latency(0.2)], seed=1) for _ in range(2)]
    await proxied.start(stages=both)
    client, server = await proxied.pair()
    await converse(client, server)
    sent = proxied.reactor.seconds()
    await server.send(BYTES)
    server.reset()
    assert await client.rest() == (BYTES, RESET)
    assert proxied.reactor.seconds() - sent >= 0.4


async def test_one_stage_reveals_only_for_itself(proxied: Proxied) -> None:
    """The listener hides a reset for ever that a latency before it hides for a time."""
    both = [Faults(proxied.reactor, [each], seed=1) for each in (half_open(), latency(0.1))]
    await proxied.start(stages=both)
    client, server = await proxied.pair()
    await converse(client, server)
    await server.send(BYTES)
    server.reset()
    assert await client.receive(len(BYTES)) == BYTES
    await still_silent(proxied.reactor, client)
    client.reset()
    await proxied.observed.ended()


async def test_a_reset_has_the_latency_too(proxied: Proxied) -> None:
    """A reset does not overtake the bytes before it."""
    await faulty(proxied, latency(0.3))
    client, server = await proxied.pair()
    await converse(client, server)
    sent = proxied.reactor.seconds()
    await server.send(BYTES)
    server.reset()
    assert await client.rest() == (BYTES, RESET)
    assert proxied.reactor.seconds() - sent >= 0.3
    await proxied.observed.ended()
    reason = proxied.observed.records[0].reason
    assert (reason.by, reason.how) == (Side.UPSTREAM, Ending.RESET)


async def test_a_bandwidth(proxied: Proxied) -> None:
    """So many bytes take so long."""
    await faulty(proxied, bandwidth(10_000))
    client, server = await proxied.pair()
    began = proxied.reactor.seconds()
    await server.send(BYTES)
    assert await client.receive(1000) == BYTES
    assert proxied.reactor.seconds() - began >= 0.1


async def test_a_slicer(proxied: Proxied) -> None:
    """The bytes arrive in pieces; the kernel may join some of them on their way."""
    await faulty(proxied, slicer(100, delay=0.005))
    client, server = await proxied.pair()
    began = proxied.reactor.seconds()
    await server.send(BYTES)
    pieces: list[bytes] = []
    while sum(map(len, pieces)) < len(BYTES):
        pieces.append(await client.some())
    assert b"".join(pieces) == BYTES
    assert len(pieces) > 1
    assert {len(piece) % 100 for piece in pieces} == {0}
    assert proxied.reactor.seconds() - began >= 9 * 0.005


async def test_a_slow_close(proxied: Proxied) -> None:
    """The bytes come at once, the end later."""
    await faulty(proxied, slow_close(0.3))
    client, server = await proxied.pair()
    began = proxied.reactor.seconds()
    await server.send(BYTES)
    server.end()
    assert await client.receive(1000) == BYTES
    assert proxied.reactor.seconds() - began < 0.3
    assert await client.rest() == (b"", END)
    assert proxied.reactor.seconds() - began >= 0.3


async def test_a_limit_ends_both_connections(proxied: Proxied) -> None:
    """The client gets exactly so many bytes and then the end; the record says fault."""
    await faulty(proxied, limit(600))
    client, server = await proxied.pair()
    await server.send(BYTES[:500])
    assert await client.receive(500) == BYTES[:500]
    await server.send(BYTES[500:])
    assert await client.rest() == (BYTES[500:600], END)
    client.close()
    await server.rest()
    await proxied.observed.ended()
    reason = proxied.observed.records[0].reason
    assert (reason.by, reason.how) == (Side.PROXY, Ending.FAULT)


HOLDING = [latency(0.1), bandwidth(4000), slicer(200, delay=0.01), stall(lasts=0.1)]


@pytest.mark.parametrize("holding", HOLDING, ids=lambda fault: fault.kind)
@pytest.mark.parametrize(("cut", "how"), [(limit(600), END), (reset(600), RESET)])
@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_cut_waits_for_what_others_hold(
    proxied: Proxied, holding: FaultSettings, cut: FaultSettings, how: str, half_closed: bool
) -> None:
    """In either order, the client gets exactly the bytes before the cut, and they take time."""
    for faults in ((cut, holding), (holding, cut)):
        await faulty(proxied, *faults)
        client, server = await proxied.pair()
        began = proxied.reactor.seconds()
        if half_closed:
            client.end()
        await server.send(BYTES)
        server.end()
        assert await client.rest() == (BYTES[:600], how), faults
        assert proxied.reactor.seconds() - began > 0.015
        client.close()
        await server.rest()
        server.close()


async def test_a_limit_delivers_to_a_slow_reader(proxied: Proxied) -> None:
    """A client that reads late gets all bytes up to the limit, while the server goes on sending."""
    await faulty(proxied, limit(len(MANY)))
    client, server = await proxied.pair()
    with suppress(ConnectionError):
        # evproxy may have closed the connection by now.
        while server.send_now(MANY):
            await turn(proxied.reactor)
    received, how = await client.rest()
    assert (len(received), how) == (len(MANY), END)


async def test_an_end_at_a_byte(proxied: Proxied) -> None:
    """The client's stream goes on after the end of the server's."""
    await faulty(proxied, end(600))
    client, server = await proxied.pair()
    await server.send(BYTES)
    assert await client.rest() == (BYTES[:600], END)
    await client.send(BYTES)
    client.end()
    assert await server.rest() == (BYTES, END)
    server.end()
    await proxied.observed.ended()


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
async def test_a_reset_at_a_byte(proxied: Proxied, stream: str) -> None:
    """The receiver gets exactly so many bytes, and then both sides are reset."""
    await faulty(proxied, reset(600, stream=stream))
    client, server = await proxied.pair()
    source, sink = (client, server) if stream == "upstream" else (server, client)
    await source.send(BYTES)
    assert await sink.rest() == (BYTES[:600], RESET)
    assert (await source.rest())[1] == RESET
    await proxied.observed.ended()
    reason = proxied.observed.records[0].reason
    assert (reason.by, reason.how) == (Side.PROXY, Ending.FAULT)


async def test_a_reset_in_place_of_the_first_byte(proxied: Proxied) -> None:
    """The reset comes after the delay, and no byte before."""
    await faulty(proxied, reset(delay=0.05))
    client, server = await proxied.pair()
    began = proxied.reactor.seconds()
    await server.send(BYTES)
    assert await client.rest() == (b"", RESET)
    assert proxied.reactor.seconds() - began >= 0.05
    assert (await server.rest())[1] == RESET


async def test_a_peer_that_resets_before_the_reset(proxied: Proxied) -> None:
    """The client notices nothing before the delay is over, whatever the server does meanwhile."""
    await faulty(proxied, reset(600, delay=0.2))
    client, server = await proxied.pair()
    await client.send(b"?")
    await server.receive(1)
    began = proxied.reactor.seconds()
    await server.send(BYTES)
    server.reset()
    assert await client.rest() == (BYTES[:600], RESET)
    assert proxied.reactor.seconds() - began >= 0.2
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.FAULT


async def test_a_reset_in_place_of_an_end(proxied: Proxied) -> None:
    """A server that only ends its stream causes the reset, too."""
    await faulty(proxied, reset())
    client, server = await proxied.pair()
    server.end()
    assert await client.rest() == (b"", RESET)


async def test_a_reset_whose_receiver_reads_nothing(proxied: Proxied) -> None:
    """The session ends, by the half-close timeout, if the bytes before the reset are not taken."""
    await faulty(proxied, reset(len(MANY)), timeouts=Timeouts(half_close=0.2))
    _client, server = await proxied.pair()
    began = proxied.reactor.seconds()
    await server.send(MANY)
    assert (await server.rest())[1] == RESET
    assert proxied.reactor.seconds() - began >= 0.2
    await proxied.observed.ended()


async def test_a_receiver_that_leaves_before_the_reset(proxied: Proxied) -> None:
    """The sender is reset, too."""
    await faulty(proxied, reset(len(MANY)))
    client, server = await proxied.pair()
    await converse(client, server)
    with suppress(ConnectionError):
        while server.send_now(MANY):
            await turn(proxied.reactor)
    client.reset()
    assert (await server.rest())[1] == RESET
    await proxied.observed.ended()


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_receiver_that_leaves_with_bytes_to_come(
    proxied: Proxied, how: str, tmp_path: Path
) -> None:
    """The sender is reset as well if the receiver's connection breaks before it has all bytes."""
    fault = reset(len(MANY)) if how == "reset" else limit(len(MANY))
    await faulty(proxied, fault, listen=f"unix:{tmp_path}/socket")
    client, server = await proxied.pair()
    sending = Deferred.fromCoroutine(server.send(MANY))
    # The last 64 KiB fit into the socket's buffer, where they stay.
    await client.receive(len(MANY) - 65536)
    await sending
    while proxied.factory.sessions()[0].phase is not Phase.CLOSING:
        await turn(proxied.reactor)
    began = proxied.reactor.seconds()
    client.close()
    if how == "reset":
        assert (await server.rest())[1] == RESET
    else:
        await server.rest()
    await proxied.observed.ended()
    assert proxied.reactor.seconds() - began < 20


async def test_truncated_bytes(proxied: Proxied) -> None:
    """The rest is missing, but the end comes."""
    await faulty(proxied, truncate(600))
    client, server = await proxied.pair()
    await server.send(BYTES)
    server.end()
    assert await client.rest() == (BYTES[:600], END)


async def test_corrupted_bytes(proxied: Proxied) -> None:
    """Some bytes are others; none is missing."""
    await faulty(proxied, corrupt(0.1))
    client, server = await proxied.pair()
    await server.send(BYTES)
    received = await client.receive(1000)
    changed = sum(one != other for one, other in zip(received, BYTES, strict=True))
    assert 50 < changed < 200


async def test_a_stall_holds_everything_until_it_is_removed(proxied: Proxied) -> None:
    """Neither bytes nor the end pass; nothing is missing afterwards, and the other stream runs."""
    faults = await faulty(proxied, stall())
    client, server = await proxied.pair()
    await server.send(BYTES)
    server.end()
    await client.send(b"?")
    await server.receive(1)
    await still_silent(proxied.reactor, client)
    faults.remove("stall_downstream")
    assert await client.rest() == (BYTES, END)


async def test_a_stall_makes_the_sender_wait(proxied: Proxied) -> None:
    """What a stall holds is bounded, and all of it arrives."""
    faults = await faulty(proxied, stall())
    client, server = await proxied.pair()
    sent = quiet = 0
    while quiet < 20:
        taken = server.send_now(MANY)
        sent += taken
        quiet = 0 if taken else quiet + 1
        await turn(proxied.reactor)
    (status,) = proxied.factory.sessions()
    assert status.bytes_to_downstream == 0
    assert sent < 32 * len(MANY)
    faults.clear()
    server.end()
    assert len((await client.rest())[0]) == sent


async def test_a_stall_hides_a_reset(proxied: Proxied) -> None:
    """The client notices neither the bytes nor the reset, until the stall is over."""
    faults = await faulty(proxied, stall())
    client, server = await proxied.pair()
    await client.send(b"?")
    await server.receive(1)
    await server.send(BYTES)
    server.reset()
    await still_silent(proxied.reactor, client)
    faults.clear()
    assert await client.rest() == (BYTES, RESET)


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_half_open_connection(proxied: Proxied, how: str) -> None:
    """A client of a server that is gone gets its bytes, notices nothing, and may leave itself."""
    await faulty(proxied, half_open(), timeouts=Timeouts(half_close=0.2))
    client, server = await proxied.pair()
    await server.send(BYTES)
    assert await client.receive(1000) == BYTES
    if how == "reset":
        server.reset()
    else:
        server.close()
    await client.send(BYTES)
    await client.send(BYTES)
    await still_silent(proxied.reactor, client)
    client.close()
    await proxied.observed.ended()


async def test_a_half_open_connection_is_noticed_later(proxied: Proxied) -> None:
    """Once the fault is removed, the reset comes."""
    faults = await faulty(proxied, half_open())
    client, server = await proxied.pair()
    await converse(client, server)
    server.reset()
    await still_silent(proxied.reactor, client)
    faults.clear()
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()


async def test_a_client_of_a_server_that_is_gone_may_reset(proxied: Proxied) -> None:
    """The session is over at once, even if the client had sent more than the server took."""
    await faulty(proxied, half_open())
    client, server = await proxied.pair()
    await converse(client, server)
    while client.send_now(MANY):
        await turn(proxied.reactor)
    server.reset()
    await still_silent(proxied.reactor, client)
    began = proxied.reactor.seconds()
    client.reset()
    await proxied.observed.ended()
    assert proxied.reactor.seconds() - began < 20
    reason = proxied.observed.records[0].reason
    assert (reason.by, reason.how) == (Side.UPSTREAM, Ending.RESET)


async def test_a_session_without_any_connection_is_over(proxied: Proxied) -> None:
    """Faults hide that one connection is lost, never both."""
    await faulty(proxied, half_open(stream="both"))
    client, server = await proxied.pair()
    await converse(client, server)
    server.reset()
    await still_silent(proxied.reactor, client)
    client.reset()
    await proxied.observed.ended()


async def test_a_half_open_session_can_be_ended(proxied: Proxied) -> None:
    """An operator ends a session whose server is gone."""
    await faulty(proxied, half_open())
    client, server = await proxied.pair()
    await converse(client, server)
    server.reset()
    await still_silent(proxied.reactor, client)
    (status,) = proxied.factory.sessions()
    proxied.factory.end_session(status.id)
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()


async def test_a_timeout_drops_bytes_and_ends(proxied: Proxied) -> None:
    """The connection ends when nothing has come for the time."""
    await faulty(proxied, timeout(0.1))
    client, server = await proxied.pair()
    began = proxied.reactor.seconds()
    await server.send(BYTES)
    assert await client.rest() == (b"", END)
    assert proxied.reactor.seconds() - began >= 0.1
    await proxied.observed.ended()


async def test_a_timeout_that_is_removed_ends_the_session(proxied: Proxied) -> None:
    """Bytes after a gap never arrive."""
    faults = await faulty(proxied, timeout())
    client, server = await proxied.pair()
    await server.send(BYTES)
    await still_silent(proxied.reactor, client)
    faults.clear()
    await server.send(BYTES)
    assert await client.rest() == (b"", END)


async def test_faults_change_while_a_session_runs(proxied: Proxied) -> None:
    """A fault is added, replaced and removed; each byte arrives, in order."""
    faults = await faulty(proxied)
    client, server = await proxied.pair()
    await converse(client, server)
    faults.add(stall())
    await server.send(b"1")
    await still_silent(proxied.reactor, client)
    faults.add(slicer(1))
    faults.replace("stall_downstream", FaultSettings("stall", after=3600.0))
    await server.send(b"23")
    assert await client.receive(3) == b"123"
    assert list(faults.current) == ["stall_downstream", "slicer_downstream"]
    faults.clear()
    await server.send(b"4")
    assert await client.receive(1) == b"4"


async def test_running_sessions_are_reset(proxied: Proxied) -> None:
    """A real reset of live connections, on both sides."""
    faults = await faulty(proxied)
    client, server = await proxied.pair()
    await converse(client, server)
    assert faults.reset_sessions() == 1
    assert await client.rest() == (b"", RESET)
    assert await server.rest() == (b"", RESET)
    await proxied.observed.ended()
    assert faults.reset_sessions() == 0


async def test_a_schedule(proxied: Proxied) -> None:
    """A stall that begins later, lasts, and is over: the bytes from before and after arrive."""
    await faulty(proxied, stall(after=0.05, lasts=0.1))
    client, server = await proxied.pair()
    await converse(client, server)
    await deferLater(proxied.reactor, 0.06)
    sent = proxied.reactor.seconds()
    await server.send(b"x")
    assert await client.receive(1) == b"x"
    assert proxied.reactor.seconds() - sent > 0.05


async def test_a_window_of_bytes(proxied: Proxied) -> None:
    """Exactly the bytes of the window are changed."""
    await faulty(proxied, corrupt(1.0, after_bytes=10, until_bytes=20))
    client, server = await proxied.pair()
    await server.send(BYTES)
    received = await client.receive(1000)
    changed = [place for place in range(1000) if received[place] != BYTES[place]]
    assert changed == list(range(10, 20))


async def test_the_same_seed_gives_the_same_draws(proxied: Proxied) -> None:
    """The n-th session of one run is changed as the n-th session of another."""
    received: list[list[bytes]] = []
    for seed in (5, 5, 6):
        faults = Faults(proxied.reactor, [corrupt(0.2, probability=0.5)], seed=seed)
        await proxied.start(stages=[faults])
        received.append([])
        for _ in range(8):
            client, server = await proxied.pair()
            await server.send(BYTES)
            received[-1].append(await client.receive(1000))
            client.close()
            await server.rest()
            server.close()
    assert received[0] == received[1] != received[2]
    assert 0 < received[0].count(BYTES) < 8


async def test_streams_and_faults_draw_apart(proxied: Proxied) -> None:
    """Each stream of a session, and each fault of a stream, has draws of its own."""
    await faulty(proxied, corrupt(0.2, stream="both"))
    client, server = await proxied.pair()
    await client.send(BYTES)
    await server.send(BYTES)
    assert await client.receive(1000) != await server.receive(1000)


async def test_a_limit_goes_on_counting(proxied: Proxied) -> None:
    """A limit that replaces another counts what has passed, too."""
    faults = await faulty(proxied, limit(500))
    client, server = await proxied.pair()
    await server.send(BYTES[:300])
    assert await client.receive(300) == BYTES[:300]
    faults.replace("limit_downstream", limit(600))
    await server.send(BYTES[300:])
    assert await client.rest() == (BYTES[300:600], END)


async def test_a_fault_for_one_client(proxied: Proxied) -> None:
    """A predicate, a network and the name of a server choose the sessions."""
    faults = await faulty(proxied)
    faults.add(FaultSettings("stall", name="net", peer="192.0.2.0/24"))
    faults.add(FaultSettings("stall", name="server", server="other"))
    faults.add(FaultSettings("stall", name="route", route="other"))
    faults.add(FaultSettings("truncate", name="odd"), where=lambda status: status.id % 2 == 1)
    faults.add(FaultSettings("latency", name="local", latency=0.05, peer="127.0.0.0/8"))
    first, first_server = await proxied.pair()
    second, second_server = await proxied.pair()
    began = proxied.reactor.seconds()
    await first_server.send(BYTES)
    first_server.end()
    await second_server.send(BYTES)
    second_server.end()
    assert await first.rest() == (b"", END)
    assert await second.rest() == (BYTES, END)
    assert proxied.reactor.seconds() - began >= 0.05


async def test_two_faults_with_one_name(proxied: Proxied) -> None:
    """The second is refused, in one line."""
    with pytest.raises(SettingsError, match="already a fault with the name 'limit_downstream'"):
        Faults(proxied.reactor, [limit(1), limit(2)])


async def test_without_faults_bytes_stay_in_the_kernel(proxied: Proxied) -> None:
    """A session without stages uses the socket relay; one with a `Faults` the stream relay."""
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    assert proxied.factory.sessions()[0].relay == "socket"
