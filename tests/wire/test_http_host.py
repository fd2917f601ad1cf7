"""The host of an HTTP/1 request, in any fragmentation."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.errors import HttpHostError
from evproxy.wire.http_host import SIZE_LIMIT, HostReader, HttpHost, NoHost
from tests.wire.pieces import Feed, cut_places, in_every_way, outcome, pieces

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def new() -> Feed:
    return HostReader().feed


def read(data: bytes) -> object:
    return in_every_way(new, data, HttpHostError)


def request(*lines: bytes, first: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"".join(line + b"\r\n" for line in (first, *lines, b""))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"example.org", HttpHost("example.org")),
        (b"EXAMPLE.Org:8080", HttpHost("example.org", 8080)),
        (b"example.org.", HttpHost("example.org")),
        (b"example.org.:80", HttpHost("example.org", 80)),
        (b"example.org:", HttpHost("example.org")),
        (b"example.org:00080", HttpHost("example.org", 80)),
        (b"example.org:65535", HttpHost("example.org", 65535)),
        (b"a_b-c", HttpHost("a_b-c")),
        (b"192.0.2.1:80", HttpHost("192.0.2.1", 80)),
        (b"[2001:DB8:0:0::1]:443", HttpHost("2001:db8::1", 443)),
        (b"[::]", HttpHost("::")),
        (b"", NoHost("the Host field is empty")),
    ],
)
@pytest.mark.parametrize("space", [b"", b" ", b"\t \t"])
@pytest.mark.parametrize("name", [b"Host", b"host", b"HOST"])
def test_host_field(name: bytes, space: bytes, value: bytes, expected: object) -> None:
    """The value of the Host field, wherever it is in the header section."""
    field = name + b":" + space + value + space
    assert read(request(field)) == expected
    assert read(request(b"Accept: */*", b"X-Host: b", field, b"Empty:", b"A: \xff b")) == expected


@pytest.mark.parametrize(
    ("first", "host", "expected"),
    [
        (b"GET http://a.example HTTP/1.1", b"b.example", HttpHost("a.example")),
        (b"GET http://A.example:8080/x?http://c HTTP/1.1", b"b", HttpHost("a.example", 8080)),
        (b"GET https://a.example?x HTTP/1.1", b"", HttpHost("a.example")),
        (b"GET http://[::1]:80/ HTTP/1.1", b"b", HttpHost("::1", 80)),
        (b"CONNECT a.example:443 HTTP/1.1", b"b.example", HttpHost("a.example", 443)),
        (b"OPTIONS * HTTP/1.1", b"b.example", HttpHost("b.example")),
        (b"GET /http://a.example/ HTTP/1.1", b"b.example", HttpHost("b.example")),
        (b"GET //a.example/ HTTP/1.1", b"b.example", HttpHost("b.example")),
        (b"GET /\xc3\xbc HTTP/1.1", b"b.example", HttpHost("b.example")),
        (b"GET / HTTP/1.0", b"b.example", HttpHost("b.example")),
        (b"GET / HTTP/1.9", b"b.example", HttpHost("b.example")),
        (b"X-NEW!METHOD / HTTP/1.1", b"b.example", HttpHost("b.example")),
    ],
)
def test_request_line(first: bytes, host: bytes, expected: HttpHost) -> None:
    """The host of the target counts, if its form has one (RFC 9112, section 3.2)."""
    assert read(request(b"Host: " + host, first=first)) == expected
    assert read(b"\r\n\r\n" + request(b"Host: " + host, first=first)) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (PREFACE, "the request is HTTP/2"),
        (request(first=b"GET / HTTP/1.0"), "the HTTP/1.0 request has no Host field"),
        (b"GET /\r\n", "the first line is not an HTTP/1 request"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "the first line is not an HTTP/1 request"),
        (b"EHLO example.org\r\n", "the first line is not an HTTP/1 request"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the first bytes are not HTTP/1"),
        (b"\x16\x03\x01", "the first bytes are not HTTP/1"),
        (b"\0", "the first bytes are not HTTP/1"),
        (b"\n", "the first bytes are not HTTP/1"),
        (b" GET / HTTP/1.1\r\n", "the first bytes are not HTTP/1"),
        (b"\rGET", "the first bytes are not HTTP/1"),
        (b"GET\t/", "the first bytes are not HTTP/1"),
        (b"x" * 33, "the first bytes are not HTTP/1"),
    ],
)
def test_no_host(data: bytes, reason: str) -> None:
    """What is not HTTP/1, and HTTP/1 without a host, are answers, as early as they are certain."""
    assert read(data) == NoHost(reason)


HOST = b"Host: a.example"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (request(), "the request has no Host field"),
        (request(first=b"GET http://a/ HTTP/1.1"), "the request has no Host field"),
        (request(HOST, HOST), "the request has two Host fields"),
        (request(HOST, b"A: b", b"hOST:"), "the request has two Host fields"),
        (request(HOST, HOST, first=b"GET / HTTP/1.0"), "the request has two Host fields"),
        (request(HOST, b" b"), "a header line is folded"),
        (request(b"\tHost: b", HOST), "a header line is folded"),
        (request(b"Host : a"), "a header line is malformed"),
        (request(b"Host"), "a header line is malformed"),
        (request(HOST, b"A\0: b"), "a header line is malformed"),
        (request(HOST, b"A: \0"), "a header line is malformed"),
        (request(HOST, b"A: b\rHost: c"), "a header line is malformed"),
        (request(HOST, b"A: b\nHost: c"), "a line of the header section ends without CR"),
        (request(HOST)[:-2] + b"\n", "a line of the header section ends without CR"),
        (b"GET / HTTP/1.1\nHost: a\n\n", "the request line is malformed"),
        (request(HOST, first=b"GET  / HTTP/1.1"), "the request line is malformed"),
        (request(HOST, first=b"GET / HTTP/1.1 "), "the request line is malformed"),
        (request(HOST, first=b"GET / x HTTP/1.1"), "the request line is malformed"),
        (request(HOST, first=b"GET / HTTP/1.10"), "the request line is malformed"),
        (request(HOST, first=b"GET /\r HTTP/1.1"), "the request line is malformed"),
        (request(HOST, first=b"GET * HTTP/1.1"), "the request target is malformed"),
        (request(HOST, first=b"GET a.example HTTP/1.1"), "the request target is malformed"),
        (request(HOST, first=b"GET http://a/#b HTTP/1.1"), "the request target is malformed"),
        (request(HOST, first=b"GET http:/// HTTP/1.1"), "the host is malformed"),
        (request(HOST, first=b"GET http://u@b/ HTTP/1.1"), "the host is malformed"),
        (request(HOST, first=b"GET http://a\\b/ HTTP/1.1"), "the host is malformed"),
        (request(HOST, first=b"CONNECT a HTTP/1.1"), "the target of CONNECT has no port"),
        (request(HOST, first=b"CONNECT /a HTTP/1.1"), "the host is malformed"),
        (request(b"Host: a b", first=b"GET http://a/ HTTP/1.1"), "the host is malformed"),
        (request(b"Host: a:65536"), "the port of the host is 65536"),
        (request(b"Host: [1::2::3]"), "the host is not an IPv6 address"),
        *(
            (request(b"Host: " + value), "the host is malformed")
            for value in (
                *(b"a, b", b"a/b", b"u@a", b"a:b", b"a:+1", b"a:1:2", b":80", b".", b".a", b"a..b"),
                *(b"a..", b"2001:db8::1", b"[::1", b"[::1%25eth0]", b"[v1.a]", b"b\xc3\xbccher"),
                *(b"a%2eb", b"a'", b'"a"', b"a:000080", b"a" * 256),
            )
        ),
    ],
)
def test_ambiguous(data: bytes, fault: str) -> None:
    """What two parsers could read as two hosts is the one error."""
    assert read(data) == f"error: {fault}"


def test_the_answer_waits_for_the_end_of_the_header_section() -> None:
    """The last line may be a second Host field."""
    data = request(HOST, b"A: b")
    assert read(data[:-1]) is None
    assert read(data) == HttpHost("a.example")


def padded(size: int) -> bytes:
    """A request of `size` bytes."""
    lines = [HOST, *(b"Cookie: " + b"x" * 90 for _ in range((size - 200) // 100))]
    return request(*lines, b"A:" + b" " * (size - len(request(*lines, b"A:"))))


def test_the_limit() -> None:
    """A header section of `SIZE_LIMIT` bytes is read, and one of a byte more is not waited for."""
    longer = "error: the header section is longer than 16384 bytes"
    assert read(padded(SIZE_LIMIT)) == HttpHost("a.example")
    assert read(padded(SIZE_LIMIT + 1)) == longer
    assert read(b"GET /" + b"x" * SIZE_LIMIT) == longer
    assert read(b"\r\n" * SIZE_LIMIT) == longer


def filled(before: bytes, filler: bytes, after: bytes) -> Callable[[int], bytes]:
    """Makes requests of any size."""
    return lambda size: before + filler * (size - len(before) - len(after)) + after


END = b"b\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "make",
    [
        *(filled(b"GET / HTTP/1.1\r\nA:", filler, END) for filler in (b"x", b" ", b"\t", b":")),
        filled(b"GET / HTTP/1.1\r\nA:", b" ", b"\0" + END),
        filled(b"GET / HTTP/1.1\r\n", b"x", END),
        filled(b"GET / HTTP/1.1\r\n", b" ", END),
        filled(b"GET / HTTP/1.1\r\nHost:", b".", END),
        filled(b"GET / HTTP/1.1\r\nHost:", b"a", b"/" + END),
        filled(b"GET /", b"x", b" HTTP/1.1\r\nA: " + END),
        filled(b"GET http://", b"a", b"# HTTP/1.1\r\nA: " + END),
        filled(b"GET h", b"a", b"# HTTP/1.1\r\nA: " + END),
        filled(b"GET ", b"x", b"\x7f HTTP/1.1\r\nA: " + END),
    ],
)
def test_time_is_proportional(make: Callable[[int], bytes]) -> None:
    """Sixteen times as many bytes never take a hundred times as long, whole or byte by byte."""

    def seconds(size: int, step: int) -> float:
        parts = list(pieces(make(size), range(0, size, step)))
        times = []
        for _ in range(5):
            began = time.thread_time()
            assert outcome(new(), parts, HttpHostError) is not None
            times.append(time.thread_time() - began)
        return min(times)

    for step in (1, SIZE_LIMIT):
        assert seconds(SIZE_LIMIT, step) < 100 * seconds(SIZE_LIMIT // 16, step)


FRAGMENTS = st.sampled_from(
    [
        *(b"GET / HTTP/1.1\r\n", b"GET http://b:1/ HTTP/1.1\r\n", b"GET", b" ", b" HTTP/1.0\r\n"),
        *(b"Host: a\r\n", b"Host:", b"[::1]", b":80", b"\r\n", b"\n", b"\r", b"\0", b"A: b\r\n"),
        PREFACE,
    ]
)


@given(
    st.one_of(st.binary(), st.lists(FRAGMENTS | st.binary(max_size=3)).map(b"".join)),
    cut_places(60),
)
def test_any_input(data: bytes, cuts: list[int]) -> None:
    """Any input has an answer or the one error, and how it is cut changes nothing."""
    found = read(data)
    assert outcome(new(), pieces(data, cuts), HttpHostError) == found
