"""The floor: the system calls of a proxied session in a Python loop, and nothing else.

It is no proxy to use: it connects to loopback only, takes each send to be whole, knows no
timeout and no error but the end.  What any proxy in Python takes less than this, it takes
less of the kernel.

Usage: bare_loop.py LISTEN:UPSTREAM ...
"""

from __future__ import annotations

import gc
import select
import socket
import sys

BATCH = 256
ACCEPTS = 8
BUFFER = bytearray(65536)
VIEW = memoryview(BUFFER)
KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class End:
    """One of the two connections of a session."""

    __slots__ = ("ended", "other", "socket")

    def __init__(self, sock: socket.SocketType) -> None:
        self.socket = sock
        self.ended = False
        self.other: End | None = None


epoll = select.epoll()
ports: dict[int, tuple[socket.socket, tuple[str, int]]] = {}
ends: dict[int, End] = {}


def listen(port: int, upstream: int) -> None:
    """Proxy one loopback port to another."""
    sock = socket.create_server(("127.0.0.1", port), backlog=4096)
    sock.setblocking(False)
    ports[sock.fileno()] = (sock, ("127.0.0.1", upstream))
    epoll.register(sock.fileno(), select.EPOLLIN)


def accept(listening: socket.socket, upstream: tuple[str, int]) -> None:
    """Accept what has come, and connect each to the upstream."""
    for _ in range(ACCEPTS):
        try:
            client, _address = listening.accept()
        except BlockingIOError:
            return
        client.setblocking(False)
        server = socket.SocketType(socket.AF_INET, KIND)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.connect_ex(upstream)
        down, up = End(client), End(server)
        down.other, up.other = up, down
        for end in (down, up):
            ends[end.socket.fileno()] = end
            epoll.register(end.socket.fileno(), select.EPOLLIN)


def move(end: End) -> tuple[End, ...]:
    """Pass on what has come; both ends, once both streams have ended."""
    other = end.other
    assert other is not None
    try:
        count = end.socket.recv_into(BUFFER)
        if count:
            other.socket.send(VIEW[:count])
            return ()
        end.ended = True
        if not other.ended:
            epoll.modify(end.socket.fileno(), 0)
            other.socket.shutdown(socket.SHUT_WR)
            return ()
    except OSError:
        end.ended = True
    return (end, other)


def serve() -> None:
    """Turn for ever."""
    while True:
        over: list[End] = []
        for descriptor, _mask in epoll.poll(-1, BATCH):
            if descriptor in ports:
                accept(*ports[descriptor])
            elif descriptor in ends:
                over += move(ends[descriptor])
        for end in over:
            ends.pop(end.socket.fileno(), None)
            end.socket.close()
            end.other = None


for pair in sys.argv[1:]:
    listen(*map(int, pair.split(":")))
gc.disable()
serve()
