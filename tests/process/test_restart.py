"""A restart without a gap: a new process takes over the listeners of the one that runs."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from twisted.logger import formatEvent

from evproxy.service.restart import MOST_DRAINING
from tests.support.blocking_clients import Upstream, page, rest
from tests.support.configured import configured_for
from tests.support.pages import page_load
from tests.support.peers import END, RESET
from tests.support.real_servers import free_port
from tests.support.twistd import JSON_LOG, PATIENCE, TWISTD, Running, run

pytestmark = pytest.mark.oldest_twisted

GENERATIONS = 8
"""How many processes follow each other under load."""

CLIENTS = 64


class Line:
    """Processes with the same listeners, one after the other."""

    def __init__(self, directory: Path, upstream: Upstream) -> None:
        self._open = ExitStack()
        self._upstream = upstream
        self._last: Running | None = None
        self.path = directory / "restart"
        self.port = free_port()
        self.unix = directory / "socket"

    def start(self, *more: str) -> Running:
        """Start the next process, and wait until it serves."""
        proxy = self.begin(*more)
        proxy.says("another process can take over at")
        if self._last is not None and self._last.runs():
            self._last.says(rf"Port {self.port} Closed")
        self._last = proxy
        return proxy

    def begin(self, *more: str) -> Running:
        """Start the next process."""
        options = [
            f"--listen=tcp:{self.port}:interface=127.0.0.1",
            f"--listen=unix:{self.unix}",
            f"--restart-socket={self.path}",
            self._upstream.option,
            *more,
        ]
        return self._open.enter_context(Running("evproxy", *options, patience=100))

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def line(tmp_path: Path, upstream: Upstream) -> Iterator[Line]:
    line = Line(tmp_path, upstream)
    yield line
    line.close()


def test_a_new_process(line: Line, upstream: Upstream, tmp_path: Path) -> None:
    """The new process gets the new clients; the old one ends with its last session."""
    old = line.start("--drain-timeout=3600")
    client, server = upstream.connect(line.port)
    inode = line.unix.stat().st_ino
    new = line.start()
    new.says("this process has taken over")
    old.says("another process has taken over, this one drains")
    assert upstream.session(line.port)
    client.sendall(b"bye")
    client.shutdown(socket.SHUT_WR)
    assert rest(server) == (b"bye", END)
    server.close()
    assert rest(client) == (b"", END)
    assert old.ended() == 0
    assert line.unix.stat().st_ino == inode
    with socket.socket(socket.AF_UNIX) as local:
        local.connect(str(line.unix))
        local.sendall(b"?")
        with upstream.accept() as accepted:
            assert accepted.recv(1) == b"?"
    new.signal(signal.SIGTERM)
    assert new.ended() == 0
    assert len(new.sessions()) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_admin_interface(line: Line, upstream: Upstream) -> None:
    """The new process has the admin interface as soon as it serves, while the old one drains."""
    admin = free_port()
    option = f"--admin=tcp:{admin}:interface=127.0.0.1"
    old = line.start(option)
    client, server = upstream.connect(line.port)
    new = line.start(option)
    old.says(f"Port {admin} Closed")
    assert page(admin).startswith(b"HTTP/1")
    client.close()
    server.close()
    assert old.ended() == 0
    assert page(admin).startswith(b"HTTP/1")
    new.signal(signal.SIGTERM)
    assert new.ended() == 0


def test_only_the_same_user(line: Line) -> None:
    """Nobody else may connect to the restart socket."""
    line.start()
    assert stat.S_IMODE(line.path.stat().st_mode) == 0o600


def test_a_new_process_that_cannot_start(line: Line, upstream: Upstream) -> None:
    """If the new process ends before it serves, the old one goes on."""
    old = line.start()
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    with taken:
        new = line.begin(f"--listen=tcp:{port}:interface=127.0.0.1")
        assert new.ended() == 1
    old.says("the process that was to take over has ended, this one goes on")
    assert upstream.session(line.port)
    lock = line.unix.with_name("socket.lock")
    assert os.readlink(lock) == str(old.pid)
    last = line.start()
    last.says("this process has taken over")
    assert upstream.session(line.port)
    assert old.ended() == 0
    assert os.readlink(lock) == str(last.pid)


def test_a_new_process_with_other_listeners(line: Line, upstream: Upstream) -> None:
    """What the new process does not listen on is closed, and its path removed."""
    old = line.start()
    with Running(
        "evproxy",
        f"--listen=tcp:{line.port}:interface=127.0.0.1:backlog=99",
        f"--restart-socket={line.path}",
        upstream.option,
    ) as new:
        new.says("this process has taken over")
        assert old.ended() == 0
        assert upstream.session(line.port)
        assert not line.unix.exists()


@pytest.mark.slow
def test_too_many_generations(line: Line, upstream: Upstream) -> None:
    """Only so many processes drain at a time; the oldest one resets its sessions."""
    proxies = []
    sessions = []
    for _ in range(MOST_DRAINING + 2):
        proxies.append(line.start("--drain-timeout=3600"))
        sessions.append(upstream.connect(line.port))
    oldest, *others = proxies
    assert oldest.ended() == 0
    assert rest(sessions[0][0]) == (b"", RESET)
    assert all(proxy.runs() for proxy in others)
    for client, server in sessions[1:]:
        client.sendall(b"?")
        assert server.recv(1) == b"?"
        client.close()
        server.close()
    for proxy in others[:-1]:
        assert proxy.ended() == 0


@pytest.mark.slow
def test_a_process_between_that_ends_first(line: Line, upstream: Upstream) -> None:
    """The bound on processes that drain also holds if one between them has ended."""
    oldest = line.start("--drain-timeout=3600")
    client, _ = upstream.connect(line.port)
    between = [line.start("--drain-timeout=3600") for _ in range(2)]
    between.append(line.start("--drain-timeout=3600"))
    for proxy in between[:-1]:
        assert proxy.ended() == 0
    assert oldest.runs()
    upstream.connect(line.port)
    for _ in range(MOST_DRAINING):
        assert oldest.runs()
        line.start("--drain-timeout=3600")
        upstream.connect(line.port)
    assert rest(client) == (b"", RESET)
    assert oldest.ended() == 0


def test_the_drain_timeout(line: Line, upstream: Upstream) -> None:
    """The old process resets its sessions after the drain timeout."""
    old = line.start("--drain-timeout=0.5")
    client, _ = upstream.connect(line.port)
    line.start()
    assert rest(client) == (b"", RESET)
    assert old.ended() == 0


def test_a_process_that_crashed(line: Line, upstream: Upstream) -> None:
    """The next process takes the path of a process that is dead."""
    old = line.start()
    old.signal(signal.SIGKILL)
    old.ended()
    assert line.path.exists()
    line.start()
    assert upstream.session(line.port)


def test_something_else_at_the_path(line: Line) -> None:
    """A path that is no restart socket is one line, and is left alone."""
    line.path.write_text("mine")
    outcome = run("-n", "--pidfile=", "evproxy", "--demo", f"--restart-socket={line.path}")
    assert outcome.status == 1
    assert outcome.err == (
        f"evproxy: restart_socket: cannot listen on {line.path}: Address already in use: "
        "a regular file is there, not a socket\n"
    )
    assert line.path.read_text() == "mine"


@pytest.mark.parametrize(
    "answer", [b"nonsense", b"[]", b"{}", b'{"refused": "no\\n"}', b"x" * 9999]
)
def test_an_answer_that_is_none(line: Line, answer: bytes) -> None:
    """Another program at the path does not let evproxy start, and gets no traceback."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(line.path))
        sock.listen()
        sock.settimeout(PATIENCE)

        def serve() -> None:
            connection, _ = sock.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        outcome = run("-n", "--pidfile=", "evproxy", "--demo", f"--restart-socket={line.path}")
        thread.join(PATIENCE)
    assert outcome.status == 1
    assert outcome.err.startswith(f"evproxy: cannot take over from the evproxy at {line.path}: ")
    assert outcome.err.count("\n") == 1


def test_strange_successors(line: Line, upstream: Upstream) -> None:
    """Whatever comes to the restart socket, the process goes on; one may take over at a time."""
    proxy = line.start()
    strange = (b"", b"nonsense", b"[]", b'{"want": 7, "older": "x"}', b"x" * 5000)
    for number, said in enumerate(strange, 1):
        with asker(line) as sock:
            sock.sendall(said)
        proxy.says_again("the process that was to take over has ended, this one goes on", number)
    with asker(line) as first:
        first.sendall(b'{"want": "listeners"}')
        received, descriptors, _, _ = socket.recv_fds(first, 4096, 100)
        assert received == b'{"more": false}'
        assert len(descriptors) == 3
        for descriptor in descriptors:
            os.close(descriptor)
        with asker(line) as second:
            second.sendall(b'{"want": "listeners"}')
            assert second.recv(100) == b'{"refused": "another process takes over already"}'
    proxy.says_again("the process that was to take over has ended, this one goes on", 6)
    assert upstream.session(line.port)


def asker(line: Line) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(str(line.path))
    sock.settimeout(PATIENCE)
    return sock


def test_many_listeners(tmp_path: Path, upstream: Upstream) -> None:
    """More listeners than descriptors fit into one message are taken over, too."""
    paths = [tmp_path / f"{number}" for number in range(300)]
    options = [f"--listen=unix:{path}:lockfile=0" for path in paths]
    restart = f"--restart-socket={tmp_path}/restart"
    with Running("evproxy", restart, *options, upstream.option) as old:
        old.says("evproxy .* listens on")
        marks = [path.stat().st_ino for path in paths]
        with Running("evproxy", restart, *options, upstream.option) as new:
            new.says("this process has taken over")
            assert old.ended() == 0
            assert [path.stat().st_ino for path in paths] == marks


TAC = """
from twisted.application.service import Application
from twisted.internet import reactor
from evproxy import ProxyService, Restarts, Signals

application = Application("evproxy")
proxy = ProxyService(reactor, ["tcp:{port}:interface=127.0.0.1"], ["{server}"])
Restarts(reactor, proxy, {path!r}).setServiceParent(application)
proxy.setServiceParent(application)
Signals(reactor, proxy).install()
"""


def test_a_tac_file(line: Line, upstream: Upstream, tmp_path: Path) -> None:
    """A ``.tac`` file takes over with one line."""
    old = line.start()
    tac = tmp_path / "proxy.tac"
    server = upstream.option.removeprefix("--upstream=")
    tac.write_text(TAC.format(port=line.port, server=server, path=str(line.path)))
    with Running(command=[TWISTD, "-n", "--pidfile=", JSON_LOG, "-y", str(tac)]) as new:
        new.says("this process has taken over")
        assert old.ended() == 0
        assert upstream.session(line.port)


WAITING_TAC = """
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer
from evproxy import ProxyService, Restarts

@implementer(IStreamServerEndpoint)
class Never:
    def listen(self, factory):
        return Deferred()

listen = ["tcp:{port}:interface=127.0.0.1", "unix:{unix}", Never()]
application = Application("evproxy")
proxy = ProxyService(reactor, listen, ["{server}"])
Restarts(reactor, proxy, {path!r}).setServiceParent(application)
proxy.setServiceParent(application)
reactor.callLater(0, Logger().info, "one listener does not listen yet")
"""


def test_a_new_process_that_is_stopped_before_it_serves(
    line: Line, upstream: Upstream, tmp_path: Path
) -> None:
    """The old process still has its listeners, their paths and its restart socket."""
    old = line.start()
    tac = tmp_path / "proxy.tac"
    server = upstream.option.removeprefix("--upstream=")
    text = WAITING_TAC.format(port=line.port, unix=line.unix, server=server, path=str(line.path))
    tac.write_text(text)
    with Running(command=[TWISTD, "-n", "--pidfile=", JSON_LOG, "-y", str(tac)]) as new:
        new.says("one listener does not listen yet")
        new.signal(signal.SIGTERM)
        assert new.ended() == -signal.SIGTERM
    old.says("the process that was to take over has ended, this one goes on")
    assert upstream.session(line.port)
    with socket.socket(socket.AF_UNIX) as local:
        local.connect(str(line.unix))
        local.sendall(b"?")
        with upstream.accept() as accepted:
            assert accepted.recv(1) == b"?"
    line.start().says("this process has taken over")
    assert old.ended() == 0


@pytest.mark.slow
@pytest.mark.deadline(180)
@pytest.mark.many_descriptors
@pytest.mark.peers("wrk", "haproxy")
def test_restarts_under_load(
    pages: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """
    Processes follow each other under load: no client is refused or reset.

    The test states how many connections there were in a second.
    """
    port = free_port()
    configured = configured_for(tmp_path, f"127.0.0.1:{pages}")
    configured.write(listen=f"tcp:{port}:interface=127.0.0.1", log="off")
    restart = f'restart_socket = "{tmp_path}/restart"\n'
    configured.path.write_text(restart + configured.path.read_text())
    with ExitStack() as running:

        def start() -> Running:
            proxy = running.enter_context(Running("evproxy", configured.option, patience=150))
            proxy.says("another process can take over at")
            return proxy

        proxies = [start()]
        with page_load(port, CLIENTS) as load:
            for _ in range(GENERATIONS):
                proxies.append(start())
                proxies[-1].says("this process has taken over")
                assert proxies[-2].ended() == 0
        assert b"here" in page(port)
        proxies[-1].signal(signal.SIGTERM)
        assert proxies[-1].ended() == 0
    said = [formatEvent(event) for proxy in proxies for event in proxy.events]
    assert not [each for each in said if "cannot connect" in each]
    load.check()
    record_property("connections_per_second", load.per_second)
    assert load.per_second > 200
