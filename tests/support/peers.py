"""
Clients and servers under full control of the test: raw sockets, awaited on the reactor.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

END = "end"
RESET = "reset"

IPV6 = socket.has_ipv6 and Path("/proc/net/if_inet6").exists()
"""Whether this machine has IPv6."""


@implementer(IReadWriteDescriptor)
class _Readiness:
    """Waits once, until a socket can be read or written."""

    def __init__(self, reactor: Any, sock: socket.socket) -> None:
        self._reactor = reactor
        self._socket = sock
        self._ready: Deferred[None] = Deferred(lambda _: self._forget())

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "test peer"

    def connectionLost(self, reason: Failure) -> None:
        self._fire()

    def readable(self) -> Deferred[None]:
        self._reactor.addReader(self)
        return self._ready

    def writable(self) -> Deferred[None]:
        self._reactor.addWriter(self)
        return self._ready

    def doRead(self) -> None:
        self._fire()

    doWrite = doRead

    def _forget(self) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)

    def _fire(self) -> None:
        self._forget()
        if not self._ready.called:
            self._ready.callback(None)


class Peer:
    """One end of a connection."""

    def __init__(self, reactor: Any, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._reactor = reactor
        self.socket = sock

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of `data`."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                await _Readiness(self._reactor, self.socket).writable()

    def send_now(self, data: bytes | memoryview) -> int:
        """Send as much of `data` as the kernel takes at once; return how many bytes."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    async def some(self, most: int = 65536) -> bytes:
        """Return the next bytes; empty at the end of the stream."""
        while True:
            try:
                return self.socket.recv(most)
            except BlockingIOError:
                await _Readiness(self._reactor, self.socket).readable()

    async def receive(self, count: int) -> bytes:
        """Return exactly `count` bytes."""
        received = bytearray()
        while len(received) < count:
            data = await self.some(min(65536, count - len(received)))
            if not data:
                raise EOFError(f"the stream ended after {len(received)} of {count} bytes")
            received += data
        return bytes(received)

    async def rest(self) -> tuple[bytes, str]:
        """Return all bytes up to the end, and how the stream ended: `END` or `RESET`."""
        received = bytearray()
        while True:
            try:
                data = await self.some()
            except ConnectionResetError:
                return bytes(received), RESET
            if not data:
                return bytes(received), END
            received += data

    def end(self) -> None:
        """End the stream (FIN)."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket; this sends a FIN if everything was read."""
        self.socket.close()

    def reset(self) -> None:
        """Reset the connection (RST)."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Listening:
    """A server socket, on 127.0.0.1 by default."""

    def __init__(self, reactor: Any, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._reactor = reactor
        self.socket = sock
        self.accepted: list[Peer] = []
        self.peer: Callable[[Any, socket.socket], Peer] = Peer

    @classmethod
    def tcp(cls, reactor: Any, host: str = "127.0.0.1", backlog: int = 4096) -> Listening:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, 0))
        sock.listen(backlog)
        return cls(reactor, sock)

    @classmethod
    def unix(cls, reactor: Any, path: str) -> Listening:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen(4096)
        return cls(reactor, sock)

    @property
    def port(self) -> int:
        port: int = self.socket.getsockname()[1]
        return port

    async def accept(self) -> Peer:
        """Return the next connection."""
        while True:
            try:
                sock, _ = self.socket.accept()
            except BlockingIOError:
                await _Readiness(self._reactor, self.socket).readable()
            else:
                peer = self.peer(self._reactor, sock)
                self.accepted.append(peer)
                return peer

    def nobody_waits(self) -> bool:
        """Whether the accept queue is empty."""
        try:
            sock, _ = self.socket.accept()
        except BlockingIOError:
            return True
        sock.close()
        return False

    def close(self) -> None:
        self.socket.close()
        for peer in self.accepted:
            peer.close()


def connect(reactor: Any, address: Any) -> Peer:
    """Return a client connected to `address`, on loopback, so the connect is immediate."""
    if isinstance(address, str):
        family = socket.AF_UNIX
    else:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family)
    sock.connect(address)
    return Peer(reactor, sock)


async def converse(client: Peer, server: Peer) -> None:
    """Pass one byte each way, so that the session relays."""
    await client.send(b"?")
    await server.receive(1)
    await server.send(b"!")
    await client.receive(1)


async def turn(reactor: Any) -> None:
    """Let the reactor handle what is ready."""
    await deferLater(reactor, 0)
