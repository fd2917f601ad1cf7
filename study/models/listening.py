"""What all models share: the address of a listener, and the form of the one function of a model."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeAlias

BACKLOG = 4096
"""Connections that wait in the kernel until the model accepts them; Python's default is 128."""

Address: TypeAlias = "tuple[str, int]"
"""The host and the port of a TCP socket."""

Hook: TypeAlias = "Callable[[str], None]"
"""Stands for code of the user: called with the host of each client, before the connect."""

Serve: TypeAlias = "Callable[[Address, Address, Hook | None], None]"
"""
The interface of a model: ``serve(address, upstream, hook)``.

Listens at ``address``, proxies each client to ``upstream``, and returns after SIGQUIT.  The main
thread calls it, because Python runs signal handlers there.
"""


def listen(address: Address, *, shared: bool = False) -> socket.socket:
    """A listening socket; `shared`: other processes may listen at the same port (SO_REUSEPORT)."""
    return socket.create_server(address, backlog=BACKLOG, reuse_port=shared)
