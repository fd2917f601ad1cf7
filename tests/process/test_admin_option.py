"""The admin interface of a real ``twistd evproxy``, by its options and by a file."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from tests.support.admin_process import ADMIN, LISTEN, ask, port_of
from tests.support.blocking_clients import Upstream, rest
from tests.support.twistd import PATIENCE, Running, run, run_each


def test_it_shows_the_end_of_a_drain(upstream: Upstream) -> None:
    """After SIGTERM, the interface goes on until the last session is gone, and then answers it."""
    with Running("evproxy", LISTEN, upstream.option, ADMIN) as running:
        admin = port_of(running)
        client, server = upstream.connect(running.port())
        running.signal(signal.SIGTERM)
        running.says("Port .* Closed")
        assert ask(admin, "/status")["state"] == "draining"
        with socket.create_connection(("127.0.0.1", admin), PATIENCE) as waiting:
            waiting.sendall(b"GET /wait?until=no-sessions HTTP/1.0\r\n\r\n")
            assert ask(admin, "/sessions")["total"] == 1
            client.close()
            server.close()
            answer, _ = rest(waiting)
        assert b'"met":true' in answer
        assert running.ended() == 0


def test_an_admin_port_in_use() -> None:
    """The line names the option."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        admin = f"--admin=tcp:{port}:interface=127.0.0.1"
        found = run("-n", "--pidfile=", "evproxy", LISTEN, "--upstream=127.0.0.1:1", admin)
    assert found.status == 1
    line = f"evproxy: --admin: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert found.err == line


HERE = 'listen = "tcp:0:interface=127.0.0.1"\n'
SOUND = f'[[listeners]]\n{HERE}[pools.web]\nupstreams = ["a:1"]\n[admin]\n'


def test_a_wrong_file(tmp_path: Path) -> None:
    """The line has the path of the key; paths are relative to the directory of the file."""
    cases = [
        ('listen = "tcp:8081"', "admin.token_file: required, because"),
        (
            'listen = "tcp:8081"\ntoken_file = "nosuch"',
            f"admin.token_file: '{tmp_path}/nosuch' cannot be read: No such file",
        ),
        ('token_file = "x"', "admin.token_file: has no effect without admin.listen"),
        (f'{HERE}unix_mode = "600"', "admin.unix_mode: it is for UNIX listeners only"),
        ('listen = "unix:a.sock"\nhosts = ["a b"]', "admin.hosts[0]: expected a host name, got"),
        ('lisen = "unix:a.sock"', 'admin.lisen: unknown key, did you mean "listen"?'),
        ('listen = "8081"', "admin.listen: expected a server endpoint description, got"),
    ]
    paths = [tmp_path / f"{number}.toml" for number in range(len(cases))]
    for path, (table, _) in zip(paths, cases, strict=True):
        path.write_text(f"{SOUND}{table}\n")
    commands = [["-n", "--pidfile=", "evproxy", f"--config={path}"] for path in paths]
    for path, (_, line), found in zip(paths, cases, run_each(commands, tmp_path), strict=True):
        assert found.status == 1
        assert found.err.startswith(f"{path}: {line}"), found.err


def test_a_file(tmp_path: Path) -> None:
    """The path of a UNIX socket is relative to the directory of the file."""
    path = tmp_path / "evproxy.toml"
    path.write_text(f'{SOUND}listen = "unix:a.sock"\n')
    with Running("evproxy", f"--config={path}") as running:
        running.says(f"The admin interface listens on unix:{tmp_path}/a.sock")
