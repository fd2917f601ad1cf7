"""``evproxy toxiproxy`` in a process of its own, and real servers for its proxies."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

STARTED = re.compile(r"Toxiproxy's API listens on 127\.0\.0\.1:(\d+)\n")
DEADLINE = 20.0


class ToxiproxyServer:
    """
    The process; `port` is that of the API.

    :param options: of the command.
    """

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "evproxy", "toxiproxy", "--port=0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        found = STARTED.fullmatch(self.process.stdout.readline())
        if found is None:
            raise RuntimeError(self.stop())
        self.port = int(found[1])

    def stop(self) -> str:
        """End the process by SIGTERM, and return what it has logged."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=DEADLINE)[1]


@pytest.fixture(scope="module")
def toxiproxy_server() -> Iterator[ToxiproxyServer]:
    """An API that ends with the tests of a module, in order."""
    server = ToxiproxyServer()
    yield server
    server.stop()
    assert server.process.returncode == 0


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait until `holds` returns true; asks again and again."""
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, f"not within {DEADLINE:g} s: {what}"
        time.sleep(0.02)
