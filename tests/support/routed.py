"""A service with routes, and a server for each pool that they may choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from evproxy import ProxyService, SessionRecord
from evproxy.config.document import parse
from evproxy.config.reading import Surroundings
from tests.support.peers import Listening, Peer, connect, turn
from tests.support.proxies import Observed

POOLS = ("default", "tls", "grpc", "internal", "site", "tenant")


class Routed:
    """A service with some routes, and a pool of one server for each name in `POOLS`."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.observed = Observed()
        self.servers = {name: Listening.tcp(reactor) for name in POOLS}
        self._peers: list[Peer] = []
        self.service: ProxyService

    def start(
        self,
        listener: str,
        more: str = "",
        pool_keys: str = "",
        ports: Mapping[str, int] | None = None,
        max_sessions: int = 0,
    ) -> None:
        """
        Start with the keys `listener` of its listener, in TOML.

        :param more: tables that come before those of the pools.
        :param pool_keys: keys of every pool.
        :param ports: the ports of other servers, by the names of their pools.
        :param max_sessions: the most sessions of each server; 0: any number.
        """
        of_pool = {name: server.port for name, server in self.servers.items()} | dict(ports or {})
        pools = "".join(
            f"[pools.{name}]\nupstreams = [{{endpoint = '127.0.0.1:{port}', "
            f"max_sessions = {max_sessions}}}]\n{pool_keys}"
            for name, port in of_pool.items()
        )
        text = (
            '[[listeners]]\nname = "web"\nlisten = "tcp:0:interface=127.0.0.1"\n'
            f'pool = "default"\n{listener}\n{more}{pools}'
        )
        settings = parse(text, Surroundings())
        self.service = ProxyService.from_settings(self.reactor, settings, [self.observed])
        self.service.startService()

    def client(self) -> Peer:
        """A client of the service."""
        address: Any = self.service.addresses[0]
        peer = connect(self.reactor, ("127.0.0.1", address.port))
        self._peers.append(peer)
        return peer

    async def sent(self, data: bytes, *, pieces: bool = False) -> tuple[str, Peer, Peer]:
        """Send `data`; the name of the pool whose server got it, the client and the server."""
        client = self.client()
        for piece in [data[i : i + 7] for i in range(0, len(data), 7)] if pieces else [data]:
            await client.send(piece)
        name, server = await self.accepted()
        assert await server.receive(len(data)) == data
        return name, client, server

    async def accepted(self) -> tuple[str, Peer]:
        """The first server that gets a connection, and its pool's name."""
        while True:
            for name, listening in self.servers.items():
                try:
                    sock, _ = listening.socket.accept()
                except BlockingIOError:
                    continue
                peer = Peer(self.reactor, sock)
                self._peers.append(peer)
                return name, peer
            await turn(self.reactor)

    async def record(self, *peers: Peer) -> SessionRecord:
        """The record of the only session, after `peers` are closed."""
        for peer in peers:
            peer.close()
        await self.observed.ended()
        [record] = self.observed.records
        return record

    async def close(self) -> None:
        for peer in self._peers:
            peer.close()
        for server in self.servers.values():
            server.close()
        if hasattr(self, "service"):
            await self.service.drain(0)


@pytest.fixture
def routed(reactor: Any) -> Iterator[Routed]:
    """A service with routes, to be started; it is stopped after the test."""
    routed = Routed(reactor)
    yield routed
    pytest_twisted.blockon(Deferred.fromCoroutine(routed.close()).addTimeout(20, reactor))
