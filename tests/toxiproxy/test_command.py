"""The command ``evproxy toxiproxy``, and its HTTP."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

import pytest

from evproxy.cli.main import main
from evproxy.toxiproxy.service import MOST_BODY
from tests.support.toxiproxy_server import ToxiproxyServer


def ask(
    server: ToxiproxyServer, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, bytes, str]:
    """The status, the body and the type of the answer to a request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("content-type", "")
    finally:
        connection.close()


def test_http(toxiproxy_server: ToxiproxyServer) -> None:
    """The API over HTTP: JSON, empty answers, errors, browsers, and a body that is too long."""
    json_type = "application/json"
    version = (200, b'{"version": "2.12.0"}\n', json_type)
    assert ask(toxiproxy_server, "GET", "/version") == version
    made = b'{"name": "one", "upstream": "127.0.0.1:9", "listen": "127.0.0.1:0"}'
    status, body, kind = ask(toxiproxy_server, "POST", "/proxies", made)
    assert (status, kind, json.loads(body)["name"]) == (201, json_type, "one")
    assert ask(toxiproxy_server, "DELETE", "/proxies/one")[:2] == (204, b"")
    status, body, _ = ask(toxiproxy_server, "GET", "/proxies/one?x=1")
    assert (status, json.loads(body)) == (404, {"error": "proxy not found", "status": 404})
    assert ask(toxiproxy_server, "GET", "/proxies", b"", **{"User-Agent": "Mozilla/5.0"})[0] == 403
    assert ask(toxiproxy_server, "POST", "/populate", b"[]".ljust(MOST_BODY))[0] == 201
    assert ask(toxiproxy_server, "POST", "/populate", b" " * (MOST_BODY + 1))[0] == 413


def test_proxies_of_a_file(tmp_path: Path) -> None:
    """The proxies of a JSON file are there before the first call."""
    file = tmp_path / "proxies.json"
    file.write_text('[{"name": "one", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"}]')
    server = ToxiproxyServer(f"--config={file}", "--seed=5")
    proxies = json.loads(ask(server, "GET", "/proxies")[1])
    log = server.stop()
    assert list(proxies) == ["one"]
    assert "The faults of proxy one have the seed" in log
    assert server.process.returncode == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[{}]", "missing required field: name at proxy 1"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: str | None, why: str) -> None:
    """One line on standard error, and the status 1."""
    file = tmp_path / "proxies.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RuntimeError, match=f"evproxy toxiproxy: {file}: {why}") as raised:
        ToxiproxyServer(f"--config={file}")
    assert "Traceback" not in str(raised.value)
    assert "listens on" not in str(raised.value)


def test_an_address_in_use() -> None:
    """One line on standard error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        where = f"evproxy toxiproxy: cannot listen on 127.0.0.1:{port}: Address already in use"
        with pytest.raises(RuntimeError, match=where):
            ToxiproxyServer(f"--port={port}")


@pytest.mark.parametrize("port", ["x", "-1", "65536"])
def test_a_wrong_port(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line is refused in one line."""
    with pytest.raises(SystemExit):
        main(["toxiproxy", f"--port={port}"])
    assert "expected a port from 0 to 65535" in capsys.readouterr().err
