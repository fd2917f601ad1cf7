"""Servers that no session can connect to: one refuses, the other does not answer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.peers import Listening, Peer

Refusing = Callable[[], str]


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    """
    Makes addresses that refuse every connect.

    The addresses stay bound, without listening, until the end of the test: otherwise the next
    listener might get one of their ports.
    """
    with ExitStack() as stack:

        def address() -> str:
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{sock.getsockname()[1]}"

        yield address


class Unanswered:
    """A server with a full accept queue, so a connect gets no answer."""

    def __init__(self, reactor: Any) -> None:
        self._listening = Listening.tcp(reactor, backlog=0)
        self._fill = []
        for _ in range(8):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self._listening.port))
            self._fill.append(Peer(reactor, sock))

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self._listening.port}"

    def close(self) -> None:
        for peer in self._fill:
            peer.close()
        self._listening.close()


@pytest.fixture
def unanswered(reactor: Any) -> Iterator[Unanswered]:
    """A server that never answers a connect."""
    unanswered = Unanswered(reactor)
    yield unanswered
    unanswered.close()
