"""The TLVs of a PROXY header, as views for those who ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.errors import ProxyHeaderError
from evproxy.wire.proxy_protocol import ProxyHeader, ProxyHeaderReader, Ssl, SslClient, Tlvs
from tests.support.proxy_headers import SENT_BY_OTHERS, V4_BYTES, block, ssls


def test_views() -> None:
    """Each registered type has a view."""
    ssl = Ssl(client=SslClient.TLS, version="TLSv1.3")
    tlvs = Tlvs.of(alpn=b"h2", authority="bücher.example", unique_id=b"\0", ssl=ssl, netns="blue")
    assert tlvs.alpn == b"h2"
    assert tlvs.authority == "bücher.example"
    assert tlvs.unique_id == b"\0"
    assert tlvs.ssl == ssl
    assert tlvs.netns == "blue"


def test_no_tlvs() -> None:
    """Without a TLV its view is ``None``, which an empty TLV is not."""
    views = ["alpn", "authority", "unique_id", "ssl", "netns", "aws_vpc_endpoint"]
    views += ["azure_link_id", "gcp_connection_id"]
    assert [getattr(Tlvs(), view) for view in views] == [None] * len(views)
    assert Tlvs.of(alpn=b"", authority="") == ((1, b""), (2, b""))
    assert Tlvs.of(authority="").authority == ""


def test_unknown_types_stay() -> None:
    """A TLV of another type is kept as it is, in its place; checksum and padding are not kept."""
    sent = b"\xff\0\1a\4\0\2--\x06\0\0\xff\0\1b\1\0\2h2"
    header = ProxyHeaderReader().feed(block("", "2111", V4_BYTES + sent, ProxyHeader(2)).data)
    assert header is not None
    assert list(header.tlvs.values(0xFF)) == [b"a", b"b"]
    assert header.tlvs == ((0xFF, b"a"), (0x06, b""), (0xFF, b"b"), (1, b"h2"))


def test_the_first_counts() -> None:
    """Of two TLVs of a type, a view shows the first."""
    assert Tlvs([(2, b"a"), (2, b"b")]).authority == "a"


def test_text_that_is_none() -> None:
    """Bytes that are not UTF-8 are not lost."""
    tlvs = Tlvs([(2, b"a\xff")])
    assert tlvs.authority == "a\udcff"
    assert Tlvs.of(authority=tlvs.authority) == tlvs
    with pytest.raises(ProxyHeaderError, match=r"^'\\ud800' is not Unicode text$"):
        Tlvs.of(authority="\ud800")


@pytest.mark.parametrize(
    ("tlv", "view", "expected"),
    [
        ((0xEA, b"\x01vpce-08d2bf15fac5001c9"), "aws_vpc_endpoint", "vpce-08d2bf15fac5001c9"),
        ((0xEA, b"\x02other"), "aws_vpc_endpoint", None),
        ((0xEA, b""), "aws_vpc_endpoint", None),
        ((0xEE, b"\x01\xc1\x45\x00\x21"), "azure_link_id", 0x210045C1),
        ((0xEE, b"\x02\xc1\x45\x00\x21"), "azure_link_id", None),
        ((0xEE, b"\x01\xc1\x45\x00"), "azure_link_id", None),
        ((0xE0, bytes.fromhex("ffffffffc0a86402")), "gcp_connection_id", 18446744072646845442),
        ((0xE0, b"\x01"), "gcp_connection_id", None),
    ],
)
def test_vendors(tlv: tuple[int, bytes], view: str, expected: object) -> None:
    """Each vendor has a form of its own; Azure's number is little-endian."""
    assert getattr(Tlvs([tlv]), view) == expected


def test_vendor_type_with_several_meanings() -> None:
    """Types of vendors are anybody's: a view skips what has not the vendor's form."""
    tlvs = Tlvs([(0xEA, b"\x09x"), (0xEA, b"\x01vpce-1"), (0xE0, b"x"), (0xE0, bytes(8))])
    assert tlvs.aws_vpc_endpoint == "vpce-1"
    assert tlvs.gcp_connection_id == 0
    assert SENT_BY_OTHERS[2].header.tlvs.aws_vpc_endpoint == "vpce-00eafc458ec97b833"


def test_ssl_parts() -> None:
    """Every part of the client's TLS has its field."""
    value = (
        b"\x07\0\0\0\x12" b"\x21\0\7TLSv1.3" b"\x22\0\2cn" b"\x23\0\1c" b"\x24\0\1s" b"\x25\0\1k"
        b"\x26\0\6X25519" b"\x27\0\2ss" b"\x28\0\3DER" b"\x29\0\1?" b"\x22\0\1x"
    )  # fmt: skip
    assert Ssl.decoded(value) == Ssl(
        client=SslClient(7),
        verify=0x12,
        version="TLSv1.3",
        common_name="cn",
        cipher="c",
        signature_algorithm="s",
        key_algorithm="k",
        group="X25519",
        signature_scheme="ss",
        client_certificate=b"DER",
        other=((0x29, b"?"), (0x22, b"x")),
    )


@pytest.mark.parametrize(
    ("client", "verify", "verified"),
    [
        (SslClient.TLS, 0, False),
        (SslClient.TLS | SslClient.CERTIFICATE_IN_CONNECTION, 0, True),
        (SslClient.TLS | SslClient.CERTIFICATE_IN_SESSION, 0, True),
        (SslClient.TLS | SslClient.CERTIFICATE_IN_CONNECTION, 18, False),
        (SslClient(0), 0, False),
        (SslClient(0x80), 0, False),
    ],
)
def test_verified(client: SslClient, verify: int, verified: bool) -> None:
    """A certificate that was not sent was not verified, though HAProxy sends 0 then, too."""
    assert Ssl(client=client, verify=verify).certificate_verified is verified


@given(ssls)
def test_round_trip(ssl: Ssl) -> None:
    """The client's TLS is read as what was written."""
    assert Ssl.decoded(ssl.encoded()) == ssl


@given(st.binary(max_size=40))
def test_any_value(value: bytes) -> None:
    """Any value is understood, without loss but for the order, or is the one documented error."""
    try:
        ssl = Ssl.decoded(value)
    except ProxyHeaderError:
        return
    assert sorted(ssl.encoded()) == sorted(value)
