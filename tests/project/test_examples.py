"""The examples do what they say."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from twisted.logger import formatEvent

from tests.support.blocking_clients import page, rest
from tests.support.peers import RESET
from tests.support.twistd import JSON_LOG, PATIENCE, ROOT, TWISTD, Running, wait_until


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


def connected(path: Path) -> socket.socket:
    """Return a client of the UNIX socket `path`, once a server listens there."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    wait_until(lambda: client.connect_ex(str(path)) == 0)
    return client
