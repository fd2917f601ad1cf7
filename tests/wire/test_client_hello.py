"""The ClientHello in any fragmentation, with OpenSSL as the oracle."""

from __future__ import annotations

import datetime
import ssl
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from evproxy.errors import ClientHelloError
from evproxy.wire.client_hello import (
    SIZE_LIMIT,
    TLS_1_2,
    TLS_1_3,
    ClientHello,
    HelloReader,
    NotTls,
)
from tests.support.certificates import Authority
from tests.support.hellos import (
    Hello,
    Oracle,
    alpn,
    in_records,
    message_in,
    of_openssl,
    of_ssl,
    prefixed,
    server_name,
    supported_versions,
)
from tests.wire.pieces import Feed, cut_places, in_every_way, outcome, pieces

NAMED = Hello([server_name(b"a.example.org")])
LONGEST_LABELS = b".".join([b"a" * 63] * 3) + b"." + b"a" * 61
ECH = (0xFE0D, b"\0\0\1\0\1\0\0\0\0\0")
PADDING = 21


def new() -> Feed:
    return HelloReader().feed


def read(data: bytes) -> object:
    return in_every_way(new, data, ClientHelloError)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    """OpenSSL as a server."""
    identity = Authority.new().issue([], datetime.timedelta(days=1))
    return Oracle(identity.certificate, identity.key)


@pytest.mark.parametrize(
    ("hello", "expected"),
    [
        (NAMED, ClientHello("a.example.org")),
        (Hello(), ClientHello()),
        (Hello(extensions=None), ClientHello()),
        (Hello(extensions=None, version=0x0301), ClientHello(version=0x0301)),
        (Hello(extensions=None, version=0x0300), ClientHello(version=0x0300)),
        (Hello(extensions=None, version=0x0304), ClientHello(version=TLS_1_2)),
        (Hello(version=0x0403), ClientHello(version=TLS_1_2)),
        (Hello([server_name(b"EXAMPLE.org")]), ClientHello("example.org")),
        (Hello([server_name(b"example.org.")]), ClientHello("example.org")),
        (Hello([server_name(b"xn--bcher-kva.example")]), ClientHello("xn--bcher-kva.example")),
        (Hello([server_name(b"_a.b-c")]), ClientHello("_a.b-c")),
        (Hello([server_name(b"192.0.2.1")]), ClientHello("192.0.2.1")),
        (Hello([server_name(b"2001:db8::1")]), ClientHello("2001:db8::1")),
        (Hello([server_name(LONGEST_LABELS)]), ClientHello(LONGEST_LABELS.decode())),
        (Hello([alpn(b"h2", b"http/1.1")]), ClientHello(alpn=(b"h2", b"http/1.1"))),
        (Hello([alpn(b"\0", b"x" * 255)]), ClientHello(alpn=(b"\0", b"x" * 255))),
        (Hello([supported_versions(0x0303, 0x0304)]), ClientHello(version=TLS_1_3)),
        (Hello([supported_versions(0x0302, 0x0301)]), ClientHello(version=0x0302)),
        (Hello([supported_versions(0xFAFA, 0x7F1C, 0x0303)]), ClientHello(version=TLS_1_2)),
        (Hello([supported_versions(0xFAFA)]), ClientHello(version=0)),
        (Hello([ECH, server_name(b"public")]), ClientHello("public", ech=True)),
        (Hello([(0x0A0A, b""), (0xFAFA, b"\0")]), ClientHello()),
        (Hello(session_id=bytes(32)), ClientHello()),
    ],
)
def test_sound(hello: Hello, expected: ClientHello) -> None:
    """What a hello says is read, and nothing else of it matters."""
    assert read(hello.records()) == expected


MALFORMED = [
    (Hello(version=0x0203), "the ClientHello is of version 0x0203"),
    (Hello(session_id=bytes(33)), "the length of the session id is wrong"),
    (Hello(suites=b""), "the length of the cipher suites is wrong"),
    (Hello(compression=b""), "the length of the compression methods is wrong"),
    (Hello(after=b"\0"), "bytes follow the extensions"),
    (Hello(extensions=None, after=b"\0"), "the length of the extensions is wrong"),
    (Hello(extensions=None, after=b"\0\4\0\0\0"), "the length of the extensions is wrong"),
    (Hello(extensions=None, after=b"\0\2\0\0"), "the last extension is cut off"),
    (Hello(extensions=None, after=b"\0\4\0\0\0\1"), "extension 0 is longer than the ClientHello"),
    (Hello([server_name(b"a"), server_name(b"a")]), "extension 0 is there twice"),
    (Hello([(0, b"")]), "the server name is not one host name"),
    (Hello([(0, b"\0\0")]), "the server name is not one host name"),
    (Hello([(0, b"\0\3\0\0\1")]), "the server name is not one host name"),
    (Hello([(0, b"\0\5\0\0\1a")]), "the server name is not one host name"),
    (Hello([(0, b"\0\4\0\0\1ab")]), "the server name is not one host name"),
    (Hello([(0, b"\0\4\0\0\2a")]), "the server name is not one host name"),
    (Hello([server_name(b"a", kind=1)]), "the server name is not one host name"),
    (
        Hello([(0, prefixed(2, 2 * (b"\0" + prefixed(2, b"a"))))]),
        "the server name is not one host name",
    ),
    (
        Hello([server_name(b"a\0.example.org")]),
        "the server name has characters or a length that no host name has",
    ),
    (
        Hello([server_name(b"a" * 256)]),
        "the server name has characters or a length that no host name has",
    ),
    (Hello([(16, b"")]), "the length of the ALPN protocols is wrong"),
    (Hello([(16, b"\0\0")]), "the length of the ALPN protocols is wrong"),
    (Hello([(16, b"\0\1\0")]), "the length of the ALPN protocols is wrong"),
    (Hello([alpn(b"h2", b"", b"h3")]), "the length of the ALPN protocols is wrong"),
    (Hello([(16, b"\0\3\3h2")]), "the length of the ALPN protocols is wrong"),
    (Hello([(16, b"\0\4\2h2")]), "the length of the ALPN protocols is wrong"),
    (Hello([(43, b"")]), "the length of the supported versions is wrong"),
    (Hello([(43, b"\0")]), "the length of the supported versions is wrong"),
    (Hello([(43, b"\3\3\4\3")]), "the length of the supported versions is wrong"),
    (Hello([(43, b"\4\3\4")]), "the length of the supported versions is wrong"),
]


@pytest.mark.parametrize(("hello", "fault"), MALFORMED)
def test_malformed(oracle: Oracle, hello: Hello, fault: str) -> None:
    """What breaks the format is the one error, and OpenSSL refuses it as well."""
    assert read(hello.records()) == f"error: {fault}"
    assert not oracle.read(hello.records()).sound


@pytest.mark.parametrize(
    ("hello", "fault"),
    [
        (Hello([(0xFAFA, b""), (0xFAFA, b"")]), "extension 64250 is there twice"),
        (
            Hello([server_name("bücher.example".encode())]),
            "the server name has characters or a length that no host name has",
        ),
        *(
            (
                Hello([server_name(name)]),
                "the server name has characters or a length that no host name has",
            )
            for name in (b"", b".", b".a", b"a..", b"a..b", b"a b", b"a\n", b"a/b", b"\x1b[2J")
        ),
    ],
)
def test_stricter_than_openssl(oracle: Oracle, hello: Hello, fault: str) -> None:
    """A name that no route can compare, and a repeated extension, are refused."""
    assert read(hello.records()) == f"error: {fault}"
    assert oracle.read(hello.records()).sound


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\x16\x03\x01\x00\x00", "a TLS record has a handshake of 0 bytes"),
        (b"\x16\x03\x01\x40\x01", "a TLS record has a handshake of 16385 bytes"),
        (b"\x16\x03\x01\x00\x04\x02", "the first handshake message is of type 2"),
        (
            in_records(b"\x01\x00\x3f\xf8", ()),
            "the ClientHello is longer than 16384 bytes",
        ),
        (in_records(b"\x01\0\0\0", ()), "the ClientHello is shorter than its fixed fields"),
        (in_records(b"\x01\0\0\x22" + bytes(34), ()), "the ClientHello is shorter than its fixed"),
        (
            in_records(NAMED.message()[:20], ()) + b"\x15\x03\x01\x00\x02\x02\x28",
            "TLS record 2: the first byte is 0x15, and not 0x16",
        ),
        (
            in_records(NAMED.message()[:20], ()) + b"\x16\x02",
            "TLS record 2: the major version is 2, and not 3",
        ),
    ],
)
def test_malformed_records(oracle: Oracle, data: bytes, fault: str) -> None:
    """TLS whose records or messages cannot begin with a ClientHello is the one error."""
    assert str(read(data)).startswith(f"error: {fault}")
    assert not oracle.read(data + bytes(2**15)).sound


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"G", "the first byte is 0x47, and not 0x16"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the first byte is 0x53, and not 0x16"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "the first byte is 0x00, and not 0x16"),
        (b"\x15\x03\x01\0\2\2\x28", "the first byte is 0x15, and not 0x16"),
        # The hello of SSL 2.0 that also offers TLS (RFC 5246, appendix E.2).
        (b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10", "the first byte is 0x80, and not 0x16"),
        # DTLS 1.2.
        (b"\x16\xfe\xfd\0\0\0\0\0\0\0\0", "the major version is 254, and not 3"),
        (b"\x16\x02\0", "the major version is 2, and not 3"),
    ],
)
def test_not_tls(data: bytes, reason: str) -> None:
    """The first byte that cannot be TLS is enough to say so."""
    assert read(data) == NotTls(reason)


@pytest.mark.parametrize("size", range(9))
def test_incomplete(size: int) -> None:
    """What may become a hello waits for more."""
    assert read(NAMED.records()[:size]) is None


def test_one_byte_is_missing() -> None:
    """A hello is read with its last byte, and not before."""
    data = NAMED.records()
    assert read(data[:-1]) is None
    assert read(data) == ClientHello("a.example.org")


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0x03FF])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 50])
def test_small_records(oracle: Oracle, size: int, version: int) -> None:
    """Records of any size, also shorter than the header of a message, and of any minor version."""
    message = Hello([server_name(b"a.example.org"), alpn(b"h2")]).message()
    data = in_records(message, range(0, len(message), size), version)
    assert read(data) == ClientHello("a.example.org", (b"h2",))
    seen = oracle.read(data)
    assert (seen.name, seen.alpn) == (b"a.example.org", ())


def padded(size: int) -> bytes:
    """A hello in one record that takes `size` bytes in all."""
    empty = Hello([server_name(b"a.example.org"), (PADDING, b"")])
    return Hello(
        [server_name(b"a.example.org"), (PADDING, bytes(size - len(empty.records())))]
    ).records()


def test_the_limit() -> None:
    """A hello of `SIZE_LIMIT` bytes is read, one of a byte more is not waited for."""
    assert read(padded(SIZE_LIMIT)) == ClientHello("a.example.org")
    longer = "error: the ClientHello is longer than 16384 bytes"
    assert read(padded(SIZE_LIMIT + 1)[:9]) == longer
    message = padded(SIZE_LIMIT)[5:]
    assert read(in_records(message, [100])) == longer


def test_a_hello_in_tiny_records() -> None:
    """What counts is how many bytes arrive, not how many the message has."""
    message = padded(SIZE_LIMIT)[5:]
    assert read(in_records(message, range(len(message)))) == (
        "error: the ClientHello is longer than 16384 bytes"
    )


def test_time_is_proportional() -> None:
    """Byte by byte, sixteen times as many bytes do not take a hundred times as long."""

    def seconds(size: int) -> float:
        parts = list(pieces(padded(size), range(size)))
        times = []
        for _ in range(3):
            start = time.thread_time()
            assert outcome(new(), parts, ClientHelloError) == ClientHello("a.example.org")
            times.append(time.thread_time() - start)
        return min(times)

    assert seconds(SIZE_LIMIT) < 100 * seconds(SIZE_LIMIT // 16)


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=2, max_size=4).map(".".join)
PROTOCOLS = st.lists(
    st.sampled_from([b"h2", b"http/1.1", b"postgresql", b"acme-tls/1"]), unique=True, max_size=4
)
VERSIONS = {SSL.TLS1_2_VERSION: TLS_1_2, SSL.TLS1_3_VERSION: TLS_1_3}


@given(
    st.none() | NAMES,
    PROTOCOLS,
    st.sampled_from([*VERSIONS]),
    st.sampled_from([None, b"ALL", b"ECDHE-ECDSA-AES128-GCM-SHA256"]),
    st.lists(st.integers(1, 2000), max_size=6),
    cut_places(2000),
)
@example("a.example.org", [b"h2"], SSL.TLS1_3_VERSION, None, [1, 2, 3, 4, 1500], [])
def test_hellos_of_a_current_openssl(
    oracle: Oracle,
    name: str | None,
    protocols: list[bytes],
    version: int,
    suites: bytes | None,
    record_cuts: list[int],
    cuts: list[int],
) -> None:
    """What a client was set to say is read, and OpenSSL's server reads the same."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(version)
    if protocols:
        context.set_alpn_protos(protocols)
    if suites is not None:
        context.set_cipher_list(suites)
    data = of_openssl(context, None if name is None else name.encode())
    data = in_records(message_in(data), record_cuts)
    found = outcome(new(), pieces(data, cuts), ClientHelloError)
    assert found == ClientHello(name, tuple(protocols), VERSIONS[version])
    seen = oracle.read(data)
    assert seen.name == (None if name is None else name.encode())
    assert seen.alpn == tuple(protocols)


@pytest.mark.parametrize("name", [None, "a.example.org", "BÜCHER.example", "192.0.2.1"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("protocols", [[], ["h2", "http/1.1"]])
def test_hellos_of_python(name: str | None, version: ssl.TLSVersion, protocols: list[str]) -> None:
    """Python's own TLS: A-labels for names, and no name for addresses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(protocols)
    sent = {"BÜCHER.example": "xn--bcher-kva.example", "192.0.2.1": None}.get(name or "", name)
    expected = ClientHello(sent, tuple(each.encode() for each in protocols), int(version))
    assert read(of_ssl(context, name)) == expected


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(st.lists(st.tuples(st.integers(0, 101), st.binary(max_size=3)), min_size=1, max_size=3))
def test_changed_hellos(oracle: Oracle, changes: list[tuple[int, bytes]]) -> None:
    """Whatever OpenSSL takes for a hello is read as OpenSSL reads it, or is refused."""
    data = Hello([server_name(b"a.example.org"), alpn(b"h2"), ECH]).records()
    for place, new_bytes in changes:
        data = data[:place] + new_bytes + data[place + len(new_bytes) :]
    seen = oracle.read(data)
    assume(seen.sound)
    found = outcome(new(), [data], ClientHelloError)
    if isinstance(found, ClientHello):
        name = None if seen.name is None else seen.name.decode().lower().removesuffix(".")
        assert found.server_name == name
    else:
        assert found is not None
        assert "is there twice" in str(found) or "no host name has" in str(found)


def likely() -> st.SearchStrategy[bytes]:
    """Bytes that look like hellos, more or less."""
    extension = st.tuples(st.sampled_from([0, 16, 43, 0xFE0D]), st.binary(max_size=12)) | (
        st.sampled_from([server_name(b"a"), alpn(b"h2"), supported_versions(TLS_1_3), ECH])
    )
    hello = st.builds(
        Hello,
        st.none() | st.lists(extension, max_size=3),
        st.sampled_from([0x0303, 0x0301, 0x0200]),
        st.binary(max_size=2),
        after=st.binary(max_size=2),
    )
    return st.builds(lambda each, cuts: in_records(each.message(), cuts), hello, cut_places(80))


@given(st.one_of(st.binary(), likely()), cut_places(120))
def test_any_input(data: bytes, cuts: list[int]) -> None:
    """Any input has an answer or the one error, and how it is cut changes nothing."""
    found = read(data)
    assert outcome(new(), pieces(data, cuts), ClientHelloError) == found


def test_values_are_comparable() -> None:
    """Answers are values."""
    first: Any = HelloReader().feed(NAMED.records())
    assert first == HelloReader().feed(NAMED.records())
    assert len({first, NotTls("x"), NotTls("x")}) == 2
