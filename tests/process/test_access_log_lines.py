"""The lines of ``twistd evproxy`` for sessions of every kind: refused, lasting, UNIX and IPv6."""

from __future__ import annotations

import json
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.observe.test_tcplog import LINE
from tests.support.blocking_clients import Upstream, rest
from tests.support.certificates import Certificates
from tests.support.hellos import Hello, server_name
from tests.support.peers import END, RESET
from tests.support.twistd import PATIENCE, Running, wait_until

pytestmark = [pytest.mark.oldest_twisted, pytest.mark.deadline(60)]

FILE = """
[[listeners]]
name = "web"
listen = "tcp:0:interface=127.0.0.1"
pool = "web"
{listener}
[pools.web]
upstreams = ["{upstream}"]
[timeouts]
handshake = 0.5
drain = 0.5
[access_log]
path = "access.log"
{log}
"""


def configured(directory: Path, upstream: Upstream, log: str, listener: str = "") -> str:
    """The option with a configuration file."""
    server = upstream.option.partition("=")[2]
    path = directory / "evproxy.toml"
    path.write_text(FILE.format(listener=listener, upstream=server, log=log))
    return f"--config={path}"


def in_json(*files: Path) -> list[dict[str, Any]]:
    """The lines of `files`, in order."""
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_lasting_sessions_while_the_file_is_rotated(upstream: Upstream, tmp_path: Path) -> None:
    """Each session has its start, its intervals and its end, none twice, in the order of time."""
    option = configured(
        tmp_path, upstream, 'format = "json"\nstart = true\ninterval = 0.1', listener=""
    )
    log, old = tmp_path / "access.log", []
    with Running("evproxy", option) as proxy:
        port = proxy.port()
        clients = [upstream.connect(port)[0] for _ in range(20)]
        for turn in range(3):
            wait_until(lambda: any(each["reason_how"] == "interval" for each in in_json(log)))
            old.append(tmp_path / f"access.log.{turn}")
            log.rename(old[-1])
            proxy.signal(signal.SIGUSR1)
            wait_until(log.exists)
        for client in clients[:10]:
            client.close()
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    lines = in_json(*old, log)
    for client_lines in by_session(lines):
        hows = [each["reason_how"] for each in client_lines]
        assert hows[0] == "start"
        assert set(hows[1:-1]) == {"interval"}
        # No server ends its stream, so every session lasts until the drain deadline.
        assert hows[-1] == "drain"
        durations = [each["duration"] for each in client_lines]
        assert durations == sorted(set(durations))
        assert len({each["peer"] for each in client_lines}) == 1
    assert len(by_session(lines)) == 20


def by_session(lines: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The lines of each session."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault(line["unique_id"], []).append(line)
    return list(found.values())


def test_refused_sessions_have_their_reason_and_their_name(
    upstream: Upstream, tmp_path: Path
) -> None:
    """A denied client, a wrong header, a slow client and a name without a route, in JSON."""
    listener = (
        'accept_proxy_protocol_from = ["127.0.0.1"]\ndeny = ["192.0.2.66"]\n'
        'routes = [{sni = "a.org", pool = "web"}]'
    )
    option = configured(tmp_path, upstream, 'format = "json"', listener)
    hello = Hello([server_name(b"a.org")]).records()
    with Running("evproxy", option) as proxy:
        port = proxy.port()
        for sent in (
            b"PROXY TCP4 192.0.2.66 192.0.2.8 5000 443\r\n",
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP6 2001:db8::7 2001:db8::8 5000 443\r\n" + hello[:20],
        ):
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.sendall(sent)
                assert rest(client) == (b"", RESET)
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.sendall(b"PROXY TCP6 2001:db8::7 2001:db8::8 5000 443\r\n" + hello)
            with upstream.accept() as server:
                server.sendall(b"!")
            assert rest(client)[0] == b"!"
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    lines = in_json(tmp_path / "access.log")
    assert [(each["peer"], each.get("cause"), each["server_name"]) for each in lines] == [
        ("192.0.2.66:5000", "denied", ""),
        (lines[1]["peer"], "proxy-header", ""),
        ("[2001:db8::7]:5000", "handshake-timeout", ""),
        ("[2001:db8::7]:5000", None, "a.org"),
    ]
    assert [each["pool"] for each in lines] == ["", "", "", "web"]
    assert lines[3]["route"] == "sni a.org"
    assert lines[3]["via"].startswith("127.0.0.1:")
    assert 0 < lines[3]["route_time"] < lines[3]["connect_time"]


@pytest.mark.parametrize("family", ["tcp6", "unix"])
def test_haproxys_lines_of_a_process(upstream: Upstream, tmp_path: Path, family: str) -> None:
    """The option selects the format; clients without an IPv4 address have lines of its shape."""
    log, path = tmp_path / "access.log", tmp_path / "a b"
    listen = {"tcp6": r"tcp:0:interface=\:\:1", "unix": f"unix:{path}"}[family]
    options = [f"--listen={listen}", upstream.option, f"--access-log={log}"]
    with Running("evproxy", *options, "--access-log-format=tcplog") as proxy:
        proxy.says("listens on")
        with socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET6) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path) if family == "unix" else ("::1", proxy.port()))
            client.sendall(b"?")
            with upstream.accept() as server:
                assert server.recv(1) == b"?"
                server.sendall(b"!")
            assert rest(client) == (b"!", END)
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    [line] = log.read_text().splitlines(keepends=True)
    assert LINE.fullmatch(line)
    assert line.startswith("unix:1 [" if family == "unix" else "::1:")
    assert f" default/{upstream.option.partition('=')[2]} 0/" in line
    assert line.endswith(" 1 -- 1/1/0/0/0 0/0\n")


@pytest.mark.parametrize("form", ["json", "tcplog"])
def test_tls_that_ends_here(
    upstream: Upstream, tmp_path: Path, certificates: Certificates, form: str
) -> None:
    """The line says which TLS it was; HAProxy's has its mark of an encrypted frontend."""
    listener = f'tls = {{certificates = ["{certificates.pem}"], alpn = ["h2"]}}'
    option = configured(tmp_path, upstream, f'format = "{form}"', listener)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with Running("evproxy", option) as proxy:
        raw = socket.create_connection(("127.0.0.1", proxy.port()), PATIENCE)
        with context.wrap_socket(raw, server_hostname="a.org") as client:
            client.sendall(b"?")
            with upstream.accept() as server:
                assert server.recv(1) == b"?"
                server.sendall(b"!")
                assert client.recv(1) == b"!"
                version, cipher = client.version(), client.cipher()
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    log = tmp_path / "access.log"
    if form == "tcplog":
        assert " web~ web/" in log.read_text()
        assert LINE.fullmatch(log.read_text())
        return
    [line] = in_json(log)
    assert cipher is not None
    assert (line["tls_version"], line["tls_cipher"]) == (version, cipher[0])
    assert (line["tls_protocol"], line["server_name"]) == ("h2", "a.org")
    assert 0 < line["route_time"] < line["connect_time"]
