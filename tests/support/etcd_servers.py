"""A real etcd that a test writes to."""

from __future__ import annotations

import json
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from evproxy.upstream.discovery.etcd_client import ShortBody
from tests.support.etcd_gateway import PREFIX, encoded
from tests.support.real_servers import RealServer, RealServers, free_port


class Body(Protocol):
    """Collects the body of an answer until it is complete."""

    def __init__(self) -> None:
        self._received = bytearray()
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(bytes(self._received))


@define
class Etcd:
    """A real etcd with one member."""

    server: RealServer
    port: int
    reactor: Any

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ask(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        """Call the gateway once, and return the answer."""
        agent = Agent(self.reactor, pool=HTTPConnectionPool(self.reactor, persistent=False))
        text = json.dumps(body).encode()
        response = await agent.request(b"POST", (self.url + path).encode(), None, ShortBody(text))
        received = Body()
        response.deliverBody(received)
        answer: dict[str, Any] = json.loads(await received.ended)
        return answer

    async def put(self, name: str, value: object) -> None:
        """Set the key `name` under the prefix to the JSON `value`, or to the bytes."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        await self.ask("/v3/kv/put", {"key": encoded(PREFIX + name), "value": encoded(data)})

    async def delete(self, name: str) -> None:
        """Delete the key `name` under the prefix."""
        await self.ask("/v3/kv/deleterange", {"key": encoded(PREFIX + name)})

    async def started(self) -> None:
        """Start etcd, and wait until it answers."""
        await self.server.started(self.reactor, self.port)
        await self.ask("/v3/kv/range", {"key": encoded("x")})


def etcd_server(reactor: Any, servers: RealServers) -> Etcd:
    """A real etcd, not started yet."""
    directory, port = servers.directory(), free_port()
    url, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
    arguments = [
        *("etcd", "--data-dir", str(directory / "data"), "--name", "only"),
        *("--listen-client-urls", url, "--advertise-client-urls", url),
        *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
        *("--initial-cluster", f"only={peers}"),
    ]
    return Etcd(servers.add(arguments, directory), port, reactor)
