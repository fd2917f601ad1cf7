"""The tcplog format beside HAProxy itself: the same sessions, line by line, and read by halog."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from evproxy import AccessLogSettings, ListenerSettings, PoolSettings, ProxyService, Settings
from evproxy.model import UpstreamServer
from evproxy.settings import Timeouts
from tests.support.peers import Listening, Peer, converse, turn
from tests.support.programs import said
from tests.support.real_servers import RealServers, free_port

pytestmark = [pytest.mark.peers("haproxy", "halog"), pytest.mark.deadline(60)]

IDLE = 0.3
QUEUE = 0.1

HAPROXY = """
global
    log stdout format raw local0
defaults
    mode tcp
    log global
    option tcplog
    retries 0
    timeout connect 5s
    timeout queue {queue:.0f}ms
    timeout client {idle:.0f}ms
    timeout server {idle:.0f}ms
frontend web
    bind 127.0.0.1:{port}
    bind [::1]:{port}
    bind {path}
    default_backend default
backend default
    server {upstream} {upstream} maxconn 1
"""


class Program:
    """
    One of the two: where it listens, and its log.

    :param places: an IPv4, an IPv6 and a UNIX address.
    """

    def __init__(self, places: list[Any], log: Path) -> None:
        self.places = places
        self._log = log
        self.before = 0

    def lines(self) -> list[str]:
        """The lines of sessions."""
        return [line for line in self._log.read_text().splitlines() if "] web" in line]

    def new_line(self) -> str:
        """The only line since the last call; empty if there is none yet."""
        lines = self.lines()[self.before :]
        assert len(lines) < 2
        self.before += len(lines)
        return lines[0] if lines else ""


class Both:
    """HAProxy and evproxy in front of the same server."""

    def __init__(self, reactor: Any, directory: Path) -> None:
        self.reactor = reactor
        self.upstream = Listening.tcp(reactor)
        self._directory = directory
        self.real_servers = RealServers()
        self._peers: list[Peer] = []
        self.haproxy: Program
        self.evproxy: Program
        self._service: ProxyService

    async def start(self) -> None:
        """Start both."""
        server = f"127.0.0.1:{self.upstream.port}"
        port, directory = free_port(), self.real_servers.directory()
        path = str(directory / "haproxy")
        (directory / "haproxy.cfg").write_text(
            HAPROXY.format(
                port=port, path=path, upstream=server, idle=IDLE * 1000, queue=QUEUE * 1000
            )
        )
        haproxy = self.real_servers.add(["haproxy", "-db", "-f", "haproxy.cfg"], directory)
        await haproxy.started(self.reactor, port)
        places: list[Any] = [("127.0.0.1", port), ("::1", port), path]
        self.haproxy = Program(places, directory / "log")
        # The look at the port was a session, too.
        (await self.upstream.accept()).close()
        await self._next_line(self.haproxy)
        log, path = self._directory / "access.log", str(directory / "evproxy")
        listen = ["tcp:0:interface=127.0.0.1", r"tcp:0:interface=\:\:1", f"unix:{path}"]
        self._service = ProxyService(
            self.reactor,
            settings=Settings(
                listeners=tuple(
                    ListenerSettings(name=f"web{place}", listen=each, pool="default")
                    for place, each in enumerate(listen)
                ),
                pools=(
                    PoolSettings(
                        upstreams=(UpstreamServer(server, max_sessions=1),), queue_timeout=QUEUE
                    ),
                ),
                timeouts=Timeouts(idle=IDLE),
                access_log=AccessLogSettings(path=str(log), format="tcplog"),
            ),
        )
        self._service.startService()
        four, six, _ = self._service.addresses
        places = [("127.0.0.1", four.port), ("::1", six.port), path]  # type: ignore[union-attr]
        self.evproxy = Program(places, log)

    def client(self, address: Any) -> Peer:
        """A client at `address`."""
        unix = isinstance(address, str)
        family = socket.AF_INET6 if address[0] == "::1" else socket.AF_INET
        sock = socket.socket(socket.AF_UNIX if unix else family)
        sock.connect(address)
        self._peers.append(Peer(self.reactor, sock))
        return self._peers[-1]

    async def session(self, address: Any) -> tuple[Peer, Peer]:
        """A client at `address` and its server; a byte has gone each way."""
        client = self.client(address)
        server = await self.upstream.accept()
        self._peers.append(server)
        await converse(client, server)
        return client, server

    async def lines_of(self, what: Callable[[Both, Any], Awaitable[None]], place: int) -> list[str]:
        """Let `what` happen through each of the two, and return their lines."""
        found = []
        for program in (self.haproxy, self.evproxy):
            await what(self, program.places[place])
            found.append(await self._next_line(program))
        return found

    async def _next_line(self, program: Program) -> str:
        while not (line := program.new_line()):
            await turn(self.reactor)
        return line

    async def close(self) -> None:
        for peer in self._peers:
            peer.close()
        self.upstream.close()
        if hasattr(self, "_service"):
            await self._service.drain(0)
        self.real_servers.end()


@pytest.fixture
def both(reactor: Any, tmp_path: Path) -> Iterator[Both]:
    """HAProxy and evproxy, to be started; they end with the test."""
    both = Both(reactor, tmp_path)
    yield both
    pytest_twisted.blockon(Deferred.fromCoroutine(both.close()).addTimeout(20, reactor))


def comparable(line: str) -> str:
    """`line` without ports, times, the number of the listener, and what HAProxy takes for Tw."""
    line = re.sub(
        r"^(\S+):\d+ \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d\.\d{3}\] ", r"\1:PORT [TIME] ", line
    )
    line = re.sub(r" web\d ", " web ", line)
    head, timers, rest = re.fullmatch(r"(.* )(\S+/\S+/\S+)( \+?\d+ .*)", line).groups()  # type: ignore[union-attr]
    shown = ["-1" if timer == "-1" else "MS" for timer in timers.split("/")]
    return f"{head}{'/'.join(shown)}{rest}"


async def finished(both: Both, address: Any) -> None:
    """Both streams end in order."""
    client, server = await both.session(address)
    client.end()
    await server.rest()
    server.end()
    await client.rest()


async def client_reset(both: Both, address: Any) -> None:
    """The client resets."""
    client, server = await both.session(address)
    client.reset()
    await server.rest()


async def server_reset(both: Both, address: Any) -> None:
    """The server resets."""
    client, server = await both.session(address)
    server.reset()
    await client.rest()


async def unreachable(both: Both, address: Any) -> None:
    """No server listens."""
    both.upstream.close()
    await both.client(address).rest()


async def idle(both: Both, address: Any) -> None:
    """Nobody sends anything for the idle timeout."""
    client, _ = await both.session(address)
    await client.rest()


async def queue_timeout(both: Both, address: Any) -> None:
    """A session waits in the queue for too long, behind another one."""
    await both.session(address)
    await both.client(address).rest()


@pytest.mark.parametrize(
    ("what", "place"),
    [
        (finished, 0),
        (finished, 1),
        (finished, 2),
        (client_reset, 0),
        (server_reset, 1),
        (server_reset, 2),
        (unreachable, 0),
        (unreachable, 2),
        (idle, 1),
        (queue_timeout, 0),
    ],
)
async def test_the_line_is_haproxys(
    both: Both, what: Callable[[Both, Any], Awaitable[None]], place: int
) -> None:
    """HAProxy and evproxy write the same line for the same session, times and ports aside."""
    await both.start()
    expected, line = await both.lines_of(what, place)
    assert comparable(line) == comparable(expected)


async def test_halog_reads_the_lines(both: Both, tmp_path: Path, reactor: Any) -> None:
    """HAProxy's own log analyser finds the times of the accepts, and the servers."""
    await both.start()
    for what in (finished, client_reset, idle):
        await both.lines_of(what, 0)
    counts = []
    for program, log in ((both.haproxy, "h"), (both.evproxy, "e")):
        file = tmp_path / log
        file.write_text("".join(f"{line}\n" for line in program.lines()[-3:]))
        # Its reports skip four fields less where no syslog header is in front.
        accepts = await said(reactor, "halog", "-q", "-s", "-4", "-ac", "1", "-ad", "0", stdin=file)
        servers = await said(reactor, "halog", "-q", "-s", "-4", "-srv", stdin=file)
        counts.append((len(accepts.splitlines()), servers.splitlines()[1].split()[0]))
    assert counts[0] == counts[1] == (2, f"default/127.0.0.1:{both.upstream.port}")
