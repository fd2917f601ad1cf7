"""
Listening sockets that a port takes over, in place of a new socket that it would bind.

The socket stays bound and goes on listening while the port that had it closes, in this process or
in another one.  So the kernel refuses no client, and those in the accept queue are served.
"""

from __future__ import annotations

import os
import socket
import stat
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from evproxy.config.canonical import is_address
from evproxy.sockets.ports import ListeningSocket
from evproxy.sockets.unix_path import in_file_system

Place = tuple[int, Any]
"""Where a socket listens: its family, and its host and port, or its path."""


def place_of(sock: socket.socket) -> Place:
    """Where `sock` listens."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return sock.family, os.fsencode(name)
    return sock.family, tuple(name[:2])


def tcp_place(interface: str, port: int) -> Place:
    """Where a port on `interface` would listen.  A name is looked up, as bind(2) does."""
    if ":" in interface:
        host, _, zone = interface.partition("%")
        packed = socket.inet_pton(socket.AF_INET6, host)
        host = socket.inet_ntop(socket.AF_INET6, packed)
        return socket.AF_INET6, (f"{host}%{zone}" if zone else host, port)
    if interface and not is_address(interface):
        with suppress(OSError):
            interface = socket.gethostbyname(interface)
    return socket.AF_INET, (interface or "0.0.0.0", port)


class HandedSocket(ListeningSocket):
    """A socket that is bound already."""

    def bind(self, address: Any) -> None:
        """Nothing to do: the socket is bound."""


class HandedSockets:
    """The sockets that ports may take over, by their places; each is taken once."""

    def __init__(self) -> None:
        self._sockets: dict[Place, deque[HandedSocket]] = {}

    def __len__(self) -> int:
        return len(self._sockets)

    def offer_at(self, place: Place, descriptor: int) -> None:
        """
        Offer a listening socket, which now belongs to this object, to a port that asks for `place`.

        `place` may have the port 0.  Several sockets may have the same place: they are taken in
        their order.  Another process owns the socket: it goes on listening when its port closes.
        """
        sock = HandedSocket(fileno=descriptor)
        sock.setblocking(False)
        sock.handed_over = sock.borrowed = True
        self._sockets.setdefault(place, deque()).append(sock)

    def offer(self, descriptors: Iterable[int], shared: bool = False) -> None:
        """
        Offer these sockets, which now belong to this object; those that do not listen are closed.

        Several sockets may have the same place, as those of workers have.

        :param shared: whether another process still serves with them; see `ListeningSocket`.
        """
        for descriptor in descriptors:
            if not _is_stream_listener(descriptor):
                os.close(descriptor)
                continue
            sock = HandedSocket(fileno=descriptor)
            sock.setblocking(False)
            sock.shared = shared
            self._sockets.setdefault(place_of(sock), deque()).append(sock)

    def has(self, place: Place) -> bool:
        """Whether a socket at `place` is offered, and was not taken."""
        return place in self._sockets

    def take(self, place: Place) -> HandedSocket | None:
        """The socket at `place`, which now belongs to the caller; ``None`` if there is none."""
        offered = self._sockets.get(place)
        if offered is None:
            return None
        taken = offered.popleft()
        if not offered:
            del self._sockets[place]
        return taken

    def abandon(self) -> None:
        """Close the sockets that nobody has taken, and remove the paths of UNIX sockets."""
        for family, name in self._sockets:
            if family == socket.AF_UNIX and in_file_system(name):
                with suppress(OSError):
                    os.unlink(name)
        self.close()

    def close(self) -> None:
        """Close the sockets that nobody has taken."""
        while self._sockets:
            for sock in self._sockets.popitem()[1]:
                sock.close()


def _is_stream_listener(descriptor: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        known = sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return known and sock.type == socket.SOCK_STREAM and bool(listens)
