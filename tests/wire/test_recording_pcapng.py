"""Recordings as pcapng: the blocks, whatever happens in a session."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from evproxy.wire.recording import Event, Kind, PcapngEncoder, RecordedSession

SIDES = st.sampled_from(["downstream", "upstream"])
NAMES = st.text("ab:/", max_size=20)
EVENTS = st.one_of(
    st.tuples(st.floats(0, 10**6), st.just(Kind.DATA), SIDES, st.binary(max_size=100_000)),
    st.tuples(st.floats(0, 10**6), st.sampled_from([Kind.END, Kind.RESET]), SIDES),
    st.tuples(st.floats(0, 10**6), st.just(Kind.CLOSED), st.just(""), st.just(b""), st.text()),
).map(lambda values: Event(*values))


def blocks(file: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and the body of each block, whose two lengths must agree."""
    at = 0
    while at < len(file):
        kind, length = struct.unpack_from("=II", file, at)
        assert length % 4 == 0
        assert struct.unpack_from("=I", file, at + length - 4) == (length,)
        yield kind, file[at + 8 : at + length - 4]
        at += length
    assert at == len(file)


def one_complement_sum(data: bytes) -> int:
    """The sum of RFC 1071, word by word."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


@given(st.lists(EVENTS, max_size=5), NAMES, NAMES)
def test_blocks_and_packets(events: list[Event], peer: str, upstream: str) -> None:
    """Lengths and checksums are right, and the bytes of each side are in its packets, in order."""
    session = RecordedSession("a1-7", 7, "web", peer, "default", upstream, 1700000000.5)
    encoder = PcapngEncoder(session)
    file = encoder.begin() + b"".join(map(encoder.encode, events))
    (first, _), (second, _), *packets = blocks(file)
    assert (first, second) == (0x0A0D0D0A, 1)
    next_number: dict[bytes, int] = {}
    found: dict[bytes, bytes] = {}
    for kind, body in packets:
        assert kind == 6
        captured, length = struct.unpack_from("=II", body, 12)
        assert captured == length
        packet = body[20 : 20 + length]
        assert struct.unpack_from(">H", packet, 2) == (length,)
        assert one_complement_sum(packet[:20]) == 0xFFFF
        pseudo = packet[12:20] + struct.pack(">II", length - 20, 6)
        assert one_complement_sum(pseudo + packet[20:]) == 0xFFFF
        source, data = packet[20:22], packet[40:]
        (number,) = struct.unpack_from(">I", packet, 24)
        assert number == next_number.get(source, 0)
        next_number[source] = number + len(data) + bool(packet[33] & 3)
        found[source] = found.get(source, b"") + data
    for side, port in (("downstream", 1024), ("upstream", 1025)):
        sent = b"".join(event.data for event in events if event.side == side)
        assert found[struct.pack(">H", port)] == sent
