"""``evproxy top``, in a real terminal and without one."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.admin_process import ADMIN, LISTEN, ask, port_of
from tests.support.blocking_clients import Upstream
from tests.support.browser import SCREENSHOTS
from tests.support.scene import Scene, scene
from tests.support.terminal import Terminal
from tests.support.twistd import PATIENCE, ROOT, Outcome, Running, environment

TOP = (sys.executable, "-m", "evproxy", "top")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A proxy with three pools, servers in every state, and 60 sessions."""
    with scene(tmp_path_factory.mktemp("scene")) as made:
        for _ in range(60 - ask(made.admin, "/status")["sessions"]):
            made.upstream.connect(made.ports[0])
        yield made


def top(*arguments: str, code: str = "") -> Outcome:
    """Run ``evproxy top`` without a terminal; `code` runs before."""
    command = [*TOP, *arguments]
    if code:
        start = f"{code}; from evproxy.cli.main import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", f"import sys; {start}", "top", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def place(stage: Scene) -> str:
    return f"--admin=127.0.0.1:{stage.admin}"


def ids(lines: list[str]) -> list[int]:
    """The numbers of the sessions on a screen, from the top."""
    firsts = [(line.split() or [""])[0] for line in lines]
    heads = [number for number, first in enumerate(firsts) if first.rstrip("*^") == "ID"]
    return [int(first) for first in firsts[heads[0] :] if first.isdigit()] if heads else []


def test_it_fits_into_80_by_24(stage: Scene) -> None:
    """Totals, pools, servers that are not up, sessions and keys, each line in its width."""
    with Terminal([*TOP, place(stage)]) as terminal:
        lines = terminal.shows(" of ")
        lines = terminal.until(lambda lines: len(ids(lines)) == 12 and "back" in lines[23])
        assert lines[0].startswith("evproxy ")
        assert "running, 60 of " in lines[0]
        assert re.search(r"loop lag [0-9.]+ (us|ms)", lines[1])
        assert "web 1 up, 1 ejected, 1 draining" in lines[3]
        assert [line.split()[0] for line in lines[5:10]] == [
            "ejected",
            "draining",
            "down",
            "down",
            "ejected",
        ]
        assert "connection refused" in lines[5]
        assert lines[23].startswith("q quit / filter")
        assert "R back" in lines[23]
        SCREENSHOTS.mkdir(exist_ok=True)
        (SCREENSHOTS / "top-80x24.txt").write_text("\n".join(lines))
        terminal.resize(140, 40)
        lines = terminal.until(lambda lines: "WEIGHT" in lines[4] and len(ids(lines)) >= 25)
        (SCREENSHOTS / "top-140x40.txt").write_text("\n".join(lines))
        terminal.type("q")
        assert terminal.ended() == 0
        assert terminal.echoes()


def test_keys_sort_and_filter(stage: Scene) -> None:
    """Each key does what the last line says."""
    with Terminal([*TOP, place(stage)]) as terminal:
        terminal.until(lambda lines: bool(ids(lines)))
        terminal.type("n")
        terminal.until(lambda lines: ids(lines)[:2] == [60, 59])
        terminal.type("R")
        terminal.until(lambda lines: ids(lines)[:2] == [1, 2])
        assert any("ID^" in line for line in terminal.lines)
        terminal.type("/odd relxy\x7f\x7fay")
        terminal.shows("filter: odd relay_")
        terminal.type("\r")
        lines = terminal.shows("[odd relay] 20 sessions")
        assert len(ids(lines)) >= 10
        # Several keys in one read, an arrow first, as a slow connection delivers them.
        terminal.type("\x1b[A/xyz")
        terminal.shows("filter: odd relayxyz_")
        terminal.type("\x1b[15~\x1bOP\x1b")
        terminal.until(lambda lines: lines[23].startswith("[odd relay]"))
        terminal.type("\x1b")
        terminal.until(lambda lines: lines[23].startswith("q quit"))
        terminal.type("p")
        terminal.shows("PAUSED")
        terminal.type("q")
        assert terminal.ended() == 0


def test_rates_are_live(stage: Scene) -> None:
    """The session that moves bytes comes first, with its rate."""
    client, server = stage.upstream.connect(stage.ports[0])
    over = threading.Event()

    def talk() -> None:
        while not over.wait(0.02):
            server.sendall(b"x" * 50_000)
            left = 50_000
            while left:
                left -= len(client.recv(left))

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        with Terminal([*TOP, place(stage)]) as terminal:
            terminal.until(
                lambda lines: any(
                    f"127.0.0.1:{client.getsockname()[1]} " in line and "MiB/s" in line
                    for line in lines
                )
            )
            terminal.type("\x03")
            assert terminal.ended() == 0
    finally:
        over.set()
        talking.join()
        client.close()
        server.close()


def test_once(stage: Scene) -> None:
    """One look as plain text: no colours, and all that was asked for."""
    found = top(place(stage), "--once", "--limit=7", "--sort=id")
    assert (found.status, found.err) == (0, "")
    assert "\x1b" not in found.out
    lines = found.out.splitlines()
    assert len(ids(lines)) == 7
    assert ids(lines) == sorted(ids(lines), reverse=True)
    assert "no such file or directory (1 of 1)" in found.out
    assert "ID*" in found.out
    found = top(place(stage), "--once", "--filter=odd")
    assert len(ids(found.out.splitlines())) == 20


def test_a_unix_socket_and_a_token(upstream: Upstream, tmp_path: Path) -> None:
    """The interface on a UNIX socket answers as well, also with a token that is sent along."""
    path = tmp_path / "admin.sock"
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    options = (f"--admin=unix:{path}", f"--admin-token-file={token}")
    with Running("evproxy", LISTEN, upstream.option, *options) as running:
        running.says("The admin interface listens")
        found = top(f"--admin=unix:{path}", "--once", f"--token-file={token}")
    assert (found.status, found.err) == (0, "")
    assert "running, 0 of " in found.out


def test_a_proxy_that_ends_and_comes_back(upstream: Upstream) -> None:
    """The last line says what is wrong, and the view goes on once a proxy answers again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    admin = f"--admin=tcp:{port}:interface=127.0.0.1"
    with Running("evproxy", LISTEN, upstream.option, admin) as running:
        port_of(running)
        terminal = Terminal([*TOP, f"--admin=127.0.0.1:{port}"])
        with terminal:
            terminal.shows("running")
            running.__exit__()
            terminal.shows("Connection refused")
            with Running("evproxy", LISTEN, upstream.option, admin):
                terminal.until(lambda lines: lines[23].startswith("q quit"))
                terminal.type("q")
                assert terminal.ended() == 0


def test_what_is_wrong_is_one_line(upstream: Upstream, tmp_path: Path) -> None:
    """An address, a file, a library or a peer that is wrong gets one line, never a traceback."""

    def error(status: int, *arguments: str, code: str = "") -> str:
        found = top(*arguments, code=code)
        assert (found.status, found.out) == (status, "")
        assert found.err.startswith("evproxy top: ")
        assert found.err.count("\n") == 1
        return found.err.removeprefix("evproxy top: ").rstrip("\n")

    nobody = "--admin=127.0.0.1:1"
    assert error(3, nobody, "--once") == (
        "cannot reach the admin interface at 127.0.0.1:1: Connection refused"
    )
    assert error(3, "--admin=unix:/no/such", "--once") == (
        "cannot reach the admin interface at unix:/no/such: No such file or directory"
    )
    assert error(1, "--admin=nowhere", "--once").startswith("--admin: 'nowhere': expected ")
    missing = tmp_path / "missing"
    assert error(1, nobody, f"--token-file={missing}") == (
        f"--token-file: {str(missing)!r} cannot be read: No such file or directory"
    )
    assert error(1, nobody, code="sys.modules['rich'] = None") == (
        "needs the library rich: pip install 'evproxy[top]'"
    )
    with Running("evproxy", LISTEN, upstream.option, ADMIN) as running:
        admin = f"--admin=127.0.0.1:{port_of(running)}"
        assert error(1, admin) == "input and output must be a terminal; --once prints plain text"
        assert error(1, admin, "--once", "--filter=a b c d e f g h i") == (
            "filter: expected at most 8 words, got 9"
        )
    wrong = top(nobody, "--limit=501")
    assert wrong.status == 2
    assert "expected a number from 1 to 500, got '501'" in wrong.err


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        b'HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n""',
    ],
)
def test_another_server(answer: bytes) -> None:
    """What is no admin interface is called so."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def serve() -> None:
            with listening.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        found = top(f"--admin=127.0.0.1:{port}", "--once")
        serving.join()
    assert found.status in (1, 3)
    assert re.fullmatch(r"evproxy top: .*(no admin interface).*\n", found.err)
