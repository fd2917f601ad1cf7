"""``twistd evproxy --workers``: the workers share reloads, checks, limits, sockets, the log."""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from twisted.logger import formatEvent

from tests.support.blocking_clients import Upstream, rest
from tests.support.certificates import Certificates
from tests.support.configured import ConfigFile
from tests.support.peers import RESET
from tests.support.service_manager import Manager
from tests.support.supervised import Supervised, all_end, children, connected, owners
from tests.support.twistd import PATIENCE, session_event, wait_until

ANY_PORT = "tcp:0:interface=127.0.0.1"
LISTEN = f"--listen={ANY_PORT}"

CONFIG = """
workers = 2
{top}

[[listeners]]
name = "web"
listen = "{listen}"
{listener}

{more}

[pools.one]
upstreams = ["{server}"]
{pool}

[timeouts]
drain = 2.0

[access_log]
path = "{log}"
"""


@pytest.fixture
def configured(tmp_path: Path, upstream: Upstream) -> ConfigFile:
    """A configuration file for two workers."""
    return ConfigFile(
        tmp_path,
        CONFIG,
        top="",
        listen=ANY_PORT,
        listener="",
        more="",
        server=upstream.option.removeprefix("--upstream="),
        pool="",
        log="-",
    )


def by_worker(clients: list[socket.socket], pids: list[int]) -> dict[int, list[socket.socket]]:
    """`clients` by the worker that has accepted them."""
    found: dict[int, list[socket.socket]] = {pid: [] for pid in pids}
    for client, pid in zip(clients, owners(clients, pids), strict=True):
        found[pid].append(client)
    return found


@pytest.mark.oldest_twisted
def test_reload(configured: ConfigFile, upstream: Upstream) -> None:
    """A reload applies to all workers, is reported once, and ends no session."""
    with Supervised(configured.option, workers=None) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        pairs = [upstream.connect(port) for _ in range(10)]
        configured.write(listener="deny = ['127.0.0.1']")
        proxy.signal(signal.SIGHUP)
        proxy.says(r'reload: listener web: deny: \[\] -> \["127.0.0.1"\]')
        proxy.says("reloaded: 1 change$")
        for client, server in pairs:
            client.sendall(b"?")
            assert server.recv(1) == b"?"
        for _ in range(20):
            with suppress(ConnectionResetError), connected(port) as client:
                assert rest(client) == (b"", RESET)
        configured.write(listener="")
        proxy.signal(signal.SIGHUP)
        proxy.says_again("reloaded: 1 change$", 2)
        assert upstream.session(port)
        assert proxy.workers() == pids
        proxy.signal(signal.SIGTERM)
        proxy.ended()
        said = [formatEvent(each) for each in proxy.events]
        assert sum("reload: " in text for text in said) == 2


def test_death_while_a_reload_waits(configured: ConfigFile, upstream: Upstream) -> None:
    """A worker is replaced even while a reload waits for another one that has just begun."""
    with Supervised(configured.option, workers=None) as proxy:
        port, (first, second) = proxy.serves(), proxy.workers()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: bool({*children(proxy.pid)} - {first, second}))
        (starting,) = {*children(proxy.pid)} - {first, second}
        os.kill(starting, signal.SIGSTOP)
        configured.write(listener="deny = ['127.0.0.1']")
        proxy.signal(signal.SIGHUP)
        os.kill(second, signal.SIGKILL)
        proxy.says("serves again")
        os.kill(starting, signal.SIGCONT)
        proxy.says("reloaded: 1 change$")
        assert starting in proxy.workers()
        for _ in range(20):
            with suppress(ConnectionResetError), connected(port) as client:
                assert rest(client) == (b"", RESET)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"pool": "nonsense = 1"}, "pools.one.nonsense"),
        ({"top": 'relay = "stream"'}, "needs a restart"),
        ({"listener": "max_sessions = 1"}, r"listeners\[0\].max_sessions: expected at least"),
        ({"listener": "tls = {certificates = ['no.pem']}"}, "no.pem"),
        ({"log": "/nonexistent/log"}, "access_log.path"),
    ],
)
def test_refused_reload(
    configured: ConfigFile, upstream: Upstream, change: dict[str, str], problem: str
) -> None:
    """A file that cannot be used changes no worker."""
    with Supervised(configured.option, workers=None) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        # A refused file must not deny anybody.
        configured.write(**{"listener": "deny = ['127.0.0.1']", **change})
        proxy.signal(signal.SIGHUP)
        proxy.says(problem)
        proxy.says("not reloaded, nothing has changed: ")
        pairs = [upstream.connect(port) for _ in range(20)]
        assert all(by_worker([client for client, _ in pairs], pids).values())


def test_reload_of_listeners(configured: ConfigFile, upstream: Upstream, tmp_path: Path) -> None:
    """A listener comes and goes in all workers, while the other one keeps its clients."""
    path = tmp_path / "socket"
    with Supervised(configured.option, workers=None) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        second = '[[listeners]]\nname = "second"\nlisten = "tcp:{}:interface=127.0.0.2"'
        unix = f'\n[[listeners]]\nname = "third"\nlisten = "unix:{path}"'
        configured.write(more=second.format(port) + unix)
        proxy.signal(signal.SIGHUP)
        proxy.says("reloaded: 2 changes")
        clients = []
        with ExitStack() as opened:
            for _ in range(30):
                client = opened.enter_context(
                    socket.create_connection(("127.0.0.2", port), PATIENCE)
                )
                clients.append(client)
                client.sendall(b"?")
                opened.enter_context(upstream.accept())
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                with upstream.accept():
                    pass
            # A new worker gets the new sockets too.
            os.kill(pids[0], signal.SIGKILL)
            proxy.says("serves again")
            for _ in range(20):
                client = opened.enter_context(
                    socket.create_connection(("127.0.0.2", port), PATIENCE)
                )
                opened.enter_context(upstream.accept())
        configured.write(more="")
        proxy.signal(signal.SIGHUP)
        proxy.says_again("reloaded: 2 changes", 2)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), PATIENCE)
        wait_until(lambda: not path.exists())
        assert upstream.session(port)


def test_reload_while_a_listener_cannot_be_bound(
    configured: ConfigFile, upstream: Upstream
) -> None:
    """If a new listener cannot be bound, no worker has changed, and no socket is left."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        Supervised(configured.option, workers=None) as proxy,
    ):
        port = proxy.serves()
        busy = taken.getsockname()[1]
        configured.write(
            more=f'[[listeners]]\nlisten = "tcp:{port}:interface=127.0.0.3"\n'
            f'[[listeners]]\nlisten = "tcp:{busy}:interface=127.0.0.1"\n'
        )
        proxy.signal(signal.SIGHUP)
        proxy.says(f"listeners: cannot listen on 127.0.0.1:{busy}: Address already in use")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.3", port), PATIENCE)
        assert upstream.session(port)


@pytest.mark.oldest_twisted
def test_unix_listener(upstream: Upstream, tmp_path: Path) -> None:
    """Workers share a UNIX listener; its path goes at the end."""
    path = tmp_path / "socket"
    with Supervised(f"--listen=unix:{path}", upstream.option) as proxy:
        proxy.serves()
        pids = proxy.workers()
        with ExitStack() as opened:
            for _ in range(20):
                client = opened.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(str(path))
                server = opened.enter_context(upstream.accept())
                client.sendall(b"?")
                assert server.recv(1) == b"?"
            os.kill(pids[0], signal.SIGKILL)
            proxy.says("serves again")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                upstream.accept().close()
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
        assert not path.exists()
        all_end(proxy.everyone())


INHERITING = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
os.dup2(int(sys.argv.pop(1)), 3)
from twisted.scripts.twistd import run
run()
"""


@pytest.mark.oldest_twisted
def test_inherited_sockets(upstream: Upstream) -> None:
    """Workers share a socket from systemd; it goes on listening when they are gone."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as inherited:
        port = inherited.getsockname()[1]
        descriptor = inherited.fileno()
        command = [sys.executable, "-c", INHERITING, str(descriptor), "-n", "--pidfile="]
        command.append("--logger=tests.support.twistd.json_log")
        with Supervised(
            "--listen=systemd:domain=INET:name=web",
            upstream.option,
            command=command,
            descriptors=[descriptor],
        ) as proxy:
            assert proxy.serves() == port
            pids = proxy.workers()
            pairs = [upstream.connect(port) for _ in range(60)]
            assert all(by_worker([client for client, _ in pairs], pids).values())
            os.kill(pids[0], signal.SIGKILL)
            proxy.says("serves again")
            assert upstream.session(port)
            proxy.signal(signal.SIGQUIT)
            proxy.says("Closed")
            for client, server in pairs:
                client.close()
                server.close()
            assert proxy.ended() == 0
        connected(port).close()


OF_THE_USER = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="web:other")
os.dup2(int(sys.argv.pop(1)), 3)
os.dup2(int(sys.argv.pop(1)), 4)
from twisted.scripts.twistd import run
run()
"""


def test_inherits_only_sockets(upstream: Upstream, tmp_path: Path) -> None:
    """A worker inherits the sockets of systemd, and no file that has one of their numbers."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as inherited,
        open(tmp_path / "secret", "wb") as secret,
    ):
        descriptors = [inherited.fileno(), secret.fileno()]
        command = [sys.executable, "-c", OF_THE_USER, *map(str, descriptors), "-n", "--pidfile="]
        command.append("--logger=tests.support.twistd.json_log")
        with Supervised(
            "--listen=systemd:domain=INET:name=web",
            upstream.option,
            command=command,
            descriptors=descriptors,
        ) as proxy:
            assert upstream.session(proxy.serves())
            for pid in proxy.workers():
                names = set()
                for each in Path(f"/proc/{pid}/fd").iterdir():
                    # It may be closed by now.
                    with suppress(FileNotFoundError):
                        names.add(os.readlink(each))
                assert str(tmp_path / "secret") not in names


@pytest.mark.parametrize("kind", ["tls", "proxy_protocol"])
def test_what_clients_send_first(
    configured: ConfigFile, upstream: Upstream, certificates: Certificates, kind: str
) -> None:
    """Every worker does TLS and reads PROXY headers, also one that has replaced another one."""
    settings = {
        "tls": f'tls = {{certificates = ["{certificates.pem}"]}}',
        "proxy_protocol": 'accept_proxy_protocol_from = ["127.0.0.1"]',
    }
    configured.write(listener=settings[kind])
    with Supervised(configured.option, workers=None) as proxy, ExitStack() as opened:
        port, pids = proxy.serves(), proxy.workers()

        def session() -> socket.socket:
            client = opened.enter_context(connected(port))
            if kind == "tls":
                secured = certificates.client.wrap_socket(client, server_hostname="127.0.0.1")
                client = opened.enter_context(secured)
                client.sendall(b"?")
            else:
                client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\r\n?")
            server = opened.enter_context(upstream.accept())
            server.settimeout(PATIENCE)
            assert server.recv(2) == b"?"
            server.sendall(b"!")
            assert client.recv(2) == b"!"
            return client

        assert all(by_worker([session() for _ in range(20)], pids).values())
        os.kill(pids[0], signal.SIGKILL)
        proxy.says("serves again")
        assert all(by_worker([session() for _ in range(20)], proxy.workers()).values())
        opened.close()
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
        if kind == "proxy_protocol":
            assert {each["peer"] for each in proxy.sessions()} == {"192.0.2.7:4000"}


def test_systemd(manager: Manager, upstream: Upstream) -> None:
    """systemd hears that the service is ready once all workers serve, and what a drain leaves."""
    with Supervised(LISTEN, upstream.option) as proxy:
        wait_until(lambda: len(children(proxy.pid)) == 2)
        stopped = children(proxy.pid)[0]
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            manager.receive(1.5)
        os.kill(stopped, signal.SIGCONT)
        assert manager.ready()["STATUS"] == "0 sessions"
        port = proxy.serves()
        sessions = [upstream.connect(port) for _ in range(2)]
        manager.until(lambda message: message.get("STATUS") == "2 sessions")
        proxy.signal(signal.SIGTERM)
        manager.until(lambda message: message.get("STATUS") == "stopping, 2 sessions left")
        for left, (client, server) in zip(("1 session", None), sessions, strict=True):
            client.close()
            server.close()
            if left:
                manager.until(lambda message: message.get("STATUS") == "stopping, 1 session left")
        assert proxy.ended() == 0


def test_bound_on_all_sessions(upstream: Upstream) -> None:
    """The workers together have no more sessions than the bound; the other clients wait."""
    with Supervised(LISTEN, upstream.option, "--max-sessions=5") as proxy:
        assert proxy.says("for at most 5 sessions, in 2 workers")
        port = proxy.serves()
        with ExitStack() as opened:
            clients = [opened.enter_context(connected(port)) for _ in range(40)]
            for client in clients:
                client.sendall(b"?")
            servers = [opened.enter_context(upstream.accept()) for _ in range(5)]
            assert not upstream.is_tried(0.3)
            # A reset ends a session at once: another client gets its turn, and only one.
            servers[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            servers[0].close()
            opened.enter_context(upstream.accept())
            assert not upstream.is_tried(0.3)


def test_bound_of_a_listener(configured: ConfigFile, upstream: Upstream) -> None:
    """The workers share the bound of a listener; clients beyond are reset."""
    configured.write(listener="max_sessions = 5")
    with Supervised(configured.option, workers=None) as proxy:
        port = proxy.serves()
        with ExitStack() as opened:
            clients = [opened.enter_context(connected(port)) for _ in range(40)]
            servers = [opened.enter_context(upstream.accept()) for _ in range(5)]
            ends = []
            for server in servers:
                server.sendall(b"!")
            for client in clients:
                try:
                    ends.append(client.recv(1))
                except ConnectionResetError:
                    ends.append(b"")
            assert ends.count(b"!") == 5


class CheckedServer:
    """A server that counts connections, and can stop and come back."""

    def __init__(self) -> None:
        self.count = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.count += 1
            client.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.mark.oldest_twisted
def test_checks_are_done_once(configured: ConfigFile, upstream: Upstream) -> None:
    """One process checks a server, and all workers know the result; one line reports it."""
    server = CheckedServer()
    interval = 0.25
    configured.write(
        server=server.address,
        pool='health_check = {kind = "tcp", interval = 0.25, timeout = 1.0, rise = 1, fall = 1}',
    )
    with Supervised(configured.option, workers=None) as proxy:
        port, pids = proxy.serves(), proxy.workers()
        began, before = time.monotonic(), server.count
        wait_until(lambda: server.count >= before + 12)
        # With a check from each worker, half of this would be enough.
        assert time.monotonic() - began > 12 * interval * 0.8
        server.close()
        proxy.says("one/.* down: ")
        for _ in range(20):
            with suppress(ConnectionResetError), connected(port) as client:
                assert rest(client) == (b"", RESET)
        assert sum(" down: " in formatEvent(each) for each in proxy.events) == 1
        # A new worker is told too.
        os.kill(pids[0], signal.SIGKILL)
        proxy.says("serves again")
        proxy.signal(signal.SIGTERM)
        proxy.ended()
        # No session tried the server: every worker knew.
        assert {each["attempts"] for each in proxy.sessions()} <= {0}


def test_whole_lines_in_the_access_log(
    configured: ConfigFile, upstream: Upstream, tmp_path: Path
) -> None:
    """The lines of all workers are whole, and none is missing, before and after a rotation."""
    log, old = tmp_path / "access.log", tmp_path / "access.log.1"
    configured.write(log=str(log))
    with Supervised(configured.option, workers=None) as proxy:
        port = proxy.serves()
        peers = {upstream.session(port) for _ in range(100)}
        wait_until(lambda: log.read_text().count("\n") == 100)
        log.rename(old)
        proxy.signal(signal.SIGUSR1)
        wait_until(log.exists)
        peers |= {upstream.session(port) for _ in range(100)}
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
        lines = (old.read_text() + log.read_text()).splitlines()
        events = [session_event(line) for line in lines]
        assert len(events) == 200
        assert {event["peer"] for event in events} == peers
        # Each session has a number of its own.
        assert len({event["id"] for event in events}) == 200
