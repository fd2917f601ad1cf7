"""What the page shows and starts: an evproxy, a pool of threads beside it, their clients."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.network import is_listening, wait_until

from ..catalogue import ALL
from ..computing import COMPUTING_HOST, LONG
from ..load import Load, running_load
from ..processes import ROOT, StartError, end_group, free_port, running_model, running_upstream
from ..stream import Stream
from ..worker import LOOPBACK
from . import threads

IDLE = 30
"""Clients of the button for idle clients: more than the pool has threads."""

SLICE = 0.5
"""Seconds of load between two looks at its latencies."""

LARGE = 32 << 20
_REQUEST = b"GET %s HTTP/1.1\r\nHost: study\r\n\r\n"
_LOAD = (
    Stream("kept", "/?wait=20", rate=40.0, seconds=SLICE, kept=6),
    Stream("new", "/?wait=20", rate=20.0, seconds=SLICE),
)

Tell = Callable[[dict[str, Any]], None]


class Side:
    """One of the two proxies, and the clients that the buttons start."""

    def __init__(self, name: str, port: int, load: Load, tell: Tell) -> None:
        self.name, self.port = name, port
        self._load, self._tell = load, tell
        self._held: dict[str, list[socket.socket]] = {"idle": [], "slow": []}
        self._loaded = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run_load)
        self._thread.start()

    def act(self, what: str, on: bool) -> None:
        """Do what a button says; `on`: begin, else end.

        :raises KeyError: if there is no such button.
        """
        if what == "load":
            (self._loaded.set if on else self._loaded.clear)()
        elif what == "block":
            self._ask(b"/", 1, COMPUTING_HOST)[0].close()
        else:
            held = self._held[what]
            while held:
                held.pop().close()
            if on:
                path = b"/" if what == "idle" else b"/?size=%d" % LARGE
                held += self._ask(path, IDLE if what == "idle" else 1, LOOPBACK)

    def stop(self) -> None:
        """Close every client."""
        self._over.set()
        self._loaded.set()
        self._thread.join()
        for held in self._held.values():
            for client in held:
                client.close()

    def _ask(self, path: bytes, count: int, host: str) -> list[socket.socket]:
        clients = []
        for _ in range(count):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(5.0)
            client.bind((host, 0))
            client.connect((LOOPBACK, self.port))
            client.sendall(_REQUEST % path)
            clients.append(client)
        return clients

    def _run_load(self) -> None:
        while self._loaded.wait() and not self._over.is_set():
            seen = self._load.run(*_LOAD, grace=SLICE)
            self._load.do(do="drop")
            latencies = [round(each * 1000, 1) for kind in seen.values() for each in kind.latencies]
            unanswered = sum(kind.sent - kind.whole for kind in seen.values())
            told = {"proxy": self.name, "latencies": latencies, "unanswered": unanswered}
            self._tell({"kind": "latencies", **told})


class Stage:
    """
    Both proxies; `tell` is called, in any thread, with each event.

    `begun`: what buttons have begun, and not ended.
    """

    def __init__(self, tell: Tell, sides: list[Side], pool: int, pool_port: int) -> None:
        self._tell, self._sides = tell, sides
        self._pool, self._pool_port = pool, pool_port
        self.begun: set[str] = set()

    def act(self, what: str, on: bool) -> None:
        """Do what a button says, with both proxies.

        :raises KeyError: if there is no such button.
        """
        for side in self._sides:
            side.act(what, on)
        if on and what != "block":
            self.begun.add(what)
        else:
            self.begun.discard(what)

    def look(self) -> None:
        """Look at the threads of the pool, and tell."""
        states, queue = threads.states(self._pool), threads.queue(self._pool_port)
        self._tell({"kind": "threads", "threads": states, "queue": queue})


@contextmanager
def staged(tell: Tell) -> Iterator[Stage]:
    """Everything that the page shows runs until the context is left."""
    [pool_model] = [model for model in ALL if model.name == "pool"]
    with ExitStack() as stack:
        upstream = stack.enter_context(running_upstream())
        pool = stack.enter_context(running_model(pool_model, upstream.port, computes=LONG))
        port = stack.enter_context(_watched(upstream.port, tell))
        sides = []
        for name, at in (("evproxy", port), ("pool", pool.port)):
            load = stack.enter_context(running_load(at))
            sides.append(Side(name, at, load, tell))
            stack.callback(sides[-1].stop)
        yield Stage(tell, sides, pool.process.pid, pool.port)


@contextmanager
def _watched(upstream: int, tell: Tell) -> Iterator[int]:
    """The evproxy that the page shows; its events are told."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "study.live.watched", str(port), str(upstream)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    output = process.stdout
    assert output is not None

    def read() -> None:
        for line in output:
            tell({"kind": "loop", **json.loads(line)})

    reader = threading.Thread(target=read)
    reader.start()
    try:

        def ready() -> bool:
            if process.poll() is not None:
                raise StartError(f"evproxy ended with status {process.returncode}")
            return is_listening(port)

        wait_until(ready, "evproxy listening")
        yield port
    finally:
        end_group(process)
        reader.join()
        output.close()
