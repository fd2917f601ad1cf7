"""
The process that ran before: this one takes over its listening sockets, and then it drains.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from evproxy.errors import CannotTakeOver, EvproxyError
from evproxy.escape import escaped
from evproxy.service.restart_connection import Connection
from evproxy.sockets.passing import Message, close_all, receive, send

PATIENCE = 10.0
"""Seconds until the process that runs must have passed its sockets on."""


class Predecessor:
    """
    The process that listens at the restart socket `path`, and still serves.

    `descriptors` are its listening sockets; `restart_socket` is the one at `path`.  Both belong to
    the caller.
    """

    def __init__(self, sock: socket.socket, restart_socket: int, descriptors: list[int]) -> None:
        self._socket = sock
        self._connection: Connection | None = None
        self._before: socket.socket | None = None
        self.restart_socket = restart_socket
        self.descriptors = descriptors

    def ready(self, reactor: Any, older: int, ended: Callable[[], None]) -> None:
        """
        This process serves: the predecessor drains.

        :param older: how many processes may drain.
        :param ended: called when the predecessor has ended, and the processes before it, too.
        """
        self._connect(reactor, self._socket, ended)
        self.send({"ready": True, "older": older})

    def limit(self, older: int) -> None:
        """Tell the predecessor how many processes may drain, itself included."""
        self.send({"older": older})

    def send(self, message: Message) -> None:
        """Send `message` to the predecessor; nothing, before `ready`."""
        if self._connection is not None:
            self._connection.send(message)

    @property
    def connection(self) -> int:
        """The descriptor of the connection."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give up the connection; before `ready`, the predecessor goes on."""
        if self._connection is not None:
            self._connection.close()
        self._socket.close()
        if self._before is not None:
            self._before.close()

    def _connect(self, reactor: Any, sock: socket.socket, ended: Callable[[], None]) -> None:
        def next_or_ended() -> None:
            if self._before is None:
                ended()
            else:
                before, self._before = self._before, None
                self._connect(reactor, before, ended)

        self._socket = sock
        sock.setblocking(False)
        self._connection = Connection(reactor, sock, self._received, next_or_ended)
        self._connection.start()

    def _received(self, message: Message, descriptors: list[int]) -> None:
        """The predecessor ends before the process that it has taken over from."""
        if message.get("before") is True and descriptors and self._before is None:
            self._before = socket.socket(fileno=descriptors.pop(0))
        close_all(descriptors)


def predecessor_at(path: str) -> Predecessor | None:
    """
    Ask the process at the restart socket `path` for its sockets; ``None`` if there is none.

    Blocks for at most `PATIENCE` seconds.

    :raises CannotTakeOver: if it does not pass its sockets on.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    received: list[int] = []
    try:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        send(sock, {"want": "listeners"})
        _receive_all(sock, received)
    except (OSError, EvproxyError) as error:
        sock.close()
        close_all(received)
        why = getattr(error, "strerror", None) or str(error)
        if isinstance(error, TimeoutError):
            why = f"no answer within {PATIENCE:g} s"
        raise CannotTakeOver(
            f"cannot take over from the evproxy at {escaped(path)}: {why}"
        ) from None
    return Predecessor(sock, received[0], received[1:])


def _receive_all(sock: socket.socket, received: list[int]) -> None:
    """Receive the restart socket, and then all listening sockets, into `received`."""
    until = time.monotonic() + PATIENCE
    more = True
    while more:
        sock.settimeout(max(0.001, until - time.monotonic()))
        message, descriptors = receive(sock)
        received += descriptors
        if message.get("refused"):
            raise CannotTakeOver(str(message["refused"]))
        more = bool(message.get("more"))
    if not received:
        raise CannotTakeOver("it has passed on no socket")
