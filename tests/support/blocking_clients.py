"""Blocking clients and servers, for a proxy in another process."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.peers import END, RESET
from tests.support.twistd import PATIENCE


def rest(peer: socket.socket) -> tuple[bytes, str]:
    """Return all remaining bytes, and how the stream ends."""
    received = b""
    try:
        while data := peer.recv(65536):
            received += data
    except ConnectionResetError:
        return received, RESET
    return received, END


def page(port: int) -> bytes:
    """Return the answer of an HTTP server at `port` of 127.0.0.1."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return rest(client)[0]


class Upstream:
    """
    A server that accepts, and clients of a proxy in front of it.

    `option`: the option that makes it the proxy's upstream server.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self._socket = self._open.enter_context(
            socket.create_server(("127.0.0.1", 0), backlog=4096)
        )
        self._socket.settimeout(PATIENCE)
        self.option = f"--upstream=127.0.0.1:{self._socket.getsockname()[1]}"

    def connect(self, port: int) -> tuple[socket.socket, socket.socket]:
        """Return a client of the proxy at `port` and its server; a byte has gone each way."""
        client = self._open.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
        server = self._open.enter_context(self.accept())
        server.settimeout(PATIENCE)
        client.sendall(b"?")
        assert server.recv(1) == b"?"
        server.sendall(b"!")
        assert client.recv(1) == b"!"
        return client, server

    def accept(self) -> socket.socket:
        """Return the next connection to the server."""
        return self._socket.accept()[0]

    def is_tried(self, seconds: float) -> bool:
        """Whether another connection comes within so many seconds."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def session(self, port: int) -> str:
        """Run a whole session; return the address of the client, as in the log."""
        client, server = self.connect(port)
        peer = "{}:{}".format(*client.getsockname())
        client.close()
        assert rest(server) == (b"", END)
        server.close()
        return peer

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A server to put the proxy in front of."""
    upstream = Upstream()
    yield upstream
    upstream.close()


def works(pair: tuple[socket.socket, socket.socket]) -> bool:
    """Whether a byte goes from the client to the server and another one back."""
    client, server = pair
    client.sendall(b"a")
    asked = server.recv(1)
    server.sendall(b"b")
    return (asked, client.recv(1)) == (b"a", b"b")
