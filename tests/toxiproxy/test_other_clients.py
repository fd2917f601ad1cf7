"""
The requests of clients in other languages, as their libraries write them.

Sources: ``client/`` of Shopify/toxiproxy (Go), ``lib/`` of Shopify/toxiproxy-ruby, ``src/main`` of
trekawek/toxiproxy-java.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.toxiproxy_server import ToxiproxyServer

GO = {
    "User-Agent": "toxiproxy-cli",
    "Content-Type": "application/json",
    "Accept-Encoding": "gzip",
}
RUBY = {
    "Accept-Encoding": "gzip;q=1.0,deflate;q=0.6,identity;q=0.3",
    "Accept": "*/*",
    "User-Agent": "Ruby",
    "Content-Type": "application/x-www-form-urlencoded",
}
JAVA = {
    "User-Agent": "Java/17.0.9",
    "Accept": "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
    "Connection": "keep-alive",
    "Content-type": "application/x-www-form-urlencoded",
}


class Connection:
    """One connection, on which requests follow each other, byte by byte as they are written."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._stream = self._socket.makefile("rb")
        self._headers = {"Host": f"localhost:{port}"} | headers

    def __call__(self, call: str, body: str | None = None) -> tuple[int, Any]:
        """The status and the body of the answer to `call`: a method and a path."""
        content = b"" if body is None else body.encode()
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Length"] = str(len(content))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._socket.sendall(f"{call} HTTP/1.1\r\n{head}\r\n".encode() + content)
        status = int(self._stream.readline().split()[1])
        length = 0
        while (line := self._stream.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            if name.lower() == "content-length":
                length = int(value)
        answer = self._stream.read(length)
        return status, json.loads(answer) if answer else None

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


@pytest.fixture
def client(
    request: pytest.FixtureRequest, toxiproxy_server: ToxiproxyServer
) -> Iterator[Connection]:
    """A connection with the headers of the test's parameter."""
    connection = Connection(toxiproxy_server.port, request.param)
    yield connection
    for name in connection("GET /proxies")[1]:
        connection(f"DELETE /proxies/{name}")
    connection.close()


@pytest.mark.parametrize("client", [GO], indirect=True)
def test_go(client: Connection) -> None:
    """Go writes every field, empty ones too."""
    made = (
        '{"name":"redis","listen":"localhost:0","upstream":"localhost:9","enabled":true,'
        '"toxics":null}'
    )
    status, proxy = client("POST /proxies", made)
    assert (status, proxy["enabled"], proxy["toxics"]) == (201, True, [])
    toxic = (
        '{"name":"","type":"latency","stream":"downstream","toxicity":1,'
        '"attributes":{"latency":1000,"jitter":50}}'
    )
    status, added = client("POST /proxies/redis/toxics", toxic)
    assert (status, added["name"]) == (200, "latency_downstream")
    status, changed = client(
        "PATCH /proxies/redis/toxics/latency_downstream",
        '{"attributes":{"jitter":20},"toxicity":0.5}',
    )
    assert (status, changed["attributes"]) == (200, {"latency": 1000, "jitter": 20})
    assert changed["toxicity"] == 0.5
    status, toxics = client("GET /proxies/redis/toxics")
    assert (status, toxics) == (200, [changed])
    listen = proxy["listen"]
    saved = (
        f'{{"name":"redis","listen":"{listen}","upstream":"localhost:9","enabled":false,'
        f'"toxics":{json.dumps(toxics)}}}'
    )
    status, proxy = client("POST /proxies/redis", saved)
    assert (status, proxy["enabled"], len(proxy["toxics"])) == (200, False, 1)
    assert client("POST /reset", "") == (204, None)
    assert client("DELETE /proxies/redis/toxics/latency_downstream")[0] == 404
    status, answer = client("POST /populate", f"[{made}]")
    assert (status, [each["name"] for each in answer["proxies"]]) == (201, ["redis"])
    assert client("GET /proxies/none") == (404, {"error": "proxy not found", "status": 404})
    assert client("DELETE /proxies/redis") == (204, None)


@pytest.mark.parametrize("client", [RUBY], indirect=True)
def test_ruby(client: Connection) -> None:
    """Ruby says that JSON is a form, and writes null for what nobody has set."""
    assert client("GET /version") == (200, {"version": "2.12.0"})
    made = '{"upstream":"localhost:9","name":"mysql","listen":"localhost:0","enabled":null}'
    status, proxy = client("POST /proxies", made)
    assert (status, proxy["enabled"]) == (201, True)
    assert client("POST /proxies/mysql", '{"enabled":false}')[1]["enabled"] is False
    assert client("PATCH /proxies/mysql", '{"enabled":true}')[1]["listen"] == proxy["listen"]
    toxic = (
        '{"name":"latency_downstream","type":"latency","stream":"downstream","toxicity":1.0,'
        '"attributes":{"latency":100}}'
    )
    assert client("POST /proxies/mysql/toxics", toxic)[0] == 200
    assert client("POST /proxies/mysql/toxics", toxic)[0] == 409
    assert client("DELETE /proxies/mysql/toxics/latency_downstream") == (204, None)
    populated = f'[{{"name":"mysql","upstream":"localhost:9","listen":"{proxy["listen"]}"}}]'
    status, answer = client("POST /populate", populated)
    assert (status, answer["proxies"][0]["listen"]) == (201, proxy["listen"])
    assert client("POST /reset", "") == (204, None)


@pytest.mark.parametrize("client", [JAVA], indirect=True)
def test_java(client: Connection) -> None:
    """Java says that JSON is a form, and writes whole numbers and fractions."""
    made = '{"name":"pg","listen":"127.0.0.1:0","upstream":"localhost:9"}'
    assert client("POST /proxies", made)[0] == 201
    toxic = (
        '{"name":"slow","stream":"DOWNSTREAM","type":"slicer","attributes":'
        '{"average_size":100,"delay":5}}'
    )
    status, added = client("POST /proxies/pg/toxics", toxic)
    assert (status, added["stream"]) == (200, "downstream")
    assert client("POST /proxies/pg/toxics/slow", '{"toxicity":0.5}')[1]["toxicity"] == 0.5
    status, changed = client("POST /proxies/pg/toxics/slow", '{"attributes":{"size_variation":10}}')
    assert changed["attributes"] == {"average_size": 100, "size_variation": 10, "delay": 5}
    assert client("GET /proxies/pg/toxics/slow")[1] == changed
    assert client("POST /proxies/pg", '{"enabled":false}')[1]["enabled"] is False
    assert client("DELETE /proxies/pg/toxics/slow") == (204, None)
