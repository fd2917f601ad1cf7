"""Services under test, in front of one server, and their clients."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy import ProxyService
from tests.support.peers import Listening, Peer, connect

ANY_PORT = "tcp:0:interface=127.0.0.1"


class Ground:
    """A server, services in front of it, and clients; all end with the test."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.upstream = Listening.tcp(reactor)
        self.services: list[ProxyService] = []
        self._peers: list[Peer] = []

    def service(self, *listen: Any, **settings: Any) -> ProxyService:
        """Return a service in front of the server, not started."""
        if "pool" not in settings:
            settings.setdefault("upstreams", [f"127.0.0.1:{self.upstream.port}"])
        service = ProxyService(self.reactor, listen or (ANY_PORT,), **settings)
        self.services.append(service)
        return service

    def client(self, service: ProxyService, listener: int = 0) -> Peer:
        """Return a client of the service."""
        address: Any = service.addresses[listener]
        where = (address.host, address.port) if hasattr(address, "host") else address.name.decode()
        peer = connect(self.reactor, where)
        self._peers.append(peer)
        return peer

    async def session(self, service: ProxyService, listener: int = 0) -> tuple[Peer, Peer]:
        """Return a client of the service, and its server."""
        client = self.client(service, listener)
        server = await self.upstream.accept()
        await client.send(b"?")
        await server.receive(1)
        await server.send(b"!")
        await client.receive(1)
        return client, server

    async def close(self) -> None:
        for peer in self._peers:
            peer.close()
        self.upstream.close()
        for service in self.services:
            await service.drain(0)
            await service.stopService()


@pytest.fixture
def ground(reactor: Any) -> Iterator[Ground]:
    """The base of a test of services."""
    ground = Ground(reactor)
    yield ground
    pytest_twisted.blockon(Deferred.fromCoroutine(ground.close()).addTimeout(20, reactor))


def listens(address: Any) -> bool:
    """Whether a socket listens at `address`, a Twisted address."""
    unix = isinstance(address, UNIXAddress)
    where: Any = address.name if unix else (address.host, address.port)
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as sock:
        return sock.connect_ex(where) == 0


def called(deferred: Deferred[None]) -> Callable[[], bool]:
    """Whether `deferred` has fired."""
    return lambda: bool(deferred.called)


async def until(reactor: Any, true: Callable[[], bool]) -> None:
    """Let the reactor run until `true` holds; for conditions without an event."""
    while not true():
        await deferLater(reactor, 0)
