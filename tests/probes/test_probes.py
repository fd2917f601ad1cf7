"""Active health checks over loopback sockets: what is found, when, and that nothing stays."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, NotConnectingError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.mail.smtp import ESMTP
from twisted.python.failure import Failure

from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.settings import HealthCheck
from evproxy.upstream.address import client_endpoint
from evproxy.upstream.probes.attempt import RECEIVE_LIMIT, Attempt
from evproxy.upstream.probes.header import check_header
from evproxy.upstream.probes.probe import EndpointProbe, probe_for
from tests.support.peers import turn
from tests.support.real_servers import free_port
from tests.support.visited_server import Listen, Visits, checked, listening

NEVER = 1000.0


@pytest.fixture
def listen(reactor: Any) -> Iterator[Listen]:
    with listening(reactor) as listen:
        yield listen


async def test_tcp(reactor: Any, listen: Listen) -> None:
    """A server that takes the connection is well, and is reset so that it waits for nothing."""
    visits = Visits()
    assert await checked(reactor, listen(visits), HealthCheck(kind="tcp")) is None
    ended = await visits.ended()
    assert not ended.check(ConnectionDone)


@pytest.mark.parametrize(
    "check",
    [
        HealthCheck(kind="tcp"),
        HealthCheck(kind="tls"),
        HealthCheck(kind="http"),
        HealthCheck(kind="redis"),
    ],
    ids=lambda check: check.kind,
)
async def test_refused(reactor: Any, check: HealthCheck) -> None:
    """Where nobody listens, the reason says so."""
    assert await checked(reactor, f"127.0.0.1:{free_port()}", check) == "connection refused"


@pytest.mark.parametrize("kind", ["tls", "http", "redis", "smtp", "postgresql"])
async def test_never_answers(reactor: Any, listen: Listen, kind: str) -> None:
    """A server that accepts and never answers is found after the timeout."""
    visits = Visits()
    before = reactor.seconds()
    reason = await checked(reactor, listen(visits), HealthCheck(kind=kind, timeout=0.2))
    assert reason == "timed out after 0.2 s"
    assert 0.2 <= reactor.seconds() - before < 1.2
    await visits.ended()


async def test_stalls_in_the_middle(reactor: Any, listen: Listen) -> None:
    """A server that stops in the middle of an answer is found, and the reason shows the part."""
    address = listen(Visits(greeting=b"220-mx"))
    reason = await checked(reactor, address, HealthCheck(kind="smtp", timeout=0.2))
    assert reason == "timed out after 0.2 s: expected reply 220, got b'220-mx'"


async def test_connect_never_ends(reactor: Any) -> None:
    """The timeout covers the connect, and the connect is given up."""
    given_up: list[bool] = []

    class Endless:
        def connect(self, factory: object) -> Deferred[Any]:
            return Deferred(lambda deferred: given_up.append(True))

    def endpoint_for(address: str) -> IStreamClientEndpoint:
        return Endless()  # type: ignore[return-value]

    probe = probe_for(reactor, HealthCheck(timeout=0.05), endpoint_for)
    result: Deferred[Any] = Deferred()
    probe.check(UpstreamServer("192.0.2.1:80"), result.callback)
    assert await result == "timed out after 0.05 s"
    assert given_up == [True]


async def test_endpoint_that_cannot_be_cancelled(reactor: Any, logged_errors: Any) -> None:
    """A check ends in time, and only once, even if its connect cannot be given up."""

    class Stubborn:
        def connect(self, factory: object) -> Deferred[Any]:
            return Deferred(refuse)

    def refuse(connecting: Deferred[Any]) -> None:
        raise NotConnectingError

    def endpoint_for(address: str) -> IStreamClientEndpoint:
        return Stubborn()  # type: ignore[return-value]

    probe = probe_for(reactor, HealthCheck(timeout=0.05), endpoint_for)
    result: Deferred[Any] = Deferred()
    cancel = probe.check(UpstreamServer("192.0.2.1:80"), result.callback)
    assert await result == "timed out after 0.05 s"
    cancel()
    assert len(logged_errors.flush(NotConnectingError)) == 2


async def test_protocol_that_breaks(reactor: Any, listen: Listen, logged_errors: Any) -> None:
    """A check ends even if what speaks for it breaks when it is connected, and at the end."""

    class Broken(Protocol):
        def connectionMade(self) -> None:
            raise ZeroDivisionError("broken at once")

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            raise ZeroDivisionError("broken at the end")

    def ask(attempt: Attempt, endpoint: IStreamClientEndpoint, server: object) -> Deferred[Any]:
        factory = Factory.forProtocol(Broken)
        factory.noisy = False
        return endpoint.connect(factory)

    probe = EndpointProbe(reactor, ask, partial(client_endpoint, reactor), NEVER)
    result: Deferred[Any] = Deferred()
    cancel = probe.check(UpstreamServer(listen(Visits())), result.callback)
    assert await result == "broken at once"
    await turn(reactor)
    cancel()
    # Two of the reactor's, which have no failure that could be told apart, and the cancel's.
    assert len(logged_errors.flush()) == 3


@pytest.mark.parametrize("kind", ["tcp", "tls", "http", "send-expect"])
async def test_cancel_while_connecting(reactor: Any, listen: Listen, kind: str) -> None:
    """Cancelled before it is connected, a check tells nothing."""
    told: list[object] = []
    check = HealthCheck(kind=kind, expect="x", timeout=NEVER)
    probe = probe_for(reactor, check, partial(client_endpoint, reactor))
    cancel = probe.check(UpstreamServer(listen(Visits())), told.append)
    cancel()
    cancel()
    assert told == []


@pytest.mark.parametrize("kind", ["tls", "http", "redis", "smtp"])
async def test_cancel_while_asking(reactor: Any, listen: Listen, kind: str) -> None:
    """Cancelled in the middle, a check closes its connection and tells nothing."""
    told: list[object] = []
    visits = Visits()
    probe = probe_for(
        reactor, HealthCheck(kind=kind, timeout=NEVER), partial(client_endpoint, reactor)
    )
    cancel = probe.check(UpstreamServer(listen(visits)), told.append)
    await visits.connected()
    cancel()
    await visits.ended()
    assert told == []


async def test_cancel_after_the_end(reactor: Any, listen: Listen) -> None:
    """A cancel that comes too late does nothing."""
    result: Deferred[Any] = Deferred()
    probe = probe_for(reactor, HealthCheck(), partial(client_endpoint, reactor))
    cancel = probe.check(UpstreamServer(listen(Visits())), result.callback)
    assert await result is None
    cancel()


async def test_bad_address(reactor: Any) -> None:
    """An address that is none is a reason, and not an exception."""
    reason = await checked(reactor, "nonsense:nowhere", HealthCheck())
    assert reason is not None
    assert "is not an upstream server" in reason


async def test_other_port(reactor: Any, listen: Listen) -> None:
    """A check can go to another port; where there is none to replace, the reason says so."""
    visits = Visits()
    port = int(listen(visits).rpartition(":")[2])
    assert await checked(reactor, "127.0.0.1:1", HealthCheck(port=port)) is None
    reason = await checked(reactor, "unix:/run/nobody", HealthCheck(port=port))
    assert reason == f"cannot check port {port}: unix:/run/nobody is not a host and a port"


async def test_send_expect(reactor: Any, listen: Listen) -> None:
    """What is sent is what the escapes stand for, and the end is in order."""
    visits = Visits(answer=b"status: OK\n")
    check = HealthCheck(kind="send-expect", send=r"STATUS\r\n", expect_pattern=r"status: (OK|UP)")
    assert await checked(reactor, listen(visits), check) is None
    assert (await visits.ended()).check(ConnectionDone)
    assert visits.received == b"STATUS\r\n"


async def test_send_alone(reactor: Any, listen: Listen) -> None:
    """With nothing to expect, no answer is waited for, and what is to be sent is sent."""
    visits = Visits()
    check = HealthCheck(kind="send-expect", send="hello", timeout=NEVER)
    assert await checked(reactor, listen(visits), check) is None
    assert (await visits.ended()).check(ConnectionDone)
    assert visits.received == b"hello"


class Dripping(Protocol):
    """Sends its answer one byte at a time, each in a segment and a reactor turn of its own."""

    answer = b""

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        self.drip(0)

    def drip(self, place: int) -> None:
        from twisted.internet import reactor

        if self.connected and place < len(self.answer):
            self.transport.write(self.answer[place : place + 1])  # type: ignore[union-attr]
            reactor.callLater(0.001, self.drip, place + 1)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (HealthCheck(kind="send-expect", expect="ready"), b"server is ready"),
        (HealthCheck(kind="send-expect", expect_pattern=r"re.dy\n$"), b"server is ready\n"),
        (HealthCheck(kind="redis"), b"+PONG\r\n"),
        (HealthCheck(kind="http", expect_text="so"), b"HTTP/1.1 200 OK\r\n\r\nit is so"),
    ],
)
async def test_byte_by_byte(
    reactor: Any, listen: Listen, check: HealthCheck, answer: bytes
) -> None:
    """An answer that comes one byte at a time is as good as a whole one."""
    protocol = type("Answering", (Dripping,), {"answer": answer})
    factory = Factory.forProtocol(protocol)
    factory.noisy = False
    assert await checked(reactor, listen(factory), check) is None


async def test_closed_by_the_server(reactor: Any, listen: Listen) -> None:
    """A server that closes instead of answering is not well."""
    visits = Visits(answer=b"-ERR", then_close=True)
    reason = await checked(reactor, listen(visits), HealthCheck(kind="redis"))
    assert reason == "closed by the server: expected b'+PONG', got b'-ERR'"


async def test_floods(reactor: Any, listen: Listen) -> None:
    """A server that sends without end is cut off."""
    visits = Visits(greeting=b"HTTP/1.1 200 OK\r\n" + b"X-Filler: yes\r\n" * 100_000)
    reason = await checked(reactor, listen(visits), HealthCheck(kind="http", timeout=30.0))
    assert reason == f"sent more than {RECEIVE_LIMIT} bytes"
    await visits.ended()


async def test_smtp(reactor: Any, listen: Listen) -> None:
    """An SMTP server sees a whole short visit."""
    factory = Factory.forProtocol(ESMTP)
    factory.noisy = False
    assert await checked(reactor, listen(factory), HealthCheck(kind="smtp")) is None


@pytest.mark.parametrize(
    ("check", "key"),
    [
        ({"kind": "ping"}, "kind"),
        ({"timeout": 0}, "timeout"),
        ({"kind": "http", "path": "x"}, "path"),
        ({"kind": "http", "path": "/a b"}, "path"),
        ({"kind": "http", "method": "GET /"}, "method"),
        ({"kind": "http", "host": "a\r\nb"}, "host"),
        ({"kind": "tls", "server_name": "a..b"}, "server_name"),
        ({"kind": "tls", "server_name": "a" * 64}, "server_name"),
        ({"kind": "tls", "ca": "/nowhere"}, "ca"),
        ({"kind": "tls", "ca": "/nowhere", "verify": True}, "ca"),
        ({"kind": "send-expect", "expect": "a", "expect_pattern": "b"}, "expect_pattern"),
    ],
)
def test_refused_settings(reactor: Any, check: dict[str, Any], key: str) -> None:
    """What cannot be checked is refused before the first check, with the key."""
    with pytest.raises(SettingsError, match=rf"^health_check\.{key}: "):
        probe_for(reactor, HealthCheck(**check), partial(client_endpoint, reactor))


@pytest.mark.parametrize(
    ("version", "header"),
    [
        (1, b"PROXY UNKNOWN\r\n"),
        (2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ],
)
@pytest.mark.parametrize("of_the_server", [False, True])
async def test_a_proxy_header(
    reactor: Any, listen: Listen, version: int, header: bytes, of_the_server: bool
) -> None:
    """A check of a server that gets PROXY headers sends one for itself before its question."""
    visits = Visits(answer=b"+PONG\r\n")
    check = HealthCheck(kind="redis")
    own, of_pool = (version, 3 - version) if of_the_server else (None, version)
    server = UpstreamServer(listen(visits), send_proxy_protocol=own)
    probe = probe_for(reactor, check, partial(client_endpoint, reactor), of_pool)
    done: Deferred[Any] = Deferred()
    probe.check(server, done.callback)
    assert await done is None
    assert visits.received.startswith(header)
    assert visits.received != header


@pytest.mark.parametrize("endpoint", ["tls:example.org:443", "ssl:example.org:443"])
def test_a_proxy_header_inside_tls(endpoint: str) -> None:
    """A server that would get its header inside TLS is refused; with no header it is fine."""
    server = UpstreamServer(endpoint)
    check_header(server, 0)
    check_header(UpstreamServer(endpoint, send_proxy_protocol=0), 2)
    with pytest.raises(SettingsError, match=r"^send_proxy_protocol: .* inside TLS"):
        check_header(server, 2)
