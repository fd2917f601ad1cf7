"""One client, served by code that blocks, for the models with threads and processes."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections.abc import Iterator

from .listening import Address, Hook

CHUNK = 65536
CONNECT_TIMEOUT = 5.0


def serve_client(client: socket.socket, upstream: Address, hook: Hook | None) -> None:
    """Connect `client` to `upstream`, and copy until both have ended; the caller waits."""
    with client, contextlib.suppress(OSError):
        if hook is not None:
            hook(client.getpeername()[0])
        with socket.create_connection(upstream, CONNECT_TIMEOUT) as server:
            server.settimeout(None)
            copy_both_ways(client, server)


def copy_both_ways(client: socket.socket, server: socket.socket) -> None:
    """Copy bytes and the end of each stream; ``sendall`` waits for a peer that reads slowly."""
    ways = {client.fileno(): (client, server), server.fileno(): (server, client)}
    ready = select.poll()
    for descriptor in ways:
        ready.register(descriptor, select.POLLIN)
    while ways:
        for descriptor, _ in ready.poll():
            source, sink = ways[descriptor]
            if data := source.recv(CHUNK):
                sink.sendall(data)
            else:
                sink.shutdown(socket.SHUT_WR)
                ready.unregister(descriptor)
                del ways[descriptor]


def clients_of(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept clients until `stop_on_sigquit` has stopped the listener; sessions go on."""
    with contextlib.suppress(OSError):
        while True:
            yield listener.accept()[0]


def stop_on_sigquit(listener: socket.socket) -> None:
    """After SIGQUIT, every ``accept`` of `listener` fails at once, in every thread (EINVAL)."""
    signal.signal(signal.SIGQUIT, lambda *_: listener.shutdown(socket.SHUT_RDWR))
