"""Version 2 of the PROXY protocol: lengths, families, TLVs and the checksum."""

from __future__ import annotations

import pytest
from hypothesis import given

from evproxy.errors import ProxyHeaderError
from evproxy.wire.proxy_protocol import (
    InetAddress,
    ProxyHeader,
    ProxyHeaderReader,
    Ssl,
    Tlvs,
    Transport,
    UnixAddress,
    header_bytes,
)
from tests.support.proxy_contract import assert_round_trip
from tests.support.proxy_headers import (
    SENT_BY_OTHERS,
    SIGNATURE,
    UNIX,
    UNIX_BYTES,
    V4,
    V4_BYTES,
    V6,
    V6_BYTES,
    Sample,
    block,
    blocks,
    inet,
)

V4_HEAD = SIGNATURE + bytes.fromhex("2111")


def refusal(data: bytes) -> tuple[int, str]:
    """After how many single bytes `data` is refused, and why."""
    reader = ProxyHeaderReader()
    for count, byte in enumerate(data, 1):
        try:
            assert reader.feed(bytes([byte])) is None
        except ProxyHeaderError as error:
            return count, str(error).removeprefix("wrong PROXY header of version 2: ")
    raise AssertionError(f"{data!r} is not refused")


def with_tlvs(*tlvs: bytes) -> bytes:
    """A header with addresses and these bytes behind them."""
    body = V4_BYTES + b"".join(tlvs)
    return V4_HEAD + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("refused", "rest", "reason"),
    [
        # The wrong byte is the last of `refused`.
        (SIGNATURE[:5] + b"\n", b"\nQUIT", "the signature is wrong"),
        (SIGNATURE[:11] + b"\r", b"\x21\x11", "the signature is wrong"),
        (SIGNATURE + b"\x11", b"\x11\0\0", "the version and the command are 0x11"),
        (SIGNATURE + b"\x31", b"\x11\0\0", "the version and the command are 0x31"),
        (SIGNATURE + b"\x22", b"\x11\0\0", "the version and the command are 0x22"),
        (SIGNATURE + b"\x21\x41", b"\0\x0c", "the family and the transport are 0x41"),
        (SIGNATURE + b"\x21\x13", b"\0\x0c", "the family and the transport are 0x13"),
        (V4_HEAD + b"\0\x0b", V4_BYTES, "its length is 11 bytes, the addresses have 12"),
        (SIGNATURE + b"\x21\x21\0\x23", V6_BYTES, "its length is 35 bytes, the addresses have 36"),
        (SIGNATURE + b"\x21\x31\0\xd7", b"", "its length is 215 bytes, the addresses have 216"),
        (V4_HEAD + b"\0\x0e", V4_BYTES + b"\4\0", "the last TLV is cut off"),
        (
            V4_HEAD + b"\0\x10" + V4_BYTES + b"\4\1",
            b"\0\0",
            "the TLV 0x04 is longer than what contains it",
        ),
        (
            V4_HEAD + b"\0\x10" + V4_BYTES + b"\4\0\2",
            b"\0",
            "the TLV 0x04 is longer than what contains it",
        ),
        (V4_HEAD + b"\0\x14" + V4_BYTES + b"\1\0\3", b"123ab", "the last TLV is cut off"),
        (V4_HEAD + b"\0\x12" + V4_BYTES + b"\3\0\3", b"abc", "the TLV 0x03 has 3 bytes"),
        (V4_HEAD + b"\0\xff" + V4_BYTES + b"\5\0\x81", bytes(240), "the TLV 0x05 has 129 bytes"),
        (V4_HEAD + b"\0\x13" + V4_BYTES + b"\x20\0\4", bytes(4), "the TLV 0x20 has 4 bytes"),
        (with_tlvs(b"\x20\0\6", bytes(6)), b"", "the last TLV is cut off"),
        (
            with_tlvs(b"\x20\0\x09", bytes(5), b"\x21\0\x02a"),
            b"",
            "the TLV 0x21 is longer than what contains it",
        ),
        (with_tlvs(b"\3\0\4", bytes(4), b"\3\0\4", bytes(4)), b"", "it has more than one CRC32C"),
    ],
)
def test_refused(refused: bytes, rest: bytes, reason: str) -> None:
    """A header is refused as early as the byte that shows it, and the message says why."""
    assert refusal(refused + rest) == (len(refused), reason)
    with pytest.raises(ProxyHeaderError, match=reason):
        ProxyHeaderReader().feed(refused + rest)


def test_length_limit() -> None:
    """A header beyond the limit is refused before its body comes."""
    assert refusal(V4_HEAD + b"\x40\x01") == (
        16,
        "its length is 16385 bytes or more, limit 16384",
    )
    assert refusal(V4_HEAD + b"\x41") == (15, "its length is 16640 bytes or more, limit 16384")
    assert ProxyHeaderReader().feed(V4_HEAD + b"\x40\x00") is None
    small = ProxyHeaderReader(length_limit=12)
    assert small.feed(V4_HEAD + b"\0\x0c" + V4_BYTES) == ProxyHeader(2, *V4)
    with pytest.raises(ProxyHeaderError, match="its length is 13 bytes or more, limit 12"):
        ProxyHeaderReader(length_limit=12).feed(V4_HEAD + b"\0\x0d")


def test_largest() -> None:
    """The specification's longest header can be written, and read by who allows it."""
    header = ProxyHeader(2, *V4, tlvs=((0xE0, bytes(65535 - 12 - 3)),))
    data = header_bytes(header)
    assert len(data) == 16 + 65535
    assert ProxyHeaderReader(65535).feed(data) == header
    with pytest.raises(ProxyHeaderError, match="its length is 65536 bytes, limit 65535"):
        header_bytes(ProxyHeader(2, *V4, tlvs=((0xE0, bytes(65535 - 12 - 2)),)))


CHECKSUM_TYPE = 28


@pytest.mark.parametrize("place", [each for each in range(16, 60) if each != CHECKSUM_TYPE])
def test_checksum(place: int) -> None:
    """One wrong bit of a header with a checksum ends the connection."""
    changed = bytearray(SENT_BY_OTHERS[0].data)
    changed[place] ^= 0x10
    with pytest.raises(ProxyHeaderError):
        ProxyHeaderReader().feed(bytes(changed))


def test_message_of_a_wrong_checksum() -> None:
    """The message has both checksums."""
    right = header_bytes(ProxyHeader(2, *V4, checksum=True))
    with pytest.raises(ProxyHeaderError) as caught:
        ProxyHeaderReader().feed(right[:-4] + bytes(4))
    assert str(caught.value) == (
        f"wrong PROXY header of version 2: its CRC32C is 0x00000000, computed 0x{right[-4:].hex()}"
    )


def test_checksum_of_a_local_header() -> None:
    """A checksum counts without addresses, too."""
    data = bytearray(SENT_BY_OTHERS[1].data)
    data[-4] ^= 1
    with pytest.raises(ProxyHeaderError, match="its CRC32C is"):
        ProxyHeaderReader().feed(bytes(data))


@pytest.mark.parametrize(
    ("packed", "path"),
    [
        (b"/run/a".ljust(108, b"\0"), b"/run/a"),
        (b"/" * 108, b"/" * 108),
        (b"/a\0garbage".ljust(108, b"x"), b"/a"),
        (bytes(108), b""),
        (b"\0a\0b".ljust(108, b"\0"), b"\0a\0b"),
    ],
)
def test_unix_paths(packed: bytes, path: bytes) -> None:
    """A path ends at its first NUL; an abstract address is one byte longer than it looks."""
    header = ProxyHeaderReader().feed(block("", "2131", packed * 2, ProxyHeader(2)).data)
    assert header == ProxyHeader(2, UnixAddress(path), UnixAddress(path))


@given(blocks)
def test_round_trip(header: ProxyHeader) -> None:
    """Every header is read as what was written."""
    assert_round_trip(header)


LOCAL = SIGNATURE + bytes.fromhex("20000000")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (ProxyHeader(2, local=True), LOCAL),
        (ProxyHeader(2, *V4, local=True), LOCAL),
        (ProxyHeader(2), LOCAL),
        (ProxyHeader(2, V4[0], None), LOCAL),
        (ProxyHeader(2, V4[0], UNIX[1]), LOCAL),
        (ProxyHeader(2, *V4), V4_HEAD + b"\0\x0c" + V4_BYTES),
        (ProxyHeader(2, *V6), SIGNATURE + b"\x21\x21\0\x24" + V6_BYTES),
        (ProxyHeader(2, *UNIX), SIGNATURE + b"\x21\x31\0\xd8" + UNIX_BYTES),
        (
            ProxyHeader(2, *V4, Transport.DATAGRAM),
            SIGNATURE + b"\x21\x12\0\x0c" + V4_BYTES,
        ),
        # A pair of different families, as HAProxy writes it.
        (
            ProxyHeader(2, *inet("192.0.2.1", "2001:db8::1", 1, 2)),
            SIGNATURE
            + b"\x21\x21\0\x24"
            + bytes.fromhex("00000000000000000000ffffc0000201 20010db8000000000000000000000001")
            + b"\0\1\0\2",
        ),
        (
            ProxyHeader(2, *inet("fe80::1%eth0", "192.0.2.1", 1, 2)),
            SIGNATURE
            + b"\x21\x21\0\x24"
            + bytes.fromhex("fe800000000000000000000000000001 00000000000000000000ffffc0000201")
            + b"\0\1\0\2",
        ),
    ],
)
def test_written(header: ProxyHeader, expected: bytes) -> None:
    """What is neither a pair of IP addresses nor of UNIX addresses is ``LOCAL``."""
    assert header_bytes(header) == expected


def test_order_of_tlvs() -> None:
    """TLVs are in HAProxy's order: custom, CRC32C, ALPN, AUTHORITY, UNIQUE_ID, SSL, NETNS."""
    registered = [(0x30, b"n"), (0x20, bytes(5)), (5, b"u"), (2, b"a"), (1, b"h2")]
    tlvs = Tlvs([*registered, (0xE1, b"2"), (0x99, b"")])
    data = header_bytes(ProxyHeader(2, *V4, tlvs=tlvs, checksum=True))
    head, crc, rest = data[28:35], data[35:42], data[42:]
    assert head == b"\xe1\0\x012\x99\0\0"
    assert crc[:3] == b"\3\0\4"
    assert rest == b"\1\0\2h2\2\0\1a\5\0\1u\x20\0\5" + bytes(5) + b"\x30\0\1n"


@pytest.mark.parametrize(
    "sample",
    [sample for sample in SENT_BY_OTHERS if "HAProxy" in sample.name],
    ids=lambda sample: sample.name,
)
def test_the_same_bytes_as_haproxy(sample: Sample) -> None:
    """What HAProxy sent is written with the same bytes."""
    assert header_bytes(sample.header) == sample.data


@pytest.mark.parametrize(
    ("tlvs", "reason"),
    [
        ([(0x100, b"")], "a TLV has the type 256, which is not one byte"),
        ([(-1, b"")], "a TLV has the type -1, which is not one byte"),
        ([(0xE0, bytes(65536))], "the TLV 0xe0 has 65536 bytes"),
        ([(5, bytes(129))], "the TLV 0x05 has 129 bytes"),
        ([(3, bytes(4))], "the CRC32C is computed: ask for it with `checksum`"),
        ([(0x20, b"")], "the TLV 0x20 has 0 bytes"),
        ([(0x20, bytes(6))], "the last TLV is cut off"),
        ([(0xE0, bytes(65535)), (0xE0, b"")], "its length is 65553 bytes, limit 65535"),
    ],
)
def test_cannot_be_written(tlvs: list[tuple[int, bytes]], reason: str) -> None:
    """What a reader would refuse is not written."""
    with pytest.raises(ProxyHeaderError) as caught:
        header_bytes(ProxyHeader(2, *V4, tlvs=tlvs))
    assert str(caught.value) == reason


def test_the_contract_refuses_what_is_lost() -> None:
    """A value that is not what a reader gives fails the check of the round trip."""
    with pytest.raises(AssertionError):
        assert_round_trip(ProxyHeader(2, *V4, local=True))


@pytest.mark.parametrize(
    ("host", "port"), [("example.org", 1), ("", 1), ("1.2.3", 1), ("::1", -1), ("::1", 65536)]
)
def test_no_inet_address(host: str, port: int) -> None:
    """A host is an IP address, and a port has 16 bits."""
    with pytest.raises(ValueError, match=r"is not an IP address|must be"):
        InetAddress(host, port)


def test_no_other_values() -> None:
    """Nothing that no header has can be in one."""
    with pytest.raises(ValueError, match="at most 108 bytes, not 109"):
        UnixAddress(b"x" * 109)
    with pytest.raises(ValueError, match="version"):
        ProxyHeader(3)
    with pytest.raises(ValueError, match="verify"):
        Ssl(verify=-1)
