"""The server endpoint ``evproxy:``: a program behind a listener of evproxy."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.endpoints import server_endpoint
from evproxy.errors import SettingsError
from tests.recording.test_recordings import read, shown
from tests.support.endpoint_programs import HalfCloseable, Program, Recorder, listening
from tests.support.peers import END, RESET, Peer, connect, turn
from tests.support.services import until


def client_of(port: Any) -> Peer:
    return connect(reactor, ("127.0.0.1", port.getHost().port))


@pytest.mark.parametrize("faults", ["", ":faults=slicer,average_size=1000"])
async def test_a_program_talks_with_its_clients(faults: str) -> None:
    """Bytes pass both ways, and each end of a stream arrives behind all of its bytes."""
    async with listening(reactor, faults, program := Program()) as port:
        client = client_of(port)
        data = bytes(range(256)) * 2000
        await client.send(data)
        client.end()
        its = await program.client()
        assert await its.read(len(data)) == data
        await its.until(lambda: its.ends > 0)
        its.transport.write(data[::-1])
        its.transport.loseConnection()
        assert await client.rest() == (data[::-1], END)
        assert (await its.over()).check(ConnectionDone)
        client.close()


async def test_a_program_knows_the_addresses() -> None:
    """A program sees the addresses of the real client and of its own port."""
    async with listening(reactor, "", program := Program()) as port:
        client = client_of(port)
        its = await program.client()
        peer, host = its.transport.getPeer(), its.transport.getHost()
        assert (peer.host, peer.port) == client.socket.getsockname()
        assert (host.host, host.port) == client.socket.getpeername()
        client.close()


async def test_a_program_learns_the_client_of_a_proxy() -> None:
    """A PROXY header gives the program its client's address; the header is none of its bytes."""
    keys = ":accept_proxy_protocol_from=127.0.0.0/8"
    async with listening(reactor, keys, program := Program()) as port:
        client = client_of(port)
        for byte in b"PROXY TCP6 2001:db8::1 2001:db8::2 5555 443\r\nhello":
            await client.send(bytes([byte]))
            await turn(reactor)
        its = await program.client()
        assert await its.read(5) == b"hello"
        assert (its.transport.getPeer().host, its.transport.getPeer().port) == ("2001:db8::1", 5555)
        client.close()


async def test_who_must_send_a_header_and_does_not_is_reset() -> None:
    """The program notices nothing of a proxy that sends something else."""
    keys = ":accept_proxy_protocol_from=127.0.0.0/8"
    async with listening(reactor, keys, program := Program()) as port:
        client = client_of(port)
        await client.send(b"GET / HTTP/1.1\r\n")
        assert await client.rest() == (b"", RESET)
        assert not program.protocols
        client.close()


@pytest.mark.parametrize("keys", [":deny=10.0.0.0/8,127.0.0.1", ":allow=10.0.0.0/8"])
async def test_clients_of_other_networks_are_refused(keys: str) -> None:
    """The program notices nothing of a client that may not connect."""
    async with listening(reactor, keys, program := Program()) as port:
        client = client_of(port)
        assert await client.rest() == (b"", RESET)
        assert not program.protocols
        client.close()


async def test_sessions_are_limited() -> None:
    """A client beyond the limit is reset, and once a session has ended another client gets in."""
    async with listening(reactor, ":max_sessions=1", program := Program()) as port:
        first = client_of(port)
        its = await program.client()
        second = client_of(port)
        assert (await second.rest())[1] == RESET
        first.reset()
        assert (await its.over()).check(ConnectionLost)
        third = client_of(port)
        await third.send(b"x")
        assert await (await program.client(1)).read(1) == b"x"
        third.close()
        second.close()


async def test_a_reset_is_a_reset_behind_what_came_before() -> None:
    """What the client sent before its reset arrives, and the loss is no end in order."""
    async with listening(reactor, "", program := Program()) as port:
        client = client_of(port)
        await client.send(b"hello")
        its = await program.client()
        await its.read(5)
        client.reset()
        assert (await its.over()).check(ConnectionLost)
        assert its.ends == 0


async def test_a_program_resets_its_client() -> None:
    """``abortConnection`` of the program resets the client."""
    async with listening(reactor, "", program := Program()) as port:
        client = client_of(port)
        its = await program.client()
        its.transport.abortConnection()
        assert (await client.rest())[1] == RESET
        client.close()


async def test_a_fault_resets_at_a_byte() -> None:
    """A fault of the string is injected into what the program sends."""
    async with listening(reactor, ":faults=reset,bytes=3", program := Program()) as port:
        client = client_of(port)
        its = await program.client()
        its.transport.write(b"hello")
        assert await client.rest() == (b"hel", RESET)
        client.close()


async def test_a_slow_client_makes_the_program_wait() -> None:
    """A producer of the program is paused while the client reads nothing."""

    class Producer:
        def __init__(self, its: Recorder) -> None:
            self.its, self.sent, self.paused = its, 0, False

        def resumeProducing(self) -> None:
            self.paused = False
            reactor.callLater(0, self.produce)

        def produce(self) -> None:
            if not self.paused and self.its.lost is None:
                self.its.transport.write(bytes(65536))
                self.sent += 65536
                reactor.callLater(0, self.produce)

        def pauseProducing(self) -> None:
            self.paused = True

        def stopProducing(self) -> None:
            self.paused = True

    async with listening(reactor, "", program := Program()) as port:
        client = client_of(port)
        its = await program.client()
        producer = Producer(its)
        its.transport.registerProducer(producer, True)
        producer.produce()
        while not producer.paused:
            await turn(reactor)
        before = producer.sent
        await client.receive(before)
        while producer.sent == before:
            await client.some()
        client.reset()
        await its.over()


@pytest.mark.parametrize("protocol", [Recorder, HalfCloseable])
async def test_a_program_that_refuses(protocol: type[Recorder]) -> None:
    """A factory that makes no protocol refuses the client."""

    class Refuses(Program):
        def buildProtocol(self, addr: Any) -> Any:
            return None

    async with listening(reactor, "", Refuses(protocol)) as port:
        client = client_of(port)
        assert await client.rest() == (b"", RESET)
        client.close()


async def test_sessions_go_on_after_the_port_is_closed() -> None:
    """As with Twisted's ports, the factory stops with its port and connections go on."""
    program = Program()
    async with listening(reactor, "", program) as port:
        assert program.started == 1
        client = client_of(port)
        its = await program.client()
        await port.stopListening()
        assert program.started == 0
        with socket.socket() as late:
            assert late.connect_ex(client.socket.getpeername()) == errno.ECONNREFUSED
        its.transport.write(b"still here")
        assert await client.receive(10) == b"still here"
        client.close()
        await its.until(lambda: its.ends > 0)


async def test_a_description_is_quoted_by_twisted() -> None:
    """`quoteStringArgument` quotes whole descriptions, with their own keys and backslashes."""
    inner = quoteStringArgument(r"tcp:0:interface=\:\:1" if socket.has_ipv6 else "tcp:0")
    async with listening(reactor, ":max_sessions=3", program := Program(), inner) as port:
        client = connect(reactor, (port.getHost().host, port.getHost().port))
        await client.send(b"x")
        assert await (await program.client()).read(1) == b"x"
        client.close()


@implementer(IStreamServerEndpoint)
class Late:
    """An endpoint that listens or fails when the test says so."""

    def __init__(self) -> None:
        self.listening: Deferred[Any] = Deferred()

    def listen(self, factory: object) -> Deferred[Any]:
        return self.listening


async def test_an_endpoint_that_fails_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error reaches the caller of `listen`, the factory is stopped, and nothing is logged."""
    late = Late()
    monkeypatch.setattr("evproxy.service.listener.serverFromString", lambda *given: late)
    endpoint = server_endpoint(reactor, "late:")
    program = Program()
    outcome: list[object] = []
    endpoint.listen(program).addBoth(outcome.append)
    assert (outcome, program.started) == ([], 1)
    late.listening.errback(CannotListenError("", 80, OSError(errno.EACCES, "Permission denied")))
    (failure,) = outcome
    assert isinstance(failure, Failure)
    assert failure.check(CannotListenError)
    assert program.started == 0


async def test_a_recording(tmp_path: Path) -> None:
    """A string may have its sessions recorded; the header of a proxy is in no recording."""
    where = quoteStringArgument(str(tmp_path))
    keys = f":accept_proxy_protocol_from=127.0.0.0/8:record={where}:faults=slicer,average_size=2"
    async with listening(reactor, keys, program := Program()) as port:
        client = client_of(port)
        await client.send(b"PROXY TCP4 10.1.2.3 10.3.2.1 5555 443\r\nhello")
        assert await (await program.client()).read(5) == b"hello"
        client.reset()
        await (await program.client()).over()
    # A thread writes the recording.
    await until(reactor, lambda: any(b"closed" in each.read_bytes() for each in tmp_path.iterdir()))
    (file,) = tmp_path.iterdir()
    session, events = read(file)
    assert session.peer == "10.1.2.3:5555"
    assert shown(events)[:2] == [("data", "downstream", "hello"), ("reset", "downstream", "")]


@pytest.mark.every_reactor
@pytest.mark.parametrize("format", ["json", "pcapng"])
async def test_strings_on_both_sides_of_a_unix_socket(tmp_path: Path, format: str) -> None:
    """A header, faults and a recording work where no side has an IP address."""
    path = tmp_path / "socket"
    (tmp_path / "recordings").mkdir()
    keys = (
        f":accept_proxy_protocol_from=unix:record={tmp_path}/recordings:record_format={format}"
        ":faults=slicer,average_size=3"
    )
    async with listening(reactor, keys, program := Program(), rf"unix\:{path}") as port:
        assert port.getHost().name == bytes(path)
        text = rf"evproxy:pool=unix\:{path}:send_proxy_protocol=2:faults=slicer,average_size=2"
        client = Program()
        its = await clientFromString(reactor, text).connect(client)
        assert isinstance(its, Recorder)
        served = await program.client()
        its.transport.write(b"question")
        assert await served.read(8) == b"question"
        served.transport.write(b"answer")
        assert await its.read(6) == b"answer"
        its.transport.loseConnection()
        await served.until(lambda: served.ends > 0)
        served.transport.loseConnection()
        await its.over()
        await served.over()
    found = tmp_path / "recordings"
    # Such peers get these addresses in packets.
    mark = b"closed" if format == "json" else bytes([192, 0, 2, 1, 192, 0, 2, 2])
    await until(reactor, lambda: any(mark in each.read_bytes() for each in found.iterdir()))
    (file,) = found.iterdir()
    if format == "json":
        assert shown(read(file)[1])[:2] == [
            ("data", "downstream", "question"),
            ("data", "upstream", "answer"),
        ]


async def test_a_port_that_is_taken() -> None:
    """Listening fails as Twisted's own endpoints do."""
    async with listening(reactor, "", Program()) as port:
        taken = rf"evproxy:tcp\:{port.getHost().port}\:interface=127.0.0.1"
        with pytest.raises(CannotListenError):
            await serverFromString(reactor, taken).listen(Factory())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("evproxy:", "expected one server endpoint description with backslashes"),
        ("evproxy:tcp:8080", 'such as evproxy:tcp\\:8080, got "tcp:8080"'),
        (r"evproxy:tcp\:x", "cannot be listened on"),
        (
            r"evproxy:tcp\:0:max_session=3",
            'unknown key "max_session", did you mean "max_sessions"?',
        ),
        (r"evproxy:tcp\:0:max_sessions=many", "max_sessions: expected a whole number"),
        (r"evproxy:tcp\:0:deny=nobody", "deny[0]: expected an IP address or a network"),
        (r"evproxy:tcp\:0:idle_timeout=-1", "idle_timeout: expected a number of seconds"),
        (r"evproxy:tcp\:0:faults=latence", 'did you mean "latency"?'),
        (r"evproxy:tcp\:0:faults=latency,slow", 'faults: expected KEY=VALUE, got "slow"'),
        (r"evproxy:tcp\:0:faults=latency,latency=x", "faults[0].latency: expected a number"),
        (r"evproxy:tcp\:0:faults=reset,latency=1", "faults[0].latency"),
        (r"evproxy:tcp\:0:faults=reset;reset", "faults[1].name"),
    ],
)
def test_a_wrong_string_is_one_clear_error(text: str, problem: str) -> None:
    """The error is one line, and names the key."""
    with pytest.raises(SettingsError) as caught:
        serverFromString(reactor, text)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
