"""Signals at every moment of the process of ``twistd evproxy``, and signals that it ignores."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support.blocking_clients import page
from tests.support.programs import requires_program
from tests.support.startup_signals import REACTOR, signalled
from tests.support.twistd import JSON_LOG, PATIENCE, TWIST, TWISTD, Running, run, wait_until

pytestmark = pytest.mark.oldest_twisted

LISTEN = "--listen=tcp:0:interface=127.0.0.1"
STOPPING = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
REACTORS = ["epoll", "poll", "select", "asyncio"]
MOMENTS = ["starting up", "reactor class", "starting on", "evproxy .* listens on", REACTOR]
IGNORING = 'trap "" "$1"; shift; exec "$@"'


def files(directory: Path) -> list[str]:
    """Return the command line of a proxy with a pid file, a socket and a lock in `directory`."""
    return ["evproxy", "--demo", f"--listen=unix:{directory}/socket"]


@pytest.mark.parametrize(
    ("moment", "number"),
    [(moment, signal.SIGTERM) for moment in MOMENTS] + [(REACTOR, each) for each in STOPPING[1:]],
)
def test_a_signal_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, number: signal.Signals
) -> None:
    """A signal at any moment of the start ends the process with status 0, and leaves nothing."""
    for name, value in signalled(number, moment).items():
        monkeypatch.setenv(name, value)
    command = [
        TWISTD,
        "-n",
        f"--pidfile={tmp_path}/pid",
        "--logger=tests.support.startup_signals.log",
    ]
    with Running(*files(tmp_path), command=command) as proxy:
        assert proxy.ended() == 0
        assert proxy.says("Server Shut Down")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_reload_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A SIGHUP at any moment of the start reloads once the proxy runs, and ends nothing."""
    for name, value in signalled(signal.SIGHUP, moment).items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "evproxy.toml"
    path.write_text(f"""
[[listeners]]
listen = "unix:{tmp_path}/socket"
[pools.web]
upstreams = ["127.0.0.1:1"]
""")
    command = [TWISTD, "-n", "--pidfile=", "--logger=tests.support.startup_signals.log"]
    with Running("evproxy", f"--config={path}", command=command) as proxy:
        proxy.says("reloaded: nothing has changed")
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0


@pytest.mark.parametrize("kind", REACTORS)
def test_a_signal_when_a_reactor_has_its_own_handlers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With no reactor does the signal kill the process."""
    for name, value in signalled(signal.SIGTERM, REACTOR).items():
        monkeypatch.setenv(name, value)
    pid_file, logger = f"--pidfile={tmp_path}/pid", "--logger=tests.support.startup_signals.log"
    command = [TWISTD, "-n", f"--reactor={kind}", pid_file, logger]
    with Running(*files(tmp_path), command=command) as proxy:
        assert proxy.ended() == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", [*MOMENTS[2:]])
def test_a_signal_while_a_daemon_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A daemon leaves nothing either; its shell gets a success status."""
    for name, value in signalled(signal.SIGTERM, moment).items():
        monkeypatch.setenv(name, value)
    options = [f"--pidfile={tmp_path}/pid", "--logger=tests.support.startup_signals.log"]
    assert run(*options, *files(tmp_path)).status == 0
    wait_until(lambda: not list(tmp_path.iterdir()))


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_as_soon_as_it_listens(tmp_path: Path, number: signal.Signals) -> None:
    """A signal right after the line ``listens on`` ends the process with status 0."""
    command = [TWISTD, "-n", f"--pidfile={tmp_path}/pid", JSON_LOG]
    with Running(*files(tmp_path), command=command) as proxy:
        proxy.says("evproxy .* listens on")
        proxy.signal(number)
        assert proxy.ended() == 0
    assert list(tmp_path.iterdir()) == []


def test_twist_as_soon_as_it_listens(tmp_path: Path) -> None:
    """``twist`` ends with status 0 too."""
    with Running(*files(tmp_path), command=[TWIST, "--log-format=json"]) as proxy:
        proxy.says("evproxy .* listens on")
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    assert list(tmp_path.iterdir()) == []


def ignored(pid: int) -> set[int]:
    """Return the signals that a process ignores."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.partition("SigIgn:")[2].split()[0], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


@pytest.mark.parametrize(
    ("kind", "number"),
    [("epoll", number) for number in STOPPING] + [(kind, signal.SIGTERM) for kind in REACTORS[1:]],
)
def test_a_signal_that_was_ignored_stays_ignored(kind: str, number: signal.Signals) -> None:
    """A signal that is ignored when evproxy starts stays ignored, under any reactor."""
    shell = ["sh", "-c", IGNORING, "sh", number.name.removeprefix("SIG")]
    twistd = [
        TWISTD,
        "-n",
        "--pidfile=",
        f"--reactor={kind}",
        JSON_LOG,
    ]
    with Running("evproxy", "--demo", LISTEN, command=[*shell, *twistd]) as proxy:
        port = proxy.port()
        assert b"200 OK" in page(port)
        assert ignored(proxy.pid) & set(STOPPING) == {number}
        proxy.signal(number)
        assert b"200 OK" in page(port)
        proxy.signal(next(each for each in STOPPING if each is not number))
        assert proxy.ended() == 0


def test_nohup() -> None:
    """A proxy under ``nohup`` outlives its terminal, and SIGTERM still stops it."""
    twistd = [TWISTD, "-n", "--pidfile=", JSON_LOG]
    command = [requires_program("nohup"), *twistd]
    with Running("evproxy", "--demo", LISTEN, command=command) as proxy:
        port = proxy.port()
        assert b"200 OK" in page(port)
        proxy.signal(signal.SIGHUP)
        assert b"200 OK" in page(port)
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0


def test_a_background_job_of_a_script(tmp_path: Path) -> None:
    """Ctrl-C for a script does not stop a proxy in a background job of the script."""
    twistd = [TWISTD, "-n", f"--pidfile={tmp_path}/pid", JSON_LOG]
    command = ["sh", "-c", '"$@" & wait $!', "sh", *twistd]
    with Running("evproxy", "--demo", LISTEN, command=command) as shell:
        port = shell.port()
        assert b"200 OK" in page(port)
        job = int((tmp_path / "pid").read_text())
        for number in (signal.SIGINT, signal.SIGQUIT):
            os.kill(job, number)
        assert b"200 OK" in page(port)
        os.kill(job, signal.SIGTERM)
        assert shell.ended() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
