"""Clients that block: for a proxy that is a process of its own."""

from __future__ import annotations

import socket

from tests.support.peers import END, RESET
from tests.support.twistd import PATIENCE


def rest(peer: socket.socket) -> tuple[bytes, str]:
    """All that still comes, and how it ends."""
    received = b""
    try:
        while data := peer.recv(65536):
            received += data
    except ConnectionResetError:
        return received, RESET
    return received, END


def page(port: int) -> bytes:
    """What an HTTP server at `port` of 127.0.0.1 answers."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return rest(client)[0]
