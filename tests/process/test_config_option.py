"""``--config``: the file replaces options, and each problem in the file is one line."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from evproxy.cli.tap import Options
from tests.support.twistd import ROOT, Running, run

CONFIG = """
[[listeners]]
name = "one"
listen = "tcp:0:interface=127.0.0.1"
pool = "one"

[[listeners]]
name = "two"
listen = "unix:two.socket"
pool = "two"

[pools.one]
upstreams = ["127.0.0.1:{port}"]

[pools.two]
upstreams = ["unix:upstream.socket"]
"""


def test_a_configuration_file(tmp_path: Path) -> None:
    """Listeners with pools of their own work in one process; paths are relative to the file."""
    path = tmp_path / "evproxy.toml"
    one = socket.create_server(("127.0.0.1", 0))
    two = socket.socket(socket.AF_UNIX)
    two.bind(str(tmp_path / "upstream.socket"))
    two.listen()
    path.write_text(CONFIG.format(port=one.getsockname()[1]))
    with one, two, Running("evproxy", f"--config={os.path.relpath(path, ROOT)}") as proxy:
        port = proxy.port()
        proxy.says("ProxyFactory starting on .*two.socket")
        path.write_text("it is read at the start only")
        for server, family, address in (
            (one, socket.AF_INET, ("127.0.0.1", port)),
            (two, socket.AF_UNIX, str(tmp_path / "two.socket")),
        ):
            with socket.socket(family) as client:
                client.connect(address)
                client.sendall(b"hello")
                connection, _ = server.accept()
                with connection:
                    assert connection.recv(5) == b"hello"
        assert [each["listener"] for each in proxy.sessions(2)] == ["one", "two"]


def test_a_list_of_networks_that_is_wrong(tmp_path: Path) -> None:
    """The line has the key, the file and the place in it."""
    path = tmp_path / "evproxy.toml"
    path.write_text('[[listeners]]\ndeny_files = ["denied"]\n[pools.web]\nupstreams = ["a:1"]\n')
    (tmp_path / "denied").write_text("no network\n")
    outcome = run("-n", "--pidfile=", "evproxy", f"--config={path}")
    assert (outcome.status, outcome.out) == (1, "")
    [line] = outcome.err.splitlines()
    assert line.startswith(f"{path}: listeners[0].deny_files[0]: {tmp_path}/denied: line 1: ")


def test_every_problem_of_a_configuration_file(tmp_path: Path) -> None:
    """Each problem is one line that begins with the file and the key, and nothing is started."""
    path = tmp_path / "evproxy.toml"
    path.write_text(
        '[[listeners]]\nlisten = "nosuch:1"\n'
        '[pools.web]\nupstreams = ["nosuch:x"]\nbalance = "fair"\n'
        "[timeouts]\nhalf_close = 0\n"
    )
    outcome = run("-n", "--pidfile=", "evproxy", f"--config={path}")
    assert (outcome.status, outcome.out) == (1, "")
    lines = outcome.err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [str(path), "listeners[0].listen"],
        [str(path), "pools.web.upstreams[0]"],
        [str(path), "pools.web.balance"],
        [str(path), "timeouts.half_close"],
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff", "not UTF-8 at byte 1"),
        (b"a =", "line 1, column 4: Invalid value"),
    ],
)
def test_an_unreadable_configuration_file(
    tmp_path: Path, content: bytes | None, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be read is one line."""
    path = tmp_path / "evproxy.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        Options().parseOptions([f"--config={path}"])
    assert stopped.value.code == 1
    assert capfd.readouterr() == ("", f"{path}: {fault}\n")


def test_a_port_of_a_configuration_file_in_use(tmp_path: Path) -> None:
    """A listener of a file that cannot be bound is one line that names the file."""
    path = tmp_path / "evproxy.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path.write_text(
            f'[[listeners]]\nlisten = "tcp:{port}:interface=127.0.0.1"\n'
            '[pools.web]\nupstreams = ["127.0.0.1:1"]\n'
        )
        outcome = run("-n", "--pidfile=", "evproxy", f"--config={path}")
    assert outcome.status == 1
    assert outcome.err == (
        f"{path}: listeners: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )


def test_what_the_file_has_no_key_for_goes_along_with_it(tmp_path: Path) -> None:
    """Options that the file has no key for (keepalive) work beside ``--config``."""
    path = tmp_path / "evproxy.toml"
    path.write_text('[[listeners]]\n[pools.web]\nupstreams = ["127.0.0.1:1"]\n')
    options = Options()
    options.parseOptions([f"--config={path}", "--keepalive-idle=7"])
    assert options.settings.keepalive.idle == 7
    assert options.settings.pools[0].name == "web"
