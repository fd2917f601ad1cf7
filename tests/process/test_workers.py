"""``twistd evproxy --workers``: shares of the connections, deaths, and the end."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from contextlib import ExitStack

import pytest
from twisted.logger import formatEvent

from tests.support.blocking_clients import Upstream, page, rest, works
from tests.support.peers import END, RESET
from tests.support.supervised import (
    Supervised,
    all_end,
    children,
    connected,
    owners,
    runs,
)
from tests.support.twistd import JSON_LOG, PATIENCE, Running, run, wait_until

ANY_PORT = "--listen=tcp:0:interface=127.0.0.1"


class Sessions:
    """Sessions through a proxy, each with its client and its server."""

    def __init__(self, upstream: Upstream, port: int, count: int) -> None:
        self.pairs = [upstream.connect(port) for _ in range(count)]

    def split(self, pids: list[int]) -> dict[int, list[tuple[socket.socket, socket.socket]]]:
        """The sessions by the process that carries them."""
        found: dict[int, list[tuple[socket.socket, socket.socket]]] = {pid: [] for pid in pids}
        found_at = owners([client for client, _ in self.pairs], pids)
        for pair, pid in zip(self.pairs, found_at, strict=True):
            found[pid].append(pair)
        return found


def test_shares(upstream: Upstream) -> None:
    """Every worker has the same port, and about as many connections as every other."""
    with Supervised(ANY_PORT, upstream.option) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        shares = Sessions(upstream, port, 200).split(pids)
        assert min(map(len, shares.values())) > 60


def test_one_worker(upstream: Upstream) -> None:
    """With one worker, there is no process beside the one that was started."""
    with Running("evproxy", ANY_PORT, upstream.option, "--workers=1") as proxy:
        assert upstream.session(proxy.port())
        assert children(proxy.pid) == []


@pytest.mark.oldest_twisted
def test_ends_in_order(upstream: Upstream) -> None:
    """SIGTERM drains all workers: sessions finish, no client comes in, and nothing is left."""
    with Supervised(ANY_PORT, upstream.option) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        by_worker = Sessions(upstream, port, 20).split(pids)
        proxy.signal(signal.SIGTERM)
        proxy.says(r"Port \d+ Closed")
        wait_until(lambda: refused(port))
        assert all(runs(pid) for pid in pids)
        for pairs in by_worker.values():
            for client, server in pairs:
                assert works((client, server))
                client.close()
                assert rest(server) == (b"", END)
                server.close()
        assert proxy.ended() == 0
        assert len(proxy.sessions()) == 20
        all_end(proxy.everyone())


def refused(port: int) -> bool:
    try:
        connected(port).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False
    return False


def test_a_worker_that_dies_while_it_drains(upstream: Upstream) -> None:
    """The log says that its sessions are lost; those of the other one go on."""
    with Supervised(ANY_PORT, upstream.option) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        by_worker = Sessions(upstream, port, 20).split(pids)
        proxy.signal(signal.SIGTERM)
        proxy.says(r"Port \d+ Closed")
        killed, other = by_worker
        os.kill(killed, signal.SIGKILL)
        proxy.says(rf"worker \d \(process {killed}\) killed by SIGKILL; its sessions are lost$")
        for client, server in by_worker[other]:
            assert works((client, server))
            client.close()
            server.close()
        assert proxy.ended() == 0


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGQUIT])
def test_second_signal(upstream: Upstream, first: signal.Signals) -> None:
    """A second signal resets every session of every worker."""
    with Supervised(ANY_PORT, upstream.option) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        sessions = Sessions(upstream, port, 20)
        assert all(sessions.split(pids).values())
        proxy.signal(first)
        wait_until(lambda: refused(port))
        proxy.signal(signal.SIGTERM)
        assert {rest(client) for client, _ in sessions.pairs} == {(b"", RESET)}
        assert proxy.ended() == 0
        all_end(proxy.everyone())


def test_drain_timeout(upstream: Upstream) -> None:
    """Sessions that do not finish within the drain timeout are reset, in all workers."""
    with Supervised(ANY_PORT, upstream.option, "--drain-timeout=0.3") as proxy:
        port = proxy.serves()
        proxy.workers()
        sessions = Sessions(upstream, port, 10)
        proxy.signal(signal.SIGTERM)
        assert {rest(client) for client, _ in sessions.pairs} == {(b"", RESET)}
        assert proxy.ended() == 0
        all_end(proxy.everyone())


def test_signals_of_a_terminal(upstream: Upstream) -> None:
    """What a terminal or systemd also sends to the workers does not harm them."""
    with Supervised(ANY_PORT, upstream.option) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        sessions = Sessions(upstream, port, 10)
        for pid in pids:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                os.kill(pid, number)
        assert all(map(works, sessions.pairs))
        assert children(proxy.pid) == pids


@pytest.mark.oldest_twisted
def test_killed_worker(upstream: Upstream) -> None:
    """A worker that is killed loses its own sessions, and no others; another one replaces it."""
    with Supervised(ANY_PORT, upstream.option) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        by_worker = Sessions(upstream, port, 20).split(pids)
        victim, survivor = pids
        os.kill(victim, signal.SIGKILL)
        for client, server in by_worker[victim]:
            assert rest(client)[1] == RESET or rest(server)[1] in (RESET, END)
        proxy.says(rf"worker \d \(process {victim}\) killed by SIGKILL; its sessions are lost")
        proxy.says(r"worker \d serves again")
        assert all(map(works, by_worker[survivor]))
        after = proxy.workers()
        assert survivor in after
        assert victim not in after
        fresh = Sessions(upstream, port, 40).split(after)
        assert all(fresh.values())
        proxy.signal(signal.SIGQUIT)
        wait_until(lambda: refused(port))
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
        all_end(proxy.everyone())


def test_clients_wait_for_the_replacement(upstream: Upstream) -> None:
    """No client is refused while a worker is missing: those in its accept queue wait."""
    with Supervised(ANY_PORT, upstream.option) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        with ExitStack() as open_clients:
            clients = [open_clients.enter_context(connected(port)) for _ in range(20)]
            for client in clients:
                client.sendall(b"?")
            for _ in clients:
                with upstream.accept() as server:
                    server.settimeout(PATIENCE)
                    assert server.recv(1) == b"?"
                    server.sendall(b"!")
            assert {client.recv(1) for client in clients} == {b"!"}
        assert not set(pids) & set(proxy.workers())


@pytest.mark.deadline(240)
@pytest.mark.slow
def test_hanging_worker(upstream: Upstream) -> None:
    """A worker whose loop hangs is killed, and replaced."""
    with Supervised(ANY_PORT, upstream.option, patience=150.0) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        by_worker = Sessions(upstream, port, 20).split(pids)
        victim, survivor = pids
        os.kill(victim, signal.SIGSTOP)
        client, _ = by_worker[victim][0]
        client.settimeout(90.0)
        assert rest(client)[1] in (RESET, END)
        proxy.says(rf"worker \d \(process {victim}\) killed, since its loop hangs; its sessions")
        proxy.says(r"worker \d serves again")
        assert all(map(works, by_worker[survivor]))


def test_dies_again_and_again(upstream: Upstream) -> None:
    """A worker that dies at once starts at a bounded rate, and is reported once a period."""
    deaths = 6
    with Supervised(ANY_PORT, upstream.option) as proxy:
        port, (victim, survivor) = proxy.serves(), proxy.workers()
        began = time.monotonic()
        for _ in range(deaths):
            os.kill(victim, signal.SIGKILL)
            before = {victim, survivor}
            wait_until(lambda: bool({*children(proxy.pid)} - before))  # noqa: B023
            (victim,) = {*children(proxy.pid)} - before
        # 0.1 s, and twice as much after each further death.
        assert time.monotonic() - began > 0.1 * (2**deaths - 1)
        proxy.says("serves again")
        assert upstream.session(port)
        said = [formatEvent(event) for event in proxy.events]
        reported = [text for text in said if "killed by SIGKILL" in text]
        assert [re.findall(r"in ([\d.]+) s", text) for text in reported] == [
            ["0.1"],
            ["0.2"],
            ["0.4"],
        ]


@pytest.mark.oldest_twisted
def test_killed_supervisor(upstream: Upstream) -> None:
    """Without the supervisor, the workers accept nothing, drain, and end in time."""
    with Supervised(ANY_PORT, upstream.option, "--drain-timeout=2") as proxy:
        port, pids = proxy.serves(), proxy.workers()
        sessions = Sessions(upstream, port, 10)
        began = time.monotonic()
        os.kill(proxy.pid, signal.SIGKILL)
        wait_until(lambda: refused(port))
        assert all(map(works, sessions.pairs))
        assert {rest(client) for client, _ in sessions.pairs} == {(b"", RESET)}
        all_end(pids)
        assert 1.0 < time.monotonic() - began < 10


def test_killed_supervisor_without_sessions(upstream: Upstream) -> None:
    """Without the supervisor and without sessions, the workers end at once."""
    with Supervised(ANY_PORT, upstream.option) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        assert upstream.session(port)
        os.kill(proxy.pid, signal.SIGKILL)
        all_end(pids)


def test_stopped_while_it_starts(upstream: Upstream) -> None:
    """SIGTERM while the workers start ends them, and the supervisor."""
    with Supervised(ANY_PORT, upstream.option) as proxy:
        proxy.says("reactor class")
        wait_until(lambda: bool(children(proxy.pid)))
        proxy.workers()
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
        all_end(proxy.everyone())


def test_address_in_use(upstream: Upstream) -> None:
    """An address in use is one line, also if the other process is an evproxy with workers."""
    with Supervised(ANY_PORT, upstream.option) as proxy:
        port = proxy.serves()
        for workers in (1, 2):
            listen = f"--listen=tcp:{port}:interface=127.0.0.1"
            options = (listen, upstream.option, f"--workers={workers}")
            outcome = run("-n", "--pidfile=", "evproxy", *options)
            line = f"evproxy: --listen: cannot listen on 127.0.0.1:{port}: Address already in use\n"
            assert (outcome.status, outcome.err) == (1, line)


def test_demo() -> None:
    """``--demo`` shows its page through the workers."""
    with Supervised(ANY_PORT, "--demo") as proxy:
        assert b"This page came through evproxy" in page(proxy.serves())
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--workers=0"], 'a whole number from 1 to 256, or "auto", got "0"'),
        (["--workers=4", "--max-sessions=3"], "max_sessions: expected at least the number of"),
    ],
)
def test_wrong_options(upstream: Upstream, options: list[str], problem: str) -> None:
    """A wrong number of workers is refused with one line."""
    outcome = run("-n", "--pidfile=", "evproxy", *options, upstream.option)
    assert outcome.status == 1
    assert problem in outcome.err
    assert outcome.err.count("\n") == 1


def test_as_many_as_processors(upstream: Upstream) -> None:
    """``auto``: one worker for each processor; none beside the process if there is only one."""
    command = [sys.executable, "-c", ONE_PROCESSOR, "-n", "--pidfile=", JSON_LOG, "evproxy"]
    with Running(ANY_PORT, upstream.option, "--workers=auto", command=command) as proxy:
        proxy.says("evproxy .* listens on .* sessions$")
        assert children(proxy.pid) == []


ONE_PROCESSOR = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from twisted.scripts.twistd import run
run()
"""
