"""A client of the admin interface under test: one request on each connection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from evproxy import ProxyService
from tests.support.peers import Peer, connect
from tests.support.services import ANY_PORT

__all__ = ["ANY_PORT", "Admin", "Response"]


@frozen
class Response:
    """An answer of the admin interface."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The line of an answer that is a problem."""
        assert self.code >= 400
        assert list(self.json) == ["error"]
        line: str = self.json["error"]
        assert "\n" not in line
        return line


class Admin:
    """Asks the admin interface of `service`, which runs."""

    def __init__(self, reactor: Any, service: ProxyService) -> None:
        assert service.admin is not None
        self.reactor = reactor
        address: Any = service.admin.address
        unix = not hasattr(address, "host")
        self.where = address.name.decode() if unix else (address.host, address.port)
        self.host = "localhost" if unix else f"{address.host}:{address.port}"

    def connect(self) -> Peer:
        """Return a connection to the admin interface."""
        return connect(self.reactor, self.where)

    async def get(self, path: str, **headers: str) -> Response:
        return await self.ask("GET", path, None, headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> Response:
        data = None if body is None else json.dumps(body).encode()
        return await self.ask("POST", path, data, headers)

    async def ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Response:
        """Send one request; an underscore in the name of a header is a hyphen."""
        lines = {"Host": self.host, "Connection": "close"}
        if body is not None:
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        peer = self.connect()
        await peer.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))
        return await answer(peer)


async def answer(peer: Peer) -> Response:
    """Return the answer that comes, and close the connection."""
    received, _ = await peer.rest()
    peer.close()
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    named = (line.partition(": ") for line in lines)
    headers = {name.lower(): value for name, _, value in named}
    return Response(int(first.split(" ")[1]), headers, body)
