"""
Two other readers and one other writer of PROXY headers agree, except where they are wrong.

The oracles are `proxy-protocol` from PyPI, and Twisted's own parser.  Each exception says what the
oracle does wrong, so that a test fails if an exception is wider than that.
"""

from __future__ import annotations

import re
import socket

import pytest
from attrs import frozen
from hypothesis import assume, given
from hypothesis import strategies as st
from proxyprotocol import ProxyProtocolIncompleteError, ProxyProtocolSyntaxError
from proxyprotocol.result import (
    ProxyResult,
    ProxyResultIPv4,
    ProxyResultIPv6,
    ProxyResultLocal,
    ProxyResultUnix,
    ProxyResultUnknown,
)
from proxyprotocol.tlv import ProxyProtocolTLV
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser

from evproxy.errors import ProxyHeaderError
from evproxy.wire.proxy_protocol import (
    Address,
    InetAddress,
    ProxyHeader,
    ProxyHeaderReader,
    Transport,
    UnixAddress,
    header_bytes,
)
from tests.support.proxy_headers import SAMPLES, headers

LIBRARY = {1: ProxyProtocolV1(), 2: ProxyProtocolV2()}
CHECKSUM, NOOP = 3, 4


@frozen
class Facts:
    """What a header says, in the words of all readers."""

    source: Address | None = None
    destination: Address | None = None
    transport: str = ""
    local: bool = False
    tlvs: frozenset[tuple[int, bytes]] = frozenset()


def ours(header: ProxyHeader) -> Facts:
    """The facts of a header; of two TLVs of a type, the last one, as in the library."""
    return Facts(
        header.source,
        header.destination,
        header.transport.name if header.source and header.version == 2 else "",
        header.local,
        frozenset(dict(header.tlvs).items()),
    )


def library_facts(result: ProxyResult) -> Facts:
    """The facts of what the library read."""
    tlvs = frozenset(
        (int(type_), value) for type_, value in result.tlv.items() if type_ not in (CHECKSUM, NOOP)
    )
    kinds = {socket.SOCK_STREAM: "STREAM", socket.SOCK_DGRAM: "DATAGRAM"}
    transport = kinds[result.protocol] if result.protocol else ""
    source: Address
    destination: Address
    match result:
        case ProxyResultIPv4() | ProxyResultIPv6():
            source, destination = (
                InetAddress(str(host), port) for host, port in (result.source, result.dest)
            )
        case ProxyResultUnix():
            source = UnixAddress(result.source.encode())
            destination = UnixAddress(result.dest.encode())
        case ProxyResultLocal():
            return Facts(local=True, tlvs=tlvs)
        case other:
            assert isinstance(other, ProxyResultUnknown)
            return Facts()
    return Facts(source, destination, transport, tlvs=tlvs)


def library_reads(data: bytes) -> Facts | None:
    """What the library makes of a whole header; ``None`` if it refuses it."""
    version = 2 if data.startswith(b"\r") else 1
    try:
        return library_facts(LIBRARY[version].unpack(data))
    except (ProxyProtocolIncompleteError, ProxyProtocolSyntaxError, ValueError):
        # It raises a plain ValueError for bad addresses.
        return None


def is_ascii(*addresses: Address | None) -> bool:
    """Whether the library can read these: it decodes a UNIX path as ASCII."""
    return all(address.path.isascii() for address in addresses if isinstance(address, UnixAddress))


@given(headers)
def test_library_reads_what_we_write(header: ProxyHeader) -> None:
    """The library reads the same facts in every header that evproxy writes."""
    assume(is_ascii(header.source, header.destination))
    assert library_reads(header_bytes(header)) == ours(header)


ports = st.integers(0, 65535)
v4 = st.tuples(st.ip_addresses(v=4), ports)
v6 = st.tuples(st.ip_addresses(v=6), ports)
paths = st.text(st.characters(min_codepoint=1, max_codepoint=126), max_size=108)
library_tlvs = st.builds(
    ProxyProtocolTLV,
    alpn=st.none() | st.binary(max_size=9),
    authority=st.none() | st.text(max_size=9),
    unique_id=st.none() | st.binary(max_size=128),
    netns=st.none() | st.text("abc", max_size=9),
)


@given(
    st.one_of(
        st.tuples(st.just(ProxyResultIPv4), v4, v4),
        st.tuples(st.just(ProxyResultIPv6), v6, v6),
        st.tuples(st.just(ProxyResultUnix), paths, paths),
    ),
    library_tlvs,
    st.sampled_from([Transport.STREAM, Transport.DATAGRAM]),
)
def test_we_read_what_the_library_writes(
    addresses: tuple[type, object, object], tlv: ProxyProtocolTLV, transport: Transport
) -> None:
    """evproxy reads the same facts in what the library writes."""
    kind, source, destination = addresses
    protocol = {Transport.STREAM: socket.SOCK_STREAM, Transport.DATAGRAM: socket.SOCK_DGRAM}
    result = kind(source, destination, protocol=protocol[transport], tlv=tlv)
    header = ProxyHeaderReader().feed(LIBRARY[2].pack(result))
    assert header is not None
    assert ours(header) == library_facts(result)
    if kind is not ProxyResultUnix:
        header = ProxyHeaderReader().feed(LIBRARY[1].pack(result))
        assert header is not None
        assert header.source == ours(header).source


ACCEPTS_WRONGLY = re.compile(
    "|".join(
        [
            "port is '",  # `0080`, `+443`, `8_0`, and spaces that are no spaces
            "address is '.*%",  # zones
            "[CL][RF] by itself",
            "longer than 107 bytes",
            "the addresses have",  # what is behind the header is read as a part of it
            "the last TLV is cut off",
            "is longer than what contains it",
            "the TLV 0x.. has .* bytes",
            "its CRC32C is",  # without an optional package it does not look
            "more than one CRC32C",
            "the family and the transport are",
            "limit 16384",
            "it begins with '",  # PROXY and a space are all it looks at
        ]
    )
)


def refuses_wrongly(data: bytes) -> bool:
    """Whether `data` is right, but the library refuses it, or understands something else."""
    if data.startswith(b"PROXY TCP6"):
        return b"." in data  # nginx's addresses; and see `test_proxy_version_1`
    if data.startswith(b"\r"):
        command, family = data[12] & 1, data[13]
        # LOCAL with addresses: it takes them for TLVs.  A transport that is UNSPEC: it takes the
        # addresses.  UNSPEC with TLVs: it drops them.  UNIX: it fails for what is not ASCII, and
        # keeps what is behind a NUL.
        return not command or family not in (0x11, 0x12, 0x21, 0x22)
    return False


changes = st.lists(
    st.tuples(st.integers(0, 80), st.sampled_from([b"0", b"+", b"_", b"\r", b"\0", b"%"]))
    | st.tuples(st.integers(12, 80), st.binary(min_size=1, max_size=2)),
    min_size=1,
    max_size=2,
)


@given(st.sampled_from([sample.data for sample in SAMPLES]), changes)
def test_library_on_changed_headers(data: bytes, changes: list[tuple[int, bytes]]) -> None:
    """Both make the same of a changed header, except for the library's known faults."""
    for place, replacement in changes:
        if place < len(data):
            data = data[:place] + replacement + data[place + len(replacement) :]
    reader = ProxyHeaderReader()
    header, refusal = None, ""
    try:
        header = reader.feed(data)
    except ProxyHeaderError as error:
        refusal = str(error)
    if refusal:
        assert ACCEPTS_WRONGLY.search(refusal) or library_reads(data) is None, refusal
    elif header is not None and not refuses_wrongly(data):
        assert library_reads(data[: reader.size]) == ours(header)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 0080 +443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 8_0 443\r\n",
        b"PROXY UNKNOWN \n\r\n",
        bytes.fromhex("0d0a0d0a000d0a515549540a 2141 0000"),
        bytes.fromhex("0d0a0d0a000d0a515549540a 2111 0010 c0000201 c0000202 0001 0002 01000961"),
        bytes.fromhex("0d0a0d0a000d0a515549540a 2111 0013 c0000201 c0000202 0001 0002 030004")
        + bytes(4),
    ],
)
def test_faults_of_the_library(data: bytes) -> None:
    """The library has the faults that are excluded above, and evproxy has not."""
    assert library_reads(data) is not None
    with pytest.raises(ProxyHeaderError):
        ProxyHeaderReader().feed(data)


def twisted_facts(data: bytes) -> Facts:
    """What Twisted's parser makes of a whole header."""
    if data.startswith(b"\r"):
        info = V2Parser.parse(data)
    else:
        info = V1Parser.parse(data.removesuffix(b"\r\n"))
    transport = getattr(info.source, "type", "")
    return Facts(
        twisted_address(info.source),
        twisted_address(info.destination),
        {"TCP": "STREAM", "UDP": "DATAGRAM"}.get(transport, ""),
    )


def twisted_address(address: object) -> Address | None:
    """An address of Twisted's as one of evproxy's."""
    if isinstance(address, UNIXAddress):
        return UnixAddress(address.name or b"")
    if isinstance(address, IPv4Address | IPv6Address):
        return InetAddress(address.host, address.port)
    assert address is None
    return None


@given(headers)
def test_twisted_reads_what_we_write(header: ProxyHeader) -> None:
    """Twisted reads the same addresses in every header that evproxy writes."""
    data = header_bytes(header)
    # Twisted refuses UNKNOWN without a space behind it.
    assume(data != b"PROXY UNKNOWN\r\n")
    found = twisted_facts(data)
    assert (found.source, found.destination) == (header.source, header.destination)
    if isinstance(header.source, InetAddress):
        assert found.transport == header.transport.name
