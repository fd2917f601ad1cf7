"""Recordings as pcapng, read by tshark."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from evproxy.wire.recording import Event, Kind, PcapngEncoder, RecordedSession
from tests.recording.test_recordings import Recorded
from tests.support.peers import END
from tests.support.proxies import Proxied

pytestmark = pytest.mark.peers("tshark")

CHECKS = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")


WARNING = 6291456
"""The number of the severity, from `tshark -G values`; the end of a stream has a lower one."""


def tshark(file: Path, *arguments: str) -> list[str]:
    """The lines that tshark prints."""
    command = ["tshark", "-n", "-r", str(file), *CHECKS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def fields(file: Path, *names: str) -> list[list[str]]:
    """The fields of each packet."""
    asked = [part for name in names for part in ("-e", name)]
    return [line.split("\t") for line in tshark(file, "-T", "fields", *asked)]


def sent(rows: list[list[str]], source: str) -> bytes:
    """The bytes of the packets from the port `source`, in order."""
    return b"".join(bytes.fromhex(row[1]) for row in rows if row[0] == source)


def recorded(peer: str, upstream: str, *events: Event) -> bytes:
    """A recording with `events`."""
    session = RecordedSession("a1-7", 7, "web", peer, "default", upstream, 1700000000.5)
    encoder = PcapngEncoder(session)
    return encoder.begin() + b"".join(map(encoder.encode, events))


@pytest.mark.parametrize("proxied", ["socket"], indirect=True)
async def test_a_session(proxied: Proxied, tmp_path: Path) -> None:
    """Both streams are whole in the packets, and tshark finds nothing wrong with any packet."""
    recording = Recorded(proxied, tmp_path)
    await recording.start(format="pcapng")
    client, server = await proxied.pair()
    request = b"GET / HTTP/1.0\r\n\r\n"
    answer = b"HTTP/1.0 200 OK\r\n\r\n" + bytes(range(256)) * 400 + b"x"
    await client.send(request)
    assert await server.receive(len(request)) == request
    await server.send(answer)
    server.end()
    assert await client.rest() == (answer, END)
    client.end()
    await server.rest()
    (file,) = await recording.written()
    assert file.suffix == ".pcapng"
    rows = fields(file, "tcp.srcport", "tcp.payload", "_ws.expert.severity", "tcp.flags.fin")
    record = proxied.observed.records[0]
    assert sent(rows, record.peer.rpartition(":")[2]) == request
    assert sent(rows, record.upstream.rpartition(":")[2]) == answer
    wrong = (
        f"_ws.expert.severity >= {WARNING} || tcp.analysis.flags"
        " || tcp.checksum.status == bad || ip.checksum.status == bad"
    )
    assert tshark(file, "-Y", wrong) == []
    assert [row[3] for row in rows].count("1") == 2


ADDRESSES = {
    ("127.0.0.1:5000", "10.0.0.1:80"): ["127.0.0.1", "10.0.0.1", "", "", "5000", "80"],
    ("[2001:db8::1]:5000", "[::1]:80"): ["", "", "2001:db8::1", "::1", "5000", "80"],
    ("[::1]:5000", "10.0.0.1:80"): ["", "", "::1", "::ffff:10.0.0.1", "5000", "80"],
    ("", "unix:/run/a"): ["192.0.2.1", "192.0.2.2", "", "", "1024", "1025"],
    ("192.0.2.9:7", "db.example:5432"): ["192.0.2.9", "192.0.2.2", "", "", "7", "1025"],
}


def test_addresses(tmp_path: Path) -> None:
    """Packets have the addresses of the peers; those without an address get one that is made up."""
    events = Event(0.25, Kind.DATA, "downstream", b"odd"), Event(1.0, Kind.RESET, "upstream")
    file = tmp_path / "all.pcapng"
    # A file may have several sections.
    file.write_bytes(b"".join(recorded(*peers, *events) for peers in ADDRESSES))
    names = ["ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport"]
    rows = fields(file, *names, "tcp.flags.reset", "frame.time_epoch", "tcp.checksum.status")
    assert len(rows) == 6 * len(ADDRESSES)
    for number, expected in enumerate(ADDRESSES.values()):
        packets = rows[6 * number : 6 * number + 6]
        assert packets[0][:6] == expected
        assert [packet[6] for packet in packets] == ["0", "0", "0", "0", "0", "1"]
        assert float(packets[3][7]) == 1700000000.75
    # 1 is "good".
    assert {row[8] for row in rows} == {"1"}


def test_comments(tmp_path: Path) -> None:
    """The file says which session it is, and a reset by evproxy or a stop says why."""
    reasons = {
        "proxy idle relaying": Event(1.0, Kind.CLOSED, text="proxy idle relaying"),
        "the recording stops: full": Event(1.0, Kind.STOPPED, text="full"),
    }
    sections = [recorded("127.0.0.1:5", "10.0.0.1:80", event) for event in reasons.values()]
    file = tmp_path / "all.pcapng"
    file.write_bytes(b"".join(sections))
    comments = [row[0] for row in fields(file, "frame.comment")]
    assert [comment for comment in comments if comment] == list(reasons)
    assert b"session a1-7 of listener web" in sections[0]
