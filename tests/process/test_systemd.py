"""``twistd evproxy`` under systemd: what it says, and what it does if nobody listens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.blocking_clients import Upstream, page, rest
from tests.support.configured import ConfigFile
from tests.support.peers import END
from tests.support.programs import requires_program
from tests.support.real_servers import free_port
from tests.support.service_manager import NAMED, Manager, stored_in
from tests.support.twistd import JSON_LOG, ROOT, TWISTD, Running, run

pytestmark = pytest.mark.oldest_twisted

LISTEN = "--listen=tcp:0:interface=127.0.0.1"
UNIT = ROOT / "examples" / "evproxy.service"


@pytest.mark.parametrize("manager", NAMED, indirect=True)
def test_the_life_of_a_service(manager: Manager, upstream: Upstream) -> None:
    """systemd hears that the proxy is ready, that it stops, and that it needs time for that."""
    with Running("evproxy", LISTEN, upstream.option) as proxy:
        assert manager.receive() == {"FDSTORE": "1", "FDNAME": "evproxy"}
        assert manager.receive() == {"READY": "1", "STATUS": "0 sessions"}
        client, server = upstream.connect(proxy.port())
        proxy.signal(signal.SIGTERM)
        assert manager.receive() == {"STOPPING": "1"}
        assert manager.receive() == {
            "EXTEND_TIMEOUT_USEC": "15000000",
            "STATUS": "stopping, 1 session left",
        }
        assert manager.receive() == {"EXTEND_TIMEOUT_USEC": "15000000"}
        client.close()
        assert rest(server) == (b"", END)
        server.close()
        assert proxy.ended() == 0


def test_a_reload(manager: Manager, configured: ConfigFile) -> None:
    """``Type=notify-reload``: a reload begins with the time, and ends with ``READY=1``."""
    with Running("evproxy", configured.option) as proxy:
        manager.ready()
        for problem, write in (
            ("", lambda: configured.write(pool="two")),
            ("pools.one.connect_timeout: expected", lambda: configured.write(timeout='"soon"')),
            ("", lambda: configured.write(timeout="3.0")),
        ):
            write()
            before = time.monotonic_ns() // 1000
            proxy.signal(signal.SIGHUP)
            began = manager.receive()
            assert began.pop("RELOADING") == "1"
            assert before <= int(began.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
            assert not began
            ended = manager.receive()
            assert ended["READY"] == "1"
            assert ended["STATUS"].startswith("0 sessions")
            assert ("not reloaded: " in ended["STATUS"]) == bool(problem)
            assert problem in ended["STATUS"]


def test_a_reload_without_a_file(manager: Manager) -> None:
    """``systemctl reload`` must not wait in vain: it hears the end, and why nothing changed."""
    with Running("evproxy", "--demo", LISTEN) as proxy:
        manager.ready()
        proxy.signal(signal.SIGHUP)
        assert manager.receive()["RELOADING"] == "1"
        assert manager.ready()["STATUS"].endswith(
            "; not reloaded: there is no configuration file to read again"
        )


def test_the_watchdog(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop feeds the watchdog at twice the rate that systemd asks for."""
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with Running("evproxy", "--demo", LISTEN):
        manager.ready()
        began = time.monotonic()
        for _ in range(10):
            manager.until(lambda message: message == {"WATCHDOG": "1"})
        assert 0.8 < time.monotonic() - began < 10


def test_the_watchdog_of_another_process(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that systemd does not watch feeds no watchdog."""
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with Running("evproxy", "--demo", LISTEN) as proxy:
        manager.ready()
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    while "STOPPING" not in manager.receive():
        pass
    assert {"WATCHDOG": "1"} not in manager.messages


def test_a_loop_that_hangs(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that does not run feeds no watchdog: the messages come from the loop itself."""
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    with Running("evproxy", "--demo", LISTEN) as proxy:
        manager.ready()
        manager.receive()
        proxy.signal(signal.SIGSTOP)
        manager.drain()
        with pytest.raises(TimeoutError):
            manager.receive(0.5)
        proxy.signal(signal.SIGCONT)
        assert manager.receive() == {"WATCHDOG": "1"}


@pytest.fixture
def deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager that never reads, and whose queue is full."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler,
    ):
        sock.bind(str(tmp_path / "notify"))
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                filler.sendto(b"X=1", str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def serves_reloads_and_stops(proxy: Running, configured: ConfigFile, upstream: Upstream) -> None:
    """Whatever becomes of the messages, evproxy works."""
    assert upstream.session(proxy.port())
    configured.write(timeout="1.0")
    proxy.signal(signal.SIGHUP)
    proxy.says("reloaded: 1 change")
    proxy.signal(signal.SIGTERM)
    assert proxy.ended() == 0


def test_nobody_reads(
    deaf: socket.socket, configured: ConfigFile, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue delays the messages, and nothing else."""
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    with Running("evproxy", configured.option) as proxy:
        proxy.port()
        while deaf.recv(100) != b"READY=1\nSTATUS=0 sessions":
            """The queue empties, and the message comes with the next attempt."""
        serves_reloads_and_stops(proxy, configured, upstream)


def test_a_queue_that_stays_full(
    deaf: socket.socket, configured: ConfigFile, upstream: Upstream
) -> None:
    """Without any room, evproxy works and ends."""
    with Running("evproxy", configured.option) as proxy:
        serves_reloads_and_stops(proxy, configured, upstream)


def test_nobody_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: ConfigFile, upstream: Upstream
) -> None:
    """A dead socket is one line in the log."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    with Running("evproxy", configured.option) as proxy:
        proxy.says("the service manager cannot be notified at .*/none: No such file or directory")
        serves_reloads_and_stops(proxy, configured, upstream)
    said = [event for event in proxy.events if "the service manager" in event.get("log_format", "")]
    assert len(said) == 1


def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket of another kind is refused in one line."""
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1234")
    outcome = run("-n", "--pidfile=", "evproxy", "--demo", LISTEN)
    assert (outcome.status, outcome.err) == (
        1,
        "evproxy: NOTIFY_SOCKET: expected a path or @NAME, got 'vsock:2:1234'\n",
    )


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_descriptor_store(
    manager: Manager,
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: signal.Signals,
) -> None:
    """Clients that connect after a crash, or between two processes, are served by the next one."""
    monkeypatch.setenv("FDSTORE", "64")
    port, path = free_port(), tmp_path / "socket"
    listen = [f"--listen=tcp:{port}:interface=127.0.0.1", f"--listen=unix:{path}"]
    with Running("evproxy", *listen, upstream.option) as first:
        manager.ready()
        assert manager.messages[0] == {"FDSTORE": "1", "FDNAME": "evproxy"}
        stored = manager.descriptors["evproxy"]
        assert len(stored) == 2
        first.signal(end)
        first.ended()
    inode = path.stat().st_ino
    with contextlib.ExitStack() as clients:
        waiting = [
            clients.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            for _ in range(3)
        ]
        waiting.append(clients.enter_context(socket.socket(socket.AF_UNIX)))
        waiting[-1].connect(str(path))
        for client in waiting:
            client.sendall(b"?")
        with Running("evproxy", *listen, upstream.option, **stored_in(stored)) as second:
            for _ in waiting:
                with upstream.accept() as server:
                    assert server.recv(1) == b"?"
            assert path.stat().st_ino == inode
            clients.close()
            second.signal(signal.SIGTERM)
            assert second.ended() == 0


def test_a_stored_socket_that_nobody_wants(
    manager: Manager, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has the sockets of now: those that the next process does not use are removed."""
    monkeypatch.setenv("FDSTORE", "64")
    ports = [free_port(), free_port()]
    one, two = (f"--listen=tcp:{port}:interface=127.0.0.1" for port in ports)
    with Running("evproxy", one, two, upstream.option) as first:
        manager.ready()
        first.signal(signal.SIGKILL)
        first.ended()
    stored = manager.descriptors.pop("evproxy")
    with Running("evproxy", one, upstream.option, **stored_in(stored)):
        assert manager.receive() == {"FDSTOREREMOVE": "1", "FDNAME": "evproxy"}
        assert manager.receive() == {"FDSTORE": "1", "FDNAME": "evproxy"}
        [kept] = manager.descriptors["evproxy"]
        with socket.socket(fileno=os.dup(kept)) as sock:
            assert sock.getsockname()[1] == ports[0]
        assert manager.ready()
        assert upstream.session(ports[0])


def test_a_reload_changes_the_store(
    manager: Manager, configured: ConfigFile, upstream: Upstream
) -> None:
    """A listener that comes or goes changes what is stored; other reloads do not."""
    old, new = free_port(), free_port()
    configured.write(listen=f"tcp:{old}:interface=127.0.0.1")
    with Running("evproxy", configured.option) as proxy:
        manager.ready()
        configured.write(listen=f"tcp:{new}:interface=127.0.0.1")
        proxy.signal(signal.SIGHUP)
        manager.ready()
        assert [each for each in manager.messages if "FDNAME" in each] == [
            {"FDSTORE": "1", "FDNAME": "evproxy"},
            {"FDSTOREREMOVE": "1", "FDNAME": "evproxy"},
            {"FDSTORE": "1", "FDNAME": "evproxy"},
        ]
        configured.write(timeout="1.0")
        proxy.signal(signal.SIGHUP)
        manager.ready()
        assert "READY" in manager.messages[-1]
        assert "RELOADING" in manager.messages[-2]
        assert upstream.session(new)


def test_without_a_store_a_path_is_removed(
    manager: Manager, upstream: Upstream, tmp_path: Path
) -> None:
    """If it is not known whether there is a store, a UNIX listener still removes its path."""
    path = tmp_path / "socket"
    with Running("evproxy", f"--listen=unix:{path}", upstream.option) as proxy:
        manager.ready()
        assert not [each for each in manager.messages if "FDNAME" in each]
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    assert not path.exists()


TAC = """
import os
from twisted.application.service import Application
from twisted.internet import reactor
from evproxy import ProxyService, Systemd

application = Application("evproxy")
proxy = ProxyService(reactor, ["tcp:0:interface=127.0.0.1"], ["127.0.0.1:1"])
Systemd(reactor, proxy, os.environ).setServiceParent(application)
proxy.setServiceParent(application)
assert "NOTIFY_SOCKET" not in os.environ
"""


def test_a_tac_file(manager: Manager, tmp_path: Path) -> None:
    """A ``.tac`` file notifies systemd with one line."""
    tac = tmp_path / "proxy.tac"
    tac.write_text(TAC)
    command = [TWISTD, "-n", "--pidfile=", JSON_LOG, "-y", str(tac)]
    with Running(command=command) as proxy:
        manager.ready()
        proxy.port()
        proxy.signal(signal.SIGTERM)
        assert manager.receive() == {"STOPPING": "1"}
        # Without `Signals`, twistd ends with the signal.
        assert proxy.ended() == -signal.SIGTERM


def test_it_keeps_to_itself_without_systemd() -> None:
    """Without the variable, nothing is sent."""
    assert "NOTIFY_SOCKET" not in os.environ
    with Running("evproxy", "--demo", LISTEN) as proxy:
        assert b"200 OK" in page(proxy.port())


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The example unit, with the path of the program here, as the installed systemd knows it."""
    text = UNIT.read_text().replace("/opt/evproxy/bin/twistd", TWISTD)
    said = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True)
    if int(said.stdout.split()[1]) < 253:
        text = text.replace("Type=notify-reload", "Type=notify")
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    return unit


@pytest.mark.peers("systemd-analyze")
def test_the_example_unit_is_right(unit: Path) -> None:
    """systemd finds nothing to complain about."""
    analyze = requires_program("systemd-analyze")
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.peers("systemd-analyze")
def test_the_example_unit_is_hardened(unit: Path) -> None:
    """systemd calls its exposure OK: at most 2.0 of 10."""
    analyze = requires_program("systemd-analyze")
    command = [analyze, "security", "--offline=yes", "--threshold=20", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
