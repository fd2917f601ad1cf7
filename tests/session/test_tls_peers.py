"""TLS between evproxy and real programs: curl, openssl and nginx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from evproxy.model import Ending
from evproxy.settings import PoolTLS
from tests.support.peers import END
from tests.support.programs import said
from tests.support.proxies import Proxied
from tests.support.real_servers import RealServers, free_port

pytestmark = pytest.mark.deadline(30)

client_side = pytest.mark.parametrize(
    "proxied", ["tls-client-1.2", "tls-client-1.3"], indirect=True
)
server_side = pytest.mark.parametrize("proxied", ["tls-server-1.3"], indirect=True)

ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole"

NGINX = """
daemon off;
master_process off;
pid nginx.pid;
events {{ }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port} http2;
        location / {{ return 200 "$server_protocol\\n"; }}
    }}
}}
"""


def authority(proxied: Proxied) -> str:
    assert proxied.certificates is not None
    return f"{proxied.certificates.authorities}/ca.pem"


def url(proxied: Proxied) -> str:
    return f"https://127.0.0.1:{proxied.address[1]}/"


@client_side
@pytest.mark.peers("curl")
async def test_curl(proxied: Proxied) -> None:
    """An answer that ends with its stream is whole for curl, which looks at the close_notify."""
    await proxied.start()
    version = f"--tlsv{proxied.tls_version}"
    asking: Deferred[str] = Deferred.fromCoroutine(
        said(proxied.reactor, "curl", "-sS", version, "--cacert", authority(proxied), url(proxied))
    )
    server = await proxied.upstream.accept()
    await server.receive(20)
    await server.send(ANSWER)
    server.end()
    assert await asking == "whole"


@client_side
@pytest.mark.peers("curl", "nginx")
async def test_curl_with_http_2(proxied: Proxied, real_servers: RealServers) -> None:
    """The protocol that curl and the listener agree on reaches a server that speaks it."""
    port, directory = free_port(), real_servers.directory()
    (directory / "nginx.conf").write_text(NGINX.format(port=port))
    command = ["nginx", "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
    await real_servers.add(command, directory).started(proxied.reactor, port)
    await proxied.start(upstreams=[f"127.0.0.1:{port}"], listener_tls={"alpn": ("h2",)})
    curl = ("curl", "-sS", "--http2", "--cacert", authority(proxied), url(proxied))
    assert await said(proxied.reactor, *curl) == "HTTP/2.0\n"


@client_side
@pytest.mark.peers("openssl")
async def test_openssl_as_a_client(proxied: Proxied, tmp_path: Path) -> None:
    """What `s_client` reads from its input, and the end of that, reaches the server."""
    await proxied.start()
    question = tmp_path / "question"
    question.write_text("question\n")
    flag = f"-tls{proxied.tls_version.replace('.', '_')}"
    place = f"127.0.0.1:{proxied.address[1]}"
    command = ("openssl", "s_client", "-quiet", "-no_ign_eof", flag, "-connect", place)
    asking: Deferred[Any] = Deferred.fromCoroutine(
        said(proxied.reactor, *command, "-CAfile", authority(proxied), stdin=question)
    )
    server = await proxied.upstream.accept()
    assert await server.rest() == (b"question\n", END)
    server.end()
    await asking
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.FINISHED


@server_side
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.peers("openssl")
async def test_openssl_as_a_server(
    proxied: Proxied, real_servers: RealServers, version: str
) -> None:
    """`s_server` is verified, and its page is whole for a client without TLS."""
    assert proxied.certificates is not None
    port, directory = free_port(), real_servers.directory()
    command = ["openssl", "s_server", "-www", version, "-accept", f"127.0.0.1:{port}"]
    pem = proxied.certificates.pem
    server = real_servers.add([*command, "-cert", pem, "-key", pem], directory)
    await server.started(proxied.reactor, port)
    await proxied.start(upstreams=[f"127.0.0.1:{port}"], tls=PoolTLS(ca=authority(proxied)))
    client = proxied.client()
    await client.send(b"GET / HTTP/1.0\r\n\r\n")
    received, end = await client.rest()
    assert b"200 ok" in received
    assert received.rstrip().endswith(b"</HTML>")
    assert end == END
