"""The examples do what they say."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sqlite3
import ssl
import subprocess
from pathlib import Path

import pytest
from twisted.logger import formatEvent

from tests.support.blocking_clients import page, rest
from tests.support.hellos import of_ssl
from tests.support.peers import RESET
from tests.support.twistd import JSON_LOG, PATIENCE, ROOT, TWISTD, Running, wait_until


def unverified() -> ssl.SSLContext:
    """A context for clients whose handshake goes nowhere."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def startup(user: str) -> bytes:
    """The StartupMessage of a PostgreSQL client."""
    text = f"user\0{user}\0\0".encode()
    return (len(text) + 8).to_bytes(4, "big") + (196608).to_bytes(4, "big") + text


def test_composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``composed.tac`` serves a page through the proxy, and stops as a whole."""
    monkeypatch.setenv("LISTEN", "tcp:0:interface=127.0.0.1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [TWISTD, "-no", "--pidfile=", JSON_LOG]
    example = os.path.join(ROOT, "examples", "composed.tac")
    with Running(f"--python={example}", command=command) as proxy:
        answer = page(proxy.port())
        assert answer.endswith(b"\r\n\r\nThis page came through evproxy.\n")
        [event] = proxy.sessions(1)
        assert event["upstream"].endswith("site.socket")
        proxy.signal(signal.SIGINT)
        proxy.ended()
        proxy.says("Server Shut Down")


def test_a_second_interrupt_of_composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second Ctrl-C resets the sessions before the ten seconds of the drain are over."""
    monkeypatch.setenv("LISTEN", "tcp:0:interface=127.0.0.1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [TWISTD, "-no", "--pidfile=", JSON_LOG]
    example = os.path.join(ROOT, "examples", "composed.tac")
    with Running(f"--python={example}", command=command) as proxy:
        address = ("127.0.0.1", proxy.port())
        with socket.create_connection(address, PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(1) == b"H"
            proxy.signal(signal.SIGINT)
            wait_until(lambda: refused(address))
            proxy.signal(signal.SIGINT)
            assert rest(client)[1] == RESET
        proxy.ended()
        # The last look whether it still listens may have been a session.
        [event] = [each for each in proxy.sessions() if each["bytes_to_upstream"]]
        assert event["reason_how"] == "drain"
        assert event["duration"] < 10
        assert not [each for each in proxy.events if "ReactorNotRunning" in formatEvent(each)]


def refused(address: tuple[str, int]) -> bool:
    """Whether `address` refuses connections."""
    with socket.socket() as sock:
        return sock.connect_ex(address) != 0


def asked(path: Path, request: str) -> bytes:
    """Return the answer of an HTTP server at the UNIX socket `path`."""
    with connected(path) as client:
        client.sendall(f"{request} HTTP/1.0\r\n\r\n".encode())
        return rest(client)[0]


def test_pool_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``pool_over_http.py`` shows and changes servers and sessions at run time."""
    admin = tmp_path / "admin"
    monkeypatch.setenv("LISTEN", "tcp:0:interface=127.0.0.1")
    monkeypatch.setenv("ADMIN", f"unix:{admin}")
    command = [TWISTD, "-no", "--pidfile=", JSON_LOG]
    example = os.path.join(ROOT, "examples", "pool_over_http.py")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Running(f"--python={example}", command=command) as proxy,
    ):
        port = proxy.port()
        name = f"127.0.0.1:{server.getsockname()[1]}"
        assert asked(admin, "DELETE /servers/127.0.0.1:8000").endswith(b"\r\n\r\n[]\n")
        assert f'"name": "{name}", "state": "up"'.encode() in asked(admin, f"PUT /servers/{name}")
        assert asked(admin, f"PUT /servers/{name}").startswith(b"HTTP/1.0 400 ")
        assert asked(admin, "DELETE /servers/nobody:1").startswith(b"HTTP/1.0 404 ")
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            connection, _ = server.accept()
            connection.sendall(b"!")
            assert client.recv(1) == b"!"
            listed = asked(admin, "GET /sessions").partition(b"\r\n\r\n")[2]
            [session] = json.loads(listed)
            assert session["server"] == name
            assert session["client"] == "{}:{}".format(*client.getsockname())
            assert (session["phase"], session["bytes"]) == ("relaying", [0, 1])
            assert asked(admin, "DELETE /sessions/99").startswith(b"HTTP/1.0 404 ")
            ended = asked(admin, f"DELETE /sessions/{session['id']}")
            assert ended.startswith(b"HTTP/1.0 200 ")
            assert rest(client) == rest(connection) == (b"", RESET)
            connection.close()


def test_json_observer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``json_observer.py`` writes a line for each session."""
    monkeypatch.setenv("LISTEN", f"unix:{tmp_path}/proxy")
    command = [TWISTD, "-no", "--pidfile=", f"--logfile={tmp_path}/log"]
    example = os.path.join(ROOT, "examples", "json_observer.py")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("UPSTREAM", f"127.0.0.1:{server.getsockname()[1]}")
        process = subprocess.Popen(
            [*command, f"--python={example}"], stdout=subprocess.PIPE, cwd=tmp_path
        )
        try:
            assert process.stdout is not None
            client = connected(tmp_path / "proxy")
            connection, _ = server.accept()
            connection.close()
            client.close()
            line = json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)
        assert line["server"] == f"127.0.0.1:{server.getsockname()[1]}"
    assert line["reason"].endswith(("relaying", "closing"))


def test_route_by_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """``route_by_network.py`` chooses the pool by the address of the client."""
    monkeypatch.setenv("LISTEN", "tcp:0:interface=127.0.0.1")
    monkeypatch.setenv("INSIDE", "127.0.9.0/24")
    command = [TWISTD, "-no", "--pidfile=", JSON_LOG]
    example = os.path.join(ROOT, "examples", "route_by_network.py")
    with (
        socket.create_server(("127.0.0.1", 0)) as staging,
        socket.create_server(("127.0.0.1", 0)) as public,
    ):
        for name, server in (("STAGING", staging), ("PUBLIC", public)):
            server.settimeout(PATIENCE)
            monkeypatch.setenv(name, f"127.0.0.1:{server.getsockname()[1]}")
        with Running(f"--python={example}", command=command) as proxy:
            found = proxy.says(r"ProxyFactory starting on (\d+)")
            for source, server in (("127.0.9.1", staging), ("127.0.0.1", public)):
                address = ("127.0.0.1", int(found[1]))
                with socket.create_connection(address, PATIENCE, (source, 0)):
                    server.accept()[0].close()


ROUTED = """
[[listeners]]
listen = "tcp:0:interface=127.0.0.1"
accept_proxy_protocol_from = ["127.0.0.1"]
pool = "web"
route = "routes:{function}"
"""

ASKED = [
    ("by_tenant", of_ssl(unverified(), "one.example.org"), "blue", "tenant one.example.org"),
    ("by_tenant", of_ssl(unverified(), "two.example.org"), "green", "tenant two.example.org"),
    ("by_user", startup("analyst_7"), "analysts", "user analyst_7"),
    ("by_user", startup("app"), "web", "user app"),
    ("by_host", b"GET / HTTP/1.1\r\nHost: api.example.org\r\n\r\n", "api", ""),
    ("by_host", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "web", ""),
]


class Routes:
    """evproxy with a function of ``routes.py``, and a server for each pool."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
        tenants = tmp_path / "tenants"
        with contextlib.closing(sqlite3.connect(tenants)) as database, database:
            database.execute("CREATE TABLE tenants (name TEXT PRIMARY KEY, pool TEXT)")
            rows = [("one.example.org", "blue"), ("two.example.org", "green")]
            database.executemany("INSERT INTO tenants VALUES (?, ?)", rows)
        monkeypatch.setenv("TENANTS", str(tenants))
        self.servers = {
            name: socket.create_server(("127.0.0.1", 0))
            for name in ("web", "blue", "green", "analysts", "api", "canary")
        }
        pools = "".join(
            f'[pools.{name}]\nupstreams = ["127.0.0.1:{server.getsockname()[1]}"]\n'
            for name, server in self.servers.items()
        )
        file = tmp_path / "evproxy.toml"
        file.write_text(ROUTED.format(function=function) + pools)
        # twistd looks for modules in the directory in which it is started.
        directory = os.path.join(ROOT, "examples")
        self.running = Running("evproxy", f"--config={file}", cwd=directory)

    def got(self, data: bytes, client: str = "192.0.2.1") -> str:
        """The pool whose server gets `data` from a client at the address `client`."""
        header = f"PROXY TCP4 {client} 192.0.2.9 1 2\r\n".encode()
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as sock:
            sock.sendall(header + data)
            ready, _, _ = select.select([*self.servers.values(), sock], [], [], PATIENCE)
            [name] = [name for name, server in self.servers.items() if server in ready] or [""]
            if name:
                self.servers[name].accept()[0].close()
            return name

    def __enter__(self) -> Routes:
        self.running.__enter__()
        self.port = self.running.port()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers.values():
            server.close()
        self.running.__exit__(None, None, None)


@pytest.mark.parametrize(("function", "data", "pool", "route"), ASKED)
def test_routes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    data: bytes,
    pool: str,
    route: str,
) -> None:
    """Each function of ``routes.py`` sends a client where it says."""
    with Routes(tmp_path, monkeypatch, function) as routes:
        assert routes.got(data) == pool
        [event] = routes.running.sessions(1)
        assert event["route"] == route


def test_an_unknown_tenant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that names nobody is refused, with the reason in the log."""
    with Routes(tmp_path, monkeypatch, "by_tenant") as routes:
        assert routes.got(of_ssl(unverified(), "three.example.org")) == ""
        [event] = routes.running.sessions(1)
        assert event["reason_how"] == "refused"
        assert event["error"] == "there is no tenant three.example.org"


def test_a_canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some clients in a hundred go to the canary, and always the same ones."""
    with Routes(tmp_path, monkeypatch, "canary") as routes:
        clients = [f"192.0.2.{number}" for number in range(1, 101)]
        first = [routes.got(b"?", client) for client in clients]
        assert 1 <= first.count("canary") <= 15
        assert [routes.got(b"?", client) for client in clients[:30]] == first[:30]


def connected(path: Path) -> socket.socket:
    """Return a client of the UNIX socket `path`, once a server listens there."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    wait_until(lambda: client.connect_ex(str(path)) == 0)
    return client
