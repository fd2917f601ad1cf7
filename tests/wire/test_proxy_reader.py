"""A PROXY header is read from pieces of any size, and nothing after it is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evproxy.errors import ProxyHeaderError
from evproxy.wire.proxy_protocol import ProxyHeader, ProxyHeaderReader, Ssl, Tlvs, header_bytes
from evproxy.wire.proxy_protocol.version_2 import LENGTH_LIMIT, BlockReader
from tests.support.proxy_contract import Outcome, assert_contract, outcome
from tests.support.proxy_headers import LINES, SAMPLES, V4, Sample, headers

each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


@each_sample
def test_whole(sample: Sample) -> None:
    """A header in one piece is read."""
    expected = Outcome(sample.header, len(sample.data))
    assert outcome(sample.data, len(sample.data)) == expected


@each_sample
def test_byte_by_byte(sample: Sample) -> None:
    """A header is complete with its last byte, and not before."""
    reader = ProxyHeaderReader()
    for byte in sample.data[:-1]:
        assert reader.feed(bytes([byte])) is None
    assert reader.feed(sample.data[-1:]) == sample.header


@each_sample
@pytest.mark.parametrize("rest", [b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"PROXY UNKNOWN\r\n", b"\0"])
def test_with_more_behind(sample: Sample, rest: bytes) -> None:
    """What comes behind a header is no part of it, and is kept."""
    reader = ProxyHeaderReader()
    assert reader.feed(sample.data + rest) == sample.header
    assert reader.size == len(sample.data)
    assert reader.rest == rest


@each_sample
def test_contract(sample: Sample) -> None:
    """The samples keep the contract of the fuzzer."""
    assert assert_contract(sample.data + b"more").header == sample.header


@given(headers, st.integers(1, 40), st.binary(max_size=5))
def test_any_pieces(header: ProxyHeader, piece: int, rest: bytes) -> None:
    """The size of the pieces makes no difference."""
    data = header_bytes(header)
    read = outcome(data + rest, piece)
    assert read.size == len(data)
    assert read == outcome(data, len(data))


beginnings = st.sampled_from([sample.data for sample in SAMPLES])
changes = st.lists(st.tuples(st.integers(0, 120), st.binary(max_size=3)), max_size=3)


@given(st.binary(max_size=150) | st.text("PROXYTC46UNKW 0123456789.:\r\n").map(str.encode))
@example(b"")
def test_any_bytes(data: bytes) -> None:
    """Any bytes are accepted, or refused with the one documented error."""
    assert_contract(data)


@given(beginnings, changes)
def test_any_change(data: bytes, changes: list[tuple[int, bytes]]) -> None:
    """So is any header with some bytes changed."""
    for place, replacement in changes:
        data = data[:place] + replacement + data[place + len(replacement) :]
    assert_contract(data)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00",
        b"proxy",
        b"\n",
        b" PROXY",
    ],
)
def test_no_header(data: bytes) -> None:
    """Other protocols are refused at their first byte."""
    with pytest.raises(ProxyHeaderError, match=r"^no PROXY header: the connection begins with '"):
        ProxyHeaderReader().feed(data[:1])


def test_message_without_control_characters() -> None:
    """A message shows bytes from outside, but never as they are."""
    with pytest.raises(ProxyHeaderError) as caught:
        ProxyHeaderReader().feed(b"\x1b[31m\xff\n" + b"x" * 100)
    assert str(caught.value) == (
        r"no PROXY header: the connection begins with '\x1b[31m\xff\nxxxxx'"
    )


def test_nothing_is_fed_after_the_end() -> None:
    """A reader that is done takes no more: its user made a mistake."""
    reader = ProxyHeaderReader()
    reader.feed(LINES[0].data)
    with pytest.raises(RuntimeError):
        reader.feed(b"")
    reader = ProxyHeaderReader()
    with pytest.raises(ProxyHeaderError):
        reader.feed(b"x")
    with pytest.raises(RuntimeError):
        reader.feed(b"PROXY")


def test_empty_pieces() -> None:
    """An empty piece changes nothing."""
    reader = ProxyHeaderReader()
    assert reader.feed(b"") is None
    assert reader.feed(b"PROXY ") is None
    assert reader.feed(b"") is None
    assert reader.feed(b"UNKNOWN\r\n") == ProxyHeader(1)


class Counted(bytearray):
    """Counts the bytes that are copied out of it."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        self.copied += len(found) if isinstance(found, bytearray) else 1
        return found


def test_work_for_single_bytes() -> None:
    """A long header costs a few looks at each byte, even if it comes byte by byte."""
    custom = [(0xE0, bytes(5))] * 1000
    header = ProxyHeader(
        2, *V4, tlvs=Tlvs.of(custom=custom, ssl=Ssl(client_certificate=bytes(8000))), checksum=True
    )
    data = header_bytes(header)
    received = Counted()
    reader = BlockReader(LENGTH_LIMIT)
    for byte in data[:-1]:
        received.append(byte)
        assert reader.read(received) is None
    received.append(data[-1])
    assert reader.read(received) == header
    assert received.copied < 5 * len(data)
