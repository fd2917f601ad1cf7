"""Recordings as pcapng of listeners that end TLS: tshark needs nothing else to decrypt them."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

from evproxy.faults import Faults, reset
from evproxy.recording.file import RecordingFile
from evproxy.recording.recording import Recording
from evproxy.recording.room import Room
from evproxy.recording.tap import MOST_EARLY, TOO_MUCH, RecordingTap
from evproxy.recording.writer import RecordingWriter
from evproxy.wire.recording import PcapngEncoder, RecordedSession
from tests.recording.test_recordings import Recorded
from tests.recording.test_tshark import WARNING, fields, tshark
from tests.support.peers import RESET, Peer, connect
from tests.support.proxies import Proxied
from tests.support.tls import TLSPeer, context_of
from tests.wire.test_recording_pcapng import blocks

REQUEST = b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40000

both_versions = pytest.mark.parametrize(
    "proxied", ["tls-client-1.2", "tls-client-1.3"], indirect=True
)
one_version = pytest.mark.parametrize("proxied", ["tls-client-1.3"], indirect=True)


async def ask(client: Peer, server: Peer) -> None:
    """One request and its answer, and the ends of both streams."""
    await client.send(REQUEST)
    assert await server.receive(len(REQUEST)) == REQUEST
    await server.send(ANSWER)
    assert await client.receive(len(ANSWER)) == ANSWER
    client.end()
    await server.rest()
    server.end()
    await client.rest()


def key_lines(file: bytes) -> list[bytes]:
    """The lines of the Decryption Secrets Blocks, all of TLS."""
    found = []
    for kind, body in blocks(file):
        if kind == 0x0A:
            secrets, length = struct.unpack_from("=II", body)
            assert secrets == 0x544C534B
            found += body[8 : 8 + length].splitlines()
    return found


@both_versions
@pytest.mark.peers("tshark")
async def test_tshark_decrypts(proxied: Proxied, tmp_path: Path) -> None:
    """The request is not in the bytes of the file, and tshark shows it; all packets are right."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start(format="pcapng")
    await ask(*await proxied.pair())
    (file,) = await recorded.written()
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"/secret" not in file.read_bytes()
    rows = fields(file, "http.request.uri", "http.content_length", "tcp.dstport", "tcp.flags.fin")
    assert [row[0] for row in rows if row[0]] == ["/secret"]
    assert [row[1] for row in rows if row[1]] == ["40000"]
    assert int(rows[0][2]) == proxied.address[1]
    assert [row[3] for row in rows].count("1") == 2
    wrong = f"_ws.expert.severity >= {WARNING} || tcp.analysis.flags"
    assert tshark(file, "-Y", wrong) == []


@pytest.mark.peers("tshark")
@pytest.mark.parametrize("proxied", ["tls-server-1.3", "tls-both-1.3"], indirect=True)
async def test_servers_with_tls(proxied: Proxied, tmp_path: Path) -> None:
    """Nothing that a server has encrypted is in the file, so only the client's TLS has keys."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start(format="pcapng")
    await ask(*await proxied.pair())
    (file,) = await recorded.written()
    rows = fields(file, "http.request.uri", "tls.handshake.type")
    assert [row[0] for row in rows if row[0]] == ["/secret"]
    to_client = proxied.observed.records[0].tls is not None
    hellos = [row for row in rows if row[1].split(",")[0] == "1"]
    content = file.read_bytes()
    assert len(hellos) == len({line.split()[1] for line in key_lines(content)}) == to_client
    assert (b"/secret" in content) != to_client


@both_versions
@pytest.mark.peers("tshark")
async def test_a_resumed_session(proxied: Proxied, tmp_path: Path) -> None:
    """A client that resumes its TLS session has a recording with keys of its own."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start(format="pcapng")
    assert proxied.certificates is not None
    context = context_of(proxied.certificates, proxied.tls_version, serves=False)
    session: SSL.Session | None = None
    for _ in range(2):
        plain = connect(proxied.reactor, proxied.address)
        peer = TLSPeer(proxied.reactor, plain.socket, context, serves=False, session=session)
        proxied.closes(peer)
        server = await proxied.upstream.accept()
        await peer.ready()
        await ask(peer, server)
        session = peer.connection.get_session()
    assert Binding.lib.SSL_session_reused(peer.connection._ssl)
    for file in await recorded.written(2):
        assert "/secret" in [row[0] for row in fields(file, "http.request.uri")]


@both_versions
async def test_the_keys(proxied: Proxied, tmp_path: Path) -> None:
    """All keys of this session, and of no other, come before its first packet with bytes."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start(format="pcapng")
    pairs = [await proxied.pair() for _ in range(2)]
    for pair in pairs:
        await ask(*pair)
    labels = {
        "1.2": ["CLIENT_RANDOM"],
        "1.3": [
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            "CLIENT_TRAFFIC_SECRET_0",
            "EXPORTER_SECRET",
            "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            "SERVER_TRAFFIC_SECRET_0",
        ],
    }
    for file in await recorded.written(2):
        content = file.read_bytes()
        lines = key_lines(content)
        assert sorted(line.split()[0].decode() for line in lines) == labels[proxied.tls_version]
        (random,) = {line.split()[1] for line in lines}
        # The random bytes of the client are in its first message (RFC 8446, 4.1.2).
        assert bytes.fromhex(random.decode()) in content
        assert all(re.fullmatch(rb"[A-Z0-9_]+ [0-9a-f]{64} [0-9a-f]+", line) for line in lines)
        kinds = [kind for kind, _ in blocks(content)]
        # Section, interface, and the three packets of the TCP handshake are before them.
        assert kinds.index(0x0A) == 5


@one_version
async def test_recordings_as_json_have_no_keys(proxied: Proxied, tmp_path: Path) -> None:
    """They have what is inside of TLS, and the contexts of TLS tell nobody a key."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start()
    await ask(*await proxied.pair())
    (file,) = await recorded.written()
    assert b"SECRET" not in file.read_bytes()


@one_version
async def test_a_client_without_a_server(proxied: Proxied, tmp_path: Path) -> None:
    """A client that leaves in the handshake has no recording."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start(format="pcapng")
    connect(proxied.reactor, proxied.address).reset()
    assert await recorded.written() == []


@one_version
@pytest.mark.peers("tshark")
async def test_a_reset_by_evproxy(proxied: Proxied, tmp_path: Path) -> None:
    """The last packet is a reset by evproxy, with the reason as its comment."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start(Faults(proxied.reactor, [reset(bytes=3)], seed=1), format="pcapng")
    client, server = await proxied.pair()
    await server.send(b"answer")
    assert await client.rest() == (b"ans", RESET)
    (file,) = await recorded.written()
    last = fields(file, "tcp.srcport", "tcp.flags.reset", "frame.comment")[-1]
    assert last == [str(proxied.address[1]), "1", "proxy fault relaying"]


@one_version
@pytest.mark.peers("tshark")
async def test_a_reset_by_the_client(proxied: Proxied, tmp_path: Path) -> None:
    """The last packet is a reset by the client."""
    recorded = Recorded(proxied, tmp_path)
    await recorded.start(format="pcapng")
    client, server = await proxied.pair()
    await client.send(b"?")
    await server.receive(1)
    client.reset()
    assert await server.rest() == (b"", RESET)
    (file,) = await recorded.written()
    last = fields(file, "tcp.dstport", "tcp.flags.reset")[-1]
    assert last == [str(proxied.address[1]), "1"]


async def test_too_much_before_the_session_has_a_server(reactor: Any, tmp_path: Path) -> None:
    """What a client may send early is bounded; then its recording says so, and has no bytes."""
    stopped: list[str] = []
    tap = RecordingTap(reactor, "")
    for _ in range(MOST_EARLY // 65536 + 1):
        tap.received(bytes(65536))
    session = RecordedSession("a1-7", 7, "web", "", "default", "", 1700000000.5)
    room = Room(str(tmp_path), 10, 10**9)
    file = RecordingFile(7, "one.pcapng", room, PcapngEncoder(session, ""))
    writer = RecordingWriter(reactor, lambda file, why: stopped.append(why))
    tap.begin(Recording(reactor, writer, file, lambda file, why: stopped.append(why)))
    tap.received(b"more")
    await writer.close()
    assert stopped == [TOO_MUCH]
    content = (tmp_path / "one.pcapng").read_bytes()
    assert len(content) < 1000
    assert b"the recording stops: the client sent too much" in content
