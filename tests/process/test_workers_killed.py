"""Workers and supervisors that are killed at random under load: what the clients see."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress

import pytest

from tests.support.real_servers import free_port
from tests.support.service_manager import Manager, stored_in
from tests.support.supervised import Supervised, all_end
from tests.support.twistd import PATIENCE

SECONDS = 60.0
CLIENTS = 8
SUPERVISORS = 0.25
"""The share of the kills that the supervisor gets."""


class Echo:
    """A server that sends back what it gets, with a thread for each connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.option = "--upstream={}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(peer,), daemon=True).start()

    def _echo(self, peer: socket.socket) -> None:
        with suppress(OSError), peer:
            while data := peer.recv(4096):
                peer.sendall(data)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


class Load:
    """Clients that begin one session after the other, and count how they end."""

    def __init__(self, port: int) -> None:
        self.ends: Counter[str] = Counter()
        self._port = port
        self._lock = threading.Lock()
        self._stops = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stops.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stops.is_set():
            end = self._session()
            with self._lock:
                self.ends[end] += 1

    def _session(self) -> str:
        try:
            client = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
        except ConnectionRefusedError:
            return "refused"
        except OSError:
            return "not connected"
        message = os.urandom(64)
        try:
            with client:
                client.sendall(message)
                received = b""
                while len(received) < len(message):
                    data = client.recv(4096)
                    if not data:
                        return "lost"
                    received += data
                return "whole" if received == message else "wrong"
        except TimeoutError:
            return "stuck"
        except OSError:
            return "lost"


@pytest.mark.deadline(240)
@pytest.mark.slow
def test_random_kills(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    For a minute, a worker or the supervisor is killed each time soon after all workers serve.

    No client is refused, gets wrong bytes or is stuck; only sessions of killed workers are lost.
    What systemd does after the death of the supervisor, the test does: the next one gets the
    sockets that were stored.
    """
    monkeypatch.setenv("FDSTORE", "64")
    chance = random.Random(17)
    echo = Echo()
    port = free_port()
    options = [f"--listen=tcp:{port}:interface=127.0.0.1", echo.option, "--access-log=off"]
    try:
        with ExitStack() as started:
            proxy = started.enter_context(Supervised(*options, patience=200.0))
            manager.ready()
            stored = manager.descriptors["evproxy"][:]
            load = Load(port)
            started.callback(load.stop)
            kills = Counter(worker=0, supervisor=0)
            again = 0
            left: list[int] = []
            end = time.monotonic() + SECONDS
            pause = threading.Event()
            while time.monotonic() < end:
                pause.wait(chance.uniform(0.1, 1.5))
                if chance.random() < SUPERVISORS:
                    kills["supervisor"] += 1
                    left += proxy.workers()
                    proxy.signal(signal.SIGKILL)
                    again = 0
                    proxy = started.enter_context(
                        Supervised(*options, patience=200.0, **stored_in(stored))
                    )
                    proxy.serves()
                else:
                    kills["worker"] += 1
                    again += 1
                    os.kill(chance.choice(proxy.workers()), signal.SIGKILL)
                    proxy.says_again("serves again", again)
            load.stop()
            assert set(load.ends) <= {"whole", "lost"}, load.ends
            # Each kill of a worker can lose the one session that each client has.
            assert load.ends["lost"] <= kills["worker"] * CLIENTS, (kills, load.ends)
            assert load.ends["whole"] > kills.total()
            assert min(kills.values()) > 0
            print(f"kills: {dict(kills)}, ends of sessions: {dict(load.ends)}")
            proxy.workers()
            proxy.signal(signal.SIGTERM)
            assert proxy.ended() == 0
            all_end([*left, *proxy.everyone()])
    finally:
        echo.close()
