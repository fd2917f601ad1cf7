"""A pool of real servers behind a `ProxyService`, with clients and an observer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred

from evproxy import Pool, ProxyService, SessionRecord, UpstreamServer
from tests.support.loads import Load
from tests.support.peers import Peer, connect
from tests.support.proxies import Observed
from tests.support.real_servers import RealServers
from tests.support.waiting import Waiting

LISTEN = "tcp:0:interface=127.0.0.1"


class Heard:
    """A pool observer that records its calls as log lines, and lets a test wait for one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._waiting = Waiting()

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        self._tell(f"{server} {state}: {why}")

    def pool_exhausted(self, pool: str, why: str) -> None:
        self._tell(f"exhausted: {why}")

    def discovery_failed(self, pool: str, why: str) -> None:
        self._tell(f"discovery: {why}")

    def discovery_recovered(self, pool: str) -> None:
        self._tell("discovery recovered")

    def pressure_began(self, what: str, remedy: str) -> None:
        self._tell(f"began: {what}: {remedy}")

    def pressure_over(self, what: str) -> None:
        self._tell(f"over: {what}")

    async def line(self, begin: str, count: int = 1) -> str:
        """Wait for the `count`-th line that begins with `begin`, and return it."""

        def found() -> list[str]:
            return [line for line in self.lines if line.startswith(begin)]

        await self._waiting.until(lambda: len(found()) >= count)
        return found()[count - 1]

    def _tell(self, line: str) -> None:
        self.lines.append(line)
        self._waiting.look()


class Blackhole:
    """A listening socket with a full accept queue, which answers no connect."""

    def __init__(self, port: int) -> None:
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind(("127.0.0.1", port))
        self._listening.listen(0)
        self._queued: list[socket.socket] = []
        while self._answers(port):
            assert len(self._queued) < 16

    def _answers(self, port: int) -> bool:
        queued = socket.socket()
        self._queued.append(queued)
        queued.settimeout(0.3)
        with suppress(TimeoutError):
            queued.connect(("127.0.0.1", port))
            return True
        return False

    def close(self) -> None:
        """Close the socket, so connects are refused from now on."""
        for each in [self._listening, *self._queued]:
            each.close()


class Pooled:
    """The base of a test of a pool of real servers; `close` ends all of it."""

    def __init__(self, reactor: Any, record: Callable[[str], None]) -> None:
        self.reactor = reactor
        self._record = record
        self.servers = RealServers()
        self.heard = Heard()
        self.observed = Observed()
        self.pool: Pool
        self._service: ProxyService | None = None
        self._closing: list[Any] = []
        self._loads: list[Load] = []

    def start(self, *upstreams: str | UpstreamServer, **options: Any) -> None:
        """Proxy to a pool of `upstreams` with the `options` of `Pool`."""
        options = {"random": Random(1), "observer": self.heard, **options}
        self.pool = Pool(self.reactor, upstreams, **options)
        self._service = ProxyService(
            self.reactor,
            [LISTEN],
            pool=self.pool,
            access_log=False,
            observers=[self.observed],
        )
        self._service.startService()

    @property
    def port(self) -> int:
        """The port of the proxy on 127.0.0.1."""
        assert self._service is not None
        address = self._service.addresses[0]
        assert not isinstance(address, UNIXAddress)
        return address.port

    def load(self, *arguments: str, width: int = 1, complaints: Sequence[str] = ()) -> Load:
        """Start clients that run `arguments`."""
        load = Load(self.reactor, arguments, width, complaints)
        self._loads.append(load)
        load.start()
        return load

    def client(self) -> Peer:
        """Return a client connected to the proxy."""
        peer = connect(self.reactor, ("127.0.0.1", self.port))
        self._closing.append(peer)
        return peer

    def closes(self, what: Any) -> Any:
        """Close `what` when the test is over."""
        self._closing.append(what)
        return what

    def states(self) -> dict[str, str]:
        """Return the state of each server of the pool, by name."""
        return {server.name: server.state for server in self.pool.servers}

    def errors(self, seen: int, allowed: int, wrote: Sequence[str] = ()) -> None:
        """
        Check that clients saw no more errors than allowed; ``-rP`` shows both numbers.

        :param wrote: the output of the clients.
        """
        self._record(f"{seen} errors, {allowed} allowed")
        assert seen <= allowed, wrote

    def since(self, count: int) -> Sequence[SessionRecord]:
        """Return the sessions that ended after the first `count`."""
        return self.observed.records[count:]

    async def close(self) -> None:
        """End clients, then the proxy, then the servers."""
        for each in self._closing:
            each.close()
        for load in self._loads:
            await load.close()
        if self._service is not None:
            self._service.abort()
            await self._service.drain(0)
        self.servers.end()


@pytest.fixture
def pooled(reactor: Any, request: pytest.FixtureRequest) -> Iterator[Pooled]:
    """The base of a test of a pool of real servers; closed after the test."""
    made = Pooled(reactor, lambda text: request.node.add_report_section("call", "clients", text))
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.close()).addTimeout(30, reactor))
