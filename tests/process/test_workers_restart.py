"""Restarts without a gap, and the descriptor store of systemd, with several workers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.admin_process import ask
from tests.support.blocking_clients import Upstream, page, rest
from tests.support.pages import page_load
from tests.support.peers import END
from tests.support.real_servers import free_port
from tests.support.service_manager import Manager, stored_in
from tests.support.supervised import (
    LONG,
    Supervised,
    all_end,
    children,
    connected,
    listens,
    owners,
)
from tests.support.twistd import Running, wait_until

GENERATIONS = 2
CLIENTS = 32


class Place:
    """Where the processes of one test listen, one after the other."""

    def __init__(self, directory: Path, server: str) -> None:
        self.port = free_port()
        self.unix = directory / "socket"
        self.path = directory / "restart"
        self.admin = free_port()
        self.options = [
            f"--admin=tcp:{self.admin}:interface=127.0.0.1",
            f"--listen=tcp:{self.port}:interface=127.0.0.1",
            f"--listen=unix:{self.unix}",
            f"--restart-socket={self.path}",
            server,
        ]

    def processes(self, workers: int) -> Running:
        """A proxy with so many workers, or in one process."""
        if workers == 1:
            return Running("evproxy", *self.options, patience=LONG)
        return Supervised(*self.options, workers=workers)


@pytest.fixture
def place(tmp_path: Path, upstream: Upstream) -> Place:
    return Place(tmp_path, upstream.option)


def say_something(upstream: Upstream, path: Path) -> None:
    """Pass a byte through the UNIX listener at `path`."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"?")
        with upstream.accept() as server:
            assert server.recv(1) == b"?"


@pytest.mark.parametrize(("before", "after"), [(2, 2), (1, 2), (2, 1), (2, 3)])
def test_new_processes(place: Place, upstream: Upstream, before: int, after: int) -> None:
    """The new processes have the new clients, also of the admin interface; the old ones end."""
    with place.processes(before) as old:
        old.says("another process can take over at")
        client, server = upstream.connect(place.port)
        inode = place.unix.stat().st_ino
        olds = old.workers() if isinstance(old, Supervised) else [old.pid]
        assert ask(place.admin, "/status")["pid"] == old.pid
        assert all(listens(pid, place.port) for pid in olds)
        with place.processes(after) as new:
            new.says("this process has taken over")
            old.says("another process has taken over, this one drains")
            wait_until(lambda: not any(listens(pid, place.port) for pid in olds))
            wait_until(lambda: not listens(old.pid, place.admin))
            assert ask(place.admin, "/status")["pid"] == new.pid
            if isinstance(new, Supervised):
                pids = new.workers()
                with ExitStack() as opened:
                    clients = [opened.enter_context(connected(place.port)) for _ in range(40)]
                    assert set(owners(clients, pids)) == set(pids)
                    for _ in clients:
                        opened.enter_context(upstream.accept())
            say_something(upstream, place.unix)
            client.sendall(b"bye")
            client.shutdown(socket.SHUT_WR)
            assert rest(server) == (b"bye", END)
            server.close()
            assert rest(client) == (b"", END)
            assert old.ended() == 0
            assert place.unix.stat().st_ino == inode
            say_something(upstream, place.unix)
            assert upstream.session(place.port)
            new.signal(signal.SIGTERM)
            assert new.ended() == 0
    assert not place.unix.exists()
    assert not place.path.exists()


def test_new_workers_that_do_not_serve(place: Place, upstream: Upstream) -> None:
    """If the new supervisor stops before its workers serve, the old one has everything still."""
    with place.processes(2) as old:
        old.says("another process can take over at")
        with place.processes(2) as new:
            wait_until(lambda: len(children(new.pid)) == 2)
            stopped = children(new.pid)[0]
            os.kill(stopped, signal.SIGSTOP)
            new.signal(signal.SIGTERM)
            os.kill(stopped, signal.SIGCONT)
            assert new.ended() == 0
        old.says("the process that was to take over has ended, this one goes on")
        assert all(upstream.session(place.port) for _ in range(8))
        say_something(upstream, place.unix)
        assert os.readlink(f"{place.unix}.lock") == str(old.pid)
        with place.processes(2) as third:
            third.says("this process has taken over")
            assert old.ended() == 0


@pytest.mark.deadline(180)
@pytest.mark.peers("wrk", "haproxy")
def test_restarts_under_load(pages: int, tmp_path: Path) -> None:
    """Supervisors follow each other under load: no client is refused or reset."""
    place = Place(tmp_path, f"--upstream=127.0.0.1:{pages}")
    place.options.append("--access-log=off")
    with ExitStack() as running:

        def start() -> Running:
            made = running.enter_context(place.processes(2))
            made.says("another process can take over at")
            return made

        started = [start()]
        with page_load(place.port, CLIENTS) as load:
            for _ in range(GENERATIONS):
                started.append(start())
                started[-1].says("this process has taken over")
                assert started[-2].ended() == 0
        assert b"here" in page(place.port)
        started[-1].signal(signal.SIGTERM)
        assert started[-1].ended() == 0
    load.check()


def test_the_descriptor_store(
    manager: Manager, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd keeps the sockets of a supervisor that crashes; clients wait for the next one."""
    monkeypatch.setenv("FDSTORE", "64")
    port, path = free_port(), tmp_path / "socket"
    options = [f"--listen=tcp:{port}:interface=127.0.0.1", f"--listen=unix:{path}", upstream.option]
    with Supervised(*options) as first:
        manager.ready()
        stored = manager.descriptors["evproxy"]
        assert len(stored) == 3
        pids = first.workers()
        first.signal(signal.SIGKILL)
        first.ended()
        all_end(pids)
    with contextlib.ExitStack() as clients:
        waiting = [clients.enter_context(connected(port)) for _ in range(8)]
        for client in waiting:
            client.sendall(b"?")
        with Supervised(*options, **stored_in(stored)) as second:
            for _ in waiting:
                with upstream.accept() as server:
                    assert server.recv(1) == b"?"
            say_something(upstream, path)
            clients.close()
            second.signal(signal.SIGTERM)
            assert second.ended() == 0
