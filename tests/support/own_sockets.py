"""The sockets of this process, in which the proxy runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support.peers import Peer


@contextmanager
def socket_to(peer: Peer) -> Iterator[socket.socket]:
    """The socket of this process that is connected to `peer`, under a descriptor of its own."""
    with ExitStack() as stack:
        found = []
        for path in Path("/proc/self/fd").iterdir():
            if path.is_socket():
                sock = stack.enter_context(socket.socket(fileno=os.dup(int(path.name))))
                with suppress(OSError):
                    if sock.getpeername() == peer.socket.getsockname():
                        found.append(sock)
        [other] = found
        yield other
