"""One small suite over all models of the study: each is an honest TCP proxy."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from study import models as package
from study.catalogue import Model, models
from study.computing import COMPUTING_HOST, SECONDS
from study.processes import Server, running_model
from tests.support.blocking_clients import rest
from tests.support.peers import END
from tests.support.twistd import PATIENCE

BULK = 3_000_000
SMALL = 65536
_MOST = [
    int(Path(f"/proc/sys/net/ipv4/tcp_{which}").read_text().split()[2])
    for which in ("rmem", "wmem")
]

MOST_BUFFERED = 2 * sum(_MOST) + (4 << 20)
"""More than the sockets of a session hold in the kernel, and every model itself, together."""


class Session:
    """A client of a model, and its server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server


class Proxied:
    """A running model, and the listener that is its upstream server."""

    def __init__(self, model: Model, server: Server, listener: socket.socket) -> None:
        self.model, self.server, self._listener = model, server, listener

    @contextmanager
    def session(self, host: str = "127.0.0.1", small: bool = False) -> Iterator[Session]:
        """
        A session on which a byte has gone each way, in this order: server, client.

        :param host: the address of the client.
        :param small: the buffers of the client and the server in the kernel are small.
        """
        with ExitStack() as stack:
            client = stack.enter_context(socket.socket())
            client.settimeout(PATIENCE)
            if small:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            client.bind((host, 0))
            client.connect(("127.0.0.1", self.server.port))
            server = stack.enter_context(self._listener.accept()[0])
            if small:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
            server.settimeout(PATIENCE)
            server.sendall(b"!")
            assert client.recv(1) == b"!"
            client.sendall(b"?")
            assert server.recv(1) == b"?"
            yield Session(client, server)


@pytest.fixture(scope="module", params=models(), ids=lambda model: model.name)
def studied(request: pytest.FixtureRequest) -> Iterator[Proxied]:
    """Each model in turn, with the hook that computes."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.settimeout(PATIENCE)
        upstream = listener.getsockname()[1]
        with running_model(request.param, upstream, computes=SECONDS) as server:
            yield Proxied(request.param, server, listener)


def sent(source: socket.socket, sink: socket.socket, size: int) -> bytes:
    """What arrives at `sink` of so many bytes that `source` sends, in pieces that both can hold."""
    received = bytearray()
    source.setblocking(False)
    left = memoryview(bytes(range(256)) * (size // 256))
    while len(received) < size // 256 * 256:
        with suppress(BlockingIOError):
            left = left[source.send(left) :]
        received += sink.recv(65536)
    source.settimeout(PATIENCE)
    return bytes(received)


def test_bytes_go_both_ways(studied: Proxied) -> None:
    """More bytes than the buffers hold arrive unchanged, in each direction."""
    with studied.session() as session:
        expected = bytes(range(256)) * (BULK // 256)
        assert sent(session.client, session.server, BULK) == expected
        assert sent(session.server, session.client, BULK) == expected


def test_the_client_ends_first(studied: Proxied) -> None:
    """The server gets the end of the stream, and can still answer."""
    with studied.session() as session:
        session.client.sendall(b"question")
        session.client.shutdown(socket.SHUT_WR)
        assert rest(session.server) == (b"question", END)
        session.server.sendall(b"answer")
        session.server.close()
        assert rest(session.client) == (b"answer", END)


def test_the_server_ends_first(studied: Proxied) -> None:
    """The client gets the end of the stream, and can still send."""
    with studied.session() as session:
        session.server.sendall(b"greeting")
        session.server.shutdown(socket.SHUT_WR)
        assert rest(session.client) == (b"greeting", END)
        session.client.sendall(b"thanks")
        session.client.close()
        assert rest(session.server) == (b"thanks", END)


def test_a_slow_reader_gets_all(studied: Proxied) -> None:
    """What a client does not read in time waits for it, to the last byte and the end."""
    with studied.session(small=True) as session:
        session.server.settimeout(0.2)
        count = 0
        with suppress(TimeoutError):
            while count < MOST_BUFFERED:
                count += session.server.send(b"x" * 65536)
        assert count < MOST_BUFFERED, "the model buffers without bound"
        session.server.shutdown(socket.SHUT_WR)
        while data := session.client.recv(1 << 20):
            count -= len(data)
        assert count == 0


def test_one_session_after_the_other(studied: Proxied) -> None:
    """A model serves again after sessions that end in every way, a reset included."""
    with studied.session() as session:
        linger = b"\1\0\0\0\0\0\0\0"
        session.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        session.client.close()
        with suppress(ConnectionResetError):
            assert session.server.recv(1) == b""
    with studied.session() as session:
        session.client.sendall(b"again")
        assert session.server.recv(5) == b"again"


def test_sessions_at_once(studied: Proxied) -> None:
    """All models but one serve a second client beside the first."""
    if studied.model.at_once == 1:
        pytest.skip("this model serves one client at a time")
    with studied.session() as first, studied.session() as second:
        first.client.sendall(b"1")
        second.client.sendall(b"2")
        assert (first.server.recv(1), second.server.recv(1)) == (b"1", b"2")


def test_the_hook_computes(studied: Proxied) -> None:
    """A client from the computing address waits for as long as the hook computes."""
    before = time.monotonic()
    with studied.session(COMPUTING_HOST):
        assert time.monotonic() - before >= SECONDS


def test_sigquit(studied: Proxied) -> None:
    """SIGQUIT ends the process: at once, or, where the model drains, after the last session."""
    with studied.session() as session:
        studied.server.quit()
        if studied.model.drains:
            session.client.sendall(b"late")
            session.client.shutdown(socket.SHUT_WR)
            assert rest(session.server) == (b"late", END)
            session.server.close()
            assert rest(session.client) == (b"", END)
        else:
            assert rest(session.client)[0] == b""
    assert studied.server.wait()


def test_each_is_small_and_says_what_it_teaches() -> None:
    """A model is under 60 lines, with what it teaches and how it fails."""
    folder = Path(package.__file__).parent
    for path in folder.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path
    for model in models():
        text = (folder / f"{model.module}.py").read_text()
        assert "\nTeaches: " in text, model
        assert "\nFails: " in text, model
