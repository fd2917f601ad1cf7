"""``evproxy ctl`` against a real proxy: what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evproxy.cli.ctl.client import Place, WrongPlace
from evproxy.cli.ctl.tables import size, span, table
from tests.support.admin_process import ADMIN, LISTEN, port_of
from tests.support.blocking_clients import Upstream, rest
from tests.support.twistd import PATIENCE, ROOT, Outcome, Running


def ctl(*arguments: str, **variables: str) -> Outcome:
    """Run ``evproxy ctl`` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "evproxy", "ctl", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", **variables},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


class Asked:
    """A proxy, and the commands for it."""

    def __init__(self, running: Running, upstream: Upstream) -> None:
        self.running = running
        self.upstream = upstream
        self.admin = f"127.0.0.1:{port_of(running)}"
        self.port = running.port()
        self.server = f"default/{upstream.option.partition('=')[2]}"

    def text(self, *arguments: str) -> list[str]:
        """The lines that a command prints, which must succeed."""
        found = ctl("--admin", self.admin, *arguments)
        assert (found.status, found.err) == (0, ""), found
        return found.out.splitlines()

    def json(self, *arguments: str) -> Any:
        """The JSON that a command prints, which must succeed."""
        found = ctl("--json", *arguments, EVPROXY_ADMIN=self.admin)
        assert (found.status, found.err) == (0, ""), found
        return json.loads(found.out)

    def fails(self, *arguments: str, status: int = 1) -> str:
        """The line of a command that fails."""
        found = ctl("--admin", self.admin, *arguments)
        assert (found.status, found.out) == (status, ""), found
        [line] = found.err.splitlines()
        assert line.startswith("evproxy ctl: ")
        return line.removeprefix("evproxy ctl: ")


@pytest.fixture
def asked(upstream: Upstream) -> Iterator[Asked]:
    """A running proxy with an admin interface."""
    with Running("evproxy", LISTEN, upstream.option, ADMIN, patience=3 * PATIENCE) as running:
        yield Asked(running, upstream)


def test_looks(asked: Asked) -> None:
    """Tables for people have the facts, and JSON has them all."""
    asked.upstream.connect(asked.port)
    lines = asked.text("status")
    assert "is running, with 1 of at most" in lines[0]
    assert any(line.split() == ["default", "1", "0", "0", "0", "1", "0"] for line in lines)
    assert asked.json("status")["sessions"] == 1
    head, line = asked.text("sessions")
    assert head.split()[:4] == ["ID", "CLIENT", "SERVER", "PHASE"]
    assert line.split()[0] == "1"
    assert asked.server in line
    [session] = asked.json("sessions", "--server", asked.server, "--phase", "relaying")
    assert session["id"] == 1
    assert asked.json("sessions", "--peer", "127.0.0.2") == []
    assert "phase                relaying" in asked.text("session", "1")
    head, line = asked.text("servers")
    assert line.split()[:2] == [asked.server, "up"]
    assert asked.json("server", asked.server)["sessions"] == 1
    assert asked.json("settings")["max_sessions"] == 0
    metrics = asked.text("metrics", "--scope", "relay")
    assert any(line.startswith("evproxy_pipes_max ") for line in metrics)


def test_changes(asked: Asked) -> None:
    """A pool changes, and sessions end, as the command says."""
    added = asked.json("add", "default/unix:/run/a b.sock", "--weight", "3", "--tag", "x")
    assert (added["name"], added["weight"], added["tags"]) == ("unix:/run/a b.sock", 3, ["x"])
    assert asked.json("weigh", "default/unix:/run/a b.sock", "5")["weight"] == 5
    assert "draining" in asked.text("drain", "default/unix:/run/a b.sock")[1]
    assert " up " in asked.text("resume", "default/unix:/run/a b.sock")[1]
    removed = "removed default/unix:/run/a b.sock; 0 sessions go on"
    assert asked.text("remove", "default/unix:/run/a b.sock") == [removed]
    client, _ = asked.upstream.connect(asked.port)
    assert asked.text("end", "1") == ["ended session 1"]
    assert rest(client)[1] == "reset"
    client, _ = asked.upstream.connect(asked.port)
    assert asked.text("end-all", asked.server) == [f"1 session of {asked.server} end now"]
    assert rest(client)[1] == "reset"
    assert asked.text("wait", "no-sessions")[0].startswith("no-sessions is met after ")
    asked.upstream.connect(asked.port)
    unmet = ctl("--admin", asked.admin, "wait", "server-idle", asked.server, "--timeout", "0")
    assert unmet.status == 1
    assert unmet.out.startswith(f"server-idle of {asked.server} is not met after ")
    line = "evproxy is draining; 1 session left"
    assert asked.text("drain-all", "--forever") == [line]


def test_failures(asked: Asked, tmp_path: Path) -> None:
    """Each failure is one line, and the exit status says which kind it is."""
    assert asked.fails("end", "99") == "there is no session 99, or no longer"
    assert asked.fails("drain", "nosuch/a:1") == 'there is no pool "nosuch"'
    assert asked.fails("drain", "a:1").startswith("'a:1': expected POOL/SERVER")
    assert asked.fails("weigh", asked.server, "999") == (
        "weight: expected a whole number from 0 to 256, got 999"
    )
    missing = asked.fails("--token-file", "/nosuch", "status")
    assert missing == "--token-file: '/nosuch' cannot be read: No such file or directory"
    assert "expected HOST:PORT" in asked.fails("--admin", "nonsense", "status")
    path = tmp_path / "nobody.sock"
    for place, why in (
        (f"unix:{path}", "No such file or directory"),
        ("127.0.0.1:1", "Connection refused"),
    ):
        line = asked.fails("--admin", place, "status", status=3)
        assert line == f"cannot reach the admin interface at {place}: {why}"
    # The proxy's own port passes the request to its server, which never answers.
    line = asked.fails(
        *("--patience", "0.3", "--admin", f"127.0.0.1:{asked.port}", "status"), status=3
    )
    assert line == f"no answer from 127.0.0.1:{asked.port} within 0.3 s"
    wrong = ctl("wait", "nosuch")
    assert wrong.status == 2
    assert "Traceback" not in wrong.err


@pytest.mark.parametrize(
    ("command", "body"),
    [
        ("status", b"{}"),
        ("status", b'{"version": '),
        ("status", b"[" * 100_000),
        ("servers", b"[]"),
        ("session 1", b'""'),
        ("sessions", b'{"sessions": [1], "next": null}'),
        ("drain-all", b'{"state": "drained"}'),
        ("metrics", b"\xff"),
    ],
)
def test_another_server(command: str, body: bytes) -> None:
    """An answer that evproxy does not give, or that is cut short, is one line."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = f"127.0.0.1:{listening.getsockname()[1]}"

        def serve() -> None:
            with listening.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 200000\r\n\r\n" + body)

        serving = threading.Thread(target=serve)
        serving.start()
        found = ctl("--admin", place, *command.split())
        serving.join()
    line = f"evproxy ctl: {place} answers, but not as evproxy's admin interface\n"
    assert (found.status, found.out, found.err) == (3, "", line)


def test_a_negative_limit() -> None:
    """A limit is at least 0."""
    for command in ("sessions", "servers"):
        found = ctl("--admin", "unix:/nosuch", command, "--limit=-1")
        assert found.status == 2
        line = found.err.splitlines()[-1]
        assert line.endswith("argument --limit: invalid whole number from 0 on value: '-1'")


def test_a_unix_socket_and_a_token(tmp_path: Path) -> None:
    """The token of a file lets a command change the proxy, through a UNIX socket as well."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    admin = f"--admin=unix:{tmp_path}/admin.sock"
    proxy = ("evproxy", LISTEN, "--upstream=127.0.0.1:1", admin, f"--admin-token-file={token}")
    with Running(*proxy) as running:
        running.says("The admin interface listens on")
        place = {"EVPROXY_ADMIN": f"unix:{tmp_path}/admin.sock"}
        assert ctl("status", **place).status == 0
        refused = ctl("drain-all", **place)
        assert refused.status == 1
        assert "no token" in refused.err
        drained = ctl("drain-all", **place, EVPROXY_ADMIN_TOKEN_FILE=str(token))
        assert (drained.status, drained.out) == (0, "evproxy is draining; 0 sessions left\n")


def test_a_reload(tmp_path: Path) -> None:
    """A file is read again; each problem of a wrong one is a line, and nothing changes."""
    path = tmp_path / "evproxy.toml"
    text = (
        '[[listeners]]\nname = "web"\nlisten = "tcp:0:interface=127.0.0.1"\n'
        '[pools.web]\nupstreams = ["127.0.0.1:1"]\nbalance = "round-robin"\n'
        '[admin]\nlisten = "tcp:0:interface=127.0.0.1"\n'
    )
    path.write_text(text)
    with Running("evproxy", f"--config={path}", patience=3 * PATIENCE) as running:
        place = {"EVPROXY_ADMIN": f"127.0.0.1:{port_of(running)}"}
        same = ctl("reload", **place)
        assert (same.status, same.out) == (0, "nothing has changed\n")
        path.write_text(text.replace("round-robin", "least-sessions"))
        changed = ctl("reload", **place)
        assert changed.status == 0
        assert "pool web: balance: " in changed.out
        assert '"balance": "least-sessions"' in ctl("settings", **place).out
        path.write_text(text.replace("round-robin", "x").replace("web]", "web]\nqueue_size = -1"))
        refused = ctl("reload", **place)
        assert (refused.status, refused.out) == (1, "")
        lines = refused.err.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith(f"evproxy ctl: {path}: pools.web.queue_size: expected")
        assert lines[1].startswith(f"evproxy ctl: {path}: pools.web.balance: expected")
        assert ctl("metrics", "--scope", "loop", **place).out.startswith("# HELP python_twisted")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:8081", Place(host="127.0.0.1", port=8081)),
        ("[::1]:8081", Place(host="::1", port=8081)),
        ("proxy.internal:8081", Place(host="proxy.internal", port=8081)),
        ("http://a", Place(host="a", port=80)),
        ("https://a/", Place(host="a", port=443, tls=True)),
        ("https://[::1]:8443", Place(host="::1", port=8443, tls=True)),
        ("unix:/run/admin.sock", Place("/run/admin.sock")),
    ],
)
def test_places(text: str, place: Place) -> None:
    """The admin interface is at an address, a URL or a path."""
    assert Place.of(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "8081",
        ":8081",
        "a:0",
        "a:65536",
        "http://a/b",
        "ftp://a:1",
        "unix:",
        "[::1:1",
        "[x]:1",
    ],
)
def test_no_place(text: str) -> None:
    """What is no place is refused."""
    with pytest.raises(WrongPlace):
        Place.of(text)


def test_short_forms() -> None:
    """Sizes and times have their largest units; columns are as wide as their widest cell."""
    assert [size(each) for each in (0, 1023, 1024, 1536, 5 * 2**30)] == [
        *("0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB")
    ]
    assert [span(each) for each in (None, 0, 0.25, 59, 60, 200, 7261, 187200)] == [
        *("-", "0 s", "0.25 s", "59 s", "1 min", "3 min 20 s", "2 h 1 min", "2 d 4 h")
    ]
    assert list(table(("A", "LONG"), [("longer", "b"), ("\x1b", "")])) == [
        *("A       LONG", "longer  b", "\\x1b")
    ]


def test_the_commands_of_the_page() -> None:
    """Each command of docs/admin.md is one that the command line takes."""
    page = (ROOT / "docs" / "admin.md").read_text()
    lines = re.findall(r"^    (evproxy ctl .*)$", page, re.MULTILINE)
    commands = [command.strip() for line in lines for command in line.split("&&")]
    assert len(commands) >= 8
    for command in commands:
        found = ctl("--admin", "unix:/nosuch", *shlex.split(command)[2:])
        assert found.status == 3, (command, found.err)
