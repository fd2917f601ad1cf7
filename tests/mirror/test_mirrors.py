"""Copies of sessions, made by a proxy with real peers."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy import Mirror, MirrorRecord, Pool, Timeouts
from evproxy.errors import SettingsError
from tests.support.logged import logged_lines
from tests.support.peers import END, RESET, Listening, Peer
from tests.support.proxies import Proxied
from tests.support.services import until
from tests.support.waiting import Waiting

KINDS = ["socket", "socket-twisted", "stream", "lingering", "tls-client-1.3"]

every_kind = pytest.mark.parametrize("proxied", KINDS, indirect=True)
one_kind = pytest.mark.parametrize("proxied", ["socket"], indirect=True)


class Copies:
    """A `MirrorObserver`."""

    def __init__(self) -> None:
        self.records: list[MirrorRecord] = []
        self._waiting = Waiting()

    def mirror_ended(self, record: MirrorRecord) -> None:
        self.records.append(record)
        self._waiting.look()

    async def count(self, count: int) -> None:
        """Wait for `count` records."""
        await self._waiting.until(lambda: len(self.records) >= count)

    async def only(self) -> MirrorRecord:
        """The first record, once it is there."""
        await self._waiting.until(lambda: bool(self.records))
        (record,) = self.records
        return record


class Mirrored:
    """A proxy whose sessions are copied to a second server."""

    def __init__(self, proxied: Proxied, **mirror: Any) -> None:
        self.proxied = proxied
        self.copies = Copies()
        self.second = proxied.closes(Listening.tcp(proxied.reactor))
        self.mirror = mirror
        self.shadow: Pool

    async def start(self, *servers: Any, shadow: Any = None, **how: Any) -> None:
        """Start the proxy; `shadow` are options of the second pool."""
        reactor = self.proxied.reactor
        upstreams = servers or (f"127.0.0.1:{self.second.port}",)
        self.shadow = Pool(reactor, upstreams, name="shadow", **(shadow or {}))
        mirror = Mirror("shadow", to=self.shadow, **self.mirror)
        await self.proxied.start(observers=[self.copies], mirror=mirror, **how)

    async def trio(self) -> tuple[Peer, Peer, Peer]:
        """A client, its server, and the server of the copy."""
        client, server = await self.proxied.pair()
        return client, server, await self.second.accept()


@every_kind
async def test_a_session_is_copied(proxied: Proxied) -> None:
    """Both servers get the bytes and the end of the client, which gets the first one's answer."""
    mirrored = Mirrored(proxied)
    await mirrored.start()
    client, server, second = await mirrored.trio()
    await client.send(b"question")
    assert await server.receive(8) == await second.receive(8) == b"question"
    await second.send(b"another answer")
    await server.send(b"answer")
    assert await client.receive(6) == b"answer"
    client.end()
    assert await server.rest() == await second.rest() == (b"", END)
    server.end()
    second.end()
    assert await client.rest() == (b"", END)
    assert await second.rest() == (b"", END)
    await proxied.observed.ended()
    record = await mirrored.copies.only()
    (session,) = proxied.observed.records
    assert session.relay == "stream"
    assert record.unique_id == session.unique_id
    assert (record.pool, record.mirror) == ("default", "shadow")
    assert record.server == f"127.0.0.1:{mirrored.second.port}"
    assert (record.outcome, record.error, record.answers) == ("whole", "", "")
    assert (record.bytes_sent, record.bytes_answered) == (8, 14)
    assert mirrored.shadow.load == 0


@every_kind
async def test_a_reset_is_copied(proxied: Proxied) -> None:
    """If the client resets, the second server gets what came before, and a reset."""
    mirrored = Mirrored(proxied)
    await mirrored.start()
    client, server, second = await mirrored.trio()
    await client.send(b"question")
    assert await server.receive(8) == b"question"
    client.reset()
    assert await second.rest() == (b"question", RESET)
    assert (await mirrored.copies.only()).outcome == "whole"


@one_kind
async def test_the_session_ends_for_another_reason(proxied: Proxied) -> None:
    """If the session does not end in order, nor does its copy: a part is not the whole."""
    mirrored = Mirrored(proxied)
    await mirrored.start()
    client, server, second = await mirrored.trio()
    await client.send(b"question")
    assert await server.receive(8) == b"question"
    server.reset()
    assert (await client.rest())[1] == RESET
    assert await second.rest() == (b"question", RESET)


@one_kind
async def test_a_second_server_that_never_reads(proxied: Proxied) -> None:
    """The session moves 50 MiB whole; the copy is dropped whole, by a reset."""
    mirrored = Mirrored(proxied)
    await mirrored.start()
    client, server, second = await mirrored.trio()
    chunk = bytes(range(256)) * 4096
    with logged_lines() as lines:
        for _ in range(50):
            await _pass(proxied, client, server, chunk)
    record = await mirrored.copies.only()
    assert record.outcome == "fell-behind"
    assert record.bytes_sent < 50 * len(chunk)
    (line,) = [line for line in lines if "copy" in line]
    assert line == (
        "The copy of session 1 of pool default for pool shadow was dropped (fell-behind): "
        "it is more than 1048576 bytes behind"
    )
    assert (await second.rest())[1] == RESET
    client.end()
    server.end()
    assert await client.rest() == await server.rest() == (b"", END)


async def _pass(proxied: Proxied, client: Peer, server: Peer, chunk: bytes) -> None:
    sending = Deferred.fromCoroutine(client.send(chunk))
    assert await server.receive(len(chunk)) == chunk
    await sending


@pytest.mark.parametrize(
    ("answers", "second_says", "verdict", "offset"),
    [
        ([b"ans", b"wer"], b"answer", "equal", None),
        ([b"answer"], b"answxr", "different", 4),
        ([b"answer"], b"answ", "different", 4),
        ([b"answer"], b"answers", "different", 6),
    ],
)
@one_kind
async def test_answers_are_compared(
    proxied: Proxied, answers: list[bytes], second_says: bytes, verdict: str, offset: int | None
) -> None:
    """The record says whether both servers have answered the same."""
    mirrored = Mirrored(proxied, answers="compare")
    await mirrored.start()
    client, server, second = await mirrored.trio()
    with logged_lines() as lines:
        for piece in answers:
            await server.send(piece)
        client.end()
        server.end()
        assert await client.rest() == (b"answer", END)
        await second.send(second_says)
        second.close()
        record = await mirrored.copies.only()
    assert (record.outcome, record.answers, record.difference) == ("whole", verdict, offset)
    told = [line for line in lines if "another answer" in line]
    assert len(told) == (offset is not None)
    if told:
        name = f"127.0.0.1:{mirrored.second.port}"
        assert told[0].endswith(f"for pool shadow got another answer from {name}, at byte {offset}")


@pytest.mark.parametrize("last", [b"er", b"ER"])
@one_kind
async def test_the_second_server_is_faster(proxied: Proxied, last: bytes) -> None:
    """Its answer is kept until the session's own server has ended, too."""
    mirrored = Mirrored(proxied, answers="compare")
    await mirrored.start()
    client, server, second = await mirrored.trio()
    client.end()
    assert await second.rest() == (b"", END)
    await second.send(b"answer")
    second.close()
    await until(proxied.reactor, lambda: mirrored.shadow.load == 0)
    assert mirrored.copies.records == []
    await server.send(b"answ" + last)
    server.end()
    assert await client.rest() == (b"answ" + last, END)
    record = await mirrored.copies.only()
    verdict = ("equal", None) if last == b"er" else ("different", 4)
    assert (record.outcome, (record.answers, record.difference)) == ("whole", verdict)


@one_kind
async def test_a_comparison_is_given_up(proxied: Proxied) -> None:
    """If one answer is too far ahead of the other, nothing more of it is kept."""
    mirrored = Mirrored(proxied, answers="compare", buffer=1000)
    await mirrored.start()
    client, server, second = await mirrored.trio()
    await server.send(b"x" * 1001)
    assert await client.receive(1001) == b"x" * 1001
    client.end()
    server.end()
    assert await client.rest() == (b"", END)
    second.end()
    assert await second.rest() == (b"", END)
    record = await mirrored.copies.only()
    assert (record.outcome, record.answers) == ("whole", "given-up")
    assert record.error == "one answer is more than 1000 bytes ahead"


@one_kind
async def test_no_second_server(proxied: Proxied) -> None:
    """If the second pool cannot be connected to, the session goes on without its copy."""
    mirrored = Mirrored(proxied)
    await mirrored.start()
    mirrored.second.close()
    client, server = await proxied.pair()
    await client.send(b"question")
    assert await server.receive(8) == b"question"
    record = await mirrored.copies.only()
    assert record.outcome == "unreachable"
    assert record.error.startswith(f"{record.server}: ")
    assert proxied.observed.failures == []
    await server.send(b"answer")
    assert await client.receive(6) == b"answer"


@one_kind
async def test_a_second_server_that_resets(proxied: Proxied) -> None:
    """The session goes on."""
    mirrored = Mirrored(proxied)
    await mirrored.start()
    client, server, second = await mirrored.trio()
    await client.send(b"question")
    await second.receive(8)
    second.reset()
    assert (await mirrored.copies.only()).outcome == "reset"
    await client.send(b"more")
    assert await server.receive(12) == b"questionmore"


@one_kind
async def test_the_second_server_is_late(proxied: Proxied) -> None:
    """After the session's end, a copy has the half-close timeout; then it is reset."""
    mirrored = Mirrored(proxied)
    await mirrored.start(timeouts=Timeouts(half_close=0.05))
    client, server, second = await mirrored.trio()
    await client.send(b"x" * 500_000)
    await server.receive(500_000)
    client.end()
    server.end()
    assert await client.rest() == (b"", END)
    record = await mirrored.copies.only()
    assert record.outcome in ("too-late", "whole")
    assert (await second.rest())[1] == RESET


@one_kind
async def test_a_proxy_header_for_the_copy(proxied: Proxied) -> None:
    """The second pool's servers get the client's address, if that pool sends it."""
    mirrored = Mirrored(proxied)
    await mirrored.start(shadow={"send_proxy_protocol": 1})
    client, server, second = await mirrored.trio()
    await client.send(b"?")
    assert await server.receive(1) == b"?"
    port = client.socket.getsockname()[1]
    ours = client.socket.getpeername()[1]
    header = f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {ours}\r\n?".encode()
    assert await second.receive(len(header)) == header


@one_kind
async def test_a_proxy_header_of_the_session(proxied: Proxied) -> None:
    """The header for the session's own server is none of the client's bytes."""
    mirrored = Mirrored(proxied)
    await mirrored.start(send_proxy_protocol=1)
    client, server, second = await mirrored.trio()
    await client.send(b"?")
    client.end()
    assert await second.rest() == (b"?", END)
    assert (await server.rest())[0].startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")


@every_kind
async def test_a_copy_catches_up(proxied: Proxied) -> None:
    """What a slow server does not take at once, it gets later, whole and in order."""
    mirrored = Mirrored(proxied, buffer=16 * 1024 * 1024)
    await mirrored.start()
    client, server, second = await mirrored.trio()
    sent = bytes(range(256)) * 32768
    sending = Deferred.fromCoroutine(client.send(sent))
    assert await server.receive(len(sent)) == sent
    await sending
    kept = proxied.factory.mirrors.kept
    assert 0 < kept < len(sent)
    client.end()
    assert await second.rest() == (sent, END)
    assert proxied.factory.mirrors.kept == 0
    second.close()
    assert (await mirrored.copies.only()).outcome == "whole"


@every_kind
@pytest.mark.parametrize("size", [300_000, 8_000_000])
async def test_a_reset_while_the_rest_is_delivered(proxied: Proxied, size: int) -> None:
    """The session is over; the second server resets while the kernel, or evproxy, has the rest."""
    mirrored = Mirrored(proxied, buffer=16 * 1024 * 1024)
    mirrored.second.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await mirrored.start()
    client, server, second = await mirrored.trio()
    sent = b"x" * size
    sending = Deferred.fromCoroutine(client.send(sent))
    assert await server.receive(len(sent)) == sent
    await sending
    server.reset()
    await proxied.observed.ended()
    for _ in range(20):
        # It looks how much the kernel has left, and will look again.
        await deferLater(proxied.reactor, 0)
    second.reset()
    assert (await mirrored.copies.only()).outcome == "reset"


@one_kind
async def test_too_many_copies(proxied: Proxied) -> None:
    """At the bound, a further session is not copied."""
    mirrored = Mirrored(proxied, max_copies=1)
    await mirrored.start()
    await mirrored.trio()
    client, server = await proxied.pair()
    await client.send(b"?")
    assert await server.receive(1) == b"?"
    assert (await mirrored.copies.only()).outcome == "too-many"
    assert mirrored.second.nobody_waits()


@one_kind
async def test_a_fraction_of_the_clients(proxied: Proxied) -> None:
    """With a fraction of 0 nothing is copied, and bytes stay in the kernel."""
    mirrored = Mirrored(proxied, fraction=0, hash="peer")
    await mirrored.start()
    client, server = await proxied.pair()
    client.end()
    server.end()
    await proxied.observed.ended()
    assert proxied.observed.records[0].relay == "socket"
    assert mirrored.copies.records == []


@one_kind
async def test_a_copy_counts_as_a_session(proxied: Proxied) -> None:
    """Balancing sees the copies."""
    mirrored = Mirrored(proxied)
    await mirrored.start()
    client, server, second = await mirrored.trio()
    (status,) = mirrored.shadow.servers
    assert (status.sessions, mirrored.shadow.load) == (1, 1)
    client.end()
    server.end()
    assert await second.rest() == (b"", END)
    second.close()
    await mirrored.copies.only()
    (status,) = mirrored.shadow.servers
    assert (status.sessions, mirrored.shadow.load) == (0, 0)


@one_kind
async def test_an_end_before_the_copy_is_connected(proxied: Proxied) -> None:
    """A short session may be over before its copy has begun; the copy is whole anyway."""
    mirrored = Mirrored(proxied)
    await mirrored.start()
    client = proxied.client()
    await client.send(b"question")
    client.end()
    server = await proxied.upstream.accept()
    assert await server.rest() == (b"question", END)
    server.close()
    second = await mirrored.second.accept()
    assert await second.rest() == (b"question", END)
    second.close()
    assert (await mirrored.copies.only()).outcome == "whole"


@one_kind
async def test_which_pool(proxied: Proxied) -> None:
    """A factory has no pools by name."""
    with pytest.raises(SettingsError, match=r"^mirror: which pool is 'shadow'\?"):
        await proxied.start(mirror=Mirror("shadow"))
