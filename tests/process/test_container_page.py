"""docs/container.md is true: each of its commands does what it says, as process 1."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.containers import Command, Container, commands, entry_point
from tests.support.programs import requires_program
from tests.support.twistd import PATIENCE, ROOT, TWISTD

PAGE = (ROOT / "docs" / "container.md").read_text()
IMAGE = "evproxy"
LISTENS = r"evproxy \S+ listens on (\S+), for at most (\d+) sessions"
ALL = [Command.read(line, IMAGE, entry_point(PAGE)) for line in commands(PAGE)]
SERVING = [each for each in ALL if each.arguments[0] == "twistd"]

VISIT = """
import os, socket, sys

def address(text):
    return text if text.startswith("/") else ("127.0.0.1", int(text))

def family(text):
    return socket.AF_UNIX if text.startswith("/") else socket.AF_INET

server, proxy = sys.argv[1:]
listening = socket.socket(family(server))
listening.settimeout(20)
listening.bind(address(server))
if server.startswith("/"):
    os.chmod(server, 0o666)
listening.listen()
client = socket.socket(family(proxy))
client.settimeout(20)
client.connect(address(proxy))
session, _ = listening.accept()
session.settimeout(20)
client.sendall(b"question")
assert session.recv(8, socket.MSG_WAITALL) == b"question"
session.sendall(b"answer")
assert client.recv(6, socket.MSG_WAITALL) == b"answer"
print("relayed", flush=True)
sys.stdin.readline()
client.close()
assert session.recv(1) == b""
print("over", flush=True)
"""
"""Runs a server and a client, with a session through a proxy until the script reads a line."""

FILE = """
[[listeners]]
listen = "tcp:8080"
[pools.app]
upstreams = ["app:8000"]
"""


class Volumes:
    """The directories on this machine that commands of the page mount."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.shared = directory / "shared"
        self.conf = directory / "conf"
        self.own = directory / "own"
        for each in (self.shared, self.conf, self.own):
            each.mkdir()
        (self.conf / "evproxy.toml").write_text(FILE)

    def run(self, command: Command) -> Container:
        """Start a container."""
        user, _, group = command.option("user").partition(":")
        if user and os.geteuid() == 0:
            os.chown(self.shared, int(user), int(group))
        mounted = {"/run/app": self.shared, "./conf": self.conf}
        return Container(command.shell(self.own, mounted))


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    """Directories to mount."""
    return Volumes(tmp_path)


@contextmanager
def visited(container: Container, volumes: Volumes) -> Iterator[subprocess.Popen[bytes]]:
    """Run `VISIT` with a session through the proxy in a container, until it reads a line."""
    where = container.says(LISTENS)[1]
    addresses = ["8000", "8080"]
    if where.startswith("unix:"):
        addresses = [str(volumes.shared / name) for name in ("app.sock", "front.sock")]
    with container.inside([sys.executable, "-c", VISIT, *addresses]) as visit:
        try:
            assert visit.stdout is not None
            assert visit.stdout.readline() == b"relayed\n"
            yield visit
        finally:
            visit.kill()


def may_run_as_another(command: Command) -> None:
    """Skip if the test cannot run as another user, or if that user cannot read this environment."""
    if not command.option("user"):
        return
    if os.geteuid() != 0:
        pytest.skip("only root may run it as another user")
    setpriv = [requires_program("setpriv"), "--reuid=1000", "--regid=1000", "--clear-groups"]
    tried = subprocess.run([*setpriv, sys.executable, "-c", "import evproxy.cli.tap"], cwd="/")
    if tried.returncode:
        pytest.skip("another user cannot reach this environment")


@pytest.mark.parametrize("command", SERVING, ids=lambda each: " ".join(each.arguments[4:])[:60])
def test_a_command_serves_and_stops(command: Command, volumes: Volumes) -> None:
    """A container serves, drains at SIGTERM with status 0, and leaves nothing on its volumes."""
    may_run_as_another(command)
    with volumes.run(command) as container:
        with visited(container, volumes) as visit:
            status = Path(f"/proc/{container.one}/status").read_text()
            assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
            if user := command.option("user"):
                assert f"\nUid:\t{user.partition(':')[0]}\t" in status
                assert "\nCapEff:\t0000000000000000\n" in status
            container.signal(signal.SIGTERM)
            container.says("Closed")
            assert visit.communicate(b"\n", PATIENCE)[0] == b"over\n"
        assert container.ended() == 0
        assert "Traceback" not in "".join(container.lines)
    assert {each.name for each in volumes.shared.iterdir()} <= {"app.sock"}


@pytest.mark.parametrize("command", [each for each in ALL if each not in SERVING])
def test_a_command_checks(command: Command, volumes: Volumes) -> None:
    """The command checks the file on the volume."""
    with volumes.run(command) as container:
        assert container.ended() == 0
    [line] = container.lines
    assert line == "/srv/conf/evproxy.toml: good: 1 listener, 1 pool, 1 upstream server\n"


def test_a_socket_on_a_volume_after_a_kill(volumes: Volumes) -> None:
    """After a kill, the next container takes over the socket, although both are process 1."""
    [command] = [each for each in SERVING if "unix:" in " ".join(each.arguments)]
    may_run_as_another(command)
    path = volumes.shared / "front.sock"
    with volumes.run(command) as killed:
        killed.says(LISTENS)
        assert os.readlink(f"{path}.lock") == "1"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with volumes.run(command) as other:
            assert other.ended() == 1
            line = "cannot listen on /run/app/front.sock: Address already in use: a process listens"
            assert line in "".join(other.lines)
        killed.signal(signal.SIGKILL)
        assert killed.ended() != 0
    assert path.is_socket()
    with volumes.run(command) as container:
        with visited(container, volumes) as visit:
            visit.communicate(b"\n", PATIENCE)
        container.signal(signal.SIGTERM)
        assert container.ended() == 0


def test_a_pid_file_after_a_kill(volumes: Volumes) -> None:
    """Without ``--pidfile=``, a killed container does not start again."""
    command = ["sh", "-c", 'cd "$1"; shift; exec "$@"', "sh", str(volumes.own)]
    command += [TWISTD, "-n", "evproxy", "--demo", "--listen=tcp:8080"]
    with Container(command) as killed:
        killed.says(LISTENS)
        killed.signal(signal.SIGKILL)
        assert killed.ended() != 0
    with Container(command) as again:
        assert again.ended() == 1
        assert again.lines[0] == "Another twistd server is running, PID 1\n"


def test_the_limit_on_open_files(volumes: Volumes) -> None:
    """A higher limit allows more sessions, two open files for each."""
    [command] = [each for each in SERVING if each.option("ulimit")]
    with volumes.run(command) as container:
        assert 8000 < int(container.says(LISTENS)[2]) < 10_000
        container.signal(signal.SIGTERM)
        assert container.ended() == 0


def test_the_drain_is_shorter_than_the_time_that_docker_gives() -> None:
    """In each command, the drain timeout is shorter than the stop timeout (10 s by default)."""
    told = PAGE.partition("## Stopping")[2].partition("\n## ")[0]
    stopping = [Command.read(line, IMAGE, entry_point(PAGE)) for line in commands(told)]
    assert len(stopping) == 2
    for each in stopping:
        given = float(each.option("stop-timeout") or 10)
        [drain] = re.findall(r"--drain-timeout=(\d+)", " ".join(each.arguments)) or ["30"]
        assert float(drain) + 1 < given


def test_the_page_has_its_commands() -> None:
    """The page has commands, and the tests run each of their options."""
    assert len(SERVING) > 5
    names = {name for each in ALL for name, _ in each.options}
    assert {"user", "read-only", "volume", "ulimit", "stop-timeout"} <= names
