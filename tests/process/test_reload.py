"""SIGHUP: ``twistd evproxy`` reads its configuration file again."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from twisted.logger import formatEvent

from tests.support.blocking_clients import Upstream, page, rest
from tests.support.configured import ConfigFile, configured_for
from tests.support.pages import page_load
from tests.support.peers import END
from tests.support.real_servers import free_port
from tests.support.supervised import Supervised
from tests.support.twistd import JSON_LOG, TWISTD, Running, wait_until

pytestmark = pytest.mark.oldest_twisted

RELOADS = {1: 200, 2: int(os.environ.get("EVPROXY_TEST_RELOADS", "10"))}
"""How often the configuration changes under load, by the number of workers; CI has little time."""

CLIENTS = 64
"""How many clients connect at a time."""


def test_a_change(configured: ConfigFile, upstream: Upstream) -> None:
    """The log says what has changed; sessions go on."""
    with Running("evproxy", configured.option) as proxy:
        port = proxy.port()
        client, server = upstream.connect(port)
        configured.write(pool="two", timeout="1.0")
        proxy.signal(signal.SIGHUP)
        proxy.says('reload: listener web: pool: "one" -> "two"')
        proxy.says("reload: pool one: connect_timeout: 5.0 -> 1.0")
        proxy.says("reloaded: 2 changes")
        client.sendall(b"?")
        assert server.recv(1) == b"?"
        assert upstream.session(port)
        client.close()
        assert rest(server) == (b"", END)
        server.close()
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0


def become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (lambda path: path.write_text("nonsense"), r"line 1"),
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read: Is a directory"),
        (become_a_fifo, "cannot be read: it is not a regular file"),
        (
            lambda path: path.write_text(path.read_text().replace('pool = "one"', 'pool = "no"')),
            "listeners\\[0\\].pool: ",
        ),
        (lambda path: path.write_text('relay = "stream"\n' + path.read_text()), "needs a restart"),
    ],
)
def test_a_file_that_cannot_be_used(
    configured: ConfigFile, upstream: Upstream, break_it: Callable[[Path], object], problem: str
) -> None:
    """A wrong file changes nothing; once it is right, it can be read again."""
    with Running("evproxy", configured.option) as proxy:
        port = proxy.port()
        break_it(configured.path)
        proxy.signal(signal.SIGHUP)
        proxy.says(problem)
        proxy.says("not reloaded, nothing has changed: 1 problem")
        assert upstream.session(port)
        if configured.path.is_dir():
            configured.path.rmdir()
        configured.write(timeout="1.0")
        proxy.signal(signal.SIGHUP)
        proxy.says("reloaded: 1 change")
        assert upstream.session(port)


def test_without_a_file() -> None:
    """Without a file, the log says that there is none, and the proxy goes on."""
    with Running("evproxy", "--demo", "--listen=tcp:0:interface=127.0.0.1") as proxy:
        port = proxy.port()
        proxy.signal(signal.SIGHUP)
        proxy.says("reload: there is no configuration file to read again")
        assert b"200 OK" in page(port)


def test_while_it_stops(configured: ConfigFile, upstream: Upstream) -> None:
    """SIGHUP during a drain reloads nothing, and resets no session."""
    with Running("evproxy", configured.option) as proxy:
        port = proxy.port()
        client, server = upstream.connect(port)
        proxy.signal(signal.SIGQUIT)
        proxy.says(rf"Port {port} Closed")
        proxy.signal(signal.SIGHUP)
        proxy.says("evproxy stops, it cannot be reloaded any more")
        client.sendall(b"bye")
        client.shutdown(socket.SHUT_WR)
        assert rest(server) == (b"bye", END)
        server.close()
        assert rest(client) == (b"", END)
        assert proxy.ended() == 0


def test_a_daemon(configured: ConfigFile, upstream: Upstream, tmp_path: Path) -> None:
    """A daemon in another directory finds a file whose path was relative; "-" is refused there."""
    configured.write(log="off", listen=f"tcp:{free_port()}:interface=127.0.0.1")
    pid_file, log = tmp_path / "pid", tmp_path / "twistd.log"
    (tmp_path / "elsewhere").mkdir()
    options = [f"--pidfile={pid_file}", f"--logfile={log}", "--rundir=elsewhere"]
    subprocess.run([TWISTD, *options, "evproxy", "--config=evproxy.toml"], cwd=tmp_path, check=True)
    pid = int(pid_file.read_text())
    try:
        configured.write(timeout="1.0")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: "reloaded: 1 change" in log.read_text())
        configured.write(log="-")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: "access_log.path: without -n" in log.read_text())
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not pid_file.exists())


TAC = """
from twisted.application.service import Application
from twisted.internet import reactor
from evproxy import ProxyService, Signals
from evproxy.cli.settings_file import read_settings

application = Application("evproxy")
proxy = ProxyService.from_settings(reactor, read_settings({path!r}))
proxy.settings_from = lambda: read_settings({path!r})
proxy.setServiceParent(application)
Signals(reactor, proxy).install()
"""


def test_a_tac_file(configured: ConfigFile, upstream: Upstream, tmp_path: Path) -> None:
    """A ``.tac`` file that composes a service can reload, too."""
    tac = tmp_path / "proxy.tac"
    tac.write_text(TAC.format(path=str(configured.path)))
    command = [TWISTD, "-n", "--pidfile=", JSON_LOG, "-y", str(tac)]
    with Running(command=command) as proxy:
        port = proxy.port()
        configured.write(pool="two")
        proxy.signal(signal.SIGHUP)
        proxy.says("reloaded: 1 change")
        assert upstream.session(port)
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0


@pytest.mark.slow
@pytest.mark.deadline(180)
@pytest.mark.many_descriptors
@pytest.mark.peers("wrk", "haproxy")
@pytest.mark.parametrize("workers", [1, 2])
def test_reloads_under_load(
    workers: int, pages: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """
    Two hundred reloads under load, each with many changes: no client is refused or reset.

    With workers, ten; ``EVPROXY_TEST_RELOADS=200`` makes them two hundred.

    The test states how many connections there were in a second.
    """
    port = free_port()
    plain, other = (f"tcp:{port}:interface=127.0.0.1{end}" for end in ("", ":backlog=4000"))
    configured = configured_for(tmp_path, f"127.0.0.1:{pages}", workers)
    configured.write(listen=plain, log="off")
    log = tmp_path / "access.log"
    running = partial(Supervised, workers=None) if workers > 1 else partial(Running, "evproxy")
    with running(configured.option, patience=150) as proxy:
        proxy.says("evproxy .* listens on")
        with page_load(port, CLIENTS) as load:
            for number in range(1, RELOADS[workers] + 1):
                if number % 2:
                    limits = "max_sessions_per_peer = 50000"
                    configured.write(listen=other, pool="two", listener=limits, log=str(log))
                else:
                    configured.write(listen=plain, pool="one", listener="", log="off")
                proxy.signal(signal.SIGHUP)
                proxy.says_again("^reloaded: [1-9]", number)
    said = [formatEvent(event) for event in proxy.events]
    assert not [line for line in said if re.search("not reloaded|cannot connect", line)]
    load.check()
    record_property("connections_per_second", load.per_second)
    assert load.per_second > 200
    assert log.read_text().count("\n") > RELOADS[workers]
