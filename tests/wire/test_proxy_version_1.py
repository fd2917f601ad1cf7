"""Version 1 of the PROXY protocol: a line, and nothing that only resembles one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.errors import ProxyHeaderError
from evproxy.wire.proxy_protocol import (
    InetAddress,
    ProxyHeader,
    ProxyHeaderReader,
    Tlvs,
    Transport,
    UnixAddress,
    header_bytes,
)
from tests.support.proxy_headers import LINES, LONGEST_V6, inet, lines

START = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2"


def refusal(data: bytes) -> tuple[int, str]:
    """After how many single bytes `data` is refused, and why."""
    reader = ProxyHeaderReader()
    for count, byte in enumerate(data, 1):
        try:
            assert reader.feed(bytes([byte])) is None
        except ProxyHeaderError as error:
            return count, str(error).removeprefix("wrong PROXY header of version 1: ")
    raise AssertionError(f"{data!r} is not refused")


@pytest.mark.parametrize(
    ("refused", "rest", "reason"),
    [
        # The wrong byte is the last of `refused`.
        ("PROXy", " TCP4", "it begins with 'PROXy', expected 'PROXY'"),
        ("PROXY\t", "TCP4 ", r"it begins with 'PROXY\t', expected 'PROXY'"),
        ("PROXY  ", "TCP4 ", "the protocol is '', expected TCP4, TCP6 or UNKNOWN"),
        ("PROXY TCP5", " ", "the protocol is 'TCP5', expected TCP4, TCP6 or UNKNOWN"),
        ("PROXY U ", "x", "the protocol is 'U', expected TCP4, TCP6 or UNKNOWN"),
        ("PROXY UNKNOWNX", "\r\n", "the protocol is 'UNKNOWNX', expected TCP4, TCP6 or UNKNOWN"),
        ("PROXY t", "cp4 ", None),
        ("PROXY TCP4  ", "192.0.2.1", "the source address is '', expected an IPv4 address"),
        ("PROXY TCP4 192.0.2.01", " 192.0.2.2 1 2", None),
        ("PROXY TCP4 256", ".0.2.1 192.0.2.2 1 2", None),
        ("PROXY TCP4 192.0.2 ", "192.0.2.2 1 2", None),
        ("PROXY TCP4 192.0.2.1.", "1 192.0.2.2 1 2", None),
        ("PROXY TCP4 2:", ":1 2::2 1 2", None),
        ("PROXY TCP4 192.0.2.1 :", ":1 1 2", None),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 00", "80 443", None),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +", "80 443", None),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 8_", "0 443", None),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 -", "1 443", None),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 65536", " 443", None),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r", "\n", "the destination port is missing"),
        (START + " ", "\r\n", "more follows after the destination port"),
        (START + "\n", "", "the line has a LF by itself"),
        (START + "\rx", "\r\n", "the line has a CR by itself"),
        (START + "\r\r", "\n", "the line has a CR by itself"),
        ("PROXY UNKNOWN\n", "\r\n", "the line has a LF by itself"),
        ("PROXY UNKNOWN x\ry", "\r\n", "the line has a CR by itself"),
        ("PROXY TCP6 1:2:3:4:5:6:7:8:", ":", None),
        ("PROXY TCP6 ::1::", " ", None),
        ("PROXY TCP6 12345", ":: ::1 1 2", None),
        ("PROXY TCP6 fe80::1%", "1 ::1 1 2", None),
        ("PROXY TCP6 [", "::1] [::1] 1 2", None),
        ("PROXY TCP6 ::ffff:192.0.2.256", " ", None),
        ("PROXY TCP4 \xd9", "\xa1", None),
    ],
)
def test_refused_at_the_first_wrong_byte(refused: str, rest: str, reason: str | None) -> None:
    """A line is refused at the first byte that no line has there, and the message says why."""
    data = (refused + rest).encode("latin-1")
    count, message = refusal(data)
    assert count == len(refused)
    if reason is not None:
        assert message == reason
    with pytest.raises(ProxyHeaderError):
        ProxyHeaderReader().feed(data)


def test_longest_line() -> None:
    """A line has at most 107 bytes, and a longer one is refused before it ends."""
    line = b"PROXY UNKNOWN ".ljust(105, b"x")
    assert ProxyHeaderReader().feed(line + b"\r\n") == ProxyHeader(1)
    assert refusal(line + b"xx\r\n") == (106, "the line is longer than 107 bytes")
    with pytest.raises(ProxyHeaderError, match="the line is longer than 107 bytes"):
        ProxyHeaderReader().feed(line + b"x\r\n")
    with pytest.raises(ProxyHeaderError, match="the line is longer than 107 bytes"):
        ProxyHeaderReader().feed(line + b"x" * 1000 + b"\r\n")


def test_addresses_that_are_too_long() -> None:
    """No address has more than 39 characters: the specification leaves no room for longer ones."""
    dotted = ":".join(["ffff"] * 6) + ":255.255.255.255"
    count, _ = refusal(f"PROXY TCP6 {dotted} {dotted} 65535 65535\r\n".encode())
    assert count <= len("PROXY TCP6 ") + 40
    longest = "::ffff:255.255.255.255"
    assert ProxyHeaderReader().feed(f"PROXY TCP6 {longest} {longest} 1 2\r\n".encode())


ENDINGS = [
    ending + fields
    for ending in [
        *("", "0", "0 ", ".0", ".0.0", ".0.0.0", "0.0", "0.0.0", "0.0.0.0", ":", "::", " "),
        *("P", "ROXY", "OXY", "XY", "Y", "TCP4", "CP4", "P4", "4", "UNKNOWN", "NKNOWN"),
        *("KNOWN", "NOWN", "OWN", "WN", "N"),
    ]
    for fields in [
        *("", " 0", " 0 0", " :: 0 0", " 0.0.0.0 0 0", " :: :: 0 0", " 0.0.0.0 0.0.0.0 0 0"),
        *(" TCP4 0.0.0.0 0.0.0.0 0 0", "\r"),
    ]
]


def can_be_completed(beginning: bytes) -> bool:
    """Whether a line begins like that."""
    for ending in ENDINGS:
        for line_end in (b"\n", b"\r\n"):
            try:
                header = ProxyHeaderReader().feed(beginning + ending.encode() + line_end)
            except ProxyHeaderError:
                continue
            if header is not None:
                return True
    return False


@given(
    st.sampled_from([line.data for line in LINES]),
    st.integers(6, 60),
    st.text("0129f.: \rU%x", max_size=2).map(str.encode),
)
def test_what_is_not_refused_can_be_completed(data: bytes, place: int, change: bytes) -> None:
    """Nothing is refused too late: as long as a reader waits, the line can still become right."""
    changed = data[:place] + change + data[place + 1 :]
    reader = ProxyHeaderReader()
    for end in range(1, len(changed) + 1):
        try:
            if reader.feed(changed[end - 1 : end]) is not None:
                return
        except ProxyHeaderError:
            return
        if end >= place:
            assert can_be_completed(changed[:end]), changed[:end]


@given(lines)
def test_round_trip(header: ProxyHeader) -> None:
    """Every line is read as what was written."""
    data = header_bytes(header)
    assert len(data) <= 107
    assert ProxyHeaderReader().feed(data) == header


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (ProxyHeader(1), "PROXY UNKNOWN"),
        (ProxyHeader(1, local=True), "PROXY UNKNOWN"),
        (
            ProxyHeader(1, *inet("192.0.2.1", "192.0.2.2", 1, 65535)),
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65535",
        ),
        (
            ProxyHeader(1, *inet(LONGEST_V6, "2001:DB8:0::1", 1, 2)),
            f"PROXY TCP6 {LONGEST_V6} 2001:db8::1 1 2",
        ),
        # A pair of different families, as HAProxy writes it.
        (
            ProxyHeader(1, *inet("192.0.2.1", "2001:db8::1", 1, 2)),
            "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2",
        ),
        (
            ProxyHeader(1, *inet("2001:db8::1", "192.0.2.1", 1, 2)),
            "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 2",
        ),
        # Mapped addresses of both sides are IPv4 addresses.
        (
            ProxyHeader(1, *inet("::ffff:192.0.2.1", "::ffff:c000:202", 1, 2)),
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2",
        ),
        (ProxyHeader(1, *inet("fe80::1%eth0", "fe80::2", 1, 2)), "PROXY TCP6 fe80::1 fe80::2 1 2"),
        (ProxyHeader(1, UnixAddress(b"/a"), UnixAddress(b"/b")), "PROXY UNKNOWN"),
        (ProxyHeader(1, InetAddress("::1", 1), UnixAddress(b"/b")), "PROXY UNKNOWN"),
        (ProxyHeader(1, InetAddress("::1", 1), None), "PROXY UNKNOWN"),
        (ProxyHeader(1, *inet("::1", "::1", 1, 2), Transport.DATAGRAM), "PROXY UNKNOWN"),
        (ProxyHeader(1, tlvs=Tlvs.of(alpn=b"h2"), checksum=True), "PROXY UNKNOWN"),
    ],
)
def test_written(header: ProxyHeader, expected: str) -> None:
    """A line says what version 1 can say; everything else is ``UNKNOWN``."""
    assert header_bytes(header) == expected.encode() + b"\r\n"
