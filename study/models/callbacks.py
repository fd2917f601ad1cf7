"""The callbacks of an event loop by hand, with the names of the classic proxy on libevent."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from .listening import Address, Hook


class Side:
    """One socket of a session; `out` waits until the socket takes it."""

    def __init__(self, sock: socket.socket, connecting: bool = False) -> None:
        self.sock, self.connecting, self.out = sock, connecting, b""
        self.ended, self.shut, self.other = False, False, self
        sock.setblocking(False)

    def wants(self) -> tuple[bool, bool]:
        """Whether to wait for bytes, and for room: a peer that reads slowly stops the other."""
        reads = not (self.ended or self.connecting or self.other.connecting or self.other.out)
        return reads, bool(self.out) or self.connecting


def do_accept(listener: socket.socket, upstream: Address, hook: Hook | None) -> Side | None:
    """Accept one client, begin to connect it, and return its side; ``None`` if it has left."""
    with contextlib.suppress(OSError):
        client = Side(listener.accept()[0])
        (hook or str)(client.sock.getpeername()[0])
        client.other, client.other.other = Side(socket.socket(), connecting=True), client
        client.other.sock.connect_ex(upstream)  # an error is reported as an event
        return client
    return None


def readcb(side: Side) -> None:
    """Pass on what has come, or the end of the stream."""
    if data := side.sock.recv(65536):
        side.other.out += data
    else:
        side.ended = True
    writecb(side.other)


def writecb(side: Side) -> None:
    """The connect is over, or the socket takes bytes again."""
    side.connecting = False  # if it failed, the next call on the socket raises
    if side.out:
        side.out = side.out[side.sock.send(side.out) :]
    if side.other.ended and not side.out and not side.shut:
        side.sock.shutdown(socket.SHUT_WR)
        side.shut = True


def errorcb(side: Side, *_: Any) -> None:
    """An error, or both streams are over: close both sockets."""
    side.sock.close()
    side.other.sock.close()
