"""The ``http`` check over loopback sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import capturedLogs
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from evproxy.settings import BODY_LIMIT, HealthCheck
from evproxy.upstream.address import host_header
from tests.support.visited_server import Listen, Visits, checked, listening


@pytest.fixture
def listen(reactor: Any) -> Iterator[Listen]:
    with listening(reactor) as listen:
        yield listen


class Page(Resource):
    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Request] = []

    def render(self, request: Request) -> bytes:
        self.seen.append(request)
        match request.path:
            case b"/bad":
                request.setResponseCode(503)
            case b"/moved":
                request.redirect(b"/elsewhere")
            case b"/long":
                return b"x" * BODY_LIMIT + b"all is well"
        return b"all is well"


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (HealthCheck(kind="http"), None),
        (HealthCheck(kind="http", method="HEAD"), None),
        (HealthCheck(kind="http", path="/bad"), "status 503, expected 200"),
        (HealthCheck(kind="http", path="/bad", expect_status=(200, 503)), None),
        (HealthCheck(kind="http", path="/moved"), "status 302, expected 200"),
        (HealthCheck(kind="http", path="/moved", expect_status=()), None),
        (
            HealthCheck(kind="http", path="/bad", expect_status=()),
            "status 503, expected 200 to 399",
        ),
        (HealthCheck(kind="http", expect_text="is well"), None),
        (
            HealthCheck(kind="http", expect_text="is bad"),
            "the body does not contain 'is bad'",
        ),
        (
            HealthCheck(kind="http", path="/long", expect_text="well"),
            f"the body does not contain 'well' in the first {BODY_LIMIT} bytes",
        ),
    ],
)
async def test_http(reactor: Any, listen: Listen, check: HealthCheck, reason: str | None) -> None:
    """Status and text decide; a redirect is an answer like any other."""
    assert await checked(reactor, listen(Site(Page())), check) == reason


async def test_http_request(reactor: Any, listen: Listen) -> None:
    """The request is the one that was asked for, on a connection of its own."""
    page = Page()
    address = listen(Site(page))
    check = HealthCheck(kind="http", method="OPTIONS", path="/a?b=c", host="web.internal")
    assert await checked(reactor, address, check) is None
    assert await checked(reactor, address, HealthCheck(kind="http")) is None
    first, second = page.seen
    assert (first.method, first.uri) == (b"OPTIONS", b"/a?b=c")
    assert first.getHeader("host") == "web.internal"
    assert first.getHeader("connection") == "close"
    assert second.getHeader("host") == address


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "the body does not contain 'so'"),
        (b"HTTP/1.1 200 OK\r\n", "closed by the server before the end of the answer"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/one 200 OK\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n continued\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "a line of the answer is too long"),
        (b"HTTP/1.1 200 " + b"x" * 20_000, "a line of the answer is too long"),
    ],
)
async def test_http_bad_answer(reactor: Any, listen: Listen, answer: bytes, reason: str) -> None:
    """What is no whole HTTP answer is a reason."""
    visits = Visits(answer=answer, then_close=True)
    check = HealthCheck(kind="http", expect_text="so")
    assert await checked(reactor, listen(visits), check) == reason


@pytest.mark.parametrize(
    ("endpoint", "header"),
    [
        ("[fe80::1%eth0]:80", "[fe80::1]:80"),
        ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("web.test:80", "web.test:80"),
    ],
)
def test_a_host_header_has_no_zone(endpoint: str, header: str) -> None:
    """The zone of an IPv6 address is this machine's own business."""
    assert host_header(endpoint) == header


async def test_http_logs_nothing(reactor: Any, listen: Listen) -> None:
    """A check is no line in the log, and neither are its start and its end."""
    address = listen(Visits(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    with capturedLogs() as events:
        assert await checked(reactor, address, HealthCheck(kind="http")) is None
    assert events == []
