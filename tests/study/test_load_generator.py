"""The clients of the study: how their requests end."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest
from attrs import asdict

from study.load_generator import LoadGenerator
from study.stream import Stream

ANSWERS = {
    "/": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "/502": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad",
    "/503": b"HTTP/1.0 503 Service Unavailable\r\n\r\nno length",
}


class Handler(StreamRequestHandler):
    """Answers requests as their paths say."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            self.wfile.write(ANSWERS[line.split()[1].decode()])


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server."""
    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def outcomes(port: int, **stream: Any) -> dict[str, int]:
    """How the requests of one stream end."""
    generator = LoadGenerator(port)
    found = generator.run([asdict(Stream("one", **stream))], grace=2.0)
    generator.drop()
    return dict(found["streams"]["one"]["outcomes"])


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize(("path", "outcome"), [("/", "whole"), ("/502", "error")])
def test_only_200_is_whole(port: int, path: str, outcome: str, kept: int) -> None:
    """An error is no answer; a connection that stays is used again after it."""
    assert outcomes(port, path=path, burst=3, kept=kept) == {outcome: 3}


def test_an_error_without_a_length(port: int) -> None:
    """Its connection is closed."""
    assert outcomes(port, path="/503", burst=2) == {"error": 2}


def test_clients_without_an_address(port: int) -> None:
    """An attempt that fails at once counts, and the load goes on (192.0.2.1: RFC 5737)."""
    assert outcomes(port, burst=2, host="192.0.2.1") == {"failed": 2}


def test_no_more_descriptors(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request that got no socket counts as failed."""
    generator = LoadGenerator(port)

    def exhausted() -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("socket.socket", exhausted)
    found = generator.run([asdict(Stream("one", burst=3))], grace=0.1)
    assert found == {"streams": {"one": {"outcomes": {"failed": 3}, "latencies": []}}}
    assert generator.open(2, 0.1) == {"answered": 0}


def test_a_kept_connection_that_is_gone() -> None:
    """A request that cannot be sent counts once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reset() -> None:
            accepted, _ = server.accept()
            linger = struct.pack("ii", 1, 0)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            accepted.close()

        thread = Thread(target=reset)
        thread.start()
        port = server.getsockname()[1]
        # The request is due 50 ms after the reset.
        found = outcomes(port, rate=20.0, seconds=0.06, even=True, kept=1)
        thread.join()
    assert found == {"failed": 1}


def test_a_kept_connection_that_cannot_be_opened() -> None:
    """Its first request fails, and the run goes on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert outcomes(port, rate=20.0, seconds=0.06, even=True, kept=1) == {"failed": 1}
