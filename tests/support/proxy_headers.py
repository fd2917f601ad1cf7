"""PROXY headers: those of the specification, those that other programs sent, and any others."""

from __future__ import annotations

from attrs import frozen
from hypothesis import strategies as st

from evproxy.wire.proxy_protocol import (
    InetAddress,
    ProxyHeader,
    Ssl,
    SslClient,
    Tlvs,
    Transport,
    UnixAddress,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


@frozen
class Sample:
    """The bytes of a header, and what they say."""

    name: str
    data: bytes
    header: ProxyHeader


def inet(source: str, destination: str, *ports: int) -> tuple[InetAddress, InetAddress]:
    """A source and a destination."""
    return InetAddress(source, ports[0]), InetAddress(destination, ports[1])


def line(
    text: str, source: InetAddress | None = None, destination: InetAddress | None = None
) -> Sample:
    """A header of version 1."""
    return Sample(text, text.encode("latin-1") + b"\r\n", ProxyHeader(1, source, destination))


def block(name: str, command_and_family: str, rest: bytes, header: ProxyHeader) -> Sample:
    """A header of version 2 with the right length."""
    head = bytes.fromhex(command_and_family) + len(rest).to_bytes(2, "big")
    return Sample(name, SIGNATURE + head + rest, header)


V4 = inet("192.168.0.1", "192.168.0.11", 56324, 443)
V4_BYTES = bytes.fromhex("c0a80001 c0a8000b dc04 01bb")
V6 = inet("2001:db8::1", "2001:db8::b", 56324, 443)
V6_BYTES = bytes.fromhex(
    "20010db8000000000000000000000001 20010db800000000000000000000000b dc04 01bb"
)
UNIX = UnixAddress(b"/run/a"), UnixAddress(b"\0abstract")
UNIX_BYTES = b"/run/a".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")
LONGEST_V6 = ":".join(["ffff"] * 8)
ALPN_AND_NOOP = b"\x01\x00\x02h2\x04\x00\x00"

LINES = [
    line("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443", *V4),
    line(
        "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
        *inet("255.255.255.255", "255.255.255.255", 65535, 65535),
    ),
    line("PROXY TCP4 0.0.0.0 127.0.0.1 0 0", *inet("0.0.0.0", "127.0.0.1", 0, 0)),
    line("PROXY TCP6 2001:db8::1 2001:db8::b 56324 443", *V6),
    line(
        f"PROXY TCP6 {LONGEST_V6} {LONGEST_V6} 65535 65535",
        *inet(LONGEST_V6, LONGEST_V6, 65535, 65535),
    ),
    line("PROXY TCP6 2001:0DB8:: ::1 1 2", *inet("2001:db8::", "::1", 1, 2)),
    line("PROXY TCP6 1:2:3:4:5:6:7:: :: 1 2", *inet("1:2:3:4:5:6:7:0", "::", 1, 2)),
    # inet_ntop writes mapped addresses like this.
    line("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2", *inet("192.0.2.1", "::1", 1, 2)),
    # nginx writes pairs of different families like this (nginx#1609).
    line("PROXY TCP6 2001:db8::1 192.0.2.1 1 2", *inet("2001:db8::1", "192.0.2.1", 1, 2)),
    line("PROXY UNKNOWN"),
    line("PROXY UNKNOWN "),
    line("PROXY UNKNOWN  any\x00thing \xff"),
    line(f"PROXY UNKNOWN {LONGEST_V6} {LONGEST_V6} 65535 65535"),
]

BLOCKS = [
    block("TCP over IPv4", "2111", V4_BYTES, ProxyHeader(2, *V4)),
    block("UDP over IPv4", "2112", V4_BYTES, ProxyHeader(2, *V4, Transport.DATAGRAM)),
    block("TCP over IPv6", "2121", V6_BYTES, ProxyHeader(2, *V6)),
    block("UDP over IPv6", "2122", V6_BYTES, ProxyHeader(2, *V6, Transport.DATAGRAM)),
    block("UNIX stream", "2131", UNIX_BYTES, ProxyHeader(2, *UNIX)),
    block("UNIX datagram", "2132", UNIX_BYTES, ProxyHeader(2, *UNIX, Transport.DATAGRAM)),
    block("TLVs", "2111", V4_BYTES + ALPN_AND_NOOP, ProxyHeader(2, *V4, tlvs=Tlvs.of(alpn=b"h2"))),
    block("LOCAL", "2000", b"", ProxyHeader(2, local=True)),
    block("LOCAL with addresses", "2011", V4_BYTES, ProxyHeader(2, local=True)),
    block("LOCAL with addresses that are cut off", "2021", V4_BYTES, ProxyHeader(2, local=True)),
    block("LOCAL with UNSPEC and addresses", "2000", V6_BYTES, ProxyHeader(2, local=True)),
    block("LOCAL of an unknown family", "2041", V4_BYTES, ProxyHeader(2, local=True)),
    block(
        "LOCAL with addresses and TLVs",
        "2011",
        V4_BYTES + ALPN_AND_NOOP,
        ProxyHeader(2, local=True, tlvs=Tlvs.of(alpn=b"h2")),
    ),
    block("LOCAL with a bad TLV 0x20", "2000", b"\x20\x00\x01\x00", ProxyHeader(2, local=True)),
    block("PROXY with UNSPEC", "2100", b"", ProxyHeader(2)),
    block("PROXY with UNSPEC and addresses", "2100", V4_BYTES, ProxyHeader(2)),
    block(
        "PROXY with UNSPEC and TLVs",
        "2100",
        ALPN_AND_NOOP,
        ProxyHeader(2, tlvs=Tlvs.of(alpn=b"h2")),
    ),
    block("a transport that is UNSPEC", "2110", V4_BYTES, ProxyHeader(2)),
    block("a family that is UNSPEC", "2101", V4_BYTES, ProxyHeader(2)),
]

SENT_BY_OTHERS = [
    Sample(
        # proxy-v2-options crc32c,unique-id
        "HAProxy 2.6",
        SIGNATURE
        + b"!\x11\x00,\x7f\x00\x00\x01\x7f\x00\x00\x01\xe8LF\xa0\x03\x00\x048\x8e\xfb0"
        + b"\x05\x00\x167F000001:E84C_6B08E4E5",
        ProxyHeader(
            2,
            *inet("127.0.0.1", "127.0.0.1", 59468, 18080),
            tlvs=Tlvs.of(unique_id=b"7F000001:E84C_6B08E4E5"),
            checksum=True,
        ),
    ),
    Sample(
        "HAProxy 2.6 for a client at a UNIX socket",
        SIGNATURE + b" \x00\x00\n\x03\x00\x04\x82ct\xb8\x05\x00\x00",
        ProxyHeader(2, local=True, tlvs=Tlvs.of(unique_id=b""), checksum=True),
    ),
    Sample(
        # As captured in go-proxyproto's tests.
        "AWS with a VPC endpoint",
        SIGNATURE
        + bytes.fromhex("21110054 c0a82c0a c0a82c07 cc3e241b 030004b9286fa6 ea0017")
        + b"\x01vpce-00eafc458ec97b833\x04\x00\x24"
        + bytes(36),
        ProxyHeader(
            2,
            *inet("192.168.44.10", "192.168.44.7", 52286, 9243),
            tlvs=Tlvs([(0xEA, b"\x01vpce-00eafc458ec97b833")]),
            checksum=True,
        ),
    ),
    Sample(
        # As captured in go-proxyproto's tests.
        "HAProxy with the common name of a client's certificate",
        SIGNATURE
        + bytes.fromhex("21110040 7f000001 7f000001 cc8a232e 200031 07 00000000 210007")
        + b"TLSv1.3\x22\x00\x1fExample Common Name Client Cert",
        ProxyHeader(
            2,
            *inet("127.0.0.1", "127.0.0.1", 52362, 9006),
            tlvs=Tlvs.of(
                ssl=Ssl(
                    client=SslClient(7),
                    version="TLSv1.3",
                    common_name="Example Common Name Client Cert",
                )
            ),
        ),
    ),
]

SAMPLES = LINES + BLOCKS + SENT_BY_OTHERS

texts = st.text(max_size=20)
unknown_tlvs = st.tuples(st.sampled_from([0x06, 0x21, 0x31, 0xE1, 0xFF]), st.binary(max_size=20))
ssls = st.builds(
    Ssl,
    client=st.integers(0, 255).map(SslClient),
    verify=st.integers(0, 2**32 - 1),
    version=st.none() | texts,
    common_name=st.none() | texts,
    cipher=st.none() | texts,
    signature_algorithm=st.none() | texts,
    key_algorithm=st.none() | texts,
    group=st.none() | texts,
    signature_scheme=st.none() | texts,
    client_certificate=st.none() | st.binary(max_size=600),
    other=st.lists(st.tuples(st.integers(0x29, 0xFF), st.binary(max_size=9)), max_size=2).map(
        tuple
    ),
)
tlvs = st.builds(
    Tlvs.of,
    custom=st.lists(unknown_tlvs, max_size=3),
    alpn=st.none() | st.binary(max_size=20),
    authority=st.none() | texts,
    unique_id=st.none() | st.binary(max_size=128),
    ssl=st.none() | ssls,
    netns=st.none() | texts,
)

ports = st.integers(0, 65535)
inet_addresses = st.builds(InetAddress, st.ip_addresses().map(str), ports)
unix_addresses = st.builds(UnixAddress, st.binary(max_size=108))
pairs = st.tuples(inet_addresses, inet_addresses) | st.tuples(unix_addresses, unix_addresses)

lines = st.one_of(
    st.builds(ProxyHeader, st.just(1)),
    st.builds(ProxyHeader, st.just(1), inet_addresses, inet_addresses),
)
"""Every header that version 1 can say."""

blocks = st.one_of(
    st.builds(ProxyHeader, st.just(2), local=st.just(True), tlvs=tlvs, checksum=st.booleans()),
    st.builds(
        lambda pair, transport, tlvs, checksum: ProxyHeader(
            2, pair[0], pair[1], transport, tlvs=tlvs, checksum=checksum
        ),
        pairs,
        st.sampled_from(Transport),
        tlvs,
        st.booleans(),
    ),
)
"""Every header that version 2 can say, and that a writer writes."""

headers = lines | blocks
