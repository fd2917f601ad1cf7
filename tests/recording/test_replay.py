"""Replays of recordings, on real connections."""

from __future__ import annotations

import socket
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from evproxy.errors import SettingsError
from evproxy.replay import Dialogue, Player, Result, recorded_events
from evproxy.replay.connection import accepted, connected
from evproxy.testing.door import Door
from evproxy.wire.recording import (
    LONGEST_LINE,
    Event,
    Kind,
    LinesEncoder,
    MalformedRecording,
    RecordedSession,
)
from tests.recording.test_recordings import Recorded
from tests.support.certificates import Certificates
from tests.support.peers import END, RESET, Peer, connect
from tests.support.proxies import Proxied

SESSION = RecordedSession("a1-7", 7, "web", "127.0.0.1:5", "default", "127.0.0.1:80", 1.0)

TALK = [
    Event(0.00, Kind.DATA, "upstream", b"220 ready\r\n"),
    Event(0.01, Kind.DATA, "downstream", b"HELO me\r\n"),
    Event(0.02, Kind.DATA, "upstream", b"250 ok\r\n"),
    Event(0.03, Kind.END, "downstream"),
    Event(0.04, Kind.END, "upstream"),
    Event(0.05, Kind.CLOSED, text="upstream finished relaying"),
]


def recording(*events: Event) -> bytes:
    """The file of a session."""
    encoder = LinesEncoder(SESSION)
    return encoder.begin() + b"".join(map(encoder.encode, events))


def player(
    reactor: Any, file: bytes, side: str, fast: bool = True, timeout: float = 10.0
) -> Player:
    """A player of `side`."""
    _, events = recorded_events(BytesIO(file))
    return Player(reactor, Dialogue(events, side), fast, timeout)


async def address(reactor: Any, server: Player) -> tuple[str, int]:
    """Where `server` waits for its client."""
    host, _, port = (await waits(reactor, server, "tcp:0:interface=127.0.0.1")).rpartition(":")
    return host, int(port)


async def waits(reactor: Any, server: Player, listen: str) -> str:
    """Where `server` waits at the endpoint `listen`, as text."""
    listens: Deferred[str] = Deferred()
    waiting = Deferred.fromCoroutine(accepted(reactor, listen, server, listens.callback))
    waiting.addErrback(listens.errback)
    return await listens


async def both(reactor: Any, file: bytes, fast: bool = True) -> list[Result]:
    """The results of the server's player and of the client's, which play with each other."""
    server = player(reactor, file, "upstream", fast)
    client = player(reactor, file, "downstream", fast)
    host, port = await address(reactor, server)
    await connected(reactor, f"{host}:{port}", client, 10)
    return [await server.result, await client.result]


@pytest.mark.parametrize("fast", [True, False])
async def test_both_sides_play_with_each_other(reactor: Any, fast: bool) -> None:
    """The two sides of one recording find no difference, and take the recorded time or none."""
    before = reactor.seconds()
    server, client = await both(reactor, recording(*TALK), fast)
    assert server == Result("", "", sent=19, received=9)
    assert client == Result("", "", sent=9, received=19)
    if not fast:
        assert reactor.seconds() - before >= 0.04


@pytest.mark.parametrize("kind", ["unix", "ssl"])
async def test_other_endpoints(
    reactor: Any, certificates: Certificates, tmp_path: Path, kind: str
) -> None:
    """A recording of a UNIX listener or of TLS is played at such endpoints."""
    pem = certificates.pem
    listen = {
        "unix": f"unix:{tmp_path}/socket",
        "ssl": f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
    }[kind]
    server = player(reactor, recording(*TALK), "upstream")
    client = player(reactor, recording(*TALK), "downstream")
    where = await waits(reactor, server, listen)
    if kind == "unix":
        assert where == listen
    else:
        where = f"tls:{where}:trustRoots={certificates.authorities}"
    await connected(reactor, where, client, 10)
    assert await server.result == Result("", "", sent=19, received=9)
    assert await client.result == Result("", "", sent=9, received=19)


@pytest.mark.parametrize("side", ["downstream", "upstream"])
async def test_a_reset_is_played(reactor: Any, side: str) -> None:
    """The peer gets all bytes before the reset."""
    other = "upstream" if side == "downstream" else "downstream"
    events = [
        Event(0, Kind.DATA, other, b"?"),
        Event(0, Kind.DATA, side, b"x" * 100_000),
        Event(0, Kind.RESET, side),
        Event(0, Kind.CLOSED, text=f"{side} reset relaying"),
    ]
    results = await both(reactor, recording(*events))
    assert [result.difference for result in results] == ["", ""]
    assert sorted(result.received for result in results) == [1, 100_000]


async def test_bulk_both_ways(reactor: Any) -> None:
    """Both sides send more than the buffers take before they read what the other one sends."""
    chunk = bytes(range(256)) * 256
    events = [Event(0, Kind.DATA, "downstream", chunk) for _ in range(20)]
    events += [Event(0, Kind.DATA, "upstream", chunk) for _ in range(20)]
    events += [*TALK[3:]]
    results = await both(reactor, recording(*events))
    assert [result.difference for result in results] == ["", ""]
    assert {result.received for result in results} == {20 * len(chunk)}


async def test_the_first_difference(reactor: Any) -> None:
    """A client that says something else is reset, and the difference has its offset."""
    server = player(reactor, recording(*TALK), "upstream")
    client = connect(reactor, await address(reactor, server))
    assert await client.receive(11) == b"220 ready\r\n"
    await client.send(b"HELO you\r\n")
    assert (await client.rest())[1] == RESET
    client.close()
    result = await server.result
    where = "the stream of the client differs at offset 5"
    assert result.difference == rf"{where}: expected b'me\r\n', got b'you\r\n'"


async def test_a_client_that_says_nothing(reactor: Any) -> None:
    """The player waits no longer than its timeout."""
    server = player(reactor, recording(*TALK), "upstream", timeout=0.05)
    client = connect(reactor, await address(reactor, server))
    result = await server.result
    client.close()
    assert result.difference.endswith(r"at offset 0: expected b'HELO me\r\n', got nothing")


async def test_an_end_comes_once(reactor: Any) -> None:
    """A player that waits for its time after the end of its peer does not read on."""

    class Counts(Player):
        ends = 0

        def readConnectionLost(self) -> None:
            self.ends += 1
            super().readConnectionLost()

    _, events = recorded_events(BytesIO(recording(*TALK)))
    server = Counts(reactor, Dialogue(events, "upstream"), False, 10)
    client = connect(reactor, await address(reactor, server))
    await client.send(b"HELO me\r\n")
    client.end()
    assert await client.rest() == (b"220 ready\r\n250 ok\r\n", END)
    assert (await server.result).difference == ""
    client.close()
    assert server.ends == 1


class SmallBuffer(Player):
    """A player whose kernel takes little."""

    def connectionMade(self) -> None:
        handle: Any = self.transport
        handle.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        super().connectionMade()


def reads_nothing(where: tuple[str, int]) -> socket.socket:
    """A client that does not read, and whose kernel takes little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.setblocking(False)
    client.connect_ex(where)
    return client


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("last", [Kind.CLOSED, Kind.RESET])
@pytest.mark.parametrize("size", [50_000, 500_000])
async def test_a_client_that_does_not_read(reactor: Any, size: int, last: Kind, fast: bool) -> None:
    """The player waits no longer than its timeout for that, before the end and at the end."""
    events = [
        Event(0, Kind.DATA, "upstream", bytes(size)),
        *[Event(0, Kind.RESET, "upstream")] * (last is Kind.RESET),
        Event(0, Kind.CLOSED, text="upstream finished relaying"),
    ]
    _, read = recorded_events(BytesIO(recording(*events)))
    server = SmallBuffer(reactor, Dialogue(read, "upstream"), fast, 0.05)
    with reads_nothing(await address(reactor, server)):
        result = await server.result
    assert result.difference == "the client did not read everything that was sent"


@pytest.mark.parametrize(
    ("size", "missing", "sent"),
    [(5, "it did not get all bytes", 8), (500_000, "3 bytes were not sent", 500_000)],
)
async def test_a_client_that_is_gone(reactor: Any, size: int, missing: str, sent: int) -> None:
    """Bytes that had no receiver are a difference, also those that the transport still held."""
    events = [
        Event(0.00, Kind.END, "downstream"),
        Event(0.00, Kind.DATA, "upstream", bytes(size)),
        Event(0.05, Kind.DATA, "upstream", b"end"),
        Event(0.05, Kind.END, "upstream"),
        Event(0.05, Kind.CLOSED, text="upstream finished relaying"),
    ]
    server = player(reactor, recording(*events), "upstream", fast=False)
    reads_nothing(await address(reactor, server)).close()
    result = await server.result
    assert result == Result(f"the client was gone, {missing}", "", sent, 0)


async def test_a_client_that_leaves(reactor: Any) -> None:
    """An end that comes too early is a difference."""
    server = player(reactor, recording(*TALK), "upstream", fast=False)
    client = connect(reactor, await address(reactor, server))
    await client.receive(11)
    client.end()
    result = await server.result
    client.close()
    assert result.difference.endswith(r"expected b'HELO me\r\n', got the end of the stream")


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"", "line 1: this is not JSON"),
        (
            b"\n\r\r\n....",
            'line 1: only recordings with record_format = "json" can be played',
        ),
    ],
)
def test_files_without_a_recording(reactor: Any, file: bytes, why: str) -> None:
    """They are refused before there is a connection."""
    with pytest.raises(MalformedRecording) as error:
        player(reactor, file, "upstream")
    assert str(error.value) == why


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (recording(TALK[1]) + b"{}\n", "line 3: time: expected a number"),
        (recording() + b" " * LONGEST_LINE, "line 2: the line is too long"),
    ],
)
async def test_malformed_recordings(reactor: Any, file: bytes, why: str) -> None:
    """The error has the number of the line, and the connection is reset."""
    server = player(reactor, file, "upstream")
    client = connect(reactor, await address(reactor, server))
    await client.send(b"HELO me\r\n")
    with pytest.raises(MalformedRecording) as error:
        await server.result
    client.close()
    assert str(error.value) == why


async def test_a_recording_that_is_cut_within_a_line(reactor: Any) -> None:
    """It is played as far as it goes: evproxy was killed."""
    server = player(reactor, recording(TALK[1], TALK[2], TALK[4])[:-3], "upstream")
    client = connect(reactor, await address(reactor, server))
    await client.send(b"HELO me\r\n")
    result = await server.result
    client.close()
    assert result.note == "the recording has been cut off"


async def test_wrong_endpoints(reactor: Any) -> None:
    """The error names the option."""
    with pytest.raises(SettingsError, match=r"^--listen: 'what:ever': "):
        await accepted(reactor, "what:ever", player(reactor, recording(), "upstream"), print)
    with pytest.raises(SettingsError, match=r"^--connect: 'what:ever': "):
        await connected(reactor, "what:ever", player(reactor, recording(), "downstream"), 1)


async def test_a_server_that_does_not_answer(reactor: Any) -> None:
    """A connect that hangs ends after the timeout, with the builtin exception."""
    door = Door(reactor, Factory(), "127.0.0.1", 0)
    await door.hang()
    client = player(reactor, recording(*TALK), "downstream")
    where = f"127.0.0.1:{door.port}"
    with pytest.raises(TimeoutError) as error:
        await connected(reactor, where, client, 0.05)
    await door.close()
    assert str(error.value) == f"--connect: '{where}': no connection after 0.05 s"


@pytest.mark.parametrize("proxied", ["socket"], indirect=True)
async def test_a_recorded_session_is_played(proxied: Proxied, tmp_path: Path) -> None:
    """What evproxy has recorded can be played to a client that does the same again."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start()

    async def talk(client: Peer) -> None:
        await client.send(b"question")
        assert await client.receive(6) == b"answer"
        client.end()
        assert await client.rest() == (b"bye", END)

    client = proxied.client()
    talking = Deferred.fromCoroutine(talk(client))
    server = await proxied.upstream.accept()
    assert await server.receive(8) == b"question"
    await server.send(b"answer")
    assert await server.rest() == (b"", END)
    await server.send(b"bye")
    server.end()
    await talking
    (file,) = await recorded.written()
    played = player(proxied.reactor, file.read_bytes(), "upstream")
    again = connect(proxied.reactor, await address(proxied.reactor, played))
    await talk(again)
    assert await played.result == Result("", "", sent=9, received=8)
    again.close()


async def test_another_client_is_refused(reactor: Any) -> None:
    """The player plays once."""
    server = player(reactor, recording(*TALK), "upstream")
    where = await address(reactor, server)
    first, second = connect(reactor, where), connect(reactor, where)
    assert await first.receive(11) == b"220 ready\r\n"
    await first.send(b"HELO me\r\n")
    first.end()
    assert await first.rest() == (b"250 ok\r\n", END)
    await second.rest()
    assert (await server.result).difference == ""
    first.close()
    second.close()
