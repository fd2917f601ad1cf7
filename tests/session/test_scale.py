"""Thousands of sessions in one process, and a sender that is much faster than its reader."""

from __future__ import annotations

import random
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.twistd import Running, environment

SESSIONS = 5000
MOST_FOR_A_SESSION = 8 * 1024
"""Bytes; enough for two engines, and for some growth in later Python releases."""

PLENTY = 1024 * 1024 * 1024
MOST_FOR_PLENTY = 4 * 1024 * 1024

_PERIOD = 999_983
_PATTERN = random.Random(1).randbytes(_PERIOD) * 2


def private_bytes(pid: int) -> int:
    """Return the memory, in bytes, that belongs to the process `pid` alone."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(map(int, re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE)))


def resident_bytes(pid: int) -> int:
    """Return the memory, in bytes, of the process `pid` that is not swapped out."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def proxy(relay: str, upstream: int) -> Running:
    """An evproxy process in front of `upstream`."""
    return Running(
        "evproxy",
        "--listen=tcp:0:interface=127.0.0.1",
        f"--upstream=127.0.0.1:{upstream}",
        f"--relay={relay}",
        "--access-log=off",
    )


class Load:
    """`tests.support.idle_load` as a process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.idle_load"],
            env=environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def answer(self) -> int:
        """Return the next number that the process prints."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def command(self, line: str) -> int:
        """Send a command and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def load() -> Iterator[Load]:
    """The peers; the fixture ends them after the test."""
    load = Load()
    yield load
    load.end()


@pytest.mark.parametrize("relay", ["auto", "stream"])
def test_thousands_of_idle_sessions(relay: str, load: Load) -> None:
    """Five thousand idle sessions use little memory, and each gets its answer later."""
    with proxy(relay, load.answer()) as running:
        port = running.port()
        assert load.command(f"connect {port} 100") == 100
        assert load.command("ask") == 100
        before = private_bytes(running.pid)
        assert load.command(f"connect {port} {SESSIONS - 100}") == SESSIONS
        grown = private_bytes(running.pid) - before
        assert grown / (SESSIONS - 100) < MOST_FOR_A_SESSION
        assert load.command("ask") == SESSIONS
        assert load.command("ask") == SESSIONS
        grown = private_bytes(running.pid) - before
        assert grown / (SESSIONS - 100) < MOST_FOR_A_SESSION
        assert running.runs()


class Transfer:
    """`PLENTY` bytes from one socket to another, each checked."""

    def __init__(self, sender: socket.socket, reader: socket.socket) -> None:
        sender.setblocking(False)
        reader.setblocking(False)
        self._sender = sender
        self._reader = reader
        self._content = memoryview(_PATTERN)
        self._buffer = memoryview(bytearray(_PERIOD))
        self.sent = self.received = 0

    def until_nothing_is_taken(self) -> None:
        """Send, and read nothing, until no byte is taken for a second."""
        while self.sent < PLENTY and select.select([], [self._sender], [], 1.0)[1]:
            self._send()

    def to_the_end(self) -> None:
        """Send and read until all bytes have arrived."""
        while self.received < PLENTY:
            writing = [self._sender] if self.sent < PLENTY else []
            readable, writable, _ = select.select([self._reader], writing, [], 20)
            assert readable or writable
            if writable:
                self._send()
            if readable:
                self._read()

    def _send(self) -> None:
        start = self.sent % _PERIOD
        count = min(_PERIOD, PLENTY - self.sent)
        self.sent += self._sender.send(self._content[start : start + count])

    def _read(self) -> None:
        start = self.received % _PERIOD
        count = self._reader.recv_into(self._buffer)
        assert count
        assert self._buffer[:count] == self._content[start : start + count]
        self.received += count


@pytest.mark.parametrize("relay", ["auto", "stream"])
def test_a_sender_and_a_reader_that_stops(relay: str) -> None:
    """A gibibyte without a reader waits at its sender, not in evproxy; later, all of it arrives."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        proxy(relay, listening.getsockname()[1]) as running,
        socket.create_connection(("127.0.0.1", running.port())) as reader,
        listening.accept()[0] as sender,
    ):
        reader.send(b"?")
        assert sender.recv(1) == b"?"
        before = resident_bytes(running.pid)
        transfer = Transfer(sender, reader)
        transfer.until_nothing_is_taken()
        assert 0 < transfer.sent < PLENTY // 8
        assert resident_bytes(running.pid) - before < MOST_FOR_PLENTY
        transfer.to_the_end()
        assert resident_bytes(running.pid) - before < MOST_FOR_PLENTY
