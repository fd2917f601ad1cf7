"""The client endpoint ``evproxy:``: a program that connects to the servers of a pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from zope.interface import implementer

from evproxy.endpoints import PoolEndpoint
from evproxy.errors import SettingsError
from evproxy.relay.stages import Outlet, PassThrough, Stage
from evproxy.wire.proxy_protocol import ProxyHeaderReader
from tests.support.endpoint_programs import HalfCloseable, Program, Recorder
from tests.support.peers import END, RESET, Listening, turn
from tests.support.services import until

FAULTS = pytest.mark.parametrize("faults", ["", ":faults=slicer,average_size=1000"])


async def connected(keys: str, program: Program | None = None) -> Recorder:
    protocol = await clientFromString(reactor, f"evproxy:{keys}").connect(program or Program())
    assert isinstance(protocol, Recorder)
    return protocol


@pytest.fixture
def server() -> Iterator[Listening]:
    listening = Listening.tcp(reactor)
    yield listening
    listening.close()


def at(*servers: Listening) -> str:
    return "pool=" + ",".join(rf"127.0.0.1\:{each.port}" for each in servers)


@FAULTS
async def test_a_program_talks_with_a_server(server: Listening, faults: str) -> None:
    """Bytes pass both ways, each stream ends alone, and the end is in order."""
    its = await connected(at(server) + faults)
    peer = await server.accept()
    data = bytes(range(256)) * 2000
    await peer.send(data)
    assert await its.read(len(data)) == data
    peer.end()
    await its.until(lambda: its.ends > 0)
    its.transport.write(data[::-1])
    its.transport.loseConnection()
    assert await peer.rest() == (data[::-1], END)
    assert (await its.over()).check(ConnectionDone)


@FAULTS
async def test_an_end_closes_a_protocol_that_knows_no_half_close(
    server: Listening, faults: str
) -> None:
    """As with Twisted's own transports, the end of the server's stream closes the connection."""
    its = await connected(at(server) + faults, Program(Recorder))
    peer = await server.accept()
    await peer.send(b"bye")
    peer.end()
    assert (await its.over()).check(ConnectionDone)
    assert its.received == b"bye"
    assert await peer.rest() == (b"", END)


@FAULTS
async def test_a_reset_is_a_reset(server: Listening, faults: str) -> None:
    """A reset of either side reaches the other one as a reset."""
    its = await connected(at(server) + faults)
    (await server.accept()).reset()
    assert (await its.over()).check(ConnectionLost)
    its = await connected(at(server) + faults)
    peer = await server.accept()
    its.transport.abortConnection()
    assert (await peer.rest())[1] == RESET
    await its.over()


async def test_the_next_server_gets_the_connection(server: Listening) -> None:
    """If a connect is refused, the endpoint tries the next server of the pool."""
    gone = Listening.tcp(reactor)
    servers = at(gone, server)
    gone.close()
    endpoint = clientFromString(reactor, f"evproxy:{servers}:balance=round-robin")
    for _ in range(3):
        its = await endpoint.connect(Program())
        assert its.transport.getPeer().port == server.port
        its.transport.abortConnection()
        await its.over()


async def test_servers_are_balanced() -> None:
    """Connections that last count: the server with the fewest gets the next one."""
    servers = [Listening.tcp(reactor) for _ in range(3)]
    endpoint = clientFromString(reactor, f"evproxy:{at(*servers)}:balance=least-sessions")
    made = [await endpoint.connect(Program()) for _ in range(3)]
    assert {its.transport.getPeer().port for its in made} == {each.port for each in servers}
    freed = made[1].transport.getPeer().port
    made[1].transport.abortConnection()
    await made[1].over()
    made[1] = await endpoint.connect(Program())
    assert made[1].transport.getPeer().port == freed
    for its in made:
        its.transport.abortConnection()
        await its.over()
    for each in servers:
        each.close()


@FAULTS
@pytest.mark.parametrize("version", [1, 2])
async def test_a_server_gets_a_header_first(server: Listening, version: int, faults: str) -> None:
    """The header says that the program connects for itself, and comes before its first byte."""
    its = await connected(f"{at(server)}:send_proxy_protocol={version}{faults}")
    its.transport.write(b"hello")
    its.transport.loseConnection()
    peer = await server.accept()
    received, how = await peer.rest()
    assert how == END
    reader = ProxyHeaderReader()
    header = reader.feed(received)
    assert header is not None
    assert (header.version, header.source) == (version, None)
    assert header.local == (version == 2)
    assert received[reader.size :] == b"hello"
    peer.close()
    await its.over()


async def test_a_fault_resets_at_a_byte(server: Listening) -> None:
    """A fault of the string is injected into what the server sends."""
    its = await connected(at(server) + ":faults=reset,bytes=3")
    peer = await server.accept()
    await peer.send(b"hello")
    assert (await its.over()).check(ConnectionLost)
    assert its.received == b"hel"


async def test_a_connect_that_fails_says_why() -> None:
    """The error has the server and the reason of the last attempt."""
    gone = Listening.tcp(reactor)
    servers, port = at(gone), gone.port
    gone.close()
    with pytest.raises(ConnectError, match=f"127.0.0.1:{port}: .*refused"):
        await connected(servers)


async def test_health_checks(server: Listening) -> None:
    """They begin with the first connect, and end with the endpoint."""
    gone = Listening.tcp(reactor)
    servers = at(gone, server)
    gone.close()
    # The timeout of the test itself is among the timers after this.
    await turn(reactor)
    before = set(reactor.getDelayedCalls())
    text = f"evproxy:{servers}:health_check=tcp,interval=0.05,fall=1:connect_attempts=1"
    endpoint = clientFromString(reactor, text)
    assert isinstance(endpoint, PoolEndpoint)
    pool = endpoint.pool
    assert set(reactor.getDelayedCalls()) == before
    with suppress(ConnectError):
        (await endpoint.connect(Program())).transport.abortConnection()
    await until(reactor, lambda: [each.state for each in pool.status().servers] == ["down", "up"])
    for _ in range(3):
        its = await endpoint.connect(Program())
        assert its.transport.getPeer().port == server.port
        its.transport.abortConnection()
        await its.over()
    del endpoint
    await until(reactor, lambda: set(reactor.getDelayedCalls()) <= before)


async def test_ejection(server: Listening) -> None:
    """A server that refuses is ejected, and gets no further connect."""
    gone = Listening.tcp(reactor)
    servers = at(gone, server)
    gone.close()
    endpoint = clientFromString(reactor, f"evproxy:{servers}:ejection=failures=1,base_time=60")
    assert isinstance(endpoint, PoolEndpoint)
    for _ in range(4):
        its = await endpoint.connect(Program())
        its.transport.abortConnection()
        await its.over()
    first, second = endpoint.pool.status().servers
    assert (first.state, first.connect_failures, second.state) == ("ejected", 1, "up")
    before = len(reactor.getDelayedCalls())
    del endpoint
    await until(reactor, lambda: len(reactor.getDelayedCalls()) < before)


async def test_a_connect_that_is_cancelled(server: Listening) -> None:
    """A Deferred that is cancelled leaves no connection behind."""
    connecting = clientFromString(reactor, f"evproxy:{at(server)}").connect(Program())
    connecting.cancel()
    with pytest.raises(CancelledError):
        await connecting


async def test_a_factory_that_refuses(server: Listening) -> None:
    """A factory that makes no protocol fails the connect, and the server is reset."""

    class Refuses(Program):
        def buildProtocol(self, addr: object) -> HalfCloseable:
            return None  # type: ignore[return-value]

    endpoint = clientFromString(reactor, f"evproxy:{at(server)}")
    assert isinstance(endpoint, PoolEndpoint)
    with pytest.raises(ConnectError, match="makes no protocol"):
        await endpoint.connect(Refuses())
    assert (await (await server.accept()).rest())[1] == RESET
    assert endpoint.pool.load == 0


@FAULTS
async def test_a_factory_is_started_and_stopped(server: Listening, faults: str) -> None:
    """Once for each connection, however it ends."""
    factory, keys = Program(), at(server) + faults
    its = await connected(keys, factory)
    assert factory.started == 1
    (await server.accept()).reset()
    await its.over()
    assert factory.started == 0
    connecting = clientFromString(reactor, f"evproxy:{keys}").connect(factory)
    assert factory.started == 1
    connecting.cancel()
    with suppress(CancelledError):
        await connecting
    assert factory.started == 0
    server.close()
    with pytest.raises(ConnectError):
        await connected(keys, factory)
    assert factory.started == 0


async def test_a_handshake(certificates: Any) -> None:
    """A program that asks for it is told that the handshake with its server is over."""

    @implementer(IHandshakeListener)
    class Shaken(HalfCloseable):
        shaken = 0

        def handshakeCompleted(self) -> None:
            self.shaken += 1

    pem = str(certificates.pem).replace(":", r"\:")
    text = f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1"
    port = await serverFromString(reactor, text).listen(Program())
    try:
        to = rf"ssl\:127.0.0.1\:{port.getHost().port}"
        its = await connected(f"pool={to}", Program(Shaken))
        assert isinstance(its, Shaken)
        assert its.shaken == 1
        its.transport.abortConnection()
        await its.over()
    finally:
        await port.stopListening()


@pytest.mark.parametrize("when", ["made", "started"])
async def test_stages_of_a_connection_that_does_not_begin(server: Listening, when: str) -> None:
    """If a stage raises before the connection relays, the connect fails and the others are over."""

    class Counted(PassThrough):
        over = 0

        def closed(self) -> None:
            self.over += 1

    class Broken(PassThrough):
        def start(self, upload: Outlet, download: Outlet) -> None:
            raise ZeroDivisionError

    def second(status: object) -> list[Stage]:
        return [Broken()] if when == "started" else [][1]

    counted = Counted()
    endpoint = clientFromString(reactor, f"evproxy:{at(server)}")
    assert isinstance(endpoint, PoolEndpoint)
    endpoint.pool.stages = (lambda _: [counted], second)
    with pytest.raises((ZeroDivisionError, IndexError)):
        await endpoint.connect(Program())
    assert (await (await server.accept()).rest())[1] == RESET
    await until(reactor, lambda: counted.over == 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("evproxy:", "pool: expected at least one server"),
        ("evproxy:pool=", "pool: expected at least one server"),
        ("evproxy:pool=a:80", 'expected KEY=VALUE, got "80"; a colon inside a value needs'),
        (r"evproxy:pool=a\:x", "'a:x' is not an upstream server"),
        (r"evproxy:pool=a\:1:balanse=x", 'unknown key "balanse", did you mean "balance"?'),
        (r"evproxy:pool=a\:1:balance=least", "balance: expected one of"),
        (r"evproxy:pool=a\:1:balance=source-hash", "balance: source-hash needs the address"),
        (r"evproxy:pool=a\:1:faults=latency,latency=1,peer=10.0.0.0/8", "faults: latency: peer is"),
        (r"evproxy:pool=a\:1:faults=latency,latency=1,route=x", "faults: latency: route is of a"),
        (r"evproxy:pool=a\:1:max_sessions=1", 'unknown key "max_sessions"'),
        (r"evproxy:pool=a\:1,a\:1", "a:1"),
        (r"evproxy:pool=a\:1:health_check=ping", "health_check.kind: expected one of"),
        (r"evproxy:pool=a\:1:health_check=tcp,path=/", "health_check.path: "),
        (r"evproxy:pool=a\:1:health_check=tcp,interval=x", "health_check.interval: expected"),
        (r"evproxy:pool=a\:1:health_check=http,expect_status=200 9", "health_check.expect_status"),
        (r"evproxy:pool=a\:1:health_check=tcp,rice=1", "health_check.rice: unknown key"),
        (r"evproxy:pool=a\:1:ejection=base_time=9,max_time=1", "ejection.base_time"),
        (r"evproxy:pool=a\:1:ejection=3", 'ejection: expected KEY=VALUE, got "3"'),
        (r"evproxy:pool=a\:1:on_down=reset", "on_down: has no effect without health_check"),
        (r"evproxy:pool=a\:1:all_down=try", "all_down: has no effect without health_check"),
    ],
)
def test_a_wrong_string_is_one_clear_error(text: str, problem: str) -> None:
    """The error is one line, and names the key."""
    with pytest.raises(SettingsError) as caught:
        clientFromString(reactor, text)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
